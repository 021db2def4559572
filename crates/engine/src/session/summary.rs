//! What is known of one session: endpoints, times, counts and state.

use super::depth::{Distance, Lost};
use super::key::{Endpoint, SessionKey, Side};
use super::marks::SessionMarks;
use base::time::Timestamp;

/// The number of an entry in the array of sessions.
///
/// Entries are reused: a packet belongs to the session that had the entry when the packet arrived, so compare the
/// packet's sequence number with [`Session::first_sequence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionSlot(pub u32);

impl SessionSlot {
    /// Marks an archived session, which has no entry.
    pub const ARCHIVED: Self = Self(u32::MAX);
}

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
    pub(super) lost: Lost,
    pub(super) distances: [Distance; 2],
    pub(super) flags: u32,
}

impl Session {
    /// What was decided of it.
    pub fn marks(&self) -> SessionMarks {
        SessionMarks::from_bits(self.flags >> flag::MARKS_SHIFT)
    }

    /// What was lost of the session's start.
    pub fn lost(&self) -> Lost {
        if self.kept_packets == 0 { Lost::ALL } else { self.lost }
    }

    /// Whether every packet of the session is there.
    pub fn is_whole(&self) -> bool {
        self.kept_packets >= self.packets.sum()
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
        self.slot == SessionSlot::ARCHIVED
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
