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

use std::sync::Arc;
use std::time::Duration;

use crate::row::{Counts, Row, counts};
use base::time::Timestamp;
use engine::session::Session;
use engine::store::Rank;
use processes::table::SocketTable;
use query::History;
use query::attribution::Attribution;
use query::logged::Beginning;
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

/// A session that is due.
struct Due {
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
}

impl Logged {
    fn earlier(&self, identity: u64) -> Option<Counts> {
        let at = self.remembered.binary_search_by_key(&identity, |(identity, _)| *identity).ok()?;
        Some(self.remembered[at].1)
    }
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
        }
        let (logged, remembered_max) = (&mut self.logged, self.remembered_max);
        let horizon = now.saturating_sub(DISORDER);
        let history = &self.history;
        history.each_known_session((horizon.saturating_sub(TIMEOUT_MAX), Timestamp::MAX), |worker, session| {
            let Some(logged) = logged.get_mut(usize::from(worker)) else { return };
            if !session.timed_out(horizon) && logged.remembered.len() < remembered_max {
                let identity = history.identity(worker, session);
                logged.remembered.push((identity, counts(session)));
            }
        });
        self.logged.iter_mut().for_each(|logged| logged.remembered.sort_unstable());
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

    /// Calls `each` with a row for each session that is due: those that have ended, and all others if `is_last` is set.
    pub fn look(&mut self, now: Timestamp, is_last: bool, each: &mut dyn FnMut(Row)) {
        if now.saturating_add(SET_BACK) < self.looked {
            self.begin(now);
        }
        let now = now.max(self.looked);
        let (before, horizon) = (self.looked.saturating_sub(DISORDER), now.saturating_sub(DISORDER));
        let archived: Vec<u64> = self.history.workers.iter().map(|worker| worker.sessions.archived()).collect();
        self.count_missed();
        let mut remembered: Vec<Vec<(u64, Counts)>> = self.logged.iter().map(|_| Vec::new()).collect();
        let mut due: Vec<Due> = Vec::new();
        let mut allowance = [RECORDS_MAX; 2];
        let mut waiting = 0;
        let history = Arc::clone(&self.history);
        let window = (before.saturating_sub(TIMEOUT_MAX), Timestamp::MAX);
        history.each_known_session(window, |worker, session| {
            let at = usize::from(worker);
            let (Some(logged), Some(kept), Some(archived)) =
                (self.logged.get(at), remembered.get_mut(at), archived.get(at))
            else {
                return;
            };
            let is_past = |count: u64| session.is_past() && session.first_sequence < count;
            if is_past(logged.archived) {
                return;
            }
            let is_over = session.timed_out(horizon) || is_past(*archived);
            let identity = history.identity(worker, session);
            let earlier = match logged.earlier(identity) {
                Some(earlier) => Some(earlier),
                None if session.timed_out(before) => return,
                None => None,
            };
            let now = counts(session);
            let has_more = earlier != Some(now);
            let has_memory = earlier.is_some() || kept.len() < self.remembered_max;
            let is_written = has_more && (is_over || (is_last && has_memory));
            waiting += u64::from(has_more && is_last && !is_written);
            if !is_over && (is_written || earlier.is_some()) {
                kept.push((identity, if is_written { now } else { earlier.unwrap_or_default() }));
            }
            if is_written {
                let (session, earlier) = (*session, earlier.unwrap_or_default());
                due.push(Due { worker, session, earlier, is_open: !is_over });
                if due.len() >= SESSIONS_AT_ONCE {
                    self.describe(std::mem::take(&mut due), horizon, &mut allowance, each);
                }
            }
        });
        self.describe(due, horizon, &mut allowance, each);
        for ((logged, mut kept), archived) in self.logged.iter_mut().zip(remembered).zip(archived) {
            kept.sort_unstable();
            logged.remembered = kept;
            logged.archived = archived;
        }
        self.waiting = waiting;
        self.looked = now;
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
    fn describe(&self, due: Vec<Due>, now: Timestamp, allowance: &mut [u64; 2], each: &mut dyn FnMut(Row)) {
        let old = now.saturating_sub(OLD);
        let (old, recent): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.session.first < old);
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

    fn row(&self, due: Due, interface: Arc<str>, beginning: Beginning) -> Row {
        let Due { session, earlier, is_open, .. } = due;
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
