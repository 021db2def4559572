//! Listings of the known sessions, including sessions without retained packets.

use std::collections::BinaryHeap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attribution::Attribution;
use super::explain::undecided;
use super::matching::SessionMatcher;
use super::names::{Names, ReadAllowance};
pub use super::page_mark::PageMark;
use super::{History, QueryError, Request};
use base::foreign::Foreign;
use base::interface::Interface;
use decode::Network;
use engine::session::community_id::CommunityId;
use engine::session::{ArchivePosition, BlockCache, Endpoint, Session, SessionSlot};

/// The sort order of a listing. Amounts descend. Times ascend, except for `Newest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// Time of the first packet, newest first.
    #[default]
    Newest,
    /// Time of the first packet.
    Start,
    /// Time of the latest packet.
    Last,
    /// Bytes on the wire, most first.
    Bytes,
    /// Packets, most first.
    Packets,
    /// Time between the first and the latest packet, longest first.
    Duration,
    /// Bytes sent by the originator, most first.
    Out,
    /// Bytes sent by the responder, most first.
    In,
}

impl Sort {
    /// The sort key. A listing is in ascending order of it.
    fn key(self, session: &Session) -> u64 {
        match self {
            Self::Newest => u64::MAX - session.first.0,
            Self::Start => session.first.0,
            Self::Last => session.last.0,
            Self::Bytes => u64::MAX - session.bytes.sum(),
            Self::Packets => u64::MAX - session.packets.sum(),
            Self::Duration => u64::MAX - session.last.0.saturating_sub(session.first.0),
            Self::Out => u64::MAX - session.bytes.originator,
            Self::In => u64::MAX - session.bytes.responder,
        }
    }
}

/// One endpoint in JSON: an IP address and port, or a link-layer address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowEndpoint {
    /// IP address; null if the session is not IP.
    pub ip: Option<Foreign>,
    /// Port; for ICMP the type or code; 0 if there is none.
    pub port: u16,
    /// Link-layer address, if the session is not IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Foreign>,
}

/// A count for each endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowCount {
    /// Sent by the originator.
    pub originator: u64,
    /// Sent by the responder.
    pub responder: u64,
}

impl FlowCount {
    /// Sum of both counts.
    pub fn sum(self) -> u64 {
        self.originator.saturating_add(self.responder)
    }
}

/// One session in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flow {
    /// Time of the first packet.
    #[schemars(extend("format" = "date-time"))]
    pub first: Foreign,
    /// Time of the latest packet.
    #[schemars(extend("format" = "date-time"))]
    pub last: Foreign,
    /// `tcp`, `udp` and other names; the number of an IP protocol without a name here; the ethertype of a session that
    /// is not IP.
    pub proto: Foreign,
    /// The endpoint that sent the SYN, or else the first packet.
    pub originator: FlowEndpoint,
    /// The other endpoint.
    pub responder: FlowEndpoint,
    /// Name of the capture interface; empty if it is no longer known.
    pub interface: Foreign,
    /// Packets seen.
    pub packets: FlowCount,
    /// Bytes on the wire seen.
    pub bytes: FlowCount,
    /// Retained captured bytes.
    pub kept_bytes: u64,
    /// Retained packets.
    pub kept_packets: u64,
    /// Time at which packets of the session were last removed; null while all are retained.
    #[schemars(extend("format" = "date-time"))]
    #[serde(default)]
    pub cut_at: Option<Foreign>,
    /// Parts that are missing between packets of it that are there, at least; 0 where it is whole or was cut from its end.
    #[serde(default)]
    pub holes: u64,
    /// How far it came.
    pub state: Foreign,
    /// Community ID version 1, with the seed of the request or else that of the recorder; null if the session is not
    /// IP.
    pub community_id: Option<Foreign>,
    /// Outermost VLAN ID; null without a VLAN tag.
    pub vlan: Option<u16>,
    /// Names in its first packets, if these are retained.
    #[serde(flatten)]
    pub names: Names,
    /// The processes that had it, where they are watched.
    #[serde(flatten)]
    pub attribution: Attribution,
}

