//! Builders of test frames, innermost layer first, and a one-line summary of decoded packets.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Decoded, Network, Stop, decode};
use base::packet::LinkType;

/// Asserts that each frame of a table decodes to the expected [`summary`].
pub(super) fn check(link_type: LinkType, table: &[(&str, Vec<u8>, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .map(|(name, frame, expect)| (name, summary(&decode(link_type, frame)), expect))
        .filter(|(_, got, expect)| got != *expect)
        .map(|(name, got, expect)| format!("{name}\n    expected {expect}\n    got      {got}\n"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.concat());
}

/// Returns `protocol source > destination length@offset`, followed by unusual properties.
pub(super) fn summary(decoded: &Decoded) -> String {
    let address = |address: u128, port: u16| match decoded.network {
        Network::Link => format!("{address:012x}"),
        Network::Ipv4 => format!("{}:{port}", Ipv4Addr::from(u32::try_from(address).expect("32 bits"))),
        Network::Ipv6 => format!("[{}]:{port}", Ipv6Addr::from(address)),
    };
    let mut text = match decoded.network {
        Network::Link => format!("{:04x}", decoded.ethertype),
        _ => decoded.protocol.to_string(),
    };
    let source = address(decoded.source, decoded.source_port);
    let destination = address(decoded.destination, decoded.destination_port);
    let Decoded { payload_len, payload_offset, .. } = decoded;
    let _ = write!(text, " {source} > {destination} {payload_len}@{payload_offset}");
    if decoded.one_way {
        text.push_str(" one-way");
    }
    match (decoded.vlan, decoded.inner_vlan) {
        (None, None) => {}
        (outer, None) => write!(text, " vlan {}", outer.unwrap_or(u16::MAX)).expect("to text"),
        (outer, Some(inner)) => write!(text, " vlan {}/{inner}", outer.unwrap_or(u16::MAX)).expect("to text"),
    }
    if let Some(fragment) = decoded.fragment {
        let _ = write!(text, " {} fragment of {:x}", if fragment.first { "first" } else { "later" }, fragment.id);
    }
    if decoded.depth > 0 {
        let _ = write!(text, " depth {}", decoded.depth);
    }
    if decoded.tunnel != 0 {
        text.push_str(" tunnel");
    }
    if decoded.stop != Stop::Complete {
        let _ = write!(text, " {:?}", decoded.stop);
    }
    text
}

/// Concatenates the parts.
pub(super) fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Returns the first `len` bytes.
pub(super) fn cut(len: usize, frame: &[u8]) -> Vec<u8> {
    frame[..len].to_vec()
}

/// Returns the frame with the byte at offset `at` replaced.
pub(super) fn with(at: usize, byte: u8, mut frame: Vec<u8>) -> Vec<u8> {
    frame[at] = byte;
    frame
}

fn len16(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("a length of 16 bits").to_be_bytes()
}

/// Builds an Ethernet frame from 02:00:00:00:00:01 to 02:00:00:00:00:02.
pub(super) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    join(&[&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ethertype.to_be_bytes(), payload])
}

/// Builds the part of a VLAN tag after the TPID.
pub(super) fn tag(id: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    join(&[&(0x6000 | id).to_be_bytes(), &ethertype.to_be_bytes(), payload])
}

/// Builds an IPv4 packet from 10.0.0.1 to 10.0.0.2.
pub(super) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(protocol, 0, &[], payload)
}

/// Builds an IPv4 packet with flags, fragment offset and options.
pub(super) fn ipv4_with(protocol: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let [l0, l1] = len16(header_len + payload.len());
    let [f0, f1] = fragment.to_be_bytes();
    let version = 0x40 | u8::try_from(header_len / 4).expect("at most 60");
    let header = [version, 0, l0, l1, 0xab, 0xcd, f0, f1, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    join(&[&header, options, payload])
}

/// Builds an IPv6 packet from fd00::1 to fd00::2.
pub(super) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = len16(payload.len());
    let source = "fd00::1".parse::<Ipv6Addr>().expect("an address").octets();
    let destination = "fd00::2".parse::<Ipv6Addr>().expect("an address").octets();
    join(&[&[0x60, 0, 0, 0, l0, l1, next, 64], &source, &destination, payload])
}

/// Builds an IPv6 extension header of `2 + body.len()` bytes, which must be a multiple of 8.
pub(super) fn extension(next: u8, body: &[u8], payload: &[u8]) -> Vec<u8> {
    assert_eq!((body.len() + 2) % 8, 0, "in units of 8 bytes");
    let len = u8::try_from((body.len() + 2) / 8 - 1).expect("a short header");
    join(&[&[next, len], body, payload])
}

/// Builds a TCP segment from port 1000 to port 80: SYN, sequence number 7.
pub(super) fn tcp(payload: &[u8]) -> Vec<u8> {
    let ports = [0x03, 0xe8, 0, 80];
    join(&[&ports, &[0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0], payload])
}

/// Builds a UDP datagram from port 1000.
pub(super) fn udp(destination: u16, payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = len16(8 + payload.len());
    join(&[&[0x03, 0xe8], &destination.to_be_bytes(), &[l0, l1, 0, 0], payload])
}

/// Builds an ICMP message from type and code.
pub(super) fn icmp(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 0, 1, 0, 1, b'x', b'y', b'z']
}

