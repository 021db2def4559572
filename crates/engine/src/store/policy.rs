//! The retention policy at work: in which queue a packet is stored, and which segment is evicted.
//!
//! It owns the queues, the clock on which ages are measured, and the memory that pins may take. It moves no packets:
//! the store does what it decides.

use std::sync::Arc;

use super::eviction::{Candidate, QueueSurvey, Shares};
use super::list::SegmentLists;
use super::pages::PAGE_BYTES;
use super::queues::{Kind, Placement, QueueId, Queues};
use super::rank::Rank;
use super::reach::Reach;
use super::retention::{Clock, Policy};
use super::segment::pages_of;
use super::tally::Tally;
use crate::session::SessionMarks;

/// The part of the store that important packets may take, as a divisor.
const IMPORTANT_SHARE: u32 = 32;

/// The part of the store, as a divisor, that the elephants of one queue may take while others need room. A session is
/// an elephant when it has sent as much, so one session has a tenth at most.
const ELEPHANT_SHARE: u32 = 20;

/// The share of bulk, as a divisor, while starts reach far enough.
const PLENTY_BULK_SHARE: u32 = 5;
/// Where the middle of sessions ends meanwhile: 63 KiB.
const PLENTY_MIDDLE_BYTES: u64 = 63 << 10;

/// A [`Policy`] applied to a store.
#[derive(Debug)]
pub(super) struct AppliedPolicy {
    pub(super) queues: Queues,
    pub(super) clock: Clock,
    shares: Shares,
    reach: Reach,
    /// Whether starts reach far enough, so that later parts of sessions get more memory.
    is_plenty: bool,
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
            reach: Reach::new(u64::from(pages) * PAGE_BYTES as u64),
            is_plenty: false,
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
    pub(super) fn queue_of(&self, place: Placement, record_bytes_max: usize) -> QueueId {
        let pins = place.marks.pins & self.pins;
        if pins != 0
            && let Some(queue) = self.pinned(pins, record_bytes_max)
        {
            return queue;
        }
        self.queues.at(place)
    }

    /// Bytes from which on a session is an elephant: half of what one may take while others need room.
    pub(super) fn elephant_bytes(&self) -> u64 {
        u64::from(self.shares.elephant) * PAGE_BYTES as u64
    }

    /// Counts a packet that is stored.
    #[inline]
    pub(super) fn count(&mut self, place: Placement, record_bytes: usize) {
        if place.elephant == 0 {
            self.reach.count(record_bytes, self.clock.ticks_ns());
        }
    }

    /// The rank of a packet of `len` bytes at a depth in its session.
    #[inline]
    pub(super) fn rank(&self, depth: u64, len: u64) -> Rank {
        match Rank::of_packet(depth, len) {
            Rank::LAST if self.is_plenty && depth < PLENTY_MIDDLE_BYTES => Rank(Rank::LAST.0 - 1),
            rank => rank,
        }
    }

    /// The segment that is evicted next, and the state of all queues.
    pub(super) fn victim(&mut self, lists: &SegmentLists) -> Option<(Candidate, QueueSurvey)> {
        let survey = self.survey(lists);
        if let Some((score, oldest_ns)) = survey.starts() {
            self.reach.remember(oldest_ns);
            self.is_plenty = self.reach.is_plenty(score);
        }
        survey.victim(self.shares_now()).map(|victim| (victim, survey))
    }

    fn shares_now(&self) -> Shares {
        let more = if self.is_plenty { self.pages / PLENTY_BULK_SHARE } else { 0 };
        Shares { bulk: self.shares.bulk.max(more), ..self.shares }
    }

    /// The current state of all queues.
    pub(super) fn survey(&self, lists: &SegmentLists) -> QueueSurvey {
        let now = self.clock.ticks_ns();
        QueueSurvey::new(&self.queues, |id| {
            let age_ns = now - lists.opened_ticks_ns(id);
            // A segment was sealed when the one after it was opened.
            (age_ns, lists.after(id).map(|next| now - lists.opened_ticks_ns(next)))
        })
    }

    /// Estimated age in nanoseconds at which segments of a queue are evicted.
    pub(super) fn life_ns(&self, survey: &QueueSurvey, kind: Kind, weight: f64) -> f64 {
        survey.life_ns(self.shares_now(), kind, weight)
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
    Shares { middle, bulk, important: pages / IMPORTANT_SHARE, elephant: pages / ELEPHANT_SHARE }
}
