//! A generation lock (sequence lock): one thread writes a few words that any number of threads copy, and nobody waits.
//!
//! The generation is even while the words belong together and odd while the writer replaces them. A reader notes the
//! generation, copies the words, and compares: if the generation was odd or has changed, the reader throws the copy away.
//! All words are atomics, so a copy that is thrown away is no data race. The fences order the words, which are read and
//! written relaxed, against the generation (Boehm, "Can seqlocks get along with programming language memory models?").
//!
//! `tests/generation.rs` has loom try all orders in which a writer and readers can run.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// An atomic word of 64 bits. The second implementation is that of the model checker.
pub trait Word {
    /// Loads the value.
    fn load(&self, order: Ordering) -> u64;
    /// Stores a value.
    fn store(&self, value: u64, order: Ordering);
    /// The fence that belongs to this kind of atomic.
    fn fence(order: Ordering);
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }
}

/// The generation lock whose generation is in `word`, which may lie among the words that it protects.
///
/// Generation 0 says that nothing was ever written.
#[derive(Debug)]
pub struct GenerationLock<'a, W: Word = AtomicU64>(pub &'a W);

impl<W: Word> GenerationLock<'_, W> {
    /// Begins to replace the words: readers that copy them from now on throw the copy away. One thread writes.
    #[inline]
    pub fn begin_write(&self) {
        let generation = self.0.load(Ordering::Relaxed);
        debug_assert!(generation.is_multiple_of(2), "the words are being written");
        self.0.store(generation + 1, Ordering::Relaxed);
        // A reader that sees a word stored after this also sees the odd generation.
        W::fence(Ordering::Release);
    }

    /// Ends what [`begin_write`](Self::begin_write) began: the words belong together again. Returns the new generation.
    #[inline]
    pub fn end_write(&self) -> u64 {
        let generation = self.0.load(Ordering::Relaxed);
        debug_assert!(!generation.is_multiple_of(2), "nobody began to write");
        self.0.store(generation + 1, Ordering::Release);
        generation + 1
    }

    /// Replaces the words.
    #[inline]
    pub fn write(&self, store: impl FnOnce()) {
        self.begin_write();
        store();
        self.end_write();
    }

    /// The generation as the writer or a reader sees it now. A reader calls this before it copies.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Whether the generation is still `generation`: then everything copied since [`generation`](Self::generation)
    /// returned it belongs together, if it is even.
    #[inline]
    pub fn is_still(&self, generation: u64) -> bool {
        W::fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == generation
    }

    /// A copy of words that belong together; `None` if the writer was replacing them meanwhile.
    #[inline]
    pub fn read<T>(&self, copy: impl FnOnce() -> T) -> Option<T> {
        let generation = self.generation();
        if !generation.is_multiple_of(2) {
            return None;
        }
        let copied = copy();
        self.is_still(generation).then_some(copied)
    }
}
