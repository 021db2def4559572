//! Finds the session of each packet, and keeps its counts.
//!
//! The table is as large as it was made, whatever arrives. A new session takes the entry of one that has ended and of
//! which no packet is left; these wait in a queue in the order in which they lost their last one. Where there is none, the
//! next entries of the array are looked at, and the one that counts least goes: an ended session before a live one, an
//! unanswered first packet before a conversation, then the idlest. That is where a flood is stopped: its own entries are the
//! ones that go.
//!
//! What leaves the array goes to the archive, except for the sessions of a flood, which are only counted: it must not wash
//! out the past.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::quality::FixedState;

use super::archive::{ArchiveWriter, SessionArchive};
use super::array::SessionArray;
use super::begins::Begins;
use super::depth::Lost;
use super::entry::{ENTRY_BYTES, Entry};
use super::fragments::Fragments;
use super::index::Index;
use super::key::{SessionKey, Side};
use super::marks::SessionMarks;
use super::summary::SessionSlot;
use super::summary::{self, Session, TCP, flag};
use base::memory::Lock;
use base::packet::Packet;
use base::time::Timestamp;
use decode::Decoded;

/// So many entries, and their part of the index, stay in a core's own cache of half a mebibyte or more.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const CACHED_ENTRIES: u32 = ((256 << 10) / ENTRY_BYTES) as u32;
/// Entries of the array that are looked at to find one to reuse.
const CANDIDATES: u32 = 16;
/// Bytes that an entry costs beside the index: its own, and its place in the queue of emptied ones.
const SLOT_COST_BYTES: u64 = (ENTRY_BYTES + size_of::<u32>()) as u64;
/// Emptied ones that are looked at before.
const EMPTIED_CANDIDATES: usize = 4;
/// An unanswered session whose hosts have begun so many others that it was pushed down this far is of a flood.
const FLOOD_CLIMB: u8 = 4;
/// What of a table's memory the archive gets, in hundredths.
const ARCHIVE_PERCENT: u64 = 45;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// What the table wants to know of a packet.
#[derive(Clone, Copy, Debug)]
pub struct SessionLookup {
    key: SessionKey,
    hash: u64,
    sender: Side,
    protocol: u8,
    tcp_flags: u8,
}

/// What the table says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionUpdate {
    /// Its session.
    pub slot: SessionSlot,
    /// Bytes of the session before it, on the wire.
    pub offset: u64,
    /// Whether it is the first packet by which its sender closes or resets the session.
    pub closes: bool,
    /// Whether the session begins with it.
    pub begins: bool,
    /// Whether it makes the session a conversation: the first answer, for TCP what the originator says to it.
    pub answered: bool,
    /// What was decided of the session.
    pub marks: SessionMarks,
}

/// The writer of a [`SessionArray`].
#[derive(Debug)]
pub struct SessionTable {
    array: Arc<SessionArray>,
    index: Index,
    fragments: Fragments,
    hasher: FixedState,
    archive_writer: ArchiveWriter,
    /// Entries from here on were never used.
    unused: u32,
    /// Where to look for an entry to reuse.
    hand: u32,
    /// Entries whose sessions lost their last packet, each once.
    emptied: VecDeque<u32>,
    /// The time of the latest packet.
    now: Timestamp,
}

impl SessionTable {
    /// Takes `bytes` of memory, all of it now. `seed` keeps who chooses addresses and ports from choosing collisions;
    /// no answer depends on it.
    ///
    /// # Errors
    ///
    /// When the system has not that much to give.
    pub fn new(bytes: u64, seed: u64, lock: Lock) -> std::io::Result<Self> {
        let archive_bytes = bytes * ARCHIVE_PERCENT / 100;
        let capacity = Self::capacity_of(bytes - archive_bytes);
        let ring_bytes =
            usize::try_from(archive_bytes).unwrap_or(usize::MAX).saturating_sub(SessionArchive::FIXED_BYTES);
        Ok(Self {
            array: Arc::new(SessionArray::new(capacity, ring_bytes, lock)?),
            index: Index::new(capacity as usize, lock.at_once())?,
            fragments: Fragments::new(seed, lock.at_once())?,
            hasher: FixedState::with_seed(seed),
            archive_writer: ArchiveWriter::new()?,
            unused: 0,
            hand: 0,
            emptied: VecDeque::with_capacity(capacity as usize),
            now: Timestamp::MIN,
        })
    }

