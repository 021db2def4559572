//! Wash-out attacks: how much one host must send before others lose their history.
//!
//! Ordinary hosts send sessions of 5 kB each and bulk until the store has been full for a long time. Then the attacker
//! sends too. The benchmark watches the 5 kB sessions that are one hour old when the attack begins. An attack ends when
//! more than one in twenty of them has lost its first kilobyte, or at the limit. The figure is the volume that the
//! attacker has sent, in multiples of the memory budget.

use retrocap::budget::Split;
use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::time::Timestamp;

/// Kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// SYNs from spoofed addresses to one service, which answers all of them.
    SpoofedSyns,
    /// One host scans all addresses and many ports of a /16. One in ten probes is refused, and the others get no
    /// answer.
    PortScan,
    /// One host sends single packets to random addresses.
    SingleUdp,
    /// One host queries a resolver for random names and gets answers.
    RandomNames,
    /// Two hosts have many sessions of 20 kB with each other, one after another.
    MediumSessions,
    /// One session without end.
    Elephant,
    /// One host sends IP fragments whose first fragments never arrive.
    Fragments,
}

impl Attack {
    /// All attacks.
    pub(crate) const ALL: [Self; 7] = [
        Self::SpoofedSyns,
        Self::PortScan,
        Self::SingleUdp,
        Self::RandomNames,
        Self::MediumSessions,
        Self::Elephant,
        Self::Fragments,
    ];

    /// Name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SpoofedSyns => "SYN flood, spoofed sources, one server",
            Self::PortScan => "port scan of a /16",
            Self::SingleUdp => "single-packet UDP sessions of one host",
            Self::RandomNames => "DNS random names, one resolver",
            Self::MediumSessions => "20 kB sessions between two hosts",
            Self::Elephant => "one elephant",
            Self::Fragments => "fragments without a first one",
        }
    }
}

/// Result of an attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Volume that the attacker sent until the wash-out or the limit, in multiples of the budget.
    pub(crate) budgets: f64,
    /// Whether too many sessions lost their first kilobyte.
    pub(crate) washed_out: bool,
    /// Number of watched sessions, which are one hour old when the attack begins.
    pub(crate) watched: usize,
    /// Number of watched sessions that still have their first kilobyte.
    pub(crate) left: usize,
}

/// More than one in this many watched sessions must lose its first kilobyte for a wash-out.
const LOST_SHARE: usize = 20;
const FIRST_BYTES: u64 = 1000;
const SECOND: u64 = 1_000_000_000;
const BEGIN: u64 = 1_767_225_600 * SECOND;
/// Rate of ordinary bulk for a budget of 40 MiB.
const ORDINARY_BYTES_PER_S: u64 = 80_000;
const HOUR_S: u64 = 3600;
const SESSION_PACKETS: [(bool, usize); 10] = [
    (true, 74),
    (false, 74),
    (true, 66),
    (true, 420),
    (false, 66),
    (false, 1514),
    (false, 1514),
    (true, 66),
    (false, 1140),
    (true, 66),
];
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Runs an attack at `bits_per_s` against a recorder with this budget, up to `limit` budgets.
pub(crate) fn run(attack: Attack, budget_bytes: u64, bits_per_s: u64, limit: f64) -> Outcome {
    let mut world = World::new(budget_bytes);
    // Three hours of ordinary traffic, so that sessions that are one hour old are well within the store's horizon.
    let attack_from = 3 * HOUR_S;
    for second in 0..attack_from {
        world.ordinary(second);
    }
    let watched = world.watched(attack_from - HOUR_S);
    let left = world.left(&watched);
    assert!(left == watched.len() && left >= 25, "{left} of {} sessions before the attack", watched.len());
    let mut attacker = Attacker { attack, random: 0x9e37_79b9_7f4a_7c15, sent: 0, count: 0 };
    let begin = BEGIN + attack_from * SECOND;
    let mut second = attack_from;
    let mut look_at = budget_bytes;
    let limit_bytes = (limit * budget_bytes as f64) as u64;
    loop {
        let now = begin + (attacker.sent as f64 * 8.0 / bits_per_s as f64 * 1e9) as u64;
        while BEGIN + second * SECOND <= now {
            world.ordinary(second);
            second += 1;
        }
        attacker.step(&mut world, now);
        if attacker.sent >= look_at || attacker.sent >= limit_bytes {
            let left = world.left(&watched);
            let washed_out = (watched.len() - left) * LOST_SHARE > watched.len();
            if washed_out || attacker.sent >= limit_bytes {
                let budgets = attacker.sent as f64 / budget_bytes as f64;
                return Outcome { budgets, washed_out, watched: watched.len(), left };
            }
            look_at += budget_bytes / 2;
        }
    }
}

