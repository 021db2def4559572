//! Names what kept a packet, or the packets of a session, from being decoded to the innermost endpoints.
//!
//! A search that finds nothing may have missed what such packets carry, so its answer counts them. Most sessions need no
//! look at their packets: [`openness`] decides by the endpoints. [`unopened`] decides by the bytes of a packet.

use std::fmt::{self, Display, Formatter};
use std::ops::ControlFlow;

use super::decoded::{Decoded, Network, Stop};
use super::encapsulation::{each_layer, name};
use super::ethertype::by_ethertype;
use super::layer::Layer;
use super::{layers, plain, udp_tunnel};
use base::packet::LinkType;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ESP: u8 = 50;
const PROTOCOL_IPCOMP: u8 = 108;

/// The port of ESP in UDP (RFC 3948), which the key exchange of IPsec shares.
const PORT_ESP: u16 = 4500;
/// The default port of WireGuard.
const PORT_WIREGUARD: u16 = 51_820;
/// The port of sFlow, which carries samples of packets.
const PORT_SFLOW: u16 = 6343;
/// The ports of OpenFlow, whose switches and controllers send each other packets.
const PORTS_OPENFLOW: [u16; 2] = [6633, 6653];

/// What was not opened, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unopened {
    /// The header at which decoding stopped.
    pub header: Header,
    /// Why it stopped there.
    pub reason: Reason,
}

/// The header at which decoding stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Header {
    /// The link layer.
    LinkType(LinkType),
    /// The payload of an ethertype.
    Ethertype(u16),
    /// The payload of an IP protocol.
    Protocol(u8),
    /// A header with a name.
    Named(&'static str),
}

/// Why decoding stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The decoder does not support it.
    Unsupported,
    /// It was decoded, but the question has no meaning for it.
    NotApplicable,
    /// The captured bytes end before what the question tests.
    NotCaptured,
    /// The payload is encrypted.
    Encrypted,
    /// The payload is compressed.
    Compressed,
    /// The captured bytes end within the header, or before it.
    Cut,
    /// A fragment whose first fragment was not seen.
    Fragment,
    /// The header is inconsistent with itself or with the packet's length.
    Malformed,
    /// More headers are nested than are decoded.
    TooDeep,
}

impl Reason {
    /// A stable word for scripts.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::NotApplicable => "not_applicable",
            Self::NotCaptured => "not_captured",
            Self::Encrypted => "encrypted",
            Self::Compressed => "compressed",
            Self::Cut => "cut",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::TooDeep => "too_deep",
        }
    }

    /// The reason in words; empty if the decoder does not support the header, which needs no further words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unsupported => "",
            Self::NotApplicable => "the expression does not apply to it",
            Self::NotCaptured => "captured without what the expression tests",
            Self::Encrypted => "encrypted",
            Self::Compressed => "compressed",
            Self::Cut => "cut within the headers",
            Self::Fragment => "fragments without the first one",
            Self::Malformed => "with damaged headers",
            Self::TooDeep => "too many headers",
        }
    }
}

impl Display for Header {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkType(link_type) => write!(f, "link type {link_type}"),
            Self::Ethertype(number) => write!(f, "ethertype {number:#06x}"),
            Self::Protocol(number) => write!(f, "IP protocol {number}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// As in "3 packets with ESP (encrypted)".
impl Display for Unopened {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let with = if matches!(self.header, Header::LinkType(_)) { "of" } else { "with" };
        write!(f, "{with} {}", self.header)?;
        match self.reason.words() {
            "" => Ok(()),
            words => write!(f, " ({words})"),
        }
    }
}

/// Whether the packets of a session were opened, as far as its endpoints tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openness {
    /// All of them.
    Opened,
    /// None of them.
    Closed(Unopened),
    /// The packets decide.
    Unsure,
}

