//! A handover without a supervisor: what one recorder writes, the next one takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use retrocap::formats::reader::FileSource;
use retrocap::handover::{self, RestartReport};
use retrocap::interface::Interfaces;
use retrocap::judge::{Class, Classes, Pins};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::query::{History, Request};
use retrocap::store::Store;
use retrocap::store::compress::{Compression, Pace};
use retrocap::time::Timestamp;

use crate::generate::{self, Random, START_S};

/// The parameters of a recorder.
#[derive(Clone, Debug)]
struct Setup {
    workers: usize,
    store_bytes: u64,
    sessions_bytes: u64,
    compressing: bool,
    classes: Vec<Class>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { workers: 1, store_bytes: 8 << 20, sessions_bytes: 2 << 20, compressing: false, classes: Vec::new() }
    }
}

struct Made {
    pipelines: Vec<Pipeline>,
    interfaces: Arc<Interfaces>,
    pins: Arc<Pins>,
    compressors: Vec<JoinHandle<()>>,
}

impl Made {
    fn new(setup: &Setup) -> Self {
        let pins = Arc::new(Pins::new(1 << 20));
        let mut compressors = Vec::new();
        let pipelines = (0..setup.workers).map(|seed| {
            let mut pipeline = Pipeline::new(Config {
                classes: Classes::new(&setup.classes, setup.store_bytes).unwrap(),
                pins: Arc::clone(&pins),
                pinned_bytes: 1 << 20,
                seed: seed as u64,
                ..Config::new(setup.sessions_bytes, setup.store_bytes)
            })
            .unwrap();
            if setup.compressing {
                let compression = Compression { share: 0.5, pace: Pace::Replay, readers_bytes: 1 << 20 };
                let compressor = pipeline.compress(&compression).unwrap();
                compressors.push(std::thread::spawn(move || compressor.run()));
            }
            pipeline
        });
        Self { pipelines: pipelines.collect(), interfaces: Arc::default(), pins, compressors }
    }

    fn record(&mut self, worker: usize, capture: Vec<u8>) {
        let mut source = FileSource::from_reader(Box::new(Cursor::new(capture)), Arc::clone(&self.interfaces));
        self.pipelines[worker].run(&mut source, &AtomicBool::new(false)).unwrap();
    }

    fn history(&self) -> History {
        History::new(self.pipelines.iter().map(Pipeline::worker).collect(), Arc::clone(&self.interfaces))
    }

    /// Stops it, and returns the history that it writes for the next recorder.
    fn leave(mut self) -> Vec<u8> {
        let mut left = Vec::new();
        let before = RestartReport { since: Some(Timestamp::from_unix(START_S, 0)), ..RestartReport::default() };
        let stopped = Timestamp::from_unix(START_S + 3600, 0);
        let (interfaces, pins) = (&self.interfaces, &self.pins);
        handover::write(&mut left, &before, stopped, interfaces, pins, &mut self.pipelines).unwrap();
        drop(self.pipelines);
        self.compressors.into_iter().for_each(|thread| thread.join().unwrap());
        left
    }

    fn take_over(&mut self, left: &[u8]) -> RestartReport {
        let now = Timestamp::from_unix(START_S + 3605, 0);
        handover::read(&mut &*left, now, &self.interfaces, &self.pins, &mut self.pipelines)
    }

    /// Checks that everything adds up; returns the packets and the known sessions.
    fn all(&self) -> (Vec<Found>, BTreeMap<String, u32>) {
        let history = self.history();
        let totals = history.totals();
        let dropped: u64 = totals.dropped.iter().map(|volume| volume.packets).sum();
        assert_eq!(totals.received.packets, totals.stored.packets + totals.filtered.packets + dropped);
        assert_eq!(totals.stored.packets, totals.retained.packets + totals.evicted.packets);
        assert_eq!(totals.stored.bytes, totals.retained.bytes + totals.evicted.bytes);
        let mut found = Vec::new();
        let mut packets = history.packets(&Request::default()).unwrap();
        while let Some(packet) = packets.next() {
            let packet = packet.packet;
            found.push((packet.time, packet.original_len, packet.drops_before, packet.data.to_vec()));
        }
        assert_eq!(found.len() as u64, totals.retained.packets);
        let mut sessions = BTreeMap::new();
        let mut kept = 0;
        for (_, session) in
            history.workers.iter().flat_map(|worker| worker.sessions.known(Timestamp::MIN, Timestamp::MAX))
        {
            kept += session.kept_packets;
            let retrocap::session::Session {
                key, first, last, packets, bytes, cut_at, kept_packets, kept_bytes, ..
            } = session;
            let text = format!("{key:?} {first} {last} {packets:?} {bytes:?} {cut_at:?} {kept_packets} {kept_bytes}");
            *sessions.entry(text).or_default() += 1;
        }
        assert!(kept <= totals.retained.packets);
        (found, sessions)
    }
}

