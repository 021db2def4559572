//! Campus workload. Sessions arrive as a Poisson process, and their sizes follow the lognormal mixture published with
//! the AGH 2015 flow data. Each session is sent as the frames that a host would see.
//!
//! Only active sessions are in memory. The frames of a session add up exactly to its drawn size. Small sessions are one
//! UDP packet or a query and its answer. Larger sessions are TCP: handshake, request, full segments with an
//! acknowledgement for every second one, and a close from both sides. Each session has its own rate, so large transfers
//! take long. Payloads are random. TCP and UDP checksums are zero, as with checksum offloading.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::time::Timestamp;

use crate::random::Random;

/// One component of the mixture of session sizes.
struct Part {
    weight: f64,
    sigma: f64,
    median_bytes: f64,
}

const fn part(weight: f64, sigma: f64, median_bytes: f64) -> Part {
    Part { weight, sigma, median_bytes }
}

/// Jurkiewicz, Rzym, Boryło: "Flow length and size distributions in campus Internet traffic", 2021; bytes of all flows.
const SIZES: [Part; 8] = [
    part(0.4498, 0.342, 106.0),
    part(0.2020, 0.510, 278.0),
    part(0.2687, 1.241, 1_000.0),
    part(0.0665, 1.451, 12_993.0),
    part(0.0110, 1.372, 278_973.0),
    part(0.001_57, 1.170, 4.888e6),
    part(0.000_293, 1.511, 28.03e6),
    part(0.000_140, 0.708, 83.18e6),
];

/// Smallest frame without frame check sequence (IEEE 802.3), and thus the smallest session.
const SIZE_BYTES_MIN: u64 = 60;
/// Largest session with a single packet. 47.8% of the measured flows have one packet.
const SINGLE_BYTES_MAX: u64 = 177;
/// Largest session that consists of a query and an answer. Larger sessions are TCP.
const EXCHANGE_BYTES_MAX: u64 = 1_000;
const FRAME_BYTES_MAX: u64 = 1_514;

const ETHERNET_BYTES: u64 = 14;
const IPV4_BYTES: u64 = 20;
const UDP_BYTES: u64 = 8;
/// Ethernet, IPv4 and TCP headers with the timestamp option: the length of an acknowledgement or a FIN.
const TCP_BARE_BYTES: u64 = ETHERNET_BYTES + IPV4_BYTES + 32;
/// Length of a SYN, with its additional options.
const TCP_SYN_BYTES: u64 = ETHERNET_BYTES + IPV4_BYTES + 40;
/// Bytes of a TCP session besides request and data: handshake, two FINs and the last acknowledgement.
const TCP_FIXED_BYTES: u64 = 2 * TCP_SYN_BYTES + 4 * TCP_BARE_BYTES;

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;

const SECOND_NS: f64 = 1e9;
/// 2026-01-01T00:00:00Z.
const BEGIN: Timestamp = Timestamp::from_unix(1_767_225_600, 0);
const NOISE_BYTES: usize = 64 << 10;

/// Generates the traffic frame by frame in order of time.
pub(crate) struct Campus {
    random: Random,
    rate_per_s: f64,
    end: Timestamp,
    next_start_ns: f64,
    sessions: u32,
    active: Vec<Active>,
    free: Vec<usize>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    noise: Vec<u8>,
    frame: Vec<u8>,
}

/// A frame and its position in its session.
pub(crate) struct Frame<'a> {
    /// The packet to record.
    pub(crate) packet: Packet<'a>,
    /// Session number, from 0 in order of start.
    pub(crate) session: u32,
    /// Packet number in the session, from 0.
    pub(crate) index: u32,
    /// Bytes of the session before this frame.
    pub(crate) offset: u64,
    /// Whether the sender closes the session with this frame.
    pub(crate) closes: bool,
}

