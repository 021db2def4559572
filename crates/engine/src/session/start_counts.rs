//! Counts of session starts per time bucket.
//!
//! Coverage needs the number of sessions that began in a past period. Sessions leave the array and then the archive,
//! and those of a flood are not archived, so each session is counted when it begins.
//! Buckets are narrow for the last minutes and wide for the last days. A period therefore starts at a bucket boundary.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use base::codec::{Put, Take, damaged};
use base::memory::add;
use base::time::Timestamp;

const SECOND_NS: u64 = 1_000_000_000;
/// Bucket widths in nanoseconds.
const WIDTHS_NS: [u64; 4] = [SECOND_NS, 10 * SECOND_NS, 60 * SECOND_NS, 1200 * SECOND_NS];
/// Buckets of each width. Those of 20 minutes reach back 42 hours.
const BUCKETS: usize = 128;

/// Session counts by the time of the first packet. One thread writes, any number of threads read.
#[derive(Debug)]
pub(super) struct SessionStartCounts {
    buckets: Box<[Bucket]>,
    total: AtomicU64,
    /// The second in which the latest session began, and the sessions of that second, which are not in the buckets yet.
    /// So a session of a flood costs one addition.
    second_from_ns: AtomicU64,
    pending: AtomicU64,
}

#[derive(Debug, Default)]
struct Bucket {
    /// The bucket's start time divided by its width.
    number: AtomicU64,
    sessions: AtomicU64,
}

impl SessionStartCounts {
    pub(super) const BYTES: usize = WIDTHS_NS.len() * BUCKETS * size_of::<Bucket>();

    pub(super) fn new() -> Self {
        let buckets = (0..WIDTHS_NS.len() * BUCKETS).map(|_| Bucket::default()).collect();
        Self { buckets, total: 0.into(), second_from_ns: 0.into(), pending: 0.into() }
    }

    /// Counts a session that begins at `time`.
    #[inline]
    pub(super) fn count(&self, time: Timestamp) {
        if time.0.wrapping_sub(self.second_from_ns.load(Ordering::Relaxed)) >= SECOND_NS {
            self.begin_second(time);
        }
        add(&self.pending, 1);
    }

    #[cold]
    fn begin_second(&self, time: Timestamp) {
        self.settle();
        self.second_from_ns.store(time.0 / SECOND_NS * SECOND_NS, Ordering::Relaxed);
    }

    /// Adds the pending sessions to the buckets.
    fn settle(&self) {
        let (from_ns, pending) = (self.second_from_ns.load(Ordering::Relaxed), self.pending.load(Ordering::Relaxed));
        if pending == 0 {
            return;
        }
        for (level, width_ns) in WIDTHS_NS.into_iter().enumerate() {
            self.add(level, from_ns / width_ns, pending);
        }
        add(&self.total, pending);
        self.pending.store(0, Ordering::Relaxed);
    }

    /// Adds to a bucket, unless it already counts a later period.
    fn add(&self, level: usize, number: u64, sessions: u64) {
        let bucket = &self.buckets[Self::place(level, number)];
        let newest = bucket.number.load(Ordering::Relaxed);
        if number > newest {
            bucket.sessions.store(0, Ordering::Relaxed);
            bucket.number.store(number, Ordering::Release);
        } else if number < newest {
            // The clock was set back by more than this width's buckets cover.
            return;
        }
        add(&bucket.sessions, sessions);
    }

    fn place(level: usize, number: u64) -> usize {
        level * BUCKETS + usize::try_from(number % BUCKETS as u64).unwrap_or(0)
    }

