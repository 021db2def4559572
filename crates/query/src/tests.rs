use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::flows::Sort;
use super::*;
use base::interface::Interfaces;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::source::{Batch, Source, SourceError};
use base::time::Timestamp;
use engine::pipeline::{Config, Pipeline, Worker};
use engine::session::Session;
use engine::session::community_id::CommunityId;
use engine::store::compress::{Compression, Pace};

/// An Ethernet/IPv4/UDP frame.
pub(crate) fn udp(from: (u8, u16), to: (u8, u16), payload: usize) -> Vec<u8> {
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
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        for (time, data) in self.0.drain(..) {
            each(&[Packet {
                time: Timestamp(time),
                interface: InterfaceId(0),
                link_type: LinkType::ETHERNET,
                direction: Direction::Unknown,
                flags: PacketFlags::default(),
                original_len: u32::try_from(data.len()).unwrap(),
                drops_before: 0,
                data: &data,
            }]);
        }
        Ok(Batch::End)
    }
}

pub(super) fn history(store_bytes: u64, packets: Vec<(u64, Vec<u8>)>) -> History {
    workers(store_bytes, vec![packets])
}

fn workers(store_bytes: u64, sources: Vec<Vec<(u64, Vec<u8>)>>) -> History {
    workers_of(1 << 20, store_bytes, sources)
}

pub(crate) fn workers_of(sessions_bytes: u64, store_bytes: u64, sources: Vec<Vec<(u64, Vec<u8>)>>) -> History {
    let interfaces = Arc::new(Interfaces::default());
    interfaces.intern("eth0", 2, LinkType::ETHERNET).unwrap();
    let workers = sources.into_iter().map(|packets| {
        let config = Config { pinned_bytes: 1 << 20, ..Config::new(sessions_bytes, store_bytes) };
        let mut pipeline = Pipeline::new(config).unwrap();
        pipeline.run(&mut Packets(packets), &AtomicBool::new(false)).unwrap();
        pipeline.worker()
    });
    history_of(workers.collect(), interfaces)
}

/// A history without a spool.
fn history_of(workers: Vec<Worker>, interfaces: Arc<Interfaces>) -> History {
    History::new(workers, interfaces)
}

