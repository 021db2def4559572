//! The array of sessions that are live or have packets left, and the archive behind it.
//!
//! A session has an entry from its first packet until, after its end, another session needs the entry.
//! [`SessionTable`](super::SessionTable) writes; any number of threads read.

use super::archive::{ArchivePosition, BlockCache, SessionArchive};
use super::begins::Begins;
use super::entry::{ENTRY_BYTES, ENTRY_WORDS, Entry};
use super::summary::{Session, SessionSlot};
use base::memory::{Lock, Memory};
use base::time::Timestamp;

/// The array.
#[derive(Debug)]
pub struct SessionArray {
    words: Memory,
    capacity: u32,
    archive: SessionArchive,
    begins: Begins,
}

impl SessionArray {
    pub(super) fn new(capacity: u32, archive_bytes: usize, lock: Lock) -> std::io::Result<Self> {
        let words = Memory::new(capacity as usize * ENTRY_WORDS, lock)?;
        Ok(Self { words, capacity, archive: SessionArchive::new(archive_bytes, lock)?, begins: Begins::new() })
    }

    /// How many sessions there can be that live or have packets left.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Bytes of the array.
    pub fn bytes(&self) -> u64 {
        u64::from(self.capacity) * ENTRY_BYTES as u64
    }

    /// Bytes of the archive, and of what writes it.
    pub fn archive_bytes(&self) -> u64 {
        self.archive.bytes()
    }

    /// How many sessions of the past are known that have left the array.
    pub fn past(&self) -> u64 {
        self.archive.known()
    }

    /// Whether sessions were seen of which nothing is known any more, or only that they were many.
    pub fn has_forgotten(&self) -> bool {
        self.archive.known() < self.archive.count() || self.unlisted() > 0
    }

    /// Bytes that compressed sessions of the past take now, and how many these are.
    pub fn archive_fill(&self) -> (u64, u64) {
        self.archive.fill()
    }

    /// Sessions of a flood that were only counted when they left the array.
    pub fn unlisted(&self) -> u64 {
        self.archive.unlisted()
    }

    /// All sessions that ever began, those of predecessors included.
    pub fn begun(&self) -> u64 {
        self.begins.total()
    }

    /// The sessions that began in the last `period_ns` before `now`, whatever became of them, and since when exactly they
    /// were counted: a little longer than the period, see [`Begins`].
    pub fn begun_since(&self, now: Timestamp, period_ns: u64) -> (Timestamp, u64) {
        self.begins.since(now, period_ns)
    }

    pub(super) fn begins(&self) -> &Begins {
        &self.begins
    }

    pub(super) fn archive(&self) -> &SessionArchive {
        &self.archive
    }

    /// The session of the past at a place that [`known`](Self::known) told, if it is still known.
    pub fn past_session(&self, place: ArchivePosition, recent: &mut BlockCache) -> Option<Session> {
        self.archive.session(place, recent)
    }

    /// The sessions in the array, in no order.
    pub fn sessions(&self) -> impl Iterator<Item = Session> + '_ {
        (0..self.used()).filter_map(|slot| self.session(SessionSlot(slot)))
    }

    /// The session that has this slot now.
    pub fn session(&self, slot: SessionSlot) -> Option<Session> {
        self.entry(slot)?.session(slot)
    }

    /// The session that packet `sequence` of this slot belonged to, if it still has the slot.
    pub fn session_at(&self, slot: SessionSlot, sequence: u64) -> Option<Session> {
        self.session(slot).filter(|session| session.first_sequence <= sequence)
    }

    /// Takes all of its memory now.
    pub(crate) fn populate(&self) -> std::io::Result<()> {
        self.words.populate()?;
        self.archive.populate()
    }

    /// Wipes the entries of some slots and gives their memory back.
    pub(super) fn release(&self, slots: std::ops::Range<u32>) {
        self.words.release(slots.start as usize * ENTRY_WORDS..slots.end as usize * ENTRY_WORDS);
    }

    pub(super) fn entry(&self, slot: SessionSlot) -> Option<Entry<'_>> {
        let from = slot.0 as usize * ENTRY_WORDS;
        self.words.get(from..from + ENTRY_WORDS)?.try_into().ok().map(Entry)
    }
}
