use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::session::SessionTable;
use crate::store::Placement;
use crate::store::Store;
use crate::store::rank::Rank;
use crate::store::record::PACKET_BYTES_MAX;
use crate::store::retention::Policy;
use crate::store::tests::{contents, header};
use base::counters::Volume;
use base::memory::Lock;

const MIB: u64 = 1 << 20;

fn table() -> SessionTable {
    SessionTable::new(MIB, 1, Lock::No).unwrap()
}

/// A store that compresses. Its compressor runs on a thread that ends with the store.
fn compressing(bytes: u64, pace: Pace) -> Store {
    let mut store = Store::new(bytes, &Policy::default(), 0, Lock::No).unwrap();
    let compressor = store.compress(&Compression { share: 1.0, pace, readers_bytes: MIB }).unwrap();
    thread::spawn(move || compressor.run());
    store
}

/// Compressible text that identifies its packet.
fn text(sequence: u64, len: usize) -> Vec<u8> {
    format!("GET /packet/{sequence} HTTP/1.1\r\nhost: example.org\r\n").bytes().cycle().take(len).collect()
}

/// Incompressible bytes that identify their packet.
fn noise(sequence: u64, len: usize) -> Vec<u8> {
    let mut state = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

fn packed(segments: &Segments) -> usize {
    segments.views().filter(SegmentView::is_packed).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// With and without compression, the retained packets are unchanged and each rank has lost only its oldest packets.
    /// Packets that both stores retain are therefore identical.
    #[test]
    fn it_holds_the_same_packets_as_without(
        steps in prop::collection::vec((0u8..7, 0usize..6000, 1u64..50_000_000, 0u8..8), 1..3000),
    ) {
        let mut plain = Store::new(Store::BYTES_MIN, &Policy::default(), 0, Lock::No).unwrap();
        let mut store = compressing(Store::BYTES_MIN, Pace::Replay);
        let (mut sessions, mut plain_sessions) = (table(), table());
        let mut appended: BTreeMap<u8, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
        let mut stored = Volume::default();
        let mut time = 1_000_000_000_000u64;
        for (sequence, (rank, len, step, kind)) in (0..).zip(steps) {
            time += step;
            let data = if kind == 0 { noise(sequence, len) } else { text(sequence, len) };
            store.append(&header(sequence, time, len), &data, Placement::of(Rank(rank)), &mut sessions);
            plain.append(&header(sequence, time, len), &data, Placement::of(Rank(rank)), &mut plain_sessions);
            appended.entry(rank).or_default().push((sequence, data));
            stored.add(len as u64);
            let mut sum = store.retained();
            sum += store.evicted();
            prop_assert_eq!(sum, stored);
            let pages: usize = store.shared.views().map(|view| view.pages()).sum();
            let spare = store.packing.as_ref().unwrap().spare.len();
            prop_assert_eq!(pages + spare + store.arena.free_pages(), store.shared.pages.count());
        }
        for store in [&store, &plain] {
            let mut left = Volume::default();
            for (rank, packets) in contents(&store.segments()) {
                let expected = &appended[&rank];
                prop_assert_eq!(&expected[expected.len() - packets.len()..], &packets[..]);
                packets.iter().for_each(|(_, data)| left.add(data.len() as u64));
            }
            prop_assert_eq!(left, store.retained());
        }
    }
}

#[test]
fn the_freed_pages_hold_more_history() {
    let mut kept = Vec::new();
    for mut store in [Store::new(4 * MIB, &Policy::default(), 0, Lock::No).unwrap(), compressing(4 * MIB, Pace::Replay)]
    {
        let mut sessions = table();
        for sequence in 0..100_000 {
            let rank = Rank(u8::try_from(sequence % 4).unwrap());
            let data = text(sequence, 500);
            store.append(&header(sequence, sequence * 1_000_000, 500), &data, Placement::of(rank), &mut sessions);
        }
        kept.push(store.retained().bytes);
        assert_eq!(contents(&store.segments()).values().map(Vec::len).sum::<usize>() as u64, store.retained().packets);
    }
    assert!(kept[1] > kept[0] * 8 / 5, "{kept:?}");
}

#[test]
fn what_hardly_gets_smaller_is_left_alone() {
    let mut store = compressing(4 * MIB, Pace::Replay);
    let mut sessions = table();
    for sequence in 0..20_000 {
        let data = noise(sequence, 1000);
        store.append(&header(sequence, sequence * 1_000_000, 1000), &data, Placement::of(Rank(2)), &mut sessions);
    }
    let counts = store.packed();
    assert_eq!((packed(&store.segments()), counts.segments), (0, 0));
    assert!(counts.incompressible > 0);
    let tried = counts.incompressible * store.segment_bytes as u64;
    assert!(tried * 4 < 20_000 * 1000, "{tried} bytes were tried in vain");
    assert_eq!(contents(&store.segments()).values().map(Vec::len).sum::<usize>() as u64, store.retained().packets);
}

#[test]
fn a_segment_longer_than_others_is_read_as_before() {
    let mut store = compressing(4 * MIB, Pace::Replay);
    let mut sessions = table();
    for sequence in 0..2000 {
        let len = if sequence % 23 == 0 { PACKET_BYTES_MAX } else { 1400 };
        let data = text(sequence, len);
        store.append(&header(sequence, sequence * 1_000_000, len), &data, Placement::of(Rank(1)), &mut sessions);
    }
    for (sequence, data) in contents(&store.segments()).into_values().flatten() {
        assert_eq!(data, text(sequence, data.len()));
    }
    assert!(packed(&store.segments()) > 0, "{:?}", store.packed());
}

#[test]
fn a_replay_compresses_the_same_each_time() {
    let mut runs = (0..2).map(|_| {
        let mut store = compressing(4 * MIB, Pace::Replay);
        let mut sessions = table();
        for sequence in 0..60_000u64 {
            let len = usize::try_from(sequence * 7919 % 1400).unwrap();
            let data = if sequence.is_multiple_of(5) { noise(sequence, len) } else { text(sequence, len) };
            let rank = Rank(u8::try_from(sequence % 7).unwrap());
            store.append(&header(sequence, sequence * 100_000, len), &data, Placement::of(rank), &mut sessions);
        }
        let views: Vec<_> = store
            .segments()
            .views()
            .map(|v| (v.id, v.generation, v.first_page(), v.packed_bytes, v.len_bytes))
            .collect();
        (views, store.packed(), store.retained(), store.evicted())
    });
    let first = runs.next().unwrap();
    assert!(first.1.segments > 100, "{:?}", first.1);
    assert_eq!(Some(first), runs.next());
}

#[test]
fn a_share_is_kept_in_the_time_of_packets() {
    // 30 MB in 10 s of packet time. The share of 0.001 core allows 2.5 MB, and the store must not compress more.
    let mut store = Store::new(4 * MIB, &Policy::default(), 0, Lock::No).unwrap();
    let compression = Compression { share: 0.001, pace: Pace::Replay, readers_bytes: MIB };
    let compressor = store.compress(&compression).unwrap();
    thread::spawn(move || compressor.run());
    let mut sessions = table();
    for sequence in 0..30_000 {
        let data = text(sequence, 1000);
        store.append(&header(sequence, sequence * 333_333, 1000), &data, Placement::of(Rank(1)), &mut sessions);
    }
    let raw = store.packed().raw_bytes;
    assert!((1_000_000..=2_500_000).contains(&raw), "{raw}");
}

/// Readers run while segments are compressed. Nothing is evicted, so each reader finds every packet exactly once.
#[test]
fn readers_lose_nothing_to_compression() {
    const PACKETS: u64 = 12_000;
    let mut store = compressing(4 * MIB, Pace::Live);
    let segments = store.segments();
    let done = AtomicBool::new(false);
    let while_packed = thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|reader| {
                let (segments, done) = (&segments, &done);
                scope.spawn(move || {
                    let mut followed = 0;
                    let mut data = Vec::new();
                    while !done.load(Relaxed) {
                        for view in segments.views().collect::<Vec<_>>() {
                            let mut cursor = segments.cursor(view);
                            if reader == 0 {
                                cursor.keep_window();
                            }
                            let mut packets = 0;
                            while let Some(record) = segments.next(&mut cursor).expect("nothing is evicted") {
                                segments.data(&cursor, &record, &mut data).expect("nothing is evicted");
                                assert_eq!(data, text(record.header.sequence, data.len()));
                                packets += 1;
                                if packets % 64 == 0 {
                                    thread::yield_now();
                                }
                            }
                            // The number of packets can be newer than the length.
                            assert!(packets <= view.packets, "{packets} of {}", view.packets);
                            followed += u64::from(cursor.segment().is_packed() && !view.is_packed());
                        }
                    }
                    followed
                })
            })
            .collect();
        let mut sessions = table();
        for sequence in 0..PACKETS {
            let rank = Rank(u8::try_from(sequence % 3).unwrap());
            store.append(
                &header(sequence, sequence * 1000, 600),
                &text(sequence, 600),
                Placement::of(rank),
                &mut sessions,
            );
            // A live capture evicts when compression is late. This test waits instead.
            while store.arena.free_pages() < pages_of(store.segment_bytes) {
                store.settle(false);
                thread::yield_now();
            }
        }
        done.store(true, Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });
    assert_eq!(store.evicted(), Volume::default());
    assert!(packed(&segments) > 10);
    let mut there = vec![0; usize::try_from(PACKETS).unwrap()];
    for view in segments.views() {
        let (mut cursor, mut packets) = (segments.cursor(view), 0);
        while let Some(record) = segments.next(&mut cursor).unwrap() {
            there[usize::try_from(record.header.sequence).unwrap()] += 1;
            packets += 1;
        }
        assert_eq!(packets, view.packets);
    }
    assert!(there.iter().all(|times| *times == 1));
    println!("{while_packed} segments were compressed under a reader");
}

