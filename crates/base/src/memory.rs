//! Memory for captured data: allocated once, as 64-bit words that one thread writes while others read.
//!
//! The words are atomics. A reader that reads a word while the writer reuses it sees the old or the new value, never
//! undefined behaviour. Readers that must know which check a generation before and after (see
//! `engine::store`). A relaxed access is a plain load or store on all common processors.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(target_os = "linux"))]
use portable::{Memory as Words, Residence};
#[cfg(target_os = "linux")]
use sys::{Memory as Words, Residence};

/// Zeroed words, kept out of core dumps. Memory to be locked is resident from the start, unless it is
/// [`AsUsed`](Lock::AsUsed), and is wiped when it is dropped.
#[derive(Debug)]
pub struct Memory(Words);

/// Whether to lock memory in RAM. A recorder locks its packets. A replay does not, as its file is on a disk anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lock {
    /// The memory may be swapped out.
    #[default]
    No,
    /// The memory is locked if the system permits; see [`Memory::is_locked`].
    IfPermitted,
    /// As `IfPermitted`, but pages become resident only when they are used, until [`Memory::populate`]. Use it while
    /// the memory that this one replaces is still in use.
    AsUsed,
}

impl Lock {
    /// The same lock without [`AsUsed`](Self::AsUsed), for small amounts of memory.
    pub fn at_once(self) -> Self {
        if self == Self::AsUsed { Self::IfPermitted } else { self }
    }
}

impl Memory {
    /// Allocates `words` zeroed words.
    ///
    /// # Errors
    ///
    /// If the system cannot provide the memory.
    pub fn new(words: usize, lock: Lock) -> std::io::Result<Self> {
        let residence = match lock {
            Lock::No => Residence::OnDemand,
            Lock::IfPermitted => Residence::Locked,
            Lock::AsUsed => Residence::LockedAsUsed,
        };
        Words::new(words, residence).map(Self)
    }

    /// Whether the memory is locked in RAM.
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    /// Makes all pages resident, which [`AsUsed`](Lock::AsUsed) memory is not before.
    ///
    /// # Errors
    ///
    /// If the system cannot provide the memory.
    pub fn populate(&self) -> std::io::Result<()> {
        self.0.populate()
    }

    /// Overwrites words with zeros and returns their whole pages to the system.
    pub fn release(&self, words: std::ops::Range<usize>) {
        self.0.release(words);
    }
}

impl std::ops::Deref for Memory {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// Prefetches the cache line of a word that will soon be read.
#[inline]
pub fn prefetch(word: &AtomicU64) {
    #[cfg(target_os = "linux")]
    sys::prefetch(word);
    #[cfg(not(target_os = "linux"))]
    let _ = word;
}

/// Adds to a counter that only this thread writes. A load and a store suffice; `fetch_add` would need a locked
/// instruction.
#[inline]
pub fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::sync::atomic::AtomicU64;

    pub(super) enum Residence {
        Locked,
        LockedAsUsed,
        OnDemand,
    }

    /// Words from the allocator. Only Linux locks memory so far.
    #[derive(Debug)]
    pub(super) struct Memory(Box<[AtomicU64]>);

    impl Memory {
        pub(super) fn new(words: usize, _: Residence) -> std::io::Result<Self> {
            Ok(Self((0..words).map(|_| AtomicU64::new(0)).collect()))
        }

        pub(super) fn is_locked(&self) -> bool {
            false
        }

        pub(super) fn populate(&self) -> std::io::Result<()> {
            Ok(())
        }

        pub(super) fn release(&self, words: std::ops::Range<usize>) {
            let words = self.0.get(words).unwrap_or_default();
            words.iter().for_each(|word| word.store(0, std::sync::atomic::Ordering::Relaxed));
        }
    }

    impl std::ops::Deref for Memory {
        type Target = [AtomicU64];

        fn deref(&self) -> &[AtomicU64] {
            &self.0
        }
    }
}
