//! Memory for what traffic fills: taken once, as 64-bit words that one thread writes while others read.
//!
//! Words are atomics, so that a reader that looks at a word just when it is given to something else sees an old or a
//! new value, never undefined behaviour; who needs to know which checks a generation before and after (see
//! [`store`](engine::store)). A relaxed access is a plain load or store on every processor that matters.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(target_os = "linux"))]
use portable::{Memory as Words, Residence};
#[cfg(target_os = "linux")]
use sys::{Memory as Words, Residence};

/// Zeroed words, out of core dumps; those to be locked are resident from the start, and wiped at the end.
#[derive(Debug)]
pub struct Memory(Words);

/// Whether memory is to be locked in RAM. Packets of a recorder are; those of a replayed file lie on a disk anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lock {
    /// It may be swapped out.
    #[default]
    No,
    /// It is locked if the system permits; see [`Memory::is_locked`].
    IfPermitted,
    /// The same, but taken as it is used, until [`Memory::populate`]: while something else is in memory that it is to take
    /// the place of.
    AsUsed,
}

impl Lock {
    /// For memory that is small beside the rest.
    pub fn at_once(self) -> Self {
        if self == Self::AsUsed { Self::IfPermitted } else { self }
    }
}

impl Memory {
    /// Takes `words` words at once.
    ///
    /// # Errors
    ///
    /// When the system has not that much to give.
    pub fn new(words: usize, lock: Lock) -> std::io::Result<Self> {
        let residence = match lock {
            Lock::No => Residence::OnDemand,
            Lock::IfPermitted => Residence::Locked,
            Lock::AsUsed => Residence::LockedAsUsed,
        };
        Words::new(words, residence).map(Self)
    }

    /// Whether it is locked in RAM.
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    /// Takes all of it now, where it was to be taken [`AsUsed`](Lock::AsUsed).
    ///
    /// # Errors
    ///
    /// When the system has not that much to give.
    pub fn populate(&self) -> std::io::Result<()> {
        self.0.populate()
    }

    /// Overwrites words with zeros, and gives their pages back.
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

/// Asks the processor for the cache line of a word that will be read soon.
#[inline]
pub fn prefetch(word: &AtomicU64) {
    #[cfg(target_os = "linux")]
    sys::prefetch(word);
    #[cfg(not(target_os = "linux"))]
    let _ = word;
}

/// Adds to a counter that only this thread writes: a load and a store, where `fetch_add` would lock the bus.
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

    /// Words from the allocator; no platform beside Linux locks them yet.
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
