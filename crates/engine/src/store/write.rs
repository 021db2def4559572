//! Writes a record into the open segment of a queue, for which there is room.

use super::open::OpenSegment;
use super::pages::PageId;
use super::queues::QueueId;
use super::record::{self, Previous, RecordHeader};
use super::segment::pages_of;
use super::state::Store;

impl Store {
    /// Writes a record for which there is room, and returns its size in bytes.
    pub(super) fn write(&mut self, queue: QueueId, header: &RecordHeader, data: &[u8]) -> usize {
        if self.policy.queues[queue].open.is_none() {
            let open = self.begin(queue, header);
            self.policy.queues[queue].open = Some(open);
        }
        let Some(open) = &self.policy.queues[queue].open else { unreachable!("it was begun") };
        let record_bytes = record::bytes(header, &open.previous) + data.len();
        if record_bytes > open.tail.room() {
            self.extend(queue, open.tail.page(), record_bytes - open.tail.room());
        }
        let Some(open) = &mut self.policy.queues[queue].open else { unreachable!("it was begun") };
        open.write(self.arena.pages(), self.lists.slot(open.id), header, data);
        self.retained.add(u64::from(header.captured_len));
        record_bytes
    }

    /// Whether the open segment of a queue can take the record; true when no segment is open.
    pub(super) fn continues(&self, queue: QueueId, header: &RecordHeader, record_bytes_max: usize) -> bool {
        let open = self.policy.queues[queue].open.as_ref();
        open.is_none_or(|open| open.continues(header, record_bytes_max, self.segment_bytes))
    }

    /// Ends the open segment of a queue.
    pub(super) fn seal(&mut self, queue: QueueId) {
        self.policy.queues[queue].open = None;
    }

    /// Whether a record can be written without eviction such that `spare` pages remain free.
    pub(super) fn has_room(&self, queue: QueueId, record_bytes_max: usize, spare: usize) -> bool {
        let open = self.policy.queues[queue].open.as_ref();
        let room = open.map_or(0, |open| open.tail.room());
        let pages = pages_of(record_bytes_max.saturating_sub(room));
        self.arena.free_pages() >= pages + spare && (open.is_some() || self.lists.has_free())
    }

    /// Opens a segment at the end of a queue. A slot and a page are free.
    fn begin(&mut self, queue: QueueId, header: &RecordHeader) -> OpenSegment {
        self.pack_at_beginning();
        let (Some(id), Some(page)) = (self.lists.take(), self.arena.take()) else {
            unreachable!("make_room left a slot and a page");
        };
        let previous = Previous { time: header.time, sequence: header.sequence.wrapping_sub(1), interface: None };
        let rank = self.policy.queues[queue].kind.rank();
        self.lists.slot(id).open(rank, page, previous.time, previous.sequence);
        self.policy.queues.took(queue, 1);
        self.lists.push(&mut self.policy.queues[queue].list, id, self.policy.clock.ticks_ns());
        OpenSegment::new(id, page, previous)
    }

    /// Appends the pages that `bytes` more bytes need to the open segment of a queue, whose last page is `last`.
    fn extend(&mut self, queue: QueueId, last: PageId, bytes: usize) {
        let more = pages_of(bytes);
        self.arena.extend(last, more);
        self.policy.queues.took(queue, u32::try_from(more).unwrap_or(u32::MAX));
    }
}
