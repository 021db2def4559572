//! Decompression of segments.
//!
//! The writer uncompresses one segment at a time, when it evicts it ([`Unpacker`]). Readers share a few uncompressed
//! segments ([`Unpacked`]). The memory for all queries together is fixed at start. A reader waits for others only while
//! they uncompress or copy from a segment, never for a whole answer. The writer never waits for readers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pages::{Pages, Position, SegmentEvicted};
use super::segment::{SegmentId, SegmentView, Slot};

/// Bytes of a zstd decompression context.
pub(super) const CONTEXT_BYTES: usize = 128 << 10;

/// A decompression context and a buffer for one compressed segment.
pub(super) struct Unpacker {
    context: zstd::bulk::Decompressor<'static>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Unpacker {
    /// Creates an unpacker for compressed segments of at most `segment_bytes`.
    pub(super) fn new(segment_bytes: usize) -> std::io::Result<Self> {
        Ok(Self { context: zstd::bulk::Decompressor::new()?, packed: vec![0; segment_bytes] })
    }

    /// Bytes of memory that an unpacker takes.
    pub(super) const fn bytes(segment_bytes: usize) -> usize {
        CONTEXT_BYTES + segment_bytes
    }

    /// Uncompresses a segment into `out`, which is as long as the longest segment. Fails if the segment is gone.
    pub(super) fn unpack<'a>(
        &mut self,
        pages: &Pages,
        slot: &Slot,
        view: &SegmentView,
        out: &'a mut [u8],
    ) -> Result<&'a [u8], SegmentEvicted> {
        let packed = usize::try_from(view.packed_bytes).map_err(|_| SegmentEvicted)?;
        let packed = self.packed.get_mut(..packed).ok_or(SegmentEvicted)?;
        pages.copy_out(&mut Position { page: view.first_page(), offset: 0 }, packed)?;
        if !slot.is(view.generation) {
            return Err(SegmentEvicted);
        }
        let len = self.context.decompress_to_buffer(packed, out).map_err(|_| SegmentEvicted)?;
        if len as u64 == view.len_bytes { Ok(&out[..len]) } else { Err(SegmentEvicted) }
    }
}

/// Segment and generation.
type Key = (SegmentId, u64);

/// Uncompressed segments that readers share. A new one replaces the least recently used.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    index: Mutex<Index>,
    entries: Box<[Mutex<UnpackedSegment>]>,
    /// One per segment that can be uncompressed at the same time.
    unpackers: Box<[Mutex<Unpacker>]>,
}

#[derive(Debug, Default)]
struct Index {
    /// Per entry: the segment that it holds or is about to hold, and when it was last requested.
    tags: Vec<(Option<Key>, u64)>,
    now: u64,
}

#[derive(Debug, Default)]
struct UnpackedSegment {
    key: Option<Key>,
    len: usize,
    bytes: Vec<u8>,
}

/// Maximum number of segments that are uncompressed at the same time.
const UNPACKERS_MAX: usize = 4;

impl Unpacked {
    /// Allocates room for as many segments of `segment_bytes` as fit into `bytes`, but for at least two.
    pub(super) fn new(bytes: u64, segment_bytes: usize) -> std::io::Result<Self> {
        let each = Unpacker::bytes(segment_bytes);
        let share = usize::try_from(bytes).unwrap_or(usize::MAX);
        let unpackers = (share / 4 / each).clamp(1, UNPACKERS_MAX);
        let entries = (share.saturating_sub(unpackers * each) / segment_bytes).max(2);
        Ok(Self {
            index: Mutex::new(Index { tags: vec![(None, 0); entries], now: 0 }),
            entries: (0..entries)
                .map(|_| Mutex::new(UnpackedSegment { bytes: vec![0; segment_bytes], ..UnpackedSegment::default() }))
                .collect(),
            unpackers: (0..unpackers)
                .map(|_| Unpacker::new(segment_bytes).map(Mutex::new))
                .collect::<std::io::Result<_>>()?,
        })
    }

    /// Fills `out` with the bytes at `offset` in the uncompressed stream of a segment.
    pub(super) fn read(
        &self,
        pages: &Pages,
        slot: &Slot,
        view: &SegmentView,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), SegmentEvicted> {
        let key = (view.id, view.generation);
        let mut entry = locked(self.entries.get(self.place_of(key)).ok_or(SegmentEvicted)?);
        if entry.key != Some(key) {
            entry.key = None;
            entry.len = self.unpacker().unpack(pages, slot, view, &mut entry.bytes)?.len();
            entry.key = Some(key);
        }
        let from = usize::try_from(offset).map_err(|_| SegmentEvicted)?;
        let bytes =
            entry.bytes[..entry.len].get(from..).and_then(|bytes| bytes.get(..out.len())).ok_or(SegmentEvicted)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    /// Index of the entry that holds the segment, or that is to hold it.
    fn place_of(&self, key: Key) -> usize {
        let mut index = locked(&self.index);
        index.now += 1;
        let now = index.now;
        let has = |tags: &[(Option<Key>, u64)]| tags.iter().position(|tag| tag.0 == Some(key));
        let oldest = |tags: &[(Option<Key>, u64)]| (0..tags.len()).min_by_key(|&i| tags[i].1);
        let at = has(&index.tags).or_else(|| oldest(&index.tags)).unwrap_or(0);
        if let Some(tag) = index.tags.get_mut(at) {
            *tag = (Some(key), now);
        }
        at
    }

    /// An idle context. If all are in use, waits for the first in the list.
    fn unpacker(&self) -> MutexGuard<'_, Unpacker> {
        let free = self.unpackers.iter().find_map(|unpacker| unpacker.try_lock().ok());
        free.unwrap_or_else(|| locked(&self.unpackers[0]))
    }
}

/// Locks a mutex even if a thread panicked while it held the lock. The data stays valid, because each user checks the
/// key.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
