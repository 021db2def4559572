//! Listings of the known sessions in sort order, including sessions without retained packets.
//!
//! A listing holds a bounded number of rows. If more sessions match, it reads them in several passes over the session
//! table and the archive:
//!
//! ```text
//!   pass 1   rows_max first rows ──► pages      boundary = the last group that was listed whole
//!   pass 2   rows_max first rows after the boundary ──► pages      …until no row is left
//! ```
//!
//! Recording continues meanwhile. The following rules make sure that a session is listed once:
//! - A session that began after the first pass is not listed, unless it began in the same millisecond and was archived.
//! - A bit per slot notes the sessions of the table that were listed, because their sort keys can change.
//! - A session that moves to the archive keeps its place relative to the boundary; see `SortKey`. The exception is a
//!   session that changed after the first pass before it moved. Such sessions are counted as [`Flows::unsure`].

use std::collections::{BinaryHeap, HashSet};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use serde::{Deserialize, Serialize};

use super::explain::undecided;
use super::flows::{MILLI_NS, Sort, SortKey};
pub use super::listed::ListedSession;
use super::matching::SessionMatcher;
use super::names::ReadAllowance;
use super::notes::SessionBits;
pub use super::page_mark::PageMark;
use super::session_names::{NameFilter, Names};
use super::{History, QueryError, Request};
use base::time::Timestamp;
use engine::session::{ArchivePosition, BlockCache, Session, SessionSlot};

/// Number of sessions that are read, and whose names are looked up, at once.
pub const PAGE_ROWS: usize = 1024;
/// Bytes of a session while a listing is sorted.
pub const ROW_BYTES: u64 = size_of::<Row>() as u64;
/// Rows in addition to the limit of a listing. In a flood, the first ones can disappear before they are read.
const SPARE_ROWS: usize = 256;

/// How sessions are listed.
#[derive(Clone, Debug)]
pub struct ListingOptions {
    /// The sort order.
    pub sort: Sort,
    /// Lists only the sessions after this mark.
    pub after: Option<PageMark>,
    /// Lists only the sessions with such a name.
    pub name: Option<NameFilter>,
    /// Maximum number of rows held at once.
    pub rows_max: usize,
}

impl From<Sort> for ListingOptions {
    fn from(sort: Sort) -> Self {
        Self { sort, after: None, name: None, rows_max: usize::MAX }
    }
}

/// A session that was found, with its position in the order of the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    order: [u64; 3],
    first_sequence: u64,
    place: RowPosition,
    worker: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RowPosition {
    /// The slot of a session in the table.
    Array(u32),
    Archive(ArchivePosition),
}

/// A listing of sessions in sort order. Each session is read only when the caller asks for it.
#[derive(Debug)]
pub struct Flows<'h> {
    history: &'h History,
    window: (Timestamp, Timestamp),
    matcher: SessionMatcher,
    options: ListingOptions,
    /// Whether all rows up to the limit fit into one pass, so that the order within a group is exact in every pass.
    exact: bool,
    /// Sessions that can still be listed.
    left: u64,
    start: Start,
    listed: SessionBits,
    /// Hashes of sessions whose entries were reused before they were read. They may be in the archive.
    overtaken_hashes: HashSet<u64, foldhash::quality::RandomState>,
    /// The position up to which everything was listed.
    boundary: Option<[u64; 3]>,
    /// Whether the last pass found more rows than it could hold.
    more: bool,
    rows: std::vec::IntoIter<Row>,
    overtaken: u64,
    unsure: u64,
    recent: BlockCache,
    allowance: ReadAllowance,
    totals: FlowTotals,
    unlisted: Unlisted,
    searched: u64,
    returned: u64,
    last: Option<PageMark>,
}

/// The state of the recorder when a listing began.
#[derive(Debug)]
struct Start {
    /// Packets stored by each worker.
    stored: Vec<u64>,
    /// Sessions archived by each worker.
    archived: Vec<u64>,
    newest: Timestamp,
    /// The end of its millisecond, to which the archive rounds the end of a session up.
    newest_ms_end: Timestamp,
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
    /// Sessions that have lost packets, but not all.
    pub cut: u64,
    /// Sessions without retained packets.
    pub gone: u64,
}