/// Returns whether the packets of a session were opened. For link-layer sessions, only `ethertype` counts.
pub fn openness(network: Network, ethertype: u16, protocol: u8, ports: [u16; 2]) -> Openness {
    let closed = |header, reason| Openness::Closed(Unopened { header, reason });
    if network == Network::Link {
        return match ethertype {
            // LLC, 802.11, or the frame was cut in its first header.
            0 => Openness::Unsure,
            _ if is_leaf_ethertype(ethertype) => Openness::Opened,
            _ if by_ethertype(ethertype).is_continue() => Openness::Unsure,
            _ => closed(Header::Ethertype(ethertype), Reason::Unsupported),
        };
    }
    let in_udp = |port| matches!(port, PORT_ESP | PORT_WIREGUARD | PORT_SFLOW);
    match protocol {
        PROTOCOL_ESP => closed(Header::Named("ESP"), Reason::Encrypted),
        PROTOCOL_IPCOMP => closed(Header::Named("IPComp"), Reason::Compressed),
        _ if has_ports(protocol) && ports == [0, 0] => Openness::Unsure,
        PROTOCOL_UDP if ports.into_iter().any(in_udp) => Openness::Unsure,
        PROTOCOL_TCP if ports.iter().any(|port| PORTS_OPENFLOW.contains(port)) => Openness::Unsure,
        PROTOCOL_UDP
            if udp_tunnel::by_ports(ports[0], ports[1]).or(udp_tunnel::by_ports(ports[1], ports[0])).is_some() =>
        {
            Openness::Unsure
        }
        _ if is_leaf_protocol(protocol) => Openness::Opened,
        4 | 41 | 47 | 51 | 97 | 115 | 137 | 143 => Openness::Unsure,
        0 | 43 | 44 | 60 | 135 if network == Network::Ipv6 => Openness::Unsure,
        _ => closed(Header::Protocol(protocol), Reason::Unsupported),
    }
}

/// Returns what kept this packet from being opened; `None` if it was decoded to its innermost endpoints.
pub fn unopened(link_type: LinkType, data: &[u8]) -> Option<Unopened> {
    let mut decoded = Decoded::default();
    if link_type == LinkType::ETHERNET && plain::read(data, &mut decoded).is_some() {
        return carries_packets(&decoded, data);
    }
    if !layers::opens(link_type) {
        return Some(Unopened { header: Header::LinkType(link_type), reason: Reason::Unsupported });
    }
    let mut last = None;
    let decoded = each_layer(link_type, data, |layer, walk| {
        last = Some((layer, walk.offset));
        ControlFlow::Continue(())
    });
    let (layer, offset) = last?;
    let bytes = data.get(offset..).unwrap_or_default();
    if matches!(layer, Layer::Ieee80211(_) | Layer::Ieee80211Swapped) {
        return unopened_802_11(layer, bytes, decoded.stop);
    }
    if let (Layer::Tcp | Layer::Udp | Layer::Sctp | Layer::PortsOnly | Layer::Icmp | Layer::Icmpv6, stop) =
        (layer, decoded.stop)
    {
        return unopened_transport(&decoded, data, layer, stop);
    }
    let reason = match decoded.stop {
        Stop::Truncated => Reason::Cut,
        Stop::Malformed => Reason::Malformed,
        Stop::TooDeep => Reason::TooDeep,
        Stop::Unknown => return unsupported(&decoded, layer, bytes),
        Stop::Complete => return complete(&decoded, layer, bytes),
    };
    Some(Unopened { header: Header::Named(header_name(layer, bytes)), reason })
}

/// Management and control frames have no further endpoints.
fn unopened_802_11(layer: Layer, bytes: &[u8], stop: Stop) -> Option<Unopened> {
    const TYPE_AND_NO_DATA: u8 = 0x4f;
    const DATA: u8 = 0x08;
    const PROTECTED: u8 = 0x40;

    let reason = match *bytes {
        [a, b, ..] => {
            let (control, flags) = if layer == Layer::Ieee80211Swapped { (b, a) } else { (a, b) };
            match stop {
                _ if control & TYPE_AND_NO_DATA != DATA => return None,
                Stop::Truncated => Reason::Cut,
                Stop::Malformed => Reason::Malformed,
                _ if flags & PROTECTED != 0 => Reason::Encrypted,
                // Frames of one fragment lead to the next layer.
                _ => Reason::Fragment,
            }
        }
        _ => Reason::Cut,
    };
    Some(Unopened { header: Header::Named("802.11"), reason })
}

/// A transport header is opened as soon as its ports are known.
fn unopened_transport(decoded: &Decoded, data: &[u8], layer: Layer, stop: Stop) -> Option<Unopened> {
    let ports = [decoded.source_port, decoded.destination_port];
    let reason = match stop {
        Stop::Complete => return carries_packets(decoded, data),
        _ if matches!(layer, Layer::Icmp | Layer::Icmpv6) => return None,
        Stop::Truncated
            if ports == [0, 0] || (layer == Layer::Udp && udp_tunnel::by_ports(ports[0], ports[1]).is_some()) =>
        {
            Reason::Cut
        }
        Stop::Malformed if ports == [0, 0] => Reason::Malformed,
        _ => return None,
    };
    Some(Unopened { header: Header::Named(header_name(layer, &[])), reason })
}

