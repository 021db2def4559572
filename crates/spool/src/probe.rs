//! Measures a directory before a spool is written there: how fast its disk takes sequential writes, and how long a sync takes.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::directory::Directory;
use crate::medium::Medium as _;

/// Bytes that are written at most, and the time after which writing ends.
const WRITTEN_MAX: (u64, Duration) = (128 << 20, Duration::from_secs(2));
/// Syncs that are measured at most, and the time after which that ends.
const SYNCS_MAX: (u32, Duration) = (16, Duration::from_secs(1));
/// Bytes of a write.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes before each sync.
const SYNC_BYTES: usize = 64 << 10;
/// The part of the free space that is written at most.
const FREE_DIVISOR: u64 = 10;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpeed {
    /// Bytes that were written, and the time until they were durable.
    pub written: (u64, Duration),
    /// The mean and the longest sync of a few bytes.
    pub syncs: (Duration, Duration),
}

impl DiskSpeed {
    /// Bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        let (bytes, took) = self.written;
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        bytes.saturating_mul(1_000_000) / us
    }
}

/// Writes to a file without a name in this directory, which is gone when this returns.
///
/// # Errors
///
/// If the directory cannot be written.
pub fn measure(path: &Path) -> io::Result<DiskSpeed> {
    let directory = Directory::open_to_read(path).map_err(io::Error::other)?;
    directory.write_directly();
    let name = format!("check-{}.tmp", std::process::id());
    let mut file = directory.create(&name)?;
    // Nothing stays, even if the process is killed.
    directory.remove(&name)?;
    let most = WRITTEN_MAX.0.min(directory.room()?.free_bytes / FREE_DIVISOR);
    let mut number = 0u64;
    // Random bytes, because some disks and file systems compress.
    let block: Vec<u8> = std::iter::repeat_with(|| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        number.to_le_bytes()[4..].to_vec()
    })
    .take(WRITE_BYTES / 4)
    .flatten()
    .collect();
    let began = Instant::now();
    let mut written = 0;
    while written < most && began.elapsed() < WRITTEN_MAX.1 {
        directory.append(&mut file, written, &block)?;
        written += WRITE_BYTES as u64;
    }
    directory.sync(&file)?;
    let took = began.elapsed();
    let (began, mut count, mut longest) = (Instant::now(), 0, Duration::ZERO);
    let mut sum = Duration::ZERO;
    while count < SYNCS_MAX.0 && began.elapsed() < SYNCS_MAX.1 {
        directory.append(&mut file, written, &block[..SYNC_BYTES])?;
        written += SYNC_BYTES as u64;
        let sync = Instant::now();
        directory.sync(&file)?;
        longest = longest.max(sync.elapsed());
        sum += sync.elapsed();
        count += 1;
    }
    let bytes = written - u64::from(count) * SYNC_BYTES as u64;
    Ok(DiskSpeed { written: (bytes, took), syncs: (sum / count.max(1), longest) })
}
