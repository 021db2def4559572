//! How the memory for answers is divided: places for queries of packets, and memory for listings and searches.
//!
//! A small budget has smaller chunks first, and then fewer places, so that all answers together stay within it however
//! slowly they are read.

use query::listing::{LISTED_BYTES, ROW_BYTES};

/// Bytes that a search of contents takes at most, beside the budget.
pub(crate) const CONTENTS_BYTES_MAX: u64 = 64 << 20;
/// Bytes after which a chunk is sent, with an ample budget.
const CHUNK_BYTES_MAX: u64 = 64 << 10;
/// The same with the smallest one.
const CHUNK_BYTES_MIN: u64 = 4 << 10;
/// Chunks that an answer has at a time: one is being filled, two wait, and one is being sent. One more is for what is longer
/// than a chunk by a packet.
const CHUNKS: u64 = 5;
/// Bytes of an answer beside its chunks: the stack of its thread, records that are read ahead, its connection.
const FIXED_BYTES: u64 = 32 << 10;
/// Places that smaller chunks make room for.
const PLACES_WANTED: u64 = 8;
/// One place is root's.
const PLACES_MIN: u64 = 2;
/// Rows of a page for each byte of a chunk.
const CHUNK_BYTES_PER_ROW: u64 = 64;
/// Rows that a listing can sort at least, in several passes if there are more.
const SORTED_ROWS_MIN: u64 = 512;

/// A division of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerMemory {
    /// Queries of packets that can run at once.
    pub(crate) places: u64,
    /// Bytes for all listings and searches.
    pub(crate) listing_bytes: u64,
    chunk_bytes: u64,
}

impl AnswerMemory {
    /// Divides so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let half = bytes / 2;
        let chunk_bytes =
            ((half / PLACES_WANTED).saturating_sub(FIXED_BYTES) / CHUNKS).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let memory = Self { places: 0, listing_bytes: 0, chunk_bytes };
        let listing_bytes = half.max(2 * memory.listing_bytes_min());
        Self { places: (half / memory.query_bytes()).max(PLACES_MIN), listing_bytes, ..memory }
    }

    /// Bytes after which a chunk is sent. A packet is never split, so that a chunk can be longer by one packet.
    pub(crate) fn chunk_bytes(self) -> usize {
        usize::try_from(self.chunk_bytes).unwrap_or(usize::MAX)
    }

    /// Bytes that an answer takes.
    pub(crate) fn query_bytes(self) -> u64 {
        CHUNKS * self.chunk_bytes + FIXED_BYTES
    }

    /// Sessions that a listing reads at once.
    pub(crate) fn page_rows(self) -> usize {
        usize::try_from(self.chunk_bytes / CHUNK_BYTES_PER_ROW).unwrap_or(usize::MAX)
    }

    /// Bytes of a listing beside the rows that it sorts.
    pub(crate) fn listing_fixed_bytes(self) -> u64 {
        self.query_bytes() + self.chunk_bytes / CHUNK_BYTES_PER_ROW * LISTED_BYTES
    }

    /// Bytes of the smallest listing.
    pub(crate) fn listing_bytes_min(self) -> u64 {
        self.listing_fixed_bytes() + SORTED_ROWS_MIN * ROW_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn all_answers_together_have_no_more_than_there_is() {
        for kib in (600..64 << 10).step_by(50) {
            let bytes = kib << 10;
            let memory = AnswerMemory::new(bytes);
            let taken = memory.places * memory.query_bytes() + memory.listing_bytes;
            assert!(taken <= bytes, "{kib} KiB: {memory:?} takes {taken}");
            assert!(2 * memory.listing_bytes_min() <= memory.listing_bytes, "{memory:?}");
        }
    }

    #[test]
    fn small_budgets_have_smaller_chunks_before_they_have_fewer_places() {
        let places_and_chunks = |bytes| {
            let memory = AnswerMemory::new(bytes);
            (memory.places, memory.chunk_bytes)
        };
        // What budgets of 16 MiB, 64 MiB and 1 GiB leave.
        assert_eq!(places_and_chunks(MIB * 2 / 3), (6, CHUNK_BYTES_MIN));
        assert_eq!(places_and_chunks(64 * MIB / 24 * 2 / 3).0, PLACES_WANTED);
        assert_eq!(places_and_chunks(1024 * MIB / 24 * 2 / 3), (41, CHUNK_BYTES_MAX));
    }
}
