//! The sessions that only the log on disk has, as a part of a listing or of sums.
//!
//! Memory comes first: a session that memory knows is not taken from the log. Rows of one session in several hours are
//! joined. Memory for sessions of the log is bounded. Beyond that, a listing with a limit keeps the first ones in its order,
//! and any other answer says how many it lacks.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::attribution::Attribution;
use super::flows::Sort;
use super::logged::{LogSummary, LoggedSession};
use super::matching::SessionMatcher;
use super::session_names::NameFilter;
use super::unlisted::UnlistedSessions;
use super::{History, QueryError, Request, Tier};
use base::time::Timestamp;
use engine::session::{PerSide, Session};

/// Bytes of a session of the log while it is listed, its texts included.
const LOGGED_BYTES: usize = 1024;
/// The fewest sessions for which there is room.
const LOGGED_MIN: usize = 256;
/// Sessions that are told apart while sums are made (8 bytes each).
const IDENTITIES_MAX: usize = 1 << 20;

type ByIdentity = HashMap<u64, LoggedSession, foldhash::quality::RandomState>;

/// What an answer says of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogNotes {
    /// What was read.
    pub read: LogSummary,
    /// Sessions of the answer that only the log has.
    pub sessions: u64,
    /// Sessions that found no room in memory.
    pub left_out: u64,
    /// Sessions that come later in the order than the page, so that they are not in the totals.
    pub dropped: u64,
    /// Sessions for which the log does not have what the expression needs.
    pub undecided: u64,
    /// Whether memory knows so many sessions that some may come twice.
    pub may_repeat: bool,
}

/// The sessions of the log, in the order of a listing.
#[derive(Debug, Default)]
pub(super) struct LoggedRows {
    /// The latest first.
    rows: Vec<([u64; 3], LoggedSession)>,
    pub(super) notes: LogNotes,
}

/// Which sessions of the log are wanted.
#[derive(Debug)]
pub(super) struct LogQuestion<'q> {
    pub(super) request: &'q Request,
    pub(super) window: (Timestamp, Timestamp),
    pub(super) name: Option<&'q NameFilter>,
    pub(super) sort: Sort,
    /// Place after which the page begins.
    pub(super) after: Option<[u64; 3]>,
    /// Bytes for the sessions.
    pub(super) bytes_max: usize,
}

impl History {
    /// Whether the log has to be asked: if the request says so, or if it asks for times that memory does not reach.
    pub fn asks_log(&self, request: &Request) -> bool {
        if self.log.is_none() {
            return false;
        }
        match request.tier {
            Some(tier) => tier == Tier::Disk,
            None => self.log_comes_first || request.since.is_some_and(|since| !self.knows_sessions_since(since)),
        }
    }

    /// Whether memory knows every session of the recorder since this time. Of sessions that were overwritten, only the log
    /// knows the times.
    pub fn knows_sessions_since(&self, since: Timestamp) -> bool {
        let has_forgotten = self.workers.iter().any(|worker| worker.sessions.has_forgotten());
        !has_forgotten && self.sessions_since().is_some_and(|known| known <= since)
    }

    /// The time of the oldest session that memory knows, or `None` if it knows none. It may have forgotten later ones.
    pub fn sessions_since(&self) -> Option<Timestamp> {
        let forgotten = self.workers.iter().filter(|worker| worker.sessions.has_forgotten());
        if let Some(since) = forgotten.filter_map(|worker| worker.sessions.earliest()).max() {
            return Some(since);
        }
        // Of the table, `earliest` has the earliest end of a session.
        let began = self.workers.iter().flat_map(|worker| worker.sessions.sessions().map(|session| session.first));
        let known = self.workers.iter().filter_map(|worker| worker.sessions.earliest());
        began.chain(known).min()
    }

