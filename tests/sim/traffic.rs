//! Seeded random traffic of one host and its network.

use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::time::Timestamp;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const HOUR: u64 = 3600 * SECOND;
const BEGIN: u64 = 1_795_341_600 * SECOND;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Ports that classes and pins match.
pub(crate) const PORTS: [u16; 6] = [502, 443, 873, 53, 7000, 7001];

/// `SplitMix64` random number generator.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

/// Two endpoints. `a` is the originator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pair {
    pub(crate) a: (u32, u16),
    pub(crate) b: (u32, u16),
    pub(crate) protocol: u8,
    pub(crate) interface: u16,
}

/// A packet as sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) pair: Pair,
    /// Whether `a` sends the packet.
    pub(crate) out: bool,
    pub(crate) tcp_flags: u8,
    pub(crate) time: u64,
    /// Length of the frame in bytes.
    pub(crate) len: usize,
    /// Bytes captured by the source.
    pub(crate) captured: usize,
    pub(crate) drops_before: u32,
    /// Seed of the payload.
    pub(crate) salt: u64,
}

impl Sent {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let Pair { a, b, protocol, .. } = self.pair;
        let (from, to) = if self.out { (a, b) } else { (b, a) };
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        frame.extend(u16::try_from(self.len - 14).unwrap().to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend(from.0.to_be_bytes());
        frame.extend(to.0.to_be_bytes());
        frame.extend([from.1, to.1].map(u16::to_be_bytes).concat());
        if protocol == TCP {
            frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 5 << 4, self.tcp_flags, 255, 255, 0, 0, 0, 0]);
        } else {
            frame.extend(u16::try_from(self.len - 34).unwrap().to_be_bytes());
            frame.extend([0, 0]);
        }
        // About half of the payload repeats, so that it is compressible.
        let mut random = Random(self.salt);
        while frame.len() < self.len {
            frame.extend(random.next().to_be_bytes());
            frame.extend(b"GET /same");
        }
        frame.truncate(self.captured.min(self.len));
        frame
    }

    pub(crate) fn packet<'a>(&self, frame: &'a [u8]) -> Packet<'a> {
        Packet {
            time: Timestamp(self.time),
            interface: InterfaceId(self.pair.interface),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(self.len).unwrap(),
            drops_before: self.drops_before,
            data: frame,
        }
    }
}

/// An ongoing conversation.
#[derive(Clone)]
struct Flow {
    pair: Pair,
    sent: u64,
    /// Number of packets until the conversation ends; `u64::MAX` for pollers.
    packets: u64,
    len: (u64, u64),
    resets: bool,
}

/// State of the traffic generator.
pub(crate) struct Traffic {
    pub(crate) random: Random,
    pub(crate) now: u64,
    mean_ns: u64,
    flows: Vec<Flow>,
    hosts: u32,
    /// The current elephant, if any.
    elephant: Option<Pair>,
}

