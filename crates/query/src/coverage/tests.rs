//! Compares coverage with an independent count of the packets sent and the packets retained.

use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::Request;
use crate::tests::{found, udp, workers_of};

const SECOND_NS: u64 = 1_000_000_000;
const START_NS: u64 = 1_700_000_000 * SECOND_NS;
/// Widths in seconds of the buckets at whose borders periods start.
const WIDTHS_S: [u64; 4] = [1, 10, 60, 1200];

/// Time in nanoseconds and byte offset of each packet sent in one session.
type Sent = Vec<(u64, u64)>;

/// Sessions of 1 to 600 packets that begin every `every_ns` for `hours` hours. No two packets have the same time.
fn traffic(hours: u64, every_ns: u64) -> (Vec<(u64, Vec<u8>)>, Vec<Sent>) {
    let mut packets = BTreeMap::new();
    let mut sessions = Vec::new();
    let mut random = 7u64;
    for number in 0..hours * 3600 * SECOND_NS / every_ns {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (host, port) = ((number % 200).to_le_bytes()[0], u16::try_from(1000 + number % 60_000).unwrap());
        let count = match random >> 56 {
            0..120 => 1,
            120..230 => 2 + (random >> 40) % 8,
            230..254 => 10 + (random >> 40) % 40,
            _ => 600,
        };
        let (mut time, mut offset) = (START_NS + number * every_ns, 0);
        let mut sent = Vec::new();
        for packet in 0..count {
            while packets.contains_key(&time) {
                time += 1;
            }
            let payload = if packet == 0 { 100 } else { 700 };
            let ends = if packet % 3 == 1 { ((250, 53), (host, port)) } else { ((host, port), (250, 53)) };
            let frame = udp(ends.0, ends.1, payload);
            sent.push((time, offset));
            offset += frame.len() as u64;
            packets.insert(time, frame);
            time += 2_000_000;
        }
        sessions.push(sent);
    }
    (packets.into_iter().collect(), sessions)
}

/// Counts the sessions that began at `since_ns` or later, and those with first packet, first kB, first 10 kB and all
/// packets retained.
fn count(sessions: &[Sent], kept: &HashSet<u64>, since_ns: u64) -> (u64, [u64; 4]) {
    let begun = sessions.iter().filter(|sent| sent[0].0 >= since_ns);
    let mut counts = [0; 4];
    let mut all = 0;
    for sent in begun {
        all += 1;
        for (count, depth) in counts.iter_mut().zip([1, 1024, 10 * 1024, u64::MAX]) {
            let mut within = sent.iter().take_while(|(_, offset)| *offset < depth);
            *count += u64::from(within.all(|(time, _)| kept.contains(time)));
        }
    }
    (all, counts)
}

