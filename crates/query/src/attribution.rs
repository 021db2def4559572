//! Joins a session with the process that had it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use base::foreign::Foreign;
use base::packet::Packet;
use base::time::Timestamp;
use decode::Network;
use engine::session::{Endpoint, Session, SessionState};
use processes::process::{Certainty, Process, Source};
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

/// Names the process of each session at its first packet in an export.
#[derive(Debug)]
pub struct PacketProcesses<'t> {
    table: &'t SocketTable,
    looked_up: HashSet<(u8, SocketAddr, SocketAddr)>,
    left_out: bool,
}

impl<'t> PacketProcesses<'t> {
    /// Sessions whose process is looked up; the packets of others get no comment.
    pub const SESSIONS_MAX: usize = 1 << 16;

    /// Looks processes up in a table.
    pub fn new(table: &'t SocketTable) -> Self {
        Self { table, looked_up: HashSet::new(), left_out: false }
    }

    /// Whether there were more sessions than are looked up.
    pub fn has_left_out(&self) -> bool {
        self.left_out
    }

    /// The comment for a packet: which process has its session, at which end. `None` if it is not the first packet of the
    /// session, or if no process is known.
    pub fn comment(&mut self, packet: &Packet<'_>) -> Option<String> {
        let decoded = decode::decode(packet.link_type, packet.data);
        let protocol = match decoded.protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return None,
        };
        let address = |bits: u128| match decoded.network {
            Network::Ipv4 => Some(IpAddr::V4(Ipv4Addr::from(u32::try_from(bits).ok()?))),
            Network::Ipv6 => Some(IpAddr::V6(Ipv6Addr::from(bits))),
            _ => None,
        };
        if decoded.tunnel != 0 {
            return None;
        }
        let source = SocketAddr::new(address(decoded.source)?, decoded.source_port);
        let destination = SocketAddr::new(address(decoded.destination)?, decoded.destination_port);
        let (low, high) = if source <= destination { (source, destination) } else { (destination, source) };
        let key = (decoded.protocol, low, high);
        if self.looked_up.contains(&key) {
            return None;
        }
        if self.looked_up.len() >= Self::SESSIONS_MAX {
            self.left_out = true;
            return None;
        }
        self.looked_up.insert(key);
        let lived = SessionLifetime { first_ns: packet.time.0, last_ns: packet.time.0, closed: false };
        let found = self.table.of_session(protocol, source, destination, lived);
        let texts =
            [source, destination].into_iter().zip(found).filter_map(|(end, process)| Some(words(end, &process?)));
        let text = texts.collect::<Vec<_>>().join("; ");
        (!text.is_empty()).then_some(text)
    }
}

/// `process at 10.0.0.5:51234: curl, pid 812, /usr/bin/curl, uid 1000, docker:0123456789ab (socket, ebpf)`
fn words(end: SocketAddr, process: &Process) -> String {
    let mut text = format!("process at {end}: ");
    let safe = |text: &str| Foreign::from(text.to_owned()).terminal().to_string();
    if let Some(name) = &process.name {
        text.push_str(&format!("{}, ", safe(name)));
    }
    if let Some(pid) = process.pid {
        text.push_str(&format!("pid {pid}, "));
    }
    if let Some(path) = &process.path {
        text.push_str(&format!("{}, ", safe(path)));
    }
    text.push_str(&format!("uid {}", process.uid));
    for place in [&process.container, &process.pod, &process.unit].into_iter().flatten() {
        text.push_str(&format!(", {}", safe(place)));
    }
    let certainty = match process.certainty {
        Certainty::Socket => "socket",
        Certainty::Port => "port",
        Certainty::UserOnly => "user only",
    };
    let source = match process.source {
        Source::Ebpf => "ebpf",
        Source::SockDiag => "sock_diag",
    };
    text.push_str(&format!(" ({certainty}, {source})"));
    text
}

fn at(endpoint: Endpoint) -> Option<SocketAddr> {
    Some(SocketAddr::new(endpoint.ip?, endpoint.port))
}
