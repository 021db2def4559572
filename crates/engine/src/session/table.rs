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

use super::SessionSlot;
use super::archive::{Archive, Archivist};
use super::fragments::Fragments;
use super::index::Index;
use super::key::{SessionKey, Side};
use super::ledger::{self, ENTRY_BYTES, Entry, Ledger, Session, TCP, flag};
use super::notes::Notes;
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
pub struct Arrival {
    key: SessionKey,
    hash: u64,
    sender: Side,
    protocol: u8,
    tcp_flags: u8,
}

/// What the table says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
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
    pub notes: Notes,
}

/// The writer of a [`Ledger`].
#[derive(Debug)]
pub struct Table {
    ledger: Arc<Ledger>,
    index: Index,
    fragments: Fragments,
    hasher: FixedState,
    archivist: Archivist,
    /// Entries from here on were never used.
    unused: u32,
    /// Where to look for an entry to reuse.
    hand: u32,
    /// Entries whose sessions lost their last packet, each once.
    emptied: VecDeque<u32>,
    /// The time of the latest packet.
    now: Timestamp,
}

impl Table {
    /// Takes `bytes` of memory, all of it now. `seed` keeps who chooses addresses and ports from choosing collisions;
    /// no answer depends on it.
    ///
    /// # Errors
    ///
    /// When the system has not that much to give.
    pub fn new(bytes: u64, seed: u64, lock: Lock) -> std::io::Result<Self> {
        let archive_bytes = bytes * ARCHIVE_PERCENT / 100;
        let capacity = Self::capacity_of(bytes - archive_bytes);
        let ring_bytes = usize::try_from(archive_bytes).unwrap_or(usize::MAX).saturating_sub(Archive::FIXED_BYTES);
        Ok(Self {
            ledger: Arc::new(Ledger::new(capacity, ring_bytes, lock)?),
            index: Index::new(capacity as usize, lock.at_once())?,
            fragments: Fragments::new(seed, lock.at_once())?,
            hasher: FixedState::with_seed(seed),
            archivist: Archivist::new()?,
            unused: 0,
            hand: 0,
            emptied: VecDeque::with_capacity(capacity as usize),
            now: Timestamp::MIN,
        })
    }

    /// Entries that fit into `bytes`.
    fn capacity_of(bytes: u64) -> u32 {
        let bytes = bytes.saturating_sub(Fragments::bytes() as u64);
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
        let slots = self.ledger.capacity() as usize;
        (Index::bytes(slots) + slots * size_of::<u32>() + Fragments::bytes()) as u64
    }

    /// What readers see.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Which session a packet belongs to. Asks memory for its place in the index.
    #[inline]
    pub fn arrival(&mut self, packet: &Packet<'_>, decoded: &mut Decoded) -> Arrival {
        self.fragments.resolve(decoded, packet.interface, packet.time);
        let (key, sender) = SessionKey::new(decoded, packet.interface);
        let hash = self.hash(&key);
        self.index.prefetch(hash);
        Arrival { key, hash, sender, protocol: decoded.protocol, tcp_flags: decoded.tcp_flags }
    }

    /// Whether all sessions there ever were fit into a core's cache.
    #[inline]
    pub fn are_few(&self) -> bool {
        self.unused < CACHED_ENTRIES
    }

    /// A packet will be [observed](Self::observe) soon. Asks memory for the entry of its session.
    pub fn expect_arrival(&self, arrival: &Arrival) {
        match self.index.find(arrival.hash, |_| true).or_else(|| self.emptied.front().copied()) {
            Some(slot) => self.entry(slot).prefetch(),
            None => self.entry(self.hand).prefetch(),
        }
    }

