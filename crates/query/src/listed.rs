//! A session of a listing.

use super::logged::LoggedSession;
use super::page_cursor::PageCursor;
use super::session_names::Names;
use engine::session::Session;

/// A session and the names in its first packets.
#[derive(Clone, Debug)]
pub struct ListedSession {
    /// The session.
    pub session: Session,
    /// Parts that are missing between packets of it that are there, at least.
    pub holes: u64,
    /// Its number; see [`History::identity`](super::History::identity).
    pub identity: u64,
    /// Its names; none where they were not looked up.
    pub names: Names,
    /// What the log says beside; `None` for a session of memory.
    pub logged: Option<Box<LoggedSession>>,
    /// Index of the worker that stores it.
    pub(super) worker: u16,
    /// Its position in the listing.
    pub(super) mark: PageCursor,
}
