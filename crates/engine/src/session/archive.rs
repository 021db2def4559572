//! The session archive: summaries of sessions whose array entries were reused.
//!
//! ```text
//!   array ──► pending: [entry][entry]…    ──► ring:  …[512 sessions][512 sessions]
//!             up to 512 of them                      oldest                newest
//! ```
//!
//! The writer copies a session that leaves the array to the pending area. When the pending area holds a full
//! [batch](super::columns), the writer compresses it into one block and writes the block into a ring of fixed size,
//! over the oldest blocks. An *ordinal* numbers archived sessions, and a block's position is the word offset at which
//! it starts; both only grow. A reader copies a block and then checks whether the tail of the ring has passed it. If it
//! has, the reader discards the copy. Neither side waits for the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use super::columns::{self, ArchivedSession, BATCH, Encoder};
use super::departures::Departures;
use super::entry::{ENTRY_WORDS, Entry};
use super::summary::{Session, SessionSlot};
use base::memory::{Lock, Memory, add};
use base::time::Timestamp;

/// Words of a block's header: first ordinal, session count and byte count, earliest time, latest time.
const HEADER_WORDS: usize = 4;
const BATCH_ORDINALS: u64 = BATCH as u64;

/// The part of the archive that the writer and all readers share.
#[derive(Debug)]
pub(super) struct SessionArchive {
    pending: Memory,
    ring: Memory,
    /// Sessions archived so far, which is the ordinal of the next one.
    count: AtomicU64,
    /// Position of the next block, in words.
    head: AtomicU64,
    /// Position of the oldest block, in words.
    pub(super) tail: AtomicU64,
    /// First ordinal of the oldest block.
    oldest: AtomicU64,
    /// Sessions that left the array and were only counted.
    unlisted: AtomicU64,
    departures: Departures,
}

impl SessionArchive {
    /// Bytes outside the ring: the pending area and the writer's buffers.
    pub(super) const FIXED_BYTES: usize =
        BATCH * (ENTRY_WORDS * 8 + size_of::<ArchivedSession>()) + Encoder::BYTES + Departures::BYTES;
    /// The smallest ring in bytes. It holds several blocks even when they compress badly.
    pub(super) const RING_BYTES_MIN: usize = 256 << 10;

    pub(super) fn new(ring_bytes: usize, lock: Lock) -> std::io::Result<Self> {
        Ok(Self {
            pending: Memory::new(BATCH * ENTRY_WORDS, lock)?,
            ring: Memory::new(ring_bytes.max(Self::RING_BYTES_MIN) / 8, lock)?,
            count: AtomicU64::new(0),
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            unlisted: AtomicU64::new(0),
            departures: Departures::new(),
        })
    }

    /// Faults in all memory now, so that the packet path takes no page faults.
    pub(super) fn populate(&self) -> std::io::Result<()> {
        self.ring.populate()?;
        self.pending.populate()
    }

    /// Wipes the archive and returns its memory to the system.
    pub(super) fn release(&self) {
        self.tail.store(self.head.load(Ordering::Relaxed), Ordering::Relaxed);
        fence(Ordering::Release);
        self.ring.release(0..self.ring.len());
        self.pending.release(0..self.pending.len());
    }

    pub(super) fn bytes(&self) -> u64 {
        self.ring_bytes() + Self::FIXED_BYTES as u64
    }

    pub(super) fn ring_bytes(&self) -> u64 {
        self.ring.len() as u64 * 8
    }

    /// Bytes of the compressed blocks in the ring, and the number of sessions in them.
    pub(super) fn fill(&self) -> (u64, u64) {
        let (head, tail) = (self.head.load(Ordering::Acquire), self.tail.load(Ordering::Acquire));
        let full = self.count() / BATCH_ORDINALS * BATCH_ORDINALS;
        (head.saturating_sub(tail) * 8, full.saturating_sub(self.oldest.load(Ordering::Relaxed)))
    }

