//! Joins a session with the process that had it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use base::foreign::Foreign;
use base::packet::Packet;
use decode::Network;
use engine::session::{Endpoint, Session, SessionState};
use processes::process::Process;
use processes::raw::RawOwner;
use processes::sockets::Protocol;
use processes::table::{SessionLifetime, SocketTable};
use processes::translations::OtherSide;

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
    /// The session on the other side, if NAT translates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<Nat>,
}

/// A session on the other side of a NAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nat {
    /// Which side it is: before or after translation.
    pub side: NatSide,
    /// The originator of the session on that side.
    pub originator: NatEnd,
    /// Its responder.
    pub responder: NatEnd,
}

/// A side of a NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NatSide {
    /// As the originator sent it.
    Before,
    /// As the responder receives it.
    After,
}

/// An end of a session on the other side of a NAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NatEnd {
    /// Its address.
    pub ip: Foreign,
    /// Its port.
    pub port: u16,
}

impl From<SocketAddr> for NatEnd {
    fn from(end: SocketAddr) -> Self {
        Self { ip: end.ip().to_string().into(), port: end.port() }
    }
}

impl Nat {
    fn new(OtherSide { asked_is_before, ends: [originator, responder], .. }: OtherSide) -> Self {
        let side = if asked_is_before { NatSide::After } else { NatSide::Before };
        Self { side, originator: originator.into(), responder: responder.into() }
    }
}

/// Protocols of the kernel's own packets (IGMP, tunnels, IPsec), and those with sockets of their own (SCTP, DCCP, UDP-Lite): a raw
/// socket says nothing about them.
const UNWATCHED: [u8; 10] = [2, 4, 33, 41, 47, 50, 51, 132, 136, 137];

impl Attribution {
    /// Looks a session up.
    pub fn of(session: &Session, table: &SocketTable) -> Self {
        let number = session.key.protocol();
        let (Some(originator), Some(responder)) = (at(session.originator()), at(session.responder())) else {
            return Self::unknown("it is no IP session");
        };
        if session.key.tunnel() != 0 {
            return Self::unknown("it is inside a tunnel");
        }
        let lived = SessionLifetime {
            first_ns: session.first.0,
            last_ns: session.last.0,
            closed: matches!(session.state(), SessionState::Closed | SessionState::Reset),
        };
        let Some(protocol) = ported(number) else {
            return Self::without_ports((number, session.key.one_way()), [originator, responder], lived, table);
        };
        let translated = table.other_side(number, [originator, responder], lived);
        let [one, other] = of_ends(table, protocol, [originator, responder], translated.as_ref(), lived);
        let one = one.map(|process| FlowProcess { process, end: SessionEnd::Originator });
        let other = other.map(|process| FlowProcess { process, end: SessionEnd::Responder });
        let nat = translated.map(Nat::new);
        let (process, other_process) = if one.is_some() { (one, other) } else { (other, None) };
        let process_unknown = process.is_none().then(|| {
            let is_local = table.is_local(originator.ip()) || table.is_local(responder.ip());
            match (is_local, &nat) {
                (_, Some(_)) => "NAT translates it, and no socket of it was seen on either side",
                (true, None) => {
                    "no socket of it was seen, or more than one could have had it: it was too short, or belongs to \
                     another network namespace"
                }
                (false, None) => {
                    "not local: neither end is an address of this host (forwarded, or of another network namespace)"
                }
            }
            .to_owned()
        });
        Self { process, other_process, process_unknown, nat }
    }

    fn unknown(why: &str) -> Self {
        Self { process_unknown: Some(why.to_owned()), ..Self::default() }
    }