#[test]
fn a_reader_goes_on_in_the_same_place_of_a_compressed_segment() {
    let mut store = compressing(4 * MIB, Pace::Replay);
    let mut sessions = table();
    // 1000 packets that stay long, then other packets, then packets that push them out.
    let mut append = |store: &mut Store, sequence: u64| {
        let rank = if !(1000..=20_000).contains(&sequence) { Rank(1) } else { Rank(6) };
        store.append(
            &header(sequence, sequence * 1_000_000, 600),
            &text(sequence, 600),
            Placement::of(rank),
            &mut sessions,
        );
    };
    (0..1000).for_each(|sequence| append(&mut store, sequence));
    let segments = store.segments();
    let view = segments.views().find(|view| view.base.sequence == u64::MAX).unwrap();
    let mut cursor = segments.cursor(view);
    let records: Vec<_> = (0..3).map(|_| segments.next(&mut cursor).unwrap().unwrap()).collect();
    let mut sequence = 1000;
    while !segments.views().any(|now| now.id == view.id && now.is_packed()) {
        append(&mut store, sequence);
        sequence += 1;
        assert!(sequence < 20_000, "it is never compressed");
    }
    let mut data = Vec::new();
    for record in &records {
        segments.data(&cursor, record, &mut data).unwrap();
        assert_eq!(data, text(record.header.sequence, 600));
    }
    let mut next = 3;
    while let Some(record) = segments.next(&mut cursor).unwrap() {
        segments.data(&cursor, &record, &mut data).unwrap();
        assert_eq!((record.header.sequence, &data), (next, &text(next, 600)));
        next += 1;
    }
    assert_eq!(next, view.packets);
    // The reader still detects the eviction of the segment.
    (20_001..60_000).for_each(|sequence| append(&mut store, sequence));
    let mut late = segments.cursor(view);
    assert_eq!(segments.next(&mut late).map(|_| ()), Err(crate::store::SegmentEvicted));
}

