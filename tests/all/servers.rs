//! Promise 6 at typical capture points: a server that takes part in every session, a gateway, and a resolver.
//!
//! The traffic lasts half an hour with six sessions per second: five small ones and one with 60 to 200 kB. The recorder
//! has 24 MiB and compresses as in a replay. Figures are percentages of all sessions that began in a quarter of the
//! time, computed from the packets that are left.

use std::collections::HashSet;

use retrocap::budget::Split;
use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::store::compress::Pace;
use retrocap::time::Timestamp;

const BUDGET_BYTES: u64 = 24 << 20;
const BEGIN_NS: u64 = 1_795_700_000_000_000_000;
const SECONDS: u64 = 1800;
const MILLISECOND: u64 = 1_000_000;
const SYN: u8 = 2;
const FIN: u8 = 1;
const ACK: u8 = 16;

/// Capture point: number of clients and servers.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    clients: u64,
    servers: u64,
    /// Every other session goes from the first server to one of `clients` further servers.
    resolves: bool,
}

const PLACES: [Place; 5] = [
    Place { name: "one server", clients: 60, servers: 1, resolves: false },
    Place { name: "one client", clients: 1, servers: 1, resolves: false },
    Place { name: "sixty servers", clients: 60, servers: 60, resolves: false },
    Place { name: "a gateway", clients: 1, servers: 4000, resolves: false },
    Place { name: "a resolver", clients: 60, servers: 1, resolves: true },
];

/// A sent session: sequence numbers of its first packet, its request, and the packet that completes its first kilobyte.
struct Sent {
    second: u64,
    first: u64,
    request: u64,
    kilobyte: u64,
}

struct World {
    pipeline: Pipeline,
    random: u64,
    sent: u64,
    noise: Vec<u8>,
    frame: Vec<u8>,
    sessions: Vec<Sent>,
}

impl World {
    fn new(seed: u64) -> Self {
        let split = Split::new(BUDGET_BYTES, 1, false).unwrap().compressing();
        let mut pipeline = Pipeline::new(Config {
            pinned_bytes: split.pinned_bytes(),
            ..Config::new(split.sessions_bytes, split.store_bytes)
        })
        .unwrap();
        let compressor = pipeline.compress(&split.compression(10.0, Pace::Replay).unwrap()).unwrap();
        std::thread::spawn(move || compressor.run());
        let mut world =
            Self { pipeline, random: seed | 1, sent: 0, noise: Vec::new(), frame: Vec::new(), sessions: Vec::new() };
        world.noise = (0..1 << 17).flat_map(|_| world.draw().to_le_bytes()).collect();
        world
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.draw() >> 33) % bound
    }

    fn packet(&mut self, time: u64, ends: [(u32, u16); 2], flags: u8, payload: usize) {
        let [from, to] = ends;
        let at = usize::try_from(self.below((1 << 20) - payload as u64)).unwrap();
        self.frame.clear();
        self.frame.extend([2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 0, 0x45, 0]);
        self.frame.extend(u16::try_from(40 + payload).unwrap().to_be_bytes());
        self.frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
        self.frame.extend(from.0.to_be_bytes());
        self.frame.extend(to.0.to_be_bytes());
        self.frame.extend([from.1, to.1].map(u16::to_be_bytes).concat());
        self.frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0xf4, 0, 0, 0, 0]);
        self.frame.extend_from_slice(&self.noise[at..at + payload]);
        self.pipeline.ingest(&[Packet {
            time: Timestamp(BEGIN_NS + time),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(self.frame.len()).unwrap(),
            drops_before: 0,
            data: &self.frame,
        }]);
        self.sent += 1;
    }

    /// Sends a handshake, a request, a response in packets of at most `mss` bytes, and a close by both sides.
    fn session(&mut self, time: u64, client: (u32, u16), server: (u32, u16), response: usize, mss: usize) {
        let (out, back) = ([client, server], [server, client]);
        let first = self.sent;
        for (at, (ends, flags)) in (0u64..).zip([(out, SYN), (back, SYN | ACK), (out, ACK)]) {
            self.packet(time + at * 200_000, ends, flags, 0);
        }
        let request = self.sent;
        self.packet(time + MILLISECOND, out, ACK, 80);
        let kilobyte = self.sent;
        let mut left = response;
        while left > 0 {
            let payload = left.min(mss);
            left -= payload;
            self.packet(time + 2 * MILLISECOND + (response - left) as u64 * 200, back, ACK, payload);
        }
        for ends in [out, back] {
            self.packet(time + 140 * MILLISECOND, ends, FIN | ACK, 0);
        }
        self.sessions.push(Sent { second: time / 1000 / MILLISECOND, first, request, kilobyte });
    }

    fn seconds(&mut self, place: Place, seconds: std::ops::Range<u64>) {
        let address = |net: u32, host: u64| 0x0a4d_0000 + net * 0x1_0000 + u32::try_from(host).unwrap();
        for second in seconds {
            for i in 0..6 {
                let port = u16::try_from(20_000 + self.sessions.len() % 40_000).unwrap();
                let (mut client, mut server) =
                    (address(1, self.below(place.clients)), address(2, self.below(place.servers)));
                if place.resolves && i % 2 == 0 {
                    (client, server) = (address(2, 0), address(3, self.below(place.clients)));
                }
                let (response, mss) = if i == 5 { (60_000 + self.below(140_000), 14_480) } else { (3300, 1448) };
                let time = second * 1000 * MILLISECOND + i * 150 * MILLISECOND;
                self.session(time, (client, port), (server, 80), usize::try_from(response).unwrap(), mss);
            }
        }
    }

    fn kept(&mut self) -> HashSet<u64> {
        self.pipeline.publish();
        let segments = self.pipeline.worker().segments;
        let mut kept = HashSet::new();
        for view in segments.views() {
            let mut cursor = segments.cursor(view);
            while let Some(record) = segments.next(&mut cursor).unwrap() {
                kept.insert(record.header.sequence);
            }
        }
        kept
    }

    /// Percentages of sessions that keep the first packet, the start with the request, and the first kilobyte. One row
    /// per quarter, oldest first, then one row for all sessions.
    fn figures(&mut self) -> [[f64; 3]; 5] {
        let kept = self.kept();
        let has = |sequence: &u64| kept.contains(sequence);
        let row = |quarters: std::ops::Range<u64>| {
            let seconds = quarters.start * SECONDS / 4..quarters.end * SECONDS / 4;
            let of_then: Vec<&Sent> = self.sessions.iter().filter(|sent| seconds.contains(&sent.second)).collect();
            let share = |wanted: &dyn Fn(&Sent) -> bool| {
                let count = of_then.iter().filter(|sent| wanted(sent)).count();
                #[allow(clippy::cast_precision_loss, reason = "some thousand sessions")]
                let percent = 100.0 * count as f64 / of_then.len() as f64;
                percent
            };
            let start = |sent: &Sent| has(&sent.first) && has(&sent.request);
            let kilobyte = |sent: &Sent| (sent.first..=sent.kilobyte).all(|sequence| has(&sequence));
            [share(&|sent| has(&sent.first)), share(&start), share(&kilobyte)]
        };
        [row(0..1), row(1..2), row(2..3), row(3..4), row(0..4)]
    }
}