    /// Counts a packet to its session, which begins with it if there is none.
    ///
    /// `sequence` is the packet's place in the order of arrival, and grows with every call.
    #[inline]
    pub fn observe(&mut self, arrival: &Arrival, packet: &Packet<'_>, sequence: u64) -> Observed {
        self.now = packet.time;
        let found = self.index.find(arrival.hash, |slot| self.entry(slot).has_key(&arrival.key));
        let slot = match found {
            Some(slot) if self.goes_on(slot, arrival, packet.time) => slot,
            Some(slot) => {
                self.index.remove(arrival.hash, slot);
                self.begin(arrival, packet.time, sequence)
            }
            None => self.begin(arrival, packet.time, sequence),
        };

        let entry = self.entry(slot);
        let offset = entry.bytes();
        let flags = entry.flags();
        let (by_originator_before, by_responder_before) = (entry.originator_packets(), entry.responder_packets());
        let by_originator = (arrival.sender == Side::High) == (flags & flag::ORIGINATOR_IS_HIGH != 0);
        let told = told(arrival, by_originator);
        entry.count(by_originator, packet.time, u64::from(packet.original_len), flags | told);
        let closing = told & (flag::RST | flag::FIN_ORIGINATOR | flag::FIN_RESPONDER);
        Observed {
            slot: SessionSlot(slot),
            offset,
            closes: closing & !flags != 0,
            begins: by_originator_before + by_responder_before == 0,
            answered: match arrival.protocol {
                TCP => by_originator && by_originator_before == 1 && by_responder_before > 0,
                _ => !by_originator && by_responder_before == 0 && by_originator_before > 0,
            },
            notes: entry.notes(),
        }
    }

    /// The key of the session that has `slot`, and which endpoint spoke first.
    pub fn key(&self, slot: SessionSlot) -> (SessionKey, Side) {
        let entry = self.entry(slot.0);
        let high = entry.flags() & flag::ORIGINATOR_IS_HIGH != 0;
        (entry.key(), if high { Side::High } else { Side::Low })
    }

    /// Writes down what was decided of a session.
    pub fn note(&mut self, slot: SessionSlot, notes: Notes) {
        self.entry(slot.0).set_notes(notes);
    }

    /// What was decided of the session that packet `sequence` of `slot` belongs to, if it still has the slot.
    pub fn notes_at(&self, slot: SessionSlot, sequence: u64) -> Option<Notes> {
        let entry = self.ledger.entry(slot).filter(|entry| entry.first_sequence() <= sequence)?;
        Some(entry.notes())
    }

    /// Lets `decide` write down something else of each session, live or past.
    pub fn note_all(&mut self, mut decide: impl FnMut(&SessionKey, Notes) -> Notes) {
        for slot in 0..self.ledger.capacity() {
            let entry = self.entry(slot);
            if entry.in_use() {
                let notes = entry.notes();
                let decided = decide(&entry.key(), notes);
                if decided != notes {
                    entry.set_notes(decided);
                }
            }
        }
    }

    /// Whether packet `sequence` is the very first of its session.
    pub fn is_first(&self, slot: SessionSlot, sequence: u64) -> bool {
        self.ledger.entry(slot).is_some_and(|entry| entry.first_sequence() == sequence)
    }

    /// Whether packet `sequence` is the very first of its session, and others of it are left.
    pub fn is_first_of_more(&self, slot: SessionSlot, sequence: u64) -> bool {
        self.is_first(slot, sequence) && self.ledger.entry(slot).is_some_and(|entry| entry.kept_packets() > 0)
    }

    /// A packet of this session was kept.
    pub fn kept(&mut self, slot: SessionSlot, captured_bytes: u64) {
        self.entry(slot.0).kept_more(captured_bytes);
    }

    /// A packet of the session that had `slot` will be reported [`evicted`](Self::evicted) soon.
    #[inline]
    pub fn expect(&self, slot: SessionSlot) {
        if let Some(entry) = self.ledger.entry(slot) {
            entry.prefetch_counts();
        }
    }

