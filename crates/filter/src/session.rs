//! Applies an expression to a session whose packets may be evicted.
//!
//! The probe builds the start of a packet that the session must have had, once in each direction: Ethernet header,
//! VLAN tags, IP header, transport header. Addresses, ports, protocol and VLAN ids are known. Lengths, flags, sequence
//! numbers, the MAC addresses of IP sessions and everything after the transport header are unknown. An expression
//! whose result depends on unknown bytes is [undecided](Outcome::Unknown). Tunnel headers are not rebuilt: the
//! endpoints are those of the innermost session.

use super::compile::{Filter, FilterError};
use super::vm::{Outcome, PartialPacket, Program};
use base::packet::LinkType;
use decode::{Decoded, Network};

/// The properties of a session that an expression can test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// The kind of the addresses.
    pub network: Network,
    /// IP protocol number; 0 for [`Network::Link`].
    pub protocol: u8,
    /// Ethertype of the payload, for [`Network::Link`].
    pub ethertype: u16,
    /// The source address: IPv4 in the low 32 bits, MAC in the low 48 bits.
    pub source: u128,
    /// The destination address, in the same form.
    pub destination: u128,
    /// The source port; for ICMP the message type.
    pub source_port: u16,
    /// The destination port; for ICMP the type of the reply, or the code if the message has no reply.
    pub destination_port: u16,
    /// True if `destination_port` is the code of an ICMP message without a reply type.
    pub one_way: bool,
    /// The outermost VLAN id.
    pub vlan: Option<u16>,
    /// The second VLAN id.
    pub inner_vlan: Option<u16>,
}

/// The size in bytes of the longest packet that is built: Ethernet, two VLAN tags, IPv6, TCP.
const PACKET_BYTES_MAX: usize = 14 + 2 * 4 + 40 + 20;

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// A compiled expression for sessions. Asking it allocates no memory.
#[derive(Clone, Debug)]
pub struct SessionProbe {
    program: Program,
    packet: PacketBuffer,
}

impl SessionProbe {
    /// Compiles an expression. An empty expression matches every session.
    ///
    /// # Errors
    ///
    /// Those of [`Filter::compile`] for Ethernet.
    pub fn new(expression: &str) -> Result<Self, FilterError> {
        Ok(Self::of(Filter::compile(expression, LinkType::ETHERNET)?))
    }

    /// Creates a probe whose result is [`Outcome::Unknown`] for every session.
    pub fn undecided() -> Self {
        Self::of(Program::match_greater())
    }

    /// Creates a probe from a program that was compiled for Ethernet.
    pub(super) fn of(program: Program) -> Self {
        Self { program, packet: PacketBuffer::default() }
    }

    /// Returns whether a packet of this session, in either direction, certainly matches.
    pub fn matches(&mut self, session: &Endpoints) -> bool {
        self.ask(session) == Outcome::Matches
    }

    /// Applies the expression to the session's endpoints, in both directions.
    pub fn ask(&mut self, session: &Endpoints) -> Outcome {
        let there = self.ask_one_way(session);
        if there == Outcome::Matches || session.one_way {
            return there;
        }
        match (there, self.ask_one_way(&session.reversed())) {
            (_, Outcome::Matches) => Outcome::Matches,
            (Outcome::Rejects, Outcome::Rejects) => Outcome::Rejects,
            _ => Outcome::Unknown,
        }
    }

    pub(super) fn ask_one_way(&mut self, session: &Endpoints) -> Outcome {
        self.program.ask(&self.packet.build(session))
    }
}

impl From<&Decoded> for Endpoints {
    /// Takes the endpoints of a packet; the source is its sender.
    fn from(decoded: &Decoded) -> Self {
        Self {
            network: decoded.network,
            protocol: decoded.protocol,
            ethertype: decoded.ethertype,
            source: decoded.source,
            destination: decoded.destination,
            source_port: decoded.source_port,
            destination_port: decoded.destination_port,
            one_way: decoded.one_way,
            vlan: decoded.vlan,
            inner_vlan: decoded.inner_vlan,
        }
    }
}

impl Endpoints {
    fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

#[derive(Clone, Debug)]
struct PacketBuffer {
    bytes: [u8; PACKET_BYTES_MAX],
    len: usize,
    known: u128,
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self { bytes: [0; PACKET_BYTES_MAX], len: 0, known: 0 }
    }
}

