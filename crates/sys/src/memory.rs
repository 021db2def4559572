//! Memory for packets: taken once, whole, and kept to this process.

use std::io;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// From this many bytes on, huge pages are asked for.
const HUGE_PAGES_FROM_BYTES: usize = 2 << 20;

/// Words that are overwritten at a time when all of it is given back.
const WIPED_WORDS: usize = (2 << 20) / size_of::<AtomicU64>();
/// Gives pages back that are locked; since Linux 5.18.
const MADV_DONTNEED_LOCKED: libc::c_int = 24;

/// Where memory is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// In RAM from the start, locked there if the system permits.
    Locked,
    /// Locked as it is used, if the system permits; [`Memory::populate`] takes the rest of it.
    LockedAsUsed,
    /// Taken as it is used.
    OnDemand,
}

/// Zeroed words in a mapping of their own.
///
/// Where it is to be [`Locked`](Residence::Locked), all of it is resident from the start, so that taking it later cannot
/// fail or wait, and it is overwritten with zeros before it is given back. It never goes into a core dump.
#[derive(Debug)]
pub struct Memory {
    residence: Residence,
    start: NonNull<AtomicU64>,
    words: usize,
    bytes: usize,
    lock_error: Option<io::Error>,
    locked: bool,
}

// SAFETY: `Memory` owns its mapping alone; `start` is only ever turned into `&[AtomicU64]`, whose elements may be used
// from any thread, and nothing else in it is tied to the thread that made it.
unsafe impl Send for Memory {}
// SAFETY: a shared `Memory` gives out nothing but `&[AtomicU64]` and copies of plain fields; atomics allow use from
// several threads at once.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps `words` zeroed words of 8 bytes each.
    ///
    /// That locking was refused (`RLIMIT_MEMLOCK` without `CAP_IPC_LOCK`) is no error, see [`is_locked`](Self::is_locked) and [`lock_error`](Self::lock_error). An error means that the
    /// system has not that much memory to give.
    pub fn new(words: usize, residence: Residence) -> io::Result<Self> {
        let page = page_size();
        let bytes = words
            .checked_mul(size_of::<AtomicU64>())
            .and_then(|bytes| bytes.max(1).checked_next_multiple_of(page))
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<AtomicU64>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // From here on, dropping gives the mapping back.
        let mut memory = Self { residence, start, words, bytes, lock_error: None, locked: false };
        memory.advise(libc::MADV_DONTDUMP)?;
        if bytes >= HUGE_PAGES_FROM_BYTES {
            // Best effort: without huge pages it is only slower.
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

    /// Makes all of it resident, so that using it later cannot fail or wait. What was written stays.
    pub fn populate(&self) -> io::Result<()> {
        match self.advise(libc::MADV_POPULATE_WRITE) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // Linux before 5.14: write to a word of each page.
                self.iter().step_by(page_size() / size_of::<AtomicU64>()).for_each(|word| {
                    word.fetch_or(0, Ordering::Relaxed);
                });
                Ok(())
            }
            other => other,
        }
    }

    /// Overwrites words with zeros, and gives those of their pages back that lie within them whole. They read as zeros
    /// from then on, and take memory again when they are written to.
    pub fn release(&self, words: Range<usize>) {
        let Some(released) = self.get(words.clone()) else { return };
        released.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let page = page_size();
        let from = (words.start * size_of::<AtomicU64>()).next_multiple_of(page);
        let until = words.end * size_of::<AtomicU64>() / page * page;
        if from >= until || cfg!(miri) {
            return;
        }
        // SAFETY: the range lies within this object's mapping, as `words` lies within its words.
        let start = unsafe { self.start.as_ptr().cast::<u8>().add(from) }.cast::<libc::c_void>();
        // SAFETY: the range is a part of this object's mapping, which is private and anonymous: its pages are exchanged for
        // ones that read as zeros, which is what every word of them was just set to. All accesses are of atomics.
        let given = unsafe { libc::madvise(start, until - from, MADV_DONTNEED_LOCKED) };
        if given != 0 {
            // Linux before 5.18 gives no locked pages back.
            // SAFETY: as above; unlocking changes only where pages may live, and these hold zeros.
            unsafe {
                libc::munlock(start, until - from);
                libc::madvise(start, until - from, libc::MADV_DONTNEED);
            }
        }
    }

    /// Bytes mapped: the words, rounded up to whole pages.
    pub fn mapped_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is locked in RAM.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Why it is not, where locking was asked for.
    pub fn lock_error(&self) -> Option<&io::Error> {
        self.lock_error.as_ref()
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        if cfg!(miri) {
            // Miri maps memory and knows no advice; what is not populated so is written to.
            let populated = advice != libc::MADV_POPULATE_WRITE;
            return if populated { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) };
        }
        // SAFETY: the range is exactly this object's mapping. The kinds of advice used here (don't dump, huge pages,
        // populate) change neither its contents nor its extent.
        match unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Overwrites all of it with zeros, and gives it back piece by piece: what was released before is not taken again.
    fn wipe(&self) {
        for from in (0..self.words).step_by(WIPED_WORDS) {
            self.release(from..(from + WIPED_WORDS).min(self.words));
        }
    }

    fn lock(&mut self, flags: libc::c_uint) {
        if cfg!(miri) {
            return;
        }
        // SAFETY: the range is exactly this object's mapping; locking changes only where its pages may live.
        let mut locked = unsafe { libc::mlock2(self.start.as_ptr().cast(), self.bytes, flags) };
        if locked != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            // SAFETY: as above. Linux before 4.4.
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
        // SAFETY: `start` is page-aligned and `words * 8 <= bytes`, all of it mapped readable and writable until
        // `drop`, which needs `&mut self` and so outlives every such slice. The bytes were zero when mapped and are
        // valid as `AtomicU64` whatever they are. Nobody makes a plain `&mut` to them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.residence != Residence::OnDemand {
            self.wipe();
        }
        // SAFETY: no slice of it is in use; the range is exactly this object's mapping, unmapped once, here.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.bytes);
        }
    }
}
/// Bytes of a page of this machine.
pub(crate) fn page_size() -> usize {
    // SAFETY: `sysconf` takes a plain number and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many; Miri takes a while for each.
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
        // The other test of this module may give some back meanwhile.
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

    /// Bytes of the mapping that lie in RAM.
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
            // Not at the borders of pages.
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
