//! Queues of pins: admission of pinned packets, and release when a pin ends.

use super::queues::QueueId;
use super::{Store, segment};
use crate::session::SessionMarks;

impl Store {
    /// The queue of the pin that protects a packet, or `None` if no pin does or the pins have no room.
    pub(super) fn pinned(&mut self, pins: u16, record_bytes_max: usize) -> Option<QueueId> {
        let pins = pins & self.pins;
        if pins == 0 {
            return None;
        }
        let place = pins.trailing_zeros() as usize;
        let queue = self.queues.pinned(place);
        let room = self.queues[queue].open.as_ref().map_or(0, |open| open.tail.room());
        let more = segment::pages_of(record_bytes_max.saturating_sub(room)).max(usize::from(room == 0));
        if self.queues.pinned_pages() as usize + more <= self.pinned_pages_max as usize {
            return Some(queue);
        }
        self.tally.refuse(place);
        None
    }

    /// Sets the `active` pins, one bit each. Pins that have `ended` release their segments, which then age like bulk.
    pub fn set_pins(&mut self, ended: u16, active: u16) {
        for place in (0..SessionMarks::PINS).filter(|place| ended >> place & 1 == 1) {
            self.release(self.queues.pinned(place));
            self.tally.forget(place);
        }
        self.pins = active;
    }

    /// Appends all segments of a queue to the queue of released segments.
    fn release(&mut self, from: QueueId) {
        let to = self.queues.released();
        let pages = self.queues.pages(from);
        let (Some(head), Some(last)) = (self.queues[from].head.take(), self.queues[from].last.take()) else { return };
        self.queues[from].open = None;
        self.queues.gave(from, pages);
        self.queues.took(to, pages);
        let queue = &mut self.queues[to];
        match queue.last.replace(last) {
            Some(before) => self.following[before.0 as usize] = Some(head),
            None => queue.head = Some(head),
        }
    }
}
