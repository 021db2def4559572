//! Shows a progress line on the terminal: amount, rate and time left. The line appears once work takes longer than a
//! second, and disappears at the end. It is shown only if stderr is a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::options::Common;
use crate::terminal::human::{counted, size};
use base::time;

/// Shorter work ends before anybody could read a line.
const AFTER: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(200);
/// The part that must be done before the time left is estimated.
const GUESS_FROM: f64 = 0.01;

/// The work done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProgressState {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// The part that is done, 0 to 1, if known.
    pub(crate) part: Option<f64>,
}

/// The progress line. Dropping it removes the line.
#[derive(Debug)]
pub(crate) struct Progress(Option<(Arc<AtomicBool>, JoinHandle<()>)>);

impl Progress {
    /// Shows the state that `done` returns, if stderr is a terminal and `--quiet` is not set.
    pub(crate) fn start(common: &Common, done: impl Fn() -> ProgressState + Send + 'static) -> Self {
        if common.quiet || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let over = Arc::<AtomicBool>::default();
        let stop = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            let start = Instant::now();
            let mut shown = false;
            while !stop.load(Ordering::Relaxed) {
                std::thread::park_timeout(EVERY);
                let elapsed = start.elapsed();
                if elapsed < AFTER || stop.load(Ordering::Relaxed) {
                    continue;
                }
                let _ = write!(std::io::stderr(), "\r\x1b[K{}", line(&done(), elapsed));
                shown = true;
            }
            if shown {
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
        });
        Self(thread.ok().map(|thread| (over, thread)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.0.take() {
            over.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// The text of the line: `1,234 packets, 5.6 MiB, 42% (2.8 MiB/s), 3 s left`.
fn line(done: &ProgressState, elapsed: Duration) -> String {
    if done.bytes == 0 {
        return format!("searching for {}", time::human_age(elapsed));
    }
    let mut text = match done.packets {
        0 => size(done.bytes),
        packets => format!("{}, {}", counted(packets, "packet"), size(done.bytes)),
    };
    if let Some(part) = done.part {
        text.push_str(&format!(", {:.0}%", part * 100.0));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rate")]
    let rate = (done.bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    text.push_str(&format!(" ({}/s)", size(rate)));
    if let Some(part) = done.part.filter(|part| *part >= GUESS_FROM) {
        let left = elapsed.as_secs_f64() * (1.0 - part) / part;
        let left = Duration::try_from_secs_f64(left.ceil()).unwrap_or_default();
        text.push_str(&format!(", {} left", time::human_age(left)));
    }
    text
}

/// Progress counts that one thread updates and the line's thread reads.
#[derive(Debug, Default)]
pub(crate) struct ProgressCounts {
    packets: AtomicU64,
    bytes: AtomicU64,
    /// The part that is done, in units of 1 / [`WHOLE`]; 0 while unknown.
    part: AtomicU64,
}

const WHOLE: f64 = 1e6;

impl ProgressCounts {
    /// Sets the packets and bytes received, and the part that is done, if known.
    pub(crate) fn set(&self, packets: u64, bytes: u64, part: Option<f64>) {
        self.packets.store(packets, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
        let part = (part.unwrap_or(0.0).clamp(0.0, 1.0) * WHOLE) as u64;
        self.part.store(part, Ordering::Relaxed);
    }

    /// Adds packets and bytes, and sets the part that is done.
    pub(crate) fn add(&self, packets: u64, bytes: u64, part: f64) {
        let done = self.done();
        self.set(done.packets + packets, done.bytes + bytes, Some(part));
    }

    pub(crate) fn done(&self) -> ProgressState {
        #[expect(clippy::cast_precision_loss, reason = "0 to a million")]
        let part = Some(self.part.load(Ordering::Relaxed) as f64 / WHOLE).filter(|part| *part > 0.0);
        ProgressState { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed), part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let s = Duration::from_secs;
        for (packets, bytes, part, elapsed, expected) in [
            (0, 0, None, s(3), "searching for 3 s"),
            (0, 4 << 20, None, s(2), "4 MiB (2 MiB/s)"),
            (1, 1 << 20, None, s(2), "1 packet, 1 MiB (512 KiB/s)"),
            (1234, 4 << 20, Some(0.005), s(2), "1,234 packets, 4 MiB, 0% (2 MiB/s)"),
            (1234, 4 << 20, Some(0.25), s(2), "1,234 packets, 4 MiB, 25% (2 MiB/s), 6 s left"),
            (1234, 4 << 20, Some(1.0), s(2), "1,234 packets, 4 MiB, 100% (2 MiB/s), 0 ms left"),
        ] {
            assert_eq!(line(&ProgressState { packets, bytes, part }, elapsed), expected);
        }
    }

    #[test]
    fn counts_come_back() {
        let counts = ProgressCounts::default();
        assert_eq!(counts.done(), ProgressState::default());
        counts.set(3, 500, Some(0.5));
        assert_eq!(counts.done(), ProgressState { packets: 3, bytes: 500, part: Some(0.5) });
        counts.add(2, 100, 0.75);
        assert_eq!(counts.done(), ProgressState { packets: 5, bytes: 600, part: Some(0.75) });
    }
}
