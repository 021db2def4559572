//! The flags of TCP headers, and what they say of a session.

use super::summary::{TCP, flag};

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// Whether a segment opens a connection.
#[inline]
pub(super) fn opens(flags: u8) -> bool {
    flags & (SYN | ACK | RST) == SYN
}

/// Whether a segment accepts a connection.
#[inline]
pub(super) fn accepts(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN | ACK
}

/// The state flags that a packet sets in its session.
#[inline]
pub(super) fn state_flags(protocol: u8, flags: u8, by_originator: bool) -> u32 {
    if protocol != TCP || flags & (SYN | FIN | RST) == 0 {
        return 0;
    }
    let mut seen = 0;
    if flags & SYN != 0 {
        seen |= if flags & ACK != 0 { flag::SYN_ACK } else { flag::SYN };
    }
    if flags & FIN != 0 {
        seen |= if by_originator { flag::FIN_ORIGINATOR } else { flag::FIN_RESPONDER };
    }
    if flags & RST != 0 {
        seen |= flag::RST;
    }
    seen
}
