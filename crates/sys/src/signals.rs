//! Blocks termination and reload signals until the process is ready to handle them.

use std::mem::MaybeUninit;

const HELD: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Blocks SIGHUP, SIGINT and SIGTERM for the calling thread until this is dropped, and permanently for threads that it
/// starts in the meantime. Drop it on the same thread; pending signals are delivered then.
#[derive(Debug)]
pub struct HeldSignals {
    before: libc::sigset_t,
}

impl HeldSignals {
    /// Blocks the signals from now on.
    ///
    /// # Errors
    ///
    /// The error of pthread_sigmask(3), which is not expected to fail.
    pub fn new() -> std::io::Result<Self> {
        let (mut held, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: `sigemptyset` initializes the given set, which is valid memory; it cannot fail.
        let mut held = unsafe {
            libc::sigemptyset(held.as_mut_ptr());
            held.assume_init()
        };
        for signal in HELD {
            // SAFETY: the set is initialized, and the signals exist.
            unsafe { libc::sigaddset(&mut held, signal) };
        }
        // SAFETY: both pointers refer to sets. The first is initialized, and the call initializes the second when it
        // returns 0.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &held, before.as_mut_ptr()) } {
            // SAFETY: the call has just initialized it.
            0 => Ok(Self { before: unsafe { before.assume_init() } }),
            error => Err(std::io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // SAFETY: the set comes from the system, and the old mask is not requested.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such system calls")]
    fn a_thread_that_is_started_meanwhile_never_gets_them() {
        let of = HELD.iter().fold(0, |mask, signal| mask | 1 << (signal - 1));
        let before = blocked();
        assert_eq!(before & of, 0);
        let held = HeldSignals::new().unwrap();
        let (go, wait) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || wait.recv().map(|()| blocked()));
        drop(held);
        assert_eq!(blocked(), before);
        go.send(()).unwrap();
        assert_eq!(thread.join().unwrap().unwrap() & of, of);
    }
}