    /// Entries that fit into `bytes`.
    fn capacity_of(bytes: u64) -> u32 {
        let bytes = bytes.saturating_sub((Fragments::bytes() + Begins::BYTES) as u64);
        let fits = |slots: u64| {
            let index = usize::try_from(slots).map_or(u64::MAX, |slots| Index::bytes(slots) as u64);
            slots.saturating_mul(SLOT_COST_BYTES).saturating_add(index) <= bytes
        };
        // The index doubles at powers of two, so look for the largest number that fits from above.
        let mut slots = (bytes / SLOT_COST_BYTES).min(u64::from(u32::MAX / 2));
        while slots > 64 && !fits(slots) {
            slots -= (slots / 64).max(1);
        }
        u32::try_from(slots.max(64)).unwrap_or(u32::MAX / 2)
    }

    /// Bytes of the index, the queue of emptied entries and the fragments, beside the array itself.
    pub fn index_bytes(&self) -> u64 {
        let slots = self.array.capacity() as usize;
        (Index::bytes(slots) + slots * size_of::<u32>() + Fragments::bytes() + Begins::BYTES) as u64
    }

    /// What readers see.
    pub fn array(&self) -> Arc<SessionArray> {
        Arc::clone(&self.array)
    }

    /// Which session a packet belongs to. Asks memory for its place in the index.
    #[inline]
    pub fn look_up(&mut self, packet: &Packet<'_>, decoded: &mut Decoded) -> SessionLookup {
        self.fragments.resolve(decoded, packet.interface, packet.time);
        let (key, sender) = SessionKey::new(decoded, packet.interface);
        let hash = self.hash(&key);
        self.index.prefetch(hash);
        SessionLookup { key, hash, sender, protocol: decoded.protocol, tcp_flags: decoded.tcp_flags }
    }

    /// Whether all sessions there ever were fit into a core's cache.
    #[inline]
    pub fn are_few(&self) -> bool {
        self.unused < CACHED_ENTRIES
    }

    /// A packet will be [update](Self::count) soon. Asks memory for the entry of its session.
    pub fn prefetch_entry(&self, lookup: &SessionLookup) {
        match self.index.find(lookup.hash, |_| true).or_else(|| self.emptied.front().copied()) {
            Some(slot) => self.entry(slot).prefetch(),
            None => self.entry(self.hand).prefetch(),
        }
    }

    /// Counts a packet to its session, which begins with it if there is none.
    ///
    /// `sequence` is the packet's place in the order of lookup, and grows with every call.
    #[inline]
    pub fn count(&mut self, lookup: &SessionLookup, packet: &Packet<'_>, sequence: u64) -> SessionUpdate {
        self.now = packet.time;
        let found = self.index.find(lookup.hash, |slot| self.entry(slot).has_key(&lookup.key));
        let slot = match found {
            Some(slot) if self.continues(slot, lookup, packet.time) => slot,
            Some(slot) => {
                self.index.remove(lookup.hash, slot);
                self.begin(lookup, packet.time, sequence)
            }
            None => self.begin(lookup, packet.time, sequence),
        };

        let entry = self.entry(slot);
        let offset = entry.bytes();
        entry.note_depth(offset, sequence);
        let flags = entry.flags();
        let (by_originator_before, by_responder_before) = (entry.originator_packets(), entry.responder_packets());
        let by_originator = (lookup.sender == Side::High) == (flags & flag::ORIGINATOR_IS_HIGH != 0);
        let seen = state_flags(lookup, by_originator);
        entry.count(by_originator, packet.time, u64::from(packet.original_len), flags | seen);
        let closing = seen & (flag::RST | flag::FIN_ORIGINATOR | flag::FIN_RESPONDER);
        SessionUpdate {
            slot: SessionSlot(slot),
            offset,
            closes: closing & !flags != 0,
            begins: by_originator_before + by_responder_before == 0,
            answered: match lookup.protocol {
                TCP => by_originator && by_originator_before == 1 && by_responder_before > 0,
                _ => !by_originator && by_responder_before == 0 && by_originator_before > 0,
            },
            marks: entry.marks(),
        }
    }

