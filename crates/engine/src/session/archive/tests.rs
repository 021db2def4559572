use std::sync::atomic::AtomicBool;

use super::super::SessionKey;
use super::super::entry::CountedPacket;
use super::super::summary::flag;
use super::*;

const MILLI: u64 = 1_000_000;
const BEGIN_MS: u64 = 1_700_000_000_000;

/// First and last time of the session with this number. All fields follow from the number.
fn times(number: u64) -> (u64, u64) {
    let first = (BEGIN_MS + number * 700 + number % 13) * MILLI + number % 1000;
    (first, first + (number % 7) * 1_000_000_123)
}

fn key(number: u64) -> SessionKey {
    SessionKey([
        0x0a00_0000 | (number % 50),
        0,
        0xc000_0000 | number,
        0,
        (number % 60_000) | (443 << 16) | (6 << 32) | (4 << 40),
        1,
    ])
}

/// A writer, and one entry that all sessions use in turn.
struct Writer {
    archive_writer: ArchiveWriter,
    words: [AtomicU64; ENTRY_WORDS],
    number: u64,
}

impl Writer {
    fn new() -> Self {
        Self { archive_writer: ArchiveWriter::new().unwrap(), words: Default::default(), number: 0 }
    }

    fn archive(&mut self, archive: &SessionArchive, count: u64) {
        let entry = Entry(&self.words);
        for number in self.number..self.number + count {
            let (first, last) = times(number);
            let packet = |time, wire_bytes| CountedPacket { time: Timestamp(time), wire_bytes, captured_bytes: 0 };
            let (first, last) = (packet(first, 60 + number % 40), packet(last, number));
            entry.begin(&key(number), number, true, &first, flag::TCP | flag::SYN);
            entry.count(&entry.before(last.time), false, &last, flag::SYN_ACK);
            self.archive_writer.archive(archive, SessionSlot(7), entry);
        }
        self.number += count;
    }
}

/// Panics unless the fields match the session's number, which is its responder bytes. Returns the number.
fn check(session: &Session) -> u64 {
    let number = session.bytes.responder;
    let (first, last) = times(number);
    assert_eq!(session.key, key(number));
    assert!(session.first.0 <= first && first - session.first.0 < MILLI, "{number}");
    assert!(session.last.0 >= last && session.last.0 - last < MILLI, "{number}");
    assert_eq!((session.packets.originator, session.packets.responder), (1, 1));
    assert_eq!(session.bytes.originator, 60 + number % 40);
    assert_eq!(session.state(), super::super::SessionState::Established);
    assert!(session.is_past() && session.kept_packets == 0);
    number
}

fn numbers(archive: &SessionArchive) -> Vec<u64> {
    let mut numbers: Vec<u64> =
        archive.sessions(0..archive.count(), None).map(|(_, session)| check(&session)).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn the_newest_are_known_and_they_are_the_same() {
    let archive = SessionArchive::new(SessionArchive::RING_BYTES_MIN, Lock::No).unwrap();
    let mut writer = Writer::new();
    assert!(numbers(&archive).is_empty());
    for count in [1, 510, 1, 1, 511, 512, 3000, 20_000, 100_000, 7] {
        writer.archive(&archive, count);
        let oldest = writer.number - archive.known();
        assert_eq!(numbers(&archive), (oldest..writer.number).collect::<Vec<_>>(), "of {}", writer.number);
    }
    let (bytes, sessions) = archive.fill();
    assert!(archive.known() < writer.number, "the ring came round");
    assert!(
        bytes <= SessionArchive::RING_BYTES_MIN as u64 && bytes * 10 > SessionArchive::RING_BYTES_MIN as u64 * 8,
        "{bytes}"
    );
    assert!(bytes / sessions < 20, "{bytes} bytes for {sessions} sessions");
    assert_eq!(archive.unlisted(), 0);
}

#[test]
fn a_window_reads_only_blocks_that_overlap_it() {
    let archive = SessionArchive::new(SessionArchive::RING_BYTES_MIN, Lock::No).unwrap();
    Writer::new().archive(&archive, 5000);
    let (since, until) = (Timestamp(times(2000).0), Timestamp(times(2100).0));
    let found: Vec<u64> =
        archive.sessions(0..5000, Some((since, until))).map(|(_, session)| session.bytes.responder).collect();
    assert!((2000..=2100).all(|number| found.contains(&number)));
    assert!(found.len() < 3000, "{}", found.len());
}

#[test]
fn a_place_is_found_again_until_it_is_written_over() {
    let archive = SessionArchive::new(SessionArchive::RING_BYTES_MIN, Lock::No).unwrap();
    let mut writer = Writer::new();
    writer.archive(&archive, 1300);
    let places: Vec<_> =
        archive.sessions(0..1300, None).map(|(place, session)| (place, session.bytes.responder)).collect();
    let found = |recent: &BlockCache| {
        let again = |&(place, number): &(ArchivePosition, u64)| {
            archive.session(place, recent).map(|session| assert_eq!(check(&session), number)).is_some()
        };
        places.iter().map(again).filter(|&found| found).count()
    };
    assert_eq!(found(&BlockCache::default()), 1300);
    // The pending sessions become a block, in another order.
    writer.archive(&archive, 1000);
    assert_eq!(archive.known(), 2300);
    assert_eq!(found(&BlockCache::default()), 1300);
    writer.archive(&archive, 200_000);
    assert_eq!(found(&BlockCache::default()), 0);
}

#[test]
fn decompressed_blocks_stay_within_their_memory() {
    let archive = SessionArchive::new(SessionArchive::RING_BYTES_MIN, Lock::No).unwrap();
    Writer::new().archive(&archive, 10_000);
    let recent = BlockCache::new(3 * BlockCache::BLOCK_BYTES as u64);
    assert_eq!(recent.bytes_max(), 3 * BlockCache::BLOCK_BYTES as u64);
    let places: Vec<_> =
        archive.sessions(0..10_000, None).map(|(place, session)| (place, session.bytes.responder)).collect();
    // First one block after the other, then a block for each session.
    let jumping = (0..places.len()).map(|at| (at * 1009) % places.len());
    for at in (0..places.len()).chain(jumping.take(300)) {
        let (place, number) = places[at];
        assert_eq!(check(&archive.session(place, &recent).unwrap()), number);
        let blocks = recent.blocks.lock().unwrap();
        let bytes: usize =
            blocks.iter().map(|(_, (_, sessions))| sessions.capacity() * size_of::<ArchivedSession>()).sum();
        assert!(bytes as u64 <= recent.bytes_max(), "{bytes}");
    }
}

#[test]
fn readers_never_see_what_was_not_written() {
    let archive = SessionArchive::new(SessionArchive::RING_BYTES_MIN, Lock::No).unwrap();
    let done = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut read = 0;
                    let recent = BlockCache::default();
                    while !done.load(Ordering::Relaxed) || read == 0 {
                        let mut seen = std::collections::HashSet::new();
                        for (place, session) in archive.sessions(0..archive.count(), None) {
                            assert!(seen.insert(check(&session)), "none comes twice");
                            if read % 100 == 0
                                && let Some(again) = archive.session(place, &recent)
                            {
                                assert_eq!(check(&again), session.bytes.responder);
                            }
                            read += 1;
                        }
                    }
                    read
                })
            })
            .collect();
        let mut writer = Writer::new();
        for _ in 0..400 {
            writer.archive(&archive, 777);
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });
    assert!(read > 0);
}