impl PacketBuffer {
    fn build(&mut self, session: &Endpoints) -> PartialPacket<'_> {
        (self.len, self.known) = (0, 0);
        match session.network {
            Network::Link => {
                self.push(&mac(session.destination));
                self.push(&mac(session.source));
                self.push_tags(session);
                self.push(&session.ethertype.to_be_bytes());
            }
            Network::Ipv4 => {
                self.push_unknown(12);
                self.push_tags(session);
                self.push(&IPV4.to_be_bytes());
                self.push_ipv4(session);
                self.push_transport(session);
            }
            Network::Ipv6 => {
                self.push_unknown(12);
                self.push_tags(session);
                self.push(&IPV6.to_be_bytes());
                self.push_ipv6(session);
                self.push_transport(session);
            }
        }
        PartialPacket { bytes: self.bytes.get(..self.len).unwrap_or_default(), known: self.known }
    }

    fn push_tags(&mut self, session: &Endpoints) {
        let Some(outer) = session.vlan else { return };
        self.push(&if session.inner_vlan.is_some() { QINQ } else { VLAN }.to_be_bytes());
        self.push(&outer.to_be_bytes());
        if let Some(inner) = session.inner_vlan {
            self.push(&VLAN.to_be_bytes());
            self.push(&inner.to_be_bytes());
        }
    }

    fn push_ipv4(&mut self, session: &Endpoints) {
        self.push(&[0x45]);
        // Type of service, total length, identification.
        self.push_unknown(5);
        // Flags and fragment offset 0: the first fragment.
        self.push(&[0, 0]);
        self.push_unknown(1);
        self.push(&[session.protocol]);
        self.push_unknown(2);
        self.push(low(&session.source.to_be_bytes(), 4));
        self.push(low(&session.destination.to_be_bytes(), 4));
    }

    fn push_ipv6(&mut self, session: &Endpoints) {
        self.push(&[0x60]);
        self.push_unknown(5);
        self.push(&[session.protocol]);
        self.push_unknown(1);
        self.push(&session.source.to_be_bytes());
        self.push(&session.destination.to_be_bytes());
    }

    fn push_transport(&mut self, session: &Endpoints) {
        let [kind, answer] = [session.source_port, session.destination_port].map(|port| port.to_be_bytes()[1]);
        let ports = [session.source_port.to_be_bytes(), session.destination_port.to_be_bytes()];
        match session.protocol {
            ICMP | ICMPV6 => {
                self.push(&[kind, if session.one_way { answer } else { 0 }]);
                self.push_unknown(6);
            }
            TCP => {
                self.push(ports.as_flattened());
                self.push_unknown(8);
                // Data offset: 5 words, no options.
                self.push(&[5 << 4]);
                self.push_unknown(7);
            }
            UDP | SCTP => {
                self.push(ports.as_flattened());
                self.push_unknown(4);
            }
            _ => {}
        }
    }

    /// Appends `bytes` unknown bytes.
    fn push_unknown(&mut self, bytes: usize) {
        if self.len + bytes <= PACKET_BYTES_MAX {
            self.len += bytes;
        }
    }

    /// Appends known bytes if they fit. [`PACKET_BYTES_MAX`] has room for every packet that is built.
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.known |= ((1 << bytes.len()) - 1) << self.len;
            self.len += bytes.len();
        }
    }
}

fn mac(address: u128) -> [u8; 6] {
    let [.., a, b, c, d, e, f] = address.to_be_bytes();
    [a, b, c, d, e, f]
}

