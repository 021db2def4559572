//! A hash index from keys to slots of a fixed array: never grows, never allocates after it is made.
//!
//! Linear probing over words of `tag (32 bits of the hash) | slot + 1`, at most two thirds full, so that runs are short; the tag
//! alone says where a word belongs. Removal shifts the run back, so that there are no tombstones to clean up. The hash is seeded by the caller: who
//! chooses the keys cannot choose the runs.

use std::sync::atomic::Ordering;

use base::memory::{Lock, Memory, prefetch};

/// The index.
///
/// Its words are those of [`Memory`]: locked where packets are, and in huge pages where it pays, which for places all over
/// memory it does.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Memory,
    mask: usize,
}

impl Index {
    /// Bytes an index for `slots` slots takes.
    pub(super) fn bytes(slots: usize) -> usize {
        Self::buckets(slots) * size_of::<u64>()
    }

    fn buckets(slots: usize) -> usize {
        (slots * 3 / 2).next_power_of_two().max(2)
    }

    pub(super) fn new(slots: usize, lock: Lock) -> std::io::Result<Self> {
        let buckets = Self::buckets(slots);
        Ok(Self { buckets: Memory::new(buckets, lock)?, mask: buckets - 1 })
    }

    fn get(&self, at: usize) -> u64 {
        self.buckets[at].load(Ordering::Relaxed)
    }

    fn set(&self, at: usize, bucket: u64) {
        self.buckets[at].store(bucket, Ordering::Relaxed);
    }

    /// Asks memory for the place where a slot with this hash would be.
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash)]);
    }

    /// The bucket of the slot with this hash for which `is` is true.
    fn bucket(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<usize> {
        let mut at = self.home(hash);
        loop {
            let bucket = self.get(at);
            if bucket == 0 {
                return None;
            }
            if bucket >> 32 == hash >> 32 && is(slot_of(bucket)) {
                return Some(at);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// The slot with this hash for which `is` is true.
    pub(super) fn find(&self, hash: u64, is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.bucket(hash, is).map(|at| slot_of(self.get(at)))
    }

    /// Whether the slot with this hash is in the index.
    pub(super) fn has(&self, hash: u64, slot: u32) -> bool {
        self.find(hash, |other| other == slot).is_some()
    }

    /// Adds a slot, which is not there yet.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        let mut at = self.home(hash);
        while self.get(at) != 0 {
            at = (at + 1) & self.mask;
        }
        self.set(at, hash >> 32 << 32 | u64::from(slot + 1));
    }

    /// Takes a slot out.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let Some(mut hole) = self.bucket(hash, |s| s == slot) else { return };
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let bucket = self.get(at);
            if bucket == 0 {
                break;
            }
            // What lies behind the hole moves into it unless its home lies behind the hole, too.
            let home = self.home(bucket);
            if at.wrapping_sub(home) & self.mask >= at.wrapping_sub(hole) & self.mask {
                self.set(hole, bucket);
                hole = at;
            }
        }
        self.set(hole, 0);
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked to the table's size")]
    fn home(&self, hash: u64) -> usize {
        (hash >> 32) as usize & self.mask
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the slot is the low half")]
fn slot_of(bucket: u64) -> u32 {
    (bucket as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Against a map; hashes are few, so that runs are long and wrap around.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u64..40, any::<bool>()), 0..200)) {
            let hash_of = |key: u64| (60 + key % 7) << 32;
            let mut index = Index::new(32, Lock::No).unwrap();
            let mut keys = vec![0u64; 32];
            let mut model: HashMap<u64, u32> = HashMap::new();
            let mut free: Vec<u32> = (0..32).collect();
            for (key, insert) in steps {
                let found = index.find(hash_of(key), |slot| keys[slot as usize] == key);
                prop_assert_eq!(found, model.get(&key).copied());
                match (insert, found) {
                    (true, None) if !free.is_empty() => {
                        let slot = free.pop().unwrap();
                        keys[slot as usize] = key;
                        index.insert(hash_of(key), slot);
                        model.insert(key, slot);
                    }
                    (false, Some(slot)) => {
                        index.remove(hash_of(key), slot);
                        model.remove(&key);
                        free.push(slot);
                    }
                    _ => {}
                }
            }
            for key in 0..40 {
                prop_assert_eq!(index.find(hash_of(key), |s| keys[s as usize] == key), model.get(&key).copied());
            }
        }
    }
}
