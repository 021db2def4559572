//! A run of packets of one rank: what a reader must know to read it while the writer goes on.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::pages::{Gone, PAGE_BYTES, PageId, Pages, Position};
use super::rank::Rank;
use super::record::{self, HEADER_BYTES_MAX, PACKET_BYTES_MAX, Previous, RecordHeader};
use crate::time::Timestamp;

/// A place in the table of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentId(pub u32);

/// One entry of the table of segments, written by one thread and read by many.
///
/// `generation` is odd while the entry is free or being filled in, and grows with every use: a reader remembers it
/// before and compares it after, and so knows whether what it read was of one segment.
#[derive(Debug, Default)]
pub(super) struct Slot {
    generation: AtomicU64,
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
}

/// A segment as a reader found it.
#[derive(Clone, Copy, Debug)]
pub struct SegmentView {
    /// Its place.
    pub id: SegmentId,
    generation: u64,
    /// The rank of all its packets.
    pub rank: Rank,
    first_page: PageId,
    base: Previous,
    /// The place of its last packet in the order of arrival; those before it in the segment have lower ones.
    pub last_sequence: u64,
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
    /// Bytes of its stream.
    pub len_bytes: u64,
}

impl SegmentView {
    pub(super) fn first_page(&self) -> PageId {
        self.first_page
    }

    /// The place of its first packet in the order of arrival.
    pub fn first_sequence(&self) -> u64 {
        self.base.sequence.wrapping_add(1)
    }

    /// Bytes of the pages it takes.
    pub fn memory_bytes(&self) -> u64 {
        self.len_bytes.div_ceil(PAGE_BYTES as u64).max(1) * PAGE_BYTES as u64
    }
}

impl Slot {
    /// Makes the entry a new, empty segment.
    pub(super) fn open(&self, rank: Rank, first_page: PageId, time: Timestamp, sequence: u64) {
        debug_assert!(self.generation.load(Ordering::Relaxed) % 2 == 1);
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
        self.generation.store(self.generation.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Marks the entry free. Whoever reads its pages from now on finds out.
    pub(super) fn free(&self) {
        let generation = self.generation.load(Ordering::Relaxed);
        self.generation
            .store(if generation.is_multiple_of(2) { generation + 1 } else { generation.max(1) }, Ordering::Relaxed);
        fence(Ordering::Release);
    }

    /// Publishes a record that was just written.
    pub(super) fn publish(&self, header: &RecordHeader, len_bytes: u64) {
        let time = header.time.0;
        self.last_sequence.store(header.sequence, Ordering::Relaxed);
        crate::memory::add(&self.packets, 1);
        crate::memory::add(&self.captured_bytes, u64::from(header.captured_len));
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
        let generation = self.generation.load(Ordering::Acquire);
        if generation % 2 == 1 {
            return None;
        }
        // The length first: the other fields are then at least as new as it says.
        let len_bytes = self.len_bytes.load(Ordering::Acquire);
        let view = SegmentView {
            id,
            generation,
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
        };
        self.is(generation).then_some(view)
    }

    /// Whether it may have a record of this place in the order of arrival or a later one; wrong only of a segment that
    /// was made or evicted just now.
    pub(super) fn reaches(&self, sequence: u64) -> bool {
        self.last_sequence.load(Ordering::Relaxed) >= sequence
    }

    /// Whether the entry is still of this generation: then all that was read of it before was of it.
    fn is(&self, generation: u64) -> bool {
        fence(Ordering::Acquire);
        self.generation.load(Ordering::Relaxed) == generation
    }
}

/// Reads the records of one segment in the order they were written.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    view: SegmentView,
    at: Position,
    left: u64,
    previous: Previous,
}

/// A record that a cursor came to.
#[derive(Clone, Copy, Debug)]
pub struct RecordAt {
    /// What it says beside the packet's bytes.
    pub header: RecordHeader,
    /// Where the packet's bytes begin.
    pub(super) data: Position,
}

impl RecordAt {
    /// No record, to be replaced by one.
    pub const EMPTY: Self = Self { header: RecordHeader::EMPTY, data: Position { page: PageId(0), offset: 0 } };
}

impl Cursor {
    pub(super) fn new(view: SegmentView) -> Self {
        Self { at: Position { page: view.first_page, offset: 0 }, left: view.len_bytes, previous: view.base, view }
    }

    /// Goes on to what was written since; [`Gone`] when the segment is no more.
    pub(super) fn follow(&mut self, slot: &Slot) -> Result<(), Gone> {
        let now = slot.view(self.view.id).filter(|now| now.generation == self.view.generation).ok_or(Gone)?;
        self.left += now.len_bytes.checked_sub(self.view.len_bytes).ok_or(Gone)?;
        self.view = now;
        Ok(())
    }

    /// Whether this is the segment being read, as it was or as it is now.
    pub fn is_of(&self, view: &SegmentView) -> bool {
        (self.view.id, self.view.generation) == (view.id, view.generation)
    }

    /// The segment being read.
    pub fn segment(&self) -> &SegmentView {
        &self.view
    }

    pub(super) fn next(&mut self, pages: &Pages, slot: &Slot) -> Result<Option<RecordAt>, Gone> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_BYTES_MAX];
        let here = usize::try_from(self.left).map_or(HEADER_BYTES_MAX, |left| left.min(HEADER_BYTES_MAX));
        let mut peek = self.at;
        pages.copy_out(&mut peek, &mut bytes[..here])?;
        if !slot.is(self.view.generation) {
            return Err(Gone);
        }
        let (header, header_bytes) = record::decode(&bytes, &self.previous).ok_or(Gone)?;
        let mut data = self.at;
        pages.skip(&mut data, header_bytes)?;
        let mut after = data;
        pages.skip(&mut after, header.captured_len as usize)?;
        self.left = self.left.checked_sub(header_bytes as u64 + u64::from(header.captured_len)).ok_or(Gone)?;
        self.at = after;
        self.previous = header.as_previous();
        Ok(Some(RecordAt { header, data }))
    }

    /// Puts the packet's bytes into `out`, which keeps its capacity.
    pub(super) fn data(&self, pages: &Pages, slot: &Slot, record: &RecordAt, out: &mut Vec<u8>) -> Result<(), Gone> {
        let len = (record.header.captured_len as usize).min(PACKET_BYTES_MAX);
        out.clear();
        out.resize(len, 0);
        let mut at = record.data;
        pages.copy_out(&mut at, out)?;
        if slot.is(self.view.generation) { Ok(()) } else { Err(Gone) }
    }
}

/// Pages that a stream of `bytes` needs.
pub(super) fn pages_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES)
}