    /// The sessions that the request matches and that only the log has.
    pub(super) fn logged_sessions(
        &self,
        question: &LogQuestion<'_>,
        matcher: &mut SessionMatcher,
    ) -> (Vec<(u64, LoggedSession)>, LogNotes) {
        let LogQuestion { request, window, name, sort, after, bytes_max } = *question;
        let Some(log) = self.log.as_deref().filter(|_| self.asks_log(request)) else { return Default::default() };
        let mut notes = LogNotes::default();
        let in_memory = self.identities(request, window, bytes_max / 2 / size_of::<u64>(), &mut notes);
        let room = (bytes_max / 2 / LOGGED_BYTES).max(LOGGED_MIN);
        let limit = request.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit <= room / 2);
        // Later rows of a session change its last time, so that the order is known only at the end.
        let limit = limit.filter(|_| sort != Sort::Last);
        let undecided_before = matcher.undecided;
        let mut found = ByIdentity::default();
        notes.read = log.read(window, &mut |logged| {
            let Some(worker) = self.workers.first() else { return false };
            let identity = worker.sessions.identity(&logged.session);
            let is_wanted = request.interface.as_ref().is_none_or(|name| *name == logged.interface)
                && !in_memory.contains(&identity)
                // A later row may lack the names that an earlier one has.
                && (found.contains_key(&identity) || name.is_none_or(|name| name.matches(&logged.names)))
                && matcher.matches_logged(&logged.session);
            if !is_wanted {
                return true;
            }
            if found.len() >= room
                && let Some(limit) = limit
            {
                // Those before the page are not listed, and would take the places of those of the page.
                if let Some(after) = after {
                    found.retain(|identity, logged| order(sort, *identity, logged) > after);
                }
                notes.dropped += keep_first(&mut found, limit, sort);
            }
            let has_room = found.len() < room;
            match found.entry(identity) {
                // A later hour has the greater counts. Names are in the first.
                Entry::Occupied(mut entry) => join(entry.get_mut(), logged),
                Entry::Vacant(entry) if has_room => {
                    notes.sessions += 1;
                    entry.insert(logged);
                }
                Entry::Vacant(_) => notes.left_out += 1,
            }
            true
        });
        notes.undecided = matcher.undecided - undecided_before;
        (found.into_iter().collect(), notes)
    }

    /// Calls `each` with what the sessions of the log did that the request matches and memory does not know: with all of a
    /// session at its first row, and with the rest at later ones. `None` if the log is not asked.
    pub(super) fn sum_log(
        &self,
        request: &Request,
        unlisted: &mut UnlistedSessions,
        each: &mut dyn FnMut(&Session, bool, Option<&Attribution>),
    ) -> Result<Option<LogNotes>, QueryError> {
        let Some(log) = self.log.as_deref().filter(|_| self.asks_log(request)) else { return Ok(None) };
        let window = request.window()?;
        let mut matcher = SessionMatcher::new(self, request)?;
        let mut notes = LogNotes::default();
        let in_memory = self.identities(request, window, IDENTITIES_MAX, &mut notes);
        // Only sessions with several rows have to be told apart.
        let mut seen: HashSet<u64, foldhash::quality::RandomState> = HashSet::default();
        notes.read = log.read(window, &mut |logged| {
            let Some(worker) = self.workers.first() else { return false };
            let identity = worker.sessions.identity(&logged.session);
            let is_wanted = request.interface.as_ref().is_none_or(|name| *name == logged.interface)
                && !in_memory.contains(&identity)
                && matcher.matches_logged(&logged.session);
            if !is_wanted {
                return true;
            }
            let goes_on = logged.is_open || logged.earlier[0].sum() > 0;
            if goes_on && seen.len() >= IDENTITIES_MAX {
                notes.left_out += 1;
                return true;
            }
            let is_new = !goes_on || seen.insert(identity);
            let mut session = logged.session;
            if is_new {
                notes.sessions += 1;
            } else {
                session.packets = rest(session.packets, logged.earlier[0]);
                session.bytes = rest(session.bytes, logged.earlier[1]);
            }
            each(&session, is_new, Some(&logged.attribution));
            true
        });
        unlisted.undecided += matcher.undecided;
        notes.undecided = matcher.undecided;
        Ok(Some(notes))
    }

    /// The sessions of the window that memory knows.
    fn identities(
        &self,
        request: &Request,
        window: (Timestamp, Timestamp),
        most: usize,
        notes: &mut LogNotes,
    ) -> HashSet<u64, foldhash::quality::RandomState> {
        let mut identities = HashSet::default();
        // Who asks for the disk alone gets all that is there.
        if request.tier != Some(Tier::Disk) {
            self.each_known_session(window, |worker, session| {
                if identities.len() < most {
                    identities.insert(self.identity(worker, session));
                } else {
                    notes.may_repeat = true;
                }
            });
        }
        identities
    }
}

fn rest(all: PerSide, earlier: PerSide) -> PerSide {
    PerSide {
        originator: all.originator.saturating_sub(earlier.originator),
        responder: all.responder.saturating_sub(earlier.responder),
    }
}

fn join(earlier: &mut LoggedSession, later: LoggedSession) {
    if later.session.last < earlier.session.last {
        return;
    }
    earlier.session = later.session;
    earlier.app = earlier.app.take().or(later.app);
    if earlier.attribution.process.is_none() {
        earlier.attribution = later.attribution;
    }
    if earlier.names == super::names::Names::default() {
        earlier.names = later.names;
    }
}

/// The place of a session in a listing.
fn order(sort: Sort, identity: u64, logged: &LoggedSession) -> [u64; 3] {
    let key = sort.key(&logged.session);
    [key.group, key.within, identity]
}

/// Keeps the first sessions in the order of a listing. Returns how many it dropped.
fn keep_first(found: &mut ByIdentity, limit: usize, sort: Sort) -> u64 {
    let before = found.len();
    let mut orders: Vec<[u64; 3]> = found.iter().map(|(identity, logged)| order(sort, *identity, logged)).collect();
    if let Some(at) = limit.checked_sub(1).filter(|at| *at < orders.len()) {
        let (_, last, _) = orders.select_nth_unstable(at);
        let last = *last;
        found.retain(|identity, logged| order(sort, *identity, logged) <= last);
    }
    (before - found.len()) as u64
}

impl LoggedRows {
    /// Sorts the sessions for a listing.
    pub(super) fn new(sessions: Vec<(u64, LoggedSession)>, notes: LogNotes, sort: Sort) -> Self {
        let mut rows: Vec<([u64; 3], LoggedSession)> =
            sessions.into_iter().map(|(identity, logged)| (order(sort, identity, &logged), logged)).collect();
        rows.sort_unstable_by_key(|(order, _)| std::cmp::Reverse(*order));
        Self { rows, notes }
    }

    /// Removes the rows up to this position.
    pub(super) fn skip_to(&mut self, after: [u64; 3]) {
        self.rows.retain(|(order, _)| *order > after);
    }

    /// Position of the next row.
    pub(super) fn order(&self) -> Option<[u64; 3]> {
        self.rows.last().map(|(order, _)| *order)
    }

    /// The next row.
    pub(super) fn next(&mut self) -> Option<([u64; 3], LoggedSession)> {
        self.rows.pop()
    }

    /// The sessions that are left.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &LoggedSession> {
        self.rows.iter().map(|(_, logged)| logged)
    }
}
