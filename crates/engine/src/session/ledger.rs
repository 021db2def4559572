//! The array of sessions: one entry from a session's first packet on until, after its end, another one needs it.
//!
//! One thread writes ([`SessionTable`](super::SessionTable)), any number read. An entry's generation is odd while it is given to
//! another session; counters of a live one move under a reader's eyes, which costs it nothing but the last packet.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::SessionSlot;
use super::archive::{ArchivePosition, BlockCache, SessionArchive};
use super::key::{Endpoint, SessionKey, Side};
use super::marks::SessionMarks;
use base::memory::{Lock, Memory, add, prefetch};
use base::time::Timestamp;

pub(super) const ENTRY_WORDS: usize = 16;
/// Bytes of one entry.
pub const ENTRY_BYTES: usize = ENTRY_WORDS * 8;

// What is looked at when packets of a session go, or its entry is wanted for another one, stands in the first of the two
// cache lines.
const CUT_AT: usize = 0; // when the last packet of it went; 0 while none has
const FIRST_SEQUENCE: usize = 1;
const LAST: usize = 2;
const PACKETS: usize = 3; // of the originator in the low half, of the responder in the high half
const KEPT: usize = 4; // packets in the low half, flags in the high half
const KEPT_BYTES: usize = 5;
const BYTES: usize = 6; // originator, then responder
const FIRST: usize = 8;
const GENERATION: usize = 9;
const KEY: usize = 10;

/// What was seen of a session, one bit each.
pub(super) mod flag {
    /// The originator is the key's high endpoint.
    pub(in crate::session) const ORIGINATOR_IS_HIGH: u32 = 1;
    /// The originator sent a SYN.
    pub(in crate::session) const SYN: u32 = 2;
    /// The responder answered with SYN and ACK.
    pub(in crate::session) const SYN_ACK: u32 = 4;
    /// The originator sent a FIN.
    pub(in crate::session) const FIN_ORIGINATOR: u32 = 8;
    /// The responder sent a FIN.
    pub(in crate::session) const FIN_RESPONDER: u32 = 16;
    /// One of them sent a RST.
    pub(in crate::session) const RST: u32 = 32;
    /// The entry stands in the table's queue of emptied ones.
    pub(in crate::session) const QUEUED: u32 = 64;
    /// Its protocol is TCP.
    pub(in crate::session) const TCP: u32 = 128;
    /// [`SessionMarks`](super::SessionMarks) stand above these.
    pub(in crate::session) const MARKS_SHIFT: u32 = 8;
}

/// How far a session came, as far as its packets told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// TCP: a SYN without an answer.
    SynSent,
    /// TCP: SYN and SYN-ACK, or data in both directions of a session whose start was not seen.
    Established,
    /// TCP: one side has sent its FIN.
    Closing,
    /// TCP: both sides have sent their FIN.
    Closed,
    /// TCP: one side has sent a RST.
    Reset,
    /// TCP: its start was not seen and only one side spoke.
    Midstream,
    /// Not TCP: only the originator spoke.
    OneWay,
    /// Not TCP: both spoke.
    TwoWay,
}

impl State {
    /// The word for it in listings and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Midstream => "midstream",
            Self::OneWay => "one-way",
            Self::TwoWay => "two-way",
        }
    }
}

/// Two counts, one for each endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerSide {
    /// Sent by who spoke first.
    pub originator: u64,
    /// Sent by the other.
    pub responder: u64,
}

impl PerSide {
    /// Both together.
    pub fn sum(self) -> u64 {
        self.originator + self.responder
    }
}

/// A session as a reader found it.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Its place in the array.
    pub slot: SessionSlot,
    /// What tells it from others.
    pub key: SessionKey,
    /// The lookup number of its first packet; packets of this slot from this number on are its.
    pub first_sequence: u64,
    /// Time of its first packet.
    pub first: Timestamp,
    /// Time of its latest packet.
    pub last: Timestamp,
    /// Packets seen.
    pub packets: PerSide,
    /// Bytes seen, on the wire.
    pub bytes: PerSide,
    /// Packets of it that are still there.
    pub kept_packets: u64,
    /// Captured bytes of these.
    pub kept_bytes: u64,
    /// When a packet of it was evicted last, in the time of packets.
    pub cut_at: Option<Timestamp>,
    pub(super) flags: u32,
}

