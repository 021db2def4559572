//! The layout of one entry in the session array: two cache lines of atomic words.
//!
//! One thread writes, any number of threads read. The entry's generation is odd while the writer gives the entry to
//! another session. The counters of a live session change without a new generation, so a reader may see the counts of
//! one packet more or less, which is harmless.

use std::sync::atomic::{AtomicU64, Ordering};

use super::depth::{DEPTHS_BYTES, Distance, LostParts, RECENT_NS, START_BYTES};
use super::key::SessionKey;
use super::marks::SessionMarks;
use super::span::SessionSpan;
use super::summary::{PerSide, Session, SessionSlot, TCP, flag, timeout_ns};
use base::generation::GenerationLock;
use base::memory::{add, prefetch};
use base::packet::Packet;
use base::time::Timestamp;

pub(super) const ENTRY_WORDS: usize = 16;
/// Bytes of one entry.
pub const ENTRY_BYTES: usize = ENTRY_WORDS * 8;

// The first cache line holds the words that the writer reads when it evicts a packet of the session, or looks for an
// entry to reuse.
const CUT_AT: usize = 0; // time of the last eviction, 0 before the first; the low bits are [`LostParts`]
const FIRST_SEQUENCE: usize = 1;
const LAST: usize = 2;
const PACKETS: usize = 3; // originator in the low half, responder in the high half
const KEPT: usize = 4; // packets in the low half, flags in the high half
const KEPT_BYTES: usize = 5; // low 40 bits; the bits above hold the leaky bucket of recent bytes
const BYTES: usize = 6; // originator, then responder; the high bits locate the first packet beyond each depth
const FIRST: usize = 8;
const GENERATION: usize = 9;
const KEY: usize = 10;

/// Bits of each [`BYTES`] word that count bytes: up to 256 TiB.
const BYTES_BITS: u32 = 48;
const BYTES_MAX: u64 = (1 << BYTES_BITS) - 1;

/// Bits of [`KEPT_BYTES`] that count stored bytes: up to 1 TiB.
const KEPT_BYTES_BITS: u32 = 40;
const KEPT_BYTES_MAX: u64 = (1 << KEPT_BYTES_BITS) - 1;
/// The unit in which recent bytes are counted. It allows counts of up to 256 MiB.
const RECENT_UNIT_BYTES: u64 = 16;
const RECENT_MAX: u64 = (1 << (64 - KEPT_BYTES_BITS)) - 1;

/// The low and the high half of a word.
fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// What is left of a `level` of recent bytes after `idle_ns` without packets. The count is a leaky bucket that loses a
/// fraction of its level in each moment, so at a constant rate it settles at the bytes of [`RECENT_NS`].
fn recent(level: u64, idle_ns: u64) -> u64 {
    level - level * idle_ns.min(RECENT_NS) / RECENT_NS
}

/// The properties of a packet that its session counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountedPacket {
    pub(super) time: Timestamp,
    pub(super) wire_bytes: u64,
    pub(super) captured_bytes: u64,
}

impl CountedPacket {
    #[inline]
    pub(super) fn of(packet: &Packet<'_>) -> Self {
        Self { time: packet.time, wire_bytes: u64::from(packet.original_len), captured_bytes: packet.data.len() as u64 }
    }
}

/// The state of an entry before it counts a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountsBefore {
    packets: u64,
    kept: u64,
    kept_bytes: u64,
    /// Bytes of the session on the wire.
    pub(super) offset: u64,
    /// Recent bytes in units of [`RECENT_UNIT_BYTES`].
    recent: u64,
    last: Timestamp,
}

impl CountsBefore {
    pub(super) fn originator_packets(&self) -> u32 {
        halves(self.packets).0
    }

    pub(super) fn responder_packets(&self) -> u32 {
        halves(self.packets).1
    }

    pub(super) fn flags(&self) -> u32 {
        halves(self.kept).1
    }

    pub(super) fn marks(&self) -> SessionMarks {
        SessionMarks::from_bits(self.flags() >> flag::MARKS_SHIFT)
    }

    /// The depth of the packet in bytes: its offset in the session, but no more than the session's recent bytes. A
    /// long-lived session with little traffic therefore does not count as bulk.
    #[inline]
    pub(super) fn depth(&self) -> u64 {
        if self.offset <= START_BYTES {
            return self.offset;
        }
        (self.recent * RECENT_UNIT_BYTES).clamp(START_BYTES, self.offset)
    }
}

/// A reference to the words of one entry.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a>(pub(super) &'a [AtomicU64; ENTRY_WORDS]);