impl Campus {
    /// Creates a workload of `rate_per_s` new sessions per second that lasts `hours`.
    pub(crate) fn new(seed: u64, rate_per_s: f64, hours: f64) -> Self {
        let mut random = Random::new(seed);
        let noise = (0..NOISE_BYTES / 8).flat_map(|_| random.bits().to_le_bytes()).collect();
        Self {
            random,
            rate_per_s,
            end: Timestamp(BEGIN.0 + (hours * 3600.0 * SECOND_NS) as u64),
            next_start_ns: 0.0,
            sessions: 0,
            active: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            noise,
            frame: Vec::with_capacity(FRAME_BYTES_MAX as usize),
        }
    }

    /// Start time of the workload.
    pub(crate) fn begin() -> Timestamp {
        BEGIN
    }

    /// The next frame, or `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Frame<'_>> {
        let starts_ns = BEGIN.0 + self.next_start_ns as u64;
        if self.due.peek().is_none_or(|Reverse((due_ns, _))| starts_ns <= *due_ns) {
            self.start(starts_ns);
        }
        let Reverse((time_ns, at)) = self.due.pop()?;
        if time_ns > self.end.0 {
            return None;
        }
        let active = &mut self.active[at];
        let (index, offset) = (active.index, active.offset);
        let part = active.step(&mut self.random);
        active.write(&part, &self.noise, &mut self.random, &mut self.frame);
        active.index += 1;
        active.offset += part.bytes;
        let session = active.session;
        match part.next_in_ns {
            Some(wait_ns) => self.due.push(Reverse((time_ns + wait_ns.max(1), at))),
            None => self.free.push(at),
        }
        let packet = Packet {
            time: Timestamp(time_ns),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: part.bytes as u32,
            drops_before: 0,
            data: &self.frame,
        };
        Some(Frame { packet, session, index, offset, closes: part.flags & FIN != 0 })
    }

    fn start(&mut self, time_ns: u64) {
        let active = Active::new(self.sessions, size_bytes(&mut self.random), &mut self.random);
        self.sessions += 1;
        self.next_start_ns += self.random.exponential() / self.rate_per_s * SECOND_NS;
        let at = self.free.pop().unwrap_or(self.active.len());
        if at == self.active.len() {
            self.active.push(active);
        } else {
            self.active[at] = active;
        }
        self.due.push(Reverse((time_ns, at)));
    }
}

fn size_bytes(random: &mut Random) -> u64 {
    let mut left = random.unit() * SIZES.iter().map(|part| part.weight).sum::<f64>();
    let part = SIZES.iter().find(|part| {
        left -= part.weight;
        left < 0.0
    });
    let part = part.unwrap_or(&SIZES[0]);
    (random.lognormal(part.median_bytes, part.sigma) as u64).max(SIZE_BYTES_MIN)
}

/// The next packet of a session.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Single,
    Query,
    Answer,
    Syn,
    SynAck,
    Established,
    Request,
    Data,
    Acknowledge,
    ServerFin,
    ClientFin,
    LastAcknowledge,
}

/// A frame to write: length, sender, TCP flags, and the delay to the next frame of the session.
struct Step {
    bytes: u64,
    from_client: bool,
    flags: u8,
    next_in_ns: Option<u64>,
}

/// An active session.
struct Active {
    session: u32,
    phase: Phase,
    index: u32,
    offset: u64,
    /// Length of the frame with the query or request.
    request_bytes: u64,
    /// Bytes of answers, data and acknowledgements still to send.
    left_bytes: u64,
    unacknowledged: u8,
    round_trip_ns: u64,
    bits_per_s: f64,
    client: [u8; 4],
    server: [u8; 4],
    client_port: u16,
    server_port: u16,
    sequence: [u32; 2],
}

