//! The packets on disk as a part of an answer.
//!
//! A packet can be in memory and on disk at once. Of packets with the same time, those in memory come first, and each of
//! them takes the place of one equal packet on disk.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use super::Request;
use super::history::History;
use super::request::Tier;
use super::session_selectors::SessionSelectors;
use base::interface::{Interface, Interfaces};
use base::packet::InterfaceId;
use base::time::Timestamp;
use engine::session::SessionSlot;
use engine::store::record::RecordHeader;
use filter::FilterSet;
use spool::archive::PacketStream;
use spool::blocks::SpooledInterface;
use spool::index::Condition;
use spool::read::{ReadSummary, Selection};

/// The part of an answer that comes from disk.
#[derive(Debug)]
pub(super) struct Disk {
    stream: Box<dyn PacketStream>,
    /// Name of the interface that was asked for.
    interface: Option<String>,
    interfaces: HashMap<SpooledInterface, Arc<Interface>>,
    known: Vec<Arc<Interface>>,
    /// Packets from memory that have the latest time, by what they are.
    in_memory: (Timestamp, Vec<u64>),
    hasher: foldhash::fast::FixedState,
    current: Option<Arc<Interface>>,
}

impl Disk {
    /// The packets on disk that `request` may select; `None` without a spool, and if the request is about memory.
    pub(super) fn new(history: &History, request: &Request, window: (Timestamp, Timestamp)) -> Option<Self> {
        if request.tier == Some(Tier::Memory) {
            return None;
        }
        let conditions = conditions(history, request);
        let selection = Selection { since: Some(window.0), until: Some(window.1), conditions };
        let stream = history.disk.as_ref()?.packets(&selection)?;
        Some(Self {
            stream,
            interface: request.interface.clone(),
            interfaces: HashMap::new(),
            known: history.interfaces.snapshot(),
            in_memory: (Timestamp::MIN, Vec::new()),
            hasher: foldhash::fast::FixedState::default(),
            current: None,
        })
    }

    /// The time of the next packet.
    pub(super) fn peek_time(&mut self) -> Option<Timestamp> {
        self.stream.peek_time()
    }

    /// What could not be read so far.
    pub(super) fn summary(&self) -> ReadSummary {
        self.stream.summary()
    }

    /// The interface of the packet that came last, if it came from disk.
    pub(super) fn current(&self) -> Option<&Interface> {
        self.current.as_deref()
    }

    /// Notes a packet from memory that is a part of the answer.
    pub(super) fn note_from_memory(&mut self, header: &RecordHeader, interface: &Interface, data: &[u8]) {
        self.current = None;
        let hash = self.hash(header.original_len, &interface.name, data);
        if self.in_memory.0 != header.time {
            self.in_memory = (header.time, Vec::new());
        }
        self.in_memory.1.push(hash);
    }

    /// Takes the next packet, and puts its bytes into `data` if the request selects it.
    pub(super) fn take(
        &mut self,
        selectors: &SessionSelectors,
        filter: &mut Option<FilterSet>,
        data: &mut Vec<u8>,
    ) -> Option<RecordHeader> {
        let found = self.stream.next()?;
        let (packet, spooled) = (found.packet, Arc::clone(found.interface));
        let link_type = spooled.link_type;
        let wanted = self.interface.as_ref().is_none_or(|name| *name == spooled.name)
            && selectors.bytes(link_type, packet.data)
            && filter.as_mut().is_none_or(|filter| filter.matches(link_type, packet.data, packet.original_len));
        if !wanted {
            return None;
        }
        data.clear();
        data.extend_from_slice(packet.data);
        let header = RecordHeader {
            time: packet.time,
            // Packets on disk have no number and no session in memory.
            sequence: u64::MAX,
            captured_len: u32::try_from(packet.data.len()).unwrap_or(u32::MAX),
            original_len: packet.original_len,
            drops_before: packet.drops_before,
            session: SessionSlot(u32::MAX),
            interface: InterfaceId(0),
            direction: packet.direction,
            flags: packet.flags,
        };
        if self.in_memory.0 == header.time {
            let hash = self.hash(header.original_len, &spooled.name, data);
            if let Some(at) = self.in_memory.1.iter().position(|known| *known == hash) {
                self.in_memory.1.swap_remove(at);
                return None;
            }
        }
        let interface = self.interface_of(&spooled)?;
        let header = RecordHeader { interface: interface.id, ..header };
        self.current = Some(interface);
        Some(header)
    }

    fn hash(&self, original_len: u32, interface: &str, data: &[u8]) -> u64 {
        self.hasher.hash_one((original_len, interface, data))
    }

