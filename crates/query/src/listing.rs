//! Listings of the known sessions in sort order, including sessions without retained packets.
//!
//! A listing holds a bounded number of rows. If more sessions match, it reads them in several passes over the session
//! table and the archive:
//!
//! ```text
//!   pass 1   rows_max first rows ──► pages      boundary = the last row that was listed
//!   pass 2   rows_max first rows after the boundary ──► pages      …until no row is left
//! ```
//!
//! Recording continues meanwhile. `Turnover` makes sure that a session that was known when the listing began is listed
//! once, although its sort key can change and it can move to the archive. Sessions that began later are not listed.
//!
//! A page of a listing is a request of its own, which knows of the pages before only what its [`PageCursor`] says. In an
//! order by amounts, sessions that had packets since the first page may have passed the mark. So they come again at the
//! end, in the order of their starts: no session is missed, and whatever comes twice has the same identity.

use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;

pub use super::flow_totals::FlowTotals;
use super::flows::{Sort, SortKey};
pub use super::listed::ListedSession;
use super::logged_rows::{LogNotes, LogQuestion, LoggedRows};
use super::matching::SessionMatcher;
use super::names::ReadAllowance;
pub use super::page_cursor::PageCursor;
use super::page_cursor::Phase;
use super::session_names::{NameFilter, Names};
use super::turnover::{ReadFrom, Turnover};
pub use super::unlisted::UnlistedSessions;
use super::{History, QueryError, Request, SearchNotes, Tier};
use base::time::Timestamp;
use engine::session::{ArchivePosition, Session, SessionSlot};

/// Bytes of a session that is listed.
pub const LISTED_BYTES: u64 = size_of::<ListedSession>() as u64;
/// Bytes of a session while a listing is sorted.
pub const ROW_BYTES: u64 = size_of::<Row>() as u64;

/// The most bytes for sessions of the log.
const BYTES_MAX: usize = 64 << 20;

/// How sessions are listed.
#[derive(Clone, Debug)]
pub struct ListingOptions {
    /// The sort order.
    pub sort: Sort,
    /// Lists only the sessions after this mark.
    pub after: Option<PageCursor>,
    /// Lists only the sessions with such a name.
    pub name: Option<NameFilter>,
    /// Lists only the sessions with these identities.
    pub ids: Option<Arc<HashSet<u64>>>,
    /// Maximum number of rows held at once.
    pub rows_max: usize,
}

impl From<Sort> for ListingOptions {
    fn from(sort: Sort) -> Self {
        Self { sort, after: None, name: None, ids: None, rows_max: usize::MAX }
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
    Array(u32),
    Archive(ArchivePosition),
    /// In the archive, but in the table when the listing began.
    Late(ArchivePosition),
}

/// A listing of sessions in sort order. Each session is read only when the caller asks for it.
#[derive(Debug)]
pub struct Flows<'h> {
    history: &'h History,
    window: (Timestamp, Timestamp),
    matcher: SessionMatcher,
    options: ListingOptions,
    /// Sessions that can still be listed.
    left: u64,
    turnover: Turnover,
    /// The time of the first page.
    as_of: Timestamp,
    /// Sessions whose entries were reused before they were read. They may be in the archive.
    overtaken_sessions: HashSet<u64, foldhash::quality::RandomState>,
    /// The position up to which everything was listed that was in the archive from the start.
    boundary: Option<[u64; 3]>,
    /// Whether the last pass found more rows than it could hold.
    more: bool,
    rows: std::vec::IntoIter<Row>,
    overtaken: u64,
    allowance: ReadAllowance,
    totals: FlowTotals,
    unlisted: UnlistedSessions,
    searched: u64,
    returned: u64,
    /// Sessions that match and had packets since the first page.
    changed: u64,
    last: Option<PageCursor>,
    /// Sessions that only the log on disk has.
    logged: Option<LoggedRows>,
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
        let turnover = Turnover::new(self);
        let left = request.limit.unwrap_or(u64::MAX);
        let mut flows = Flows {
            history: self,
            window: request.window()?,
            matcher: SessionMatcher::new(self, request)?,
            left,
            as_of: options.after.map_or(turnover.newest(), |after| after.as_of),
            turnover,
            changed: 0,
            overtaken_sessions: HashSet::default(),
            boundary: None,
            more: false,
            rows: Vec::new().into_iter(),
            overtaken: 0,
            allowance: ReadAllowance::default(),
            totals: FlowTotals::default(),
            unlisted: UnlistedSessions::default(),
            searched: 0,
            returned: 0,
            last: None,
            logged: None,
            options,
        };
        if request.tier != Some(Tier::Disk) {
            flows.gather(true, 0);
        }
        flows.read_log(request);
        Ok(flows)
    }
}

