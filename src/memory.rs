//! Memory for what traffic fills: taken once, as 64-bit words that one thread writes while others read.
//!
//! Words are atomics, so that a reader that looks at a word just when it is given to something else sees an old or a
//! new value, never undefined behaviour; who needs to know which checks a generation before and after (see
//! [`store`](crate::store)). On the platforms that matter a relaxed access is a plain load or store.

use std::sync::atomic::{AtomicU64, Ordering};

/// Zeroed words.
#[derive(Debug)]
pub struct Memory(Box<[AtomicU64]>);

impl Memory {
    /// Takes `words` words at once.
    pub fn new(words: usize) -> Self {
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }
}

impl std::ops::Deref for Memory {
    type Target = [AtomicU64];
    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// Adds to a counter that only this thread writes: a load and a store, where `fetch_add` would lock the bus.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}
