//! The segment of a queue that is being written.

use super::pages::{PageId, Pages, Tail};
use super::record::{self, Previous, RecordHeader};
use super::segment::{SegmentId, Slot};

/// The segment of a queue that is being written.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) id: SegmentId,
    pub(super) tail: Tail,
    pub(super) previous: Previous,
    len_bytes: usize,
}

impl OpenSegment {
    /// A segment without records. Its first record follows `previous`.
    pub(super) fn new(id: SegmentId, first_page: PageId, previous: Previous) -> Self {
        Self { id, tail: Tail::new(first_page), previous, len_bytes: 0 }
    }

    /// Whether the segment can take a record of at most `record_bytes_max` bytes.
    #[inline]
    pub(super) fn continues(&self, header: &RecordHeader, record_bytes_max: usize, segment_bytes: usize) -> bool {
        self.len_bytes + record_bytes_max <= segment_bytes && record::fits(&self.previous, header.time, header.sequence)
    }

    /// Writes a record. The segment has enough pages for it.
    #[inline(always)]
    pub(super) fn write(&mut self, pages: &Pages, slot: &Slot, header: &RecordHeader, data: &[u8]) {
        let encoded = record::encode(header, &self.previous);
        encoded.write(|(part, bytes)| self.tail.push(pages, part, bytes));
        self.tail.append(pages, data);
        self.len_bytes += encoded.bytes() + data.len();
        self.previous = header.as_previous();
        slot.publish(header, self.len_bytes as u64);
    }
}
