//! Eviction: selects the segment that is evicted when room is needed.
//!
//! Three bands share the memory, by the depth of packets in their sessions. The *middle* of sessions and *bulk* have
//! one share each; the rest is for *starts*. A band may borrow what others leave unused, and gives it back first:
//!
//! 1. Bulk is evicted while it exceeds its share, then the middle while it exceeds its own, then starts.
//! 2. Deeper packets do not outlive starts: if the oldest segment of a deeper band is older than the selected one, it
//!    is evicted instead. Of the newest segment of a queue, only the older half is evicted.
//! 3. Within a band, the segment with the highest `age × weight(queue)` is evicted. While others need room, all floods
//!    together are limited to half of a band, and the largest flood gives way.
//!
//! Packets that a class marks as important have a small share of their own, which no other band takes.
//!
//! As a result, an elephant flow displaces bulk at any rate, and a flood displaces its own packets.

use super::queues::{Band, Kind, QueueId, Queues};
use super::segment::SegmentId;
use crate::session::SessionMarks;

/// The part of a band, as a divisor, that all floods together may take while others need it.
const FLOODS_SHARE: u32 = 2;

/// Floods are held to their share if others have more than this part, as a divisor, of what floods have.
const OTHERS_SHARE: u32 = 16;

/// Pages that the only segment of a queue of starts must have so that its older half can be evicted. Smaller ones stay
/// while other segments can be evicted.
const HALVED_PAGES_MIN: u32 = 3;

/// Memory in pages that bands may take while others need room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub(super) middle: u32,
    pub(super) bulk: u32,
    pub(super) important: u32,
    /// For the elephants of one queue.
    pub(super) elephant: u32,
}

/// Estimated factor by which the oldest age of a band grows while nothing is evicted from it.
const GROWTH: f64 = 4.0;

/// A segment that may be evicted: the oldest of its queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) queue: QueueId,
    pub(super) segment: SegmentId,
    kind: Kind,
    age_ns: u64,
    /// Lower bound of the age of its newest packet. `None` for the newest segment of its queue.
    newest_age_ns: Option<u64>,
    /// Age times weight.
    score: f64,
}

impl Candidate {
    /// Whether only the older half of the segment is evicted. In a queue that fills slowly, the newest segment has old
    /// starts and starts that are younger than everything deeper.
    pub(super) fn is_halved(&self) -> bool {
        self.newest_age_ns.is_none() && is_halved(self.kind)
    }

    /// The age of a packet of the segment that is `age_ns` old by its timestamp.
    pub(super) fn age_within_ns(&self, age_ns: u64) -> u64 {
        age_ns.min(self.age_ns)
    }
}

fn is_halved(kind: Kind) -> bool {
    matches!(kind, Kind::Ranked { .. }) && kind.band() == Band::Starts && kind.flood() == 0
}

/// The segments of one flood in a band, or those of no flood.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    pages: u32,
    /// The pages of queues that have sealed segments. A queue with an open segment alone needs no room of others: that
    /// segment is evicted in halves, and stays while it is small.
    sealed_pages: u32,
    /// The candidate with the highest score.
    next: Option<Candidate>,
    /// The oldest candidate.
    oldest: Option<Candidate>,
}

/// The state of all queues at one moment.
#[derive(Debug)]
pub(super) struct QueueSurvey {
    bands: [[Group; SessionMarks::FLOODS]; Band::COUNT],
}

impl QueueSurvey {
    /// Surveys the queues whose memory others may take, or all queues if there are no such queues. `age_ns` returns the
    /// time since a segment was opened, and since it was sealed.
    pub(super) fn new(queues: &Queues, age_ns: impl Fn(SegmentId) -> (u64, Option<u64>)) -> Self {
        let survey = Self::of(queues, &age_ns, false);
        let is_empty = survey.bands.iter().flatten().all(|group| group.next.is_none());
        if is_empty { Self::of(queues, &age_ns, true) } else { survey }
    }

    fn of(queues: &Queues, age_ns: &impl Fn(SegmentId) -> (u64, Option<u64>), all: bool) -> Self {
        let mut bands = [[Group::default(); SessionMarks::FLOODS]; Band::COUNT];
        for (id, queue) in queues.iter() {
            let Some(segment) = queue.list.first() else { continue };
            let (age_ns, newest_age_ns) = age_ns(segment);
            let is_small = newest_age_ns.is_none() && is_halved(queue.kind) && queue.pages < HALVED_PAGES_MIN;
            if !all && (is_small || queues.is_reserved(queue)) {
                continue;
            }
            #[allow(clippy::cast_precision_loss, reason = "ages are compared, not counted")]
            let score = (age_ns as f64 + 1.0) * queue.weight;
            let candidate = Candidate { queue: id, segment, kind: queue.kind, age_ns, newest_age_ns, score };
            let group = &mut bands[queue.kind.band() as usize][queue.kind.flood()];
            group.pages += queue.pages;
            group.sealed_pages += if newest_age_ns.is_some() { queue.pages } else { 0 };
            group.next = higher(group.next, candidate, |candidate| candidate.score);
            group.oldest = higher(group.oldest, candidate, |candidate| candidate.age_ns);
        }
        Self { bands }
    }