pub(crate) fn found(history: &History, request: &Request) -> Vec<(u64, Vec<u8>)> {
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

    /// Within the budget, all packets come back in time order, and those with equal times in arrival order. Timestamps
    /// may be out of order, run backwards or jump.
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

/// A pipeline with 4 MiB for packets. The packets alone determine when it compresses.
fn compressing() -> (Pipeline, History) {
    let interfaces = Arc::new(Interfaces::default());
    interfaces.intern("eth0", 2, LinkType::ETHERNET).unwrap();
    let mut pipeline = Pipeline::new(Config { pinned_bytes: 1 << 20, ..Config::new(1 << 20, 4 << 20) }).unwrap();
    // With no budget for readers, they constantly take memory from each other.
    let compression = Compression { share: 1.0, pace: Pace::Replay, readers_bytes: 0 };
    let compressor = pipeline.compress(&compression).unwrap();
    std::thread::spawn(move || compressor.run());
    let history = history_of(vec![pipeline.worker()], interfaces);
    (pipeline, history)
}

/// Packets of 20 hosts in turn, a millisecond apart, so that a query reads many ranks at once.
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
    // The packets present when the query begins fill most of the store, uncompressed.
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
    // A second query begins after everything is compressed.
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
fn an_expression_sees_the_whole_of_a_long_packet() {
    let packet = |host: u8, mark: u8| {
        let mut packet = udp((host, 1000), (9, 53), 1200);
        *packet.last_mut().unwrap() = mark;
        (u64::from(host) * 1_000_000, packet)
    };
    let history = history(4 << 20, vec![packet(1, 7), packet(2, 7), packet(3, 8)]);
    // The last byte of the payload is byte 1207 of the UDP datagram, counted from 0.
    for (expression, hosts) in [
        ("udp[1207] = 7", &[1, 2][..]),
        ("udp[1207] = 8", &[3]),
        ("not udp[1207] = 7", &[3]),
        ("host 10.0.0.1 and udp[1207] = 7", &[1]),
        ("host 10.0.0.1 or udp[1207] = 8", &[1, 3]),
        ("host 10.0.0.1 and udp[1207] = 8", &[]),
        ("host 10.0.0.2", &[2]),
        ("greater 1000", &[1, 2, 3]),
        ("less 1000", &[]),
    ] {
        let found: Vec<u64> = found(&history, &request(expression)).iter().map(|(time, _)| time / 1_000_000).collect();
        assert_eq!(found, hosts, "{expression}");
    }
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
    // A session of 20 MB passes through 4 MiB, so that its middle is evicted.
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
    for sort in [Sort::Newest, Sort::Start, Sort::Last, Sort::Bytes, Sort::Packets, Sort::Duration, Sort::Out, Sort::In]
    {
        let all: Vec<_> = history.flows(&Request::default(), sort).unwrap().collect();
        assert_eq!(all.len(), 50);
        let bytes = |i: usize| all[i].bytes.sum();
        match sort {
            Sort::Start => assert!(all.is_sorted_by_key(|s| s.first)),
            Sort::Newest => assert!((1..50).all(|i| all[i - 1].first >= all[i].first)),
            Sort::Last => assert!(all.is_sorted_by_key(|s| s.last)),
            Sort::Bytes => assert!((1..50).all(|i| bytes(i - 1) >= bytes(i))),
            Sort::Packets => assert!((1..50).all(|i| all[i - 1].packets.sum() >= all[i].packets.sum())),
            Sort::Out => assert!((1..50).all(|i| all[i - 1].bytes.originator >= all[i].bytes.originator)),
            Sort::In => assert!((1..50).all(|i| all[i - 1].bytes.responder >= all[i].bytes.responder)),
            Sort::Duration => {
                assert!((1..50).all(|i| all[i - 1].last.0 - all[i - 1].first.0 >= all[i].last.0 - all[i].first.0))
            }
        }
        let top: Vec<_> = history.flows(&Request { limit: Some(5), ..Request::default() }, sort).unwrap().collect();
        let slots = |sessions: &[engine::session::Session]| sessions.iter().map(|s| s.slot).collect::<Vec<_>>();
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

#[test]
fn sessions_of_the_past_are_listed_beside_those_with_packets() {
    const SECOND: u64 = 1_000_000_000;
    // There are more sessions than the session array has entries, and the store holds a tenth of their packets.
    let packets = (0..9000u16).map(|i| (u64::from(i) * SECOND, udp((1, 1000 + i), (2, 53), 700))).collect();
    let history = history(1 << 20, packets);
    let sessions = &history.workers[0].sessions;
    assert!(sessions.past() > 5000 && sessions.unlisted() == 0, "{}", sessions.past());
    let list = |request: &Request| -> Vec<_> { history.flows(request, Sort::Start).unwrap().collect() };
    let all = list(&Request::default());
    assert_eq!(all.len(), 9000);
    assert!(all.is_sorted_by_key(|session| session.first));
    let (past, there): (Vec<&Session>, Vec<&Session>) = all.iter().partition(|session| session.is_past());
    assert!(there.iter().any(|session| session.kept_packets == 1) && there.len() > 100);
    assert!(past.iter().all(|session| session.kept_packets == 0 && session.cut_at > Some(session.last)));
    // Searches by expression and time cover the archive too. Port 4000 is not among the first sessions, which a host
    // with so many others keeps longest.
    let one = list(&Request { expression: "udp and src port 4000".into(), ..Request::default() });
    assert_eq!(
        one.iter().map(|session| (session.first.0, session.is_past())).collect::<Vec<_>>(),
        [(3000 * SECOND, true)]
    );
    let (since, until) = (Some(Timestamp(100 * SECOND)), Some(Timestamp(110 * SECOND)));
    assert_eq!(list(&Request { since, until, ..Request::default() }).len(), 11);
    let last = history.flows(&Request { limit: Some(3), ..Request::default() }, Sort::Last).unwrap();
    assert_eq!(last.map(|session| session.first.0 / SECOND).collect::<Vec<_>>(), [0, 1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Sums equal those of the sessions, for every grouping.
    #[test]
    fn sums_are_those_of_the_sessions(
        sent in prop::collection::vec((0u8..5, 0u16..3, 0u8..5, 0u16..3, 0usize..900), 1..200),
    ) {
        use super::sums::By;
        use std::collections::BTreeMap;
        let packets = (0u64..).zip(&sent).map(|(i, (a, p, b, q, payload))| {
            (1_000_000_000 + i, udp((*a, *p), (*b, *q), *payload))
        });
        let history = history(4 << 20, packets.collect());
        let sessions: Vec<_> = history.flows(&Request::default(), Sort::Start).unwrap().collect();
        let ip = |endpoint: engine::session::Endpoint| endpoint.ip.unwrap().to_string();
        let mut hosts: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        for session in &sessions {
            let (from, to) = (ip(session.originator()), ip(session.responder()));
            let host = hosts.entry(from.clone()).or_default();
            *host = (host.0 + 1, host.1 + session.bytes.originator, host.2 + session.bytes.responder);
            if to != from {
                let host = hosts.entry(to).or_default();
                *host = (host.0 + 1, host.1 + session.bytes.responder, host.2 + session.bytes.originator);
            }
        }
        let all = |by, sort| history.sums(&Request::default(), (by, sums::ProcessQuestion::default()), sort, 1000).unwrap().rows;
        let found: BTreeMap<_, _> = all(By::Host, Sort::Out)
            .into_iter()
            .map(|sum| (sum.host.unwrap().untrusted().to_owned(), (sum.sessions, sum.bytes.out, sum.bytes.r#in)))
            .collect();
        prop_assert_eq!(found, hosts);
        for by in [By::Peer, By::Port, By::Process] {
            let rows = all(by, Sort::Bytes);
            prop_assert!(rows.is_sorted_by_key(|sum| u64::MAX - sum.bytes.sum()));
            prop_assert_eq!(rows.iter().map(|sum| sum.sessions).sum::<u64>(), sessions.len() as u64);
            let bytes: u64 = sessions.iter().map(|session| session.bytes.sum()).sum();
            prop_assert_eq!(rows.iter().map(|sum| sum.bytes.sum()).sum::<u64>(), bytes);
        }
        for sum in all(By::Peer, Sort::Start) {
            // `out` is the direction with more bytes.
            let pair = |a: &str, b: &str| sum.host == Some(a.into()) && sum.peer == Some(b.into());
            prop_assert!(sum.bytes.out >= sum.bytes.r#in);
            let sent: u64 = sessions.iter().map(|s| match (ip(s.originator()), ip(s.responder())) {
                (from, to) if pair(&from, &to) => s.bytes.originator,
                (from, to) if pair(&to, &from) && from != to => s.bytes.responder,
                _ => 0,
            }).sum();
            // If a host sends to itself, `out` can be either half.
            prop_assert!(sent == sum.bytes.out || sum.host == sum.peer);
        }
        let few = history.sums(&Request::default(), (By::Host, sums::ProcessQuestion::default()), Sort::Bytes, 1).unwrap();
        prop_assert_eq!(few.rows.len(), 1);
        let in_all: u64 = hosts_of(&sessions);
        prop_assert_eq!(few.rows[0].sessions + few.left_out, in_all);
    }
}

/// Number of sessions summed by host: a session counts at both ends.
fn hosts_of(sessions: &[engine::session::Session]) -> u64 {
    sessions.iter().map(|s| if s.originator().ip == s.responder().ip { 1 } else { 2 }).sum()
}