    /// The key of the session that has `slot`, and which endpoint spoke first.
    pub fn key(&self, slot: SessionSlot) -> (SessionKey, Side) {
        let entry = self.entry(slot.0);
        let high = entry.flags() & flag::ORIGINATOR_IS_HIGH != 0;
        (entry.key(), if high { Side::High } else { Side::Low })
    }

    /// Writes down what was decided of a session.
    pub fn set_marks(&mut self, slot: SessionSlot, marks: SessionMarks) {
        self.entry(slot.0).set_marks(marks);
    }

    /// What was decided of the session that packet `sequence` of `slot` belongs to, if it still has the slot.
    pub fn marks_at(&self, slot: SessionSlot, sequence: u64) -> Option<SessionMarks> {
        let entry = self.array.entry(slot).filter(|entry| entry.first_sequence() <= sequence)?;
        Some(entry.marks())
    }

    /// Lets `decide` write down something else of each session, live or past.
    pub fn update_marks(&mut self, mut decide: impl FnMut(&SessionKey, SessionMarks) -> SessionMarks) {
        for slot in 0..self.array.capacity() {
            let entry = self.entry(slot);
            if entry.in_use() {
                let marks = entry.marks();
                let decided = decide(&entry.key(), marks);
                if decided != marks {
                    entry.set_marks(decided);
                }
            }
        }
    }

    /// Whether packet `sequence` is the very first of its session.
    pub fn is_first(&self, slot: SessionSlot, sequence: u64) -> bool {
        self.array.entry(slot).is_some_and(|entry| entry.first_sequence() == sequence)
    }

    /// Whether packet `sequence` is the very first of its session, and others of it are left.
    pub fn is_first_of_more(&self, slot: SessionSlot, sequence: u64) -> bool {
        self.is_first(slot, sequence) && self.array.entry(slot).is_some_and(|entry| entry.kept_packets() > 0)
    }

    /// A packet of this session was kept.
    pub fn packet_kept(&mut self, slot: SessionSlot, captured_bytes: u64) {
        self.entry(slot.0).kept_more(captured_bytes);
    }

    /// A packet of this session, with `offset` bytes of it before, was not kept.
    pub fn packet_dropped(&mut self, slot: SessionSlot, offset: u64) {
        self.entry(slot.0).lose(Lost::at(offset));
    }

    /// A packet of the session that had `slot` will be reported [`evicted`](Self::packet_evicted) soon.
    #[inline]
    pub fn prefetch_counts(&self, slot: SessionSlot) {
        if let Some(entry) = self.array.entry(slot) {
            entry.prefetch_counts();
        }
    }

    /// A packet of the session that had `slot` when packet `sequence` arrived is gone. Whether it was the first of it.
    pub fn packet_evicted(&mut self, slot: SessionSlot, sequence: u64, captured_bytes: u64) -> bool {
        let Some(entry) = self.array.entry(slot).filter(|entry| entry.first_sequence() <= sequence) else {
            return false;
        };
        let first = entry.first_sequence() == sequence;
        entry.kept_less(captured_bytes, self.now);
        if entry.kept_packets() == 0 && !entry.is_queued() {
            entry.set_queued(true);
            self.emptied.push_back(slot.0);
        }
        first
    }

