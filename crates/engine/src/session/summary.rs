//! A summary of one session: endpoints, times, counts and state.

use super::depth::{Distance, LostParts, RECENT_NS, START_BYTES};
use super::key::{Endpoint, SessionKey, Side};
use super::marks::SessionMarks;
use base::time::Timestamp;

/// The index of an entry in the session array.
///
/// Entries are reused. A packet belongs to the session that had the entry when the packet arrived, so compare the
/// packet's sequence number with [`Session::first_sequence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionSlot(pub u32);

impl SessionSlot {
    /// Marks an archived session, which has no entry.
    pub const ARCHIVED: Self = Self(u32::MAX);
}

/// Bits for what was seen of a session.
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
    /// One side sent a RST.
    pub(in crate::session) const RST: u32 = 32;
    /// The entry is in the table's queue of entries to reuse.
    pub(in crate::session) const QUEUED: u32 = 64;
    /// Of an archived session, which has no entry to queue: packets were stored when it lost its entry.
    pub(in crate::session) const HAD_PACKETS: u32 = QUEUED;
    /// The protocol is TCP.
    pub(in crate::session) const TCP: u32 = 128;
    /// [`SessionMarks`](super::SessionMarks) occupy the bits from this one on.
    pub(in crate::session) const MARKS_SHIFT: u32 = 8;
}

/// State of a session, derived from the packets seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
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
    /// TCP: the start was not seen and only one side sent packets.
    Midstream,
    /// Not TCP: only the originator sent packets.
    OneWay,
    /// Not TCP: both sides sent packets.
    TwoWay,
}

impl SessionState {
    /// The name of the state in listings and JSON.
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

/// A count per endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerSide {
    /// Sent by the originator.
    pub originator: u64,
    /// Sent by the responder.
    pub responder: u64,
}

impl PerSide {
    /// The sum of both counts.
    pub fn sum(self) -> u64 {
        self.originator + self.responder
    }
}

/// A copy of a session's summary.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The session's entry in the array, or [`SessionSlot::ARCHIVED`].
    pub slot: SessionSlot,
    /// The session's key.
    pub key: SessionKey,
    /// Sequence number of the first packet; packets of this slot from this number on belong to the session. For an
    /// archived session, its ordinal in the archive.
    pub first_sequence: u64,
    /// Time of the first packet.
    pub first: Timestamp,
    /// Time of the latest packet.
    pub last: Timestamp,
    /// Packets seen.
    pub packets: PerSide,
    /// Bytes seen on the wire.
    pub bytes: PerSide,
    /// Packets of the session that are stored.
    pub kept_packets: u64,
    /// Captured bytes of the stored packets.
    pub kept_bytes: u64,
    /// Packet time of the latest eviction. `None` if no packet was evicted.
    pub cut_at: Option<Timestamp>,
    pub(super) lost: LostParts,
    pub(super) distances: [Distance; 2],
    pub(super) flags: u32,
}

impl Session {
    /// The session's class, demotion and pins. The archive does not keep them.
    pub fn marks(&self) -> SessionMarks {
        SessionMarks::from_bits(self.flags >> flag::MARKS_SHIFT)
    }

    /// The parts of the session's start that are not stored.
    pub fn lost(&self) -> LostParts {
        if self.kept_packets == 0 { LostParts::ALL } else { self.lost }
    }

    /// Whether every packet of the session is stored.
    pub fn is_whole(&self) -> bool {
        self.kept_packets >= self.packets.sum()
    }

    /// The side of the originator in the key.
    pub fn originator_is(&self) -> Side {
        self.originator_side()
    }

    fn originator_side(&self) -> Side {
        if self.flags & flag::ORIGINATOR_IS_HIGH == 0 { Side::Low } else { Side::High }
    }

    /// The endpoint that opened the session, as its SYN, its ports or its first packet shows.
    pub fn originator(&self) -> Endpoint {
        self.key.endpoint(self.originator_side())
    }

    /// The endpoint opposite the originator.
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

    /// A lower bound for the gaps between the session's stored packets: 0 or 1. `lost_until` is the time of the newest
    /// evicted packet.
    ///
    /// A short session loses packets from its end, which leaves no gap. A session that lasts longer than the period of
    /// its [depth](super::SessionUpdate::depth) keeps its start and its most recent packets.
    pub fn holes(&self, lost_until: Option<Timestamp>) -> u64 {
        let is_cut = self.kept_packets > 0 && self.kept_packets < self.packets.sum();
        let goes_on = lost_until.is_some_and(|lost| self.last > lost);
        let is_long = self.last.0.saturating_sub(self.first.0) > RECENT_NS && self.kept_bytes > START_BYTES;
        u64::from(is_cut && (goes_on || is_long))
    }

    /// State of the session.
    pub fn state(&self) -> SessionState {
        let both = self.packets.originator > 0 && self.packets.responder > 0;
        if self.key.protocol() != TCP {
            return if both { SessionState::TwoWay } else { SessionState::OneWay };
        }
        let has = |bits| self.flags & bits == bits;
        if has(flag::RST) {
            SessionState::Reset
        } else if has(flag::FIN_ORIGINATOR | flag::FIN_RESPONDER) {
            SessionState::Closed
        } else if has(flag::FIN_ORIGINATOR) || has(flag::FIN_RESPONDER) {
            SessionState::Closing
        } else if has(flag::SYN_ACK) || (both && !has(flag::SYN)) {
            SessionState::Established
        } else if has(flag::SYN) {
            SessionState::SynSent
        } else {
            SessionState::Midstream
        }
    }

    /// Whether the session is archived. It then has no stored packet, and its times are rounded to the millisecond.
    pub fn is_past(&self) -> bool {
        self.slot == SessionSlot::ARCHIVED
    }

    /// Whether packets of the session may be stored although none is counted: it lost its entry to another session while
    /// packets were stored, and nothing has counted them since.
    pub fn may_have_packets(&self) -> bool {
        self.is_past() && self.flags & flag::HAD_PACKETS != 0
    }

    /// Whether the session is over at `now`: archived, or silent for longer than its timeout, which is short after a
    /// TCP close or reset.
    pub fn ended(&self, now: Timestamp) -> bool {
        let idle_ns = now.0.saturating_sub(self.last.0);
        self.is_past() || idle_ns > timeout_ns(self.key.protocol(), self.flags)
    }
}

pub(super) const TCP: u8 = 6;
const SECOND_NS: u64 = 1_000_000_000;

/// Whether both sides have sent a FIN, or one has sent a RST.
pub(super) fn is_over(flags: u32) -> bool {
    flags & flag::RST != 0
        || flags & (flag::FIN_ORIGINATOR | flag::FIN_RESPONDER) == flag::FIN_ORIGINATOR | flag::FIN_RESPONDER
}

/// Timeout in nanoseconds, after which a packet with the same key begins a new session. TCP: 5 minutes, 5 seconds after
/// close or reset. Other protocols: 1 minute.
pub(super) fn timeout_ns(protocol: u8, flags: u32) -> u64 {
    match protocol {
        TCP if is_over(flags) => 5 * SECOND_NS,
        TCP => 300 * SECOND_NS,
        _ => 60 * SECOND_NS,
    }
}