/// A session and the names in its first packets.
#[derive(Clone, Debug)]
pub struct ListedSession {
    /// The session.
    pub session: Session,
    /// Parts that are missing between packets of it that are there, at least.
    pub holes: u64,
    /// Its names; none where they were not looked up.
    pub names: Names,
    /// Index of the worker that stores it.
    pub(super) worker: u16,
}

/// The position of a session in a listing: its sort key and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    key: u64,
    first_sequence: u64,
    worker: u16,
    slot: u32,
    /// Its place in the archive, if it has left the session array.
    past: Option<ArchivePosition>,
}

/// A listing of sessions in sort order. Each session is read only when the caller asks for it.
#[derive(Debug)]
pub struct Flows<'h> {
    history: &'h History,
    rows: std::vec::IntoIter<Row>,
    left: usize,
    overtaken: u64,
    recent: BlockCache,
    allowance: ReadAllowance,
    totals: FlowTotals,
    unlisted: Unlisted,
    /// The row read last.
    last: Option<Row>,
}

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
}

impl FlowTotals {
    fn add(&mut self, session: &Session) {
        self.sessions += 1;
        self.packets = self.packets.saturating_add(session.packets.sum());
        self.bytes = self.bytes.saturating_add(session.bytes.sum());
        self.kept_bytes = self.kept_bytes.saturating_add(session.kept_bytes);
    }
}

/// Sessions that are not listed, although a user may expect them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unlisted {
    /// Sessions that may match, but the packets that would decide were evicted.
    pub undecided: u64,
    /// Sessions whose addresses and ports match, but in packets that the expression does not look into.
    pub unopened: u64,
}

impl Unlisted {
    /// Describes these sessions; `None` if there are none.
    pub fn sentence(self) -> Option<String> {
        let undecided = (self.undecided > 0).then(|| undecided(self.undecided));
        let unopened = (self.unopened > 0).then(|| {
            format!(
                "{} sessions have these addresses and ports in packets that the expression does not look into (tags, \
                 tunnels, extension headers): --address, --port or --flow finds them",
                self.unopened
            )
        });
        let parts: Vec<String> = [undecided, unopened].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl Row {
    fn mark(&self) -> PageMark {
        let Self { key, first_sequence, worker, past, .. } = *self;
        PageMark { key, first_sequence, worker, past: past.is_some() }
    }
}

/// Sessions found beyond the limit of a listing. In a flood, the first ones may disappear before they are read.
pub const SPARE_ROWS: u64 = 2048;

impl History {
    /// Lists the sessions that match, sorted.
    ///
    /// # Errors
    ///
    /// The same as for a search for packets.
    pub fn flows(&self, request: &Request, sort: Sort) -> Result<Flows<'_>, QueryError> {
        self.flows_after(request, sort, None)
    }

    /// Lists the sessions that match, sorted; if `after` is given, only those after this mark.
    ///
    /// A session matches a window that it overlaps, and an expression that one of its packets matches. The totals cover
    /// all sessions that match, regardless of the limit and the mark.
    ///
    /// # Errors
    ///
    /// The same as for a search for packets.
    pub fn flows_after(&self, request: &Request, sort: Sort, after: Option<PageMark>) -> Result<Flows<'_>, QueryError> {
        let bounded = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
        let left = bounded(request.limit.unwrap_or(u64::MAX));
        let limit = left.saturating_add(bounded(SPARE_ROWS));
        let mut totals = FlowTotals::default();
        // A max-heap of the first rows: the last of them is on top and is replaced first.
        let mut rows: BinaryHeap<Row> = BinaryHeap::new();
        let unlisted = self.each_session(request, |worker, past, session| {
            totals.add(session);
            let row = Row {
                key: sort.key(session),
                first_sequence: session.first_sequence,
                worker,
                slot: session.slot.0,
                past,
            };
            if after.is_some_and(|after| row.mark() <= after) {
                return;
            }
            if rows.len() >= limit {
                if rows.peek().is_none_or(|last| row >= *last) {
                    return;
                }
                rows.pop();
            }
            rows.push(row);
        })?;
        Ok(Flows {
            history: self,
            rows: rows.into_sorted_vec().into_iter(),
            left,
            overtaken: 0,
            allowance: ReadAllowance::default(),
            recent: BlockCache::default(),
            totals,
            unlisted,
            last: None,
        })
    }