    /// Packet `sequence`, which was reported [`packet_evicted`](Self::packet_evicted), is not carried forward: what was
    /// lost of its session's start is noted.
    pub fn packet_lost(&mut self, slot: SessionSlot, sequence: u64) {
        if let Some(entry) = self.array.entry(slot).filter(|entry| entry.first_sequence() <= sequence) {
            entry.lose(entry.loss_of(sequence));
        }
    }

    /// Whether packet `sequence`, one of the first of its session, must not go yet: its session lives and is a
    /// conversation, or it is the very first and others are left.
    pub fn needs_start(&self, slot: SessionSlot, sequence: u64, now: Timestamp) -> bool {
        let Some(entry) = self.array.entry(slot).filter(|entry| entry.first_sequence() <= sequence) else {
            return false;
        };
        if sequence == entry.first_sequence() && entry.kept_packets() > 0 {
            return true;
        }
        let idle_ns = now.0.saturating_sub(entry.last().0);
        let lives = idle_ns <= summary::timeout_ns(entry.key().protocol(), entry.flags());
        lives && (entry.responder_packets() > 0 || entry.packets() > 2)
    }

    /// Packet `sequence`, one of the first of its session, is gone. If that was the last one left, what comes begins a
    /// new session: nothing of it could be read without its start.
    pub fn lost_start(&mut self, slot: SessionSlot, sequence: u64) {
        let Some(entry) = self.array.entry(slot) else { return };
        if entry.first_sequence() <= sequence && entry.kept_packets() == 0 {
            self.remove_from_index(slot.0);
        }
    }

    /// Whether a packet at `time` belongs to the session that has `slot`, or begins a new one.
    fn continues(&self, slot: u32, lookup: &SessionLookup, time: Timestamp) -> bool {
        let entry = self.entry(slot);
        let flags = entry.flags();
        let opens = lookup.protocol == TCP && lookup.tcp_flags & (SYN | ACK | RST) == SYN;
        if opens && summary::is_over(flags) {
            return false;
        }
        time.0.saturating_sub(entry.last().0) <= summary::timeout_ns(lookup.protocol, flags)
    }

    fn begin(&mut self, lookup: &SessionLookup, time: Timestamp, sequence: u64) -> u32 {
        let slot = self.claim_slot(time);
        // Who answers a SYN did not speak first, though it may be the first that was heard.
        let answers = lookup.protocol == TCP && lookup.tcp_flags & (SYN | ACK) == SYN | ACK;
        let originator = if answers { lookup.sender.other() } else { lookup.sender };
        let flags = if originator == Side::High { flag::ORIGINATOR_IS_HIGH } else { 0 }
            | if lookup.key.protocol() == TCP { flag::TCP } else { 0 };
        self.entry(slot).begin(&lookup.key, time, sequence, flags);
        self.array.begins().count(time);
        self.index.insert(lookup.hash, slot);
        slot
    }

    /// Finds an entry for a new session. The one that had it leaves the array.
    pub(super) fn claim_slot(&mut self, now: Timestamp) -> u32 {
        if self.unused < self.array.capacity() {
            self.unused += 1;
            return self.unused - 1;
        }
        let slot = self.next_empty(now).unwrap_or_else(|| self.least_valuable_candidate(now));
        self.remove_from_index(slot);
        let (array, archive_writer) = (&*self.array, &mut self.archive_writer);
        if let Some(entry) = array.entry(SessionSlot(slot)) {
            if entry.is_unanswered() && entry.marks().climb >= FLOOD_CLIMB {
                ArchiveWriter::pass_over(array.archive());
            } else {
                archive_writer.archive(array.archive(), entry);
            }
        }
        slot
    }