    pub(super) fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Relaxed)
    }

    /// The ordinal of the next session.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Number of sessions that can be read, pending ones included.
    pub(super) fn known(&self) -> u64 {
        self.count().saturating_sub(self.oldest.load(Ordering::Relaxed))
    }

    /// The entry that session `ordinal` had in the array, if it left it not long ago.
    pub(super) fn departed(&self, ordinal: u64) -> Option<SessionSlot> {
        self.departures.slot(ordinal, || self.count())
    }

    fn pending(&self, ordinal: u64) -> Option<Entry<'_>> {
        let from = usize::try_from(ordinal % BATCH_ORDINALS).ok()? * ENTRY_WORDS;
        self.pending.get(from..from + ENTRY_WORDS)?.try_into().ok().map(Entry)
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        let len = self.ring.len() as u64;
        &self.ring[usize::try_from(position % len).unwrap_or(0)]
    }

    fn get(&self, position: u64) -> u64 {
        self.word(position).load(Ordering::Relaxed)
    }

    /// Copies the block at `position`, without its sessions if it does not overlap `window` (milliseconds). `None` if
    /// no block starts there, or if the writer has overwritten it.
    pub(super) fn block(&self, position: u64, window: Option<(u64, u64)>) -> Option<Block> {
        if position >= self.head.load(Ordering::Acquire) {
            return None;
        }
        let (sessions, bytes) = split(self.get(position + 1));
        let mut block = Block { ordinal: self.get(position), sessions, words: words_of(bytes), compressed: Vec::new() };
        let (earliest, latest) = (self.get(position + 2), self.get(position + 3));
        let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes <= 2 * columns::RAW_BYTES_MAX)?;
        if window.is_none_or(|(since, until)| latest >= since && earliest <= until) {
            let words = (position + HEADER_WORDS as u64..).map(|at| self.get(at).to_le_bytes());
            block.compressed.extend(words.take(bytes.div_ceil(8)).flatten());
            block.compressed.truncate(bytes);
        }
        fence(Ordering::Acquire);
        (self.tail.load(Ordering::Relaxed) <= position).then_some(block)
    }

    /// The ordinal of the oldest readable session, or of the next session while the archive is empty.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Relaxed).min(self.count())
    }

    /// Sets the first ordinal of an empty archive, rounded down to a whole batch. The sessions before it count as
    /// forgotten.
    pub(super) fn begin_at(&self, ordinal: u64) {
        if self.count() == 0 {
            let ordinal = ordinal / BATCH_ORDINALS * BATCH_ORDINALS;
            self.oldest.store(ordinal, Ordering::Relaxed);
            self.count.store(ordinal, Ordering::Release);
        }
    }

    /// The blocks, oldest first: earliest and latest time in milliseconds, and the compressed bytes of [`BATCH`]
    /// sessions.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, u64, Vec<u8>)> + '_ {
        let mut position = self.tail.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            let block = self.block(position, None)?;
            let times = (self.get(position + 2), self.get(position + 3));
            position += block.words;
            Some((times.0, times.1, block.compressed))
        })
    }

    /// The earliest start of a session in the ring, rounded down to the millisecond.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        let mut position = self.tail.load(Ordering::Acquire);
        let mut earliest = None;
        // An empty window skips the compressed bytes, as only the times in the headers are needed.
        while let Some(block) = self.block(position, Some((u64::MAX, 0))) {
            let first = Timestamp(self.get(position + 2).saturating_mul(1_000_000));
            earliest = Some(earliest.map_or(first, |earliest: Timestamp| earliest.min(first)));
            position += block.words;
        }
        earliest
    }

    /// The pending sessions, oldest first.
    pub(super) fn pending_sessions(&self) -> impl Iterator<Item = Session> + '_ {
        let count = self.count();
        (count / BATCH_ORDINALS * BATCH_ORDINALS..count).filter_map(|ordinal| self.pending_session(ordinal))
    }

    /// The sessions with these ordinals, from blocks that overlap the window. Blocks come in the order in which they were
    /// archived.
    pub(super) fn sessions(
        &self,
        ordinals: std::ops::Range<u64>,
        window: Option<(Timestamp, Timestamp)>,
    ) -> ArchivedSessions<'_> {
        ArchivedSessions {
            archive: self,
            window: window.map(|(since, until)| (since.0 / 1_000_000, until.0 / 1_000_000)),
            position: self.tail.load(Ordering::Acquire),
            ordinal: ordinals.start,
            until: ordinals.end,
            read: Vec::new().into_iter(),
        }
    }

    /// The session at `place`, if it is still in the archive. `recent` has the blocks that were read before.
    pub(super) fn session(&self, place: ArchivePosition, recent: &BlockCache) -> Option<Session> {
        if place.position >= self.head.load(Ordering::Acquire)
            && let Some(session) = self.pending_session(place.ordinal)
        {
            return Some(session);
        }
        // The session was pending when the reader found it. It is now in the block that starts at that position.
        recent.read(self, place.position, |(first, sessions)| {
            let at = usize::try_from(place.ordinal.checked_sub(*first)?).ok()?;
            sessions.get(at).map(|past| past.session(place.ordinal))
        })?
    }

    pub(super) fn pending_session(&self, ordinal: u64) -> Option<Session> {
        self.pending(ordinal)?.session(SessionSlot::ARCHIVED).filter(|session| session.first_sequence == ordinal)
    }
}

