//! Memory for packets: allocated once, and kept out of core dumps and, where permitted, out of swap.

use std::io;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Mappings of at least this many bytes request huge pages.
const HUGE_PAGES_FROM_BYTES: usize = 2 << 20;

/// Words per step when the whole mapping is wiped.
const WIPED_WORDS: usize = (2 << 20) / size_of::<AtomicU64>();
/// Returns pages to the system even if they are locked; since Linux 5.18.
const MADV_DONTNEED_LOCKED: libc::c_int = 24;

/// Whether memory is resident and locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// Resident from the start, and locked in RAM if the system permits.
    Locked,
    /// Each page is locked when it is first used, if the system permits. [`Memory::populate`] makes the rest resident.
    LockedAsUsed,
    /// Each page becomes resident when it is first used; nothing is locked.
    OnDemand,
}

/// Zeroed words in a private mapping.
///
/// [`Locked`](Residence::Locked) memory is resident from the start, so that using it later cannot fail or wait. Memory
/// of both locked kinds is overwritten with zeros before it is unmapped. No memory of this type goes into core dumps.
#[derive(Debug)]
pub struct Memory {
    residence: Residence,
    start: NonNull<AtomicU64>,
    words: usize,
    bytes: usize,
    lock_error: Option<io::Error>,
    locked: bool,
}

// SAFETY: `Memory` is the only owner of its mapping. `start` only ever becomes `&[AtomicU64]`, whose elements may be
// used from any thread. Nothing else in it is tied to the thread that made it.
unsafe impl Send for Memory {}
// SAFETY: a shared `Memory` gives out only `&[AtomicU64]` and plain fields; atomics may be used by several threads at
// once.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps `words` zeroed words of 8 bytes each.
    ///
    /// A refused lock (`RLIMIT_MEMLOCK` without `CAP_IPC_LOCK`) is no error; see [`is_locked`](Self::is_locked) and
    /// [`lock_error`](Self::lock_error). An error means that the system cannot provide the memory.
    pub fn new(words: usize, residence: Residence) -> io::Result<Self> {
        let page = page_size();
        let bytes = words
            .checked_mul(size_of::<AtomicU64>())
            .and_then(|bytes| bytes.max(1).checked_next_multiple_of(page))
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: an anonymous private mapping at an address that the kernel chooses affects no existing memory.
        let start = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<AtomicU64>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // From here on, dropping `memory` unmaps it, also on an early return.
        let mut memory = Self { residence, start, words, bytes, lock_error: None, locked: false };
        memory.advise(libc::MADV_DONTDUMP)?;
        if bytes >= HUGE_PAGES_FROM_BYTES {
            // Ignore the result: without huge pages, the memory is only slower.
            let _ = memory.advise(libc::MADV_HUGEPAGE);
        }
        match residence {
            Residence::OnDemand => {}
            Residence::Locked => {
                memory.populate()?;
                memory.lock(0);
            }
            Residence::LockedAsUsed => memory.lock(libc::MLOCK_ONFAULT),
        }
        Ok(memory)
    }

    /// Makes all pages resident, so that using them later cannot fail or wait. Their contents do not change.
    pub fn populate(&self) -> io::Result<()> {
        match self.advise(libc::MADV_POPULATE_WRITE) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // Before Linux 5.14: write to one word of each page.
                self.iter().step_by(page_size() / size_of::<AtomicU64>()).for_each(|word| {
                    word.fetch_or(0, Ordering::Relaxed);
                });
                Ok(())
            }
            other => other,
        }
    }

    /// Overwrites `words` with zeros, and returns the pages that lie entirely within them to the system. The words read
    /// as zeros afterwards, and take memory again when they are written to. Does nothing if the range is out of bounds.
    pub fn release(&self, words: Range<usize>) {
        let Some(released) = self.get(words.clone()) else { return };
        released.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let page = page_size();
        let from = (words.start * size_of::<AtomicU64>()).next_multiple_of(page);
        let until = words.end * size_of::<AtomicU64>() / page * page;
        if from >= until || cfg!(miri) {
            return;
        }
        // SAFETY: the offset lies within this object's mapping, as `words` lies within its words.
        let start = unsafe { self.start.as_ptr().cast::<u8>().add(from) }.cast::<libc::c_void>();
        // SAFETY: the range is part of this object's mapping, which is private and anonymous. The kernel replaces its
        // pages by ones that read as zeros, to which every word was just set. All accesses are atomic.
        let given = unsafe { libc::madvise(start, until - from, MADV_DONTNEED_LOCKED) };
        if given != 0 {
            // Before Linux 5.18, `madvise` does not free locked pages.
            // SAFETY: as above; unlocking only allows the pages to be swapped, and they hold zeros.
            unsafe {
                libc::munlock(start, until - from);
                libc::madvise(start, until - from, libc::MADV_DONTNEED);
            }
        }
    }

    /// Bytes of the mapping: the words, rounded up to whole pages.
    pub fn mapped_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the memory is locked in RAM.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Why the memory is not locked, if locking was requested.
    pub fn lock_error(&self) -> Option<&io::Error> {
        self.lock_error.as_ref()
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        if cfg!(miri) {
            // Miri does not support `madvise`; `populate` then falls back to writing.
            let populated = advice != libc::MADV_POPULATE_WRITE;
            return if populated { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) };
        }
        // SAFETY: the range is exactly this object's mapping. The advice used here (don't dump, huge pages, populate)
        // changes neither its contents nor its extent.
        match unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Overwrites the whole mapping with zeros. It goes step by step and frees each part, so that pages freed earlier
    /// do not all become resident again.
    fn wipe(&self) {
        for from in (0..self.words).step_by(WIPED_WORDS) {
            self.release(from..(from + WIPED_WORDS).min(self.words));
        }
    }

    fn lock(&mut self, flags: libc::c_uint) {
        if cfg!(miri) {
            return;
        }
        // SAFETY: the range is exactly this object's mapping; locking only keeps its pages in RAM.
        let mut locked = unsafe { libc::mlock2(self.start.as_ptr().cast(), self.bytes, flags) };
        if locked != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            // SAFETY: as above. Linux before 4.4 has no `mlock2`.
            locked = unsafe { libc::mlock(self.start.as_ptr().cast(), self.bytes) };
        }
        match locked {
            0 => self.locked = true,
            _ => self.lock_error = Some(io::Error::last_os_error()),
        }
    }
}

