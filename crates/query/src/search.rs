//! Many selections answered at once, and packets widened to the sessions they belong to.
//!
//! Ten thousand alerts must not read the store ten thousand times. So all selections are put into an index; one look
//! through the ledger tells which sessions each of them means, and one pass over the packets gives every packet with the
//! selections that want it. Where the ledger has forgotten a packet's session, its own headers and time tell.
//!
//! What is held is bounded: so many sessions are widened to ([`SearchLimits`]), and those beyond are counted.

mod index;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::selectors::Flow;
use super::{History, Packets, QueryError, Request};
use base::packet::LinkType;
use base::time::Timestamp;
use decode::{self, Network};
use engine::session::community_id::CommunityId;
use engine::session::{Session, SessionArray, SessionKey, SessionSlot};
use engine::store::record::RecordHeader;
use index::Index;

/// Whose packets a selection wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchTarget {
    /// Sessions between two endpoints.
    Flow(Flow),
    /// All sessions of a host.
    Host(IpAddr),
    /// The session with this name.
    CommunityId(CommunityId),
}

impl std::fmt::Display for SearchTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flow(flow) => write!(f, "{flow}"),
            Self::Host(host) => write!(f, "{host}"),
            Self::CommunityId(id) => write!(f, "{id}"),
        }
    }
}

/// One selection: sessions that had packets within a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Whose.
    pub target: SearchTarget,
    /// From this time on.
    pub since: Timestamp,
    /// Until this time.
    pub until: Timestamp,
}

/// How much may be held while packets are widened to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchLimits {
    /// Sessions, each counted once for each selection that means it ([`SEARCH_SESSION_BYTES`] each).
    pub sessions_max: usize,
}

/// Sessions that one query widens to at most, where the memory for queries allows.
pub const SEARCH_SESSIONS_MAX: usize = 16_384;
/// Bytes that one of them takes, the map's free places included.
pub const SEARCH_SESSION_BYTES: u64 = 96;
/// Bytes that one selection takes: as it is read, in the index, and for what is told of it.
pub const SELECTOR_BYTES: u64 = 384;

/// What the ledger knows of a selection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTotals {
    /// Sessions that are meant.
    pub sessions: u64,
    /// Their packets.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Those of their packets that are still there.
    pub kept_packets: u64,
    /// Captured bytes of these.
    pub kept_bytes: u64,
    /// Sessions that were left out because there were too many.
    pub left_out: u64,
    /// Cut sessions of which the packets that are gone would tell whether they are meant.
    pub undecided: u64,
}

impl SessionTotals {
    /// Counts a session.
    pub fn add(&mut self, session: &Session) {
        self.sessions += 1;
        self.packets += session.packets.sum();
        self.bytes += session.bytes.sum();
        self.kept_packets += session.kept_packets;
        self.kept_bytes += session.kept_bytes;
    }

    /// Whether packets are gone.
    pub fn is_cut(&self) -> bool {
        self.kept_packets < self.packets
    }
}

/// Selections, ready to be asked of packets; for one pass.
#[derive(Debug, Default)]
pub struct Search {
    index: Index,
    /// Sessions that are wanted whole; `None` where each packet is asked for itself.
    whole_sessions: Option<HashMap<(usize, u32), WholeSession>>,
    /// Sessions that are wanted whole, though the ledger has forgotten them.
    keys: HashSet<SessionKey>,
    /// For each selection, what the ledger knows.
    pub known: Vec<SessionTotals>,
    /// The selections that want the packet that was looked at last.
    hits: Vec<u32>,
    window: (Timestamp, Timestamp),
}

#[derive(Debug)]
struct WholeSession {
    first_sequence: u64,
    selections: Vec<u32>,
}

