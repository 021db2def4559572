//! A segment that the merge has started to read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::order::ordered;
use base::time::Timestamp;
use engine::store::{Cursor, RecordAt};

/// A started segment.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) worker: usize,
    pub(super) cursor: Cursor,
    pub(super) head: RecordAt,
    pub(super) ahead: BinaryHeap<Reverse<ReadAhead>>,
    pub(super) latest: Timestamp,
    pub(super) read: u64,
    pub(super) live: bool,
}

impl Run {
    fn order(&self) -> (Timestamp, usize, u64) {
        (self.head.header.time, self.worker, self.head.header.sequence)
    }
}

ordered!(Run);

/// A record read ahead, ordered by time and then by arrival.
#[derive(Debug)]
pub(super) struct ReadAhead(pub(super) RecordAt);

impl ReadAhead {
    fn order(&self) -> (Timestamp, u64) {
        (self.0.header.time, self.0.header.sequence)
    }
}

ordered!(ReadAhead);
