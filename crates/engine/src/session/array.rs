//! The array of sessions that are live or have stored packets, and the archive of the sessions that left it.
//!
//! A session keeps its entry from its first packet until another session needs the entry.
//! [`SessionTable`](super::SessionTable) is the only writer; any number of threads read.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use foldhash::quality::FixedState;

use super::archive::{ArchivePosition, BlockCache, SessionArchive};
use super::entry::{ENTRY_BYTES, ENTRY_WORDS, Entry};
use super::servers::Servers;
use super::start_counts::SessionStartCounts;
use super::summary::{Session, SessionSlot};
use base::memory::{Lock, Memory};
use base::time::Timestamp;

/// The session entries, the archive and the counts of session starts.
#[derive(Debug)]
pub struct SessionArray {
    words: Memory,
    capacity: u32,
    archive: SessionArchive,
    start_counts: SessionStartCounts,
    servers: Servers,
}

impl SessionArray {
    pub(super) fn new(capacity: u32, archive_bytes: usize, seed: u64, lock: Lock) -> std::io::Result<Self> {
        let words = Memory::new(capacity as usize * ENTRY_WORDS, lock)?;
        Ok(Self {
            words,
            capacity,
            archive: SessionArchive::new(archive_bytes, lock)?,
            start_counts: SessionStartCounts::new(),
            servers: Servers::new(seed),
        })
    }

    /// Number of entries.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Bytes of the array.
    pub fn bytes(&self) -> u64 {
        u64::from(self.capacity) * ENTRY_BYTES as u64
    }

    /// Bytes of the archive, its writer's buffers included.
    pub fn archive_bytes(&self) -> u64 {
        self.archive.bytes()
    }

    /// Number of sessions in the archive.
    pub fn past(&self) -> u64 {
        self.archive.known()
    }

    /// Sessions archived so far, forgotten ones included: the ordinal of the next one.
    pub fn archived(&self) -> u64 {
        self.archive.count()
    }

    /// The entry that archived session `ordinal` had. `None` if it left the array too long ago, or was archived by a
    /// previous recorder.
    pub fn departed(&self, ordinal: u64) -> Option<SessionSlot> {
        self.archive.departed(ordinal)
    }

    /// The session archived last, with the entry that it had, while it is uncompressed. The entry may still hold it.
    pub fn last_departed(&self) -> Option<(SessionSlot, Session)> {
        let ordinal = self.archived().checked_sub(1)?;
        let session = self.archive.pending_session(ordinal)?;
        Some((self.departed(ordinal)?, session.with_likely_responder(&self.servers)))
    }

    /// A number for a session that stays the same when it moves to the archive, and over restarts. It depends on the seed,
    /// so that senders cannot choose sessions with the same number.
    pub fn identity(&self, session: &Session) -> u64 {
        let mut hasher = FixedState::with_seed(self.servers.seed()).build_hasher();
        session.key.hash(&mut hasher);
        hasher.write_u64(session.first.0 / 1_000_000);
        hasher.finish()
    }

    /// Whether the recorder has seen sessions that it cannot list: overwritten in the archive, or only counted.
    pub fn has_forgotten(&self) -> bool {
        self.archive.known() < self.archive.count() || self.unlisted() > 0
    }

    /// Bytes of the compressed blocks in the archive, and the number of sessions in them.
    pub fn archive_fill(&self) -> (u64, u64) {
        self.archive.fill()
    }

    /// Sessions that were not archived when they left the array, such as those of a flood.
    pub fn unlisted(&self) -> u64 {
        self.archive.unlisted()
    }

    /// Sessions begun since the first start, those taken over from previous recorders included.
    pub fn begun(&self) -> u64 {
        self.start_counts.total()
    }

    /// The number of sessions that began in the last `period_ns` before `now`, whether or not they can still be listed.
    /// The returned time is the exact start of the count, which is a little earlier than the period; see `SessionStartCounts`.
    pub fn begun_since(&self, now: Timestamp, period_ns: u64) -> (Timestamp, u64) {
        self.start_counts.since(now, period_ns)
    }

    pub(super) fn start_counts(&self) -> &SessionStartCounts {
        &self.start_counts
    }

    /// The endpoints that were servers.
    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    pub(super) fn archive(&self) -> &SessionArchive {
        &self.archive
    }

    /// The archived session at a location that [`known`](Self::known) returned, if it is still in the archive.
    pub fn past_session(&self, place: ArchivePosition, recent: &BlockCache) -> Option<Session> {
        self.archive.session(place, recent).map(|session| session.with_likely_responder(&self.servers))
    }

    /// Number of entries that were ever used. They are the first ones of the array, which is filled in order.
    pub fn used(&self) -> u32 {
        let (mut used, mut unused) = (0, self.capacity());
        while used < unused {
            let middle = used + (unused - used) / 2;
            match self.entry(SessionSlot(middle)).is_some_and(Entry::in_use) {
                true => used = middle + 1,
                false => unused = middle,
            }
        }
        used
    }

    /// The sessions in the array, in no particular order.
    pub fn sessions(&self) -> impl Iterator<Item = Session> + '_ {
        (0..self.used()).filter_map(|slot| self.session(SessionSlot(slot)))
    }

    /// The current session of a slot.
    pub fn session(&self, slot: SessionSlot) -> Option<Session> {
        self.entry(slot)?.session(slot).map(|session| session.with_likely_responder(&self.servers))
    }

    /// The session of packet `sequence` in this slot, if that session still has the slot.
    pub fn session_at(&self, slot: SessionSlot, sequence: u64) -> Option<Session> {
        self.session(slot).filter(|session| session.first_sequence <= sequence)
    }

    /// Faults in all memory now, so that the packet path takes no page faults.
    pub(crate) fn populate(&self) -> std::io::Result<()> {
        self.words.populate()?;
        self.archive.populate()
    }

    /// Wipes the entries of a range of slots and returns their memory to the system.
    pub(super) fn release(&self, slots: std::ops::Range<u32>) {
        self.words.release(slots.start as usize * ENTRY_WORDS..slots.end as usize * ENTRY_WORDS);
    }

    /// The next `count` entries from `slot` on, fewer at the end of the array.
    pub(super) fn entries_from(&self, slot: u32, count: usize) -> impl Iterator<Item = (u32, Entry<'_>)> {
        let from = slot as usize * ENTRY_WORDS;
        let to = (from + count * ENTRY_WORDS).min(self.words.len());
        let entries = self.words.get(from..to).unwrap_or_default().as_chunks::<ENTRY_WORDS>().0;
        (slot..).zip(entries.iter().map(Entry))
    }

    pub(super) fn entry(&self, slot: SessionSlot) -> Option<Entry<'_>> {
        let from = slot.0 as usize * ENTRY_WORDS;
        self.words.get(from..from + ENTRY_WORDS)?.try_into().ok().map(Entry)
    }
}
