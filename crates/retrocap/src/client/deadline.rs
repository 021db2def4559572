//! The timeout for a recorder's answer.
//!
//! Only time spent waiting for the recorder counts, so that a slow disk or pager on this side costs nothing. Received
//! bytes extend the deadline: a steady answer may take hours, and one that trickles in ends.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// The timeout when `--timeout` is not given.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);

/// Received bytes that extend the deadline by one second.
const BYTES_PER_SECOND_MIN: u64 = 1024;

/// The remaining time to wait for an answer.
#[derive(Debug)]
pub(crate) struct Deadline {
    timeout: Duration,
    received_bytes: u64,
    waited: Duration,
    lifted: bool,
    /// Whether silence alone may last no longer than the timeout, whatever was received before.
    bounds_silence: bool,
}

/// The error when the deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOut {
    waited: Duration,
    received_bytes: u64,
}

impl std::error::Error for TimedOut {}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {} bytes in {} s, and timed out: ask again, for less, or with a longer --timeout",
            self.received_bytes,
            self.waited.as_secs()
        )
    }
}

impl Deadline {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, received_bytes: 0, waited: Duration::ZERO, lifted: false, bounds_silence: false }
    }

    /// A limit that also ends when nothing has come for `timeout`, after however much.
    pub(crate) fn of_silence(timeout: Duration) -> Self {
        Self { bounds_silence: true, ..Self::new(timeout) }
    }

    /// Removes the time limit.
    pub(crate) fn lift(&mut self) {
        self.lifted = true;
    }

    /// Counts received bytes, which extend the deadline.
    pub(crate) fn extend(&mut self, bytes: usize) {
        self.received_bytes = self.received_bytes.saturating_add(bytes as u64);
    }

    fn left(&self) -> Duration {
        let earned = Duration::from_millis(self.received_bytes.saturating_mul(1000) / BYTES_PER_SECOND_MIN);
        let left = self.timeout.saturating_add(earned).saturating_sub(self.waited);
        if self.bounds_silence { left.min(self.timeout) } else { left }
    }

    /// Waits for `work`, at most for the remaining time.
    pub(crate) fn wait<T>(&mut self, runtime: &Runtime, work: impl Future<Output = T>) -> Result<T, TimedOut> {
        runtime.block_on(self.limit(work))
    }

    /// As [`wait`](Self::wait), within a runtime.
    pub(crate) async fn limit<T>(&mut self, work: impl Future<Output = T>) -> Result<T, TimedOut> {
        if self.lifted {
            return Ok(work.await);
        }
        let (start, left) = (Instant::now(), self.left());
        let done = tokio::time::timeout(left, work).await;
        self.waited += start.elapsed();
        done.map_err(|_| TimedOut { waited: self.waited, received_bytes: self.received_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_extends_the_deadline() {
        let mut deadline = Deadline::new(Duration::from_secs(10));
        assert_eq!(deadline.left(), Duration::from_secs(10));
        deadline.waited = Duration::from_secs(9);
        assert_eq!(deadline.left(), Duration::from_secs(1));
        deadline.extend(3 * 1024);
        assert_eq!(deadline.left(), Duration::from_secs(4));
        deadline.waited = Duration::from_secs(60);
        assert_eq!(deadline.left(), Duration::ZERO);
        deadline.extend(usize::MAX);
        assert!(deadline.left() > Duration::from_secs(3600));
    }

    #[test]
    fn silence_after_much_ends_too() {
        let mut deadline = Deadline::of_silence(Duration::from_secs(10));
        deadline.extend(1 << 30);
        assert_eq!(deadline.left(), Duration::from_secs(10));
    }

    #[test]
    fn what_never_comes_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut deadline = Deadline::new(Duration::from_millis(1));
        let error = deadline.wait(&runtime, std::future::pending::<()>()).unwrap_err();
        assert!(error.to_string().contains("--timeout"), "{error}");
        assert_eq!(deadline.wait(&runtime, std::future::ready(5)), Ok(5));
    }
}
