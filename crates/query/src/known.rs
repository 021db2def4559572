//! The sessions of memory as the log of sessions reads them: all that are known, and how they began.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use super::history::History;
use super::matching::SessionMatcher;
pub use super::names::beginning::Beginning;
use super::names::beginning::BeginningReader;
use super::names::starts::SessionStarts;
use super::turnover::Turnover;
use super::unlisted::UnlistedSessions;
use super::{Found, Packets, QueryError, Request};
use base::time::Timestamp;
use engine::session::Session;

/// Time from the first packet of a session within which its start is read.
const SOON: Duration = Duration::from_secs(10);

impl History {
    /// Calls `each` with every session that the request matches.
    pub(super) fn each_session(
        &self,
        request: &Request,
        mut each: impl FnMut(&Session),
    ) -> Result<UnlistedSessions, QueryError> {
        let (since, until) = request.window()?;
        let mut matcher = SessionMatcher::new(self, request)?;
        let mut turnover = Turnover::new(self);
        for (worker, _) in (0u16..).zip(&self.workers) {
            turnover.read(self, worker, (since, until), |_, session| {
                if session.packets.sum() > 0 && matcher.matches(worker, session) {
                    each(session);
                }
            });
        }
        Ok(UnlistedSessions { undecided: matcher.undecided, hidden: matcher.hidden })
    }

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
