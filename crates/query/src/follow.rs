//! Follows a request: first the past, then new packets, without gaps or duplicates.
//!
//! Every worker numbers the packets it stores ([`RecordHeader::sequence`]), and publishes how many of them can be read.
//! A follower repeatedly cuts this order at the published number:
//!
//! ```text
//!  worker 0   0 ………… the past ………… │ round │  round  │ round │ …
//!  worker 1   0 …… the past …… │  round  │ round │   round   │ …
//!                      published at the start ┘   … later …
//! ```
//!
//! Each packet therefore belongs to one round. Within a round, sequence numbers identify packets; their places do not,
//! because a packet can move. The size of a round is known in advance, so that the count of packets evicted before they
//! were read is exact. A follower holds nothing that the recorder needs. It remembers where the open segments ended, so
//! that a round reads little besides new packets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::found::{Found, Summary};
use super::merge::Packets;
use super::notes::SearchNotes;
use super::order::ordered;
use super::session_selectors::SessionSelectors;
use super::{History, QueryError, Request};
use base::interface::Interface;
use base::time::Timestamp;
use engine::store::record::RecordHeader;
use engine::store::{Cursor, RecordAt, SegmentEvicted};
use filter::FilterSet;

/// Number of waiting packets at which the earliest is returned, even if an earlier one may still come (about 120 bytes
/// each). The latest rounds can exceed it.
const WAITING_MAX: usize = 2048;
/// Packets in one round: the limit shared by all workers, and the smallest limit of one worker.
const ROUND_PACKETS: (u64, u64) = (1024, 16);
/// Maximum number of positions remembered for each worker. More than the number of segments open at once.
const CURSORS_MAX: usize = 32;
/// Number of passes to find the packets of a round. The second pass finds those that moved during the first.
const LOOKS: usize = 2;

/// Follows a [`Request`]; see [`History::follow`].
#[derive(Debug)]
pub struct Follow<'h> {
    history: &'h History,
    request: Request,
    /// The generation of the interface table that `interfaces` is a copy of.
    generation: u64,
    interfaces: Vec<Arc<Interface>>,
    window: (Timestamp, Timestamp),
    selectors: SessionSelectors,
    filter: Option<FilterSet>,
    limit: u64,
    past: Option<Packets<'h>>,
    /// The progress of each worker.
    progress: Vec<WorkerProgress>,
    waiting: BinaryHeap<Reverse<Box<Waiting>>>,
    /// Whether packets were left waiting by the last call.
    held_back: bool,
    latest: Timestamp,
    data: Vec<u8>,
    interrupts: Vec<Arc<AtomicBool>>,
    summary: Summary,
    /// What the search of the past met.
    notes: SearchNotes,
}

/// How far a follower has read a worker's packets in arrival order.
#[derive(Debug)]
struct WorkerProgress {
    /// Sequence number of the first packet of the next round.
    next: u64,
    /// Number of published packets at the last look.
    published: u64,
    /// The latest time read.
    reached: Timestamp,
    /// Positions at which segments ended that may have grown since. Those that grew last come first.
    cursors: Vec<Cursor>,
}

impl History {
    /// Searches for the packets that match, then continues with new packets.
    ///
    /// # Errors
    ///
    /// If the window, the interface or the expression is invalid.
    pub fn follow(&self, request: &Request) -> Result<Follow<'_>, QueryError> {
        Follow::new(self, request)
    }
}