/// Payloads that carry other packets, of virtual private networks, sampling switches and OpenFlow.
fn carries_packets(decoded: &Decoded, data: &[u8]) -> Option<Unopened> {
    if decoded.stop != Stop::Complete {
        return None;
    }
    let is_tcp = decoded.protocol == PROTOCOL_TCP;
    let is_on = |port| decoded.source_port == port || decoded.destination_port == port;
    let payload = || usize::try_from(decoded.payload_offset).ok().and_then(|offset| data.get(offset..));
    let (header, reason) = match payload() {
        // Packets to the controller, and from it.
        Some([1..=6, 10 | 13, ..]) if is_tcp && PORTS_OPENFLOW.into_iter().any(is_on) => {
            ("OpenFlow", Reason::Unsupported)
        }
        _ if decoded.protocol != PROTOCOL_UDP => return None,
        // Four bytes of 0 mark the key exchange, a single byte keeps the binding of an address translator alive.
        Some([a, b, c, d, _, ..]) if is_on(PORT_ESP) && [*a, *b, *c, *d] != [0; 4] => ("ESP", Reason::Encrypted),
        // The type of messages that carry packets.
        Some([4, 0, 0, 0, ..]) if is_on(PORT_WIREGUARD) => ("WireGuard", Reason::Encrypted),
        // Version 5, or an older one.
        Some([0, 0, 0, 2..=5, ..]) if is_on(PORT_SFLOW) => ("sFlow", Reason::Unsupported),
        _ => return None,
    };
    Some(Unopened { header: Header::Named(header), reason })
}

/// Decoding stopped at a protocol that it does not support, or whose payload has no endpoints.
fn unsupported(decoded: &Decoded, layer: Layer, bytes: &[u8]) -> Option<Unopened> {
    let (header, reason) = match layer {
        Layer::Ipv4 | Layer::Ipv6 | Layer::Ip | Layer::Extension | Layer::Ipv6Fragment | Layer::Authentication => {
            let ports = [decoded.source_port, decoded.destination_port];
            return match openness(decoded.network, 0, decoded.protocol, ports) {
                Openness::Closed(unopened) => Some(unopened),
                _ => None,
            };
        }
        Layer::MacSec => (Header::Named("MACsec"), Reason::Encrypted),
        Layer::Ppp => return unopened_ppp(bytes),
        // The types of keepalives, and of discovery.
        Layer::Gre if matches!(bytes, [_, _, 0, 0, ..]) => return None,
        Layer::Pppoe => return None,
        // Routes, probes, pings and tables of the mesh itself.
        Layer::Batman if matches!(bytes, [0 | 3 | 4 | 0x43 | 0x44, 15, ..] | [1 | 2 | 5 | 7 | 8, 14, ..]) => {
            return None;
        }
        Layer::Mpls
        | Layer::Gre
        | Layer::Geneve
        | Layer::Vxlan
        | Layer::Nsh
        | Layer::Tzsp
        | Layer::Gue
        | Layer::L2tpV3
        | Layer::Batman
        | Layer::EtherIp
        | Layer::GtpU
        | Layer::Lisp
        | Layer::Pim => (Header::Named(header_name(layer, bytes)), Reason::Unsupported),
        Layer::Ppi
        | Layer::Pktap
        | Layer::Erf
        | Layer::Mpacket
        | Layer::Loopback
        | Layer::Pflog
        | Layer::Enc
        | Layer::Ipnet => (Header::Named("an unknown capture header"), Reason::Unsupported),
        _ => match decoded.ethertype {
            0 => return None,
            ethertype if decoded.network != Network::Link || is_leaf_ethertype(ethertype) => return None,
            ethertype => (Header::Ethertype(ethertype), Reason::Unsupported),
        },
    };
    Some(Unopened { header, reason })
}

