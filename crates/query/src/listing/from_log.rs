//! Sessions of the log on disk in a listing, between those of memory.

use super::{Flows, ListedSession, ROW_BYTES};
use crate::Request;
use crate::flows::SortKey;
use crate::logged_rows::{LogNotes, LogQuestion, LoggedRows};
use crate::page_cursor::{PageCursor, Phase};

/// The most bytes for sessions of the log.
const BYTES_MAX: usize = 64 << 20;

impl Flows<'_> {
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
        let question = LogQuestion {
            request,
            window: self.window,
            name: self.options.name.as_ref(),
            sort: self.options.sort,
            bytes_max,
        };
        let (mut sessions, notes) = self.history.logged_sessions(&question, &mut self.matcher);
        if let Some(ids) = &self.options.ids {
            sessions.retain(|(identity, _)| ids.contains(identity));
        }
        let mut logged = LoggedRows::new(sessions, notes, self.options.sort);
        if self.options.name.is_none() {
            logged.sessions().for_each(|logged| self.totals.add(&logged.session));
        }
        self.unlisted.undecided = self.matcher.undecided;
        if let Some(after) = after {
            logged.skip_to([after.key.group, after.key.within, after.hash]);
        }
        self.logged = Some(logged);
    }

    /// Whether sessions of the log are left.
    pub(super) fn has_logged(&self) -> bool {
        self.logged.as_ref().is_some_and(|logged| logged.order().is_some())
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
        let mark = PageCursor {
            sort: self.options.sort,
            key: SortKey { group, within },
            hash: identity,
            as_of: self.as_of,
            phase: Phase::Sorted,
        };
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
}
