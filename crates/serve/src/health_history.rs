//! Samples of counts, from which health tells what has changed lately.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far back drops count.
const DROPS_WINDOW: Duration = Duration::from_secs(60);

/// The samples of all counts.
#[derive(Debug, Default)]
pub(crate) struct HealthHistory {
    pub(crate) kernel: RecentDrops,
    pub(crate) interfaces_full: RecentDrops,
    pub(crate) pins_full: RecentDrops,
    pub(crate) turns: WorkerProgress,
}

/// Which workers have not moved between the last two samples.
#[derive(Debug, Default)]
pub(crate) struct WorkerProgress(Mutex<(Vec<u64>, Vec<usize>)>);

impl WorkerProgress {
    pub(crate) fn sample(&self, now: Vec<u64>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let still = seen.0.iter().zip(&now).enumerate().filter(|(_, (before, now))| before == now);
        seen.1 = still.map(|(worker, _)| worker).collect();
        seen.0 = now;
    }

    pub(crate) fn stuck(&self) -> Vec<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

/// Drops within [`DROPS_WINDOW`].
#[derive(Debug, Default)]
pub(crate) struct RecentDrops(Mutex<VecDeque<(Instant, u64)>>);

impl RecentDrops {
    pub(crate) fn sample(&self, now: Instant, total: u64) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back((now, total));
        // One sample older than the window stays: the drops since then are those of the window.
        while samples.get(1).is_some_and(|(at, _)| now - *at >= DROPS_WINDOW) {
            samples.pop_front();
        }
    }

    pub(crate) fn recent(&self, total: u64) -> u64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.front().map_or(total, |(_, before)| total - before.min(&total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_forgotten_after_a_minute() {
        let drops = RecentDrops::default();
        let start = Instant::now();
        assert_eq!(drops.recent(3), 3, "of the first seconds");
        drops.sample(start, 3);
        assert_eq!(drops.recent(3), 0);
        for (seconds, total, recent) in [(5, 5, 2), (30, 5, 2), (64, 5, 2), (66, 5, 0), (70, 9, 4), (200, 9, 0)] {
            drops.sample(start + Duration::from_secs(seconds), total);
            assert_eq!(drops.recent(total), recent, "after {seconds} s");
        }
        assert!(drops.0.lock().unwrap().len() < 4);
    }

    #[test]
    fn a_worker_that_stands_still_is_named_until_it_moves() {
        let turns = WorkerProgress::default();
        assert!(turns.stuck().is_empty());
        for (now, stuck) in [([1, 1], vec![]), ([2, 1], vec![1]), ([2, 1], vec![0, 1]), ([3, 4], vec![])] {
            turns.sample(now.to_vec());
            assert_eq!(turns.stuck(), stuck, "{now:?}");
        }
    }
}
