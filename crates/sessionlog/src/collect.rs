//! Takes the sessions out of memory that the log does not have yet.
//!
//! Each look reads the sessions that are known at that moment. A session is due when it has timed out, so that it cannot go
//! on, and all others at the end of an hour. What the log has of sessions that may go on is remembered, so that the next row
//! has the rest. Three rules tell what the log has, without a list of all sessions:
//!
//! - A session that had timed out at the look before was written then.
//! - A session that was archived before the look before was written then.
//! - Of all others, the log has what is remembered; or nothing.
//!
//! A session for which there is no memory is not written at the end of the hour. It is written whole when it ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::row::{Counts, MILLI_NS, Row, counts};
use base::time::Timestamp;
use engine::session::Session;
use engine::store::Rank;
use processes::table::SocketTable;
use query::History;
use query::attribution::Attribution;
use query::known::Beginning;
use query::session_names::Names;
use spool::band::Band;

/// The longest timeout of a session.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Packets can arrive this much later than others with a later time.
const DISORDER: Duration = Duration::from_secs(2);
/// Sessions of which the starts are read at once.
const SESSIONS_AT_ONCE: usize = 4096;
/// Age of a session above which its start is read together with those of other old ones.
const OLD: Duration = Duration::from_secs(600);
/// The most records that one look reads for names, in recent sessions and in old ones.
const RECORDS_MAX: u64 = 4_000_000;
/// A clock that was set back by more than this begins anew.
const SET_BACK: Duration = Duration::from_secs(60);

/// Which sessions a look writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Those that have ended.
    Ended,
    /// Also those that may go on, as far as they can be remembered: an hour ends.
    Hour,
    /// All: the recorder ends.
    All,
}

/// A session that is written.
#[derive(Debug)]
struct DueSession {
    worker: u16,
    session: Session,
    earlier: Counts,
    is_open: bool,
}

/// What the log has of the sessions of one worker.
#[derive(Debug, Default)]
struct Logged {
    /// Sessions that were archived when the last look began.
    archived: u64,
    /// Sessions that may go on, by identity, with what the log has of them.
    remembered: Vec<(u64, Counts)>,
    /// Sessions that memory did not keep for the log.
    unlisted: u64,
    /// Set if there was no memory to remember all sessions that were there at this time. What the log has of them is not known.
    unknown_before: Option<Timestamp>,
}

impl Logged {
    fn earlier(&self, identity: u64) -> Option<Counts> {
        let at = self.remembered.binary_search_by_key(&identity, |(identity, _)| *identity).ok()?;
        Some(self.remembered[at].1)
    }
}

/// One look at the sessions of one worker.
#[derive(Debug)]
struct WorkerLook {
    /// Sessions that had timed out at this time were written at the last look.
    before: Timestamp,
    /// Sessions that have timed out at this time cannot go on.
    horizon: Timestamp,
    due: Due,
    remembered_max: usize,
    /// Sessions that this look has written as ended.
    written: HashSet<u64, foldhash::quality::RandomState>,
    /// What the log has of the sessions that may go on.
    kept: Vec<(u64, Counts)>,
    waiting: u64,
    rows: Vec<DueSession>,
}

impl WorkerLook {
    /// Looks at a session of the table, or one that was archived before the look.
    fn session(&mut self, worker: u16, identity: u64, session: &Session, logged: &Logged) {
        let earlier = logged.earlier(identity);
        let is_unknown = logged.unknown_before.is_some_and(|begun| session.first <= begun);
        if (earlier.is_none() && (timed_out(session, self.before) || is_unknown)) || self.written.contains(&identity) {
            return;
        }
        let is_over = session.is_past() || timed_out(session, self.horizon);
        let now = counts(session);
        let has_more = earlier != Some(now);
        let has_memory = earlier.is_some() || self.kept.len() < self.remembered_max;
        let is_due = match self.due {
            Due::Ended => is_over,
            Due::Hour => is_over || has_memory,
            Due::All => true,
        };
        self.waiting += u64::from(has_more && self.due == Due::Hour && !is_due);
        if has_more && is_due {
            self.write(worker, session, earlier, !is_over);
        }
        if is_over {
            self.written.insert(identity);
        } else if is_due || earlier.is_some() {
            self.kept.push((identity, if is_due { now } else { earlier.unwrap_or_default() }));
        }
    }

