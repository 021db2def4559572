//! The way of a packet into the store.

use super::queues::{Placement, QueueId};
use super::record::{HEADER_BYTES_MAX, RecordHeader};
use super::state::Store;
use crate::session::SessionTable;

/// Pages that are reserved for carried packets, because a compressed segment can free fewer pages than they need.
const CARRIED_PAGES: usize = 4;

impl Store {
    /// Stores a packet, and evicts segments if it needs their room.
    #[inline(always)]
    pub fn append(&mut self, header: &RecordHeader, data: &[u8], place: Placement, sessions: &mut SessionTable) {
        self.policy.clock.advance(header.time);
        let record_bytes_max = HEADER_BYTES_MAX + data.len();
        self.policy.count(place, record_bytes_max);
        let queue = self.policy.queue_of(place, record_bytes_max);
        // Nearly all records fit into the last page of the open segment.
        if let Some(open) = &mut self.policy.queues[queue].open
            && record_bytes_max <= open.tail.room()
            && open.continues(header, record_bytes_max, self.segment_bytes)
        {
            open.write(self.arena.pages(), self.lists.slot(open.id), header, data);
            return self.retained.add(u64::from(header.captured_len));
        }
        // Of a copy, so that the header itself can stay in registers.
        let header = *header;
        self.append_to_more(queue, &header, data, sessions);
    }

    /// Stores a packet that needs another page, or another segment.
    #[inline(never)]
    fn append_to_more(&mut self, queue: QueueId, header: &RecordHeader, data: &[u8], sessions: &mut SessionTable) {
        let record_bytes_max = HEADER_BYTES_MAX + data.len();
        if !self.continues(queue, header, record_bytes_max) {
            self.seal(queue);
        }
        self.make_room(queue, record_bytes_max, sessions);
        self.write(queue, header, data);
    }

    /// Evicts segments until the record fits. The open segment of `queue` can be among them.
    pub(super) fn make_room(&mut self, queue: QueueId, record_bytes_max: usize, sessions: &mut SessionTable) {
        while !self.has_room(queue, record_bytes_max, CARRIED_PAGES) {
            if self.take_packed() {
                self.pack_more();
                continue;
            }
            if !self.evict_one(sessions) {
                debug_assert!(false, "a store smaller than its largest packet");
                return;
            }
        }
    }
}
