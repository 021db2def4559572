//! Finds the session of each packet and keeps its counts.
//!
//! The table has a fixed size. A new session takes over the entry of another one; `reuse` selects it.
//!
//! Sessions that leave the array go to the archive. Unanswered sessions of a large flood are only counted, so that such
//! a flood cannot evict the archive.

use std::sync::Arc;

use super::archive::{ArchiveWriter, SessionArchive};
use super::array::SessionArray;
use super::depth::LostParts;
use super::detached::Detached;
use super::entry::{CountedPacket, ENTRY_BYTES, Entry};
use super::fragments::Fragments;
use super::hash::KeyHasher;
use super::index::Index;
use super::key::{Ends, SessionKey, Side};
use super::marks::SessionMarks;
use super::reuse::EntryReuse;
use super::servers::Servers;
use super::services::{UDP, is_service};
use super::start_counts::SessionStartCounts;
use super::summary::SessionSlot;
use super::summary::{self, Session, TCP, flag};
use super::tcp;
use base::memory::Lock;
use base::packet::Packet;
use base::time::Timestamp;
use decode::Decoded;

/// This many entries and their part of the index stay in a core's private cache of 512 KiB or more.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const CACHED_ENTRIES: u32 = ((256 << 10) / ENTRY_BYTES) as u32;
/// Bytes per entry without the index: the entry itself and its place in the queue for reuse.
const SLOT_COST_BYTES: u64 = (ENTRY_BYTES + EntryReuse::SLOT_COST_BYTES) as u64;
/// The share of a table's memory for the ring of the archive, in percent. The archive's fixed memory comes on top.
const ARCHIVE_PERCENT: u64 = 12;

/// A packet's session key and its hash, from [`SessionTable::look_up`] for [`SessionTable::count`].
#[derive(Clone, Copy, Debug)]
pub struct SessionLookup {
    key: SessionKey,
    hash: u64,
    sender: Side,
    protocol: u8,
    tcp_flags: u8,
}

/// The result of counting a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionUpdate {
    /// The packet's session.
    pub slot: SessionSlot,
    /// Bytes of the session on the wire before this packet.
    pub offset: u64,
    /// The packet's depth in its session, in bytes: at most `offset`, and less in a session with little recent traffic.
    pub depth: u64,
    /// Whether the packet carries the first RST, or its sender's first FIN.
    pub closes: bool,
    /// Whether the session begins with this packet.
    pub begins: bool,
    /// Whether the packet makes the session a conversation: the responder's first packet, or, for TCP, the originator's
    /// second packet if the responder has already sent one.
    pub answered: bool,
    /// The session's marks.
    pub marks: SessionMarks,
}

/// The writer of a [`SessionArray`].
#[derive(Debug)]
pub struct SessionTable {
    array: Arc<SessionArray>,
    index: Index,
    fragments: Fragments,
    hasher: KeyHasher,
    archive_writer: ArchiveWriter,
    /// The first entry that was never used.
    unused: u32,
    reuse: EntryReuse,
    detached: Detached,
    /// The time of the latest packet.
    now: Timestamp,
}

impl SessionTable {
    /// Makes a table and allocates its memory: at most `bytes`, except for values below 2 MiB, where the archive's
    /// minimum exceeds its share. `seed` makes hash collisions unpredictable for senders who choose addresses and
    /// ports; no result depends on it.
    ///
    /// # Errors
    ///
    /// If the system cannot provide the memory.
    pub fn new(bytes: u64, seed: u64, lock: Lock) -> std::io::Result<Self> {
        let ring_bytes = usize::try_from(bytes * ARCHIVE_PERCENT / 100).unwrap_or(usize::MAX);
        let ring_bytes = ring_bytes.max(SessionArchive::RING_BYTES_MIN);
        let archive_bytes = (SessionArchive::FIXED_BYTES + ring_bytes) as u64;
        let capacity = Self::capacity_of(bytes.saturating_sub(archive_bytes).max(bytes / 2));
        Ok(Self {
            array: Arc::new(SessionArray::new(capacity, ring_bytes, seed, lock)?),
            index: Index::new(capacity as usize, lock.at_once())?,
            fragments: Fragments::new(seed, lock.at_once())?,
            hasher: KeyHasher::new(seed),
            archive_writer: ArchiveWriter::new()?,
            unused: 0,
            reuse: EntryReuse::new(capacity),
            detached: Detached::new(capacity as usize),
            now: Timestamp::MIN,
        })
    }