/// A reader's copy of a block.
pub(super) struct Block {
    pub(super) ordinal: u64,
    pub(super) sessions: u64,
    pub(super) words: u64,
    /// Empty if the block lies outside the requested window.
    pub(super) compressed: Vec<u8>,
}

fn words_of(bytes: u64) -> u64 {
    HEADER_WORDS as u64 + bytes.div_ceil(8)
}

fn split(word: u64) -> (u64, u64) {
    (word >> 32, word & u64::from(u32::MAX))
}

/// The location of an archived session. It stays valid until the session is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchivePosition {
    /// Position of the session's block. For a pending session, the position at which its block will start.
    position: u64,
    ordinal: u64,
}

/// Recently decompressed blocks, shared by all readers. Sessions in the same block are decompressed once. A block is known by
/// its archive and its position, because each worker has an archive.
#[derive(Debug)]
pub struct BlockCache {
    /// The latest used block comes first.
    blocks: Mutex<VecDeque<((usize, u64), Opened)>>,
    blocks_max: usize,
}

/// The first ordinal of a decompressed block, and its sessions.
type Opened = (u64, Vec<ArchivedSession>);

impl BlockCache {
    /// Bytes of a decompressed block.
    const BLOCK_BYTES: usize = BATCH * size_of::<ArchivedSession>();
    /// The most blocks of a cache. More of them would help only listings that a user waits for anyway.
    const BLOCKS_MAX: usize = 64;

    /// A cache of at most so many bytes, or of one block.
    pub fn new(bytes_max: u64) -> Self {
        let blocks = usize::try_from(bytes_max).unwrap_or(usize::MAX) / Self::BLOCK_BYTES;
        Self { blocks: Mutex::default(), blocks_max: blocks.clamp(1, Self::BLOCKS_MAX) }
    }

    /// Bytes that the blocks take at most.
    pub fn bytes_max(&self) -> u64 {
        (self.blocks_max * Self::BLOCK_BYTES) as u64
    }

    /// What `read` returns for the block at `position`, if it is still in the archive.
    fn read<T>(&self, archive: &SessionArchive, position: u64, read: impl FnOnce(&Opened) -> T) -> Option<T> {
        let key = (std::ptr::from_ref(archive).addr(), position);
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = blocks.iter().position(|(other, _)| *other == key).and_then(|at| blocks.remove(at));
        let block = match known {
            Some(block) => block,
            None => {
                let block = archive.block(position, None)?;
                blocks.truncate(self.blocks_max - 1);
                (key, (block.ordinal, columns::decode(&block.compressed)?))
            }
        };
        let answer = read(&block.1);
        blocks.push_front(block);
        Some(answer)
    }
}