impl FlowTotals {
    /// Adds a session.
    pub(super) fn add(&mut self, session: &Session) {
        self.sessions += 1;
        self.packets = self.packets.saturating_add(session.packets.sum());
        self.bytes = self.bytes.saturating_add(session.bytes.sum());
        self.kept_bytes = self.kept_bytes.saturating_add(session.kept_bytes);
        match session.kept_packets {
            0 => self.gone += 1,
            kept => self.cut += u64::from(kept < session.packets.sum()),
        }
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

impl History {
    /// Lists the sessions that match, sorted.
    ///
    /// A session matches a window that it overlaps, and an expression that one of its packets matches. The totals cover
    /// all sessions that match, regardless of the limit and the mark.
    ///
    /// # Errors
    ///
    /// The same as for a search for packets.
    pub fn flows(&self, request: &Request, options: impl Into<ListingOptions>) -> Result<Flows<'_>, QueryError> {
        let options = options.into();
        let newest = self.totals().newest.unwrap_or(Timestamp::MIN);
        let start = Start {
            stored: self.workers.iter().map(|worker| worker.published.totals().stored.packets).collect(),
            archived: self.workers.iter().map(|worker| worker.sessions.archived()).collect(),
            newest,
            newest_ms_end: Timestamp(newest.0.div_ceil(MILLI_NS).saturating_mul(MILLI_NS)),
        };
        let left = request.limit.unwrap_or(u64::MAX);
        let exact = options.name.is_none() && left <= options.rows_max as u64;
        let mut flows = Flows {
            history: self,
            window: request.window()?,
            matcher: SessionMatcher::new(self, request)?,
            exact,
            left,
            start,
            listed: SessionBits::new(self),
            overtaken_hashes: HashSet::default(),
            boundary: None,
            more: false,
            rows: Vec::new().into_iter(),
            overtaken: 0,
            unsure: 0,
            recent: BlockCache::default(),
            allowance: ReadAllowance::default(),
            totals: FlowTotals::default(),
            unlisted: Unlisted::default(),
            searched: 0,
            returned: 0,
            last: None,
            options,
        };
        flows.gather(true);
        Ok(flows)
    }

    /// Calls `each` with every session that the request matches.
    pub(super) fn each_session(
        &self,
        request: &Request,
        mut each: impl FnMut(&Session),
    ) -> Result<Unlisted, QueryError> {
        let (since, until) = request.window()?;
        let mut matcher = SessionMatcher::new(self, request)?;
        for (worker, reader) in (0u16..).zip(&self.workers) {
            for (_, session) in reader.sessions.known(since, until) {
                if session.packets.sum() > 0 && matcher.matches(worker, &session) {
                    each(&session);
                }
            }
        }
        Ok(Unlisted { undecided: matcher.undecided, unopened: matcher.unopened })
    }
}

impl Flows<'_> {
    /// Sessions that were found, but left memory before they were read.
    pub fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// Sessions that changed and ended while the listing was read, so that they may be missing or be listed twice.
    pub fn unsure(&self) -> u64 {
        self.unsure
    }

    /// Totals of all sessions that match, including those beyond the limit and before the mark. With a name, they cover
    /// the sessions after the mark, and are complete when the last page was read.
    pub fn totals(&self) -> FlowTotals {
        self.totals
    }

    /// Sessions that are not listed, although a user may expect them.
    pub fn unlisted(&self) -> Unlisted {
        self.unlisted
    }

    /// Sessions whose names were compared, or that have none.
    pub fn searched(&self) -> u64 {
        self.searched
    }

    /// The mark of the next page; `None` if everything was listed.
    pub fn next_mark(&self) -> Option<PageMark> {
        let more = match self.options.name {
            Some(_) => self.totals.sessions > self.returned,
            None => self.left == 0 && (self.rows.len() > 0 || self.more),
        };
        self.last.filter(|_| more)
    }

