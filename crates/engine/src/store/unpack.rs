//! Compressed segments made readable again.
//!
//! The writer needs one at a time, when it is evicted ([`Unpacker`]). Readers share a few ([`Unpacked`]): what all
//! queries together spend on them is fixed at start. They wait for each other no longer than it takes to uncompress one
//! segment, never across an answer, and the writer never waits for them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pages::{Gone, Pages, Position};
use super::segment::{SegmentId, SegmentView, Slot};

/// Bytes of a zstd context that uncompresses.
pub(super) const CONTEXT_BYTES: usize = 128 << 10;

/// A context, and room for one compressed segment.
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
    /// For segments of at most `segment_bytes`.
    pub(super) fn new(segment_bytes: usize) -> std::io::Result<Self> {
        Ok(Self { context: zstd::bulk::Decompressor::new()?, packed: vec![0; segment_bytes] })
    }

    /// Bytes it takes.
    pub(super) const fn bytes(segment_bytes: usize) -> usize {
        CONTEXT_BYTES + segment_bytes
    }

    /// Puts the stream of a compressed segment into `out`, whose length is that of the longest segment.
    pub(super) fn unpack<'a>(
        &mut self,
        pages: &Pages,
        slot: &Slot,
        view: &SegmentView,
        out: &'a mut [u8],
    ) -> Result<&'a [u8], Gone> {
        let packed = usize::try_from(view.packed_bytes).map_err(|_| Gone)?;
        let packed = self.packed.get_mut(..packed).ok_or(Gone)?;
        pages.copy_out(&mut Position { page: view.first_page(), offset: 0 }, packed)?;
        if !slot.is(view.generation) {
            return Err(Gone);
        }
        let len = self.context.decompress_to_buffer(packed, out).map_err(|_| Gone)?;
        if len as u64 == view.len_bytes { Ok(&out[..len]) } else { Err(Gone) }
    }
}

/// Which segment, at which time of its life.
type Key = (SegmentId, u64);

/// Segments that readers have uncompressed; the one that was not asked for the longest time makes room.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    index: Mutex<Index>,
    entries: Box<[Mutex<Entry>]>,
    /// As many as segments may be uncompressed at the same time.
    unpackers: Box<[Mutex<Unpacker>]>,
}

#[derive(Debug, Default)]
struct Index {
    /// What each entry holds or is about to, and when it was asked for.
    tags: Vec<(Option<Key>, u64)>,
    now: u64,
}

#[derive(Debug, Default)]
struct Entry {
    key: Option<Key>,
    len: usize,
    bytes: Vec<u8>,
}

/// Segments that are uncompressed at the same time at most.
const UNPACKERS_MAX: usize = 4;

impl Unpacked {
    /// As many segments of at most `segment_bytes` as `bytes` of memory hold; at least two.
    pub(super) fn new(bytes: u64, segment_bytes: usize) -> std::io::Result<Self> {
        let each = Unpacker::bytes(segment_bytes);
        let share = usize::try_from(bytes).unwrap_or(usize::MAX);
        let unpackers = (share / 4 / each).clamp(1, UNPACKERS_MAX);
        let entries = (share.saturating_sub(unpackers * each) / segment_bytes).max(2);
        Ok(Self {
            index: Mutex::new(Index { tags: vec![(None, 0); entries], now: 0 }),
            entries: (0..entries)
                .map(|_| Mutex::new(Entry { bytes: vec![0; segment_bytes], ..Entry::default() }))
                .collect(),
            unpackers: (0..unpackers)
                .map(|_| Unpacker::new(segment_bytes).map(Mutex::new))
                .collect::<std::io::Result<_>>()?,
        })
    }

    /// Fills `out` with what is `offset` bytes behind the start of a compressed segment.
    pub(super) fn read(
        &self,
        pages: &Pages,
        slot: &Slot,
        view: &SegmentView,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Gone> {
        let key = (view.id, view.generation);
        let mut entry = locked(self.entries.get(self.place_of(key)).ok_or(Gone)?);
        if entry.key != Some(key) {
            entry.key = None;
            entry.len = self.unpacker().unpack(pages, slot, view, &mut entry.bytes)?.len();
            entry.key = Some(key);
        }
        let from = usize::try_from(offset).map_err(|_| Gone)?;
        let bytes = entry.bytes[..entry.len].get(from..).and_then(|bytes| bytes.get(..out.len())).ok_or(Gone)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    /// The entry that has the segment, or is to have it.
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

    /// A context that nobody uses, or the first that gets free.
    fn unpacker(&self) -> MutexGuard<'_, Unpacker> {
        let free = self.unpackers.iter().find_map(|unpacker| unpacker.try_lock().ok());
        free.unwrap_or_else(|| locked(&self.unpackers[0]))
    }
}

/// What a thread that panicked left behind is as good as before: whoever finds it asks for its key.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
