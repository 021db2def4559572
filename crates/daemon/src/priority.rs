//! Priorities of threads. Capture comes before all other programs, because a packet that is not taken in time is lost, while
//! an answer is just later. The first few queries have normal priority, further ones at the same time a lower one, and
//! compression has the lowest. This applies to live capture only; a replay loses nothing by waiting.

use rustix::process::{getpriority_process, setpriority_process};

/// Nice value of capture, where that is permitted and no other value was set.
const CAPTURE_NICE: i32 = -10;
/// Added to the nice value of queries beyond the first few.
const CROWD_NICE: i32 = 10;
/// The lowest priority.
const LOWEST_NICE: i32 = 19;

/// Raises the priority of this thread and of all threads that it starts. Call it before privileges are dropped. A priority
/// that the supervisor has set (`Nice=`) is kept.
pub(super) fn raise_for_capture() {
    if current() == 0
        && let Err(error) = setpriority_process(None, CAPTURE_NICE)
    {
        tracing::debug!("capture runs at normal priority, because it cannot be raised: {error}");
    }
}

/// Lowers the calling thread to normal priority.
pub(super) fn normal() {
    lower_to(0);
}

/// Lowers the calling thread below other programs.
pub(super) fn lower_for_crowd() {
    lower_to((current().max(0) + CROWD_NICE).min(LOWEST_NICE));
}

/// Lowers the calling thread to the lowest priority.
pub(super) fn lowest() {
    lower_to(LOWEST_NICE);
}

/// The nice value of the calling thread: a lower value has priority.
fn current() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// Lowering a priority needs no privileges.
fn lower_to(nice: i32) {
    if current() < nice
        && let Err(error) = setpriority_process(None, nice)
    {
        tracing::debug!("the priority of a thread cannot be lowered: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_alone_and_for_good() {
        let before = current();
        let thread = std::thread::spawn(|| {
            lower_for_crowd();
            let answers = current();
            normal();
            assert_eq!(current(), answers, "it does not come back");
            lowest();
            (answers, current())
        });
        let (answers, last) = thread.join().unwrap();
        assert_eq!(answers, (before.max(0) + CROWD_NICE).min(LOWEST_NICE));
        assert_eq!(last, LOWEST_NICE);
        assert_eq!(current(), before, "another thread's priority has changed");
    }
}
