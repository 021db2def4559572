//! When packets were lost, as far as samples of the counts tell.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use base::time::Timestamp;
use query::timeline::TimelineDrops;

/// Times that are kept; the oldest are forgotten first.
const TIMES_MAX: usize = 1024;

/// The times between samples in which packets were lost.
#[derive(Debug, Default)]
pub(crate) struct DropTimes(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    /// The last sample: its time and the count.
    last: Option<(Timestamp, u64)>,
    times: VecDeque<(Timestamp, Timestamp, u64)>,
}

impl DropTimes {
    /// Notes the count of lost packets at a time.
    pub(crate) fn sample(&self, now: Timestamp, lost: u64) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, before) = samples.last.unwrap_or((now, 0));
        samples.last = Some((now, lost));
        if lost <= before {
            return;
        }
        match samples.times.back_mut() {
            // Losses that go on are one time.
            Some((_, until, packets)) if *until == since => (*until, *packets) = (now, *packets + lost - before),
            _ => samples.times.push_back((since, now, lost - before)),
        }
        if samples.times.len() > TIMES_MAX {
            samples.times.pop_front();
        }
    }

    /// The times, oldest first.
    pub(crate) fn times(&self) -> Vec<TimelineDrops> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = samples.times.iter().map(|(since, until, packets)| TimelineDrops {
            since: since.to_rfc3339().into(),
            until: until.to_rfc3339().into(),
            packets: *packets,
        });
        times.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_that_go_on_are_one_time_and_old_ones_are_forgotten() {
        let drops = DropTimes::default();
        for (second, lost) in [(0, 0), (5, 3), (10, 4), (15, 4), (20, 9)] {
            drops.sample(Timestamp::from_unix(second, 0), lost);
        }
        let packets: Vec<u64> = drops.times().iter().map(|time| time.packets).collect();
        assert_eq!(packets, [4, 5]);
        for n in 0..3000u64 {
            drops.sample(Timestamp::from_unix(30 + n * 5, 0), 9 + n.div_ceil(2));
        }
        assert_eq!(drops.times().len(), TIMES_MAX);
    }
}