impl Session {
    /// What was decided of it.
    pub fn marks(&self) -> SessionMarks {
        SessionMarks::from_bits(self.flags >> flag::MARKS_SHIFT)
    }

    /// Which endpoint spoke first, or sent the SYN.
    pub fn originator_is(&self) -> Side {
        self.originator_side()
    }

    fn originator_side(&self) -> Side {
        if self.flags & flag::ORIGINATOR_IS_HIGH == 0 { Side::Low } else { Side::High }
    }

    /// Who sent the SYN, or spoke first.
    pub fn originator(&self) -> Endpoint {
        self.key.endpoint(self.originator_side())
    }

    /// The other one.
    pub fn responder(&self) -> Endpoint {
        self.key.endpoint(self.originator_side().other())
    }

    /// The originator's address as a number.
    pub fn originator_address(&self) -> u128 {
        self.key.address(self.originator_side())
    }

    /// The responder's address as a number.
    pub fn responder_address(&self) -> u128 {
        self.key.address(self.originator_side().other())
    }

    /// How far it came.
    pub fn state(&self) -> State {
        let both = self.packets.originator > 0 && self.packets.responder > 0;
        if self.key.protocol() != TCP {
            return if both { State::TwoWay } else { State::OneWay };
        }
        let has = |bits| self.flags & bits == bits;
        if has(flag::RST) {
            State::Reset
        } else if has(flag::FIN_ORIGINATOR | flag::FIN_RESPONDER) {
            State::Closed
        } else if has(flag::FIN_ORIGINATOR) || has(flag::FIN_RESPONDER) {
            State::Closing
        } else if has(flag::SYN_ACK) || (both && !has(flag::SYN)) {
            State::Established
        } else if has(flag::SYN) {
            State::SynSent
        } else {
            State::Midstream
        }
    }

    /// Whether its entry went to another session: no packet of it is left, and its times are to the millisecond.
    pub fn is_past(&self) -> bool {
        self.slot == SessionSlot::PAST
    }

    /// Whether it is over at `now`: closed, reset, or silent for as long as its protocol's timeout.
    pub fn ended(&self, now: Timestamp) -> bool {
        let idle_ns = now.0.saturating_sub(self.last.0);
        self.is_past() || idle_ns > timeout_ns(self.key.protocol(), self.flags)
    }
}

pub(super) const TCP: u8 = 6;
const SECOND_NS: u64 = 1_000_000_000;

/// Whether both sides have closed, or one has reset.
pub(super) fn is_over(flags: u32) -> bool {
    flags & flag::RST != 0
        || flags & (flag::FIN_ORIGINATOR | flag::FIN_RESPONDER) == flag::FIN_ORIGINATOR | flag::FIN_RESPONDER
}

/// How long a session may be silent before a further packet begins a new one: TCP 5 min, 5 s after close or reset;
/// everything else 1 min.
pub(super) fn timeout_ns(protocol: u8, flags: u32) -> u64 {
    match protocol {
        TCP if is_over(flags) => 5 * SECOND_NS,
        TCP => 300 * SECOND_NS,
        _ => 60 * SECOND_NS,
    }
}

/// The array.
#[derive(Debug)]
pub struct SessionArray {
    words: Memory,
    capacity: u32,
    archive: SessionArchive,
}

