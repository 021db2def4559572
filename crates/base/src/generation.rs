//! A generation lock (sequence lock): one thread writes a few words that any number of threads copy, and no thread
//! waits.
//!
//! The generation is even while the words are consistent, and odd while the writer replaces them. A reader notes the
//! generation, copies the words, and compares: if the generation was odd or has changed, the reader discards the copy.
//! All words are atomics, so a discarded copy is no data race. The words are read and written with relaxed ordering;
//! fences order them against the generation (Boehm, "Can seqlocks get along with programming language memory models?").
//!
//! `tests/generation.rs` uses loom to try all orders in which a writer and readers can run.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// An atomic 64-bit word. The model checker has an implementation of its own.
pub trait Word {
    /// Loads the value.
    fn load(&self, order: Ordering) -> u64;
    /// Stores a value.
    fn store(&self, value: u64, order: Ordering);
    /// Executes the fence that matches this kind of atomic.
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

/// A generation lock whose generation is in `word`. This word may lie among the words that the lock protects.
///
/// Generation 0 means that nothing was ever written.
#[derive(Debug)]
pub struct GenerationLock<'a, W: Word = AtomicU64>(pub &'a W);

impl<W: Word> GenerationLock<'_, W> {
    /// Begins to replace the words. Readers that copy them from now on discard the copy. Only one thread writes.
    #[inline]
    pub fn begin_write(&self) {
        let generation = self.0.load(Ordering::Relaxed);
        debug_assert!(generation.is_multiple_of(2), "the words are being written");
        self.0.store(generation + 1, Ordering::Relaxed);
        // A reader that sees a word stored after this also sees the odd generation.
        W::fence(Ordering::Release);
    }

    /// Ends the replacement that [`begin_write`](Self::begin_write) began. Returns the new, even generation.
    #[inline]
    pub fn end_write(&self) -> u64 {
        let generation = self.0.load(Ordering::Relaxed);
        debug_assert!(!generation.is_multiple_of(2), "no write has begun");
        self.0.store(generation + 1, Ordering::Release);
        generation + 1
    }

    /// Replaces the words through `store`.
    #[inline]
    pub fn write(&self, store: impl FnOnce()) {
        self.begin_write();
        store();
        self.end_write();
    }

    /// The current generation. A reader calls this before it copies.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Whether the generation is still `generation`. If it is, and is even, everything copied since
    /// [`generation`](Self::generation) returned it is consistent.
    #[inline]
    pub fn is_still(&self, generation: u64) -> bool {
        W::fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == generation
    }

    /// The result of `copy` if the words were consistent during the call; `None` if the writer was replacing them.
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