    /// The segment to evict next, given the share of each band in pages; `None` if there is none.
    pub(super) fn victim(&self, shares: Shares) -> Option<Candidate> {
        let over = |band: Band, share| if self.pages(band) > share { self.next(band) } else { None };
        if let Some(victim) = over(Band::Important, shares.important).or_else(|| self.elephant(shares.elephant)) {
            return Some(victim);
        }
        let by_share = over(Band::Bulk, shares.bulk).or_else(|| over(Band::Middle, shares.middle));
        let victim = by_share.or_else(|| self.next(Band::Starts));
        let others = [Band::Middle, Band::Bulk, Band::Important];
        let victim = victim.or_else(|| others.into_iter().find_map(|band| self.next(band)))?;
        Some(self.deeper_and_older(victim).unwrap_or(victim))
    }

    fn pages(&self, band: Band) -> u32 {
        self.bands[band as usize].iter().map(|group| group.pages).sum()
    }

    /// Whether floods with `pages` have more than their share of a band in which `others` have the rest.
    fn exceeds_share(band: Band, others: u32, pages: u32) -> bool {
        band != Band::Bulk && pages > (others + pages) / FLOODS_SHARE
    }

    /// Whether floods are held to their share of a band, because others have more than a little of it. Where nearly all
    /// sessions are of one host (the only client of a server, a gateway), that host is no flood to anybody.
    fn bounds_floods(&self, band: Band) -> bool {
        let groups = &self.bands[band as usize];
        let pages: u32 = groups[1..].iter().map(|group| group.pages).sum();
        let Group { pages: others, sealed_pages, .. } = groups[0];
        Self::exceeds_share(band, others, pages) && sealed_pages > pages / OTHERS_SHARE
    }

    /// The oldest segment of a queue of elephants that exceeds `share`.
    fn elephant(&self, share: u32) -> Option<Candidate> {
        self.bands[Band::Bulk as usize][1..].iter().find(|group| group.pages > share)?.next
    }

    /// The score of the start that would be evicted next, and the age of the oldest start.
    pub(super) fn starts(&self) -> Option<(f64, u64)> {
        Some((self.next(Band::Starts)?.score, self.oldest(Band::Starts)?.age_ns))
    }

    /// The segment that a band gives up next.
    pub(super) fn next(&self, band: Band) -> Option<Candidate> {
        let groups = &self.bands[band as usize];
        let floods = &groups[1..];
        let pages: u32 = floods.iter().map(|group| group.pages).sum();
        if Self::exceeds_share(band, groups[0].pages, pages) {
            let largest = floods.iter().filter(|group| group.next.is_some()).map(|group| group.pages).max()?;
            return floods.iter().find(|group| group.pages == largest)?.next;
        }
        groups.iter().filter_map(|group| group.next).fold(None, |all, next| higher(all, next, |next| next.score))
    }

    fn oldest(&self, band: Band) -> Option<Candidate> {
        let all = self.bands[band as usize].iter().filter_map(|group| group.oldest);
        all.fold(None, |all, oldest| higher(all, oldest, |oldest| oldest.age_ns))
    }

    /// The oldest segment that is in a deeper band than `victim` and older than the newest packet of it. A flood that is
    /// held to its share displaces no deeper packets of others: it makes room for itself.
    fn deeper_and_older(&self, victim: Candidate) -> Option<Candidate> {
        let band = victim.kind.band();
        if victim.kind.flood() > 0 && self.bounds_floods(band) {
            return None;
        }
        // Carried starts are older than their segment.
        let is_exact = matches!(victim.kind, Kind::Ranked { .. });
        let limit_ns = victim.newest_age_ns.filter(|_| is_exact).unwrap_or(victim.age_ns);
        self.deeper_than(band, limit_ns)
    }

    /// The oldest segment that is in a deeper band than `band` and older than `limit_ns`.
    pub(super) fn deeper_than(&self, band: Band, limit_ns: u64) -> Option<Candidate> {
        let deeper = [Band::Middle, Band::Bulk].into_iter().filter(|deeper| *deeper > band);
        let oldest = deeper.filter_map(|deeper| self.oldest(deeper)).filter(|oldest| oldest.age_ns > limit_ns);
        oldest.fold(None, |all, oldest| higher(all, oldest, |oldest| oldest.age_ns))
    }

    /// Estimated age in nanoseconds at which segments of a queue are evicted, if traffic continues as it is. A band
    /// that loses nothing now is expected to reach [`GROWTH`] times its current age.
    pub(super) fn life_ns(&self, Shares { middle, bulk, important, .. }: Shares, kind: Kind, weight: f64) -> f64 {
        let next = self.bands[kind.band() as usize][kind.flood()].next;
        let bulk_gives = self.pages(Band::Bulk) > bulk;
        let is_growing = match kind.band() {
            Band::Starts => bulk_gives || self.pages(Band::Middle) > middle,
            Band::Middle => bulk_gives,
            Band::Bulk => false,
            Band::Important => self.pages(Band::Important) <= important,
        };
        next.map_or(0.0, |next| next.score / weight * if is_growing { GROWTH } else { 1.0 })
    }
}

/// The candidate with the higher value; the first if both are equal.
fn higher<T: PartialOrd>(
    first: Option<Candidate>,
    second: Candidate,
    of: impl Fn(&Candidate) -> T,
) -> Option<Candidate> {
    match first {
        Some(first) if of(&second) <= of(&first) => Some(first),
        _ => Some(second),
    }
}