/// A recorder and the ordinary hosts that it captures.
struct World {
    pipeline: Pipeline,
    frame: Vec<u8>,
    sequence: u64,
    /// Second in which each 5 kB session began, and the sequence numbers of the packets in its first kilobyte.
    sessions: Vec<(u64, Vec<u64>)>,
    bulk_bytes_per_s: u64,
    due_bytes: u64,
    hosts: u32,
}

impl World {
    fn new(budget_bytes: u64) -> Self {
        let split = Split::new(budget_bytes, 1, true).expect("a budget that works");
        let config =
            Config { pinned_bytes: split.pinned_bytes(), ..Config::new(split.sessions_bytes, split.store_bytes) };
        let pipeline = Pipeline::new(config).expect("memory");
        // The bulk of a campus with two sessions per second for 40 MiB, scaled to the budget.
        let bulk_bytes_per_s = ORDINARY_BYTES_PER_S * budget_bytes / (40 << 20);
        Self {
            pipeline,
            frame: Vec::new(),
            sequence: 0,
            sessions: Vec::new(),
            bulk_bytes_per_s,
            due_bytes: 0,
            hosts: 0,
        }
    }

    /// Sends one second of ordinary traffic. For 40 MiB it matches a campus with two sessions per second, and it scales
    /// with the budget. Seven of eight sessions are a query and an answer, and one has 5 kB. Each session has a new
    /// client. Bulk comes in sessions of one hour.
    fn ordinary(&mut self, second: u64) {
        let begin = BEGIN + second * SECOND;
        self.due_bytes += self.bulk_bytes_per_s;
        while self.due_bytes >= ORDINARY_BYTES_PER_S / 2 {
            self.due_bytes -= ORDINARY_BYTES_PER_S / 2;
            self.hosts += 1;
            let number = self.hosts;
            if !number.is_multiple_of(8) {
                let (client, server) = (0x0a00_0000 + number, 0xac11_0000 + number % 3000);
                self.udp(begin, client, server, [40_000, 53], 80);
                self.udp(begin + 20_000_000, server, client, [53, 40_000], 160);
                continue;
            }
            let (client, server) = (0x0a00_0000 + number, 0xac10_0000 + number % 3000);
            let mut first = Vec::new();
            let mut offset = 0;
            for (at, (out, len)) in (0u64..).zip(SESSION_PACKETS) {
                if offset < FIRST_BYTES {
                    first.push(self.sequence);
                }
                offset += len as u64;
                let flags = [SYN, SYN | ACK][usize::from(!out)];
                let flags = if at < 2 { flags } else { ACK };
                let (from, to, ports) =
                    if out { (client, server, [40_000, 443]) } else { (server, client, [443, 40_000]) };
                self.tcp(begin + at * 20_000_000, from, to, ports, flags, len);
            }
            self.sessions.push((second, first));
        }
        let frames = self.bulk_bytes_per_s / 1514;
        let host = 0x0b00_0000 + u32::try_from(second / HOUR_S).expect("a few hours");
        for i in 0..frames {
            let time = begin + 500_000_000 + i * 1_000_000;
            self.tcp(time, host, 0xac20_0001, [41_000, 443], ACK, 1514);
        }
    }

    /// The 5 kB sessions of the 10 minutes before `second`.
    fn watched(&self, second: u64) -> Vec<Vec<u64>> {
        let of_then = self.sessions.iter().filter(|(begin, _)| (second - 600..second).contains(begin));
        of_then.map(|(_, first)| first.clone()).collect()
    }

    /// Number of watched sessions that still have all packets of their first kilobyte.
    fn left(&mut self, watched: &[Vec<u64>]) -> usize {
        self.pipeline.publish();
        let worker = self.pipeline.worker();
        let mut kept = std::collections::HashSet::new();
        for view in worker.segments.views() {
            let mut cursor = worker.segments.cursor(view);
            while let Ok(Some(record)) = worker.segments.next(&mut cursor) {
                kept.insert(record.header.sequence);
            }
        }
        watched.iter().filter(|packets| packets.iter().all(|sequence| kept.contains(sequence))).count()
    }