/// Returns the last `n` bytes.
fn low(bytes: &[u8], n: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(n)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp() -> Endpoints {
        Endpoints {
            network: Network::Ipv4,
            protocol: TCP,
            source: 0x0a00_0001,
            destination: 0x0a00_0002,
            source_port: 40_000,
            destination_port: 443,
            ..Endpoints::default()
        }
    }

    fn check(session: &Endpoints, matching: &[&str], others: &[&str]) {
        for (expressions, expected) in [(matching, true), (others, false)] {
            for expression in expressions {
                let mut probe = SessionProbe::new(expression).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(probe.matches(session), expected, "{expression} of {session:?}");
                assert_eq!(probe.matches(&session.reversed()), expected || session.one_way, "{expression} reversed");
            }
        }
    }

    #[test]
    fn a_tcp_session_answers() {
        check(
            &tcp(),
            &[
                "",
                "tcp",
                "ip",
                "host 10.0.0.1",
                "src host 10.0.0.2",
                "dst host 10.0.0.2 and dst port 443",
                "net 10.0.0.0/24",
                "port 443 and host 10.0.0.1",
                "portrange 400-500",
                "tcp[12] & 0xf0 = 0x50",
            ],
            &[
                "udp",
                "ip6",
                "vlan",
                "host 10.0.0.3",
                "port 80",
                "src host 10.0.0.1 and dst port 40000",
                "not tcp",
                "icmp",
            ],
        );
    }

    #[test]
    fn what_endpoints_do_not_determine_is_unknown() {
        for (expression, expected) in [
            ("tcp[13] & 4 != 0", Outcome::Unknown),
            ("tcp[13] & 4 != 0 and port 443", Outcome::Unknown),
            ("tcp[13] & 4 != 0 and port 80", Outcome::Rejects),
            ("udp[8] = 1", Outcome::Rejects),
            ("tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", Outcome::Unknown),
            ("greater 100", Outcome::Unknown),
            ("less 100 or port 443", Outcome::Matches),
            ("ether host 02:00:00:00:00:01", Outcome::Unknown),
            ("ip[8] < 5 and not port 443", Outcome::Rejects),
            ("port 443", Outcome::Matches),
            ("mpls", Outcome::Rejects),
        ] {
            let mut probe = SessionProbe::new(expression).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(probe.ask(&tcp()), expected, "{expression}");
        }
    }

    #[test]
    fn tags_count_as_in_packets() {
        let tagged = Endpoints { vlan: Some(7), ..tcp() };
        check(
            &tagged,
            &["vlan", "vlan 7", "vlan 7 and port 443", "vlan and host 10.0.0.1"],
            &["tcp", "vlan 8", "not vlan"],
        );
        let twice = Endpoints { vlan: Some(7), inner_vlan: Some(9), ..tcp() };
        check(&twice, &["vlan 7 and vlan 9 and port 443"], &["vlan 9", "vlan and port 443"]);
    }

    #[test]
    fn ipv6_and_other_transports_answer() {
        let base = Endpoints {
            network: Network::Ipv6,
            source: 0x2001_0db8 << 96 | 1,
            destination: 0x2001_0db8 << 96 | 2,
            source_port: 5353,
            destination_port: 53,
            ..Endpoints::default()
        };
        check(
            &Endpoints { protocol: UDP, ..base },
            &["ip6 host 2001:db8::2", "udp port 53", "net 2001:db8::/32", "udp"],
            &["tcp", "ip", "port 54"],
        );
        check(&Endpoints { protocol: SCTP, ..base }, &["sctp port 5353", "ip6 proto 132"], &["udp port 53"]);
        check(&Endpoints { protocol: 47, ..base }, &["proto 47", "ip6 proto 47"], &["proto 50", "port 53"]);
    }

    #[test]
    fn icmp_answers_by_type() {
        let ping = Endpoints { protocol: ICMP, source_port: 8, destination_port: 0, ..tcp() };
        check(&ping, &["icmp", "icmp[icmptype] = icmp-echo", "icmp[0] = 0", "host 10.0.0.2"], &["icmp[0] = 3", "tcp"]);
        let unreachable = Endpoints { source_port: 3, destination_port: 1, one_way: true, ..ping };
        let mut probe = SessionProbe::new("icmp[0] = 3 and icmp[1] = 1 and src host 10.0.0.1").unwrap();
        assert!(probe.matches(&unreachable));
        assert!(!SessionProbe::new("icmp[0] = 1").unwrap().matches(&unreachable));
    }

    #[test]
    fn what_is_not_ip_answers() {
        let lldp = Endpoints {
            ethertype: 0x88cc,
            source: 0x0200_0000_0001,
            destination: 0x0180_c200_000e,
            ..Endpoints::default()
        };
        check(
            &lldp,
            &["ether proto 0x88cc", "ether host 02:00:00:00:00:01", "ether multicast"],
            &["ip", "arp", "ether host 02:00:00:00:00:02"],
        );
        check(&Endpoints { ethertype: 0x0806, ..lldp }, &["arp", "not ip"], &["rarp"]);
    }
}