type Found = (Timestamp, u32, u32, Vec<u8>);

/// The history that a small recorder leaves after a capture. Fuzzing starts from it.
pub(crate) fn left_of(capture: &[u8]) -> Vec<u8> {
    let setup = Setup { store_bytes: Store::BYTES_MIN, sessions_bytes: 1 << 20, ..Setup::default() };
    let mut made = Made::new(&setup);
    let mut source = FileSource::from_reader(Box::new(Cursor::new(capture.to_vec())), Arc::clone(&made.interfaces));
    // A damaged capture is recorded up to the damage.
    let _ = made.pipelines[0].run(&mut source, &AtomicBool::new(false));
    made.pins.add("udp", Timestamp::from_unix(START_S, 0), Timestamp::from_unix(START_S + 7200, 0)).unwrap();
    made.leave()
}

#[test]
fn a_history_is_taken_over_whole() {
    for (compressing, bytes) in [(false, 1 << 20), (false, 40 << 20), (true, 40 << 20)] {
        let setup = Setup { compressing, ..Setup::default() };
        let mut old = Made::new(&setup);
        old.record(0, generate::traffic(bytes, 1));
        let before = old.all();
        let totals = old.history().totals();
        assert_eq!(totals.evicted.packets > 0, bytes > 1 << 20);
        assert_eq!(totals.packed.segments > 0, compressing);
        let left = old.leave();
        let mut new = Made::new(&setup);
        let taken = new.take_over(&left);
        assert_eq!(taken.problem, None);
        assert_eq!((taken.restored.packets, taken.restored.lost_packets), (totals.retained.packets, 0));
        assert_eq!(taken.since, Some(Timestamp::from_unix(START_S, 0)));
        assert_eq!(taken.gaps.len(), 1);
        assert!(new.all() == before, "{compressing} {bytes}");
        let mut again = new.history().totals();
        again.packed.cpu_ns = totals.packed.cpu_ns;
        assert_eq!(again, totals);
        // Recording continues as before.
        let more = generate::traffic(4 << 20, 2);
        new.record(0, more);
        let (packets, _) = new.all();
        assert!(packets.len() as u64 > taken.restored.packets / 2);
    }
}

/// How many packets of one recorder the other one has. It must have no others.
fn part(of: &[Found], has: &[Found]) -> usize {
    let mut counts: BTreeMap<&Found, i64> = BTreeMap::new();
    of.iter().for_each(|packet| *counts.entry(packet).or_default() += 1);
    for packet in has {
        let count = counts.entry(packet).or_default();
        *count -= 1;
        assert!(*count >= 0, "a packet that was not left, or twice: {}", packet.0);
    }
    has.len()
}

/// The first packet of each session: addresses, ports, and time.
fn starts(packets: &[Found]) -> BTreeSet<(Vec<u8>, Timestamp)> {
    let mut starts = BTreeMap::new();
    for (time, _, _, data) in packets {
        let ends = [&data[26..30], &data[34..36], &data[30..34], &data[36..38]];
        let [a, b, c, d] = ends;
        let session = if (a, b) < (c, d) { [a, b, c, d].concat() } else { [c, d, a, b].concat() };
        starts.entry(session).or_insert(*time);
    }
    starts.into_iter().collect()
}

#[test]
fn a_recorder_of_another_size_takes_over_the_most_important_part() {
    let setup = Setup { compressing: true, store_bytes: 16 << 20, sessions_bytes: 4 << 20, ..Setup::default() };
    let others = [
        Setup { store_bytes: 6 << 20, sessions_bytes: 4 << 20, ..setup.clone() },
        Setup { compressing: false, ..setup.clone() },
        Setup { store_bytes: 64 << 20, sessions_bytes: 16 << 20, ..setup.clone() },
        // Less room for sessions than there are sessions.
        Setup { sessions_bytes: 1 << 20, ..setup.clone() },
        Setup { workers: 1, ..setup.clone() },
        Setup { workers: 3, ..setup.clone() },
    ];
    for (number, other) in others.into_iter().enumerate() {
        let mut old = Made::new(&Setup { workers: 2, ..setup.clone() });
        old.record(0, generate::traffic(30 << 20, 1));
        old.record(1, generate::traffic(30 << 20, 2));
        let (packets, _) = old.all();
        let left = old.leave();
        let mut new = Made::new(&other);
        let taken = new.take_over(&left);
        assert_eq!(taken.problem, None, "{number}");
        let (again, _) = new.all();
        let kept = part(&packets, &again);
        eprintln!("{number}: {kept} of {} packets", packets.len());
        assert_eq!(taken.restored.packets, again.len() as u64);
        assert_eq!(taken.restored.lost_packets, (packets.len() - kept) as u64);
        // The starts of sessions are kept before anything else.
        let (starts, starts_kept) = (starts(&packets), starts(&again));
        let begun = starts_kept.intersection(&starts).count();
        eprintln!("   {begun} of {} starts", starts.len());
        assert!(begun * packets.len() > kept * starts.len() || kept == packets.len(), "{number}");
        if other.store_bytes >= 2 * setup.store_bytes {
            assert_eq!(kept, packets.len(), "there is room for all");
        }
        new.record(0, generate::traffic(8 << 20, 3));
        new.all();
    }
}