#[test]
fn a_store_outlives_its_compressor() {
    let mut store = Store::new(4 * MIB, &Policy::default(), 0, Lock::No).unwrap();
    let compression = Compression { share: 1.0, pace: Pace::Replay, readers_bytes: MIB };
    let mut compressor = store.compress(&compression).unwrap();
    thread::spawn(move || (0..20).for_each(|_| assert!(compressor.step())));
    let mut sessions = table();
    for sequence in 0..40_000 {
        store.append(
            &header(sequence, sequence * 1_000_000, 600),
            &text(sequence, 600),
            Placement::of(Rank(1)),
            &mut sessions,
        );
    }
    assert_eq!(contents(&store.segments()).values().map(Vec::len).sum::<usize>() as u64, store.retained().packets);
    assert!(store.evicted().packets > 0);
}

#[test]
fn contexts_take_no_more_than_was_reckoned() {
    for (segment, reckoned) in [64usize << 10, 128 << 10, 256 << 10].into_iter().zip(CONTEXT_BYTES) {
        let mut context = zstd::bulk::Compressor::new(LEVEL).unwrap();
        let packed = context.compress(&text(1, segment)).unwrap();
        assert!(context.context_mut().sizeof() <= reckoned, "{segment}");
        let mut uncompress = zstd::zstd_safe::DCtx::create();
        uncompress.decompress(&mut vec![0; segment][..], &packed).unwrap();
        assert!(uncompress.sizeof() <= crate::store::unpack::CONTEXT_BYTES, "{segment}");
    }
}