    /// Calls `each` with every session that the request matches.
    pub(super) fn each_session(
        &self,
        request: &Request,
        mut each: impl FnMut(u16, Option<ArchivePosition>, &Session),
    ) -> Result<Unlisted, QueryError> {
        let (since, until) = request.window()?;
        let mut matcher = SessionMatcher::new(self, request)?;
        for (worker, reader) in (0u16..).zip(&self.workers) {
            for (past, session) in reader.sessions.known(since, until) {
                if session.packets.sum() > 0 && matcher.matches(worker, &session) {
                    each(worker, past, &session);
                }
            }
        }
        Ok(Unlisted { undecided: matcher.undecided, unopened: matcher.unopened })
    }

    /// Lists the sessions whose names contain `part`, sorted. Searches at most `rows_max` of the sessions that match
    /// the request, in time order. Ignores ASCII case.
    ///
    /// # Errors
    ///
    /// The same as for [`flows`](Self::flows).
    pub fn flows_named(
        &self,
        request: &Request,
        sort: Sort,
        part: &str,
        rows_max: u64,
    ) -> Result<NamedSessions, QueryError> {
        let part = part.to_ascii_lowercase();
        let mut flows = self.flows(&Request { limit: Some(rows_max), ..request.clone() }, Sort::Start)?;
        let mut named = NamedSessions::default();
        loop {
            let page = flows.page(PAGE_ROWS);
            if page.is_empty() {
                break;
            }
            named.searched += page.len() as u64;
            named.sessions.extend(page.into_iter().filter(|listed| listed.names.contain(&part)));
            if named.sessions.len() > NAMED_MAX {
                named.beyond = true;
                break;
            }
        }
        named.unread = flows.unread();
        named.sessions.sort_by_key(|listed| sort.key(&listed.session));
        let limit = request.limit.map_or(NAMED_MAX, |limit| usize::try_from(limit).unwrap_or(NAMED_MAX));
        named.sessions.truncate(limit);
        Ok(named)
    }
}

/// Number of sessions that are read, and whose names are looked up, at once.
pub const PAGE_ROWS: usize = 1024;
/// Maximum number of sessions found by name. They are held in memory until the search ends.
pub const NAMED_MAX: usize = 4096;

/// Sessions found by name.
#[derive(Clone, Debug, Default)]
pub struct NamedSessions {
    /// The sessions found.
    pub sessions: Vec<ListedSession>,
    /// Number of sessions searched.
    pub searched: u64,
    /// Number of searched sessions whose names were not read because of the limits on time and memory.
    pub unread: u64,
    /// Whether the search ended early because it found more than [`NAMED_MAX`] sessions.
    pub beyond: bool,
}