impl<'h> Follow<'h> {
    pub(super) fn new(history: &'h History, request: &Request) -> Result<Self, QueryError> {
        // Reads the numbers before the segments: a packet below a number is then in the segments, or was evicted.
        let stored: Vec<u64> = history.workers.iter().map(|w| w.published.totals().stored.packets).collect();
        let past = Packets::new(history, request)?.arrived_before(stored.clone());
        let progress = stored.into_iter().map(|next| WorkerProgress {
            next,
            published: next,
            reached: Timestamp::MIN,
            cursors: Vec::with_capacity(CURSORS_MAX),
        });
        Ok(Self {
            history,
            request: request.clone(),
            generation: history.interfaces.generation(),
            interfaces: history.interfaces.snapshot(),
            window: request.window()?,
            selectors: SessionSelectors::new(request, history)?,
            filter: request.filter(&history.link_types())?,
            limit: request.limit.unwrap_or(u64::MAX),
            past: Some(past),
            progress: progress.collect(),
            waiting: BinaryHeap::new(),
            held_back: false,
            latest: Timestamp::MIN,
            data: Vec::new(),
            interrupts: Vec::new(),
            summary: Summary::default(),
            notes: SearchNotes::default(),
        })
    }

    /// Ends the query soon after `flag` is set. Can be called for several flags.
    #[must_use]
    pub fn interrupted_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.past = self.past.map(|past| past.interrupted_by(Arc::clone(&flag)));
        self.interrupts.push(flag);
        self
    }

    /// Counts of the query so far.
    pub fn summary(&self) -> Summary {
        self.past.as_ref().map_or(self.summary, Packets::summary)
    }

    /// What the search of the past met; complete when it [is live](Self::is_live).
    pub fn notes(&self) -> &SearchNotes {
        &self.notes
    }

    /// Whether the limit or an interrupt ended the query, so that no further packet comes.
    pub fn has_ended(&self) -> bool {
        let summary = self.summary();
        summary.limited || summary.interrupted
    }

    /// Whether the past has been read to its end.
    pub fn is_live(&self) -> bool {
        self.past.is_none()
    }

    /// The next packet that matches; `None` while there is none.
    ///
    /// With several workers, packets later than `settled` wait for earlier packets of other workers. With one worker,
    /// `settled` has no effect.
    pub fn next(&mut self, settled: Timestamp) -> Option<Found<'_>> {
        if let Some(past) = &mut self.past {
            match past.find() {
                Some((header, worker)) => {
                    self.latest = self.latest.max(header.time);
                    return self.past.as_ref()?.found(header, worker);
                }
                None if past.summary().limited || past.summary().interrupted => return None,
                None => {
                    self.summary = past.summary();
                    self.notes = past.notes().clone();
                    self.past = None;
                }
            }
        }
        let settled = if self.progress.len() == 1 { Timestamp::MAX } else { settled };
        let (header, worker) = self.find(settled)?;
        self.summary.packets += 1;
        self.summary.bytes += self.data.len() as u64;
        self.summary.unsorted += u64::from(header.time < self.latest);
        self.latest = self.latest.max(header.time);
        let interface = self.interfaces.get(usize::from(header.interface.0))?;
        Some(Found::new(header, worker, interface, &self.data, &[]))
    }

    /// Finds the next packet that matches. Its bytes are then in `self.data`.
    fn find(&mut self, settled: Timestamp) -> Option<(RecordHeader, usize)> {
        if std::mem::take(&mut self.held_back) {
            // New packets may precede those that were left waiting.
            self.gather();
        }
        loop {
            if self.summary.packets >= self.limit {
                self.summary.limited = true;
                return None;
            }
            if self.interrupts.iter().any(|flag| flag.load(Ordering::Relaxed)) {
                self.summary.interrupted = true;
                return None;
            }
            if !self.is_due(settled) {
                if self.gather() {
                    continue;
                }
                self.held_back = !self.waiting.is_empty();
                return None;
            }
            let Some(Reverse(packet)) = self.waiting.pop() else { continue };
            if let Some(found) = self.take(*packet) {
                return Some(found);
            }
        }
    }

    /// Whether the earliest waiting packet can be returned: no earlier one can come, or too many packets wait.
    fn is_due(&self, settled: Timestamp) -> bool {
        let Some(Reverse(head)) = self.waiting.peek() else { return false };
        let time = head.record.header.time;
        self.waiting.len() >= WAITING_MAX || (time <= settled && !self.is_behind(time))
    }

    /// Whether a worker has published packets that are not read yet and may be earlier.
    fn is_behind(&self, time: Timestamp) -> bool {
        self.progress.iter().any(|worker| worker.next < worker.published && worker.reached < time)
    }

    /// Reads one round of every worker that may hold up the waiting packets. Returns whether there was any.
    fn gather(&mut self) -> bool {
        let workers = self.progress.len() as u64;
        let round_max = (ROUND_PACKETS.0 / workers.max(1)).max(ROUND_PACKETS.1);
        let head = self.waiting.peek().map(|Reverse(head)| head.record.header.time);
        let mut any = false;
        for worker in 0..self.progress.len() {
            let published = self.history.workers[worker].published.totals().stored.packets;
            let progress = &mut self.progress[worker];
            progress.published = published;
            let round = progress.next..published.min(progress.next.saturating_add(round_max));
            // A worker that is past the earliest waiting packet would only make more packets wait.
            if round.is_empty() || head.is_some_and(|time| time <= progress.reached) {
                continue;
            }
            any = true;
            progress.next = round.end;
            let wanted: Vec<u64> = round.collect();
            let missing = self.look_for(worker, &wanted);
            self.summary.overtaken += missing;
        }
        any
    }

    /// Reads the packets with these sequence numbers, which must be ascending, and lets them wait. Returns how many are
    /// missing.
    fn look_for(&mut self, worker: usize, wanted: &[u64]) -> u64 {
        let (Some(&first), Some(&last)) = (wanted.first(), wanted.last()) else { return 0 };
        let mut seen = Vec::with_capacity(wanted.len());
        let cursors = std::mem::take(&mut self.progress[worker].cursors);
        let segments = &self.history.workers[worker].segments;
        // First come segments that were read before and may have grown. If packets are missing, all others follow.
        let (mut grown, mut still) = (Vec::with_capacity(CURSORS_MAX), Vec::with_capacity(CURSORS_MAX));
        for mut cursor in cursors {
            if segments.follow(&mut cursor).is_ok() {
                let before = seen.len();
                self.read(worker, &mut cursor, wanted, &mut seen);
                if seen.len() > before { grown.push(cursor) } else { still.push(cursor) }
            }
        }
        let mut missing = count_missing(&mut seen, wanted);
        for _ in 0..LOOKS {
            if missing == 0 {
                break;
            }
            for view in segments.views_from(first).filter(|view| view.first_sequence() <= last) {
                if grown.iter().chain(&still).any(|known| known.segment().is_same(&view)) {
                    continue;
                }
                let mut cursor = segments.cursor(view);
                self.read(worker, &mut cursor, wanted, &mut seen);
                grown.push(cursor);
            }
            missing = count_missing(&mut seen, wanted);
        }
        grown.append(&mut still);
        grown.truncate(CURSORS_MAX);
        self.progress[worker].cursors = grown;
        missing
    }

    /// Reads a segment up to the last wanted packet. The wanted packets then wait.
    fn read(&mut self, worker: usize, cursor: &mut Cursor, wanted: &[u64], seen: &mut Vec<u64>) {
        let Some(&last) = wanted.last() else { return };
        let segments = &self.history.workers[worker].segments;
        let mut shared = None;
        loop {
            // Later packets belong to the next round.
            let mut ahead = cursor.clone();
            let Ok(Some(record)) = segments.next(&mut ahead) else { return };
            let header = &record.header;
            if header.sequence > last {
                return;
            }
            *cursor = ahead;
            if wanted.binary_search(&header.sequence).is_err() {
                continue;
            }
            seen.push(header.sequence);
            if usize::from(header.interface.0) >= self.interfaces.len()
                || self.generation != self.history.interfaces.generation()
            {
                self.meet_interfaces();
            }
            let progress = &mut self.progress[worker];
            progress.reached = progress.reached.max(header.time);
            let in_window = self.window.0 <= header.time && header.time <= self.window.1;
            if in_window && self.selectors.interface(header.interface) {
                let cursor = Arc::clone(shared.get_or_insert_with(|| Arc::new(cursor.clone())));
                self.waiting.push(Reverse(Box::new(Waiting { worker, record, cursor })));
            }
        }
    }

    /// Renews the interface table, because a new interface may have the requested name.
    fn meet_interfaces(&mut self) {
        self.generation = self.history.interfaces.generation();
        self.interfaces = self.history.interfaces.snapshot();
        if let Ok(selectors) = SessionSelectors::new(&self.request, self.history) {
            self.selectors = selectors;
        }
    }

    /// Returns the packet if it matches. Its bytes are then in `self.data`.
    fn take(&mut self, mut packet: Waiting) -> Option<(RecordHeader, usize)> {
        let (header, worker) = (packet.record.header, packet.worker);
        let mut looked = false;
        loop {
            let outcome = self.matches(&packet);
            let looked_before = looked;
            if outcome.is_err() && !looked && self.waiting.peek().is_none_or(|Reverse(other)| **other != packet) {
                looked = true;
                self.look_again(&packet);
            }
            // A packet that moved may wait twice, once for each place.
            let mut elsewhere = None;
            while let Some(Reverse(other)) = self.waiting.peek()
                && **other == packet
            {
                elsewhere = self.waiting.pop();
            }
            match (outcome, elsewhere) {
                (Ok(wanted), _) => return wanted.then_some((header, worker)),
                (Err(SegmentEvicted), Some(Reverse(other))) => packet = *other,
                (Err(SegmentEvicted), None) => {
                    // If this was the first look, `look_again` has counted the packet.
                    self.summary.overtaken += u64::from(looked_before);
                    return None;
                }
            }
        }
    }

    /// Looks again for all waiting packets of a worker after a segment was freed: its packets were evicted or have
    /// moved.
    fn look_again(&mut self, packet: &Waiting) {
        let worker = packet.worker;
        let mut wanted = vec![packet.record.header.sequence];
        let waiting = std::mem::take(&mut self.waiting);
        for Reverse(other) in waiting {
            if other.worker == worker {
                wanted.push(other.record.header.sequence);
            } else {
                self.waiting.push(Reverse(other));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let cursors = std::mem::take(&mut self.progress[worker].cursors);
        self.summary.overtaken += self.look_for(worker, &wanted);
        self.progress[worker].cursors = cursors;
    }

    fn matches(&mut self, packet: &Waiting) -> Result<bool, SegmentEvicted> {
        let header = &packet.record.header;
        let worker = &self.history.workers[packet.worker];
        worker.segments.data(&packet.cursor, &packet.record, &mut self.data)?;
        let Some(interface) = self.interfaces.get(usize::from(header.interface.0)) else { return Ok(false) };
        let link_type = interface.link_type;
        Ok(self.selectors.packet(&worker.sessions, header, link_type, &self.data)
            && self.filter.as_mut().is_none_or(|filter| filter.matches(link_type, &self.data, header.original_len)))
    }
}

/// Sorts `seen`, removes duplicates, and returns how many of `wanted` are not in it.
fn count_missing(seen: &mut Vec<u64>, wanted: &[u64]) -> u64 {
    seen.sort_unstable();
    seen.dedup();
    (wanted.len() - seen.len()) as u64
}

/// A packet that waits to be returned in time order.
#[derive(Debug)]
struct Waiting {
    worker: usize,
    record: RecordAt,
    cursor: Arc<Cursor>,
}

impl Waiting {
    fn order(&self) -> (Timestamp, usize, u64) {
        (self.record.header.time, self.worker, self.record.header.sequence)
    }
}

ordered!(Waiting);

#[cfg(test)]
mod tests;