    /// Number of entries that fit into `bytes`, at least 64.
    fn capacity_of(bytes: u64) -> u32 {
        let bytes = bytes.saturating_sub((Fragments::bytes() + SessionStartCounts::BYTES + Servers::BYTES) as u64);
        let fits = |slots: u64| {
            let others = |slots| (Index::bytes(slots) + Detached::bytes(slots)) as u64;
            let others = usize::try_from(slots).map_or(u64::MAX, others);
            slots.saturating_mul(SLOT_COST_BYTES).saturating_add(others) <= bytes
        };
        // The index doubles in size at powers of two, so search downwards for the largest number that fits.
        let mut slots = (bytes / SLOT_COST_BYTES).min(u64::from(u32::MAX / 2));
        while slots > 64 && !fits(slots) {
            slots -= (slots / 64).max(1);
        }
        u32::try_from(slots.max(64)).unwrap_or(u32::MAX / 2)
    }

    /// Bytes of the index, the queue for reuse, the notes of sessions without an entry, the fragments, the counts of
    /// session starts and the known servers.
    pub fn index_bytes(&self) -> u64 {
        let slots = self.array.capacity() as usize;
        let of_slots = Index::bytes(slots) + slots * EntryReuse::SLOT_COST_BYTES + Detached::bytes(slots);
        (of_slots + Fragments::bytes() + SessionStartCounts::BYTES + Servers::BYTES) as u64
    }

    /// Sessions that lost their first packet while others of their packets stayed, and sessions of which it is not known
    /// because they lost their entry and could not be noted.
    pub fn headless(&self) -> (u64, u64) {
        self.detached.counts()
    }

    /// The array, shared with readers.
    pub fn array(&self) -> Arc<SessionArray> {
        Arc::clone(&self.array)
    }

    /// Finds the key of a packet's session and prefetches its place in the index. Completes `decoded` for later
    /// fragments.
    #[inline]
    pub fn look_up(&mut self, packet: &Packet<'_>, decoded: &mut Decoded) -> SessionLookup {
        self.fragments.resolve(decoded, packet.interface, packet.time);
        let (key, sender) = SessionKey::new(decoded, packet.interface);
        let hash = self.hash(&key);
        self.index.prefetch(hash);
        SessionLookup { key, hash, sender, protocol: decoded.protocol, tcp_flags: decoded.tcp_flags }
    }

    /// Whether the used entries fit into a core's cache, so that prefetching is not worth its cost.
    #[inline]
    pub fn are_few(&self) -> bool {
        self.unused < CACHED_ENTRIES
    }

    /// Prefetches the entry of a packet that will soon be [counted](Self::count).
    pub fn prefetch_entry(&self, lookup: &SessionLookup) {
        if let Some(slot) = self.index.find(lookup.hash, |_| true) {
            self.entry(slot).prefetch();
        }
    }

    /// Counts a packet for its session, as stored, and begins a session if there is none. Call
    /// [`packet_dropped`](Self::packet_dropped) if it is not stored after all.
    ///
    /// `sequence` numbers packets in the order of lookup and grows with every call.
    #[inline]
    pub fn count(&mut self, lookup: &SessionLookup, packet: &Packet<'_>, sequence: u64) -> SessionUpdate {
        self.now = packet.time;
        let array = &*self.array;
        let found = self.index.find_map(lookup.hash, |slot| {
            array.entry(SessionSlot(slot)).filter(|entry| entry.has_key(&lookup.key)).map(|entry| (slot, entry))
        });
        let (slot, entry) = match found {
            Some((slot, entry)) if continues(entry, lookup, packet.time) => (slot, entry),
            other => return self.begin(lookup, packet, sequence, other.map(|(slot, _)| slot)),
        };
        let before = entry.before(packet.time);
        entry.note_depth(before.offset, sequence);
        let flags = before.flags();
        let by_originator = (lookup.sender == Side::High) == (flags & flag::ORIGINATOR_IS_HIGH != 0);
        let seen = tcp::state_flags(lookup.protocol, lookup.tcp_flags, by_originator);
        entry.count(&before, by_originator, &CountedPacket::of(packet), seen);
        let closing = seen & (flag::RST | flag::FIN_ORIGINATOR | flag::FIN_RESPONDER);
        let answered = match lookup.protocol {
            TCP => by_originator && before.originator_packets() == 1 && before.responder_packets() > 0,
            _ => !by_originator && before.responder_packets() == 0 && before.originator_packets() > 0,
        };
        if seen & flag::SYN_ACK != 0 || (answered && lookup.protocol == UDP) {
            self.note_server(lookup);
        }
        SessionUpdate {
            slot: SessionSlot(slot),
            offset: before.offset,
            depth: before.depth(),
            closes: closing & !flags != 0,
            begins: false,
            answered,
            marks: before.marks(),
        }
    }

