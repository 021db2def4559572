//! Sessions summed by host, by pair of hosts, by port, by process or by container.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attribution::{Attribution, FlowProcess, SessionEnd};
use super::flows::{self, Sort};
use super::listing::{FlowTotals, UnlistedSessions};
use super::logged_rows::LogNotes;
use super::{History, QueryError, Request, Tier};
use base::foreign::Foreign;
use base::time::Timestamp;
use engine::session::{Endpoint, Session};
use processes::process::Process;
use processes::table::SocketTable;

/// The grouping of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Each host, with what it sent (`out`) and received (`in`). A session counts at both ends.
    Host,
    /// Each pair of hosts, whichever of them opened the sessions. `out` is the direction with more bytes; if sorted by
    /// `in`, the direction with fewer bytes.
    Peer,
    /// Protocol and port of the responder. `out` is what the originators sent.
    Port,
    /// Each process of this host by its name, with what it sent (`out`) and received (`in`). A session between two of them
    /// counts for both. Sessions whose process is not known are one sum.
    Process,
    /// As by process, each container; or the systemd unit of processes in none; or `host` for processes in neither. Sessions of
    /// which that is not known are one sum.
    Container,
}

/// Bytes or packets in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Directions {
    /// Sent.
    pub out: u64,
    /// Received.
    #[serde(rename = "in")]
    pub r#in: u64,
}

impl Directions {
    /// Sum of both directions.
    pub fn sum(self) -> u64 {
        self.out.saturating_add(self.r#in)
    }

    /// The directions as seen by the other host.
    fn turned(self) -> Self {
        Self { out: self.r#in, r#in: self.out }
    }

    fn add(&mut self, out: u64, r#in: u64) {
        *self = Self { out: self.out.saturating_add(out), r#in: self.r#in.saturating_add(r#in) };
    }
}

/// One sum in JSON. A session counts in full, even if it began before the window or continues after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sum {
    /// By host or peer: the host's IP address, or its link-layer address if the session is not IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Foreign>,
    /// By peer: the address of the other host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Foreign>,
    /// By port: the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Foreign>,
    /// By port: the responder's port; absent if the protocol has no ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// By process: its name; empty for sessions whose process is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Foreign>,
    /// By container: the container or unit, or `host`; empty for sessions of which that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Foreign>,
    /// Number of sessions in this sum.
    pub sessions: u64,
    /// Bytes on the wire.
    pub bytes: Directions,
    /// Packets.
    pub packets: Directions,
    /// Time of the first packet.
    pub first: Foreign,
    /// Time of the latest packet.
    pub last: Foreign,
}

/// Sorted sums.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// The sums, in sort order and up to the limit.
    pub rows: Vec<Sum>,
    /// Sessions in none of the sums, because no memory was left for another sum. By host, each end of a session counts.
    pub left_out: u64,
    /// Number of sums, including those beyond the limit.
    pub total: u64,
    /// Totals of all sessions that match.
    pub totals: FlowTotals,
    /// Sessions in none of the sums, although a user may expect them.
    pub unlisted: UnlistedSessions,
    /// What was read of the log on disk; `None` if it was not asked.
    pub log: Option<LogNotes>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Host(Host),
    Peer(Host, Host),
    Port(String, Option<u16>),
    Process(String),
    Container(String),
}

/// An endpoint without its port: IP address or link-layer address.
type Host = (Option<std::net::IpAddr>, Option<[u8; 6]>);

/// Approximate bytes that one sum takes while it is computed.
pub const SUM_BYTES: u64 = 192;

struct PartialSum {
    sessions: u64,
    bytes: Directions,
    packets: Directions,
    first: Timestamp,
    last: Timestamp,
}

/// Which processes sessions have, and which of them are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessQuestion<'q> {
    /// Names the processes of sessions in memory.
    pub table: Option<&'q SocketTable>,
    /// Only sessions of this process.
    pub process: Option<&'q str>,
    /// Only sessions of processes in this container.
    pub container: Option<&'q str>,
}

impl ProcessQuestion<'_> {
    fn selects(&self) -> bool {
        self.process.is_some() || self.container.is_some()
    }
}

