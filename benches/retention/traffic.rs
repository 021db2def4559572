//! Traffic built from conversations: packets are planned by session, and sent in order of time.

use std::collections::BTreeMap;

use super::random::Random;

pub(crate) const SECOND_NS: u64 = 1_000_000_000;
const MILLISECOND_NS: u64 = 1_000_000;
/// Time between the packets of a handshake, and between those of a close.
const SOON_NS: u64 = 200_000;
/// Time from the last packet of one side until the other side answers.
const ANSWER_NS: u64 = MILLISECOND_NS;
const NOISE_BYTES: usize = 1 << 20;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host(pub(crate) u32, pub(crate) u16);

/// The side that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Server,
}

/// How the packets of a conversation are sent, and what of them the recorder sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    /// Most payload bytes of one packet.
    pub(crate) mss: u64,
    pub(crate) bytes_per_s: u64,
    /// Tag of the virtual LAN, 0 for none.
    pub(crate) vlan: u16,
    /// Whether the recorder sees the packets of the client, and those of the server.
    pub(crate) sees: [bool; 2],
}

impl Wire {
    /// Ordinary Ethernet.
    pub(crate) const LAN: Self = Self { mss: 1448, bytes_per_s: 100_000_000, vlan: 0, sees: [true; 2] };
    /// A bulk transfer whose packets the kernel joins (GRO).
    pub(crate) const BULK: Self = Self { mss: 14_480, bytes_per_s: 5_000_000, ..Self::LAN };
}

/// What a session is, for the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A session that users look for.
    Ordinary,
    /// One large transfer.
    Elephant,
    /// One probe of a scan.
    Probe,
    /// A session that is polled.
    Polled,
}

/// A packet that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Position in the order of all packets.
    pub(crate) sequence: u64,
    pub(crate) payload: u32,
    /// Whether it is a command that a class marks as important.
    pub(crate) is_command: bool,
}

/// A session and those of its packets that were sent so far.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) kind: Kind,
    pub(crate) begin_ns: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) packets: Vec<Sent>,
}

#[derive(Clone, Copy, Debug)]
enum Payload {
    /// This many random bytes.
    Noise(u64),
    /// A Modbus/TCP message of this length with this function code.
    Modbus { len: u64, function: u8 },
}

impl Payload {
    fn len(self) -> u64 {
        match self {
            Self::Noise(len) | Self::Modbus { len, .. } => len,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    session: u32,
    ends: [Host; 2],
    vlan: u16,
    /// TCP flags; 0 for UDP.
    flags: u8,
    sequence: u32,
    payload: Payload,
}

/// All traffic of a run: what is planned, and what was sent.
pub(crate) struct Traffic {
    pub(crate) random: Random,
    /// For payloads, so that an additional session does not change the others.
    noise_from: Random,
    planned: BTreeMap<(u64, u64), Planned>,
    count: u64,
    sent: u64,
    pub(crate) sessions: Vec<Session>,
    noise: Vec<u8>,
    frame: Vec<u8>,
}

impl Traffic {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let noise = (0..NOISE_BYTES / 8).flat_map(|_| random.bits().to_le_bytes()).collect();
        Self {
            noise_from: random.clone(),
            random,
            planned: BTreeMap::new(),
            count: 0,
            sent: 0,
            sessions: Vec::new(),
            noise,
            frame: Vec::new(),
        }
    }

    /// A random number less than `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.random.between(0, bound - 1)
    }

    /// A port for the next session. It repeats after 44,000 sessions.
    pub(crate) fn port(&self) -> u16 {
        u16::try_from(20_000 + self.sessions.len() % 44_000).expect("less than 64,000")
    }

    pub(crate) fn begin(&mut self, kind: Kind, begin_ns: u64) -> u32 {
        self.sessions.push(Session { kind, begin_ns, wire_bytes: 0, packets: Vec::new() });
        u32::try_from(self.sessions.len() - 1).expect("fewer than 4 billion sessions")
    }

    /// Plans a TCP session: handshake, the bytes of each turn, and a close by both sides. Returns when it ends.
    pub(crate) fn tcp(&mut self, begin_ns: u64, ends: [Host; 2], turns: &[(From, u64)], wire: Wire) -> u64 {
        let session = self.begin(Kind::Ordinary, begin_ns);
        let mut time_ns = begin_ns;
        let mut sequences = [1u32; 2];
        let mut add = |time_ns: u64, from: From, flags: u8, payload: u64| {
            let from = from as usize;
            let counts = u32::from(flags & (SYN | FIN) != 0) + u32::try_from(payload).expect("a packet");
            if wire.sees[from] {
                let planned = Planned {
                    session,
                    ends: [ends[from], ends[1 - from]],
                    vlan: wire.vlan,
                    flags,
                    sequence: sequences[from],
                    payload: Payload::Noise(payload),
                };
                self.plan(time_ns, planned);
            }
            sequences[from] = sequences[from].wrapping_add(counts);
        };
        for (from, flags) in [(From::Client, SYN), (From::Server, SYN | ACK), (From::Client, ACK)] {
            add(time_ns, from, flags, 0);
            time_ns += SOON_NS;
        }
        for &(from, bytes) in turns {
            let mut left = bytes;
            while left > 0 {
                let payload = left.min(wire.mss);
                add(time_ns, from, PSH | ACK, payload);
                left -= payload;
                time_ns += payload * SECOND_NS / wire.bytes_per_s;
            }
            time_ns += ANSWER_NS;
        }
        for (from, flags) in [(From::Server, FIN | ACK), (From::Client, FIN | ACK), (From::Server, ACK)] {
            add(time_ns, from, flags, 0);
            time_ns += SOON_NS;
        }
        time_ns
    }