    /// Looks at a session that was archived while the table was read.
    fn late(&mut self, worker: u16, identity: u64, session: &Session, logged: &Logged) {
        if self.written.contains(&identity) {
            return;
        }
        let kept = self.kept.binary_search_by_key(&identity, |(identity, _)| *identity).ok();
        let earlier = kept.map(|at| self.kept[at].1).or_else(|| logged.earlier(identity));
        let is_unknown = logged.unknown_before.is_some_and(|begun| session.first <= begun);
        if earlier.is_none() && (timed_out(session, self.before) || is_unknown) {
            return;
        }
        if earlier != Some(counts(session)) {
            self.write(worker, session, earlier, false);
        }
    }

    fn write(&mut self, worker: u16, session: &Session, earlier: Option<Counts>, is_open: bool) {
        let earlier = earlier.unwrap_or_default();
        self.rows.push(DueSession { worker, session: *session, earlier, is_open });
    }
}

/// Whether a session cannot go on. The archive rounds the time of the latest packet up, so this must round it, too.
fn timed_out(session: &Session, now: Timestamp) -> bool {
    let mut rounded = *session;
    rounded.last = Timestamp(session.last.0.div_ceil(MILLI_NS).saturating_mul(MILLI_NS));
    rounded.timed_out(now)
}

/// Takes sessions out of memory.
#[derive(Debug)]
pub struct Collector {
    history: Arc<History>,
    processes: Option<Arc<SocketTable>>,
    logged: Vec<Logged>,
    /// The time of the last look.
    looked: Timestamp,
    remembered_max: usize,
    missed: u64,
    waiting: u64,
}

impl Collector {
    /// A collector of sessions that end after now. `remembered_max` bounds the sessions that may go on, of 80 bytes each.
    pub fn new(history: Arc<History>, remembered_max: usize, now: Timestamp) -> Self {
        let logged = history.workers.iter().map(|_| Logged::default()).collect();
        let mut collector =
            Self { history, processes: None, logged, looked: now, remembered_max, missed: 0, waiting: 0 };
        collector.begin(now);
        collector
    }

    /// Names the processes of sessions by this table.
    pub fn name_processes(&mut self, processes: Option<Arc<SocketTable>>) {
        self.processes = processes;
    }

    /// Remembers all sessions as they are: the log has them already, or does not want what they did before.
    pub fn begin(&mut self, now: Timestamp) {
        self.looked = now;
        for (logged, worker) in self.logged.iter_mut().zip(&self.history.workers) {
            logged.archived = worker.sessions.archived();
            logged.unlisted = worker.sessions.unlisted();
            logged.remembered.clear();
            logged.unknown_before = None;
        }
        let (logged, remembered_max) = (&mut self.logged, self.remembered_max);
        let horizon = now.saturating_sub(DISORDER);
        let (history, mut unremembered) = (&self.history, 0);
        history.each_known_session((horizon.saturating_sub(TIMEOUT_MAX), Timestamp::MAX), |worker, session| {
            let Some(logged) = logged.get_mut(usize::from(worker)) else { return };
            if timed_out(session, horizon) || session.is_past() {
                return;
            }
            if logged.remembered.len() < remembered_max {
                let identity = history.identity(worker, session);
                logged.remembered.push((identity, counts(session)));
            } else {
                logged.unknown_before = Some(now);
                // What it does from now on is in no row.
                unremembered += 1;
            }
        });
        self.logged.iter_mut().for_each(|logged| logged.remembered.sort_unstable());
        self.missed += unremembered;
    }

    /// Sessions that the log lacks since the last call: those of floods, and those that left the archive before a look.
    pub fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// Sessions that wait for their end, because there is no memory to remember them.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Whether the archive will overwrite sessions before the next look in a minute.
    pub fn must_hurry(&self) -> bool {
        self.logged.iter().zip(&self.history.workers).any(|(logged, worker)| {
            worker.sessions.archived().saturating_sub(logged.archived) > worker.sessions.past() / 4
        })
    }

    /// Calls `each` with a row for each session that is due.
    pub fn look(&mut self, now: Timestamp, due: Due, each: &mut dyn FnMut(Row)) {
        if now.saturating_add(SET_BACK) < self.looked {
            // What was not written so far is written with the times that it has.
            self.look_until(self.looked, Due::All, each);
            self.begin(now);
        }
        self.look_until(now.max(self.looked), due, each);
    }

    fn look_until(&mut self, now: Timestamp, due: Due, each: &mut dyn FnMut(Row)) {
        self.waiting = 0;
        self.count_missed();
        let mut allowance = [RECORDS_MAX; 2];
        for at in 0..self.logged.len() {
            let mut look = WorkerLook {
                before: self.looked.saturating_sub(DISORDER),
                horizon: now.saturating_sub(DISORDER),
                due,
                remembered_max: self.remembered_max,
                written: HashSet::default(),
                kept: Vec::new(),
                waiting: 0,
                rows: Vec::new(),
            };
            self.worker(at, &mut look, &mut allowance, each);
            look.kept.sort_unstable();
            self.waiting += look.waiting;
            self.logged[at].remembered = look.kept;
        }
        self.looked = now;
    }

