//! Hashes of session keys and of addresses, by folded multiplication: the halves of a 128-bit product are combined, as
//! in wyhash and foldhash. The keys have a fixed length, so three multiplications are enough for one.
//!
//! Senders choose addresses and ports. Without the seeds, they cannot choose those that collide.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::key::SessionKey;

/// Hashes session keys.
#[derive(Clone, Debug)]
pub(super) struct KeyHasher([u64; 5]);

impl KeyHasher {
    pub(super) fn new(seed: u64) -> Self {
        Self(seeds(seed))
    }

    #[inline]
    pub(super) fn hash(&self, SessionKey(words): &SessionKey) -> u64 {
        let seeds = &self.0;
        let low = fold(words[0] ^ seeds[0], words[1] ^ seeds[1]);
        let high = fold(words[2] ^ seeds[2], words[3] ^ seeds[3]);
        fold(low ^ words[4], high ^ words[5] ^ seeds[4])
    }
}

/// Secret numbers derived from `seed`.
pub(crate) fn seeds<const N: usize>(seed: u64) -> [u64; N] {
    let hasher = FixedState::with_seed(seed);
    std::array::from_fn(|at| hasher.hash_one(at))
}

/// Multiplies, and combines the halves of the product.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both halves are meant")]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn similar_keys_have_different_hashes() {
        let hasher = KeyHasher::new(1);
        let mut seen = HashSet::new();
        let mut low_bits = vec![0u32; 1 << 16];
        for word in 0..6 {
            for at in 1..100_000u64 {
                let mut key = SessionKey([0x0a00_0001, 0, 0xc000_0201, 0, 6 << 32 | 443 << 16 | 1024, 0]);
                key.0[word] ^= at << (16 * (word % 3));
                let hash = hasher.hash(&key);
                assert!(seen.insert(hash >> 24), "word {word}, {at}: 40 bits are equal");
                low_bits[usize::try_from(hash >> 32 & 0xffff).unwrap()] += 1;
            }
        }
        let most = low_bits.iter().max().unwrap();
        assert!(*most < 35, "{most} of 600,000 keys in one of 65,536 buckets");
    }
}
