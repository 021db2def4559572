//! A run of packets of one rank: what a reader must know to read it while the writer goes on.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::pages::{PAGE_BYTES, PageId};
use super::rank::Rank;
use super::record::{Previous, RecordHeader};
use base::generation::GenerationLock;
use base::time::Timestamp;

/// A place in the table of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentId(pub u32);

/// One entry of the table of segments, written by one thread and read by many.
///
/// `generation` is that of a [`GenerationLock`]: odd while the entry is free or being filled in, and while the
/// segment's pages are exchanged for compressed ones.
#[derive(Debug, Default)]
pub(super) struct Slot {
    generation: AtomicU64,
    /// The generation with which the segment began; compression does not change it.
    birth: AtomicU64,
    rank: AtomicU32,
    first_page: AtomicU32,
    base_time: AtomicU64,
    base_sequence: AtomicU64,
    last_sequence: AtomicU64,
    packets: AtomicU64,
    captured_bytes: AtomicU64,
    oldest: AtomicU64,
    newest: AtomicU64,
    /// How far a record's time is behind the latest before it, at most.
    disorder_ns: AtomicU64,
    /// Bytes of the stream that are written. Stored last, with release: what lies below is there.
    len_bytes: AtomicU64,
    /// Bytes in its pages once it is compressed, 0 until then.
    packed_bytes: AtomicU64,
}

/// Stands for the first page of an entry that is free.
const NO_PAGE: u32 = u32::MAX;

/// A segment as a reader found it.
#[derive(Clone, Copy, Debug)]
pub struct SegmentView {
    /// Its place.
    pub id: SegmentId,
    pub(super) generation: u64,
    birth: u64,
    /// The rank of all its packets.
    pub rank: Rank,
    first_page: PageId,
    /// The place of its last packet in the order of arrival; those before it in the segment have lower ones.
    pub last_sequence: u64,
    pub(super) base: Previous,
    /// Packets in it.
    pub packets: u64,
    /// Their captured bytes.
    pub captured_bytes: u64,
    /// The earliest time in it.
    pub oldest: Timestamp,
    /// The latest time in it.
    pub newest: Timestamp,
    /// How far a packet's time is behind the latest before it, at most; 0 where times never go backwards.
    pub disorder_ns: u64,
    /// Bytes of its stream, uncompressed.
    pub len_bytes: u64,
    /// Bytes it is compressed to; 0 while it is not.
    pub packed_bytes: u64,
}

impl SegmentView {
    /// Of no segment.
    pub(super) const EMPTY: Self = Self {
        id: SegmentId(0),
        generation: 0,
        birth: 0,
        rank: Rank::START,
        first_page: PageId(0),
        base: Previous { time: Timestamp::MIN, sequence: 0, interface: None },
        last_sequence: 0,
        packets: 0,
        captured_bytes: 0,
        oldest: Timestamp::MIN,
        newest: Timestamp::MIN,
        disorder_ns: 0,
        len_bytes: 0,
        packed_bytes: 0,
    };

    /// Of bytes that lie in no pages.
    pub(super) fn of_stream(base: Previous, len_bytes: u64) -> Self {
        Self { base, len_bytes, ..Self::EMPTY }
    }

    pub(super) fn first_page(&self) -> PageId {
        self.first_page
    }

    /// The place of its first packet in the order of arrival.
    pub fn first_sequence(&self) -> u64 {
        self.base.sequence.wrapping_add(1)
    }

    /// Bytes of the pages it takes.
    pub fn memory_bytes(&self) -> u64 {
        self.pages() as u64 * PAGE_BYTES as u64
    }

    /// Whether it is compressed.
    pub fn is_packed(&self) -> bool {
        self.packed_bytes > 0
    }

    /// Pages it takes.
    pub(super) fn pages(&self) -> usize {
        let bytes = if self.is_packed() { self.packed_bytes } else { self.len_bytes };
        pages_of(usize::try_from(bytes).unwrap_or(usize::MAX)).max(1)
    }
}

impl SegmentView {
    /// The same segment as it is now, if it was compressed since; `None` if it is gone.
    pub(super) fn follow(&self, slot: &Slot) -> Option<Self> {
        self.now(slot).filter(|now| now.generation != self.generation)
    }

    /// The same segment as it is now, grown, compressed or as it was; `None` if it is gone.
    pub(super) fn now(&self, slot: &Slot) -> Option<Self> {
        slot.view(self.id).filter(|now| now.birth == self.birth)
    }

    /// Whether it is the same segment, as it was or as it is now.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.id, self.birth) == (other.id, other.birth)
    }
}