fn check(name: &str, figures: &[[f64; 3]; 5]) {
    println!("{name}: {figures:.1?}");
    let [first, request, kilobyte] = figures[4];
    assert!(first >= 98.0 && request >= 98.0, "{name}: {first} % first packets, {request} % requests");
    assert!(kilobyte >= 50.0, "{name}: {kilobyte} % first kilobytes");
    for quarters in figures[..4].windows(2) {
        for (older, newer) in quarters[0].iter().zip(quarters[1]) {
            assert!(newer >= older - 0.2, "{name}: an older quarter has more: {figures:?}");
        }
    }
}

#[test]
fn starts_are_kept_wherever_the_recorder_stands() {
    for place in PLACES {
        let mut world = World::new(7);
        world.seconds(place, 0..SECONDS);
        check(place.name, &world.figures());
    }
}

#[test]
fn an_elephant_takes_nothing_but_bulk() {
    let place = PLACES[0];
    let with = |elephant: Option<(u64, usize, u64)>, stop: u64| {
        let mut world = World::new(11);
        world.seconds(place, 0..1500);
        let from = world.sent;
        if let Some((bytes, mss, bytes_per_s)) = elephant {
            for at in 0..bytes / mss as u64 {
                let time = 1_500_000 * MILLISECOND + at * mss as u64 * 1_000_000 / bytes_per_s * 1000;
                world.packet(time, [(0x0a4d_0201, 1100), (0xc000_0263, 4444)], ACK, mss);
            }
        }
        let of_elephant = from..world.sent;
        world.seconds(place, 1505..stop);
        let left = world.kept().iter().filter(|sequence| of_elephant.contains(sequence)).count() as u64;
        (world.figures(), left)
    };
    let store_bytes = Split::new(BUDGET_BYTES, 1, false).unwrap().compressing().store_bytes;
    for stop in [1505, 1800] {
        let (without, _) = with(None, stop);
        for elephant in
            [(200_000_000, 14_480, 160_000_000), (40_000_000, 1448, 10_000_000), (20_000_000, 500, 100_000_000)]
        {
            let (figures, left) = with(Some(elephant), stop);
            println!("{elephant:?} until {stop}: {figures:.1?}, {left} packets of it left");
            for (was, is) in without.iter().flatten().zip(figures.iter().flatten()) {
                assert!(is.is_nan() || *is >= was - 2.0, "{elephant:?}: {was} became {is}");
            }
            assert!(left * elephant.1 as u64 <= store_bytes / 10 + 64 * 1024, "it keeps {left} packets");
        }
    }
}