    /// Listed sessions whose names were not read because of the limits on time and memory.
    pub fn unread(&self) -> u64 {
        self.allowance.skipped
    }

    /// Reads the next sessions and their names, at most `rows`. Returns none at the end.
    pub fn page(&mut self, rows: usize) -> Vec<ListedSession> {
        loop {
            let named = self.options.name.is_some();
            let most = if named { rows } else { usize::try_from(self.left).unwrap_or(usize::MAX).min(rows) };
            let mut page = self.read(most);
            if page.is_empty() {
                return page;
            }
            if let Some(name) = &self.options.name {
                self.searched += page.len() as u64;
                page.retain(|listed| name.matches(&listed.names));
                page.iter().for_each(|listed| self.totals.add(&listed.session));
                page.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                if page.is_empty() {
                    // Beyond the limit, sessions are only added to the totals.
                    continue;
                }
            }
            self.left -= page.len() as u64;
            self.returned += page.len() as u64;
            self.last = page.last().map(|listed| listed.mark);
            return page;
        }
    }

    fn read(&mut self, rows: usize) -> Vec<ListedSession> {
        let mut page: Vec<ListedSession> = Vec::new();
        let workers = &self.history.workers;
        let lost_until: Vec<_> = workers.iter().map(|worker| worker.published.totals().lost_until).collect();
        while page.len() < rows
            && let Some((row, session)) = self.next_session()
        {
            let lost_until = lost_until.get(usize::from(row.worker)).copied().flatten();
            let holes = session.holes(lost_until);
            let mark = self.mark(&row);
            page.push(ListedSession { session, holes, names: Names::default(), worker: row.worker, mark });
        }
        self.history.name(&mut page, &mut self.allowance);
        page
    }

    fn next_session(&mut self) -> Option<(Row, Session)> {
        loop {
            let Some(row) = self.rows.next() else {
                if !self.more && self.overtaken_hashes.is_empty() {
                    return None;
                }
                self.gather(false);
                if self.rows.len() == 0 {
                    return None;
                }
                continue;
            };
            let sessions = &self.history.workers.get(usize::from(row.worker))?.sessions;
            // The entry may belong to another session by now.
            let found = match row.place {
                RowPosition::Archive(place) => sessions.past_session(place, &mut self.recent),
                RowPosition::Array(slot) => sessions.session(SessionSlot(slot)),
            };
            match found.filter(|session| session.first_sequence == row.first_sequence) {
                Some(session) => return Some((row, session)),
                None => {
                    self.overtaken += 1;
                    if let RowPosition::Array(_) = row.place {
                        self.overtaken_hashes.insert(row.hash(self.exact));
                    }
                }
            }
        }
    }

    /// Finds the next rows: as many as fit. `first` is set for the first pass, which adds up the totals.
    fn gather(&mut self, first: bool) {
        let capacity = match usize::try_from(self.left) {
            Ok(left) if self.options.name.is_none() => {
                left.saturating_add(SPARE_ROWS).min(self.options.rows_max.max(left))
            }
            _ => self.options.rows_max,
        };
        let capacity = capacity.max(1);
        self.more = false;
        self.unsure = 0;
        // A max-heap of the first rows: the last of them is on top and is replaced first.
        let mut rows: BinaryHeap<Row> = BinaryHeap::new();
        let history = self.history;
        for (worker, reader) in (0u16..).zip(&history.workers) {
            for (place, session) in reader.sessions.known(self.window.0, self.window.1) {
                if session.packets.sum() == 0 || !self.matcher.matches(worker, &session) {
                    continue;
                }
                if first && self.options.name.is_none() {
                    self.totals.add(&session);
                }
                let row = self.row(worker, place, &session);
                if !self.is_due(first, &row, &session) {
                    continue;
                }
                if rows.len() >= capacity {
                    self.more = true;
                    if rows.peek().is_none_or(|last| row >= *last) {
                        continue;
                    }
                    rows.pop();
                }
                rows.push(row);
            }
        }
        if first {
            self.unlisted = Unlisted { undecided: self.matcher.undecided, unopened: self.matcher.unopened };
        }
        self.overtaken_hashes.clear();
        self.take(rows.into_sorted_vec());
    }

