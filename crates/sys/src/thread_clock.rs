//! The processor time of another thread of this process.

use std::time::Duration;

/// Reads the processor time of the thread that made it, from any thread.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The clock of the calling thread; `None` where the system has none.
    pub fn of_this_thread() -> Option<Self> {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: `pthread_self` always names the living calling thread, and `clock` is valid for writes during the call.
        let error = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        (error == 0).then_some(Self(clock))
    }

    /// The time so far; `None` if the thread has ended.
    pub fn time(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for writes during the call. The kernel checks the number of the clock, which is that of a
        // thread id: it refuses one that has ended.
        let result = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        let (seconds, nanoseconds) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
        (result == 0).then_some(Duration::new(seconds, nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn the_time_of_another_thread_is_read_until_it_has_ended() {
        let (clocks, made) = channel();
        let (end, ended) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut sum = 0u64;
            (0..2_000_000u64).for_each(|number| sum = std::hint::black_box(sum.wrapping_mul(31) ^ number));
            clocks.send(ThreadClock::of_this_thread().unwrap()).unwrap();
            let _ = ended.recv();
        });
        let clock = made.recv().unwrap();
        assert!(clock.time().unwrap() > Duration::ZERO);
        drop(end);
        thread.join().unwrap();
        assert_eq!(clock.time(), None);
    }
}