impl Flows<'_> {
    /// Sessions that were found, but whose entries were given to other sessions before they were read.
    pub fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// Totals of all sessions that match, including those beyond the limit and before the mark.
    pub fn totals(&self) -> FlowTotals {
        self.totals
    }

    /// Sessions that are not listed, although a user may expect them.
    pub fn unlisted(&self) -> Unlisted {
        self.unlisted
    }

    /// The mark of the next page; `None` if every row was read.
    pub fn next_mark(&self) -> Option<PageMark> {
        self.last.filter(|_| self.rows.len() > 0).map(|row| row.mark())
    }

    /// Listed sessions whose names were not read because of the limits on time and memory.
    pub fn unread(&self) -> u64 {
        self.allowance.skipped
    }

    /// Reads the next sessions and their names, at most `rows`. Returns none at the end.
    pub fn page(&mut self, rows: usize) -> Vec<ListedSession> {
        let mut page: Vec<ListedSession> = Vec::new();
        let workers = &self.history.workers;
        let lost_until: Vec<_> = workers.iter().map(|worker| worker.published.totals().lost_until).collect();
        while page.len() < rows
            && let Some((worker, session)) = self.next_session()
        {
            let lost_until = lost_until.get(usize::from(worker)).copied().flatten();
            let holes = session.holes(lost_until);
            page.push(ListedSession { session, holes, names: Names::default(), worker });
        }
        self.history.name(&mut page, &mut self.allowance);
        page
    }

    fn next_session(&mut self) -> Option<(u16, Session)> {
        self.left = self.left.checked_sub(1)?;
        loop {
            let row = self.rows.next()?;
            self.last = Some(row);
            let sessions = &self.history.workers.get(usize::from(row.worker))?.sessions;
            // The entry may belong to another session by now.
            let found = match row.past {
                Some(place) => sessions.past_session(place, &mut self.recent),
                None => sessions.session(SessionSlot(row.slot)),
            };
            match found {
                Some(session) if session.first_sequence == row.first_sequence => return Some((row.worker, session)),
                _ => self.overtaken += 1,
            }
        }
    }
}

impl Iterator for Flows<'_> {
    type Item = Session;

    fn next(&mut self) -> Option<Session> {
        self.next_session().map(|(_, session)| session)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.rows.len().min(self.left)))
    }
}

impl Flow {
    /// Converts a session to its JSON form. `seed` is the seed of the Community ID.
    pub fn new(session: &Session, interface: Option<&Interface>, seed: u16) -> Self {
        Self {
            first: session.first.to_rfc3339().into(),
            last: session.last.to_rfc3339().into(),
            proto: protocol(session).into(),
            originator: endpoint(session.originator()),
            responder: endpoint(session.responder()),
            // The table entry may belong to another interface by now.
            interface: interface.filter(|i| i.since <= session.last).map(|i| i.name.clone()).unwrap_or_default().into(),
            packets: FlowCount { originator: session.packets.originator, responder: session.packets.responder },
            bytes: FlowCount { originator: session.bytes.originator, responder: session.bytes.responder },
            kept_bytes: session.kept_bytes,
            kept_packets: session.kept_packets,
            cut_at: session.cut_at.map(|at| at.to_rfc3339().into()),
            holes: 0,
            state: session.state().as_str().into(),
            community_id: CommunityId::new(&session.key, seed).map(|id| id.to_string().into()),
            vlan: session.key.vlan(),
            names: Names::default(),
            attribution: Attribution::default(),
        }
    }

    /// Whether packets of the session are no longer retained.
    pub fn is_cut(&self) -> bool {
        self.kept_packets < self.packets.sum()
    }
}

fn endpoint(endpoint: Endpoint) -> FlowEndpoint {
    FlowEndpoint {
        ip: endpoint.ip.map(|ip| ip.to_string().into()),
        port: endpoint.port,
        mac: endpoint.mac.map(|_| endpoint.to_string().into()),
    }
}

/// The value of [`Flow::proto`] for a session.
pub(super) fn protocol(session: &Session) -> String {
    let key = &session.key;
    let name = match (key.network(), key.protocol()) {
        (Network::Link, _) => {
            return match key.ethertype() {
                0 => "link".to_owned(),
                0x0806 => "arp".to_owned(),
                0x88cc => "lldp".to_owned(),
                0x8892 => "profinet".to_owned(),
                ethertype => format!("{ethertype:#06x}"),
            };
        }
        (_, 1) => "icmp",
        (_, 2) => "igmp",
        (_, 6) => "tcp",
        (_, 17) => "udp",
        (_, 47) => "gre",
        (_, 50) => "esp",
        (_, 51) => "ah",
        (_, 58) => "icmp6",
        (_, 132) => "sctp",
        (_, number) => return number.to_string(),
    };
    name.to_owned()
}