impl Default for BlockCache {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

/// An iterator over the archive, from its oldest block on.
#[derive(Debug)]
pub struct ArchivedSessions<'a> {
    archive: &'a SessionArchive,
    window: Option<(u64, u64)>,
    position: u64,
    ordinal: u64,
    until: u64,
    read: std::vec::IntoIter<(ArchivePosition, Session)>,
}

impl ArchivedSessions<'_> {
    /// Reads the block at the current position. Returns false if the position is at the head.
    fn read_block(&mut self) -> bool {
        let tail = self.archive.tail.load(Ordering::Acquire);
        self.position = self.position.max(tail);
        let position = self.position;
        let is_before = |block: &Block| block.ordinal + block.sessions <= self.ordinal;
        let header = self.archive.block(position, Some((u64::MAX, 0)));
        let Some(block) = header.and_then(|header| match is_before(&header) {
            true => Some(header),
            false => self.archive.block(position, self.window),
        }) else {
            // If the writer has overtaken this reader, continue at the new tail. At the head there are no more blocks.
            return position < self.archive.tail.load(Ordering::Acquire);
        };
        let batch = if block.compressed.is_empty() { None } else { columns::decode(&block.compressed) };
        let sessions = (block.ordinal..).zip(batch.unwrap_or_default());
        let from = self.ordinal;
        let wanted = sessions.filter(|(ordinal, _)| (from..self.until).contains(ordinal));
        let read: Vec<_> =
            wanted.map(|(ordinal, past)| (ArchivePosition { position, ordinal }, past.session(ordinal))).collect();
        self.read = read.into_iter();
        self.ordinal = self.ordinal.max(block.ordinal + block.sessions);
        self.position = position + block.words;
        true
    }

    /// Reads the pending sessions from the current ordinal on.
    fn read_pending(&mut self) {
        let position = self.archive.head.load(Ordering::Acquire);
        if position != self.position {
            // The pending sessions have become a block in the meantime.
            return;
        }
        let batch = self.until / BATCH_ORDINALS * BATCH_ORDINALS;
        let mut read = Vec::new();
        for ordinal in self.ordinal.max(batch)..self.until {
            match self.archive.pending_session(ordinal) {
                Some(session) => read.push((ArchivePosition { position, ordinal }, session)),
                None if self.archive.head.load(Ordering::Acquire) != position => break,
                None => {}
            }
            self.ordinal = ordinal + 1;
        }
        self.ordinal = self.ordinal.max(batch);
        self.read = read.into_iter();
    }
}

impl Iterator for ArchivedSessions<'_> {
    type Item = (ArchivePosition, Session);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.read.next() {
                return Some(found);
            }
            if self.ordinal >= self.until {
                return None;
            }
            if !self.read_block() {
                self.read_pending();
            }
        }
    }
}

/// The single writer of a [`SessionArchive`].
#[derive(Debug)]
pub(super) struct ArchiveWriter {
    batch: Vec<ArchivedSession>,
    encoder: Encoder,
}