impl Flows<'_> {
    /// Sessions that were found, but left memory before they were read.
    pub fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// What the search for packets that match the expression met besides them.
    pub fn notes(&self) -> Option<&SearchNotes> {
        self.matcher.notes()
    }

    /// Sessions that ended while the listing was read, so that they may be listed twice.
    pub fn unsure(&self) -> u64 {
        self.turnover.unsure()
    }

    /// Totals of all sessions that match, including those beyond the limit and before the mark. With a name, they cover
    /// the sessions after the mark, and are complete when the last page was read.
    pub fn totals(&self) -> FlowTotals {
        self.totals
    }

    /// Sessions that are not listed, although a user may expect them.
    pub fn unlisted(&self) -> UnlistedSessions {
        self.unlisted
    }

    /// Sessions whose names were compared, or that have none.
    pub fn searched(&self) -> u64 {
        self.searched
    }

    /// The mark of the next page; `None` if everything was listed.
    pub fn next_mark(&self) -> Option<PageCursor> {
        let more = match self.options.name {
            Some(_) => self.totals.sessions > self.returned,
            None => self.left == 0 && (self.rows.len() > 0 || self.more || self.has_logged()),
        };
        if more {
            return self.last;
        }
        // Sessions that had packets between the pages may have passed a mark.
        let after = self.options.after.filter(|after| after.phase == Phase::Sorted && self.changed > 0)?;
        Some(PageCursor { key: SortKey { group: 0, within: 0 }, hash: 0, phase: Phase::Changed, ..after })
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
            page.iter().for_each(|listed| self.advance(listed.mark));
            return page;
        }
    }

    fn read(&mut self, rows: usize) -> Vec<ListedSession> {
        let mut page: Vec<ListedSession> = Vec::new();
        let workers = &self.history.workers;
        let lost_until: Vec<_> = workers.iter().map(|worker| worker.published.totals().lost_until).collect();
        while page.len() < rows {
            if let Some(logged) = self.next_logged(page.len() as u64) {
                page.push(logged);
                continue;
            }
            let Some((row, session)) = self.next_session(page.len() as u64) else { break };
            let lost_until = lost_until.get(usize::from(row.worker)).copied().flatten();
            let holes = session.holes(lost_until);
            let mark = self.mark(&row);
            page.push(ListedSession {
                session,
                holes,
                identity: mark.hash,
                names: Names::default(),
                logged: None,
                worker: row.worker,
                mark,
            });
        }
        self.history.name(&mut page, &mut self.allowance);
        page
    }

    /// The next session, after `held` that are not counted as listed yet.
    fn next_session(&mut self, held: u64) -> Option<(Row, Session)> {
        loop {
            let Some(row) = self.rows.next() else {
                if !self.more && self.overtaken_sessions.is_empty() {
                    return None;
                }
                self.gather(false, held);
                if self.rows.len() == 0 {
                    return None;
                }
                continue;
            };
            let sessions = &self.history.workers.get(usize::from(row.worker))?.sessions;
            // The entry may belong to another session by now.
            let (found, session) = match row.place {
                RowPosition::Archive(place) => {
                    (ReadFrom::Archive(place), sessions.past_session(place, &self.history.past_blocks))
                }
                RowPosition::Late(place) => {
                    (ReadFrom::Late(place), sessions.past_session(place, &self.history.past_blocks))
                }
                RowPosition::Array(slot) => (ReadFrom::Table, sessions.session(SessionSlot(slot))),
            };
            if let Some(session) = session.filter(|session| session.first_sequence == row.first_sequence)
                && self.turnover.finish(self.history, row.worker, found, &session)
            {
                return Some((row, session));
            }
            self.overtaken += 1;
            if let RowPosition::Array(_) = row.place {
                self.overtaken_sessions.insert(row.identity());
            }
        }
    }

    /// Finds the next rows: as many as fit and are left beside those `held`. `first` is set for the first pass, which adds
    /// up the totals.
    fn gather(&mut self, first: bool, held: u64) {
        let capacity = match usize::try_from(self.left.saturating_sub(held)) {
            // No more than are left: a session that leaves the table before it is read comes next, before those after it.
            Ok(left) if self.options.name.is_none() => left.min(self.options.rows_max),
            _ => self.options.rows_max,
        };
        let capacity = capacity.max(1);
        self.more = false;
        // A max-heap of the first rows: the last of them is on top and is replaced first.
        let mut rows: BinaryHeap<Row> = BinaryHeap::new();
        let (history, window) = (self.history, self.window);
        // The turnover is taken out, because the rest of the listing decides what to do with each session.
        let mut turnover = std::mem::take(&mut self.turnover);
        for (worker, _) in (0u16..).zip(&history.workers) {
            turnover.read(history, worker, window, |found, session| {
                if session.packets.sum() == 0 || !self.matcher.matches(worker, session) {
                    return;
                }
                let row = self.row(worker, found, session);
                if self.options.ids.as_ref().is_some_and(|ids| !ids.contains(&row.identity())) {
                    return;
                }
                if first && self.options.name.is_none() {
                    self.totals.add(session);
                }
                if !self.is_due(first, &row, session) {
                    return;
                }
                if rows.len() >= capacity {
                    self.more = true;
                    if rows.peek().is_none_or(|last| row >= *last) {
                        return;
                    }
                    rows.pop();
                } else if rows.len() == rows.capacity() {
                    // `capacity` rows fit, not the next power of two.
                    rows.reserve_exact(rows.len().max(64).min(capacity - rows.len()));
                }
                rows.push(row);
            });
        }
        self.turnover = turnover;
        if first {
            self.unlisted = UnlistedSessions { undecided: self.matcher.undecided, hidden: self.matcher.hidden };
        }
        self.overtaken_sessions.clear();
        self.take(rows.into_sorted_vec());
    }

    /// Takes the rows of a pass.
    fn take(&mut self, rows: Vec<Row>) {
        self.boundary = rows.last().map(|row| row.order).max(self.boundary);
        self.rows = rows.into_iter();
    }

    fn row(&self, worker: u16, found: ReadFrom, session: &Session) -> Row {
        let sort = match self.options.after {
            Some(after) if after.phase == Phase::Changed => Sort::Start,
            _ => self.options.sort,
        };
        let SortKey { group, within } = sort.key(session);
        let identity = self.history.identity(worker, session);
        Row {
            order: [group, within, identity],
            first_sequence: session.first_sequence,
            place: match found {
                ReadFrom::Table => RowPosition::Array(session.slot.0),
                ReadFrom::Archive(place) => RowPosition::Archive(place),
                ReadFrom::Late(place) => RowPosition::Late(place),
            },
            worker,
        }
    }

    /// Whether a session is to be listed and was not listed yet.
    fn is_due(&mut self, first: bool, row: &Row, session: &Session) -> bool {
        if let Some(after) = self.options.after {
            let has_changed = session.last > self.as_of && self.options.sort.can_change();
            self.changed += u64::from(first && has_changed && session.first <= self.as_of);
            let is_of_phase = match after.phase {
                // By the time of the latest packet, a session that goes on would come again and again.
                Phase::Sorted => !has_changed || self.options.sort != Sort::Last,
                Phase::Changed => has_changed,
            };
            let is_after = (row.key(), row.identity()) > (after.key, after.hash);
            if !is_of_phase || !is_after || session.first > self.as_of {
                return false;
            }
        }
        match row.place {
            RowPosition::Array(_) => true,
            RowPosition::Archive(_) => first || self.boundary.is_none_or(|boundary| row.order > boundary),
            RowPosition::Late(_) => {
                let was_overtaken = self.overtaken_sessions.remove(&row.identity());
                self.overtaken = self.overtaken.saturating_sub(u64::from(was_overtaken));
                true
            }
        }
    }

    /// What was read of the log; `None` if it was not asked.
    pub fn log(&self) -> Option<&LogNotes> {
        self.logged.as_ref().map(|logged| &logged.notes)
    }

    /// Reads the log, if the request asks for it.
    pub(super) fn read_log(&mut self, request: &Request) {
        let after = self.options.after;
        if !self.history.asks_log(request) || after.is_some_and(|after| after.phase == Phase::Changed) {
            return;
        }
        // The rows of memory and those of the log share the memory of the listing.
        let bytes_max = self.options.rows_max.saturating_mul(usize::try_from(ROW_BYTES).unwrap_or(1)).min(BYTES_MAX);
        let (window, name, sort) = (self.window, self.options.name.as_ref(), self.options.sort);
        let place = after.map(|after| [after.key.group, after.key.within, after.hash]);
        let question = LogQuestion { request, window, name, sort, after: place, bytes_max };
        let (mut sessions, notes) = self.history.logged_sessions(&question, &mut self.matcher);
        if let Some(ids) = &self.options.ids {
            sessions.retain(|(identity, _)| ids.contains(identity));
        }
        let mut logged = LoggedRows::new(sessions, notes, self.options.sort);
        if self.options.name.is_none() {
            logged.sessions().for_each(|logged| self.totals.add(&logged.session));
        }
        self.unlisted.undecided = self.matcher.undecided;
        if let Some(place) = place {
            logged.skip_to(place);
        }
        self.logged = Some(logged);
    }

    /// Whether sessions of the log are left.
    pub(super) fn has_logged(&self) -> bool {
        self.logged.as_ref().is_some_and(|logged| logged.order().is_some() || logged.notes.dropped > 0)
    }

    /// The next session of the log, if it comes before the next one of memory. `held` sessions are not counted as listed
    /// yet.
    pub(super) fn next_logged(&mut self, held: u64) -> Option<ListedSession> {
        let order = self.logged.as_ref()?.order()?;
        if self.rows.as_slice().is_empty() && (self.more || !self.overtaken_sessions.is_empty()) {
            self.gather(false, held);
        }
        if self.rows.as_slice().first().is_some_and(|row| row.order < order) {
            return None;
        }
        let ([group, within, identity], logged) = self.logged.as_mut()?.next()?;
        let (sort, key, as_of) = (self.options.sort, SortKey { group, within }, self.as_of);
        let mark = PageCursor { sort, key, hash: identity, as_of, phase: Phase::Sorted };
        Some(ListedSession {
            session: logged.session,
            holes: 0,
            identity,
            names: logged.names.clone(),
            logged: Some(Box::new(logged)),
            worker: 0,
            mark,
        })
    }

    /// Moves the mark of the next page forward.
    fn advance(&mut self, to: PageCursor) {
        if self.last.is_none_or(|last| (to.key, to.hash) > (last.key, last.hash)) {
            self.last = Some(to);
        }
    }

    fn mark(&self, row: &Row) -> PageCursor {
        PageCursor {
            sort: self.options.sort,
            key: row.key(),
            hash: row.identity(),
            as_of: self.as_of,
            phase: self.options.after.map_or(Phase::Sorted, |after| after.phase),
        }
    }
}

impl Row {
    fn key(&self) -> SortKey {
        SortKey { group: self.order[0], within: self.order[1] }
    }

    fn identity(&self) -> u64 {
        self.order[2]
    }
}

impl Iterator for Flows<'_> {
    type Item = Session;

    fn next(&mut self) -> Option<Session> {
        let left = self.left.checked_sub(1)?;
        let (row, session) = self.next_session(0)?;
        self.left = left;
        self.advance(self.mark(&row));
        Some(session)
    }
}

#[cfg(test)]
mod tests;
