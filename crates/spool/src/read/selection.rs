//! What is read of a spool.

use crate::index::{Chunk, ChunkSet, ClosedPackets, Condition};
use base::time::Timestamp;

/// The packets to read.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Earliest time, inclusive.
    pub since: Option<Timestamp>,
    /// Latest time, inclusive.
    pub until: Option<Timestamp>,
    /// Conditions on the packets. A chunk is read only if each condition is met by one of its packets.
    pub conditions: Vec<Condition>,
    /// If not empty, a chunk is read only if one of its packets meets one of these.
    pub any: Vec<Condition>,
    /// Whether to count the packets of the window that were not opened.
    pub counts_closed: bool,
}

impl Selection {
    pub(super) fn window(&self) -> (Timestamp, Timestamp) {
        (self.since.unwrap_or(Timestamp::MIN), self.until.unwrap_or(Timestamp::MAX))
    }
}

/// Whether a chunk has packets of the window.
pub(super) fn overlaps(chunk: &Chunk, window: (Timestamp, Timestamp)) -> bool {
    chunk.times.is_some_and(|(oldest, newest)| oldest <= window.1 && newest >= window.0)
}

/// Keeps the chunks that are also in `found`.
pub(super) fn intersect(set: &mut Option<ChunkSet>, found: ChunkSet) {
    match set {
        Some(set) => set.intersect(&found),
        None => *set = Some(found),
    }
}

/// Adds counts, if they are wanted.
pub(super) fn add(sum: &mut Option<ClosedPackets>, more: ClosedPackets) {
    if let Some(sum) = sum {
        for (kind, packets) in more {
            let count = sum.entry(kind).or_default();
            *count = count.saturating_add(packets);
        }
    }
}
