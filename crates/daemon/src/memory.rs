//! What keeps the memory of this process to itself, wherever in it packets pass: out of swap, and out of core dumps.
//!
//! Where packets stay has been taken and locked for them ([`base::memory`]). Answers, files and compression take what they need
//! from the heap, and so do libraries; threads have stacks. All that is locked as it is used, now and later.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

use engine::budget::ByteSize;

/// Why memory that is taken later may be swapped out.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Beyond a limit the system would refuse it, so that none of it is locked.
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

/// Locks all memory of this process as it is used, that which it takes later included. Call it while there are rights;
/// `kept` says whether they stay.
///
/// `CAP_IPC_LOCK` goes with the other capabilities, and from then on the limit counts, against addresses that are only reserved, too:
/// so it is lifted, which takes `CAP_SYS_RESOURCE`, or nothing is locked here.
pub(super) fn lock(kept: bool) -> Result<(), LockError> {
    if may_lock() || getrlimit(Resource::Memlock).maximum.is_none() {
        // That it is refused shows in the limit.
        let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    }
    match getrlimit(Resource::Memlock).current {
        Some(limit) if !(kept && may_lock()) => Err(LockError::Limited(ByteSize(limit))),
        // Linux before 4.4 would make all of it resident at once, and refuses this.
        _ => Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
            .map_err(io::Error::from)?),
    }
}

/// Leaves nothing for a core dump to hold, should there be one, or for a debugger that writes one.
pub(super) fn never_dump() {
    // Whoever is refused here is not dumped for other reasons, which the sandbox's status tells.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}