    fn tcp(&mut self, time: u64, from: u32, to: u32, ports: [u16; 2], flags: u8, len: usize) {
        let len = len.max(54);
        self.ip(from, to, 6, 0, len);
        self.frame.extend(ports.map(u16::to_be_bytes).concat());
        self.frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        self.send(time, len);
    }

    fn udp(&mut self, time: u64, from: u32, to: u32, ports: [u16; 2], len: usize) {
        let len = len.max(42);
        self.ip(from, to, 17, 0, len);
        self.frame.extend(ports.map(u16::to_be_bytes).concat());
        self.frame.extend([(len - 34).to_be_bytes()[6], (len - 34).to_be_bytes()[7], 0, 0]);
        self.send(time, len);
    }

    /// Writes the Ethernet and IPv4 headers.
    fn ip(&mut self, from: u32, to: u32, protocol: u8, fragment: u16, len: usize) {
        self.frame.clear();
        self.frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
        let total = u16::try_from(len - 14).unwrap_or(u16::MAX);
        self.frame.extend(total.to_be_bytes());
        self.frame.extend([(self.sequence >> 8).to_le_bytes()[0], self.sequence.to_le_bytes()[0]]);
        self.frame.extend(fragment.to_be_bytes());
        self.frame.extend([64, protocol, 0, 0]);
        self.frame.extend(from.to_be_bytes());
        self.frame.extend(to.to_be_bytes());
    }

    fn send(&mut self, time: u64, len: usize) {
        self.frame.resize(len, 0x5a);
        self.pipeline.ingest(&[Packet {
            time: Timestamp(time),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(len).expect("a frame"),
            drops_before: 0,
            data: &self.frame,
        }]);
        self.sequence += 1;
    }
}

struct Attacker {
    attack: Attack,
    random: u64,
    sent: u64,
    count: u64,
}

/// Addresses of the attacker and of its peer or victim.
const ATTACKER: u32 = 0xc0a8_6401;
const OTHER: u32 = 0xc0a8_0001;

impl Attacker {
    fn draw(&mut self) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Sends one packet or one exchange. Packets from other hosts do not count as sent.
    fn step(&mut self, world: &mut World, now: u64) {
        let random = self.draw();
        let [a, b, c, d, e, f, ..] = random.to_le_bytes();
        let address = u32::from_le_bytes([a, b, c, d]);
        let port = u16::from_le_bytes([e, f]);
        self.count += 1;
        match self.attack {
            Attack::SpoofedSyns => {
                world.tcp(now, address, OTHER, [port, 443], SYN, 60);
                world.tcp(now + 500, OTHER, address, [443, port], SYN | ACK, 60);
                self.sent += 60;
            }
            Attack::PortScan => {
                let target = 0xac1e_0000 | u32::try_from(self.count & 0xffff).expect("16 bits");
                let wanted = u16::try_from(self.count >> 16 & 0xffff).expect("16 bits");
                world.tcp(now, ATTACKER, target, [port, wanted], SYN, 60);
                self.sent += 60;
                if self.count.is_multiple_of(10) {
                    world.tcp(now + 500, target, ATTACKER, [wanted, port], RST | ACK, 60);
                }
            }
            Attack::SingleUdp => {
                world.udp(now, ATTACKER, address, [port, 9], 80);
                self.sent += 80;
            }
            Attack::RandomNames => {
                world.udp(now, ATTACKER, OTHER, [port, 53], 90);
                world.udp(now + 500, OTHER, ATTACKER, [53, port], 150);
                self.sent += 90;
            }
            Attack::MediumSessions => {
                world.tcp(now, ATTACKER, OTHER, [port, 443], SYN, 74);
                world.tcp(now + 100, OTHER, ATTACKER, [443, port], SYN | ACK, 74);
                world.tcp(now + 200, ATTACKER, OTHER, [port, 443], ACK, 66);
                for i in 0..13 {
                    world.tcp(now + 300 + i, ATTACKER, OTHER, [port, 443], ACK, 1514);
                }
                world.tcp(now + 400, OTHER, ATTACKER, [443, port], RST, 54);
                self.sent += 140 + 13 * 1514;
            }
            Attack::Elephant => {
                world.tcp(now, ATTACKER, OTHER, [50_000, 443], ACK, 1514);
                self.sent += 1514;
            }
            Attack::Fragments => {
                world.ip(ATTACKER, address, 17, 185, 120);
                world.send(now, 120);
                self.sent += 120;
            }
        }
    }
}
