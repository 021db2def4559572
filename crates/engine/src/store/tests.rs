use std::collections::BTreeMap;

use proptest::prelude::*;

use super::list::SegmentLists;
use super::pages::{PAGE_BYTES, PAGE_COST_BYTES};
use super::record::{PACKET_BYTES_MAX, RecordHeader};
use super::retention::Policy;
use super::*;
use crate::session::{SessionSlot, SessionTable};
use base::counters::Volume;
use base::memory::Lock;
use base::packet::{Direction, InterfaceId, PacketFlags};
use base::time::Timestamp;

const MIB: u64 = 1 << 20;

fn table() -> SessionTable {
    SessionTable::new(1 << 20, 1, Lock::No).unwrap()
}

pub(super) fn header(sequence: u64, time: u64, len: usize) -> RecordHeader {
    let len = u32::try_from(len).unwrap();
    RecordHeader {
        time: Timestamp(time),
        sequence,
        captured_len: len,
        original_len: len,
        drops_before: 0,
        session: SessionSlot(0),
        interface: InterfaceId(0),
        direction: Direction::In,
        flags: PacketFlags::default(),
    }
}

/// Bytes that identify their packet.
fn data(sequence: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (sequence.wrapping_mul(31) + i).to_le_bytes()[0]).collect()
}

/// All packets of a store, by rank, in queue order.
pub(super) fn contents(segments: &Segments) -> BTreeMap<u8, Vec<(u64, Vec<u8>)>> {
    let mut views: Vec<SegmentView> = segments.views().collect();
    let mut all: BTreeMap<u8, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
    let mut bytes = Vec::new();
    views.sort_by_key(|view| {
        let mut cursor = segments.cursor(*view);
        segments.next(&mut cursor).unwrap().map(|record| record.header.sequence)
    });
    for view in views {
        let mut cursor = segments.cursor(view);
        let mut packets = 0;
        while let Some(record) = segments.next(&mut cursor).unwrap() {
            segments.data(&cursor, &record, &mut bytes).unwrap();
            all.entry(view.rank.0).or_default().push((record.header.sequence, bytes.clone()));
            packets += 1;
        }
        assert_eq!(packets, view.packets);
    }
    all
}

#[test]
fn what_goes_in_comes_out() {
    let mut store = Store::new(4 * MIB, &Policy::default(), MIB, Lock::No).unwrap();
    let mut sessions = table();
    let lens = [60, 1514, 0, 1, 65_549, 7, 8, 9, 4096, PACKET_BYTES_MAX];
    for (sequence, len) in (0..).zip(lens) {
        let rank = Rank(u8::try_from(sequence % 3).unwrap());
        store.append(&header(sequence, sequence * 10, len), &data(sequence, len), Placement::of(rank), &mut sessions);
    }
    let all = contents(&store.segments());
    for (rank, packets) in &all {
        for (sequence, bytes) in packets {
            assert_eq!(u64::from(*rank), sequence % 3);
            assert_eq!(*bytes, data(*sequence, lens[usize::try_from(*sequence).unwrap()]), "packet {sequence}");
        }
    }
    assert_eq!(all.values().map(Vec::len).sum::<usize>(), lens.len());
    assert_eq!(store.lost_until(), None);
}

#[test]
fn the_deepest_rank_goes_first_and_the_start_lasts_longest() {
    let mut store = Store::new(4 * MIB, &Policy::default(), MIB, Lock::No).unwrap();
    let mut sessions = table();
    // Ranks 0 and 6 get the same traffic, 40 MB each in 4 MiB.
    for sequence in 0..80_000 {
        let rank = if sequence % 2 == 0 { Rank(0) } else { Rank(6) };
        store.append(
            &header(sequence, sequence * 1_000_000, 1000),
            &data(sequence, 1000),
            Placement::of(rank),
            &mut sessions,
        );
    }
    let all = contents(&store.segments());
    let (starts, ends) = (all[&0].len(), all[&6].len());
    // Bulk has its share, about a tenth.
    assert!(starts > 8 * ends, "{starts} packets of rank 0, {ends} of rank 6");
    let newest = |rank: u8| all[&rank].last().unwrap().0;
    assert!(newest(0) >= 79_998 && newest(6) >= 79_998, "the most recent are there in every rank");
}

