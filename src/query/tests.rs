use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::flows::Sort;
use super::*;
use crate::capture::{Batch, Source, SourceError};
use crate::memory::Lock;
use crate::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use crate::pipeline::{Config, Pipeline};
use crate::store::compress::{Compression, Pace};
use crate::store::retention::Policy;

/// An Ethernet/IPv4/UDP frame.
fn udp(from: (u8, u16), to: (u8, u16), payload: usize) -> Vec<u8> {
    let len = u16::try_from(payload).unwrap();
    let mut frame = vec![2, 0, 0, 0, 0, to.0, 2, 0, 0, 0, 0, from.0, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend((28 + len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from.0, 10, 0, 0, to.0]);
    frame.extend(from.1.to_be_bytes());
    frame.extend(to.1.to_be_bytes());
    frame.extend((8 + len).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(frame.len() + payload, 0x55);
    frame
}

struct Packets(Vec<(u64, Vec<u8>)>);

impl Source for Packets {
    fn batch(&mut self, each: &mut impl FnMut(&Packet<'_>)) -> Result<Batch, SourceError> {
        for (time, data) in self.0.drain(..) {
            each(&Packet {
                time: Timestamp(time),
                interface: InterfaceId(0),
                link_type: LinkType::ETHERNET,
                direction: Direction::Unknown,
                flags: PacketFlags::default(),
                original_len: u32::try_from(data.len()).unwrap(),
                drops_before: 0,
                data: &data,
            });
        }
        Ok(Batch::End)
    }
}

fn history(store_bytes: u64, packets: Vec<(u64, Vec<u8>)>) -> History {
    workers(store_bytes, vec![packets])
}

fn workers(store_bytes: u64, sources: Vec<Vec<(u64, Vec<u8>)>>) -> History {
    let interfaces = Arc::new(Interfaces::default());
    interfaces.intern("eth0", 2, LinkType::ETHERNET).unwrap();
    let workers = sources.into_iter().map(|packets| {
        let config = Config {
            sessions_bytes: 1 << 20,
            store_bytes,
            policy: Policy::default(),
            classes: crate::judge::Classes::default(),
            pins: Default::default(),
            pinned_bytes: 1 << 20,
            filter: None,
            snaplen: 0,
            lock: Lock::No,
            seed: 1,
        };
        let mut pipeline = Pipeline::new(config).unwrap();
        pipeline.run(&mut Packets(packets), &AtomicBool::new(false)).unwrap();
        pipeline.worker()
    });
    History {
        workers: workers.collect(),
        interfaces,
        memory: Memory::default(),
        capture_filter: None.into(),
        capture_interfaces: Vec::new().into(),
    }
}

fn found(history: &History, request: &Request) -> Vec<(u64, Vec<u8>)> {
    let mut packets = history.packets(request).unwrap();
    let mut all = Vec::new();
    while let Some(found) = packets.next() {
        all.push((found.packet.time.0, found.packet.data.to_vec()));
    }
    assert_eq!(packets.summary().packets, all.len() as u64);
    all
}

fn request(expression: &str) -> Request {
    Request { expression: expression.to_owned(), ..Request::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Within the budget everything comes back, in the order of times, equal times in the order of arrival: also when
    /// stamps are out of order, run backwards or jump.
    #[test]
    fn everything_comes_back_in_the_order_of_time(
        steps in prop::collection::vec((0u8..4, 0usize..1500, -3_000i64..5_000, 0u8..60), 1..1500),
    ) {
        let mut time = 1_700_000_000_000_000_000i64;
        let mut packets = Vec::new();
        for (host, payload, step, leap) in steps {
            time += match leap {
                0 => 3_600_000_000_000,
                1 => -3_600_000_000_000,
                2..20 => 0,
                _ => step,
            };
            packets.push((time.unsigned_abs(), udp((host, 1000), (200, 53), payload)));
        }
        let history = history(16 << 20, packets.clone());
        packets.sort_by_key(|packet| packet.0);
        prop_assert_eq!(found(&history, &Request::default()), packets.clone());

        let (since, until) = (packets[packets.len() / 3].0, packets[packets.len() * 2 / 3].0);
        let window = Request { since: Some(Timestamp(since)), until: Some(Timestamp(until)), ..Request::default() };
        packets.retain(|packet| packet.0 >= since && packet.0 <= until);
        prop_assert_eq!(found(&history, &window), packets);
    }
}

/// A pipeline with 4 MiB for packets that compresses at points that packets decide.
fn compressing() -> (Pipeline, History) {
    let interfaces = Arc::new(Interfaces::default());
    interfaces.intern("eth0", 2, LinkType::ETHERNET).unwrap();
    let mut pipeline = Pipeline::new(Config {
        sessions_bytes: 1 << 20,
        store_bytes: 4 << 20,
        policy: Policy::default(),
        classes: crate::judge::Classes::default(),
        pins: Default::default(),
        pinned_bytes: 1 << 20,
        filter: None,
        snaplen: 0,
        lock: Lock::No,
        seed: 1,
    })
    .unwrap();
    // So little for readers that they take it from each other all the time.
    let compression = Compression { share: 1.0, pace: Pace::Replay, readers_bytes: 0 };
    let compressor = pipeline.compress(&compression).unwrap();
    std::thread::spawn(move || compressor.run());
    let history = History {
        workers: vec![pipeline.worker()],
        interfaces,
        memory: Memory::default(),
        capture_filter: None.into(),
        capture_interfaces: Vec::new().into(),
    };
    (pipeline, history)
}

/// Packets of 20 hosts in turn, a millisecond apart, so that many ranks are read at once.
fn in_turn(range: std::ops::Range<u64>) -> Vec<(u64, Vec<u8>)> {
    let host = |i: u64| u8::try_from(i % 20).unwrap();
    range
        .map(|i| (1_000_000_000 + i * 1_000_000, udp((host(i), 1000), (200, 53), 300 + host(i) as usize * 50)))
        .collect()
}

#[test]
fn a_query_goes_on_while_segments_are_compressed_under_it() {
    let (mut pipeline, history) = compressing();
    let stop = AtomicBool::new(false);
    // What is there when the query begins fills most of the store, uncompressed.
    let first = in_turn(0..3500);
    pipeline.run(&mut Packets(first.clone()), &stop).unwrap();
    let packed = || history.workers[0].segments.views().filter(|view| view.is_packed()).count();
    assert_eq!(packed(), 0);
    let mut query = history.packets(&Request::default()).unwrap();
    let mut all = Vec::new();
    let mut next = 3500;
    while let Some(found) = query.next() {
        all.push((found.packet.time.0, found.packet.data.to_vec()));
        if all.len() % 100 == 0 && next < 7000 {
            pipeline.run(&mut Packets(in_turn(next..next + 200)), &stop).unwrap();
            next += 200;
        }
    }
    assert!(packed() > 20, "{}", packed());
    assert_eq!(history.totals().evicted.packets, 0);
    assert_eq!(query.summary().overtaken, 0);
    assert!(all == first, "{} of {} packets", all.len(), first.len());
    // And one that begins with everything compressed.
    assert!(found(&history, &Request::default()) == in_turn(0..next));
}

#[test]
fn workers_are_merged_by_time() {
    let stream = |host: u8, offset: u64| -> Vec<(u64, Vec<u8>)> {
        (0..5000).map(|i| (1_000_000 + i * 1000 + offset, udp((host, 1), (9, 9), 100))).collect()
    };
    let history = workers(8 << 20, vec![stream(1, 0), stream(2, 500), stream(3, 250)]);
    let all = found(&history, &Request::default());
    assert_eq!(all.len(), 15_000);
    assert!(all.is_sorted_by_key(|packet| packet.0));
}

#[test]
fn selectors_choose() {
    let mut packets = Vec::new();
    for i in 0..100u64 {
        packets.push((1_000 + i, udp((1, 1000), (2, 53), 10)));
        packets.push((1_000 + i, udp((2, 53), (1, 1000), 20)));
        packets.push((1_000 + i, udp((1, 2000), (3, 53), 30)));
    }
    let history = history(4 << 20, packets);
    for (request, expected) in [
        (Request::default(), 300),
        (request("host 10.0.0.2"), 200),
        (request("src host 10.0.0.2 and udp port 53"), 100),
        (request("greater 70"), 100),
        (Request { limit: Some(7), ..Request::default() }, 7),
        (Request { interface: Some("eth0".to_owned()), ..Request::default() }, 300),
        (Request { flow: Some("10.0.0.2:53 10.0.0.1:1000 udp".parse().unwrap()), ..Request::default() }, 200),
        (Request { flow: Some("10.0.0.1 10.0.0.3".parse().unwrap()), ..Request::default() }, 100),
        (Request { flow: Some("10.0.0.2:53 10.0.0.1:1000 tcp".parse().unwrap()), ..Request::default() }, 0),
        (Request { since: Some(Timestamp(1_050)), until: Some(Timestamp(1_050)), ..Request::default() }, 3),
    ] {
        assert_eq!(found(&history, &request).len(), expected, "{request:?}");
    }
    let session = history.flows(&request("host 10.0.0.3"), Sort::Start).unwrap().next().unwrap();
    let community_id = CommunityId::new(&session.key, 0);
    assert_eq!(found(&history, &Request { community_id, ..Request::default() }).len(), 100);
}

#[test]
fn bad_questions_are_refused() {
    let history = history(4 << 20, vec![(1_000, udp((1, 1), (2, 2), 3))]);
    for (request, message) in [
        (request("host and port"), "syntax error"),
        (
            Request { since: Some(Timestamp(2)), until: Some(Timestamp(1)), ..Request::default() },
            "the window ends before it begins",
        ),
        (Request { interface: Some("eth7".to_owned()), ..Request::default() }, "there are: eth0"),
    ] {
        let error = history.packets(&request).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn nothing_has_a_cause() {
    // 20 MB of one elephant through 4 MiB: its middle is gone.
    let packets =
        (0..15_000).map(|i| (10_000_000_000 + i * 1_000_000, udp((1, 1000), (2, 53), 1400))).collect::<Vec<_>>();
    let full = history(4 << 20, packets);
    let at = |seconds: u64| Some(Timestamp(seconds * 1_000_000_000));
    for (request, code) in [
        (Request { until: at(5), ..Request::default() }, "before_horizon"),
        (Request { since: at(100), ..Request::default() }, "after_newest"),
        (Request { since: at(12), until: at(13), ..request("host 10.0.0.2") }, "cut"),
        (request("host 10.0.0.77"), "never_seen"),
    ] {
        assert_eq!(found(&full, &request), [], "{request:?}");
        assert_eq!(full.explain_nothing(&request, None).unwrap().code, code, "{request:?}");
    }
    let empty = history(4 << 20, Vec::new());
    assert_eq!(empty.explain_nothing(&Request::default(), None).unwrap().code, "nothing_recorded");
}

#[test]
fn flows_are_sorted_and_limited() {
    let mut packets = Vec::new();
    for host in 1..=50u8 {
        for i in 0..=u64::from(host % 7) {
            packets.push((u64::from(host) * 1000 + i, udp((host, 1), (100, 2), usize::from(host) * 10)));
        }
    }
    let history = history(4 << 20, packets);
    for sort in [Sort::Start, Sort::Last, Sort::Bytes, Sort::Packets, Sort::Duration] {
        let all: Vec<_> = history.flows(&Request::default(), sort).unwrap().collect();
        assert_eq!(all.len(), 50);
        let bytes = |i: usize| all[i].bytes.sum();
        match sort {
            Sort::Start => assert!(all.is_sorted_by_key(|s| s.first)),
            Sort::Last => assert!(all.is_sorted_by_key(|s| s.last)),
            Sort::Bytes => assert!((1..50).all(|i| bytes(i - 1) >= bytes(i))),
            Sort::Packets => assert!((1..50).all(|i| all[i - 1].packets.sum() >= all[i].packets.sum())),
            Sort::Duration => {
                assert!((1..50).all(|i| all[i - 1].last.0 - all[i - 1].first.0 >= all[i].last.0 - all[i].first.0))
            }
        }
        let top: Vec<_> = history.flows(&Request { limit: Some(5), ..Request::default() }, sort).unwrap().collect();
        let slots = |sessions: &[crate::session::Session]| sessions.iter().map(|s| s.slot).collect::<Vec<_>>();
        assert_eq!(slots(&top), slots(&all[..5]));
    }
    let window = Request { since: Some(Timestamp(10_000)), until: Some(Timestamp(12_000)), ..Request::default() };
    assert_eq!(history.flows(&window, Sort::Start).unwrap().count(), 3);
}

#[test]
fn kept_is_what_is_there() {
    let packets: Vec<_> = (0..30_000u64)
        .map(|i| {
            let host = u8::try_from(i % 40).unwrap();
            (10_000_000_000 + i * 1_000_000, udp((host, 1000), (200, 53), 700))
        })
        .collect();
    let history = history(4 << 20, packets);
    let totals = history.totals();
    assert_eq!(totals.stored.packets, totals.retained.packets + totals.evicted.packets);
    assert!(totals.evicted.packets > 0);
    let sessions: Vec<_> = history.flows(&Request::default(), Sort::Start).unwrap().collect();
    assert_eq!(sessions.iter().map(|s| s.kept_packets).sum::<u64>(), totals.retained.packets);
    assert_eq!(sessions.iter().map(|s| s.kept_bytes).sum::<u64>(), totals.retained.bytes);
    for session in sessions {
        let flow = Request {
            flow: Some(format!("{} {}", session.originator(), session.responder()).parse().unwrap()),
            ..Request::default()
        };
        assert_eq!(found(&history, &flow).len() as u64, session.kept_packets);
    }
}
