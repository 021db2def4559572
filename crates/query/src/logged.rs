//! The log of sessions on disk, as questions see it.
//!
//! A log has one row for each session and each hour in which the session had packets. The crate `session_log` implements
//! [`SessionLog`]; this crate knows neither the format nor the files.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use super::attribution::Attribution;
use super::flows::FlowApp;
use super::history::History;
pub use super::names::beginning::Beginning;
use super::names::beginning::BeginningReader;
use super::names::starts::SessionStarts;
use super::session_names::Names;
use super::turnover::Turnover;
use super::{Found, Packets};
use base::time::Timestamp;
use engine::session::{PerSide, Session};

/// Time from the first packet of a session within which its start is read.
const SOON: Duration = Duration::from_secs(10);

/// A session of a log, with its totals up to the latest row that was read.
#[derive(Clone, Debug)]
pub struct LoggedSession {
    /// Endpoints, times, counts and state.
    pub session: Session,
    /// Name of the capture interface.
    pub interface: String,
    /// Names in its first packets.
    pub names: Names,
    /// The processes that had it.
    pub attribution: Attribution,
    /// Its application protocol.
    pub app: Option<FlowApp>,
    /// What it had done before the hour of the row: packets and bytes.
    pub earlier: [PerSide; 2],
    /// Whether it may have a later row.
    pub is_open: bool,
}

/// What was read of a log, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSummary {
    /// Files that were read.
    pub files: u64,
    /// Files that could not be read, or are damaged.
    pub failed: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Sessions that the log lacks, at least by its own counts: floods, and sessions that left memory too fast.
    pub missed: u64,
}

/// A log of sessions on disk.
pub trait SessionLog: std::fmt::Debug + Send + Sync {
    /// Calls `each` with every session of the window. A session comes once for each of its hours, the earliest first. Ends
    /// early if `each` returns false.
    fn read(&self, window: (Timestamp, Timestamp), each: &mut dyn FnMut(LoggedSession) -> bool) -> LogSummary;

    /// Start of the earliest hour, and end of the latest; `None` without rows.
    fn span(&self) -> Option<(Timestamp, Timestamp)>;
}

impl History {
    /// Calls `each` with the sessions that are known now and overlap the window, each once, and the index of their worker.
    pub fn each_known_session(&self, window: (Timestamp, Timestamp), mut each: impl FnMut(u16, &Session)) {
        let mut turnover = Turnover::new(self);
        for (worker, _) in (0u16..).zip(&self.workers) {
            turnover.read(self, worker, window, |_, session| {
                if session.packets.sum() > 0 {
                    each(worker, session);
                }
            });
        }
    }

    /// Reads names and first bytes of sessions, as far as their first packets are in memory. Subtracts the records that
    /// this reads from `allowance`; if it is too small, nothing is read.
    pub fn beginnings(&self, sessions: &[(u16, Session)], allowance: &mut u64) -> Vec<Beginning> {
        let mut readers: HashMap<_, (usize, BeginningReader), foldhash::quality::RandomState> = HashMap::default();
        let mut starts = SessionStarts::default();
        let mut window: Option<(Timestamp, Timestamp)> = None;
        for (row, (worker, session)) in sessions.iter().enumerate().filter(|(_, (_, session))| session.kept_packets > 0)
        {
            let until = session.last.min(session.first.saturating_add(SOON));
            let (first, last) = window.get_or_insert((session.first, until));
            (*first, *last) = (session.first.min(*first), until.max(*last));
            starts.want((*worker, session.slot), row, session, until);
            readers.insert((*worker, session.slot), (row, BeginningReader::new(session)));
        }
        let mut beginnings = vec![Beginning::default(); sessions.len()];
        let Some(window) = window else { return beginnings };
        let Some(mut packets) = Packets::of_starts(self, window, starts, allowance) else { return beginnings };
        while let Some(Found { worker, header, packet, .. }) = packets.next() {
            let place = (u16::try_from(worker).unwrap_or(u16::MAX), header.session);
            let Entry::Occupied(mut reader) = readers.entry(place) else { continue };
            if reader.get_mut().1.packet(&packet) {
                let (row, reader) = reader.remove();
                beginnings[row] = reader.finish();
                let Some(starts) = packets.starts_mut() else { break };
                if starts.done(place) {
                    break;
                }
            }
        }
        for (row, reader) in readers.into_values() {
            beginnings[row] = reader.finish();
        }
        beginnings
    }
}