impl History {
    /// Sums the sessions that match, with at most `sums_max` sums.
    ///
    /// # Errors
    ///
    /// As [`flows`](Self::flows).
    pub fn sums(
        &self,
        request: &Request,
        (by, asked): (By, ProcessQuestion<'_>),
        sort: Sort,
        sums_max: usize,
    ) -> Result<Sums, QueryError> {
        let mut running: HashMap<Key, PartialSum, foldhash::quality::RandomState> = HashMap::default();
        let mut left_out = 0;
        let mut totals = FlowTotals::default();
        let mut each = |session: &Session, is_new: bool, logged: Option<&Attribution>| {
            let mut attribution = Attribution::default();
            if by.names_processes() || asked.selects() {
                let of_table = || asked.table.map(|table| Attribution::of(session, table));
                attribution = logged.cloned().or_else(of_table).unwrap_or_default();
            }
            if asked.selects() && !attribution.matches(asked.process, asked.container) {
                return;
            }
            match is_new {
                true => totals.add(session),
                false => totals.add_rest(session),
            }
            let (originator, responder) = (host(session.originator()), host(session.responder()));
            let mut add = |key: Key, sent_by_originator: bool| {
                let room = running.len() < sums_max;
                let running = match running.entry(key) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) if room => entry.insert(PartialSum {
                        sessions: 0,
                        bytes: Directions::default(),
                        packets: Directions::default(),
                        first: session.first,
                        last: session.last,
                    }),
                    Entry::Vacant(_) => {
                        left_out += 1;
                        return;
                    }
                };
                running.add(session, sent_by_originator, is_new);
            };
            match by {
                By::Host => {
                    add(Key::Host(originator), true);
                    if responder != originator {
                        add(Key::Host(responder), false);
                    }
                }
                By::Peer => {
                    add(Key::Peer(originator.min(responder), originator.max(responder)), originator <= responder)
                }
                By::Port => {
                    let port = has_ports(session.key.protocol()).then(|| session.responder().port);
                    add(Key::Port(flows::protocol(session), port), true);
                }
                By::Process | By::Container => {
                    let Attribution { process, other_process, .. } = attribution;
                    if process.is_none() && other_process.is_none() {
                        add(by.of_name(String::new()), true);
                    }
                    for FlowProcess { process, end } in [process, other_process].into_iter().flatten() {
                        let place = || process.place().unwrap_or_default().to_owned();
                        let name = if by == By::Process { called(&process) } else { place() };
                        add(by.of_name(name), end == SessionEnd::Originator);
                    }
                }
            }
        };
        let mut unlisted = match request.tier {
            Some(Tier::Disk) => UnlistedSessions::default(),
            _ => self.each_session(request, |session| each(session, true, None))?,
        };
        let log = self.sum_log(request, &mut unlisted, &mut each)?;
        let total = running.len() as u64;
        let mut rows: Vec<Sum> = running.into_iter().map(|(key, running)| running.sum(key, sort)).collect();
        rows.sort_by(|a, b| order(sort, a).cmp(&order(sort, b)).then_with(|| a.name().cmp(&b.name())));
        rows.truncate(request.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
        Ok(Sums { rows, left_out, total, totals, unlisted, log })
    }
}

impl By {
    /// Whether the sums are of processes, which are not known of every session.
    pub fn names_processes(self) -> bool {
        matches!(self, Self::Process | Self::Container)
    }

    /// The key of a process or container.
    fn of_name(self, name: String) -> Key {
        if self == Self::Container { Key::Container(name) } else { Key::Process(name) }
    }
}

fn host(endpoint: Endpoint) -> Host {
    (endpoint.ip, endpoint.mac)
}

/// The name of a process, or what else is known of it.
fn called(process: &Process) -> String {
    match (&process.name, process.pid) {
        (Some(name), _) => name.clone(),
        (None, Some(pid)) => pid.to_string(),
        (None, None) => format!("uid {}", process.uid),
    }
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

impl PartialSum {
    fn add(&mut self, session: &Session, sent_by_originator: bool, is_new: bool) {
        let (bytes, packets) = (session.bytes, session.packets);
        if sent_by_originator {
            self.bytes.add(bytes.originator, bytes.responder);
            self.packets.add(packets.originator, packets.responder);
        } else {
            self.bytes.add(bytes.responder, bytes.originator);
            self.packets.add(packets.responder, packets.originator);
        }
        self.sessions += u64::from(is_new);
        self.first = self.first.min(session.first);
        self.last = self.last.max(session.last);
    }

    fn sum(mut self, key: Key, sort: Sort) -> Sum {
        let text = |(ip, mac): Host| match ip {
            Some(ip) => ip.to_string(),
            None => Endpoint { ip, mac, port: 0 }.to_string(),
        };
        let (mut process, mut container) = (None, None);
        let (host, peer, proto, port) = match key {
            Key::Host(host) => (Some(text(host)), None, None, None),
            Key::Process(name) => {
                process = Some(name);
                (None, None, None, None)
            }
            Key::Container(name) => {
                container = Some(name);
                (None, None, None, None)
            }
            Key::Peer(a, b) => {
                let turned =
                    if sort == Sort::In { self.bytes.out > self.bytes.r#in } else { self.bytes.out < self.bytes.r#in };
                if turned {
                    self.bytes = self.bytes.turned();
                    self.packets = self.packets.turned();
                }
                let (from, to) = if turned { (b, a) } else { (a, b) };
                (Some(text(from)), Some(text(to)), None, None)
            }
            Key::Port(proto, port) => (None, None, Some(proto), port),
        };
        Sum {
            host: host.map(Into::into),
            peer: peer.map(Into::into),
            proto: proto.map(Into::into),
            port,
            process: process.map(Into::into),
            container: container.map(Into::into),
            sessions: self.sessions,
            bytes: self.bytes,
            packets: self.packets,
            first: self.first.to_rfc3339().into(),
            last: self.last.to_rfc3339().into(),
        }
    }
}

impl Sum {
    /// The key of the sum, which orders sums with equal amounts.
    fn name(&self) -> ([&Option<Foreign>; 5], Option<u16>) {
        ([&self.host, &self.peer, &self.proto, &self.process, &self.container], self.port)
    }
}

/// The sort key, ascending. Times are RFC 3339 text, which sorts in time order.
fn order(sort: Sort, sum: &Sum) -> (u64, &str) {
    match sort {
        Sort::Newest | Sort::Start => (0, sum.first.untrusted()),
        Sort::Last => (0, sum.last.untrusted()),
        Sort::Bytes | Sort::Duration => (u64::MAX - sum.bytes.sum(), ""),
        Sort::Packets => (u64::MAX - sum.packets.sum(), ""),
        Sort::Out => (u64::MAX - sum.bytes.out, ""),
        Sort::In => (u64::MAX - sum.bytes.r#in, ""),
    }
}
