//! Removes files in the background, one at a time.
//!
//! Some file systems discard the blocks of a file while it is removed, which takes 10 ms for 64 MiB. The thread that writes
//! does not wait for that. If the recorder crashes before a queued file is deleted, the next start lists the file again. A file
//! that cannot be removed is tried again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

/// How often the thread looks whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// How often files that could not be removed are tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// The most files that are tried again. The next start lists further ones.
const RETRIED_MAX: usize = 1024;

/// Files that are removed in the background, if there is a thread for it.
#[derive(Debug, Default)]
pub(crate) struct Unlinks {
    sender: Mutex<Option<Sender<(String, u64)>>>,
    /// Bytes of the files that still have to be removed.
    pending_bytes: AtomicU64,
    problem: Mutex<Option<io::Error>>,
}

/// The work of the thread that removes files.
#[derive(Debug)]
pub struct UnlinkQueue(Receiver<(String, u64)>);

impl Unlinks {
    /// The work for a thread, which [`run`](Self::run) does.
    pub(crate) fn in_background(&self) -> UnlinkQueue {
        let (sender, receiver) = channel();
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        UnlinkQueue(receiver)
    }

    /// Bytes of the files that still have to be removed.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending_bytes.load(Ordering::Acquire)
    }

    /// Queues a file. Returns false if there is no thread, so that the caller must remove the file.
    pub(crate) fn queue(&self, name: &str, len: u64) -> io::Result<bool> {
        if let Some(error) = self.problem.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*sender else { return Ok(false) };
        self.pending_bytes.fetch_add(len, Ordering::AcqRel);
        let queued = sender.send((name.to_owned(), len)).is_ok();
        if !queued {
            self.pending_bytes.fetch_sub(len, Ordering::AcqRel);
        }
        Ok(queued)
    }

    /// Removes what is queued, until `stop` is set and nothing is queued.
    pub(crate) fn run(&self, queue: &UnlinkQueue, directory: &OwnedFd, stop: &AtomicBool) {
        let (mut left, mut retried) = (Vec::<String>::new(), Instant::now());
        loop {
            if !left.is_empty() && retried.elapsed() >= RETRY_INTERVAL {
                left.retain(|name| !self.unlink(directory, name));
                retried = Instant::now();
            }
            match queue.0.recv_timeout(STOP_CHECK_INTERVAL) {
                Ok((name, len)) => {
                    // Subtracted first: bytes that are free already must not count as pending, too.
                    self.pending_bytes.fetch_sub(len, Ordering::AcqRel);
                    if !self.unlink(directory, &name) && left.len() < RETRIED_MAX {
                        left.push(name);
                    }
                }
                Err(RecvTimeoutError::Timeout) if !stop.load(Ordering::Acquire) => {}
                Err(_) => break,
            }
        }
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Removes a file. Returns false if that failed, which the next call of [`queue`](Self::queue) reports.
    fn unlink(&self, directory: &OwnedFd, name: &str) -> bool {
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => true,
            Err(error) => {
                *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
                false
            }
        }
    }
}
