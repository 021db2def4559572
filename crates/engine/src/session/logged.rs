//! Sessions that a log describes, as summaries like those of memory.

use super::depth::LostParts;
use super::key::{SessionKey, Side};
use super::marks::SessionMarks;
use super::summary::{PerSide, Session, SessionSlot, SessionState, flag};
use base::time::Timestamp;

/// What a log says of a session.
#[derive(Clone, Copy, Debug)]
pub struct LoggedSummary {
    /// The session's key.
    pub key: SessionKey,
    /// The side of the originator in the key.
    pub originator: Side,
    /// Time of the first packet.
    pub first: Timestamp,
    /// Time of the latest packet.
    pub last: Timestamp,
    /// Packets seen.
    pub packets: PerSide,
    /// Bytes seen on the wire.
    pub bytes: PerSide,
    /// The state of the session.
    pub state: SessionState,
}

impl From<LoggedSummary> for Session {
    /// The summary of a session without an entry and without packets in memory.
    fn from(logged: LoggedSummary) -> Self {
        let originator = match logged.originator {
            Side::Low => 0,
            Side::High => flag::ORIGINATOR_IS_HIGH,
        };
        let state = match logged.state {
            SessionState::SynSent => flag::SYN,
            SessionState::Established => flag::SYN_ACK,
            SessionState::Closing => flag::FIN_ORIGINATOR,
            SessionState::Closed => flag::FIN_ORIGINATOR | flag::FIN_RESPONDER,
            SessionState::Reset => flag::RST,
            SessionState::Midstream | SessionState::OneWay | SessionState::TwoWay => 0,
        };
        Self {
            slot: SessionSlot::ARCHIVED,
            key: logged.key,
            first_sequence: 0,
            first: logged.first,
            last: logged.last,
            packets: logged.packets,
            bytes: logged.bytes,
            kept_packets: 0,
            kept_bytes: 0,
            cut_at: None,
            lost: LostParts::ALL,
            distances: Default::default(),
            flags: originator | state | SessionMarks::default().to_bits() << flag::MARKS_SHIFT,
        }
    }
}

impl SessionState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::SynSent,
        Self::Established,
        Self::Closing,
        Self::Closed,
        Self::Reset,
        Self::Midstream,
        Self::OneWay,
        Self::TwoWay,
    ];
}

impl Session {
    /// Whether the session was silent for longer than its timeout at `now`, so that a packet with the same key begins a new
    /// session. Unlike [`ended`](Self::ended), this does not depend on whether the session is archived.
    pub fn timed_out(&self, now: Timestamp) -> bool {
        now.0.saturating_sub(self.last.0) > super::summary::timeout_ns(self.key.protocol(), self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::packet::InterfaceId;
    use decode::{Decoded, Network};

    #[test]
    fn a_logged_session_has_the_state_that_was_logged() {
        for state in SessionState::ALL {
            let protocol = if matches!(state, SessionState::OneWay | SessionState::TwoWay) { 17 } else { 6 };
            let decoded = Decoded { network: Network::Ipv4, source: 9, destination: 5, protocol, ..Decoded::default() };
            let (key, originator) = SessionKey::new(&decoded, InterfaceId(0));
            let answered = u64::from(!matches!(state, SessionState::OneWay | SessionState::Midstream));
            let counts = PerSide { originator: 1, responder: answered };
            let (first, last) = (Timestamp(5), Timestamp(6));
            let logged = LoggedSummary { key, originator, first, last, packets: counts, bytes: counts, state };
            let session = Session::from(logged);
            assert_eq!(session.state(), state);
            assert_eq!(session.originator_address(), 9);
            assert!(session.is_past() && !session.may_have_packets());
        }
    }
}