impl Entry<'_> {
    fn get(self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }

    fn set(self, word: usize, value: u64) {
        self.0[word].store(value, Ordering::Relaxed);
    }

    fn lock(&self) -> GenerationLock<'_> {
        GenerationLock(&self.0[GENERATION])
    }

    /// A consistent copy of the session for readers, with the sides as they were counted. `None` if the entry is
    /// unused, or if the writer is giving it to another session.
    pub(super) fn session(self, slot: SessionSlot) -> Option<Session> {
        if !self.in_use() {
            return None;
        }
        (0..3).find_map(|_| self.lock().read(|| self.read(slot)))
    }

    /// A consistent copy of what sums over time need, for readers.
    pub(super) fn span(self, slot: SessionSlot) -> Option<SessionSpan> {
        if !self.in_use() {
            return None;
        }
        let read = || {
            let (originator, responder) = halves(self.get(PACKETS));
            SessionSpan {
                slot,
                first_sequence: self.get(FIRST_SEQUENCE),
                first: Timestamp(self.get(FIRST)),
                last: self.last(),
                packets: u64::from(originator) + u64::from(responder),
                bytes: self.bytes(),
                kept_packets: u64::from(self.kept_packets()),
                kept_bytes: self.kept_bytes(),
                lost: LostParts::from_bits(self.get(CUT_AT)),
            }
        };
        (0..3).find_map(|_| self.lock().read(read))
    }

    /// A copy of the session for the writer, which needs no consistency check.
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
            bytes: PerSide { originator: self.side_bytes(0), responder: self.side_bytes(1) },
            kept_packets: u64::from(kept_packets),
            kept_bytes: self.kept_bytes(),
            cut_at: Some(Timestamp(self.cut_at())).filter(|at| at.0 > 0),
            lost: LostParts::from_bits(self.get(CUT_AT)),
            distances: [self.distance(0), self.distance(1)],
            flags,
        }
    }

    /// Prefetches both cache lines of the entry.
    pub(super) fn prefetch(self) {
        self.prefetch_counts();
        prefetch(&self.0[FIRST]);
    }

    /// Prefetches the first cache line, which an eviction reads.
    pub(super) fn prefetch_counts(self) {
        prefetch(&self.0[CUT_AT]);
    }

    /// Copies the session to an entry of the archive's pending area, with no stored packets and with `ordinal` in place
    /// of its first sequence number. Whether there were stored packets becomes a flag.
    pub(super) fn copy_to(self, to: Entry<'_>, ordinal: u64) {
        to.lock().begin_write();
        for word in (0..ENTRY_WORDS).filter(|&word| word != GENERATION) {
            to.set(word, self.get(word));
        }
        to.set(FIRST_SEQUENCE, ordinal);
        let (packets, flags) = self.kept();
        to.set_kept(0, flags & !flag::QUEUED | if packets > 0 { flag::HAD_PACKETS } else { 0 });
        to.set(KEPT_BYTES, 0);
        to.lock().end_write();
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
        const SHIFT: u32 = 32 + flag::MARKS_SHIFT;
        self.set(KEPT, self.get(KEPT) & ((1 << SHIFT) - 1) | u64::from(marks.to_bits()) << SHIFT);
    }

    pub(super) fn originator_packets(self) -> u64 {
        u64::from(halves(self.get(PACKETS)).0)
    }

    /// Words that change with each packet of the session, and when the entry gets another session: the first sequence
    /// number, and the packets of both sides in one word.
    pub(super) fn state(self) -> (u64, u64) {
        (self.get(FIRST_SEQUENCE), self.get(PACKETS))
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
        self.side_bytes(0) + self.side_bytes(1)
    }

    fn side_bytes(self, side: usize) -> u64 {
        self.get(BYTES + side) & BYTES_MAX
    }

    fn add_bytes(self, side: usize, bytes: u64) {
        let word = self.get(BYTES + side);
        self.set(BYTES + side, word + bytes.min(BYTES_MAX - (word & BYTES_MAX)));
    }

    /// The distance in sequence numbers from the session's first packet to its first packet beyond a depth.
    fn distance(self, depth: usize) -> Distance {
        let [.., low, high] = self.get(BYTES + depth).to_le_bytes();
        Distance(u16::from_le_bytes([low, high]))
    }

    /// Records packet `sequence` as the first one beyond each depth that `offset` reaches for the first time.
    #[inline]
    pub(super) fn note_depth(self, offset: u64, sequence: u64) {
        if offset < DEPTHS_BYTES[0] || !self.distance(1).is_none() {
            return;
        }
        for (depth, depth_bytes) in DEPTHS_BYTES.into_iter().enumerate() {
            if offset >= depth_bytes && self.distance(depth).is_none() {
                let distance = Distance::new(sequence.saturating_sub(self.first_sequence()).max(1));
                self.set(BYTES + depth, self.side_bytes(depth) | u64::from(distance.0) << BYTES_BITS);
            }
        }
    }

    /// The parts of the session's start that are lost with packet `sequence`.
    pub(super) fn loss_of(self, sequence: u64) -> LostParts {
        let after = sequence.saturating_sub(self.first_sequence());
        let deepest = self.distance(DEPTHS_BYTES.len() - 1);
        if !deepest.is_none() && after >= deepest.get() {
            return LostParts::NONE;
        }
        let within = [0, 1].map(|depth| {
            let distance = self.distance(depth);
            distance.is_none() || after < distance.get()
        });
        LostParts::of(after == 0, within)
    }

    /// Records lost parts of the session's start.
    pub(super) fn lose(self, lost: LostParts) {
        self.set(CUT_AT, self.get(CUT_AT) | lost.to_bits());
    }

    /// Whether the session's first packet is lost.
    pub(super) fn has_lost_first(self) -> bool {
        LostParts::from_bits(self.get(CUT_AT)).first_packet()
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

    /// Gives the entry to a new session and counts its first packet, number `sequence`, as stored.
    #[inline]
    pub(super) fn begin(
        self,
        key: &SessionKey,
        sequence: u64,
        by_originator: bool,
        packet: &CountedPacket,
        flags: u32,
    ) {
        let queued = self.flags() & flag::QUEUED;
        self.lock().begin_write();
        let (mine, other, half) = if by_originator { (BYTES, BYTES + 1, 0) } else { (BYTES + 1, BYTES, 32) };
        let recent = packet.wire_bytes.div_ceil(RECENT_UNIT_BYTES).min(RECENT_MAX);
        self.set(CUT_AT, 0);
        self.set(FIRST_SEQUENCE, sequence);
        self.set(LAST, packet.time.0);
        self.set(PACKETS, 1 << half);
        self.set_kept(1, flags | queued);
        self.set(KEPT_BYTES, recent << KEPT_BYTES_BITS | packet.captured_bytes & KEPT_BYTES_MAX);
        self.set(mine, packet.wire_bytes & BYTES_MAX);
        self.set(other, 0);
        self.set(FIRST, packet.time.0);
        for (i, &word) in key.0.iter().enumerate() {
            self.set(KEY + i, word);
        }
        self.lock().end_write();
    }

    /// Gives the entry to a session of a previous recorder. Its stored packets are counted later; `first_sequence`
    /// replaces the session's own number.
    pub(super) fn restore(self, session: &Session, first_sequence: u64) {
        self.lock().begin_write();
        let half = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let PerSide { originator, responder } = session.packets;
        let PerSide { originator: originator_bytes, responder: responder_bytes } = session.bytes;
        self.set(FIRST_SEQUENCE, first_sequence);
        self.set(LAST, session.last.0);
        self.set(PACKETS, u64::from(half(originator)) | u64::from(half(responder)) << 32);
        self.set_kept(0, session.flags);
        self.set(KEPT_BYTES, 0);
        for (side, bytes) in [originator_bytes, responder_bytes].into_iter().enumerate() {
            self.set(BYTES + side, bytes.min(BYTES_MAX) | u64::from(session.distances[side].0) << BYTES_BITS);
        }
        self.set(FIRST, session.first.0);
        self.set(CUT_AT, session.cut_at.map_or(0, |at| at.0) & !LostParts::MASK | session.lost.to_bits());
        for (i, &word) in session.key.0.iter().enumerate() {
            self.set(KEY + i, word);
        }
        self.lock().end_write();
    }

    /// Time of the session's latest eviction in nanoseconds, 0 if there was none.
    pub(super) fn cut_at(self) -> u64 {
        self.get(CUT_AT) & !LostParts::MASK
    }

    fn kept_bytes(self) -> u64 {
        self.get(KEPT_BYTES) & KEPT_BYTES_MAX
    }

    fn set_kept_bytes(self, bytes: u64) {
        self.set(KEPT_BYTES, self.get(KEPT_BYTES) >> KEPT_BYTES_BITS << KEPT_BYTES_BITS | bytes);
    }

    /// Counts a packet of either side, of which `captured_bytes` are stored, and sets `flags`. `before` is the
    /// state of the entry before the packet.
    #[inline]
    pub(super) fn count(self, before: &CountsBefore, by_originator: bool, packet: &CountedPacket, flags: u32) {
        let recent = (before.recent + packet.wire_bytes.div_ceil(RECENT_UNIT_BYTES)).min(RECENT_MAX);
        let kept_bytes = (before.kept_bytes + packet.captured_bytes) & KEPT_BYTES_MAX;
        self.set(KEPT_BYTES, recent << KEPT_BYTES_BITS | kept_bytes);
        let half = if by_originator { 0 } else { 32 };
        // A side that has sent 2^32 packets is not counted further.
        let is_full = halves(before.packets >> half).0 == u32::MAX;
        self.set(PACKETS, before.packets + (u64::from(!is_full) << half));
        self.add_bytes(usize::from(!by_originator), packet.wire_bytes);
        if packet.time > before.last {
            self.set(LAST, packet.time.0);
        }
        let is_full = halves(before.kept).0 == u32::MAX;
        self.set(KEPT, (before.kept + u64::from(!is_full)) | u64::from(flags) << 32);
    }

    /// The state of the entry before a packet at `time`.
    #[inline]
    pub(super) fn before(self, time: Timestamp) -> CountsBefore {
        let (last, kept_bytes) = (self.last(), self.get(KEPT_BYTES));
        CountsBefore {
            packets: self.get(PACKETS),
            kept: self.get(KEPT),
            kept_bytes: kept_bytes & KEPT_BYTES_MAX,
            offset: self.bytes(),
            recent: recent(kept_bytes >> KEPT_BYTES_BITS, time.0.saturating_sub(last.0)),
            last,
        }
    }

    /// Takes a stored packet out of the counts.
    pub(super) fn not_kept(self, captured_bytes: u64) {
        let (packets, flags) = self.kept();
        self.set_kept(packets.saturating_sub(1), flags);
        self.set_kept_bytes(self.kept_bytes().saturating_sub(captured_bytes));
    }

    pub(super) fn kept_more(self, captured_bytes: u64) {
        let (packets, flags) = self.kept();
        self.set_kept(packets.saturating_add(1), flags);
        add(&self.0[KEPT_BYTES], captured_bytes);
    }

    /// Counts the eviction of a packet at `now`, with which these parts of the session's start are lost. Returns the
    /// number of stored packets that are left.
    pub(super) fn kept_less(self, captured_bytes: u64, now: Timestamp, lost: LostParts) -> u32 {
        let (kept, kept_bytes) = (self.get(KEPT), self.get(KEPT_BYTES));
        let left = halves(kept).0.saturating_sub(1);
        self.set(KEPT, kept - u64::from(halves(kept).0 > 0));
        self.set(KEPT_BYTES, kept_bytes - captured_bytes.min(kept_bytes & KEPT_BYTES_MAX));
        self.set(CUT_AT, now.0 & !LostParts::MASK | self.get(CUT_AT) & LostParts::MASK | lost.to_bits());
        left
    }

    pub(super) fn is_queued(self) -> bool {
        self.flags() & flag::QUEUED != 0
    }

    pub(super) fn set_queued(self, queued: bool) {
        let (packets, flags) = self.kept();
        self.set_kept(packets, if queued { flags | flag::QUEUED } else { flags & !flag::QUEUED });
    }

    /// Whether the responder sent nothing and the originator sent at most two packets.
    pub(super) fn is_unanswered(self) -> bool {
        let (originator, responder) = halves(self.get(PACKETS));
        responder == 0 && originator <= 2
    }

    /// Whether the session still lives at `now`, and is a conversation.
    pub(super) fn is_live_conversation(self, now: Timestamp) -> bool {
        let idle_ns = now.0.saturating_sub(self.last().0);
        let lives = idle_ns <= timeout_ns(self.key().protocol(), self.flags());
        lives && (self.responder_packets() > 0 || self.packets() > 2)
    }

    /// Whether the session is over at `now`; see [`Session::ended`].
    pub(super) fn ended(self, now: Timestamp) -> bool {
        self.idle(now).1
    }

    /// The time since the last packet at `now`, and whether the session is over.
    pub(super) fn idle(self, now: Timestamp) -> (u64, bool) {
        let flags = self.flags();
        let protocol = if flags & flag::TCP != 0 { TCP } else { 0 };
        let idle_ns = now.0.saturating_sub(self.last().0);
        (idle_ns, idle_ns > timeout_ns(protocol, flags))
    }
}