    /// Looks at the sessions of a worker: those archived since the last look, those in the table, and those that were archived
    /// while the table was read. A session that leaves the table meanwhile is met twice or once, but never missed.
    fn worker(&mut self, at: usize, look: &mut WorkerLook, allowance: &mut [u64; 2], each: &mut dyn FnMut(Row)) {
        let history = Arc::clone(&self.history);
        let sessions = &history.workers[at].sessions;
        let since = look.before.saturating_sub(TIMEOUT_MAX);
        let number = u16::try_from(at).unwrap_or(u16::MAX);
        let begun = sessions.archived();
        let past = |from: u64, to: u64| {
            let overlapping = sessions.past_overlapping(since, Timestamp::MAX);
            overlapping.map(|(_, session)| session).filter(move |session| (from..to).contains(&session.first_sequence))
        };
        let from_archive = past(self.logged[at].archived, begun);
        let from_table = sessions.overlapping(since, Timestamp::MAX);
        for session in from_archive.chain(from_table) {
            look.session(number, sessions.identity(&session), &session, &self.logged[at]);
            if look.rows.len() >= SESSIONS_AT_ONCE {
                self.describe(std::mem::take(&mut look.rows), look.horizon, allowance, each);
            }
        }
        look.kept.sort_unstable();
        let ended = sessions.archived();
        for session in past(begun, ended) {
            look.late(number, sessions.identity(&session), &session, &self.logged[at]);
            if look.rows.len() >= SESSIONS_AT_ONCE {
                self.describe(std::mem::take(&mut look.rows), look.horizon, allowance, each);
            }
        }
        self.logged[at].archived = ended;
        self.describe(std::mem::take(&mut look.rows), look.horizon, allowance, each);
    }

    fn count_missed(&mut self) {
        for (logged, worker) in self.logged.iter_mut().zip(&self.history.workers) {
            let sessions = &worker.sessions;
            let oldest = sessions.archived().saturating_sub(sessions.past());
            let unlisted = sessions.unlisted();
            self.missed += oldest.saturating_sub(logged.archived) + unlisted.saturating_sub(logged.unlisted);
            logged.unlisted = unlisted;
        }
    }

    /// Reads names, protocol, process and place of sessions, and passes them on.
    fn describe(&self, due: Vec<DueSession>, now: Timestamp, allowance: &mut [u64; 2], each: &mut dyn FnMut(Row)) {
        let old = now.saturating_sub(OLD);
        let (old, recent): (Vec<DueSession>, Vec<DueSession>) =
            due.into_iter().partition(|due| due.session.first < old);
        let interfaces: Vec<(Arc<str>, Timestamp)> =
            self.history.interfaces.snapshot().iter().map(|one| (one.name.as_str().into(), one.since)).collect();
        for (due, allowance) in [recent, old].into_iter().zip(allowance) {
            let sessions: Vec<(u16, Session)> = due.iter().map(|due| (due.worker, due.session)).collect();
            let beginnings = self.history.beginnings(&sessions, allowance);
            for (due, beginning) in due.into_iter().zip(beginnings) {
                let number = usize::from(due.session.key.interface().0);
                // The entry may belong to another interface by now.
                let interface = interfaces.get(number).filter(|(_, since)| *since <= due.session.last);
                let interface = interface.map_or_else(|| Arc::from(""), |(name, _)| Arc::clone(name));
                each(self.row(due, interface, beginning));
            }
        }
    }

    fn row(&self, due: DueSession, interface: Arc<str>, beginning: Beginning) -> Row {
        let DueSession { session, earlier, is_open, .. } = due;
        let ports = [session.originator().port, session.responder().port];
        let [originator, responder] = &beginning.data;
        let app = protocols::table::recognise(session.key.protocol(), ports, [originator, responder]);
        let attribution = self.processes.as_deref().map(|table| Attribution::of(&session, table));
        let attribution = attribution.filter(|attribution| attribution.process.is_some()).map(Box::new);
        let place = beginning.first_packet_len.and_then(|len| {
            let band = Band::of(Rank::of_packet(0, len.into()));
            let (file, offset) = self.history.disk.as_ref()?.place(band, session.first)?;
            Some(crate::row::SpoolPlace { file, offset })
        });
        Row {
            session,
            earlier,
            is_open,
            interface,
            names: Some(Box::new(beginning.names)).filter(|names| **names != Names::default()),
            app: app.map(|app| app.name),
            attribution,
            place,
        }
    }
}