    /// A packet of the session that had `slot` when packet `sequence` arrived is gone. Whether it was the first of it.
    pub fn evicted(&mut self, slot: SessionSlot, sequence: u64, captured_bytes: u64) -> bool {
        let Some(entry) = self.ledger.entry(slot).filter(|entry| entry.first_sequence() <= sequence) else {
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

    /// Whether packet `sequence`, one of the first of its session, must not go yet: its session lives and is a
    /// conversation, or it is the very first and others are left.
    pub fn needs_start(&self, slot: SessionSlot, sequence: u64, now: Timestamp) -> bool {
        let Some(entry) = self.ledger.entry(slot).filter(|entry| entry.first_sequence() <= sequence) else {
            return false;
        };
        if sequence == entry.first_sequence() && entry.kept_packets() > 0 {
            return true;
        }
        let idle_ns = now.0.saturating_sub(entry.last().0);
        let lives = idle_ns <= ledger::timeout_ns(entry.key().protocol(), entry.flags());
        lives && (entry.responder_packets() > 0 || entry.packets() > 2)
    }

    /// Packet `sequence`, one of the first of its session, is gone. If that was the last one left, what comes begins a
    /// new session: nothing of it could be read without its start.
    pub fn lost_start(&mut self, slot: SessionSlot, sequence: u64) {
        let Some(entry) = self.ledger.entry(slot) else { return };
        if entry.first_sequence() <= sequence && entry.kept_packets() == 0 {
            self.forget(slot.0);
        }
    }

    /// Whether a packet at `time` belongs to the session that has `slot`, or begins a new one.
    fn goes_on(&self, slot: u32, arrival: &Arrival, time: Timestamp) -> bool {
        let entry = self.entry(slot);
        let flags = entry.flags();
        let opens = arrival.protocol == TCP && arrival.tcp_flags & (SYN | ACK | RST) == SYN;
        if opens && ledger::is_over(flags) {
            return false;
        }
        time.0.saturating_sub(entry.last().0) <= ledger::timeout_ns(arrival.protocol, flags)
    }

    fn begin(&mut self, arrival: &Arrival, time: Timestamp, sequence: u64) -> u32 {
        let slot = self.vacate(time);
        // Who answers a SYN did not speak first, though it may be the first that was heard.
        let answers = arrival.protocol == TCP && arrival.tcp_flags & (SYN | ACK) == SYN | ACK;
        let originator = if answers { arrival.sender.other() } else { arrival.sender };
        let flags = if originator == Side::High { flag::ORIGINATOR_IS_HIGH } else { 0 }
            | if arrival.key.protocol() == TCP { flag::TCP } else { 0 };
        self.entry(slot).begin(&arrival.key, time, sequence, flags);
        self.index.insert(arrival.hash, slot);
        slot
    }

    /// Finds an entry for a new session. The one that had it leaves the array.
    pub(super) fn vacate(&mut self, now: Timestamp) -> u32 {
        if self.unused < self.ledger.capacity() {
            self.unused += 1;
            return self.unused - 1;
        }
        let slot = self.next_emptied(now).unwrap_or_else(|| self.least_of_next(now));
        self.forget(slot);
        let (ledger, archivist) = (&*self.ledger, &mut self.archivist);
        if let Some(entry) = ledger.entry(SessionSlot(slot)) {
            if entry.is_unanswered() && entry.notes().climb >= FLOOD_CLIMB {
                Archivist::pass_over(ledger.archive());
            } else {
                archivist.archive(ledger.archive(), entry);
            }
        }
        slot
    }

    /// The first of the emptied entries whose session has ended, or was hardly one.
    fn next_emptied(&mut self, now: Timestamp) -> Option<u32> {
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
    fn least_of_next(&mut self, now: Timestamp) -> u32 {
        let capacity = self.ledger.capacity();
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
    fn forget(&mut self, slot: u32) {
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
        u64::from(self.unused) + self.ledger.past()
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

    pub(super) fn archivist(&mut self) -> &mut Archivist {
        &mut self.archivist
    }

    /// Its session has no packet left.
    pub(super) fn wait_to_be_reused(&mut self, slot: u32) {
        self.emptied.push_back(slot);
    }

    fn entry(&self, slot: u32) -> Entry<'_> {
        match self.ledger.entry(SessionSlot(slot)) {
            Some(entry) => entry,
            None => unreachable!("the index holds slots of the array"),
        }
    }
}

/// What a packet tells of its session's state.
fn told(arrival: &Arrival, by_originator: bool) -> u32 {
    if arrival.protocol != TCP || arrival.tcp_flags & (SYN | FIN | RST) == 0 {
        return 0;
    }
    let mut flags = 0;
    if arrival.tcp_flags & SYN != 0 {
        flags |= if arrival.tcp_flags & ACK != 0 { flag::SYN_ACK } else { flag::SYN };
    }
    if arrival.tcp_flags & FIN != 0 {
        flags |= if by_originator { flag::FIN_ORIGINATOR } else { flag::FIN_RESPONDER };
    }
    if arrival.tcp_flags & RST != 0 {
        flags |= flag::RST;
    }
    flags
}

#[cfg(test)]
mod tests;