/// Builds one entry of an MPLS label stack.
pub(super) fn label(bottom: bool, payload: &[u8]) -> Vec<u8> {
    join(&[&[0, 0x01, u8::from(bottom), 64], payload])
}

/// Builds a PPPoE session packet with a PPP protocol.
pub(super) fn pppoe(session: u16, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let header = [&[0x11, 0][..], &session.to_be_bytes(), &len16(2 + payload.len()), &protocol.to_be_bytes()];
    join(&[&header.concat(), payload])
}

/// Builds a GRE packet with flags and version, protocol type and optional fields.
pub(super) fn gre(flags: u16, protocol: u16, fields: &[u8], payload: &[u8]) -> Vec<u8> {
    join(&[&flags.to_be_bytes(), &protocol.to_be_bytes(), fields, payload])
}

/// Builds a VXLAN packet with a valid network id.
pub(super) fn vxlan(id: u8, payload: &[u8]) -> Vec<u8> {
    join(&[&[8, 0, 0, 0, 0, 0, id, 0], payload])
}

/// Builds a Geneve packet with options.
pub(super) fn geneve(id: u8, protocol: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let words = u8::try_from(options.len() / 4).expect("few options");
    join(&[&[words, 0], &protocol.to_be_bytes(), &[0, 0, id, 0], options, payload])
}

/// Builds a GTP-U packet with flags, message type and optional part.
pub(super) fn gtp_u(flags: u8, message_type: u8, optional: &[u8], payload: &[u8]) -> Vec<u8> {
    join(&[&[0x30 | flags, message_type], &len16(optional.len() + payload.len()), &[0, 0, 0, 9], optional, payload])
}

/// Returns complete, valid frames of common layers, each with its link type.
pub(super) fn samples() -> Vec<(LinkType, Vec<u8>)> {
    let ethernet_frame = |ethertype, payload: &[u8]| (LinkType::ETHERNET, ethernet(ethertype, payload));
    let inner = ethernet(0x0800, &ipv4(6, &tcp(b"inner")));
    let in_udp = |port, payload: &[u8]| ethernet_frame(0x0800, &ipv4(17, &udp(port, payload)));
    let chain = extension(43, &[0; 6], &extension(60, &[0; 14], &extension(44, &[0; 6], &[17, 0, 0, 1, 0, 0, 0, 5])));
    vec![
        ethernet_frame(0x0800, &ipv4(6, &tcp(b"payload"))),
        ethernet_frame(0x0800, &ipv4_with(17, 0x2000, &[1; 8], &udp(53, b"payload"))),
        ethernet_frame(0x86dd, &ipv6(58, &icmp(135, 0))),
        ethernet_frame(0x86dd, &ipv6(0, &join(&[&chain, &udp(53, b"payload")]))),
        ethernet_frame(0x86dd, &ipv6(51, &join(&[&[6, 4], &[0; 22], &tcp(b"payload")]))),
        ethernet_frame(0x88a8, &tag(1, 0x8100, &tag(2, 0x8864, &pppoe(3, 0x21, &ipv4(132, &[0; 16]))))),
        ethernet_frame(0x8847, &label(false, &label(true, &join(&[&[0; 4], &inner])))),
        ethernet_frame(11, &join(&[&[0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0x06], b"arp"])),
        ethernet_frame(0x0800, &ipv4(47, &gre(0xb000, 0x6558, &[0; 12], &inner))),
        ethernet_frame(
            0x0800,
            &ipv4(47, &gre(0x3081, 0x880b, &[0, 42, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1], &[0xff, 3, 0, 0x21])),
        ),
        ethernet_frame(
            0x0800,
            &ipv4(47, &gre(0x1000, 0x88be, &[0; 4], &join(&[&[0x10, 0, 0, 1, 0, 0, 0, 0], &inner]))),
        ),
        ethernet_frame(0x0800, &ipv4(4, &ipv4(41, &ipv6(4, &ipv4(1, &icmp(8, 0)))))),
        in_udp(4789, &vxlan(5, &inner)),
        in_udp(6081, &geneve(5, 0x6558, &[0; 8], &inner)),
        in_udp(2152, &gtp_u(4, 255, &[0, 0, 0, 0x85, 1, 0, 0, 0], &ipv4(6, &tcp(b"inner")))),
        (LinkType::RAW, ipv4(6, &tcp(b"raw"))),
        (LinkType::NULL, join(&[&[2, 0, 0, 0], &ipv4(6, &tcp(b"null"))])),
        (LinkType(9), join(&[&[0xff, 3, 0, 0x57], &ipv6(6, &tcp(b"ppp"))])),
        (LinkType::LINUX_SLL, join(&[&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x08, 0], &ipv4(6, &tcp(b"sll"))])),
        (
            LinkType::LINUX_SLL2,
            join(&[&[0x86, 0xdd, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0], &ipv6(6, &tcp(b"sll2"))]),
        ),
    ]
}
