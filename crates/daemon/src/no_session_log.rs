//! A program that was built without the feature `session-log` writes no log of sessions.

use std::sync::Arc;

use super::confinement::Confinement;
use super::error::Error;
use super::settings::Settings;
use super::spool::DirectorySpool;
use base::interface::Interfaces;
use processes::table::SocketTable;
use query::History;
use query::logged::SessionLog;

/// A log that cannot exist.
#[derive(Debug)]
pub(super) enum LogHandle {}

impl LogHandle {
    /// The log for questions.
    pub(super) fn for_queries(&self) -> Arc<dyn SessionLog> {
        match *self {}
    }
}

pub(super) fn open(
    _: &Settings,
    spool: Option<&Arc<DirectorySpool>>,
    _: Option<(u32, u32)>,
    _: &Arc<Interfaces>,
) -> Result<Option<Arc<LogHandle>>, Error> {
    if spool.is_some() {
        tracing::warn!("this program was built without the log of sessions, so the spool has packets only");
    }
    Ok(None)
}

/// A log that is not written yet.
#[derive(Debug)]
pub(super) enum LogThread {}

impl LogThread {
    pub(super) fn new(
        _: Option<Arc<LogHandle>>,
        _: Option<Arc<DirectorySpool>>,
        _: &Settings,
        _: &Arc<History>,
    ) -> Option<Self> {
        None
    }

    pub(super) fn start(self, _: Option<Arc<SocketTable>>, _: &Confinement) -> Result<RunningLog, Error> {
        match self {}
    }
}

/// The running thread.
#[derive(Debug)]
pub(super) enum RunningLog {}

impl RunningLog {
    pub(super) fn finish(self) {
        match self {}
    }
}
