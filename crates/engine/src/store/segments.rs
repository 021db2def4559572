//! What readers see of a store: the segments that are there now, and their records.

use std::sync::Arc;

use super::cursor::{Cursor, RecordAt, Stream};
use super::pages::{PAGE_BYTES, Pages, SegmentEvicted};
use super::segment::{SegmentId, SegmentView, Slot};
use super::unpack::Unpacked;

/// The part of a store that readers use.
#[derive(Debug)]
pub struct Segments {
    pub(super) pages: Arc<Pages>,
    pub(super) slots: Arc<[Slot]>,
    pub(super) unpacked: Unpacked,
}

impl Segments {
    /// All current segments, in no particular order.
    pub fn views(&self) -> impl Iterator<Item = SegmentView> + '_ {
        (0..).zip(&*self.slots).filter_map(|(i, slot)| slot.view(SegmentId(i)))
    }

    /// The current segments that can contain packet `sequence` or a later one.
    pub fn views_from(&self, sequence: u64) -> impl Iterator<Item = SegmentView> + '_ {
        let reaching = move |(_, slot): &(u32, &Slot)| slot.reaches(sequence);
        (0..).zip(&*self.slots).filter(reaching).filter_map(|(i, slot)| slot.view(SegmentId(i)))
    }

    /// Whether the memory of the pages is locked in RAM.
    pub fn are_locked(&self) -> bool {
        self.pages.are_locked()
    }

    /// Bytes of all pages, used and free.
    pub fn capacity_bytes(&self) -> u64 {
        self.pages.count() as u64 * PAGE_BYTES as u64
    }

    /// A cursor at the start of a segment.
    pub fn cursor(&self, view: SegmentView) -> Cursor {
        Cursor::new(view)
    }

    /// Extends a cursor to records written since it was made; [`SegmentEvicted`] if the segment was evicted.
    pub fn follow(&self, cursor: &mut Cursor) -> Result<(), SegmentEvicted> {
        cursor.grow(self.slots.get(cursor.segment().id.0 as usize).ok_or(SegmentEvicted)?)
    }

    /// The next record; `None` at the end, and [`SegmentEvicted`] if the segment was evicted.
    pub fn next(&self, cursor: &mut Cursor) -> Result<Option<RecordAt>, SegmentEvicted> {
        let slot = self.slots.get(cursor.segment().id.0 as usize).ok_or(SegmentEvicted)?;
        loop {
            match cursor.next(&self.stream(slot, cursor.segment())) {
                Err(SegmentEvicted) => cursor.follow(slot)?,
                next => return next,
            }
        }
    }

    /// Copies the bytes of a packet to `out`, at most `PACKET_BYTES_MAX`; [`SegmentEvicted`] if the segment was evicted.
    pub fn data(&self, cursor: &Cursor, record: &RecordAt, out: &mut Vec<u8>) -> Result<(), SegmentEvicted> {
        let mut view = *cursor.segment();
        let slot = self.slots.get(view.id.0 as usize).ok_or(SegmentEvicted)?;
        loop {
            match cursor.data(&self.stream(slot, &view), &view, record, out) {
                Err(SegmentEvicted) => view = view.follow(slot).ok_or(SegmentEvicted)?,
                Ok(()) => return Ok(()),
            }
        }
    }

    fn stream<'a>(&'a self, slot: &'a Slot, view: &SegmentView) -> Stream<'a> {
        if view.is_packed() {
            Stream::Unpacked(&self.unpacked, &self.pages, slot)
        } else {
            Stream::Pages(&self.pages, slot)
        }
    }
}
