//! A histogram of durations with a fixed number of buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets in microseconds; longer durations are in one more bucket.
const ENDS_US: [u64; 12] =
    [500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// Counts of durations.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: [AtomicU64; ENDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = ENDS_US.partition_point(|&end| end < us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The end of each bucket in seconds with the number of durations up to it; then the number of all, and their sum in seconds.
    pub(super) fn cumulative(&self) -> (Vec<(String, u64)>, u64, f64) {
        let ends = ENDS_US.iter().map(|&us| Duration::from_micros(us).as_secs_f64().to_string());
        let mut total = 0;
        let buckets = ends.chain(["+Inf".to_owned()]).zip(&self.counts).map(|(end, count)| {
            total += count.load(Ordering::Relaxed);
            (end, total)
        });
        let buckets = buckets.collect();
        (buckets, total, Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_its_bucket_and_all_above() {
        let histogram = Histogram::default();
        for us in [0, 500, 501, 99_000, 40_000_000] {
            histogram.note(Duration::from_micros(us));
        }
        let (buckets, count, sum) = histogram.cumulative();
        let find = |end: &str| buckets.iter().find(|bucket| bucket.0 == end).unwrap().1;
        assert_eq!([find("0.0005"), find("0.001"), find("0.1"), find("30"), find("+Inf")], [2, 3, 4, 4, 5]);
        assert_eq!((count, buckets.len()), (5, 13));
        assert!((sum - 40.100_001).abs() < 1e-6, "{sum}");
    }
}
