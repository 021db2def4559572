//! Searches for many selectors in one pass, and widens packets to the sessions they belong to.
//!
//! Ten thousand alerts must not read the store ten thousand times. An index therefore holds all selectors. One pass
//! over the session array finds the sessions that each selector matches, and one pass over the packets returns each
//! packet with its selectors. If a packet's session was forgotten, the packet's own headers and time decide.
//!
//! [`SearchLimits`] bounds the sessions that a search widens to. It counts the sessions beyond this bound.

mod find;
mod index;
mod on_disk;
mod target;

use std::collections::{HashMap, HashSet};

use super::notes::SearchNotes;
use base::packet::{InterfaceId, LinkType};
use base::time::Timestamp;
use decode::{self, Network};
use engine::session::{Session, SessionArray, SessionKey, SessionSlot};
use engine::store::record::RecordHeader;
use index::Index;
use on_disk::DiskSearch;
use spool::read::{ReadSummary, Selection};
pub use target::{SearchTarget, Selector};

/// Bounds on the memory of a search that widens to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchLimits {
    /// Maximum number of sessions. A session counts once for each selector that matches it ([`SEARCH_SESSION_BYTES`]
    /// each).
    pub sessions_max: usize,
}

/// Maximum number of sessions that one query widens to. The memory for queries can lower it.
pub const SEARCH_SESSIONS_MAX: usize = 16_384;
/// Bytes for one such session, including the free slots of the map.
pub const SEARCH_SESSION_BYTES: u64 = 96;
/// Bytes for one selector: as parsed, in the index, and in the report on it.
pub const SELECTOR_BYTES: u64 = 384;

/// Totals of the known sessions that a selector matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTotals {
    /// Number of sessions.
    pub sessions: u64,
    /// Their packets.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Their retained packets.
    pub kept_packets: u64,
    /// Their retained captured bytes.
    pub kept_bytes: u64,
    /// Sessions left out because of [`SearchLimits`].
    pub left_out: u64,
    /// Those of the sessions that have lost packets.
    pub cut: u64,
    /// Cut sessions that may match, but the packets that would decide were evicted.
    pub undecided: u64,
    /// Packets found on disk.
    pub on_disk: u64,
}

impl SessionTotals {
    /// Adds a session.
    pub fn add(&mut self, session: &Session) {
        self.sessions += 1;
        self.cut += u64::from(session.kept_packets < session.packets.sum());
        self.packets += session.packets.sum();
        self.bytes += session.bytes.sum();
        self.kept_packets += session.kept_packets;
        self.kept_bytes += session.kept_bytes;
    }

    /// Whether packets of the sessions are no longer retained.
    pub fn is_cut(&self) -> bool {
        self.kept_packets < self.packets
    }
}

/// Selectors, prepared for one pass over the packets.
#[derive(Debug, Default)]
pub struct Search {
    index: Index,
    /// Sessions to return whole, by worker and slot; `None` if each packet is matched on its own.
    whole_sessions: Option<HashMap<(usize, u32), WholeSession>>,
    /// Keys of sessions to return whole that are no longer in the session array.
    keys: HashSet<SessionKey>,
    /// Totals for each selector.
    pub known: Vec<SessionTotals>,
    /// Indices of the selectors that match the packet checked last, ascending.
    hits: Vec<u32>,
    window: (Timestamp, Timestamp),
    /// What the packets were found in that the search was widened from.
    pub(super) notes: SearchNotes,
    /// What is asked of the packets on disk; `None` if memory alone is asked.
    disk: Option<DiskSearch>,
}

#[derive(Debug)]
struct WholeSession {
    first_sequence: u64,
    selections: Vec<u32>,
}

impl Search {
    /// Selects all packets of the given sessions.
    pub(super) fn of_sessions(sessions: &[(usize, Session)], limits: SearchLimits) -> Self {
        let mut search = Self {
            whole_sessions: Some(HashMap::new()),
            known: vec![SessionTotals::default()],
            window: (Timestamp::MAX, Timestamp::MIN),
            ..Self::default()
        };
        for (worker, session) in sessions.iter().take(limits.sessions_max) {
            search.want_whole(*worker, session, &[0]);
        }
        search
    }

    /// The time range that can hold selected packets.
    pub(super) fn window(&self) -> (Timestamp, Timestamp) {
        if self.keys.is_empty() { self.window } else { (Timestamp::MIN, Timestamp::MAX) }
    }

    fn reach(&mut self, first: Timestamp, last: Timestamp) {
        self.window = (self.window.0.min(first), self.window.1.max(last));
    }