    /// Counts the sender of an answer as a server, unless the other side has the port of a service.
    #[inline(never)]
    fn note_server(&self, lookup: &SessionLookup) {
        let (key, server) = (&lookup.key, lookup.sender);
        if lookup.protocol == TCP || !is_service(key.port(server.other())) {
            self.array.servers().note(key.address(server), key.port(server), lookup.protocol);
        }
    }

    /// The key of the session in `slot`.
    pub fn key(&self, slot: SessionSlot) -> SessionKey {
        self.entry(slot.0).key()
    }

    /// The addresses of the session in `slot`.
    #[inline]
    pub fn ends(&self, slot: SessionSlot) -> Ends {
        let entry = self.entry(slot.0);
        let high = entry.flags() & flag::ORIGINATOR_IS_HIGH != 0;
        entry.key().ends(if high { Side::High } else { Side::Low })
    }

    /// Replaces the marks of a session.
    pub fn set_marks(&mut self, slot: SessionSlot, marks: SessionMarks) {
        self.entry(slot.0).set_marks(marks);
    }

    /// The marks of the session of packet `sequence`, if that session still has `slot`.
    pub fn marks_at(&self, slot: SessionSlot, sequence: u64) -> Option<SessionMarks> {
        let entry = self.array.entry(slot).filter(|entry| entry.first_sequence() <= sequence)?;
        Some(entry.marks())
    }

    /// Replaces the marks of every session in the array by what `decide` returns. `decide` gets the slot of the session,
    /// the sequence number of its first packet, its key and its marks.
    pub fn update_marks(
        &mut self,
        mut decide: impl FnMut(SessionSlot, u64, &SessionKey, SessionMarks) -> SessionMarks,
    ) {
        for slot in 0..self.array.capacity() {
            let entry = self.entry(slot);
            if entry.in_use() {
                let marks = entry.marks();
                let decided = decide(SessionSlot(slot), entry.first_sequence(), &entry.key(), marks);
                if decided != marks {
                    entry.set_marks(decided);
                }
            }
        }
    }

    /// Whether packet `sequence` is the first of a session that has an entry.
    pub fn is_first(&self, slot: SessionSlot, sequence: u64) -> bool {
        self.array.entry(slot).is_some_and(|entry| entry.first_sequence() == sequence)
    }

    /// Whether packet `sequence` is the first of its session, and the session has stored packets.
    pub fn is_first_of_more(&self, slot: SessionSlot, sequence: u64) -> bool {
        self.is_first(slot, sequence) && self.array.entry(slot).is_some_and(|entry| entry.kept_packets() > 0)
    }

    /// Whether packet `sequence` is the first of a session that has lost its entry and has stored packets: returns the
    /// flood of the session.
    pub fn first_of_more_detached(&mut self, slot: SessionSlot, sequence: u64) -> Option<u8> {
        self.detached.first_of_more(slot.0, sequence)
    }

    /// Counts packet `sequence` as stored again.
    pub fn packet_kept(&mut self, slot: SessionSlot, sequence: u64, captured_bytes: u64) {
        match self.array.entry(slot).filter(|entry| entry.first_sequence() <= sequence) {
            Some(entry) => {
                if entry.kept_packets() == 0 && entry.has_lost_first() {
                    self.detached.count_headless();
                }
                entry.kept_more(captured_bytes);
            }
            None => self.detached.packet_kept(slot.0, sequence),
        }
    }