    /// The interface of the recorder that is the same, or else a further one.
    fn interface_of(&mut self, spooled: &SpooledInterface) -> Option<Arc<Interface>> {
        if let Some(interface) = self.interfaces.get(spooled) {
            return Some(Arc::clone(interface));
        }
        let same = |known: &&Arc<Interface>| known.name == spooled.name && known.link_type == spooled.link_type;
        let interface = match self.known.iter().find(same) {
            Some(known) => Arc::clone(known),
            None => {
                let number = Interfaces::CAPACITY + self.interfaces.len();
                Arc::new(Interface {
                    id: InterfaceId(u16::try_from(number).ok()?),
                    name: spooled.name.clone(),
                    index: 0,
                    link_type: spooled.link_type,
                    description: spooled.description.clone(),
                    os: spooled.os.clone(),
                    up: false,
                    gone: None,
                    since: Timestamp::MIN,
                })
            }
        };
        self.interfaces.insert(spooled.clone(), Arc::clone(&interface));
        Some(interface)
    }
}

/// What every packet that the request selects must have, as far as an index knows it.
fn conditions(history: &History, request: &Request) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if let Some(address) = request.address {
        conditions.extend(condition_of(address.range()));
    }
    if let Some(port) = request.port {
        let (from, to) = port.bounds();
        conditions.push(Condition::Port(from, to));
    }
    if let Some(flow) = &request.flow {
        for (ip, port) in flow.ends() {
            conditions.extend(condition_of((ip, ip)));
            conditions.extend((port != 0).then_some(Condition::Port(port, port)));
        }
    }
    if let Some(id) = request.community_id.filter(|_| history.seed(request) == 0) {
        conditions.push(Condition::Session(id.prefix()));
    }
    conditions.extend(necessary(&request.expression));
    conditions
}

fn condition_of(range: (std::net::IpAddr, std::net::IpAddr)) -> Option<Condition> {
    use std::net::IpAddr;
    match range {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(Condition::Ipv4(from.to_bits(), to.to_bits())),
        (IpAddr::V6(from), IpAddr::V6(to)) => Some(Condition::Ipv6(from.to_bits(), to.to_bits())),
        _ => None,
    }
}

/// Conditions without which no packet matches the expression. Understands conjunctions of hosts, networks and ports;
/// anything else gives no condition, and the packets decide.
fn necessary(expression: &str) -> Vec<Condition> {
    let words: Vec<&str> = expression.split_whitespace().collect();
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-');
    if words.iter().any(|word| !word.chars().all(simple) || matches!(*word, "or" | "not" | "vlan" | "mpls" | "gateway"))
    {
        return Vec::new();
    }
    let terms = words.split(|word| *word == "and");
    terms.filter_map(term).collect()
}

/// The condition of one term: `host A`, `net N/L`, `port P`, also after `src`, `dst` or a protocol.
fn term(words: &[&str]) -> Option<Condition> {
    let [before @ .., kind, value] = words else { return None };
    let known = ["ip", "ip6", "tcp", "udp", "sctp", "src", "dst", "arp", "icmp", "ether"];
    if before.contains(&"ether") || !before.iter().all(|word| known.contains(word)) {
        return None;
    }
    match *kind {
        "host" | "src" | "dst" => condition_of(value.parse().map(|ip| (ip, ip)).ok()?),
        "net" => value.parse::<super::selectors::Subnet>().ok().and_then(|net| condition_of(net.range())),
        "port" => value.parse().ok().map(|port| Condition::Port(port, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conjunctions_of_hosts_and_ports_give_conditions_and_nothing_else_does() {
        let host = Condition::Ipv4(0x0a00_0001, 0x0a00_0001);
        let cases: [(&str, &[Condition]); 10] = [
            ("host 10.0.0.1", &[host]),
            ("tcp and src host 10.0.0.1 and dst port 80", &[host, Condition::Port(80, 80)]),
            ("tcp port 443", &[Condition::Port(443, 443)]),
            ("net 10.0.0.0/8", &[Condition::Ipv4(0x0a00_0000, 0x0aff_ffff)]),
            ("ip6 host 2001:db8::1", &[Condition::Ipv6(0x2001_0db8 << 96 | 1, 0x2001_0db8 << 96 | 1)]),
            ("host 10.0.0.1 or port 80", &[]),
            ("not host 10.0.0.1", &[]),
            ("(host 10.0.0.1)", &[]),
            ("host printer", &[]),
            ("ether host 02:00:00:00:00:01", &[]),
        ];
        for (expression, expected) in cases {
            assert_eq!(necessary(expression), expected, "{expression}");
        }
    }
}