    fn want_whole(&mut self, worker: usize, session: &Session, selections: &[u32]) {
        if selections.is_empty() {
            return;
        }
        self.reach(session.first, session.last);
        let entry = WholeSession { first_sequence: session.first_sequence, selections: selections.to_vec() };
        if let Some(whole_sessions) = &mut self.whole_sessions {
            whole_sessions.insert((worker, session.slot.0), entry);
        }
    }

    /// Groups the selectors that select the same sessions, whose files would be equal. Returns the first selector of
    /// each selector's group.
    pub fn groups(&self) -> Vec<u32> {
        let count = self.known.len();
        let mut sessions: Vec<Vec<(usize, u32)>> = vec![Vec::new(); count];
        for (&slot, session) in self.whole_sessions.iter().flatten() {
            for &selection in &session.selections {
                sessions[selection as usize].push(slot);
            }
        }
        if let Some(on_disk) = self.disk.as_ref().and_then(|disk| disk.sessions.as_ref()) {
            on_disk.each_selection(&mut |number, selection| {
                sessions[selection as usize].push((usize::MAX, u32::try_from(number).unwrap_or(u32::MAX)));
            });
        }
        let mut first: HashMap<Vec<(usize, u32)>, u32> = HashMap::new();
        (0u32..)
            .zip(sessions)
            .map(|(selection, mut slots)| {
                // A selector without known sessions may still match packets of forgotten sessions.
                if slots.is_empty() {
                    return selection;
                }
                slots.sort_unstable();
                *first.entry(slots).or_insert(selection)
            })
            .collect()
    }

    /// Indices of the selectors that match the packet checked last, ascending.
    pub(super) fn hits(&self) -> &[u32] {
        &self.hits
    }

    /// Whether the packet is selected, judged by its record and its session; `None` if its bytes must decide.
    pub(super) fn by_record(&mut self, worker: usize, sessions: &SessionArray, header: &RecordHeader) -> Option<bool> {
        self.hits.clear();
        if self.whole_sessions.is_some() {
            return self.by_whole_session(worker, sessions, header);
        }
        let session = sessions.session_at(header.session, header.sequence)?;
        self.index.matching(&session.key, header.time, header.time, &mut self.hits);
        Some(!self.hits.is_empty())
    }

    /// Whether a packet of a forgotten session is selected, judged by its bytes.
    pub(super) fn by_bytes(&mut self, header: &RecordHeader, link_type: LinkType, data: &[u8]) -> bool {
        let decoded = decode::decode(link_type, data);
        let (key, _) = SessionKey::new(&decoded, header.interface);
        if self.keys.contains(&key) {
            self.hits.push(0);
            return true;
        }
        if decoded.network == Network::Link {
            return false;
        }
        self.index.matching(&key, header.time, header.time, &mut self.hits);
        !self.hits.is_empty()
    }

    fn by_whole_session(&mut self, worker: usize, sessions: &SessionArray, header: &RecordHeader) -> Option<bool> {
        let now = sessions.session(SessionSlot(header.session.0));
        let forgotten = now.is_none_or(|now| now.first_sequence > header.sequence);
        if let Some(wanted) =
            self.whole_sessions.as_ref().and_then(|whole_sessions| whole_sessions.get(&(worker, header.session.0)))
            && wanted.first_sequence <= header.sequence
            && (forgotten || now.is_some_and(|now| now.first_sequence == wanted.first_sequence))
        {
            self.hits.extend_from_slice(&wanted.selections);
            return Some(true);
        }
        if forgotten && (!self.keys.is_empty() || !self.index.is_empty()) { None } else { Some(false) }
    }
}

impl Search {
    /// Whether a packet on disk is selected.
    pub(crate) fn on_disk(&mut self, time: Timestamp, interface: &str, link_type: LinkType, data: &[u8]) -> bool {
        self.hits.clear();
        let Some(disk) = &mut self.disk else { return false };
        match &mut disk.sessions {
            Some(sessions) => {
                let key = sessions.key(interface, link_type, data);
                self.hits.extend(sessions.overlapping(&key, time, time).unwrap_or_default());
            }
            None => {
                let decoded = decode::decode(link_type, data);
                if decoded.network != Network::Link {
                    let key = SessionKey::new(&decoded, InterfaceId(0)).0;
                    self.index.matching(&key, time, time, &mut self.hits);
                }
            }
        }
        for selection in &self.hits {
            if let Some(known) = self.known.get_mut(*selection as usize) {
                known.on_disk += 1;
            }
        }
        !self.hits.is_empty()
    }

    /// What has to be read on disk for the answer; `None` if it does not come from disk.
    pub(crate) fn disk_selection(&self) -> Option<Selection> {
        self.disk.as_ref().map(DiskSearch::selection)
    }

    /// What could not be read on disk while sessions were looked for.
    pub(crate) fn disk_unread(&self) -> ReadSummary {
        self.disk.as_ref().map(|disk| disk.unread).unwrap_or_default()
    }
}