    /// The first of the emptied entries whose session has ended, or was hardly one.
    fn next_empty(&mut self, now: Timestamp) -> Option<u32> {
        for _ in 0..EMPTIED_CANDIDATES.min(self.emptied.len()) {
            let slot = self.emptied.pop_front()?;
            let entry = self.entry(slot);
            if entry.kept_packets() == 0 && !entry.ended(now) && !entry.is_unanswered() {
                self.emptied.push_back(slot);
                continue;
            }
            entry.set_queued(false);
            if entry.kept_packets() == 0 {
                return Some(slot);
            }
        }
        None
    }

    /// That of the next entries of the array which counts least.
    fn least_valuable_candidate(&mut self, now: Timestamp) -> u32 {
        let capacity = self.array.capacity();
        let rating = |entry: Entry<'_>| {
            let idle_ns = now.0.saturating_sub(entry.last().0);
            (entry.ended(now), entry.is_unanswered(), idle_ns)
        };
        let next = (0..CANDIDATES).map(|i| (self.hand + i) % capacity);
        let least = next.max_by_key(|&slot| rating(self.entry(slot))).unwrap_or(self.hand);
        self.hand = (least + 1) % capacity;
        least
    }

    /// Takes a session out of the index; its entry stays until it is given away.
    fn remove_from_index(&mut self, slot: u32) {
        let hash = self.hash(&self.entry(slot).key());
        self.index.remove(hash, slot);
    }

    #[inline]
    pub(super) fn hash(&self, key: &SessionKey) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for word in key.0 {
            hasher.write_u64(word);
        }
        hasher.finish()
    }

    /// The time of the latest packet.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Sessions in the array and of the past.
    pub(crate) fn known_sessions(&self) -> u64 {
        u64::from(self.unused) + self.array.past()
    }

    /// There was a packet of this time.
    pub(super) fn advance(&mut self, to: Timestamp) {
        self.now = self.now.max(to);
    }

    /// Entries that were ever used, which are the first ones of the array.
    pub(super) fn used(&self) -> u32 {
        self.unused
    }

    /// The session of an entry, and whether packets of it are still counted to it.
    pub(super) fn known(&self, slot: u32) -> (Session, bool) {
        let session = self.entry(slot).read(SessionSlot(slot));
        (session, self.index.has(self.hash(&session.key), slot))
    }

    /// The entry to which packets with this key are counted.
    pub(super) fn find(&self, hash: u64, key: &SessionKey) -> Option<u32> {
        self.index.find(hash, |slot| self.entry(slot).has_key(key))
    }

    pub(super) fn index(&mut self) -> &mut Index {
        &mut self.index
    }

    pub(super) fn archive_writer(&mut self) -> &mut ArchiveWriter {
        &mut self.archive_writer
    }

    /// Its session has no packet left.
    pub(super) fn queue_for_reuse(&mut self, slot: u32) {
        self.emptied.push_back(slot);
    }

    fn entry(&self, slot: u32) -> Entry<'_> {
        match self.array.entry(SessionSlot(slot)) {
            Some(entry) => entry,
            None => unreachable!("the index holds slots of the array"),
        }
    }
}

/// What a packet tells of its session's state.
fn state_flags(lookup: &SessionLookup, by_originator: bool) -> u32 {
    if lookup.protocol != TCP || lookup.tcp_flags & (SYN | FIN | RST) == 0 {
        return 0;
    }
    let mut flags = 0;
    if lookup.tcp_flags & SYN != 0 {
        flags |= if lookup.tcp_flags & ACK != 0 { flag::SYN_ACK } else { flag::SYN };
    }
    if lookup.tcp_flags & FIN != 0 {
        flags |= if by_originator { flag::FIN_ORIGINATOR } else { flag::FIN_RESPONDER };
    }
    if lookup.tcp_flags & RST != 0 {
        flags |= flag::RST;
    }
    flags
}

#[cfg(test)]
mod tests;
