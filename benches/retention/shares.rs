//! The share of sessions that a recorder still has in each deployment, counted from the packets that are left.

use std::collections::HashSet;
use std::io::Write as _;
use std::ops::Range;

use retrocap::budget::Split;
use retrocap::daemon::Settings;
use retrocap::judge::Classes;
use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::store::compress::Pace;
use retrocap::store::retention::Policy;
use retrocap::time::Timestamp;

use super::deployments::{Deployment, ELEPHANT};
use super::traffic::{Kind, SECOND_NS, Session, Traffic};

const BEGIN_NS: u64 = 1_795_700_000 * SECOND_NS;
/// Payload bytes that must be there for the first kilobyte.
const KILOBYTE: u64 = 1024;
/// Sessions with fewer bytes on the wire are small.
const SMALL_BYTES: u64 = 4096;

/// One large transfer beside the traffic of a deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elephant {
    pub(crate) bytes: u64,
    pub(crate) mss: u64,
    pub(crate) bytes_per_s: u64,
}

impl Elephant {
    /// The second in which it begins.
    pub(crate) const FROM_S: u64 = 1500;

    /// The second after it ends.
    pub(crate) fn ends_s(self) -> u64 {
        Self::FROM_S + self.bytes.div_ceil(self.bytes_per_s)
    }
}

/// Percentages of the sessions that began in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shares {
    pub(crate) sessions: usize,
    /// That have their first packet.
    pub(crate) first_packet: f64,
    /// That have their first packet and the first packet with payload.
    pub(crate) request: f64,
    /// That have all packets up to the one that completes the first kilobyte of payload.
    pub(crate) first_kb: f64,
    /// Of those with less than 4 kB, that are whole.
    pub(crate) small_whole: f64,
}

impl Shares {
    /// The shares of starts: first packet, request, first kilobyte.
    pub(crate) fn of_starts(&self) -> [f64; 3] {
        [self.first_packet, self.request, self.first_kb]
    }
}

/// What is left at one time.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The shares of each quarter of the time so far, oldest first.
    pub(crate) quarters: [Shares; 4],
    pub(crate) all: Shares,
    /// Percentage of the probes of a scan that have their first packet.
    pub(crate) probes: Shares,
    /// Number of commands to a controller that are there, and of all.
    pub(crate) commands: [usize; 2],
    /// Payload bytes of the elephant that are there, as a percentage of the memory for packets.
    pub(crate) elephant: f64,
}

impl Look {
    /// The largest fall of a share from that of `other`, in points: of all sessions, and of a quarter of them.
    pub(crate) fn falls_from(&self, other: &Self) -> (f64, f64) {
        let fall = |was: &Shares, is: &Shares| -> f64 {
            was.of_starts().into_iter().zip(is.of_starts()).map(|(was, is)| was - is).fold(0.0, f64::max)
        };
        let quarters = other.quarters.iter().zip(&self.quarters).map(|(was, is)| fall(was, is));
        (fall(&other.all, &self.all), quarters.fold(0.0, f64::max))
    }

    /// By how many points the largest share of an older quarter exceeds that of the next.
    pub(crate) fn disorder(&self) -> f64 {
        let pairs = self.quarters.windows(2).flat_map(|pair| {
            let [older, newer] = [pair[0].of_starts(), pair[1].of_starts()];
            [older[0] - newer[0], older[1] - newer[1], older[2] - newer[2]]
        });
        pairs.fold(0.0, f64::max)
    }
}

/// A recorder in a deployment.
pub(crate) struct Recorder {
    deployment: Deployment,
    traffic: Traffic,
    pipeline: Pipeline,
    store_bytes: u64,
    second: u64,
}

impl Recorder {
    /// Creates a recorder that compresses as a replay does, and has the classes that apply by default.
    pub(crate) fn new(deployment: Deployment, seed: u64, budget_bytes: u64, policy: Policy) -> Self {
        let split = Split::new(budget_bytes, 1, false).expect("a budget that works").compressing();
        let classes = Classes::new(&Settings::default().all_classes(), split.store_bytes).expect("the shipped classes");
        let mut pipeline = Pipeline::new(Config {
            policy,
            classes,
            pinned_bytes: split.pinned_bytes(),
            ..Config::new(split.sessions_bytes, split.store_bytes)
        })
        .expect("memory");
        let compression = split.compression(10.0, Pace::Replay).expect("more than 0 %");
        let compressor = pipeline.compress(&compression).expect("memory");
        std::thread::spawn(move || compressor.run());
        Self { deployment, traffic: Traffic::new(seed), pipeline, store_bytes: split.store_bytes, second: 0 }
    }

    /// Plans one large transfer beside the rest.
    pub(crate) fn add(&mut self, elephant: Elephant) {
        let Elephant { bytes, mss, bytes_per_s } = elephant;
        self.traffic.elephant(Elephant::FROM_S * SECOND_NS, ELEPHANT, bytes, mss, bytes_per_s);
    }

    /// Receives the traffic before a second.
    pub(crate) fn receive_until(&mut self, second: u64) {
        let pipeline = &mut self.pipeline;
        while self.second < second {
            self.deployment.plan(&mut self.traffic, self.second);
            self.second += 1;
            self.traffic.send(self.second * SECOND_NS, |time_ns, frame| {
                pipeline.ingest(&[Packet {
                    time: Timestamp(BEGIN_NS + time_ns),
                    interface: InterfaceId(0),
                    link_type: LinkType::ETHERNET,
                    direction: Direction::Unknown,
                    flags: PacketFlags::default(),
                    original_len: u32::try_from(frame.len()).expect("a frame"),
                    drops_before: 0,
                    data: frame,
                }]);
            });
        }
    }