#[test]
fn classes_and_pins_are_found_again_by_name_and_time() {
    let class = |name: &str, port: u16| Class {
        name: name.to_owned(),
        filter: format!("udp port {port}"),
        weight: 4.0,
        cutoff_bytes: None,
        reserve_bytes: 1 << 20,
        important: None,
    };
    let mut old = Made::new(&Setup { classes: vec![class("dns", 53), class("other", 54)], ..Setup::default() });
    let time = |seconds| Timestamp::from_unix(START_S + seconds, 0);
    let ended = old.pins.add("udp port 1", time(0), time(3601)).unwrap();
    let holds = old.pins.add("host 192.0.2.7", time(0), time(9000)).unwrap();
    old.record(0, generate::traffic(30 << 20, 1));
    let before = old.all();
    let class_bytes = |made: &Made, class| made.history().workers[0].tally.class_bytes(class);
    let pinned = |made: &Made, place| made.history().workers[0].tally.pinned_bytes(place);
    let (dns, held) = (class_bytes(&old, 1), pinned(&old, holds.place));
    assert!(dns > 0 && held > 0);
    let left = old.leave();

    let mut new = Made::new(&Setup { classes: vec![class("new", 55), class("dns", 53)], ..Setup::default() });
    let taken = new.take_over(&left);
    assert_eq!((taken.problem.as_deref(), taken.restored.pins), (None, 1));
    assert!(new.all() == before);
    assert!(class_bytes(&new, 2) > 0 && class_bytes(&new, 1) == 0);
    assert!(pinned(&new, holds.place) > held / 2);
    let pins = new.pins.list();
    assert_eq!((pins.len(), pins[0].id, pins[0].until), (1, holds.id, time(9000)));
    new.pipelines[0].refresh();
    let next = new.pins.add("tcp", time(0), time(9000)).unwrap();
    assert!(next.id > holds.id.max(ended.id), "no number is given twice");
}

/// Changed bytes never cause a panic, and what is taken over from them adds up.
#[test]
fn damaged_histories_are_recognised() {
    let mut capture = generate::header();
    for number in 0..400u64 {
        let session = u32::try_from(number % 23).unwrap();
        generate::packet(&mut capture, number * 1_000_000, session, number % 3 > 0, 40);
    }
    let good = left_of(&capture);
    let setup = Setup { store_bytes: Store::BYTES_MIN, sessions_bytes: 1 << 20, ..Setup::default() };
    let mut random = Random(7);
    let at = |random: &mut Random| usize::try_from(random.below(good.len() as u64)).unwrap();
    let mut problems = 0;
    // Set RETROCAP_ROUNDS=100000 for a longer run.
    let rounds = std::env::var("RETROCAP_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(400);
    for round in 0..rounds {
        let mut bytes = good.clone();
        match round % 4 {
            0 => bytes.truncate(at(&mut random)),
            1 => bytes[at(&mut random)] ^= 1 << random.below(8),
            2 => {
                for _ in 0..8 {
                    bytes[at(&mut random)] = random.below(256).to_le_bytes()[0];
                }
            }
            _ => {
                let from = at(&mut random);
                let until = (from + 8).min(bytes.len());
                bytes[from..until].fill([0, 0xff, 0x7f][usize::try_from(random.below(3)).unwrap()]);
            }
        }
        let mut new = Made::new(&setup);
        let taken = new.take_over(&bytes);
        problems += usize::from(taken.problem.is_some());
        let (packets, _) = new.all();
        assert!(packets.len() <= 400);
        new.record(0, capture.clone());
        new.all();
    }
    eprintln!("{problems} of {rounds} were noticed");
    assert!(problems > rounds / 4);
}
