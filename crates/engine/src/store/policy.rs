//! The retention policy at work: in which queue a packet is stored, and which segment is evicted.
//!
//! It owns the queues, the clock on which ages are measured, and the memory that pins may take. It moves no packets:
//! the store does what it decides.

use std::sync::Arc;

use super::eviction::{Candidate, Shares, Survey};
use super::list::SegmentLists;
use super::pages::PAGE_BYTES;
use super::queues::{Kind, Place, QueueId, Queues};
use super::retention::{Clock, Policy};
use super::segment::pages_of;
use super::tally::Tally;
use crate::session::SessionMarks;

/// The part of the store that important packets may take, as a divisor.
const IMPORTANT_SHARE: u32 = 32;

/// A [`Policy`] applied to a store.
#[derive(Debug)]
pub(super) struct AppliedPolicy {
    pub(super) queues: Queues,
    pub(super) clock: Clock,
    shares: Shares,
    /// Pages of the store.
    pages: u32,
    /// The active pins, one bit per pin, and the maximum number of pages that they may take together.
    pins: u16,
    pinned_pages_max: u32,
    tally: Arc<Tally>,
}

impl AppliedPolicy {
    /// The policy of a store of `pages` pages. Pins may take `pinned_bytes` of it, and never more than half.
    pub(super) fn new(policy: &Policy, pages: u32, pinned_bytes: u64) -> Self {
        Self {
            queues: Queues::new(policy, pages),
            clock: Clock::default(),
            shares: shares(policy, pages),
            pages,
            pins: 0,
            pinned_pages_max: u32::try_from(pinned_bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX).min(pages / 2),
            tally: Arc::new(Tally::new(policy.classes().len() + 1)),
        }
    }

    /// Applies the weights and shares of another policy. The classes stay as they are.
    pub(super) fn set(&mut self, policy: &Policy) {
        self.queues.set_policy(policy);
        self.shares = shares(policy, self.pages);
    }

    /// Memory of classes and pins, as published for readers.
    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Publishes the memory of classes and pins for readers.
    pub(super) fn publish_tally(&self) {
        self.tally.publish(&self.queues);
    }

    /// The queue of a packet at a place.
    #[inline]
    pub(super) fn queue_of(&self, place: Place, record_bytes_max: usize) -> QueueId {
        let pins = place.marks.pins & self.pins;
        if pins != 0
            && let Some(queue) = self.pinned(pins, record_bytes_max)
        {
            return queue;
        }
        self.queues.at(place)
    }

    /// The segment that is evicted next.
    pub(super) fn victim(&self, lists: &SegmentLists) -> Option<Candidate> {
        self.survey(lists).victim(self.shares)
    }

    /// The current state of all queues.
    pub(super) fn survey(&self, lists: &SegmentLists) -> Survey {
        let now = self.clock.ticks_ns();
        Survey::new(&self.queues, |id| now - lists.opened_ticks_ns(id))
    }

    /// Estimated age in nanoseconds at which segments of a queue are evicted.
    pub(super) fn life_ns(&self, survey: &Survey, kind: Kind, weight: f64) -> f64 {
        survey.life_ns(self.shares, kind, weight)
    }

    /// The queue of the first of `pins`, or `None` if the pins have no room.
    #[cold]
    fn pinned(&self, pins: u16, record_bytes_max: usize) -> Option<QueueId> {
        let place = pins.trailing_zeros() as usize;
        let queue = self.queues.pinned(place);
        let room = self.queues[queue].open.as_ref().map_or(0, |open| open.tail.room());
        let more = pages_of(record_bytes_max.saturating_sub(room)).max(usize::from(room == 0));
        if self.pins_have_room(u32::try_from(more).unwrap_or(u32::MAX)) {
            return Some(queue);
        }
        self.tally.refuse(place);
        None
    }

    /// Whether pins may take `more` pages.
    pub(super) fn pins_have_room(&self, more: u32) -> bool {
        self.queues.pinned_pages().saturating_add(more) <= self.pinned_pages_max
    }

    /// The active pins, one bit each.
    #[inline]
    pub(super) fn pins(&self) -> u16 {
        self.pins
    }

    /// Sets the active pins, one bit each.
    pub(super) fn set_active_pins(&mut self, active: u16) {
        self.pins = active;
    }

    /// Sets the `active` pins, one bit each. Pins that have `ended` release their segments, which then age like bulk.
    pub(super) fn set_pins(&mut self, ended: u16, active: u16, lists: &mut SegmentLists) {
        for place in (0..SessionMarks::PINS).filter(|place| ended >> place & 1 == 1) {
            self.release(self.queues.pinned(place), lists);
            self.tally.forget(place);
        }
        self.pins = active;
    }

    /// Appends all segments of a queue to the queue of released segments.
    fn release(&mut self, from: QueueId, lists: &mut SegmentLists) {
        let to = self.queues.released();
        let pages = self.queues.pages(from);
        let list = std::mem::take(&mut self.queues[from].list);
        self.queues[from].open = None;
        self.queues.gave(from, pages);
        self.queues.took(to, pages);
        lists.append(&mut self.queues[to].list, list);
    }
}

fn shares(policy: &Policy, pages: u32) -> Shares {
    let [middle, bulk] = policy.share_pages(pages);
    [middle, bulk, pages / IMPORTANT_SHARE]
}