    /// Sessions begun so far.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed) + self.pending.load(Ordering::Relaxed)
    }

    /// The number of sessions that began in the last `period_ns` before `now`, and the exact start of the count, which
    /// is a bucket boundary.
    pub(super) fn since(&self, now: Timestamp, period_ns: u64) -> (Timestamp, u64) {
        let fits = |width_ns: &u64| period_ns / width_ns < BUCKETS as u64 - 1;
        let level = WIDTHS_NS.iter().position(fits).unwrap_or(WIDTHS_NS.len() - 1);
        let width_ns = WIDTHS_NS[level];
        let first = now.0.saturating_sub(period_ns) / width_ns;
        // There is no upper bound, as packets may be a little ahead of the caller's clock.
        let sessions = self.buckets[level * BUCKETS..][..BUCKETS].iter().map(|bucket| {
            let number = bucket.number.load(Ordering::Acquire);
            if number >= first { bucket.sessions.load(Ordering::Relaxed) } else { 0 }
        });
        // While the writer moves the pending sessions, which are those of one second, a reader can count them twice.
        let is_in = self.second_from_ns.load(Ordering::Relaxed) / width_ns >= first;
        let pending = if is_in { self.pending.load(Ordering::Relaxed) } else { 0 };
        (Timestamp(first * width_ns), sessions.sum::<u64>() + pending)
    }

    /// Writes the counts for the next recorder.
    pub(super) fn hand_over(&self, out: &mut impl Write) -> io::Result<()> {
        self.settle();
        out.put_u64(self.total())?;
        let count = |bucket: &Bucket| bucket.sessions.load(Ordering::Relaxed);
        let used = (0u16..).zip(&self.buckets).filter(|(_, bucket)| count(bucket) > 0);
        out.put_u16(u16::try_from(used.clone().count()).unwrap_or(0))?;
        for (at, bucket) in used {
            out.put_u16(at)?;
            out.put_words(&[bucket.number.load(Ordering::Relaxed), count(bucket)])?;
        }
        Ok(())
    }

    /// Adds the counts of a previous recorder that ended at `now`. Implausibly large counts become 0, and buckets in
    /// the future are ignored.
    ///
    /// # Errors
    ///
    /// If the input ends early or names an unknown bucket width.
    pub(super) fn take_over(&self, input: &mut impl Read, now: Timestamp) -> io::Result<()> {
        let plausible = |count: u64| if count < 1 << 56 { count } else { 0 };
        add(&self.total, plausible(input.take_u64()?));
        self.settle();
        for _ in 0..input.take_u16()? {
            let at = usize::from(input.take_u16()?);
            let [number, sessions] = input.take_words()?;
            let level = at / BUCKETS;
            let Some(width_ns) = WIDTHS_NS.get(level) else { return Err(damaged("when sessions began")) };
            if number % BUCKETS as u64 == (at % BUCKETS) as u64 && number <= now.0 / width_ns {
                self.add(level, number, plausible(sessions));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp((1_000_000 + second) * SECOND_NS)
    }

    #[test]
    fn sessions_are_counted_since_the_start_of_a_period() {
        let begins = SessionStartCounts::new();
        // One session per second for three days.
        let end = 3 * 86_400;
        (0..end).for_each(|second| begins.count(at(second)));
        assert_eq!(begins.total(), end);
        for (period_s, width_s) in [(60, 1), (600, 10), (3600, 60), (86_400, 1200)] {
            let (since, sessions) = begins.since(at(end), period_s * SECOND_NS);
            let reach = at(end).0 - since.0;
            assert!((period_s..=period_s + width_s).contains(&(reach / SECOND_NS)), "{period_s}: {reach}");
            assert_eq!(sessions, reach / SECOND_NS, "exactly those that began since then");
        }
    }

    #[test]
    fn a_successor_goes_on_counting() {
        let (old, new) = (SessionStartCounts::new(), SessionStartCounts::new());
        (0..1000).for_each(|second| old.count(at(second)));
        let mut written = Vec::new();
        old.hand_over(&mut written).unwrap();
        new.take_over(&mut &written[..], at(1000)).unwrap();
        (1000..2000).for_each(|second| new.count(at(second)));
        assert_eq!(new.total(), 2000);
        let (since, sessions) = new.since(at(2000), 1200 * SECOND_NS);
        assert_eq!(sessions, (at(2000).0 - since.0) / SECOND_NS);
        assert!(new.take_over(&mut &[0xff; 100][..], at(1)).is_err());
        assert_eq!(new.total(), 2000);
    }
}