impl History {
    /// Looks up what many selections mean. With `whole`, a session that has packets in a selection's window is wanted
    /// whole; without, its packets of the window are.
    pub fn search(&self, selectors: &[Selector], seed: u16, whole: bool, limits: SearchLimits) -> Search {
        let mut search = Search {
            index: Index::new(selectors, seed),
            whole_sessions: whole.then(HashMap::new),
            known: vec![SessionTotals::default(); selectors.len()],
            window: (Timestamp::MAX, Timestamp::MIN),
            ..Search::default()
        };
        for selector in selectors {
            search.reach(selector.since, selector.until);
        }
        let (since, until) = search.window;
        let mut picked = 0;
        let mut hits = Vec::new();
        for (worker, reader) in self.workers.iter().enumerate() {
            for session in reader.sessions.overlapping(since, until).filter(|session| session.packets.sum() > 0) {
                hits.clear();
                search.index.matching(&session.key, session.first, session.last, &mut hits);
                for &selection in &hits {
                    if let Some(known) = search.known.get_mut(selection as usize) {
                        known.add(&session);
                    }
                }
                if whole && !hits.is_empty() {
                    let room = limits.sessions_max.saturating_sub(picked).min(hits.len());
                    for &selection in &hits[room..] {
                        search.known[selection as usize].left_out += 1;
                    }
                    picked += room;
                    search.want_whole(worker, &session, &hits[..room]);
                }
            }
        }
        search
    }

    /// Looks up the sessions that the packets of `request` belong to. All of them are wanted whole, within no window.
    ///
    /// # Errors
    ///
    /// As for the packets themselves.
    pub fn widen<'h>(
        &'h self,
        request: &Request,
        limits: SearchLimits,
        prepare: impl FnOnce(Packets<'h>) -> Packets<'h>,
    ) -> Result<Search, QueryError> {
        let mut search = Search {
            whole_sessions: Some(HashMap::new()),
            known: vec![SessionTotals::default()],
            window: (Timestamp::MAX, Timestamp::MIN),
            ..Search::default()
        };
        let mut left_out: HashSet<(usize, u32)> = HashSet::new();
        let mut packets = prepare(self.packets(&Request { limit: None, ..request.clone() })?);
        let mut held = 0;
        while let Some(found) = packets.next() {
            let (worker, header) = (found.worker, found.header);
            if search.by_record(worker, &self.workers[worker].sessions, &header) == Some(true) {
                continue;
            }
            search.reach(header.time, header.time);
            let room = held < limits.sessions_max;
            match self.workers[worker].sessions.session_at(header.session, header.sequence) {
                Some(session) if room => {
                    search.known[0].add(&session);
                    search.want_whole(worker, &session, &[0]);
                    held += 1;
                }
                None if room => {
                    let decoded = decode::decode(found.packet.link_type, found.packet.data);
                    held += usize::from(search.keys.insert(SessionKey::new(&decoded, header.interface).0));
                }
                // Counted once for each as far as there is room to remember them.
                _ if left_out.len() < limits.sessions_max / 4 => {
                    search.known[0].left_out += u64::from(left_out.insert((worker, header.session.0)));
                }
                _ => {}
            }
        }
        Ok(search)
    }
}

impl Search {
    /// All packets of some sessions.
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

    /// From and until when packets can be wanted.
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

    /// Groups of selections that mean the same sessions: for each selection the first of its group. Their files would be
    /// equal.
    pub fn groups(&self) -> Vec<u32> {
        let count = self.known.len();
        let mut sessions: Vec<Vec<(usize, u32)>> = vec![Vec::new(); count];
        for (&slot, session) in self.whole_sessions.iter().flatten() {
            for &selection in &session.selections {
                sessions[selection as usize].push(slot);
            }
        }
        let mut first: HashMap<Vec<(usize, u32)>, u32> = HashMap::new();
        (0u32..)
            .zip(sessions)
            .map(|(selection, mut slots)| {
                // What means no session that is known may mean packets whose session was forgotten.
                if slots.is_empty() {
                    return selection;
                }
                slots.sort_unstable();
                *first.entry(slots).or_insert(selection)
            })
            .collect()
    }

    /// The selections that want the packet that was looked at last.
    pub(super) fn hits(&self) -> &[u32] {
        &self.hits
    }

    /// Whether a packet is wanted, as far as its record tells; `None` where its bytes must be looked at.
    pub(super) fn by_record(&mut self, worker: usize, sessions: &SessionArray, header: &RecordHeader) -> Option<bool> {
        self.hits.clear();
        if self.whole_sessions.is_some() {
            return self.by_whole_session(worker, sessions, header);
        }
        let session = sessions.session_at(header.session, header.sequence)?;
        self.index.matching(&session.key, header.time, header.time, &mut self.hits);
        Some(!self.hits.is_empty())
    }

    /// Whether a packet is wanted whose session the ledger has forgotten.
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