    /// Looks up a session of a protocol without ports. The first argument is the protocol number, and whether its messages have no
    /// replies.
    fn without_ports(
        (number, one_way): (u8, bool),
        [originator, responder]: [SocketAddr; 2],
        lived: SessionLifetime,
        table: &SocketTable,
    ) -> Self {
        let is_icmp = matches!(number, 1 | 58);
        let end = match (table.is_local(originator.ip()), table.is_local(responder.ip())) {
            (false, false) => {
                return Self::unknown(
                    "not local: neither end is an address of this host (forwarded, or of another network namespace)",
                );
            }
            (false, true) if is_icmp => return Self::unknown("the kernel itself answers ICMP"),
            (true, _) if is_icmp && (one_way || is_of_kernel(number, originator.port())) => {
                return Self::unknown("the kernel itself sends such messages of ICMP");
            }
            (true, _) => SessionEnd::Originator,
            (false, true) => SessionEnd::Responder,
        };
        if UNWATCHED.contains(&number) {
            return Self::unknown("sockets of its protocol are not watched, and the kernel sends it, too");
        }
        match table.of_raw_session(number, originator.is_ipv6(), lived) {
            RawOwner::Known(process) => {
                Self { process: Some(FlowProcess { process: *process, end }), ..Self::default() }
            }
            RawOwner::Several => Self::unknown("several programs had a raw socket that could have sent it"),
            RawOwner::Incomplete => {
                Self::unknown("a raw socket that could have sent it may have been missed or forgotten")
            }
            RawOwner::Nobody => Self::unknown(
                "no raw socket of its protocol was seen: the kernel sent it itself, or a program did below IP (AF_PACKET)",
            ),
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

/// The processes at both ends of a session. Where NAT translates it, the originator's socket has the session as it is before, and
/// the responder's as it is after: a listener at a published port of the host never gets packets that go to a container.
fn of_ends(
    table: &SocketTable,
    protocol: Protocol,
    [one, other]: [SocketAddr; 2],
    translated: Option<&OtherSide>,
    lived: SessionLifetime,
) -> [Option<Process>; 2] {
    let direct = table.of_session(protocol, one, other, lived);
    let Some(side) = translated else { return direct };
    let through = table.of_session(protocol, side.ends[0], side.ends[1], lived);
    let ([direct_one, direct_other], [through_one, through_other]) = (direct, through);
    if side.asked_is_before == side.is_turned { [through_one, direct_other] } else { [direct_one, through_other] }
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
        let side = self.table.other_side(decoded.protocol, [source, destination], lived);
        let found = of_ends(self.table, protocol, [source, destination], side.as_ref(), lived);
        let texts =
            [source, destination].into_iter().zip(found).filter_map(|(end, process)| Some(words(end, &process?)));
        let text = texts.collect::<Vec<_>>().join("; ");
        (!text.is_empty()).then_some(text)
    }
}

/// `process at 10.0.0.5:51234: curl, pid 812, /usr/bin/curl, uid 1000, docker:0123456789ab (socket, ebpf)`
fn words(end: SocketAddr, process: &Process) -> String {
    let mut text = format!("process at {end}: ");
    // Commas and semicolons separate the words, so that a name cannot pretend to be several.
    let safe = |text: &str| {
        Foreign::from(text.to_owned())
            .terminal()
            .to_string()
            .replace([',', ';'], &char::REPLACEMENT_CHARACTER.to_string())
    };
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
    if process.other_namespace {
        text.push_str(", in another network namespace");
    }
    let (certainty, source) = (process.certainty.word().replace('_', " "), process.source.word());
    text.push_str(&format!(" ({certainty}, {source})"));
    text
}

/// The processes of a comment that [`PacketProcesses`] made, in a few words each: `curl 812 docker:0123456789ab`. `None` for
/// any other comment.
pub fn brief(comment: &str) -> Option<String> {
    let one = |text: &str| {
        let (_, words) = text.strip_prefix("process at ")?.split_once(": ")?;
        let (words, _) = words.rsplit_once(" (")?;
        let words: Vec<&str> = words.split(", ").collect();
        let uid = words.iter().position(|word| word.starts_with("uid "))?;
        let pid = words[..uid].iter().position(|word| word.starts_with("pid "));
        let mut brief: Vec<&str> = match pid {
            Some(pid) => words[..pid].iter().copied().chain(words[pid].strip_prefix("pid ")).collect(),
            None => vec![words[uid]],
        };
        brief.extend(words[uid + 1..].iter().find(|word| word.contains(':')));
        Some(brief.join(" "))
    };
    Some(comment.split("; ").map(one).collect::<Option<Vec<_>>>()?.join("; "))
}

/// Whether the kernel sends messages of this type, which a session of ICMP has as its port: neighbor discovery, multicast listeners
/// and redirects of ICMPv6 (RFC 4861, 2710, 3810).
fn is_of_kernel(protocol: u8, kind: u16) -> bool {
    protocol == 58 && matches!(kind, 130..=137 | 143)
}

/// The protocols whose sockets have ports and are watched.
fn ported(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        _ => None,
    }
}

fn at(endpoint: Endpoint) -> Option<SocketAddr> {
    Some(SocketAddr::new(endpoint.ip?, endpoint.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_back_and_no_name_pretends_to_be_several_words() {
        let end = SocketAddr::from(([10, 0, 0, 5], 51234));
        let process = Process {
            pid: Some(812),
            name: Some("a, pid 1; x".to_owned()),
            path: Some("/usr/bin/curl".to_owned()),
            container: Some("docker:0123456789ab".to_owned()),
            ..Process::only_user(1000)
        };
        let text = words(end, &process);
        assert_eq!(brief(&text).as_deref(), Some("a\u{fffd} pid 1\u{fffd} x 812 docker:0123456789ab"), "{text}");
        let user = words(end, &Process::only_user(7));
        assert_eq!(brief(&format!("{text}; {user}")).unwrap().split("; ").nth(1), Some("uid 7"));
        assert_eq!(brief("somebody else's comment"), None);
        assert_eq!(brief("process at x: y"), None);
    }

    fn named(pid: u32) -> Process {
        let path = Some(format!("/bin/{pid}"));
        Process { pid: Some(pid), path, certainty: processes::process::Certainty::Socket, ..Process::only_user(0) }
    }

    const LIVED: SessionLifetime = SessionLifetime { first_ns: 20, last_ns: 30, closed: false };

    #[test]
    fn a_listener_of_the_host_has_no_session_that_nat_sends_to_a_container() {
        use processes::conntrack::Translation;
        use processes::report::{Report, SocketName};

        let table = SocketTable::new(1 << 20);
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (client, published, inside) = (at("192.0.2.9:5000"), at("198.51.100.1:8080"), at("10.88.0.2:80"));
        table.take(Report::Addresses(vec![published.ip()]));
        let open = |local, remote, pid| {
            let socket = SocketName { protocol: Protocol::Tcp, local, remote };
            table.take(Report::Open { time_ns: 10, socket, process: Box::new(named(pid)) });
        };
        // docker-proxy listens at the published port, and the server in the container has the connection.
        open(published, at("0.0.0.0:0"), 1);
        open(inside, client, 2);
        table.take(Report::Examined(40));
        let pids = |ends: [SocketAddr; 2]| {
            let side = table.other_side(6, ends, LIVED);
            of_ends(&table, Protocol::Tcp, ends, side.as_ref(), LIVED).map(|process| process.and_then(|one| one.pid))
        };
        assert_eq!(pids([client, published]), [None, Some(1)], "without NAT, the listener has it");
        let (before, after) = ([client, published], [client, inside]);
        let translation = Translation { protocol: 6, before, after, is_over: false };
        table.take(Report::Translated { time_ns: 15, translation });
        assert_eq!(pids([client, published]), [None, Some(2)], "outside");
        assert_eq!(pids([published, client]), [Some(2), None], "as its answers are seen");
        assert_eq!(pids([client, inside]), [None, Some(2)], "inside");
        // The other way: a process of the host whose source address is translated.
        let (from, outside) = (at("198.51.100.1:6000"), at("203.0.113.1:6000"));
        open(from, client, 3);
        let translation = Translation { before: [from, client], after: [outside, client], ..translation };
        table.take(Report::Translated { time_ns: 15, translation });
        assert_eq!(pids([outside, client]), [Some(3), None]);
        assert_eq!(pids([from, client]), [Some(3), None]);
    }

    #[test]
    fn protocols_that_no_raw_socket_says_anything_of_are_not_named() {
        use processes::report::Report;

        let table = SocketTable::new(1 << 20);
        let at = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
        table.take(Report::Addresses(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]));
        // It sends packets of any protocol (IPPROTO_RAW).
        for (id, is_v6) in [(1, false), (2, true)] {
            let process = Box::new(named(7));
            table.take(Report::RawOpened { time_ns: 10, id, protocol: 255, is_v6, process });
        }
        let of = |number, one_way, from, to| {
            let found = Attribution::without_ports((number, one_way), [from, to], LIVED, &table);
            assert_eq!(found.process.is_none(), found.process_unknown.is_some());
            found.process.and_then(|process| process.process.pid)
        };
        let v4 = |number| of(number, false, at("10.0.0.1", 0), at("10.0.0.2", 0));
        assert_eq!(v4(253), Some(7));
        for number in UNWATCHED {
            assert_eq!(v4(number), None, "{number}");
        }
        let v6 = |kind, one_way| of(58, one_way, at("fd00::1", kind), at("fd00::2", 0));
        assert_eq!(v6(128, false), Some(7), "a ping");
        for kind in (130..=137).chain([143]) {
            assert_eq!(v6(kind, false), None, "the kernel sends messages of type {kind}");
        }
        assert_eq!(v6(1, true), None, "an error");
    }
}