/// Control protocols of PPP have numbers from 0x8000 on.
fn unopened_ppp(bytes: &[u8]) -> Option<Unopened> {
    let bytes = bytes.strip_prefix(&[0xff, 0x03]).unwrap_or(bytes);
    let reason = match *bytes {
        // Compressed datagrams (RFC 1962), which may also be encrypted (RFC 3078), and compressed TCP (RFC 1144).
        [0x00, 0xfd | 0xfb | 0x2d | 0x2f, ..] | [0xfd | 0xfb | 0x2d | 0x2f, ..] => Reason::Compressed,
        [0x80..=0xff, _, ..] => return None,
        _ => Reason::Unsupported,
    };
    Some(Unopened { header: Header::Named("PPP"), reason })
}

/// Decoding was complete. Later fragments and what only the endpoints of a tunnel can read are not opened nevertheless.
fn complete(decoded: &Decoded, layer: Layer, bytes: &[u8]) -> Option<Unopened> {
    let named = |reason| Some(Unopened { header: Header::Named(header_name(layer, bytes)), reason });
    match (layer, bytes) {
        (Layer::Capwap, [1, ..]) => named(Reason::Encrypted),
        (Layer::Capwap, [0, _, _, flags, ..]) if flags & 0x80 != 0 => named(Reason::Fragment),
        _ if decoded.fragment.is_some_and(|fragment| !fragment.first)
            && (has_ports(decoded.protocol) || !is_leaf_protocol(decoded.protocol)) =>
        {
            named(Reason::Fragment)
        }
        _ => None,
    }
}

/// The name of a layer in a message.
fn header_name(layer: Layer, bytes: &[u8]) -> &'static str {
    match layer {
        Layer::Ethernet => "Ethernet",
        Layer::Ip if matches!(bytes, [0x60..=0x6f, ..]) => "IPv6",
        Layer::Ip | Layer::Ipv4 => "IPv4",
        Layer::Ipv6 => "IPv6",
        Layer::Tcp => "TCP",
        Layer::Udp => "UDP",
        Layer::Sctp => "SCTP",
        Layer::PortsOnly => "ports",
        Layer::Icmp | Layer::Icmpv6 => "ICMP",
        layer => name(layer, bytes).unwrap_or("another header"),
    }
}

/// Ethertypes of protocols whose payload has no further endpoints.
fn is_leaf_ethertype(ethertype: u16) -> bool {
    matches!(
        ethertype,
        // Below the lowest ethertype, numbers are those of Linux: CAN, IrDA and others.
        ..0x0600
        // ARP, RARP, AARP, AppleTalk, IPX, Banyan VINES, DECnet and the other protocols of DEC, wake-on-LAN.
        | 0x0806 | 0x8035 | 0x80f3 | 0x809b | 0x8137 | 0x8138 | 0x0bad | 0x6000..=0x6009 | 0x0842
        // Of switches: flow control, slow protocols, discovery and test, topology, registration, stream reservation.
        | 0x8808 | 0x8809 | 0x88cc | 0x8902 | 0x9000 | 0x9003 | 0x88f5 | 0x88f6 | 0x22ea | 0x22f4 | 0x88e3 | 0x893a | 0x88d9
        // Authentication, PPPoE discovery, time.
        | 0x888e | 0x88c7 | 0x8863 | 0x88f7
        // Of industry, audio, powerline and storage.
        | 0x8892 | 0x88a4 | 0x88ab | 0x88b8 | 0x88b9 | 0x88ba | 0x88cd | 0x88fb | 0x891d | 0x22f0
        | 0x887b | 0x88e1 | 0x8912 | 0x88a2 | 0x8906 | 0x8914 | 0x8915
    )
}

/// IP protocols whose endpoints have ports: TCP, UDP, DCCP, SCTP, UDP-Lite. Later fragments lack them.
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP | 33 | 132 | 136)
}

/// IP protocols whose payload has no further endpoints.
fn is_leaf_protocol(protocol: u8) -> bool {
    matches!(
        protocol,
        // ICMP, IGMP, TCP, EGP, UDP, DCCP, IPv6-ICMP and none, EIGRP, OSPF.
        PROTOCOL_ICMP | 2 | PROTOCOL_TCP | 8 | PROTOCOL_UDP | 33 | 58 | 59 | 88 | 89
        // RSVP, PIM, VRRP, PGM, ISIS, SCTP, UDP-Lite, HIP.
        | 46 | 103 | 112 | 113 | 124 | 132 | 136 | 139
    )
}

#[cfg(test)]
mod tests;