impl Active {
    fn new(session: u32, size_bytes: u64, random: &mut Random) -> Self {
        let (phase, request_bytes, left_bytes, server_port) = if size_bytes <= SINGLE_BYTES_MAX {
            (Phase::Single, size_bytes, 0, [123, 514, 1900, 5353][random.between(0, 3) as usize])
        } else if size_bytes <= EXCHANGE_BYTES_MAX {
            let query = u64::from(random.between(SIZE_BYTES_MIN as u32, 90)).min(size_bytes - SIZE_BYTES_MIN);
            (Phase::Query, query, size_bytes - query, 53)
        } else {
            let request = TCP_BARE_BYTES + u64::from(random.between(80, 400));
            let port = [443, 443, 443, 80, 445, 22][random.between(0, 5) as usize];
            (Phase::Syn, request, size_bytes - TCP_FIXED_BYTES - request, port)
        };
        let host = random.between(0, 3_999).to_be_bytes();
        // A few servers have most of the sessions.
        let server = (random.unit().powi(3) * 20_000.0) as u32;
        let server = (0xc612_0000 | server).to_be_bytes();
        Self {
            session,
            phase,
            index: 0,
            offset: 0,
            request_bytes,
            left_bytes,
            unacknowledged: 0,
            round_trip_ns: (random.lognormal(0.03, 0.8).clamp(0.001, 0.4) * SECOND_NS) as u64,
            bits_per_s: random.lognormal(3.5e6, 0.9).clamp(0.25e6, 20e6),
            client: [10, 20, host[2], host[3]],
            server,
            // Ports repeat only after 64,000 sessions, so sessions that are open at the same time have different ones.
            client_port: (1_024 + session % 64_000) as u16,
            server_port,
            sequence: [random.bits() as u32, random.bits() as u32],
        }
    }

    /// Advances the session by one packet.
    fn step(&mut self, random: &mut Random) -> Step {
        let round_trip_ns = self.round_trip_ns;
        let soon_ns = u64::from(random.between(20_000, 500_000));
        let (phase, bytes, from_client, flags, wait_ns) = match self.phase {
            Phase::Single => {
                return Step { bytes: self.request_bytes, from_client: true, flags: 0, next_in_ns: None };
            }
            Phase::Query => (Phase::Answer, self.request_bytes, true, 0, round_trip_ns),
            Phase::Answer => return Step { bytes: self.left_bytes, from_client: false, flags: 0, next_in_ns: None },
            Phase::Syn => (Phase::SynAck, TCP_SYN_BYTES, true, SYN, round_trip_ns),
            Phase::SynAck => (Phase::Established, TCP_SYN_BYTES, false, SYN | ACK, soon_ns),
            Phase::Established => (Phase::Request, TCP_BARE_BYTES, true, ACK, soon_ns),
            Phase::Request => (Phase::Data, self.request_bytes, true, PSH | ACK, round_trip_ns),
            Phase::Data => return self.data(random, soon_ns),
            Phase::Acknowledge => {
                self.left_bytes -= TCP_BARE_BYTES;
                let pace_ns = self.pace_ns(FRAME_BYTES_MAX, random);
                (Phase::Data, TCP_BARE_BYTES, true, ACK, pace_ns)
            }
            Phase::ServerFin => (Phase::ClientFin, TCP_BARE_BYTES, false, FIN | ACK, soon_ns),
            Phase::ClientFin => (Phase::LastAcknowledge, TCP_BARE_BYTES, true, FIN | ACK, round_trip_ns),
            Phase::LastAcknowledge => {
                return Step { bytes: TCP_BARE_BYTES, from_client: false, flags: ACK, next_in_ns: None };
            }
        };
        self.phase = phase;
        Step { bytes, from_client, flags, next_in_ns: Some(wait_ns) }
    }

    /// The step for a data segment. The remaining bytes are none, or enough for another segment.
    fn data(&mut self, random: &mut Random, soon_ns: u64) -> Step {
        let smallest = TCP_BARE_BYTES + 1;
        let mut bytes = self.left_bytes.min(FRAME_BYTES_MAX);
        if (1..smallest).contains(&(self.left_bytes - bytes)) {
            bytes -= smallest;
        }
        self.left_bytes -= bytes;
        self.unacknowledged += 1;
        let (phase, wait_ns) = if self.left_bytes == 0 {
            (Phase::ServerFin, soon_ns)
        } else if self.unacknowledged == 2 && self.left_bytes >= TCP_BARE_BYTES + smallest {
            self.unacknowledged = 0;
            (Phase::Acknowledge, soon_ns / 10)
        } else {
            (Phase::Data, self.pace_ns(bytes, random))
        };
        self.phase = phase;
        Step { bytes, from_client: false, flags: ACK, next_in_ns: Some(wait_ns) }
    }

