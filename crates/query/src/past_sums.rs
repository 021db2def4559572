//! Sums over archived sessions, so that a timeline of millions of them need not read each one.
//!
//! ```text
//!   archive   [block][block]…[block] [block]…[block] [block]…          a block: 512 sessions, compressed
//!   sums      [ group: 128 cells    ] [ group        ] not summed yet  a cell: sessions that began, bytes that were carried
//! ```
//!
//! The sums of a group do not change, and go when the archive overwrites its first block. Where cells are too long for the
//! spans that are asked for, the blocks of the group are read instead.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::time_sums::{Spans, Sums};
use base::time::Timestamp;
use engine::session::{BLOCK_SESSIONS, PastSpans, SessionArray};

/// Cells of a group.
const CELLS: u64 = 128;
/// Bytes of a group at most.
const GROUP_BYTES: u64 = CELLS * size_of::<(u32, u64)>() as u64 + 128;
/// Bytes of an archive for which there is one group more, and groups of a worker at most.
const RING_BYTES_OF_GROUP: u64 = 16 << 10;
const GROUPS_MAX: u64 = 4096;
/// Blocks of a group, as long as there are not too many groups.
const GROUP_BLOCKS: u64 = 8;
/// Blocks that are read while others wait for the sums.
const BLOCKS_AT_ONCE: usize = 256;
/// Spans over which a cell may reach: about a hundredth of a timeline by default.
const SPANS_OF_CELL: u64 = 8;
/// Groups whose blocks are read for one timeline at most. Beyond, cells that are too long are spread evenly.
const GROUPS_READ_MAX: usize = 64;

/// Bytes of the archives from which on sums are kept. A smaller archive is read in milliseconds, and a small recorder needs
/// the memory for answers.
const RINGS_BYTES_MIN: u64 = 8 << 20;

/// The sums of all workers.
#[derive(Debug)]
pub struct PastSums {
    workers: Mutex<Vec<WorkerSums>>,
    /// Bytes of the archives from which on there are sums.
    pub(super) rings_bytes_min: u64,
}

impl Default for PastSums {
    fn default() -> Self {
        Self { workers: Mutex::default(), rings_bytes_min: RINGS_BYTES_MIN }
    }
}

#[derive(Debug, Default)]
struct WorkerSums {
    groups: VecDeque<Group>,
    /// The first ordinal that is in no group.
    next: u64,
}

/// The sums over the sessions of some blocks.
#[derive(Debug)]
struct Group {
    first: u64,
    end: u64,
    /// Start of the first cell, and the length of a cell, in nanoseconds.
    since: u64,
    width: u64,
    /// Time of the last packet.
    latest: u64,
    cells: Vec<(u32, u64)>,
}

