//! The log of sessions on disk, as questions see it.
//!
//! A log has one row for each session and each hour in which the session had packets. The crate `sessionlog` implements
//! [`SessionLog`]; this crate knows neither the format nor the files.

use super::attribution::Attribution;
use super::flows::FlowApp;
use super::session_names::Names;
use base::time::Timestamp;
use engine::session::{PerSide, Session};

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
    /// Rows that are not understood.
    pub unread_rows: u64,
    /// Sessions that the log lacks, at least by its own counts: floods, sessions that left memory too fast, and rows that could
    /// not be written.
    pub missed: u64,
    /// Rows that are in no finished file yet, of which memory has forgotten some.
    pub pending: u64,
}

/// A log of sessions on disk.
pub trait SessionLog: std::fmt::Debug + Send + Sync {
    /// Calls `each` with every session of the window. A session comes once for each of its hours, the earliest first. Ends
    /// early if `each` returns false.
    fn read(&self, window: (Timestamp, Timestamp), each: &mut dyn FnMut(LoggedSession) -> bool) -> LogSummary;

    /// Start of the earliest hour, and end of the latest; `None` without rows.
    fn span(&self) -> Option<(Timestamp, Timestamp)>;
}