impl ArchiveWriter {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { batch: Vec::with_capacity(BATCH), encoder: Encoder::new()? })
    }

    /// Counts a session of a flood without archiving it.
    pub(super) fn pass_over(archive: &SessionArchive) {
        add(&archive.unlisted, 1);
    }

    /// Archives the session of an array entry.
    pub(super) fn archive(&mut self, archive: &SessionArchive, slot: SessionSlot, entry: Entry<'_>) {
        let ordinal = archive.count.load(Ordering::Relaxed);
        let Some(pending) = archive.pending(ordinal) else { return };
        entry.copy_to(pending, ordinal);
        self.batch.push(ArchivedSession::new(&pending.read(SessionSlot::ARCHIVED)));
        self.added(archive, ordinal, slot);
    }

    /// Archives a session that a previous recorder had in its archive.
    pub(super) fn add(&mut self, archive: &SessionArchive, session: &Session) {
        let ordinal = archive.count.load(Ordering::Relaxed);
        let Some(pending) = archive.pending(ordinal) else { return };
        pending.restore(session, ordinal);
        self.batch.push(ArchivedSession::new(session));
        self.added(archive, ordinal, SessionSlot::ARCHIVED);
    }

    fn added(&mut self, archive: &SessionArchive, ordinal: u64, slot: SessionSlot) {
        if self.batch.len() == BATCH {
            self.write_block(archive, ordinal + 1 - BATCH_ORDINALS);
            self.batch.clear();
        }
        archive.departures.note(ordinal, slot);
        archive.count.store(ordinal + 1, Ordering::Release);
    }

    /// Takes over a previous recorder's block of [`BATCH`] sessions: unchanged if no session is pending, session by
    /// session otherwise.
    pub(super) fn add_block(&mut self, archive: &SessionArchive, earliest: u64, latest: u64, compressed: &[u8]) {
        if self.batch.is_empty() {
            let ordinal = archive.count.load(Ordering::Relaxed);
            Self::append(archive, ordinal, BATCH_ORDINALS, [earliest, latest], compressed);
            archive.count.store(ordinal + BATCH_ORDINALS, Ordering::Release);
            return;
        }
        for past in columns::decode(compressed).unwrap_or_default() {
            self.add(archive, &past.session(0));
        }
    }

    /// Adds to the count of sessions that were not archived.
    pub(super) fn add_unlisted(archive: &SessionArchive, sessions: u64) {
        add(&archive.unlisted, sessions);
    }

    /// Compresses the batch and writes it over the oldest blocks.
    fn write_block(&mut self, archive: &SessionArchive, first_ordinal: u64) {
        let earliest = self.batch.iter().map(ArchivedSession::first_ms).min().unwrap_or(0);
        let latest = self.batch.iter().map(ArchivedSession::last_ms).max().unwrap_or(0);
        let sessions = self.batch.len() as u64;
        let compressed = self.encoder.encode(&self.batch).unwrap_or_default();
        Self::append(archive, first_ordinal, sessions, [earliest, latest], compressed);
    }

    /// Writes a block, over the oldest blocks if the ring is full.
    fn append(archive: &SessionArchive, first_ordinal: u64, sessions: u64, times: [u64; 2], compressed: &[u8]) {
        let words = words_of(compressed.len() as u64);
        let room = archive.ring.len() as u64;
        if compressed.is_empty() || words > room {
            // This cannot happen, as a batch takes at most half of the smallest ring.
            add(&archive.unlisted, sessions);
            return;
        }
        let head = archive.head.load(Ordering::Relaxed);
        let mut tail = archive.tail.load(Ordering::Relaxed);
        let mut oldest = if tail == head { first_ordinal } else { archive.oldest.load(Ordering::Relaxed) };
        while tail < head && head + words - tail > room {
            let (_, bytes) = split(archive.get(tail + 1));
            tail += words_of(bytes);
            oldest = if tail < head { archive.get(tail) } else { first_ordinal };
        }
        archive.oldest.store(oldest, Ordering::Relaxed);
        archive.tail.store(tail, Ordering::Relaxed);
        // A reader that sees a word written below also sees the new tail.
        fence(Ordering::Release);
        let header = [first_ordinal, sessions << 32 | compressed.len() as u64, times[0], times[1]];
        let bytes = compressed.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        for (position, word) in (head..).zip(header.into_iter().chain(bytes)) {
            archive.word(position).store(word, Ordering::Relaxed);
        }
        archive.head.store(head + words, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