#[test]
fn a_reader_that_was_overtaken_finds_out() {
    let mut store = Store::new(4 * MIB, &Policy::default(), MIB, Lock::No).unwrap();
    let mut sessions = table();
    let mut append = |store: &mut Store, sequence: u64| {
        store.append(
            &header(sequence, sequence * 1000, 1000),
            &data(sequence, 1000),
            Placement::of(Rank(3)),
            &mut sessions,
        );
    };
    for sequence in 0..200 {
        append(&mut store, sequence);
    }
    let segments = store.segments();
    let oldest = segments.views().min_by_key(|view| view.oldest).unwrap();
    let mut cursor = segments.cursor(oldest);
    let first = segments.next(&mut cursor).unwrap().unwrap();
    for sequence in 200..10_000 {
        append(&mut store, sequence);
    }
    assert_eq!(segments.next(&mut cursor).map(|_| ()), Err(SegmentEvicted));
    assert_eq!(segments.data(&cursor, &first, &mut Vec::new()), Err(SegmentEvicted));
}

#[test]
fn records_cost_at_most_twelve_bytes_beside_their_packet() {
    // Similar to campus traffic: one packet per millisecond over many ranks, and tens of thousands of sessions.
    let mut store = Store::new(40 * MIB, &Policy::default(), MIB, Lock::No).unwrap();
    let mut sessions = table();
    for sequence in 0..100_000u64 {
        let len = if sequence % 3 == 0 { 1514 } else { 66 };
        let mut header = header(sequence, sequence * 1_000_003, len);
        header.session = SessionSlot(u32::try_from(sequence * 7919 % 30_000).unwrap());
        let rank = Rank(u8::try_from(sequence % 12).unwrap());
        store.append(&header, &data(sequence, len), Placement::of(rank), &mut sessions);
    }
    let open: Vec<SegmentId> =
        store.policy.queues.iter().filter_map(|(_, queue)| Some(queue.open.as_ref()?.id)).collect();
    let sealed = store.segments().views().filter(|view| !open.contains(&view.id)).collect::<Vec<_>>();
    assert!(sealed.len() > 200);
    let sum = |of: fn(&SegmentView) -> u64| sealed.iter().map(of).sum::<u64>();
    // Counts headers, the table of segments and the links of pages. It excludes the unused end of the last page of a
    // segment, which is 1.6 % of the segment on average.
    let links = sum(|view| view.pages() as u64) * (PAGE_COST_BYTES - PAGE_BYTES) as u64;
    let indexes = (sealed.len() * SegmentLists::SLOT_COST_BYTES) as u64 + links;
    let beside = sum(|view| view.len_bytes) - sum(|view| view.captured_bytes) + indexes;
    #[allow(clippy::cast_precision_loss)]
    let each = beside as f64 / sum(|view| view.packets) as f64;
    println!("{each:.2} bytes beside each packet");
    assert!(each <= 12.0, "{each} bytes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Compares a store with a list of all packets. Kept packets are unchanged, each rank has lost only its oldest
    /// packets, and the counts add up after each step.
    #[test]
    fn it_agrees_with_a_list(
        steps in prop::collection::vec((0u8..7, 0usize..6000, 0u64..50_000_000, any::<bool>()), 1..3000),
    ) {
        let mut store = Store::new(Store::BYTES_MIN, &Policy::default(), MIB, Lock::No).unwrap();
        let mut sessions = table();
        let mut appended: BTreeMap<u8, Vec<(u64, usize)>> = BTreeMap::new();
        let mut stored = Volume::default();
        let mut time = 1_000_000_000_000u64;
        for (sequence, (rank, len, step, back)) in (0..).zip(steps) {
            time = if back { time - step / 2 } else { time + step };
            store.append(&header(sequence, time, len), &data(sequence, len), Placement::of(Rank(rank)), &mut sessions);
            appended.entry(rank).or_default().push((sequence, len));
            stored.add(len as u64);
            let mut sum = store.retained();
            sum += store.evicted();
            prop_assert_eq!(sum, stored);
        }
        let mut left = Volume::default();
        for (rank, packets) in contents(&store.segments()) {
            let expected = &appended[&rank];
            let expected = &expected[expected.len() - packets.len()..];
            for ((sequence, bytes), (expected_sequence, len)) in packets.iter().zip(expected) {
                prop_assert_eq!(sequence, expected_sequence);
                prop_assert_eq!(bytes, &data(*sequence, *len));
                left.add(*len as u64);
            }
        }
        prop_assert_eq!(left, store.retained());
    }
}

/// Tests that run packets through a whole pipeline, so that the store and its sessions agree.
mod starts {
    use std::collections::{BTreeMap, BTreeSet};

    use crate::pipeline::{Config, Pipeline};
    use crate::session::Session;
    use crate::store::compress::{Compression, Pace};
    use base::counters::CompressionTotals;
    use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
    use base::time::Timestamp;

    const SECOND: u64 = 1_000_000_000;

    /// A pipeline, with compression in a thread if `compress` is set.
    fn compressing(compress: bool) -> Pipeline {
        let mut pipeline = pipeline();
        if compress {
            let compression = Compression { share: 1.0, pace: Pace::Replay, readers_bytes: 1 << 20 };
            let compressor = pipeline.compress(&compression).unwrap();
            std::thread::spawn(move || compressor.run());
        }
        pipeline
    }

    fn pipeline() -> Pipeline {
        let config = Config { pinned_bytes: 1 << 20, ..Config::new(4 << 20, 4 << 20) };
        Pipeline::new(config).unwrap()
    }

    /// Sends one UDP packet of `host` to or from its only peer.
    fn send(pipeline: &mut Pipeline, second: u64, host: u32, out: bool, payload: u16) {
        let (a, b) = ((0x0a00_0000 | host).to_be_bytes(), (0xc000_0000 | host).to_be_bytes());
        let (from, to, ports) = if out { (a, b, [4000u16, 53]) } else { (b, a, [53, 4000]) };
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((28 + payload).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(from);
        frame.extend(to);
        frame.extend(ports.map(u16::to_be_bytes).concat());
        frame.extend((8 + payload).to_be_bytes());
        frame.extend([0, 0]);
        frame.resize(frame.len() + usize::from(payload), 1);
        pipeline.ingest(&[Packet {
            time: Timestamp(1_000_000 * SECOND + second * SECOND),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(frame.len()).unwrap(),
            drops_before: 0,
            data: &frame,
        }]);
        pipeline.publish();
    }

    /// Sequence numbers of the stored packets of each session. Fails if a session has packets but not its first one.
    fn kept(pipeline: &Pipeline) -> Vec<(Session, Vec<u64>)> {
        let worker = pipeline.worker();
        let mut kept: Vec<(Session, Vec<u64>)> =
            worker.sessions.sessions().map(|session| (session, Vec::new())).collect();
        for view in worker.segments.views() {
            let mut cursor = worker.segments.cursor(view);
            while let Some(record) = worker.segments.next(&mut cursor).unwrap() {
                let header = record.header;
                let owner = kept
                    .iter_mut()
                    .find(|(session, _)| session.slot == header.session && session.first_sequence <= header.sequence);
                if let Some((_, sequences)) = owner {
                    sequences.push(header.sequence);
                }
            }
        }
        for (session, sequences) in &mut kept {
            sequences.sort_unstable();
            assert_eq!(sequences.len() as u64, session.kept_packets);
            assert!(
                sequences.is_empty() || sequences[0] == session.first_sequence,
                "headless: {session:?} {sequences:?}"
            );
        }
        kept
    }

    #[test]
    fn a_session_open_for_days_keeps_its_start() {
        open_for_days(compressing(false));
    }

    #[test]
    fn it_keeps_its_start_when_compressed_segments_are_evicted() {
        let packed = open_for_days(compressing(true));
        assert!(packed.segments > 500, "{packed:?}");
    }

    fn open_for_days(mut pipeline: Pipeline) -> CompressionTotals {
        send(&mut pipeline, 0, 1, true, 50);
        send(&mut pipeline, 0, 1, false, 60);
        let first = kept(&pipeline)[0].0;
        // One poll every 30 s for two days, with other traffic that fills the store many times.
        for second in 1..2 * 86_400 {
            if second % 30 == 0 {
                send(&mut pipeline, second, 1, second % 60 == 0, 20);
            }
            if second % 10 == 0 {
                for i in 0..4 {
                    send(&mut pipeline, second, 2 + u32::try_from(second).unwrap(), i % 2 == 0, 1200);
                }
            }
        }
        let kept = kept(&pipeline);
        let (session, sequences) = kept.iter().find(|(session, _)| session.slot == first.slot).unwrap();
        assert_eq!(session.first, first.first, "it is still the same session");
        assert_eq!(sequences[..2], [session.first_sequence, session.first_sequence + 1]);
        let worker = pipeline.worker();
        let totals = worker.published.totals();
        assert!(totals.carried.volume.packets > 0 && totals.carried.lost == 0, "{:?}", totals.carried);
        assert!(totals.evicted.packets > 40_000);
        assert_eq!(totals.stored.packets, totals.retained.packets + totals.evicted.packets);
        assert_eq!(totals.stored.bytes, totals.retained.bytes + totals.evicted.bytes);
        totals.packed
    }

    #[test]
    fn many_live_conversations_take_no_more_than_their_share() {
        let mut pipeline = pipeline();
        // 20,000 live conversations: 2.6 MB of starts, where half a megabyte is the limit.
        for round in 0..40u64 {
            for host in 0..20_000 {
                send(&mut pipeline, round * 20, host, round % 2 == 0, 40);
            }
        }
        let totals = pipeline.worker().published.totals();
        assert!(totals.carried.lost > 0);
        assert_eq!(totals.stored.packets, totals.retained.packets + totals.evicted.packets);
        let worker = pipeline.worker();
        let young = worker.segments.views().filter(|view| view.newest.0 > (1_000_000 + 39 * 20) * SECOND - 1);
        // Starts may use everything except the shares of the deeper bands.
        assert!(young.map(|view| view.packets).sum::<u64>() >= 8_000, "a recent stretch is there");
    }

    #[test]
    fn a_start_that_finds_no_room_leaves_no_headless_session() {
        let mut pipeline = pipeline();
        let (hosts, mut headless) = (20_000, BTreeSet::new());
        for round in 0..30u64 {
            // Where the first packet finds no room any more, the later ones, which are short, still would.
            for host in 0..hosts {
                send(&mut pipeline, round * 20, host, round % 2 == 0, if round == 0 { 300 } else { 20 });
            }
            let (worker, mut stored) = (pipeline.worker(), BTreeSet::new());
            for view in worker.segments.views() {
                let mut cursor = worker.segments.cursor(view);
                while let Some(record) = worker.segments.next(&mut cursor).unwrap() {
                    stored.insert((record.header.session, record.header.sequence));
                }
            }
            for session in worker.sessions.sessions().filter(|session| session.kept_packets > 0) {
                if !stored.contains(&(session.slot, session.first_sequence)) {
                    headless.insert((session.slot, session.first_sequence));
                }
            }
        }
        let carried = pipeline.worker().published.totals().carried;
        assert!(carried.lost > 1000, "{carried:?}");
        assert!(
            headless.len() as u64 <= carried.headless + carried.untracked,
            "{} headless, {carried:?}",
            headless.len()
        );
    }

    /// Sends `sessions` sessions, each with some packets of these sizes in turn, and looks often which of them have stored
    /// packets, but not their first one. Returns those sessions, and how many have lost their entry and keep packets.
    fn without_entries(pipeline: &mut Pipeline, sessions: u32, payloads: &[u16]) -> (BTreeSet<u32>, usize) {
        let (mut of, mut headless, mut detached) = (Vec::new(), BTreeSet::new(), 0);
        for host in 0..sessions {
            for (number, payload) in payloads.iter().enumerate() {
                send(pipeline, u64::from(host) / 10, host, number % 2 == 0, *payload);
                of.push(host);
            }
            if host % 50 == 0 {
                let worker = pipeline.worker();
                let mut stored: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
                for view in worker.segments.views() {
                    let mut cursor = worker.segments.cursor(view);
                    while let Some(record) = worker.segments.next(&mut cursor).unwrap() {
                        let sequence = record.header.sequence;
                        stored.entry(of[usize::try_from(sequence).unwrap()]).or_default().push(sequence);
                    }
                }
                let first = |host: u32| u64::from(host) * payloads.len() as u64;
                headless
                    .extend(stored.iter().filter(|(host, all)| !all.contains(&first(**host))).map(|(host, _)| host));
                let known: BTreeSet<u64> = worker.sessions.sessions().map(|session| session.first_sequence).collect();
                detached = detached.max(stored.keys().filter(|host| !known.contains(&first(**host))).count());
            }
        }
        (headless, detached)
    }

    /// A pipeline with few entries for sessions beside the memory for packets.
    fn few_entries() -> Pipeline {
        Pipeline::new(Config::new(512 << 10, 8 << 20)).unwrap()
    }

    #[test]
    fn a_session_that_lost_its_entry_keeps_its_first_packet() {
        // A first packet that is evicted before the later ones, as it is as long as bulk.
        for payloads in [&[20u16, 200, 900, 1400, 20][..], &[1400, 20, 20, 20], &[60, 60]] {
            let mut pipeline = few_entries();
            let entries = pipeline.worker().sessions.capacity();
            let (headless, detached) = without_entries(&mut pipeline, entries * 8, payloads);
            let carried = pipeline.worker().published.totals().carried;
            assert!(detached > 500, "{detached} sessions of {entries} entries lost theirs");
            let counted = carried.headless + carried.untracked;
            assert!(headless.len() as u64 <= counted, "{payloads:?}: {} headless, {carried:?}", headless.len());
            println!("{payloads:?}: {} headless, {detached} without entry, {carried:?}", headless.len());
        }
    }
}