    /// Records that a packet after `offset` bytes of this session, which was [counted](Self::count) as stored, was not.
    pub fn packet_dropped(&mut self, slot: SessionSlot, offset: u64, captured_bytes: u64) {
        let entry = self.entry(slot.0);
        entry.not_kept(captured_bytes);
        entry.lose(LostParts::at(offset));
    }

    /// Prefetches the counts of a session, of which a packet will soon be [evicted](Self::packet_evicted).
    #[inline]
    pub fn prefetch_counts(&self, slot: SessionSlot) {
        if let Some(entry) = self.array.entry(slot) {
            entry.prefetch_counts();
        }
    }

    /// Counts the eviction of packet `sequence`. The packet is lost, unless it
    /// `may_survive` or is the first of its session. Returns whether that has to be decided, and then recorded by
    /// [`packet_lost`](Self::packet_lost).
    #[inline]
    pub fn packet_evicted(&mut self, slot: SessionSlot, sequence: u64, captured_bytes: u64, may_survive: bool) -> bool {
        let Some(entry) = self.array.entry(slot).filter(|entry| entry.first_sequence() <= sequence) else {
            return self.detached.packet_evicted(slot.0, sequence);
        };
        let is_open = may_survive || entry.first_sequence() == sequence;
        let lost = if is_open { LostParts::NONE } else { entry.loss_of(sequence) };
        if entry.kept_less(captured_bytes, self.now, lost) == 0 {
            if !entry.is_queued() {
                entry.set_queued(true);
                self.reuse.push(slot.0);
            }
            if !is_open && entry.has_lost_first() {
                self.remove_from_index(slot.0);
            }
        }
        is_open
    }

    /// Whether packet `sequence`, one of the first of its session, must stay: it is the first and others are stored, or
    /// the session is live, a conversation, and has its first packet, without which the others could not be read.
    pub fn needs_start(&self, slot: SessionSlot, sequence: u64, now: Timestamp) -> bool {
        let Some(entry) = self.array.entry(slot).filter(|entry| entry.first_sequence() <= sequence) else {
            return false;
        };
        let is_first_of_more = sequence == entry.first_sequence() && entry.kept_packets() > 0;
        is_first_of_more || (!entry.has_lost_first() && entry.is_live_conversation(now))
    }

    /// Records the loss of packet `sequence`, which [`packet_evicted`](Self::packet_evicted) has counted and which is
    /// not carried forward. If the session has lost its first packet and has no packet left, later ones begin a new
    /// session, as they could not be read without the start. If this was its first packet and others are left, the
    /// session is headless.
    pub fn packet_lost(&mut self, slot: SessionSlot, sequence: u64) {
        let Some(entry) = self.array.entry(slot) else { return };
        let first_sequence = entry.first_sequence();
        if first_sequence > sequence {
            if self.detached.first_of_more(slot.0, sequence).is_some() {
                self.detached.count_headless();
            }
            return;
        }
        entry.lose(entry.loss_of(sequence));
        if entry.kept_packets() > 0 {
            if first_sequence == sequence {
                self.detached.count_headless();
            }
        } else if entry.has_lost_first() {
            self.remove_from_index(slot.0);
        }
    }

    /// Begins a session with its first packet. `ended` is the entry of the session that had the same key before.
    #[inline(never)]
    fn begin(
        &mut self,
        lookup: &SessionLookup,
        packet: &Packet<'_>,
        sequence: u64,
        ended: Option<u32>,
    ) -> SessionUpdate {
        if let Some(ended) = ended {
            self.index.remove(lookup.hash, ended);
        }
        let slot = self.claim_slot(packet.time, sequence);
        // A SYN-ACK comes from the responder, even if it is the first packet seen.
        let answers = lookup.protocol == TCP && tcp::accepts(lookup.tcp_flags);
        let originator = if answers { lookup.sender.other() } else { lookup.sender };
        let sides = if originator == Side::High { flag::ORIGINATOR_IS_HIGH } else { 0 };
        let protocol = if lookup.key.protocol() == TCP { flag::TCP } else { 0 };
        let seen = tcp::state_flags(lookup.protocol, lookup.tcp_flags, !answers);
        self.entry(slot).begin(&lookup.key, sequence, !answers, &CountedPacket::of(packet), sides | protocol | seen);
        self.array.start_counts().count(packet.time);
        self.index.insert(lookup.hash, slot);
        if answers {
            self.note_server(lookup);
        }
        SessionUpdate {
            slot: SessionSlot(slot),
            offset: 0,
            depth: 0,
            closes: seen & (flag::RST | flag::FIN_ORIGINATOR | flag::FIN_RESPONDER) != 0,
            begins: true,
            answered: false,
            marks: SessionMarks::default(),
        }
    }

