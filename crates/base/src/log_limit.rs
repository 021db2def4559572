//! Rate limits for log lines that packets, clients or interfaces can cause. Lines beyond the limit are counted.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The most lines of one kind per [`WINDOW`].
const LINES_MAX: u32 = 5;
/// The period of the limit.
const WINDOW: Duration = Duration::from_secs(60);

/// Suppressed lines of all kinds.
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// The limit for one kind of line. Use one `static` per place that logs:
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

/// The number of lines suppressed since the last written one. It displays as an empty string if there were none.
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
    /// Makes a limit for a kind of which no line has been written.
    #[allow(clippy::new_without_default, reason = "it is made where it stays")]
    pub const fn new() -> Self {
        Self(Mutex::new(Window { began: None, lines: 0, left_out: 0 }))
    }

    /// `None` if the line must be suppressed. Otherwise the number of lines suppressed before it.
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

/// Lines suppressed since the start of the process.
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
