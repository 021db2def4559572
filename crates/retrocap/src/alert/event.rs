//! An alert, as all readers return it.

use base::time::Timestamp;
use query::search::SearchTarget;

/// The tool that wrote an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Suricata's EVE.
    Suricata,
    /// Zeek's conn.log, notice.log or another log with a connection.
    Zeek,
    /// Sysmon's event 3.
    Sysmon,
    /// Not an alert but a session that a recorder listed.
    Session,
}

impl Kind {
    /// The name used in file names and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suricata => "suricata",
            Self::Zeek => "zeek",
            Self::Sysmon => "sysmon",
            Self::Session => "session",
        }
    }
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The line in its file, counted from 1. In a JSON list, the number of the item.
    pub line: u64,
    /// The tool that wrote it.
    pub kind: Kind,
    /// The text of the alert: a signature, a notice type or a program.
    pub name: String,
    /// The tool's identifier: a signature ID, a connection's uid or a process ID.
    pub id: Option<String>,
    /// Start of the event.
    pub start: Timestamp,
    /// End of the event; equal to `start` when the event has no duration.
    pub end: Timestamp,
    /// The sessions that the alert names.
    pub names: SearchTarget,
}
