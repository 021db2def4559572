//! Keeps packets in this process's memory out of swap and out of core dumps.
//!
//! The store locks its own memory ([`base::memory`]). This module locks the rest as it is used: the heap of answers, files,
//! compression and libraries, and the stacks of threads.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

use engine::budget::ByteSize;

/// Why memory outside the store may be swapped out.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Allocations beyond the limit would fail, so that nothing is locked here.
    #[error("at most {0} may be locked (ulimit -l, LimitMEMLOCK=)")]
    Limited(ByteSize),
    /// The system refused it.
    #[error("the system refused it: {0}")]
    Refused(#[from] io::Error),
}

/// Whether this process may lock memory beyond its limit.
pub(super) fn may_lock() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

/// Locks all memory of this process as it is used, present and future. Call it before privileges are dropped; `kept` says
/// whether they are kept.
///
/// Once `CAP_IPC_LOCK` is dropped, the limit applies, and it counts reserved addresses too. So the limit is lifted, which needs
/// `CAP_SYS_RESOURCE`; otherwise nothing is locked here.
pub(super) fn lock(kept: bool) -> Result<(), LockError> {
    if may_lock() || getrlimit(Resource::Memlock).maximum.is_none() {
        // A refusal shows in the limit below.
        let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    }
    match getrlimit(Resource::Memlock).current {
        Some(limit) if !(kept && may_lock()) => Err(LockError::Limited(ByteSize(limit))),
        // Linux before 4.4 does not know ONFAULT and refuses this call; without it all memory would be resident at once.
        _ => Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
            .map_err(io::Error::from)?),
    }
}

/// Makes core dumps empty, also those that a debugger writes.
pub(super) fn never_dump() {
    // A failure is no gap: the sandbox makes the process not dumpable, and its status reports that.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}
