//! A hash index from keys to slots of a fixed array. It has a fixed size and allocates nothing after it is made.
//!
//! The index uses linear probing over words of `tag (32 bits of the hash) | slot + 1`. It is at most two thirds full,
//! so runs are short. The tag alone gives a word's home bucket. Removal shifts the following words back, so there are
//! no tombstones. The caller seeds the hash, so that an attacker who chooses the keys cannot make runs long.

use std::sync::atomic::Ordering;

use base::memory::{Lock, Memory, prefetch};

/// The buckets of the index.
///
/// They are in [`Memory`], which is locked when the packet store is and uses huge pages where these pay. They do here,
/// as lookups are spread over the whole index.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Memory,
    mask: usize,
}

impl Index {
    /// Bytes of an index for `slots` slots.
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

    /// Prefetches the home bucket of a hash.
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash)]);
    }

    /// Position of the bucket with this hash for whose slot `found` returns something, and what it returns.
    #[inline]
    fn bucket<T>(&self, hash: u64, mut found: impl FnMut(u32) -> Option<T>) -> Option<(usize, T)> {
        let mut at = self.home(hash);
        loop {
            let bucket = self.get(at);
            if bucket == 0 {
                return None;
            }
            if bucket >> 32 == hash >> 32
                && let Some(found) = found(slot_of(bucket))
            {
                return Some((at, found));
            }
            at = (at + 1) & self.mask;
        }
    }

    /// What `found` returns for the first slot with this hash for which it returns something.
    #[inline]
    pub(super) fn find_map<T>(&self, hash: u64, found: impl FnMut(u32) -> Option<T>) -> Option<T> {
        self.bucket(hash, found).map(|(_, found)| found)
    }

    /// The slot with this hash that satisfies `is`.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.find_map(hash, |slot| is(slot).then_some(slot))
    }

    /// Whether the slot with this hash is in the index.
    pub(super) fn has(&self, hash: u64, slot: u32) -> bool {
        self.find(hash, |other| other == slot).is_some()
    }

    /// Adds a slot. The caller ensures that the slot is not in the index yet.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        let mut at = self.home(hash);
        while self.get(at) != 0 {
            at = (at + 1) & self.mask;
        }
        self.set(at, hash >> 32 << 32 | u64::from(slot + 1));
    }

    /// Removes a slot; does nothing if it is not in the index.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let Some((mut hole, ())) = self.bucket(hash, |s| (s == slot).then_some(())) else { return };
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let bucket = self.get(at);
            if bucket == 0 {
                break;
            }
            // A word after the hole moves into it unless its home bucket is also after the hole.
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
        /// Compares the index with a `HashMap`. There are few hashes, so that runs are long and wrap around.
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