    /// Time for `bytes` at the session's rate, with a random factor from 0.5 to 1.5.
    fn pace_ns(&self, bytes: u64, random: &mut Random) -> u64 {
        (bytes as f64 * 8.0 / self.bits_per_s * (0.5 + random.unit()) * SECOND_NS) as u64
    }

    /// Writes the frame of a step into `frame`.
    fn write(&mut self, step: &Step, noise: &[u8], random: &mut Random, frame: &mut Vec<u8>) {
        let hosts = [(self.client, self.client_port), (self.server, self.server_port)];
        let [source, destination] = if step.from_client { hosts } else { [hosts[1], hosts[0]] };
        let is_tcp = step.flags != 0;
        frame.clear();
        frame.extend([2, 0, 0, 0, 0, if step.from_client { 1 } else { 2 }]);
        frame.extend([2, 0, 0, 0, 0, if step.from_client { 2 } else { 1 }]);
        frame.extend([0x08, 0x00]);
        let ip_bytes = (step.bytes - ETHERNET_BYTES) as u16;
        let ip_at = frame.len();
        frame.extend([0x45, 0]);
        frame.extend(ip_bytes.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, if is_tcp { 6 } else { 17 }, 0, 0]);
        frame.extend(source.0);
        frame.extend(destination.0);
        let checksum = internet_checksum(&frame[ip_at..]);
        frame[ip_at + 10..ip_at + 12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(source.1.to_be_bytes());
        frame.extend(destination.1.to_be_bytes());
        if is_tcp {
            self.write_tcp(step, frame);
        } else {
            frame.extend((ip_bytes - IPV4_BYTES as u16).to_be_bytes());
            frame.extend([0, 0]);
            debug_assert_eq!(frame.len() as u64, ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES);
        }
        let payload_bytes = step.bytes as usize - frame.len();
        let from = (random.bits() as usize) % (NOISE_BYTES - FRAME_BYTES_MAX as usize);
        frame.extend_from_slice(&noise[from..from + payload_bytes]);
    }

    /// Writes the TCP header after the ports, with options.
    fn write_tcp(&mut self, step: &Step, frame: &mut Vec<u8>) {
        let (mine, other) = if step.from_client { (0, 1) } else { (1, 0) };
        let (opens, header_bytes) = if step.flags & SYN != 0 { (true, TCP_SYN_BYTES) } else { (false, TCP_BARE_BYTES) };
        let acknowledged = if step.flags & ACK != 0 { self.sequence[other] } else { 0 };
        frame.extend(self.sequence[mine].to_be_bytes());
        frame.extend(acknowledged.to_be_bytes());
        frame.extend([if opens { 0xa0 } else { 0x80 }, step.flags, 0xff, 0xff, 0, 0, 0, 0]);
        if opens {
            frame.extend([2, 4, 0x05, 0xb4, 4, 2]); // MSS 1460, SACK permitted
        } else {
            frame.extend([1, 1]);
        }
        frame.extend([8, 10, 0, 0, 0, 1, 0, 0, 0, 1]); // timestamps
        if opens {
            frame.extend([1, 3, 3, 7]); // window scale
        }
        let counts = u32::from(step.flags & (SYN | FIN) != 0);
        self.sequence[mine] = self.sequence[mine].wrapping_add((step.bytes - header_bytes) as u32 + counts);
    }
}

/// Internet checksum (RFC 1071) of an IPv4 header whose checksum field is 0.
fn internet_checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