impl PastSums {
    /// Bytes that the sums of these sessions take at most.
    pub(super) fn bytes_max<'a>(&self, workers: impl Iterator<Item = &'a SessionArray> + Clone) -> u64 {
        if self.are_kept(workers.clone()) {
            workers.map(|sessions| groups_max(sessions) * GROUP_BYTES).sum()
        } else {
            0
        }
    }

    fn are_kept<'a>(&self, workers: impl Iterator<Item = &'a SessionArray>) -> bool {
        workers.map(SessionArray::archive_ring_bytes).sum::<u64>() >= self.rings_bytes_min
    }

    /// Sums up what was archived since the last time.
    pub(super) fn extend<'a>(&self, workers: impl Iterator<Item = &'a SessionArray> + Clone) {
        if !self.are_kept(workers.clone()) {
            return;
        }
        for (at, sessions) in workers.enumerate() {
            while self.extend_some(at, sessions) {}
        }
    }

    /// Sums up some groups. Returns whether there may be more.
    fn extend_some(&self, at: usize, sessions: &SessionArray) -> bool {
        let mut all = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() <= at {
            all.resize_with(at + 1, WorkerSums::default);
        }
        let Some(sums) = all.get_mut(at) else { return false };
        let oldest = sessions.oldest_archived();
        while sums.groups.front().is_some_and(|group| group.first < oldest) {
            sums.groups.pop_front();
        }
        let length = group_blocks(sessions) * BLOCK_SESSIONS;
        // A group begins at a multiple of its length, so that it does not matter when it is summed up.
        sums.next = sums.next.max(oldest.next_multiple_of(length));
        let (from, until) = (sums.next, sessions.archived() / length * length);
        let everything = (Timestamp::MIN, Timestamp::MAX);
        let mut group: Vec<PastSpans> = Vec::new();
        let blocks = sessions.past_spans(everything, |ordinals| ordinals.start >= from && ordinals.end <= until);
        let mut read = 0;
        for block in blocks.take(BLOCKS_AT_ONCE.max(usize::try_from(group_blocks(sessions)).unwrap_or(usize::MAX))) {
            read += 1;
            let end = block.ordinals.end;
            group.push(block);
            if end.is_multiple_of(length) {
                // A group of which the archive has lost a block meanwhile is read block by block.
                if group.first().is_some_and(|block| block.ordinals.start + length == end) {
                    sums.groups.push_back(Group::new(&group));
                }
                sums.next = end;
                group.clear();
            }
        }
        while sums.groups.len() as u64 > groups_max(sessions) {
            sums.groups.pop_front();
        }
        read >= BLOCKS_AT_ONCE && sums.next > from
    }

    /// Adds the sessions of a worker with ordinals below `until`, which is the end of a block.
    pub(super) fn add_to(&self, at: usize, sessions: &SessionArray, until: u64, to: &mut Sums) {
        let oldest = sessions.oldest_archived();
        let mut summed = Vec::new();
        {
            let all = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            let groups = all.get(at).into_iter().flat_map(|sums| &sums.groups);
            let mut left = GROUPS_READ_MAX;
            for group in groups.filter(|group| group.first >= oldest && group.end <= until) {
                if group.overlaps(&to.spans) && group.is_too_coarse(&to.spans) && left > 0 {
                    left -= 1;
                    continue;
                }
                group.add_to(to);
                summed.push(group.first..group.end);
            }
        }
        let is_summed = |first: u64| {
            let at = summed.partition_point(|ordinals| ordinals.end <= first);
            summed.get(at).is_some_and(|ordinals| ordinals.contains(&first))
        };
        let window = to.spans.window();
        for block in sessions.past_spans(window, |ordinals| ordinals.end <= until && !is_summed(ordinals.start)) {
            block.spans.iter().for_each(|&(first, last, bytes)| to.add_past(first, last, bytes));
        }
    }
}

/// Groups of a worker at most.
fn groups_max(sessions: &SessionArray) -> u64 {
    (sessions.archive_ring_bytes() / RING_BYTES_OF_GROUP).min(GROUPS_MAX)
}

/// Blocks of a group: more in a very large archive.
fn group_blocks(sessions: &SessionArray) -> u64 {
    GROUP_BLOCKS * sessions.archive_ring_bytes().div_ceil(RING_BYTES_OF_GROUP * GROUPS_MAX).max(1)
}

impl Group {
    fn new(blocks: &[PastSpans]) -> Self {
        let spans = || blocks.iter().flat_map(|block| &block.spans).copied();
        let since = spans().map(|(first, ..)| first).min().unwrap_or(Timestamp::MIN);
        let until = spans().map(|(_, last, _)| last).max().unwrap_or(since);
        let cells = Spans::new(since, until, CELLS);
        let (width, mut sums) = (cells.width, Sums::new(cells));
        spans().for_each(|(first, last, bytes)| sums.add_past(first, last, bytes));
        let ordinals =
            blocks.first().map_or(0, |block| block.ordinals.start)..blocks.last().map_or(0, |block| block.ordinals.end);
        Self {
            first: ordinals.start,
            end: ordinals.end,
            since: since.0,
            width,
            latest: until.0,
            cells: sums.into_cells(),
        }
    }

    fn overlaps(&self, spans: &Spans) -> bool {
        self.latest >= spans.since && self.since < spans.until
    }

    fn is_too_coarse(&self, spans: &Spans) -> bool {
        self.width > spans.width.saturating_mul(SPANS_OF_CELL)
    }

    fn add_to(&self, sums: &mut Sums) {
        for (number, &(sessions, bytes)) in (0u64..).zip(&self.cells) {
            let first = self.since.saturating_add(self.width.saturating_mul(number));
            // The last cell may reach beyond the last packet.
            let last = first.saturating_add(self.width - 1).min(self.latest).max(first);
            sums.add_sum((first, last), (first, last), (sessions.into(), bytes));
        }
    }
}

#[cfg(test)]
mod tests;