#[test]
fn coverage_is_what_an_independent_count_finds() {
    let (packets, sessions) = traffic(3, 250_000_000);
    let now = Timestamp(packets.last().unwrap().0);
    let history = workers_of(2 << 20, 4 << 20, vec![packets]);
    let kept: HashSet<u64> = found(&history, &Request::default()).into_iter().map(|(time, _)| time).collect();
    let summary = history.summarize_sessions(now);
    assert_eq!(summary.coverage.len(), 5);
    let mut cut = 0;
    for (at, coverage) in summary.coverage.iter().enumerate() {
        let since = match (PERIODS.get(at), WIDTHS_S.get(at)) {
            (Some((name, period_ns)), Some(width_s)) => {
                assert_eq!(coverage.period, *name);
                let width_ns = width_s * SECOND_NS;
                now.0.saturating_sub(*period_ns) / width_ns * width_ns
            }
            _ => 0,
        };
        let (all, counts) = count(&sessions, &kept, since);
        eprintln!("{coverage:?}: {all} {counts:?}");
        assert_eq!(coverage.sessions, all, "{:?}", coverage.period);
        let estimated = [coverage.first_packet, coverage.first_kb, coverage.first_10kb, coverage.whole];
        for (depth, (estimated, counted)) in estimated.into_iter().zip(counts).enumerate() {
            let counted = f64::from(u32::try_from(counted).unwrap()) / f64::from(u32::try_from(all).unwrap());
            // Coverage is never too high. It can be slightly too low: distances are rounded, and the entry of an
            // unanswered session can be reused while its packet is retained.
            assert!(estimated <= counted + 1e-9, "{:?} depth {depth}: {estimated} of {counted}", coverage.period);
            assert!(estimated >= counted - 0.01, "{:?} depth {depth}: {estimated} of {counted}", coverage.period);
            cut += u32::from(estimated < 0.9);
        }
    }
    assert!(cut >= 4, "the store was too large for anything to be cut");
    let all = summary.coverage.last().unwrap();
    assert!(history.workers[0].sessions.past() > 1000, "sessions are only in the archive, and still count");
    assert!(all.first_packet < 1.0);

    let kept_bytes: Vec<u64> = summary.largest.iter().map(|largest| largest.kept_bytes).collect();
    let mut by_session: Vec<u64> = history.workers[0].sessions.sessions().map(|session| session.kept_bytes).collect();
    by_session.sort_unstable_by_key(|bytes| Reverse(*bytes));
    assert_eq!(kept_bytes, by_session[..5]);
    check_hosts(&history, &summary.largest_hosts);
}

/// Compares the largest hosts with a count of all hosts.
fn check_hosts(history: &crate::History, largest: &[LargestHost]) {
    let mut all: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for session in history.workers.iter().flat_map(|worker| worker.sessions.sessions()) {
        let ends = [session.originator(), session.responder()].map(|end| end.ip.unwrap().to_string());
        for end in ends.into_iter().collect::<HashSet<_>>().into_iter().filter(|_| session.kept_packets > 0) {
            let (bytes, sessions) = all.entry(end).or_default();
            (*bytes, *sessions) = (*bytes + session.kept_bytes, *sessions + 1);
        }
    }
    let mut all: Vec<_> = all.into_iter().map(|(host, (bytes, sessions))| (bytes, sessions, host)).collect();
    all.sort_unstable_by_key(|(bytes, _, _)| Reverse(*bytes));
    let reported: Vec<_> = largest.iter().map(|host| (host.kept_bytes, host.sessions)).collect();
    let counted: Vec<_> = all.iter().map(|(bytes, sessions, _)| (*bytes, *sessions)).take(reported.len()).collect();
    assert_eq!(reported, counted);
    assert_eq!(reported.len(), 5);
    assert_eq!(largest[0].ip, Some(all[0].2.clone().into()));
}

#[test]
fn the_largest_hosts_are_found_among_many_with_bounded_memory() {
    // 20,000 hosts with one small session each, and three with some more.
    let mut packets = Vec::new();
    for i in 0..20_000u32 {
        let [_, _, high, low] = i.to_be_bytes();
        let mut frame = udp((250, 53), (1, 1000), 100);
        frame[28..30].copy_from_slice(&[high, low]);
        packets.push((START_NS + u64::from(i) * 1_000_000, frame));
        if i % 100 == 0 {
            for (host, payload) in [(77, 900), (78, 600), (79, 300)] {
                packets.push((START_NS + u64::from(i) * 1_000_000 + 1, udp((host, 2000), (host + 100, 3000), payload)));
            }
        }
    }
    let history = workers_of(8 << 20, 16 << 20, vec![packets]);
    let summary = history.summarize_sessions(Timestamp(START_NS + 30 * SECOND_NS));
    assert!(history.workers[0].sessions.sessions().count() > 5000, "there are enough to purge candidates");
    check_hosts(&history, &summary.largest_hosts);
}

#[test]
fn nothing_recorded_is_nothing_lost() {
    let summary = workers_of(1 << 20, 4 << 20, vec![Vec::new()]).summarize_sessions(Timestamp(START_NS));
    assert!(summary.coverage.iter().all(|coverage| coverage.sessions == 0 && coverage.first_packet == 1.0));
    assert!(summary.largest.is_empty());
}
