//! How long a recorder is waited for.
//!
//! Only time spent waiting for the recorder counts, so that a slow disk or pager on this side costs nothing. What arrives
//! extends the deadline: an answer may take hours as long as it keeps coming, and one that trickles ends.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// How long a recorder may send nothing where `--timeout` does not say otherwise.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);

/// Bytes for which the deadline moves by a second.
const BYTES_PER_SECOND_MIN: u64 = 1024;

/// The time that is left to wait.
#[derive(Debug)]
pub(crate) struct Deadline {
    timeout: Duration,
    received_bytes: u64,
    waited: Duration,
    lifted: bool,
}

/// The deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOut {
    waited: Duration,
    received_bytes: u64,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {} bytes in {} s, and is not waited for any longer: ask again, for less, or with a longer --timeout",
            self.received_bytes,
            self.waited.as_secs()
        )
    }
}

impl Deadline {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, received_bytes: 0, waited: Duration::ZERO, lifted: false }
    }

    /// From now on there is none.
    pub(crate) fn lift(&mut self) {
        self.lifted = true;
    }

    /// Counts what arrived.
    pub(crate) fn extend(&mut self, bytes: usize) {
        self.received_bytes = self.received_bytes.saturating_add(bytes as u64);
    }

    fn left(&self) -> Duration {
        let earned = Duration::from_millis(self.received_bytes.saturating_mul(1000) / BYTES_PER_SECOND_MIN);
        self.timeout.saturating_add(earned).saturating_sub(self.waited)
    }

    /// Waits for `work`, at most for the time that is left.
    pub(crate) fn wait<T>(&mut self, runtime: &Runtime, work: impl Future<Output = T>) -> Result<T, TimedOut> {
        if self.lifted {
            return Ok(runtime.block_on(work));
        }
        let (start, left) = (Instant::now(), self.left());
        let done = runtime.block_on(async { tokio::time::timeout(left, work).await });
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
    fn what_never_comes_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut deadline = Deadline::new(Duration::from_millis(1));
        let error = deadline.wait(&runtime, std::future::pending::<()>()).unwrap_err();
        assert!(error.to_string().contains("--timeout"), "{error}");
        assert_eq!(deadline.wait(&runtime, std::future::ready(5)), Ok(5));
    }
}
