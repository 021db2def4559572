//! The split of the memory budget.

pub use crate::size::{ByteSize, MemorySize, SizeError};
use crate::store::compress::{Compression, Pace};

const MIB: u64 = 1 << 20;

/// The split of the budget among everything whose size depends on traffic. All of it is allocated at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The whole budget, in bytes.
    pub budget_bytes: u64,
    /// Number of workers that share the budget.
    pub workers: u32,
    /// Number of blocks in the kernel ring of one worker; 0 without live capture.
    pub ring_blocks: u32,
    /// Bytes for the sessions of one worker, including their index and the archive of past sessions.
    pub sessions_bytes: u64,
    /// Bytes for the packets of one worker, including the table of segments.
    pub store_bytes: u64,
    /// Bytes for the buffers of all queries together.
    pub queries_bytes: u64,
    /// Bytes for the compression of one worker; 0 without compression.
    pub compression_bytes: u64,
    /// Bytes per worker, part of `queries_bytes`, for segments that queries decompress; 0 without compression.
    pub unpacked_bytes: u64,
}

/// The budget is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} of memory are too few for {workers} {}: the smallest budget that works is {smallest}; try -m {}M",
    ByteSize(*.budget_bytes),
    if *.workers == 1 { "worker" } else { "workers" },
    .smallest.0.div_ceil(MIB)
)]
pub struct BudgetTooSmall {
    budget_bytes: u64,
    workers: u32,
    /// The smallest budget for this number of workers.
    pub smallest: ByteSize,
}

/// Bytes of one block of a kernel ring. A 64 KiB frame, joined by the kernel (GRO) or not yet segmented (TSO), fits in
/// one block.
pub const RING_BLOCK_BYTES: u32 = 256 << 10;
const RING_BLOCKS_MIN: u64 = 4;
const RING_BLOCKS_MAX: u64 = 512;

impl Split {
    /// The smallest budget for one worker: 16 MiB.
    pub const BYTES_MIN: u64 = 16 * MIB;

    /// Splits `budget_bytes`: a tenth for the kernel rings if capture is `live`, 20 % for sessions, a 24th for queries
    /// (at least 1 MiB, at most 64 MiB), and the rest for packets.
    ///
    /// # Errors
    ///
    /// When the budget is less than [`BYTES_MIN`](Self::BYTES_MIN) for the first worker and half of that for each
    /// further one.
    pub fn new(budget_bytes: u64, workers: u32, live: bool) -> Result<Self, BudgetTooSmall> {
        let workers = workers.max(1);
        let smallest = Self::BYTES_MIN + u64::from(workers - 1) * Self::BYTES_MIN / 2;
        if budget_bytes < smallest {
            return Err(BudgetTooSmall { budget_bytes, workers, smallest: ByteSize(smallest) });
        }
        let share = budget_bytes / u64::from(workers);
        let blocks = (share / 10 / u64::from(RING_BLOCK_BYTES)).clamp(RING_BLOCKS_MIN, RING_BLOCKS_MAX);
        let ring_blocks = if live { u32::try_from(blocks).unwrap_or(u32::MAX) } else { 0 };
        let queries_bytes = (budget_bytes / 24).clamp(MIB, 64 * MIB);
        let sessions_bytes = share / 100 * 20;
        let taken = u64::from(ring_blocks) * u64::from(RING_BLOCK_BYTES)
            + sessions_bytes
            + queries_bytes / u64::from(workers)
            + base::counters::Published::BYTES as u64;
        let store_bytes = share.saturating_sub(taken);
        Ok(Self {
            budget_bytes,
            workers,
            ring_blocks,
            sessions_bytes,
            store_bytes,
            queries_bytes,
            compression_bytes: 0,
            unpacked_bytes: 0,
        })
    }

    /// The same split with compression. Its buffers come from the share of packets. A third of the share of queries is
    /// for the segments that they decompress.
    #[must_use]
    pub fn compressing(self) -> Self {
        let compression_bytes = crate::store::compress::cost_bytes(self.store_bytes);
        Self {
            store_bytes: self.store_bytes.saturating_sub(compression_bytes),
            compression_bytes,
            unpacked_bytes: self.queries_bytes / 3 / u64::from(self.workers),
            ..self
        }
    }

    /// Bytes that queries have for answers, without those for decompressed segments.
    pub fn answers_bytes(&self) -> u64 {
        self.queries_bytes - u64::from(self.workers) * self.unpacked_bytes
    }

    /// The compression settings within this budget, with `percent` of one core; `None` if it is 0.
    pub fn compression(&self, percent: f64, pace: Pace) -> Option<Compression> {
        (percent > 0.0).then_some(Compression { share: percent / 100.0, pace, readers_bytes: self.unpacked_bytes })
    }

    /// Bytes that pins may take in the store of one worker.
    pub fn pinned_bytes(&self) -> u64 {
        self.budget_bytes / u64::from(self.workers) / crate::judge::pins::SHARE
    }

    /// Bytes of all kernel rings.
    pub fn rings_bytes(&self) -> u64 {
        u64::from(self.workers) * u64::from(self.ring_blocks) * u64::from(RING_BLOCK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn nothing_is_spent_twice() {
        for (budget, workers, live) in
            [(16 * MIB, 1, true), (40 * MIB, 1, false), (40 * MIB, 2, true), (GIB, 4, true), (100 * GIB, 64, true)]
        {
            let plain = Split::new(budget, workers, live).unwrap();
            let split = plain.compressing();
            let each = split.sessions_bytes + split.store_bytes + split.compression_bytes;
            let spent = split.rings_bytes() + split.queries_bytes + u64::from(split.workers) * each;
            assert_eq!(plain.store_bytes, split.store_bytes + split.compression_bytes);
            assert!(split.answers_bytes() * 3 >= split.queries_bytes * 2);
            assert!(spent <= budget, "{budget}: {split:?}");
            assert!(split.store_bytes * u64::from(workers) * 2 >= budget, "{budget}: {split:?}");
            assert!(split.store_bytes > crate::store::Store::BYTES_MIN, "{budget}: {split:?}");
        }
    }

    #[test]
    fn too_little_says_what_is_enough() {
        let error = Split::new(4 * MIB, 1, true).unwrap_err().to_string();
        assert_eq!(
            error,
            "4 MiB of memory are too few for 1 worker: the smallest budget that works is 16 MiB; try -m 16M"
        );
        let error = Split::new(20 * MIB, 3, true).unwrap_err();
        assert_eq!(error.smallest, ByteSize(32 * MIB));
        assert!(Split::new(32 * MIB, 3, true).is_ok());
    }
}
