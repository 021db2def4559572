//! Names of sessions, such as the server name of TLS, read from their first packets when a query asks for them.
//!
//! One pass reads the names of a whole page of sessions. It covers the starts of sessions (ranks 0 to 2, the first 3.5
//! kB) within the time of the page. The pass is in time order, so that it holds unfinished requests only. The recorder
//! does no work for names. A listing bounds what it reads and holds; a session beyond these bounds is listed without a
//! name.

pub(crate) mod beginning;
pub(crate) mod starts;

use std::collections::hash_map::Entry;
use std::time::Duration;

use super::listed::ListedSession;
pub use super::session_names::{NameFilter, Names};
use super::{History, Packets};
use base::time::Timestamp;
use decode::names::Parsed;
use starts::{REQUEST_BYTES_MAX, Request, SessionStarts, Start, payload};

/// Maximum time from the first packet of a session to its names.
const SOON: Duration = Duration::from_secs(30);
/// Bytes of unfinished requests above which a page drops old and doubtful ones.
const HELD_BYTES_MAX: usize = 256 << 10;
/// Maximum number of records that one listing reads for names (about half a second).
pub const RECORDS_MAX: u64 = 16_000_000;

/// The remaining read allowance of one listing.
#[derive(Debug)]
pub(super) struct ReadAllowance {
    records: u64,
    /// Sessions listed without a name because of the bounds.
    pub(super) skipped: u64,
}

impl Default for ReadAllowance {
    fn default() -> Self {
        Self { records: RECORDS_MAX, skipped: 0 }
    }
}

impl History {
    /// Reads the names of a page of sessions.
    pub(super) fn name(&self, page: &mut [ListedSession], allowance: &mut ReadAllowance) {
        let mut starts = SessionStarts::default();
        let mut window: Option<(Timestamp, Timestamp)> = None;
        for (row, listed) in page.iter().enumerate() {
            let session = &listed.session;
            if session.kept_packets == 0 || !Request::possible(session.key.protocol(), session) {
                continue;
            }
            let until = session.last.min(session.first.saturating_add(SOON));
            let (first, last) = window.get_or_insert((session.first, until));
            (*first, *last) = (session.first.min(*first), until.max(*last));
            let (first_sequence, first) = (session.first_sequence, session.first);
            let start = Start { row, first_sequence, first, until, request: Request::default() };
            starts.0.insert((listed.worker, session.slot), start);
        }
        let Some(window) = window else { return };
        let sessions = starts.0.len() as u64;
        let Some(mut packets) = Packets::of_starts(self, window, starts, &mut allowance.records) else {
            allowance.skipped += sessions;
            return;
        };
        let mut held_bytes = 0;
        while let Some(found) = packets.next() {
            let (worker, slot) = (u16::try_from(found.worker).unwrap_or(u16::MAX), found.header.session);
            let now = found.packet.time;
            let decoded = decode::decode(found.packet.link_type, found.packet.data);
            let payload = payload(found.packet.data, &decoded).to_vec();
            let Some(starts) = packets.starts_mut() else { return };
            if held_bytes > HELD_BYTES_MAX {
                held_bytes = starts.give_up(now);
            }
            let Entry::Occupied(mut start) = starts.0.entry((worker, slot)) else { continue };
            let request = &mut start.get_mut().request;
            let before = request.bytes();
            let parsed = request.packet(&decoded, payload);
            held_bytes = held_bytes + request.bytes() - before;
            let overfull = held_bytes > HELD_BYTES_MAX + REQUEST_BYTES_MAX;
            if parsed == Parsed::More && !overfull {
                continue;
            }
            allowance.skipped += u64::from(overfull && parsed == Parsed::More);
            let start = start.remove();
            held_bytes -= start.request.bytes();
            if let (Parsed::Name(names), Some(listed)) = (parsed, page.get_mut(start.row)) {
                listed.names = names;
            }
            if starts.0.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