    /// Plans a query and its answer. Returns when the answer arrives.
    pub(crate) fn udp(&mut self, begin_ns: u64, ends: [Host; 2], payloads: [u64; 2], vlan: u16) -> u64 {
        let session = self.begin(Kind::Ordinary, begin_ns);
        let [client, server] = ends;
        for (at, (ends, payload)) in (0u64..).zip([([client, server], payloads[0]), ([server, client], payloads[1])]) {
            let payload = Payload::Noise(payload);
            self.plan(begin_ns + at * ANSWER_NS, Planned { session, ends, vlan, flags: 0, sequence: 0, payload });
        }
        begin_ns + ANSWER_NS
    }

    /// Plans one probe of a scan: a SYN, and the reset that answers it, if any.
    pub(crate) fn probe(&mut self, begin_ns: u64, ends: [Host; 2], is_refused: bool) {
        let session = self.begin(Kind::Probe, begin_ns);
        let [scanner, target] = ends;
        let payload = Payload::Noise(0);
        self.plan(begin_ns, Planned { session, ends, vlan: 0, flags: SYN, sequence: 1, payload });
        if is_refused {
            let (ends, flags) = ([target, scanner], RST | ACK);
            self.plan(begin_ns + SOON_NS, Planned { session, ends, vlan: 0, flags, sequence: 0, payload });
        }
    }

    /// Plans one large transfer, from `ends[0]`.
    pub(crate) fn elephant(&mut self, begin_ns: u64, ends: [Host; 2], bytes: u64, mss: u64, bytes_per_s: u64) {
        let session = self.begin(Kind::Elephant, begin_ns);
        for at in 0..bytes.div_ceil(mss) {
            let payload = mss.min(bytes - at * mss);
            let time_ns = begin_ns
                + u64::try_from(u128::from(at * mss) * u128::from(SECOND_NS) / u128::from(bytes_per_s))
                    .expect("a time");
            let sequence = u32::try_from((at * mss) & u64::from(u32::MAX)).expect("masked");
            let flags = PSH | ACK;
            self.plan(time_ns, Planned { session, ends, vlan: 0, flags, sequence, payload: Payload::Noise(payload) });
        }
    }

    /// Plans a Modbus request and its response in a session that was begun before.
    pub(crate) fn modbus(&mut self, session: u32, time_ns: u64, ends: [Host; 2], function: u8, lens: [u64; 2]) {
        let [client, server] = ends;
        for (at, (ends, len)) in (0u64..).zip([([client, server], lens[0]), ([server, client], lens[1])]) {
            let payload = Payload::Modbus { len, function };
            self.plan(
                time_ns + at * ANSWER_NS,
                Planned { session, ends, vlan: 0, flags: PSH | ACK, sequence: 1, payload },
            );
        }
    }

    fn plan(&mut self, time_ns: u64, planned: Planned) {
        self.planned.insert((time_ns, self.count), planned);
        self.count += 1;
    }

    /// Sends what is planned before `until_ns`, in order of time.
    pub(crate) fn send(&mut self, until_ns: u64, mut to: impl FnMut(u64, &[u8])) {
        while let Some(first) = self.planned.first_entry() {
            let (time_ns, _) = *first.key();
            if time_ns >= until_ns {
                break;
            }
            let planned = first.remove();
            self.write(&planned);
            to(time_ns, &self.frame);
            let session = &mut self.sessions[planned.session as usize];
            session.wire_bytes += self.frame.len() as u64;
            let is_command =
                matches!(planned.payload, Payload::Modbus { function: 5.., .. }) && planned.ends[1].1 == 502;
            let payload = u32::try_from(planned.payload.len()).expect("a packet");
            session.packets.push(Sent { sequence: self.sent, payload, is_command });
            self.sent += 1;
        }
    }

    /// Writes the frame of a packet.
    fn write(&mut self, planned: &Planned) {
        let Planned { ends: [from, to], vlan, flags, sequence, payload, .. } = *planned;
        let header = if flags == 0 { 8 } else { 20 };
        let len = |bytes: u64| u16::try_from(bytes).expect("at most 64 KiB").to_be_bytes();
        let frame = &mut self.frame;
        frame.clear();
        frame.extend([2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4]);
        if vlan != 0 {
            frame.extend([0x81, 0]);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(len(20 + header + payload.len()));
        frame.extend([0, 1, 0x40, 0, 64, if flags == 0 { 17 } else { 6 }, 0, 0]);
        frame.extend(from.0.to_be_bytes());
        frame.extend(to.0.to_be_bytes());
        frame.extend([from.1, to.1].map(u16::to_be_bytes).concat());
        if flags == 0 {
            frame.extend(len(header + payload.len()));
            frame.extend([0, 0]);
        } else {
            frame.extend(sequence.to_be_bytes());
            frame.extend([0, 0, 0, 1, 0x50, flags, 1, 0xf4, 0, 0, 0, 0]);
        }
        match payload {
            Payload::Noise(bytes) => {
                let bytes = usize::try_from(bytes).expect("a packet");
                let at = self.noise_from.bits() % (NOISE_BYTES - bytes) as u64;
                let at = usize::try_from(at).expect("within the noise");
                frame.extend_from_slice(&self.noise[at..at + bytes]);
            }
            Payload::Modbus { len: bytes, function } => {
                frame.extend([0, 1, 0, 0]);
                frame.extend(len(bytes - 6));
                frame.extend([1, function]);
                frame.resize(frame.len() + usize::try_from(bytes).expect("a message") - 8, 0);
            }
        }
    }
}
