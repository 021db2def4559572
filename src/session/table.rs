//! Finds the session of each packet, and keeps its counts.
//!
//! The table is as large as it was made, whatever arrives. A new session takes the next entry of the array whose
//! session has ended; while all the next ones are live, the one of them that counts least goes: an unanswered first
//! packet before a conversation, then the idlest. That is where a flood is stopped: its own entries are the ones that go.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::quality::FixedState;

use super::SessionSlot;
use super::fragments::Fragments;
use super::index::Index;
use super::key::{SessionKey, Side};
use super::ledger::{self, ENTRY_BYTES, Entry, Ledger, TCP, flag};
use super::notes::Notes;
use crate::decode::Decoded;
use crate::memory::Lock;
use crate::packet::Packet;
use crate::time::Timestamp;

/// Entries that are looked at to find one to reuse.
const CANDIDATES: u32 = 16;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

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
    hand: u32,
}

impl Table {
    /// Takes `bytes` of memory, all of it now. `seed` keeps who chooses addresses and ports from choosing collisions;
    /// no answer depends on it.
    ///
    /// # Errors
    ///
    /// When the system has not that much to give.
    pub fn new(bytes: u64, seed: u64, lock: Lock) -> std::io::Result<Self> {
        let capacity = Self::capacity_of(bytes);
        Ok(Self {
            ledger: Arc::new(Ledger::new(capacity, lock)?),
            index: Index::new(capacity as usize),
            fragments: Fragments::new(seed),
            hasher: FixedState::with_seed(seed),
            hand: 0,
        })
    }

    /// Sessions that fit into `bytes`.
    fn capacity_of(bytes: u64) -> u32 {
        let bytes = bytes.saturating_sub(Fragments::bytes() as u64);
        let fits = |slots: u64| {
            let index = usize::try_from(slots).map_or(u64::MAX, |slots| Index::bytes(slots) as u64);
            slots.saturating_mul(ENTRY_BYTES as u64).saturating_add(index) <= bytes
        };
        // The index doubles at powers of two, so look for the largest number that fits from above.
        let mut slots = (bytes / ENTRY_BYTES as u64).min(u64::from(u32::MAX / 2));
        while slots > 64 && !fits(slots) {
            slots -= (slots / 64).max(1);
        }
        u32::try_from(slots.max(64)).unwrap_or(u32::MAX / 2)
    }

    /// Bytes of the index and the fragments, beside the array itself.
    pub fn index_bytes(&self) -> u64 {
        (Index::bytes(self.ledger.capacity() as usize) + Fragments::bytes()) as u64
    }