impl Traffic {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mean_ns = random.of(&[1_000_000, 20_000_000, 200_000_000]);
        Self { random, now: BEGIN, mean_ns, flows: Vec::new(), hosts: 0, elephant: None }
    }

    /// The packets of the next step.
    pub(crate) fn step(&mut self) -> Vec<Sent> {
        match self.random.below(100) {
            0..60 => self.mix(),
            60..74 => self.burst(),
            74..83 => self.flood(),
            83..88 => {
                self.now += self.random.between(1, 400) * SECOND;
                self.mix()
            }
            88..91 => {
                self.now += HOUR;
                self.mix()
            }
            91..94 => {
                self.now -= HOUR;
                self.mix()
            }
            94..95 => {
                self.now += 24 * HOUR;
                self.mix()
            }
            _ => self.polls(),
        }
    }

    fn mix(&mut self) -> Vec<Sent> {
        let count = self.random.between(10, 150);
        (0..count)
            .map(|_| {
                if self.flows.len() < 12 || (self.flows.len() < 60 && self.random.percent(20)) {
                    let flow = self.begin();
                    self.flows.push(flow);
                }
                let at = usize::try_from(self.random.below(self.flows.len() as u64)).unwrap();
                self.of_flow(at)
            })
            .collect()
    }

    fn begin(&mut self) -> Flow {
        self.hosts += 1;
        let random = &mut self.random;
        let protocol = random.of(&[TCP, TCP, UDP]);
        let port = random.of(&PORTS);
        let client = 0x0a00_0100 + u32::try_from(random.below(40)).unwrap();
        let server = 0xc000_0200 + u32::try_from(random.below(12)).unwrap();
        let source = u16::try_from(20_000 + self.hosts % 40_000).unwrap();
        let pair = Pair { a: (client, source), b: (server, port), protocol, interface: u16::from(random.percent(20)) };
        let (packets, len) = match random.below(20) {
            0..9 => (random.between(1, 6), (60, 300)),
            9..15 => (random.between(5, 40), (60, 1514)),
            15..18 => (random.between(40, 400), (200, 1514)),
            _ => (u64::MAX, (60, 130)),
        };
        Flow { pair, sent: 0, packets, len, resets: random.percent(15) }
    }

    fn of_flow(&mut self, at: usize) -> Sent {
        let flow = &mut self.flows[at];
        let (n, last) = (flow.sent, flow.sent + 1 >= flow.packets);
        flow.sent += 1;
        let flow = flow.clone();
        let mut out = self.random.percent(50);
        let tcp_flags = match n {
            0 => SYN,
            1 => SYN | ACK,
            _ if last && flow.resets => RST,
            _ if n + 2 >= flow.packets => FIN | ACK,
            _ => ACK,
        };
        match n {
            0 => out = true,
            1 => out = false,
            _ if n + 2 >= flow.packets => out = last,
            _ => {}
        }
        if last {
            self.flows.swap_remove(at);
        }
        let len = if tcp_flags & SYN != 0 { 60 } else { self.random.between(flow.len.0, flow.len.1) };
        self.sent(flow.pair, out, tcp_flags, len)
    }

    fn burst(&mut self) -> Vec<Sent> {
        if self.random.percent(20) {
            self.elephant = None;
        }
        let pair = *self.elephant.get_or_insert_with(|| {
            let host = u32::try_from(self.random.below(1000)).unwrap();
            Pair { a: (0x0a01_0000 + host, 4444), b: (0xc0a8_0001, 8080), protocol: UDP, interface: 0 }
        });
        let count = self.random.between(40, 300);
        (0..count).map(|_| self.sent(pair, true, 0, 1400)).collect()
    }

    /// Single-packet sessions: a scan, spoofed sources to one service, or spoofed sources to all ports of a host.
    /// Or many short sessions that are answered.
    fn flood(&mut self) -> Vec<Sent> {
        let kind = self.random.below(4);
        if kind == 3 {
            return self.questions();
        }
        let count = self.random.between(50, 500);
        (0..count)
            .map(|_| {
                let any = u32::try_from(self.random.below(1 << 22)).unwrap();
                let port = u16::try_from(1024 + self.random.below(60_000)).unwrap();
                let (a, b) = match kind {
                    0 => ((0x0a66_0066, 666), (0xc600_0000 + any, 80)),
                    1 => ((0x5000_0000 + any, port), (0xc000_0201, 443)),
                    _ => ((0x5000_0000 + any, 53), (0xc000_0202, port)),
                };
                let pair = Pair { a, b, protocol: UDP, interface: 0 };
                self.sent(pair, true, 0, 60)
            })
            .collect()
    }

    /// Queries between many hosts, each answered at once.
    fn questions(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for _ in 0..self.random.between(50, 250) {
            self.hosts += 1;
            let source = u16::try_from(1024 + self.hosts % 60_000).unwrap();
            let server = 0xc000_0300 + self.hosts % 50;
            let pair = Pair { a: (0x0a02_0000 + self.hosts, source), b: (server, 53), protocol: UDP, interface: 0 };
            sent.push(self.sent(pair, true, 0, 90));
            sent.push(self.sent(pair, false, 0, 220));
        }
        sent
    }

    /// A quiet period in which only pollers send.
    fn polls(&mut self) -> Vec<Sent> {
        let pollers: Vec<usize> = (0..self.flows.len()).filter(|&at| self.flows[at].packets == u64::MAX).collect();
        let mut sent = Vec::new();
        for _ in 0..5 {
            self.now += self.random.between(1, 40) * SECOND;
            for &at in &pollers {
                let packet = self.of_flow(at);
                sent.push(packet);
            }
        }
        sent
    }

    fn sent(&mut self, pair: Pair, out: bool, tcp_flags: u8, len: u64) -> Sent {
        self.now += self.random.below(2 * self.mean_ns);
        let early = match self.random.below(100) {
            0..5 => self.random.below(5_000_000),
            5 => self.random.below(3 * SECOND),
            _ => 0,
        };
        let len = usize::try_from(len).unwrap();
        Sent {
            pair,
            out,
            tcp_flags: if pair.protocol == TCP { tcp_flags } else { 0 },
            time: self.now - early,
            len,
            captured: if self.random.percent(2) { len.min(100) } else { len },
            drops_before: if self.random.percent(1) { 3 } else { 0 },
            salt: self.random.next(),
        }
    }
}
