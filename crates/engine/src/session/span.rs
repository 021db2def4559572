//! What sums over time need of sessions: when they were, how much they carried, and how much of it is left. That is a part
//! of an entry, or of an archived session, so that millions of them are read in a fraction of a second.

use super::depth::LostParts;
use super::summary::{Session, SessionSlot};
use base::time::Timestamp;

/// The times and sums of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionSpan {
    /// The session's entry in the array, or [`SessionSlot::ARCHIVED`].
    pub slot: SessionSlot,
    /// Sequence number of the first packet, or the ordinal in the archive.
    pub first_sequence: u64,
    /// Time of the first packet.
    pub first: Timestamp,
    /// Time of the latest packet.
    pub last: Timestamp,
    /// Packets seen.
    pub packets: u64,
    /// Bytes seen on the wire.
    pub bytes: u64,
    /// Packets of the session that are stored.
    pub kept_packets: u64,
    /// Captured bytes of the stored packets.
    pub kept_bytes: u64,
    pub(super) lost: LostParts,
}

impl SessionSpan {
    /// The parts of the session's start that are not stored.
    pub fn lost(&self) -> LostParts {
        if self.kept_packets == 0 { LostParts::ALL } else { self.lost }
    }

    /// Whether every packet of the session is stored.
    pub fn is_whole(&self) -> bool {
        self.kept_packets >= self.packets
    }
}

impl From<&Session> for SessionSpan {
    fn from(session: &Session) -> Self {
        Self {
            slot: session.slot,
            first_sequence: session.first_sequence,
            first: session.first,
            last: session.last,
            packets: session.packets.sum(),
            bytes: session.bytes.sum(),
            kept_packets: session.kept_packets,
            kept_bytes: session.kept_bytes,
            lost: session.lost(),
        }
    }
}
