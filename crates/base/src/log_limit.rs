//! Lines of the log that a packet, a client or an interface can cause: so many a minute, and the others counted.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lines of one kind within [`WINDOW`].
const LINES_MAX: u32 = 5;
/// The time for which they are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Lines that were not written, of all kinds.
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// A kind of line. One `static` a place that logs:
///
/// ```
/// use base::log_limit::LogLimit;
/// static LIMIT: LogLimit = LogLimit::new();
/// if let Some(left_out) = LIMIT.admit() {
///     tracing::warn!("a query failed{left_out}");
/// }
/// ```
#[derive(Debug)]
pub struct LogLimit(Mutex<Window>);

#[derive(Debug)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

/// How many lines were left out since the last that was written; it shows as nothing when there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed(u64);

impl std::fmt::Display for Suppressed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            lines => write!(f, " ({lines} such lines were left out)"),
        }
    }
}

impl LogLimit {
    /// A kind of which no line was written yet.
    #[allow(clippy::new_without_default, reason = "it is made where it stays")]
    pub const fn new() -> Self {
        Self(Mutex::new(Window { began: None, lines: 0, left_out: 0 }))
    }

    /// Whether a line may be written now, and how many were not.
    pub fn admit(&self) -> Option<Suppressed> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<Suppressed> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            window.began = Some(now);
            window.lines = 0;
        }
        if window.lines == LINES_MAX {
            window.left_out += 1;
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        window.lines += 1;
        Some(Suppressed(std::mem::take(&mut window.left_out)))
    }
}

/// Lines that were left out since the process was started.
pub fn suppressed() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_five_lines_a_minute_and_a_count() {
        let limit = LogLimit::new();
        let start = Instant::now();
        let written = (0..1000).filter(|_| limit.admit_at(start).is_some()).count();
        assert_eq!(written, 5);
        assert_eq!(limit.admit_at(start + Duration::from_secs(59)), None);
        let next = limit.admit_at(start + Duration::from_secs(60)).unwrap();
        assert_eq!(next.to_string(), " (996 such lines were left out)");
        let next = limit.admit_at(start + Duration::from_secs(61)).unwrap();
        assert_eq!(next.to_string(), "");
        assert!(suppressed() >= 996);
    }
}
