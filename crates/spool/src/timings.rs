//! How long writes and syncs of a medium take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets in microseconds; longer durations are in one more bucket.
pub const ENDS_US: [u64; 12] =
    [100, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000, 10_000_000];

/// Counts of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// By bucket.
    pub counts: [u64; ENDS_US.len() + 1],
    /// Sum in microseconds.
    pub sum_us: u64,
}

/// Durations of the operations of a medium.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Writes: each of a few hundred kilobytes.
    pub writes: Durations,
    /// Syncs of files.
    pub syncs: Durations,
}

/// Counts durations while others read the counts.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    counts: [AtomicU64; ENDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Stopwatch {
    pub(crate) fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = ENDS_US.partition_point(|end| *end < us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Durations {
        let mut durations = Durations { sum_us: self.sum_us.load(Ordering::Relaxed), ..Durations::default() };
        for (count, from) in durations.counts.iter_mut().zip(&self.counts) {
            *count = from.load(Ordering::Relaxed);
        }
        durations
    }
}
