//! Which threads come first where there is more work than cores: those that take packets before all others. Who answers comes
//! with all other programs, but where many ask at once, only the first few; compression comes last.
//!
//! A packet that is not taken in time is lost, an answer is just later. On a machine with a free core nobody notices. Only live
//! capture is meant: a replayed capture waits for whoever reads it.

use rustix::process::{getpriority_process, setpriority_process};

/// How far before others capture is, where that is permitted and nobody has chosen otherwise.
const CAPTURE_NICE: i32 = -10;
/// How far behind the others the answers to a crowd are.
const CROWD_NICE: i32 = 10;
/// The last.
const LOWEST_NICE: i32 = 19;

/// Comes first from now on, as all threads will that this one starts. Call it while privileges are there; a supervisor
/// that gave another priority (`Nice=`) is taken at its word.
pub(super) fn raise_for_capture() {
    if current() == 0
        && let Err(error) = setpriority_process(None, CAPTURE_NICE)
    {
        tracing::debug!("packets are taken at the usual priority: {error}");
    }
}

/// Is as any other program from now on.
pub(super) fn normal() {
    lower_to(0);
}

/// Comes after any other program from now on.
pub(super) fn lower_for_crowd() {
    lower_to((current().max(0) + CROWD_NICE).min(LOWEST_NICE));
}

/// Comes last of all from now on.
pub(super) fn lowest() {
    lower_to(LOWEST_NICE);
}

/// The calling thread's, in the system's own way of counting: less comes first.
fn current() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// To give way takes no rights.
fn lower_to(nice: i32) {
    if current() < nice
        && let Err(error) = setpriority_process(None, nice)
    {
        tracing::debug!("a thread does not give way: {error}");
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
