//! Takes over memory files that this process inherited at its start.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes over the memory files (`memfd_create(2)`) among the `count` descriptors from `first` on. Returns each with its
/// number relative to `first`. Other descriptors stay untouched. Only the first call in a process finds any.
///
/// The files are marked close-on-exec.
pub fn inherited_memory_files(first: RawFd, count: usize) -> Vec<(usize, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    (0..count)
        .filter_map(|number| {
            let fd = first.checked_add(RawFd::try_from(number).ok()?)?;
            // SAFETY: the call accepts any number; it succeeds only for an open memory file.
            let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
            if seals < 0 {
                return None;
            }
            // SAFETY: the descriptor is open; the call changes only its flag.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            // SAFETY: the descriptor is open and has no other owner: neither this crate nor the project creates memory
            // files before this call, so it was inherited at the start of the process, and it is taken only once.
            Some((number, unsafe { OwnedFd::from_raw_fd(fd) }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No descriptor that tests open is taken, as only memory files are.
    #[test]
    fn other_descriptors_are_left_alone() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(inherited_memory_files(0, 3).is_empty());
        assert!(inherited_memory_files(-5, 2).is_empty() && inherited_memory_files(RawFd::MAX, 9).is_empty());
        drop(writer);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }
}
