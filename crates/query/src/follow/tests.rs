use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use base::interface::Interfaces;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use engine::pipeline::{Config, Pipeline};
use engine::store::compress::{Compression, Pace};

/// Workers that continue to store packets while they are followed.
struct Recorder {
    pipelines: Vec<Pipeline>,
    interfaces: Arc<Interfaces>,
    stored: u32,
}

impl Recorder {
    /// A recorder that compresses its segments.
    fn compressing(workers: usize, store_bytes: u64, pace: Pace) -> Self {
        let mut recorder = Self::new(workers, store_bytes);
        let compression = Compression { share: 1.0, pace, readers_bytes: 1 << 20 };
        for pipeline in &mut recorder.pipelines {
            let compressor = pipeline.compress(&compression).unwrap();
            std::thread::spawn(move || compressor.run());
        }
        recorder
    }

    fn new(workers: usize, store_bytes: u64) -> Self {
        let interfaces = Arc::new(Interfaces::default());
        interfaces.intern("eth0", 2, LinkType::ETHERNET).unwrap();
        let pipelines: Vec<Pipeline> = (0..workers)
            .map(|_| {
                let config = Config { pinned_bytes: 1 << 20, ..Config::new(1 << 20, store_bytes) };
                Pipeline::new(config).unwrap()
            })
            .collect();
        Self { pipelines, interfaces, stored: 0 }
    }

    /// The history of this recorder, as readers see it.
    fn history(&self) -> History {
        History::new(self.pipelines.iter().map(Pipeline::worker).collect(), Arc::clone(&self.interfaces))
    }

    /// Stores a datagram of a session. Its payload begins with the number of the packet.
    fn store(&mut self, worker: usize, time: u64, session: u8, payload: usize) {
        let data = datagram(session, self.stored, payload);
        self.stored += 1;
        let packet = Packet {
            time: Timestamp(time),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(data.len()).unwrap(),
            drops_before: 0,
            data: &data,
        };
        self.pipelines[worker].ingest(&[packet]);
    }

    fn publish(&mut self) {
        self.pipelines.iter_mut().for_each(Pipeline::publish);
    }
}

fn datagram(session: u8, number: u32, payload: usize) -> Vec<u8> {
    let len = u16::try_from(payload + 4).unwrap();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((28 + len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, session, 10, 0, 0, 200]);
    frame.extend([4, 0, 0, 53]);
    frame.extend((8 + len).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(number.to_be_bytes());
    frame.resize(frame.len() + payload, 0x55);
    frame
}

/// The numbers of the packets that the follower returns now.
fn given(follow: &mut Follow<'_>, settled: Timestamp) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(found) = follow.next(settled) {
        numbers.push(u32::from_be_bytes(found.packet.data[42..46].try_into().unwrap()));
    }
    numbers
}

fn request(expression: &str) -> Request {
    Request { expression: expression.to_owned(), ..Request::default() }
}

#[test]
fn the_past_then_what_comes() {
    let mut recorder = Recorder::new(1, 4 << 20);
    (0..10).for_each(|i| recorder.store(0, 1000 + i, 1, 100));
    recorder.publish();
    // This packet is stored but not published, so that it does not belong to the past.
    recorder.store(0, 1010, 1, 100);
    let history = recorder.history();
    let mut follow = history.follow(&Request::default()).unwrap();
    assert_eq!(given(&mut follow, Timestamp::MAX), (0..10).collect::<Vec<_>>());
    assert!(follow.is_live() && !follow.has_ended());
    assert_eq!(given(&mut follow, Timestamp::MAX), [0; 0]);
    recorder.publish();
    assert_eq!(given(&mut follow, Timestamp::MAX), [10]);
    (0..5000).for_each(|i| recorder.store(0, 2000 + i, 2, 100));
    recorder.publish();
    assert_eq!(given(&mut follow, Timestamp::MAX), (11..5011).collect::<Vec<_>>(), "more than a round");
    assert_eq!((follow.summary().packets, follow.summary().overtaken), (5011, 0));
}