    /// What readers see.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Counts a packet to its session, which begins with it if there is none.
    ///
    /// `sequence` is the packet's place in the order of arrival, and grows with every call.
    pub fn observe(&mut self, packet: &Packet<'_>, decoded: &mut Decoded, sequence: u64) -> Observed {
        self.fragments.resolve(decoded, packet.interface, packet.time);
        let (key, sender) = SessionKey::new(decoded, packet.interface);
        let hash = self.hash(&key);
        let found = self.index.find(hash, |slot| self.entry(slot).has_key(&key));
        let slot = match found {
            Some(slot) if self.goes_on(slot, decoded, packet.time) => slot,
            Some(slot) => {
                self.index.remove(hash, slot);
                self.begin(&key, hash, sender, decoded, packet.time, sequence)
            }
            None => self.begin(&key, hash, sender, decoded, packet.time, sequence),
        };

        let entry = self.entry(slot);
        let offset = entry.bytes();
        let flags = entry.flags();
        let (by_originator_before, by_responder_before) = (entry.originator_packets(), entry.responder_packets());
        let by_originator = (sender == Side::High) == (flags & flag::ORIGINATOR_IS_HIGH != 0);
        let told = told(decoded, by_originator);
        entry.count(by_originator, packet.time, u64::from(packet.original_len), flags | told);
        let closing = told & (flag::RST | flag::FIN_ORIGINATOR | flag::FIN_RESPONDER);
        Observed {
            slot: SessionSlot(slot),
            offset,
            closes: closing & !flags != 0,
            begins: by_originator_before + by_responder_before == 0,
            answered: match decoded.protocol {
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

    /// Whether packet `sequence` is the very first of its session, and others of it are left.
    pub fn is_first_of_more(&self, slot: SessionSlot, sequence: u64) -> bool {
        self.ledger.entry(slot).is_some_and(|entry| entry.first_sequence() == sequence && entry.kept_packets() > 0)
    }

    /// A packet of this session was kept.
    pub fn kept(&mut self, slot: SessionSlot, captured_bytes: u64) {
        self.entry(slot.0).kept_more(captured_bytes);
    }

    /// A packet of the session that had `slot` will be reported [`evicted`](Self::evicted) soon.
    pub fn expect(&self, slot: SessionSlot) {
        if let Some(entry) = self.ledger.entry(slot) {
            entry.prefetch();
        }
    }

    /// A packet of the session that had `slot` when packet `sequence` arrived is gone. Whether it was the first of it.
    pub fn evicted(&mut self, slot: SessionSlot, sequence: u64, captured_bytes: u64) -> bool {
        let Some(entry) = self.ledger.entry(slot).filter(|entry| entry.first_sequence() <= sequence) else {
            return false;
        };
        entry.kept_less(captured_bytes);
        entry.first_sequence() == sequence
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
    fn goes_on(&self, slot: u32, decoded: &Decoded, time: Timestamp) -> bool {
        let entry = self.entry(slot);
        let flags = entry.flags();
        let opens = decoded.protocol == TCP && decoded.tcp_flags & (SYN | ACK | RST) == SYN;
        if opens && ledger::is_over(flags) {
            return false;
        }
        time.0.saturating_sub(entry.last().0) <= ledger::timeout_ns(decoded.protocol, flags)
    }

    fn begin(
        &mut self,
        key: &SessionKey,
        hash: u64,
        sender: Side,
        decoded: &Decoded,
        time: Timestamp,
        sequence: u64,
    ) -> u32 {
        let slot = self.vacate(time);
        // Who answers a SYN did not speak first, though it may be the first that was heard.
        let answers = decoded.protocol == TCP && decoded.tcp_flags & (SYN | ACK) == SYN | ACK;
        let originator = if answers { sender.other() } else { sender };
        let flags = if originator == Side::High { flag::ORIGINATOR_IS_HIGH } else { 0 };
        self.entry(slot).begin(key, time, sequence, flags);
        self.index.insert(hash, slot);
        slot
    }

    /// Finds an entry for a new session and takes the one that has it out of the index.
    fn vacate(&mut self, now: Timestamp) -> u32 {
        let capacity = self.ledger.capacity();
        let mut best = self.hand;
        let mut best_rating = (false, 0);
        for i in 0..CANDIDATES {
            let slot = (self.hand + i) % capacity;
            let entry = self.entry(slot);
            if !entry.in_use() {
                self.hand = (slot + 1) % capacity;
                return slot;
            }
            let idle_ns = now.0.saturating_sub(entry.last().0);
            if idle_ns > ledger::timeout_ns(entry.key().protocol(), entry.flags()) {
                best = slot;
                break;
            }
            let unanswered = entry.responder_packets() == 0 && entry.packets() <= 2;
            let rating = (unanswered, idle_ns);
            if i == 0 || rating > best_rating {
                best = slot;
                best_rating = rating;
            }
        }
        self.hand = (best + 1) % capacity;
        self.forget(best);
        best
    }

    /// Takes a session out of the index; its entry stays until it is given away.
    fn forget(&mut self, slot: u32) {
        let hash = self.hash(&self.entry(slot).key());
        self.index.remove(hash, slot);
    }

    fn hash(&self, key: &SessionKey) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for word in key.0 {
            hasher.write_u64(word);
        }
        hasher.finish()
    }

    fn entry(&self, slot: u32) -> Entry<'_> {
        match self.ledger.entry(SessionSlot(slot)) {
            Some(entry) => entry,
            None => unreachable!("the index holds slots of the array"),
        }
    }
}

/// What a packet tells of its session's state.
fn told(decoded: &Decoded, by_originator: bool) -> u32 {
    if decoded.protocol != TCP || decoded.tcp_flags & (SYN | FIN | RST) == 0 {
        return 0;
    }
    let mut flags = 0;
    if decoded.tcp_flags & SYN != 0 {
        flags |= if decoded.tcp_flags & ACK != 0 { flag::SYN_ACK } else { flag::SYN };
    }
    if decoded.tcp_flags & FIN != 0 {
        flags |= if by_originator { flag::FIN_ORIGINATOR } else { flag::FIN_RESPONDER };
    }
    if decoded.tcp_flags & RST != 0 {
        flags |= flag::RST;
    }
    flags
}

#[cfg(test)]
mod tests;
