//! Memory files that were given to this process when it was started.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes over the files in memory (`memfd_create(2)`) among the `count` descriptors from `first` on, with the number that
/// each has among them; all others are left alone. Can be done once in a process, and nothing is found after that.
///
/// They are closed when another program is executed.
pub fn inherited_memory_files(first: RawFd, count: usize) -> Vec<(usize, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    (0..count)
        .filter_map(|number| {
            let fd = first.checked_add(RawFd::try_from(number).ok()?)?;
            // SAFETY: any number may be asked; only of an open file in memory the answer is not an error.
            let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
            if seals < 0 {
                return None;
            }
            // SAFETY: it is open, so the number is valid; a flag of the descriptor is all that changes.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            // SAFETY: it is open, and nobody else in this process has it: this crate and the project make no files in memory
            // before this is called, so it was there when the process was started; and it is taken once.
            Some((number, unsafe { OwnedFd::from_raw_fd(fd) }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not one of those that tests open: nothing but files in memory is taken.
    #[test]
    fn other_descriptors_are_left_alone() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(inherited_memory_files(0, 3).is_empty());
        assert!(inherited_memory_files(-5, 2).is_empty() && inherited_memory_files(RawFd::MAX, 9).is_empty());
        drop(writer);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }
}