    /// Takes the rows of a pass, up to the last group that is complete.
    fn take(&mut self, mut rows: Vec<Row>) {
        if let (Some(first), Some(last)) = (rows.first().copied(), rows.last().copied()) {
            if self.more && !self.exact && first.order[0] != last.order[0] {
                let whole = rows.partition_point(|row| row.order[0] < last.order[0]);
                rows.truncate(whole);
                self.boundary = rows.last().map(|row| [row.order[0], u64::MAX, u64::MAX]).max(self.boundary);
            } else {
                self.boundary = Some(last.order).max(self.boundary);
            }
        }
        for row in &rows {
            if let RowPosition::Array(slot) = row.place {
                self.listed.insert(row.worker.into(), SessionSlot(slot));
            }
        }
        let exact = self.exact;
        rows.sort_by_key(|row| (row.key(exact), row.order));
        self.rows = rows.into_iter();
    }

    fn row(&self, worker: u16, place: Option<ArchivePosition>, session: &Session) -> Row {
        let SortKey { group, within } = self.options.sort.key(session);
        let hash = hash(session);
        Row {
            order: if self.exact { [group, within, hash] } else { [group, hash, within] },
            first_sequence: session.first_sequence,
            place: place.map_or(RowPosition::Array(session.slot.0), RowPosition::Archive),
            worker,
        }
    }

    /// Whether a session is to be listed and was not listed yet.
    fn is_due(&mut self, first: bool, row: &Row, session: &Session) -> bool {
        let hash = row.hash(self.exact);
        if self.options.after.is_some_and(|after| (row.key(self.exact), hash) <= (after.key, after.hash)) {
            return false;
        }
        if first {
            return true;
        }
        let worker = usize::from(row.worker);
        let is_after = self.boundary.is_none_or(|boundary| row.order > boundary);
        match row.place {
            RowPosition::Array(slot) => {
                let began_before = self.start.stored.get(worker).is_some_and(|stored| session.first_sequence < *stored);
                began_before && !self.listed.contains(worker, SessionSlot(slot))
            }
            RowPosition::Archive(_) => {
                let archived_before = self.start.archived.get(worker).is_some_and(|count| row.first_sequence < *count);
                if archived_before {
                    return is_after;
                }
                if session.first > self.start.newest {
                    return false;
                }
                if self.overtaken_hashes.remove(&hash) {
                    self.overtaken = self.overtaken.saturating_sub(1);
                    return true;
                }
                let moves = !matches!(self.options.sort, Sort::Newest | Sort::Start);
                self.unsure += u64::from(moves && session.last > self.start.newest_ms_end);
                is_after
            }
        }
    }

    fn mark(&self, row: &Row) -> PageMark {
        PageMark { sort: self.options.sort, key: row.key(self.exact), hash: row.hash(self.exact) }
    }
}

impl Row {
    fn key(&self, exact: bool) -> SortKey {
        SortKey { group: self.order[0], within: self.order[if exact { 1 } else { 2 }] }
    }

    fn hash(&self, exact: bool) -> u64 {
        self.order[if exact { 2 } else { 1 }]
    }
}

/// A hash of what a session keeps when it moves to the archive: its key and the millisecond of its start.
fn hash(session: &Session) -> u64 {
    let mut hasher = foldhash::quality::FixedState::default().build_hasher();
    session.key.hash(&mut hasher);
    hasher.write_u64(session.first.0 / MILLI_NS);
    hasher.finish()
}

impl Iterator for Flows<'_> {
    type Item = Session;

    fn next(&mut self) -> Option<Session> {
        let left = self.left.checked_sub(1)?;
        let (row, session) = self.next_session()?;
        self.left = left;
        self.last = Some(self.mark(&row));
        Some(session)
    }
}

#[cfg(test)]
mod tests;
