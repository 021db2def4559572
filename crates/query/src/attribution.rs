//! Joins a session with the process that had it.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use base::time::Timestamp;
use engine::session::{Endpoint, Session, SessionState};
use processes::process::Process;
use processes::sockets::Protocol;
use processes::table::{SessionLifetime, SocketTable};

/// The end of a session that a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionEnd {
    /// The process began the session.
    Originator,
    /// The process was asked.
    Responder,
}

/// The process at an end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowProcess {
    /// The process.
    #[serde(flatten)]
    pub process: Process,
    /// Which end it has.
    pub end: SessionEnd,
}

/// What is known about the processes of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attribution {
    /// The process on this host: the originator's, or else the responder's. Missing where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<FlowProcess>,
    /// The process at the other end, where both are on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_process: Option<FlowProcess>,
    /// Why no process is named, where processes are watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_unknown: Option<String>,
}

impl Attribution {
    /// Looks a session up.
    pub fn of(session: &Session, table: &SocketTable) -> Self {
        let unknown = |why: &str| Self { process_unknown: Some(why.to_owned()), ..Self::default() };
        let protocol = match session.key.protocol() {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return unknown("only sockets of TCP and UDP are watched"),
        };
        let (Some(originator), Some(responder)) = (at(session.originator()), at(session.responder())) else {
            return unknown("it is no IP session");
        };
        if session.key.tunnel() != 0 {
            return unknown("it is inside a tunnel");
        }
        let nanoseconds = |time: Timestamp| time.0;
        let lived = SessionLifetime {
            first_ns: nanoseconds(session.first),
            last_ns: nanoseconds(session.last),
            closed: matches!(session.state(), SessionState::Closed | SessionState::Reset),
        };
        let [one, other] = table.of_session(protocol, originator, responder, lived);
        let one = one.map(|process| FlowProcess { process, end: SessionEnd::Originator });
        let other = other.map(|process| FlowProcess { process, end: SessionEnd::Responder });
        match (one, other) {
            (None, None) if table.is_local(originator.ip()) || table.is_local(responder.ip()) => {
                unknown("no socket of it was seen: it was too short, or belongs to another network namespace")
            }
            (None, None) => unknown("not local: neither end is an address of this host"),
            (Some(process), other_process) => Self { process: Some(process), other_process, process_unknown: None },
            (None, process) => Self { process, ..Self::default() },
        }
    }

    /// Whether one of the processes is selected.
    pub fn matches(&self, process: Option<&str>, container: Option<&str>) -> bool {
        let mut ends = [&self.process, &self.other_process].into_iter().flatten();
        ends.any(|end| {
            process.is_none_or(|wanted| end.process.is_called(wanted))
                && container.is_none_or(|wanted| end.process.is_in(wanted))
        })
    }
}

fn at(endpoint: Endpoint) -> Option<SocketAddr> {
    Some(SocketAddr::new(endpoint.ip?, endpoint.port))
}
