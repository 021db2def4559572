//! Signals that a process waits for, held back until it listens.

use std::mem::MaybeUninit;

const HELD: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// SIGHUP, SIGINT and SIGTERM do not reach the calling thread until this is dropped, nor ever a thread that it starts
/// meanwhile. Drop it on the same thread: those that came are delivered then.
#[derive(Debug)]
pub struct HeldSignals {
    before: libc::sigset_t,
}

impl HeldSignals {
    /// Holds them back from now on.
    ///
    /// # Errors
    ///
    /// What the system says; it has no reason to.
    pub fn new() -> std::io::Result<Self> {
        let (mut held, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: sigemptyset initialises the set that it is given, which is valid memory; it cannot fail.
        let mut held = unsafe {
            libc::sigemptyset(held.as_mut_ptr());
            held.assume_init()
        };
        for signal in HELD {
            // SAFETY: the set is initialised, and the signals are ones that exist.
            unsafe { libc::sigaddset(&mut held, signal) };
        }
        // SAFETY: both point to sets, the first is initialised, and the second is written to when it returns 0.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &held, before.as_mut_ptr()) } {
            // SAFETY: it has just been written to.
            0 => Ok(Self { before: unsafe { before.assume_init() } }),
            error => Err(std::io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // SAFETY: the set is one that the system gave, and nothing is asked back.
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