impl Deref for Memory {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `start` is page-aligned and `words * 8 <= bytes`. All of it is mapped readable and writable until
        // `drop`, which needs `&mut self` and therefore outlives every such slice. The bytes were zero when mapped, and
        // any bytes are a valid `AtomicU64`. No plain `&mut` to them exists.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.residence != Residence::OnDemand {
            self.wipe();
        }
        // SAFETY: no slice of the mapping is in use; the range is exactly the mapping, which is unmapped only here.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.bytes);
        }
    }
}
/// Bytes per page on this machine.
pub(crate) fn page_size() -> usize {
    // SAFETY: `sysconf` takes a plain number and accesses no memory of the caller.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of words; fewer under Miri, which is slow.
    const WORDS: usize = if cfg!(miri) { 1000 } else { 100_000 };

    #[test]
    fn memory_is_zeroed_and_writable_from_several_threads() {
        let memory = Memory::new(WORDS, Residence::OnDemand).unwrap();
        assert_eq!(memory.len(), WORDS);
        assert_eq!(memory.mapped_bytes() % page_size(), 0);
        assert!(memory.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        std::thread::scope(|threads| {
            for part in memory.chunks(WORDS / 2) {
                threads.spawn(move || part.iter().for_each(|word| word.store(7, Ordering::Relaxed)));
            }
        });
        assert!(memory.iter().all(|word| word.load(Ordering::Relaxed) == 7));
        assert!(!memory.is_locked() && memory.lock_error().is_none());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no pages")]
    fn memory_is_resident_from_the_start() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * page_size()
        };
        let before = resident();
        let memory = Memory::new(16 << 20, Residence::Locked).unwrap();
        // The other test of this module may free some in the meantime.
        assert!(resident() >= before + memory.mapped_bytes() - (8 << 20));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no pages")]
    fn locking_is_tried_and_reported() {
        let memory = Memory::new(512, Residence::Locked).unwrap();
        assert_ne!(memory.is_locked(), memory.lock_error().is_some());
    }

    #[test]
    fn what_is_wiped_is_gone() {
        let memory = Memory::new(WORDS, Residence::Locked).unwrap();
        memory.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        memory.wipe();
        assert!(memory.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    /// Resident bytes of the mapping.
    fn resident(memory: &Memory) -> usize {
        let range = format!("{:x}-", memory.start.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&range));
        let rss = lines.find_map(|line| line.strip_prefix("Rss:")).expect("mappings that begin there");
        rss.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }

    #[test]
    fn what_is_released_is_zeroed_and_given_back_and_the_rest_stays() {
        for residence in [Residence::Locked, Residence::LockedAsUsed, Residence::OnDemand] {
            let memory = Memory::new(1 << 20, residence).unwrap();
            memory.iter().for_each(|word| word.store(7, Ordering::Relaxed));
            let before = resident(&memory);
            // The range does not start and end at page boundaries.
            memory.release(1000..(1 << 20) - 1000);
            let after = resident(&memory);
            assert!(before - after > 7 << 20, "{residence:?}: {before} -> {after}");
            let zeros = memory.iter().filter(|word| word.load(Ordering::Relaxed) == 0).count();
            assert_eq!(zeros, (1 << 20) - 2000);
            memory.release(Range { start: 5, end: 4 });
            memory.release(0..usize::MAX);
            assert_eq!(memory[999].load(Ordering::Relaxed), 7);
            memory.wipe();
            assert!(memory.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        }
    }

    #[test]
    fn memory_that_is_locked_as_used_is_taken_later() {
        let memory = Memory::new(1 << 20, Residence::LockedAsUsed).unwrap();
        let before = resident(&memory);
        memory[0].store(7, Ordering::Relaxed);
        memory.populate().unwrap();
        assert!(before <= 2 << 20 && resident(&memory) >= 8 << 20, "{before} -> {}", resident(&memory));
        assert_eq!(memory[0].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn odd_sizes() {
        assert!(Memory::new(0, Residence::Locked).unwrap().is_empty());
        assert_eq!(Memory::new(1, Residence::OnDemand).unwrap().len(), 1);
        assert_eq!(Memory::new(usize::MAX, Residence::OnDemand).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(Memory::new(usize::MAX / 16, Residence::OnDemand).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
}