    /// Counts what is left.
    pub(crate) fn look(&mut self) -> Look {
        self.pipeline.publish();
        let segments = self.pipeline.worker().segments;
        let mut kept = HashSet::new();
        for view in segments.views() {
            let mut cursor = segments.cursor(view);
            while let Ok(Some(record)) = segments.next(&mut cursor) {
                kept.insert(record.header.sequence);
            }
        }
        let part = |from: u64, until: u64| {
            let of = from * self.second * SECOND_NS / 4..until * self.second * SECOND_NS / 4;
            self.shares(&kept, Kind::Ordinary, of)
        };
        let sessions = &self.traffic.sessions;
        let of = |kind: Kind| sessions.iter().filter(move |session| session.kind == kind).flat_map(|s| &s.packets);
        let there = |sequence: u64| kept.contains(&sequence);
        let commands = of(Kind::Polled).filter(|sent| sent.is_command);
        let elephant: u64 = of(Kind::Elephant).filter(|s| there(s.sequence)).map(|s| u64::from(s.payload)).sum();
        Look {
            quarters: [part(0, 1), part(1, 2), part(2, 3), part(3, 4)],
            all: part(0, 4),
            probes: self.shares(&kept, Kind::Probe, 0..u64::MAX),
            commands: [commands.clone().filter(|sent| there(sent.sequence)).count(), commands.count()],
            elephant: 100.0 * elephant as f64 / self.store_bytes as f64,
        }
    }

    fn shares(&self, kept: &HashSet<u64>, kind: Kind, begin_ns: Range<u64>) -> Shares {
        let begun = |session: &&Session| session.kind == kind && begin_ns.contains(&session.begin_ns);
        let mut counts = [0; 6];
        for session in self.traffic.sessions.iter().filter(begun).filter(|session| !session.packets.is_empty()) {
            let has = |at: usize| session.packets.get(at).is_some_and(|sent| kept.contains(&sent.sequence));
            let payload = session.packets.iter().position(|sent| sent.payload > 0).unwrap_or(0);
            let mut bytes = 0;
            let within = |bytes: &mut u64, payload: u32| {
                let is_within = *bytes < KILOBYTE;
                *bytes += u64::from(payload);
                is_within
            };
            let end = session.packets.iter().take_while(|sent| within(&mut bytes, sent.payload)).count();
            let is_small = session.wire_bytes < SMALL_BYTES;
            let facts = [
                true,
                has(0),
                has(0) && has(payload),
                (0..end).all(has),
                is_small,
                is_small && (0..session.packets.len()).all(has),
            ];
            counts.iter_mut().zip(facts).for_each(|(count, fact)| *count += usize::from(fact));
        }
        let [sessions, first, request, kilobyte, small, small_whole] = counts;
        let share = |of: usize, all: usize| if all == 0 { 100.0 } else { 100.0 * of as f64 / all as f64 };
        Shares {
            sessions,
            first_packet: share(first, sessions),
            request: share(request, sessions),
            first_kb: share(kilobyte, sessions),
            small_whole: share(small_whole, small),
        }
    }
}

/// Sends all traffic of a deployment, with or without an elephant. Returns what was left at each of the given seconds, and
/// at the end.
pub(crate) fn looks(
    deployment: Deployment,
    seed: u64,
    budget_bytes: u64,
    policy: Policy,
    elephant: Option<Elephant>,
    at_s: &[u64],
) -> Vec<Look> {
    let mut recorder = Recorder::new(deployment, seed, budget_bytes, policy);
    if let Some(elephant) = elephant {
        recorder.add(elephant);
    }
    let mut looks = Vec::new();
    for &second in at_s.iter().chain([&deployment.seconds]) {
        recorder.receive_until(second);
        looks.push(recorder.look());
    }
    looks
}

/// Writes all traffic of a deployment as a capture file.
pub(crate) fn write(
    deployment: Deployment,
    seed: u64,
    elephant: Option<Elephant>,
    path: &std::path::Path,
) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    // Classic pcap with microseconds, Ethernet.
    let header: [u32; 6] = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 262_144, 1];
    file.write_all(&header.map(u32::to_le_bytes).concat())?;
    let mut traffic = Traffic::new(seed);
    if let Some(Elephant { bytes, mss, bytes_per_s }) = elephant {
        traffic.elephant(Elephant::FROM_S * SECOND_NS, ELEPHANT, bytes, mss, bytes_per_s);
    }
    let mut result = Ok(());
    for second in 0..deployment.seconds {
        deployment.plan(&mut traffic, second);
        traffic.send((second + 1) * SECOND_NS, |time_ns, frame| {
            let time_ns = BEGIN_NS + time_ns;
            let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
            let len = frame.len() as u64;
            let record = [time_ns / SECOND_NS, time_ns % SECOND_NS / 1000, len, len].map(word).concat();
            if result.is_ok() {
                result = file.write_all(&record).and_then(|()| file.write_all(frame));
            }
        });
    }
    result.and_then(|()| file.flush())
}