impl SessionArray {
    pub(super) fn new(capacity: u32, archive_bytes: usize, lock: Lock) -> std::io::Result<Self> {
        let words = Memory::new(capacity as usize * ENTRY_WORDS, lock)?;
        Ok(Self { words, capacity, archive: SessionArchive::new(archive_bytes, lock)? })
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

/// The low and the high half of a word.
fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// The words of one session.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a>(pub(super) &'a [AtomicU64; ENTRY_WORDS]);

impl Entry<'_> {
    fn get(self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }

    fn set(self, word: usize, value: u64) {
        self.0[word].store(value, Ordering::Relaxed);
    }

    /// The session that has the entry, as a reader sees it.
    pub(super) fn session(self, slot: SessionSlot) -> Option<Session> {
        // A generation of 0 was never used; an odd one is being given to another session.
        for _ in 0..3 {
            let generation = self.0[GENERATION].load(Ordering::Acquire);
            if generation == 0 {
                return None;
            }
            let session = self.read(slot);
            fence(Ordering::Acquire);
            if generation.is_multiple_of(2) && self.0[GENERATION].load(Ordering::Relaxed) == generation {
                return Some(session);
            }
        }
        None
    }

    /// The session that has the entry, as the writer sees it.
    pub(super) fn read(self, slot: SessionSlot) -> Session {
        let (kept_packets, flags) = self.kept();
        let (originator, responder) = halves(self.get(PACKETS));
        Session {
            slot,
            key: self.key(),
            first_sequence: self.get(FIRST_SEQUENCE),
            first: Timestamp(self.get(FIRST)),
            last: self.last(),
            packets: PerSide { originator: u64::from(originator), responder: u64::from(responder) },
            bytes: PerSide { originator: self.get(BYTES), responder: self.get(BYTES + 1) },
            kept_packets: u64::from(kept_packets),
            kept_bytes: self.get(KEPT_BYTES),
            cut_at: Some(Timestamp(self.get(CUT_AT))).filter(|at| at.0 > 0),
            flags,
        }
    }

    /// Asks for both cache lines of the entry.
    pub(super) fn prefetch(self) {
        self.prefetch_counts();
        prefetch(&self.0[FIRST]);
    }

    /// Asks for what is looked at when a packet of its session goes.
    pub(super) fn prefetch_counts(self) {
        prefetch(&self.0[CUT_AT]);
    }

    /// Copies a session of which no packet is left to another entry, where `ordinal` stands for its first sequence.
    pub(super) fn copy_to(self, to: Entry<'_>, ordinal: u64) {
        let generation = to.get(GENERATION);
        to.set(GENERATION, generation + 1);
        fence(Ordering::Release);
        for word in (0..ENTRY_WORDS).filter(|&word| word != GENERATION) {
            to.set(word, self.get(word));
        }
        to.set(FIRST_SEQUENCE, ordinal);
        to.set_kept(0, self.flags());
        to.set(KEPT_BYTES, 0);
        to.0[GENERATION].store(generation + 2, Ordering::Release);
    }

    pub(super) fn in_use(self) -> bool {
        self.get(GENERATION) != 0
    }

    pub(super) fn key(self) -> SessionKey {
        SessionKey(std::array::from_fn(|i| self.get(KEY + i)))
    }

    pub(super) fn has_key(self, key: &SessionKey) -> bool {
        (0..key.0.len()).all(|i| self.get(KEY + i) == key.0[i])
    }

    pub(super) fn last(self) -> Timestamp {
        Timestamp(self.get(LAST))
    }

    pub(super) fn flags(self) -> u32 {
        self.kept().1
    }

    pub(super) fn marks(self) -> SessionMarks {
        SessionMarks::from_bits(self.flags() >> flag::MARKS_SHIFT)
    }

    pub(super) fn set_marks(self, marks: SessionMarks) {
        let (kept, flags) = self.kept();
        let below = flags & ((1 << flag::MARKS_SHIFT) - 1);
        self.set_kept(kept, below | marks.to_bits() << flag::MARKS_SHIFT);
    }

    pub(super) fn originator_packets(self) -> u64 {
        u64::from(halves(self.get(PACKETS)).0)
    }

    pub(super) fn first_sequence(self) -> u64 {
        self.get(FIRST_SEQUENCE)
    }

    pub(super) fn packets(self) -> u64 {
        self.originator_packets() + self.responder_packets()
    }

    pub(super) fn responder_packets(self) -> u64 {
        u64::from(halves(self.get(PACKETS)).1)
    }

    pub(super) fn bytes(self) -> u64 {
        self.get(BYTES) + self.get(BYTES + 1)
    }

    pub(super) fn kept_packets(self) -> u32 {
        self.kept().0
    }

    fn kept(self) -> (u32, u32) {
        halves(self.get(KEPT))
    }

    fn set_kept(self, packets: u32, flags: u32) {
        self.set(KEPT, u64::from(packets) | u64::from(flags) << 32);
    }

    /// Gives the entry to a new session.
    pub(super) fn begin(self, key: &SessionKey, first: Timestamp, sequence: u64, flags: u32) {
        let generation = self.get(GENERATION);
        self.set(GENERATION, generation + 1);
        fence(Ordering::Release);
        for word in [PACKETS, KEPT_BYTES, BYTES, BYTES + 1, CUT_AT] {
            self.set(word, 0);
        }
        self.set(FIRST_SEQUENCE, sequence);
        self.set(FIRST, first.0);
        self.set(LAST, first.0);
        self.set_kept(0, flags | self.flags() & flag::QUEUED);
        for (i, &word) in key.0.iter().enumerate() {
            self.set(KEY + i, word);
        }
        self.0[GENERATION].store(generation + 2, Ordering::Release);
    }

    /// Gives the entry to a session that is taken over, of which no packet is there yet. `first_sequence` stands for its own.
    pub(super) fn restore(self, session: &Session, first_sequence: u64) {
        let generation = self.get(GENERATION);
        self.set(GENERATION, generation + 1);
        fence(Ordering::Release);
        let half = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let PerSide { originator, responder } = session.packets;
        self.set(FIRST_SEQUENCE, first_sequence);
        self.set(LAST, session.last.0);
        self.set(PACKETS, u64::from(half(originator)) | u64::from(half(responder)) << 32);
        self.set_kept(0, session.flags & !flag::QUEUED);
        self.set(KEPT_BYTES, 0);
        self.set(BYTES, session.bytes.originator);
        self.set(BYTES + 1, session.bytes.responder);
        self.set(FIRST, session.first.0);
        self.set(CUT_AT, session.cut_at.map_or(0, |at| at.0));
        for (i, &word) in session.key.0.iter().enumerate() {
            self.set(KEY + i, word);
        }
        self.0[GENERATION].store(generation + 2, Ordering::Release);
    }

    /// When a packet of it was evicted last.
    pub(super) fn cut_at(self) -> u64 {
        self.get(CUT_AT)
    }

    /// Counts a packet that was sent by the originator (or not).
    pub(super) fn count(self, by_originator: bool, time: Timestamp, wire_bytes: u64, flags: u32) {
        let (originator, responder) = halves(self.get(PACKETS));
        let (originator, responder) = if by_originator {
            (originator.saturating_add(1), responder)
        } else {
            (originator, responder.saturating_add(1))
        };
        self.set(PACKETS, u64::from(originator) | u64::from(responder) << 32);
        add(&self.0[BYTES + usize::from(!by_originator)], wire_bytes);
        if time > self.last() {
            self.set(LAST, time.0);
        }
        let (kept, old) = self.kept();
        if old != flags {
            self.set_kept(kept, flags);
        }
    }

    pub(super) fn kept_more(self, captured_bytes: u64) {
        let (packets, flags) = self.kept();
        self.set_kept(packets.saturating_add(1), flags);
        add(&self.0[KEPT_BYTES], captured_bytes);
    }

    /// A packet of it went at `now`.
    pub(super) fn kept_less(self, captured_bytes: u64, now: Timestamp) {
        let (packets, flags) = self.kept();
        self.set_kept(packets.saturating_sub(1), flags);
        self.set(KEPT_BYTES, self.get(KEPT_BYTES).saturating_sub(captured_bytes));
        self.set(CUT_AT, now.0);
    }

    pub(super) fn is_queued(self) -> bool {
        self.flags() & flag::QUEUED != 0
    }

    pub(super) fn set_queued(self, queued: bool) {
        let (packets, flags) = self.kept();
        self.set_kept(packets, if queued { flags | flag::QUEUED } else { flags & !flag::QUEUED });
    }

    /// Whether nobody answered, and hardly anything was said.
    pub(super) fn is_unanswered(self) -> bool {
        let (originator, responder) = halves(self.get(PACKETS));
        responder == 0 && originator <= 2
    }

    /// Whether it is over at `now`, see [`Session::ended`].
    pub(super) fn ended(self, now: Timestamp) -> bool {
        let flags = self.flags();
        let protocol = if flags & flag::TCP != 0 { TCP } else { 0 };
        now.0.saturating_sub(self.last().0) > timeout_ns(protocol, flags)
    }
}
