//! Sessions of the past: what is still known of them when their entries in the array went to others.
//!
//! ```text
//!   array ──► pending: [entry][entry]…    ──► ring:  …[512 sessions][512 sessions]
//!             until there are 512 of them         oldest                      newest
//! ```
//!
//! A session that leaves the array is copied to the pending ones; when these are a full [batch](super::columns), they are
//! compressed and written into a ring of fixed size, over the oldest ones. Sessions of the past are counted by an *ordinal*,
//! blocks of the ring by the position of their first word; both only grow. A reader copies a block out and then looks
//! whether the ring's tail has passed it: if so, the bytes are thrown away. Nobody waits for anybody.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::columns::{self, ArchivedSession, BATCH, Encoder};
use super::entry::{ENTRY_WORDS, Entry};
use super::summary::{Session, SessionSlot};
use base::memory::{Lock, Memory, add};
use base::time::Timestamp;

/// Words before the compressed bytes of a block: first ordinal, sessions and bytes, earliest and latest time.
const HEADER_WORDS: usize = 4;
const BATCH_ORDINALS: u64 = BATCH as u64;

/// What readers see of the past.
#[derive(Debug)]
pub(super) struct SessionArchive {
    pending: Memory,
    ring: Memory,
    /// Sessions that were archived so far; the next one gets this ordinal.
    count: AtomicU64,
    /// Where the next block will be, in words.
    head: AtomicU64,
    /// Where the oldest block is.
    tail: AtomicU64,
    /// Its first ordinal.
    oldest: AtomicU64,
    /// Sessions that were not archived.
    unlisted: AtomicU64,
}

impl SessionArchive {
    /// Bytes beside the ring: pending ones, and the writer's.
    pub(super) const FIXED_BYTES: usize = BATCH * (ENTRY_WORDS * 8 + size_of::<ArchivedSession>()) + Encoder::BYTES;
    /// The smallest ring: some blocks of sessions that resemble each other in nothing.
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
        })
    }

    /// Takes all of its memory now.
    pub(super) fn populate(&self) -> std::io::Result<()> {
        self.ring.populate()?;
        self.pending.populate()
    }

    /// Wipes all of it and gives the memory back.
    pub(super) fn release(&self) {
        self.tail.store(self.head.load(Ordering::Relaxed), Ordering::Relaxed);
        fence(Ordering::Release);
        self.ring.release(0..self.ring.len());
        self.pending.release(0..self.pending.len());
    }

    pub(super) fn bytes(&self) -> u64 {
        self.ring.len() as u64 * 8 + Self::FIXED_BYTES as u64
    }

    /// Bytes that compressed sessions take now, and how many these are.
    pub(super) fn fill(&self) -> (u64, u64) {
        let (head, tail) = (self.head.load(Ordering::Acquire), self.tail.load(Ordering::Acquire));
        let full = self.count() / BATCH_ORDINALS * BATCH_ORDINALS;
        (head.saturating_sub(tail) * 8, full.saturating_sub(self.oldest.load(Ordering::Relaxed)))
    }

    pub(super) fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Relaxed)
    }

    /// The ordinal that the next session will get.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// How many sessions are known.
    pub(super) fn known(&self) -> u64 {
        self.count().saturating_sub(self.oldest.load(Ordering::Relaxed))
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

    /// Copies the block at `position` out; `None` if there is none, or none any more.
    fn block(&self, position: u64, window: Option<(u64, u64)>) -> Option<Block> {
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

    /// The ordinal of the oldest session that is known, or that would be.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Relaxed).min(self.count())
    }

    /// Counts from another ordinal on, as long as there is nothing: sessions before it were forgotten.
    pub(super) fn begin_at(&self, ordinal: u64) {
        if self.count() == 0 {
            let ordinal = ordinal / BATCH_ORDINALS * BATCH_ORDINALS;
            self.oldest.store(ordinal, Ordering::Relaxed);
            self.count.store(ordinal, Ordering::Release);
        }
    }

    /// The blocks there are, oldest first: earliest and latest time, and the compressed bytes of [`BATCH`] sessions.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, u64, Vec<u8>)> + '_ {
        let mut position = self.tail.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            let block = self.block(position, None)?;
            let times = (self.get(position + 2), self.get(position + 3));
            position += block.words;
            Some((times.0, times.1, block.compressed))
        })
    }

    /// The earliest time of a session in the ring, to the millisecond.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        let mut position = self.tail.load(Ordering::Acquire);
        let mut earliest = None;
        // Of no window: their times are read, their sessions are not.
        while let Some(block) = self.block(position, Some((u64::MAX, 0))) {
            let first = Timestamp(self.get(position + 2).saturating_mul(1_000_000));
            earliest = Some(earliest.map_or(first, |earliest: Timestamp| earliest.min(first)));
            position += block.words;
        }
        earliest
    }

    /// The sessions that are in no block yet, oldest first.
    pub(super) fn pending_sessions(&self) -> impl Iterator<Item = Session> + '_ {
        let count = self.count();
        (count / BATCH_ORDINALS * BATCH_ORDINALS..count).filter_map(|ordinal| self.pending_session(ordinal))
    }

    /// The sessions known at this moment, those that left the array first first, from blocks that overlap the window.
    pub(super) fn sessions(&self, until: u64, window: Option<(Timestamp, Timestamp)>) -> ArchivedSessions<'_> {
        ArchivedSessions {
            archive: self,
            window: window.map(|(since, until)| (since.0 / 1_000_000, until.0 / 1_000_000)),
            position: self.tail.load(Ordering::Acquire),
            ordinal: 0,
            until,
            read: Vec::new().into_iter(),
        }
    }

    /// The session at a place, if it is still known. `recent` keeps blocks that were read.
    pub(super) fn session(&self, place: ArchivePosition, recent: &mut BlockCache) -> Option<Session> {
        if place.position >= self.head.load(Ordering::Acquire)
            && let Some(session) = self.pending_session(place.ordinal)
        {
            return Some(session);
        }
        // It was pending when it was found, and is in the block that begins there now.
        let block = recent.block(self, place.position)?;
        let at = usize::try_from(place.ordinal.checked_sub(block.0)?).ok()?;
        block.1.get(at).map(|past| past.session(place.ordinal))
    }

    fn pending_session(&self, ordinal: u64) -> Option<Session> {
        self.pending(ordinal)?.session(SessionSlot::ARCHIVED).filter(|session| session.first_sequence == ordinal)
    }
}