#[test]
fn what_is_asked_for_holds_for_what_comes_too() {
    let mut recorder = Recorder::new(1, 4 << 20);
    recorder.store(0, 1000, 1, 0);
    recorder.store(0, 1001, 2, 0);
    recorder.publish();
    let history = recorder.history();
    let wanted = Request { until: Some(Timestamp(1004)), limit: Some(3), ..request("host 10.0.0.1") };
    let mut follow = history.follow(&wanted).unwrap();
    assert_eq!(given(&mut follow, Timestamp::MAX), [0]);
    for (time, session) in [(1002, 1), (1003, 2), (1005, 1), (1004, 1), (1004, 1)] {
        recorder.store(0, time, session, 0);
    }
    recorder.publish();
    assert_eq!(given(&mut follow, Timestamp::MAX), [2, 5], "in time, of the host, three in all");
    assert!(follow.has_ended() && follow.summary().limited);

    let mut past = history.follow(&Request { limit: Some(1), ..Request::default() }).unwrap();
    assert_eq!(given(&mut past, Timestamp::MAX), [0]);
    assert!(past.has_ended() && !past.is_live());

    let flag = Arc::new(AtomicBool::new(false));
    let mut ended = history.follow(&Request::default()).unwrap().interrupted_by(Arc::clone(&flag));
    assert_eq!(given(&mut ended, Timestamp::MAX).len(), 7);
    flag.store(true, Ordering::Relaxed);
    recorder.store(0, 1006, 1, 0);
    recorder.publish();
    assert_eq!(given(&mut ended, Timestamp::MAX), [0; 0]);
    assert!(ended.summary().interrupted);
}

#[test]
fn packets_of_several_workers_wait_for_each_other() {
    let mut recorder = Recorder::new(2, 4 << 20);
    let history = recorder.history();
    let mut follow = history.follow(&Request::default()).unwrap();
    assert_eq!(given(&mut follow, Timestamp(0)), [0; 0]);
    for i in 0..4 {
        recorder.store(0, 100 + 20 * i, 1, 0);
    }
    recorder.publish();
    assert_eq!(given(&mut follow, Timestamp(130)), [0, 1]);
    recorder.store(1, 135, 2, 0);
    recorder.publish();
    assert_eq!(given(&mut follow, Timestamp(150)), [4, 2]);
    assert_eq!(given(&mut follow, Timestamp::MAX), [3]);
    assert_eq!(follow.summary().unsorted, 0);
}