impl Slot {
    /// Makes the entry a new, empty segment.
    pub(super) fn open(&self, rank: Rank, first_page: PageId, time: Timestamp, sequence: u64) {
        // The entry is free, so its generation is odd, and becomes this one when the segment is there.
        let generation = self.lock().generation() + 1;
        self.birth.store(generation, Ordering::Relaxed);
        self.packed_bytes.store(0, Ordering::Relaxed);
        self.rank.store(u32::from(rank.0), Ordering::Relaxed);
        self.first_page.store(first_page.0, Ordering::Relaxed);
        self.base_time.store(time.0, Ordering::Relaxed);
        self.base_sequence.store(sequence, Ordering::Relaxed);
        self.last_sequence.store(0, Ordering::Relaxed);
        self.packets.store(0, Ordering::Relaxed);
        self.captured_bytes.store(0, Ordering::Relaxed);
        self.oldest.store(u64::MAX, Ordering::Relaxed);
        self.newest.store(0, Ordering::Relaxed);
        self.disorder_ns.store(0, Ordering::Relaxed);
        self.len_bytes.store(0, Ordering::Relaxed);
        self.lock().end_write();
    }

    /// Marks the entry free. Whoever reads its pages from now on finds out.
    pub(super) fn free(&self) {
        self.lock().begin_write();
        self.first_page.store(NO_PAGE, Ordering::Relaxed);
    }

    fn lock(&self) -> GenerationLock<'_> {
        GenerationLock(&self.generation)
    }

    /// Exchanges the segment's pages for those of its compressed stream. Who was reading it finds out, and goes on in
    /// the same place.
    pub(super) fn pack(&self, first_page: PageId, packed_bytes: u64) {
        self.lock().write(|| {
            self.first_page.store(first_page.0, Ordering::Relaxed);
            self.packed_bytes.store(packed_bytes, Ordering::Relaxed);
        });
    }

    /// Publishes a record that was just written.
    pub(super) fn publish(&self, header: &RecordHeader, len_bytes: u64) {
        let time = header.time.0;
        self.last_sequence.store(header.sequence, Ordering::Relaxed);
        base::memory::add(&self.packets, 1);
        base::memory::add(&self.captured_bytes, u64::from(header.captured_len));
        if time < self.oldest.load(Ordering::Relaxed) {
            self.oldest.store(time, Ordering::Relaxed);
        }
        let newest = self.newest.load(Ordering::Relaxed);
        if time >= newest {
            self.newest.store(time, Ordering::Relaxed);
        } else if newest - time > self.disorder_ns.load(Ordering::Relaxed) {
            self.disorder_ns.store(newest - time, Ordering::Relaxed);
        }
        self.len_bytes.store(len_bytes, Ordering::Release);
    }

    /// What the segment is now; `None` if the entry is free.
    pub(super) fn view(&self, id: SegmentId) -> Option<SegmentView> {
        loop {
            let generation = self.lock().generation();
            if !generation.is_multiple_of(2) {
                if self.first_page.load(Ordering::Relaxed) == NO_PAGE {
                    return None;
                }
                // Its pages are being exchanged, which takes two stores: it is not evicted.
                std::hint::spin_loop();
                continue;
            }
            let view = self.read(id, generation)?;
            if self.is(generation) {
                return Some(view);
            }
        }
    }

    fn read(&self, id: SegmentId, generation: u64) -> Option<SegmentView> {
        // The length first: the other fields are then at least as new as it says.
        let len_bytes = self.len_bytes.load(Ordering::Acquire);
        Some(SegmentView {
            id,
            generation,
            birth: self.birth.load(Ordering::Relaxed),
            rank: Rank(u8::try_from(self.rank.load(Ordering::Relaxed)).ok()?),
            first_page: PageId(self.first_page.load(Ordering::Relaxed)),
            base: Previous {
                time: Timestamp(self.base_time.load(Ordering::Relaxed)),
                sequence: self.base_sequence.load(Ordering::Relaxed),
                interface: None,
            },
            last_sequence: self.last_sequence.load(Ordering::Relaxed),
            packets: self.packets.load(Ordering::Relaxed),
            captured_bytes: self.captured_bytes.load(Ordering::Relaxed),
            oldest: Timestamp(self.oldest.load(Ordering::Relaxed)),
            newest: Timestamp(self.newest.load(Ordering::Relaxed)),
            disorder_ns: self.disorder_ns.load(Ordering::Relaxed),
            len_bytes,
            packed_bytes: self.packed_bytes.load(Ordering::Relaxed),
        })
    }

    /// Whether it may have a record of this place in the order of arrival or a later one; wrong only of a segment that
    /// was made or evicted just now.
    pub(super) fn reaches(&self, sequence: u64) -> bool {
        self.last_sequence.load(Ordering::Relaxed) >= sequence
    }

    /// Whether the entry is still of this generation: then all that was read of it before was of it.
    pub(super) fn is(&self, generation: u64) -> bool {
        self.lock().is_still(generation)
    }
}

/// Pages that a stream of `bytes` needs.
pub(super) fn pages_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES)
}
