//! Totals of sessions.

use serde::{Deserialize, Serialize};

use engine::session::Session;

/// Totals of all sessions that match, listed or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTotals {
    /// Number of these sessions.
    pub sessions: u64,
    /// Their packets.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Their retained captured bytes.
    pub kept_bytes: u64,
    /// Sessions that have lost packets, but not all.
    pub cut: u64,
    /// Sessions without retained packets.
    pub gone: u64,
    /// Sessions of which it is not known whether packets are retained.
    pub unknown: u64,
}

impl FlowTotals {
    /// Adds a session.
    pub(super) fn add(&mut self, session: &Session) {
        self.sessions += 1;
        self.packets = self.packets.saturating_add(session.packets.sum());
        self.bytes = self.bytes.saturating_add(session.bytes.sum());
        self.kept_bytes = self.kept_bytes.saturating_add(session.kept_bytes);
        match session.kept_packets {
            0 if session.may_have_packets() => self.unknown += 1,
            0 => self.gone += 1,
            kept => self.cut += u64::from(kept < session.packets.sum()),
        }
    }
}

impl FlowTotals {
    /// Adds what a session did in a further hour of the log.
    pub(super) fn add_rest(&mut self, rest: &Session) {
        self.packets = self.packets.saturating_add(rest.packets.sum());
        self.bytes = self.bytes.saturating_add(rest.bytes.sum());
    }
}