    /// Finds an entry for a session that begins with packet `sequence`, and archives or counts the session that had it.
    pub(super) fn claim_slot(&mut self, now: Timestamp, sequence: u64) -> u32 {
        if self.unused < self.array.capacity() {
            self.unused += 1;
            return self.unused - 1;
        }
        let (hasher, index) = (&self.hasher, &self.index);
        let (slot, hash) = self.reuse.next(&self.array, now, |key| {
            let hash = hasher.hash(key);
            index.prefetch(hash);
            hash
        });
        self.index.remove(hash, slot);
        let (array, archive_writer) = (&*self.array, &mut self.archive_writer);
        if let Some(entry) = array.entry(SessionSlot(slot)) {
            let kept = entry.kept_packets();
            if kept > 1 {
                self.detached.add(slot, entry.first_sequence(), sequence, kept, entry.marks().kept_with());
            }
            if entry.is_unanswered() && entry.marks().storm {
                ArchiveWriter::pass_over(array.archive());
            } else {
                archive_writer.archive(array.archive(), SessionSlot(slot), entry);
            }
        }
        slot
    }

    /// Removes a session from the index. Its entry stays until it is reused.
    fn remove_from_index(&mut self, slot: u32) {
        let hash = self.hash(&self.entry(slot).key());
        self.index.remove(hash, slot);
    }

    #[inline]
    pub(super) fn hash(&self, key: &SessionKey) -> u64 {
        self.hasher.hash(key)
    }

    /// The time of the latest packet.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Number of sessions in the array and the archive.
    pub(crate) fn known_sessions(&self) -> u64 {
        u64::from(self.unused) + self.array.past()
    }

    /// Moves the time of the latest packet forward to `to`.
    pub(super) fn advance(&mut self, to: Timestamp) {
        self.now = self.now.max(to);
    }

    /// Number of entries that were ever used. They are the first ones of the array.
    pub(super) fn used(&self) -> u32 {
        self.unused
    }

    /// The session of an entry, and whether further packets are counted for it.
    pub(super) fn known(&self, slot: u32) -> (Session, bool) {
        let session = self.entry(slot).read(SessionSlot(slot));
        (session, self.index.has(self.hash(&session.key), slot))
    }

    /// The entry of the session that has this key.
    pub(super) fn find(&self, hash: u64, key: &SessionKey) -> Option<u32> {
        self.index.find(hash, |slot| self.entry(slot).has_key(key))
    }

    pub(super) fn index(&mut self) -> &mut Index {
        &mut self.index
    }

    pub(super) fn archive_writer(&mut self) -> &mut ArchiveWriter {
        &mut self.archive_writer
    }

    /// Queues an entry whose session has no stored packet.
    pub(super) fn queue_for_reuse(&mut self, slot: u32) {
        self.reuse.push(slot);
    }

    fn entry(&self, slot: u32) -> Entry<'_> {
        match self.array.entry(SessionSlot(slot)) {
            Some(entry) => entry,
            None => unreachable!("the index holds slots of the array"),
        }
    }
}

/// Whether a packet at `time` continues the session of an entry.
#[inline]
fn continues(entry: Entry<'_>, lookup: &SessionLookup, time: Timestamp) -> bool {
    let flags = entry.flags();
    let opens = lookup.protocol == TCP && tcp::opens(lookup.tcp_flags);
    if opens && summary::is_over(flags) {
        return false;
    }
    time.0.saturating_sub(entry.last().0) <= summary::timeout_ns(lookup.protocol, flags)
}

#[cfg(test)]
mod tests;
