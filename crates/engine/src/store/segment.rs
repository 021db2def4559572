//! Segments: runs of packets of one rank, and the state that readers need while the writer continues.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::pages::{PAGE_BYTES, PageId};
use super::rank::Rank;
use super::record::{Previous, RecordHeader};
use base::generation::GenerationLock;
use base::time::Timestamp;

/// Index into the table of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentId(pub u32);

/// An entry of the table of segments. One thread writes it and many threads read it.
///
/// `generation` belongs to a [`GenerationLock`]. It is odd while the entry is free or being filled in, and while the
/// segment's pages are replaced with compressed ones.
#[derive(Debug, Default)]
pub(super) struct Slot {
    generation: AtomicU64,
    /// Generation with which the segment began. Compression does not change it.
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
    /// Largest difference between a record's time and the latest time before it, in nanoseconds.
    disorder_ns: AtomicU64,
    /// Length of the written stream in bytes. It is stored last with release ordering, so that the bytes below it are
    /// visible.
    len_bytes: AtomicU64,
    /// Compressed length in bytes; 0 while the segment is uncompressed.
    packed_bytes: AtomicU64,
}

/// First-page value of a free entry.
const NO_PAGE: u32 = u32::MAX;

/// Snapshot of a segment's state.
#[derive(Clone, Copy, Debug)]
pub struct SegmentView {
    /// Index in the table of segments.
    pub id: SegmentId,
    pub(super) generation: u64,
    birth: u64,
    /// Rank of all packets in the segment.
    pub rank: Rank,
    first_page: PageId,
    /// Sequence number of the last packet, in order of arrival. Earlier packets in the segment have lower numbers.
    pub last_sequence: u64,
    pub(super) base: Previous,
    /// Number of packets.
    pub packets: u64,
    /// Captured bytes of these packets.
    pub captured_bytes: u64,
    /// Earliest packet time.
    pub oldest: Timestamp,
    /// Latest packet time.
    pub newest: Timestamp,
    /// Largest difference between a packet's time and the latest time before it, in nanoseconds; 0 if times never
    /// decrease.
    pub disorder_ns: u64,
    /// Length of the uncompressed stream, in bytes.
    pub len_bytes: u64,
    /// Compressed length in bytes; 0 while the segment is uncompressed.
    pub packed_bytes: u64,
}

impl SegmentView {
    /// Placeholder that refers to no segment.
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

    /// View of a stream that lies outside the pages.
    pub(super) fn of_stream(base: Previous, len_bytes: u64) -> Self {
        Self { base, len_bytes, ..Self::EMPTY }
    }

    pub(super) fn first_page(&self) -> PageId {
        self.first_page
    }

    /// Sequence number of the first packet, in order of arrival.
    pub fn first_sequence(&self) -> u64 {
        self.base.sequence.wrapping_add(1)
    }

    /// Bytes of memory that the segment's pages occupy.
    pub fn memory_bytes(&self) -> u64 {
        self.pages() as u64 * PAGE_BYTES as u64
    }

    /// Whether the segment is compressed.
    pub fn is_packed(&self) -> bool {
        self.packed_bytes > 0
    }

    /// Number of pages that the segment occupies.
    pub(super) fn pages(&self) -> usize {
        let bytes = if self.is_packed() { self.packed_bytes } else { self.len_bytes };
        pages_of(usize::try_from(bytes).unwrap_or(usize::MAX)).max(1)
    }
}

impl SegmentView {
    /// The current state of the segment if it was compressed since; `None` if it was not, or if the segment is gone.
    pub(super) fn follow(&self, slot: &Slot) -> Option<Self> {
        self.now(slot).filter(|now| now.generation != self.generation)
    }

    /// The current state of the same segment; `None` if the segment is gone.
    pub(super) fn now(&self, slot: &Slot) -> Option<Self> {
        slot.view(self.id).filter(|now| now.birth == self.birth)
    }

    /// Identifies the segment among all that ever used its entry of the table.
    pub fn birth(&self) -> u64 {
        self.birth
    }

    /// Whether both views are of the same segment, possibly at different times.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.id, self.birth) == (other.id, other.birth)
    }
}

impl Slot {
    /// Makes the entry a new, empty segment.
    pub(super) fn open(&self, rank: Rank, first_page: PageId, time: Timestamp, sequence: u64) {
        // The entry is free, so its generation is odd. `end_write` makes it this even value once the segment is
        // complete.
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

    /// Marks the entry free. Readers of its pages detect this by the generation.
    pub(super) fn free(&self) {
        self.lock().begin_write();
        self.first_page.store(NO_PAGE, Ordering::Relaxed);
    }

    fn lock(&self) -> GenerationLock<'_> {
        GenerationLock(&self.generation)
    }

    /// Replaces the segment's pages with those of its compressed stream. Readers detect this and continue at the same
    /// offset.
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

    /// The current state of the segment; `None` if the entry is free.
    pub(super) fn view(&self, id: SegmentId) -> Option<SegmentView> {
        loop {
            let generation = self.lock().generation();
            if !generation.is_multiple_of(2) {
                if self.first_page.load(Ordering::Relaxed) == NO_PAGE {
                    return None;
                }
                // The pages are being replaced, which takes only two stores. The segment is not evicted.
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
        // Load the length first, so that the other fields are at least as recent.
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

    /// Whether the segment can contain a record with this sequence number or a later one. The answer can be wrong only
    /// for a segment that was just created or evicted.
    pub(super) fn reaches(&self, sequence: u64) -> bool {
        self.last_sequence.load(Ordering::Relaxed) >= sequence
    }

    /// Whether the entry still has this generation. If so, everything read from it before is valid.
    pub(super) fn is(&self, generation: u64) -> bool {
        self.lock().is_still(generation)
    }
}

/// Number of pages for a stream of `bytes`.
pub(super) fn pages_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES)
}

/// Size in bytes, from 64 to 256 KiB, at which a segment is sealed in a store of `bytes`. A segment is small compared
/// with the store, because it is evicted as a whole, and large compared with its slot.
pub(super) fn segment_bytes(bytes: u64) -> usize {
    usize::try_from((bytes / 512).next_power_of_two().clamp(64 << 10, 256 << 10)).unwrap_or(64 << 10)
}