#[test]
fn a_backlog_of_several_workers_comes_in_the_order_of_time() {
    let mut recorder = Recorder::new(2, 8 << 20);
    let history = recorder.history();
    let mut follow = history.follow(&Request::default()).unwrap();
    // The second worker stores many more packets in the same time.
    for i in 0..10_000u64 {
        recorder.store(1, 1000 + i, 1, 0);
        if i % 7 == 0 {
            recorder.store(0, 1000 + i, 2, 0);
        }
    }
    recorder.publish();
    assert_eq!(given(&mut follow, Timestamp::MAX).len(), 11_429);
    assert_eq!((follow.summary().unsorted, follow.summary().overtaken), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// However packets are stored and evicted between two looks, each is returned once or counted, and every retained
    /// packet is returned.
    #[test]
    fn given_or_counted_and_never_twice(
        bursts in prop::collection::vec((1u32..3000, 0u8..12, 0usize..1400, any::<bool>()), 1..30),
        workers in 1usize..3,
        compressed in any::<bool>(),
    ) {
        // A small store reuses its memory often.
        let mut recorder = match compressed {
            true => Recorder::compressing(workers, 1 << 20, Pace::Replay),
            false => Recorder::new(workers, 1 << 20),
        };
        let history = recorder.history();
        let mut follow = history.follow(&Request::default()).unwrap();
        let mut times: BTreeMap<u32, u32> = BTreeMap::new();
        let mut time = 1_000_000;
        for (packets, sessions, payload, look) in bursts {
            for i in 0..packets {
                time += 1000;
                let session = u8::try_from(i % (u32::from(sessions) + 1)).unwrap();
                recorder.store(i as usize % workers, time, session, payload);
            }
            recorder.publish();
            if look {
                // Every packet retained now was returned before, or is returned now.
                let all = given(&mut follow, Timestamp::MAX);
                all.into_iter().for_each(|number| *times.entry(number).or_default() += 1);
                let mut kept = history.packets(&Request::default()).unwrap();
                while let Some(found) = kept.next() {
                    let number = u32::from_be_bytes(found.packet.data[42..46].try_into().unwrap());
                    prop_assert!(times.contains_key(&number), "{number} is kept, and was not given");
                }
                prop_assert_eq!(times.len() as u64 + follow.summary().overtaken, u64::from(recorder.stored));
            }
        }
        prop_assert!(times.values().all(|&count| count == 1));
        prop_assert_eq!(follow.summary().unsorted, 0);
    }
}

/// Stores packets until older segments are compressed. No packet is evicted in the meantime.
fn store_until_compressed(recorder: &mut Recorder, history: &History) {
    let before = history.totals().packed.segments;
    let workers = recorder.pipelines.len();
    while history.totals().packed.segments < before + 20 {
        for i in 0..100 {
            let number = recorder.stored;
            recorder.store(i % workers, 1_000_000_000 + u64::from(number) * 1_000_000, u8::try_from(i).unwrap(), 400);
        }
        recorder.publish();
        assert_eq!(history.totals().evicted.packets, 0, "it is never compressed");
    }
}

#[test]
fn what_is_compressed_before_it_is_read_comes_too() {
    let mut recorder = Recorder::compressing(1, 4 << 20, Pace::Replay);
    let history = recorder.history();
    let mut late = history.follow(&Request::default()).unwrap();
    // This follower stops in the middle of open segments.
    let mut follow = history.follow(&Request::default()).unwrap();
    (0..1000).for_each(|i| recorder.store(0, 1000 + i, u8::try_from(i % 100).unwrap(), 400));
    recorder.publish();
    assert_eq!(given(&mut follow, Timestamp::MAX).len(), 1000);
    store_until_compressed(&mut recorder, &history);
    let all: Vec<u32> = (0..recorder.stored).collect();
    assert_eq!(given(&mut follow, Timestamp::MAX), all[1000..]);
    assert_eq!(given(&mut late, Timestamp::MAX), all);
    assert_eq!((follow.summary().overtaken, late.summary().overtaken), (0, 0));
}

#[test]
fn what_is_compressed_while_it_waits_is_given() {
    let mut recorder = Recorder::compressing(2, 4 << 20, Pace::Replay);
    let history = recorder.history();
    let mut follow = history.follow(&Request::default()).unwrap();
    for i in 0..6000u32 {
        recorder.store(i as usize % 2, 1000 + u64::from(i), u8::try_from(i % 100).unwrap(), 400);
    }
    recorder.publish();
    // The follower has read these packets; they wait for earlier packets of the other worker.
    assert_eq!(given(&mut follow, Timestamp(0)), [0; 0]);
    store_until_compressed(&mut recorder, &history);
    assert_eq!(given(&mut follow, Timestamp::MAX), (0..recorder.stored).collect::<Vec<_>>());
    assert_eq!((follow.summary().unsorted, follow.summary().overtaken), (0, 0));
}

#[test]
fn a_follower_beside_a_writer_that_never_waits() {
    beside_a_writer(Recorder::new(1, 2 << 20));
}

#[test]
fn a_follower_beside_a_writer_that_compresses() {
    beside_a_writer(Recorder::compressing(1, 2 << 20, Pace::Live));
}

fn beside_a_writer(mut recorder: Recorder) {
    let history = recorder.history();
    let flag = AtomicBool::new(false);
    let mut follow = history.follow(&Request::default()).unwrap();
    let mut numbers = Vec::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 0..400_000u32 {
                recorder.store(0, 1_000_000 + u64::from(i), u8::try_from(i % 50).unwrap(), 200);
                if i % 100 == 0 {
                    recorder.publish();
                }
            }
            recorder.publish();
            flag.store(true, Ordering::Relaxed);
        });
        loop {
            let ended = flag.load(Ordering::Relaxed);
            numbers.extend(given(&mut follow, Timestamp::MAX));
            if ended {
                break;
            }
        }
        writer.join().unwrap();
    });
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order, none twice");
    let overtaken = follow.summary().overtaken;
    assert_eq!(numbers.len() as u64 + overtaken, 400_000);
}
