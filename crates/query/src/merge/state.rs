//! What a query knows of itself: its progress, its counts, and what it met.

use std::sync::atomic::Ordering;

use super::super::names::starts::SessionStarts;
use super::super::notes::{SearchNotes, SessionBits};
use super::super::search::Search;
use super::Packets;
use crate::disk::Disk;
use crate::found::Summary;
use spool::index::ClosedPackets;
use spool::read::ReadSummary;

impl Packets<'_> {
    /// Packets in the segments not started yet; at first, in all segments.
    pub(in super::super) fn records_ahead(&self) -> u64 {
        self.waiting.iter().map(|(_, view)| view.packets).sum()
    }

    /// Progress from 0 to 1, judged by the time of the latest packet found.
    #[expect(clippy::cast_precision_loss, reason = "a part of a time")]
    pub fn part(&self) -> f64 {
        let [done, all] = [self.latest.0, self.reach.1.0].map(|time| time.saturating_sub(self.reach.0.0));
        (done as f64 / all.max(1) as f64).clamp(0.0, 1.0)
    }

    /// Counts of the query so far.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// What the query met so far besides the packets it found.
    pub fn notes(&self) -> &SearchNotes {
        &self.notes
    }

    /// The sessions found after [`once_per_session`](Self::once_per_session).
    pub(in super::super) fn into_sessions(self) -> SessionBits {
        self.once.unwrap_or_default()
    }

    /// The search, if the query has many selectors or returns whole sessions.
    pub fn search(&self) -> Option<&Search> {
        self.search.as_ref()
    }

    /// The search, at the end of the query.
    pub fn into_search(self) -> Option<Search> {
        self.search
    }

    /// What could not be read on disk so far.
    pub fn disk_summary(&self) -> ReadSummary {
        let mut summary = self.disk.as_ref().map_or_else(ReadSummary::default, Disk::summary);
        let before = self.search.as_ref().map(Search::disk_unread).unwrap_or_default();
        // The same files are read again, so that the sum would count each loss twice.
        summary.gone = summary.gone.max(before.gone);
        summary.damaged = summary.damaged.max(before.damaged);
        summary.failed = summary.failed.max(before.failed);
        summary.unopened = summary.unopened.max(before.unopened);
        summary
    }

    /// Packets on disk of the window that were not opened and are not in the answer, by kind.
    pub fn disk_closed(&self) -> ClosedPackets {
        self.disk.as_ref().map(Disk::closed).unwrap_or_default()
    }

    /// Whether the query shall end.
    pub(in super::super) fn is_interrupted(&self) -> bool {
        self.interrupts.iter().any(|flag| flag.load(Ordering::Relaxed))
    }

    /// The sessions whose starts are still searched for.
    pub(in super::super) fn starts_mut(&mut self) -> Option<&mut SessionStarts> {
        self.starts.as_mut()
    }
}