/// A block as a reader copied it.
struct Block {
    ordinal: u64,
    sessions: u64,
    words: u64,
    /// Empty if it lies outside the window asked for.
    compressed: Vec<u8>,
}

fn words_of(bytes: u64) -> u64 {
    HEADER_WORDS as u64 + bytes.div_ceil(8)
}

fn split(word: u64) -> (u64, u64) {
    (word >> 32, word & u64::from(u32::MAX))
}

/// Where a session of the past is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchivePosition {
    /// Its block: where it is, or will be when it is full.
    position: u64,
    ordinal: u64,
}

/// Blocks that were read last, so that sessions that lie together are decompressed together.
#[derive(Debug, Default)]
pub struct BlockCache(std::collections::VecDeque<(u64, Opened)>);

/// The first ordinal of a block, and its sessions.
type Opened = (u64, Vec<ArchivedSession>);

impl BlockCache {
    /// 64 blocks are 5 MiB.
    const MOST: usize = 64;

    fn block(&mut self, archive: &SessionArchive, position: u64) -> Option<&Opened> {
        let at = match self.0.iter().position(|(other, _)| *other == position) {
            Some(at) => at,
            None => {
                let block = archive.block(position, None)?;
                self.0.truncate(Self::MOST - 1);
                self.0.push_front((position, (block.ordinal, columns::decode(&block.compressed)?)));
                0
            }
        };
        self.0.get(at).map(|(_, opened)| opened)
    }
}

/// Reads the past from the oldest session on.
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
    /// Reads the block at the position; false if there is none.
    fn read_block(&mut self) -> bool {
        let tail = self.archive.tail.load(Ordering::Acquire);
        self.position = self.position.max(tail);
        let position = self.position;
        let Some(block) = self.archive.block(position, self.window) else {
            // Overtaken: on from the new tail. At the head: no more blocks.
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

    /// Reads those that are pending, from the current ordinal on.
    fn read_pending(&mut self) {
        let position = self.archive.head.load(Ordering::Acquire);
        if position != self.position {
            // They have become a block meanwhile.
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

/// Writes the past: the one writer of an [`SessionArchive`].
#[derive(Debug)]
pub(super) struct ArchiveWriter {
    batch: Vec<ArchivedSession>,
    encoder: Encoder,
}

impl ArchiveWriter {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { batch: Vec::with_capacity(BATCH), encoder: Encoder::new()? })
    }

    /// Only counts a session: not worth a place.
    pub(super) fn pass_over(archive: &SessionArchive) {
        add(&archive.unlisted, 1);
    }

    /// Takes over the session that has an entry of the array.
    pub(super) fn archive(&mut self, archive: &SessionArchive, entry: Entry<'_>) {
        let ordinal = archive.count.load(Ordering::Relaxed);
        let Some(pending) = archive.pending(ordinal) else { return };
        entry.copy_to(pending, ordinal);
        self.batch.push(ArchivedSession::new(&entry.read(SessionSlot::ARCHIVED)));
        self.added(archive, ordinal);
    }

    /// Takes over a session of the past, as a reader knew it.
    pub(super) fn add(&mut self, archive: &SessionArchive, session: &Session) {
        let ordinal = archive.count.load(Ordering::Relaxed);
        let Some(pending) = archive.pending(ordinal) else { return };
        pending.restore(session, ordinal);
        self.batch.push(ArchivedSession::new(session));
        self.added(archive, ordinal);
    }

    fn added(&mut self, archive: &SessionArchive, ordinal: u64) {
        if self.batch.len() == BATCH {
            self.write_block(archive, ordinal + 1 - BATCH_ORDINALS);
            self.batch.clear();
        }
        archive.count.store(ordinal + 1, Ordering::Release);
    }

    /// Takes over a block of the past, of [`BATCH`] sessions; as it is, if none are pending.
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

    /// Sessions that are not listed.
    pub(super) fn add_unlisted(archive: &SessionArchive, sessions: u64) {
        add(&archive.unlisted, sessions);
    }

    /// Compresses the batch and writes it over the oldest blocks.
    fn write_block(&mut self, archive: &SessionArchive, first_ordinal: u64) {
        let earliest = self.batch.iter().map(ArchivedSession::first_ms).min().unwrap_or(0);
        let latest = self.batch.iter().map(ArchivedSession::last_ms).max().unwrap_or(0);
        let sessions = self.batch.len() as u64;
        let compressed = self.encoder.encode(&mut self.batch).unwrap_or_default();
        Self::append(archive, first_ordinal, sessions, [earliest, latest], compressed);
    }

    /// Writes a block over the oldest ones.
    fn append(archive: &SessionArchive, first_ordinal: u64, sessions: u64, times: [u64; 2], compressed: &[u8]) {
        let words = words_of(compressed.len() as u64);
        let room = archive.ring.len() as u64;
        if compressed.is_empty() || words > room {
            // Never for a ring of the smallest size: a batch takes half of it at most.
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
        // Who reads a word that is written from here on sees the new tail.
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
