//! Decoding compared with tshark: the same endpoints for every packet of every shared capture.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use retrocap::decode::{Decoded, Network, decode};
use retrocap::packet::LinkType;

use crate::machine;

#[test]
fn tshark_sees_the_same_endpoints() {
    const WHAT: &str = "decode against tshark";
    if !machine::have(WHAT, "tshark") {
        return;
    }
    let captures = machine::captures(WHAT);
    let mut compared = BTreeMap::<&str, usize>::new();
    let mut wrong = Vec::new();
    for capture in &captures {
        let name = capture.file_name().unwrap_or_default().to_string_lossy();
        let packets = packets_of(&std::fs::read(capture).expect("a readable capture"));
        let views = views_of_tshark(capture);
        assert_eq!(packets.len(), views.len(), "packets in {name}");
        for (number, ((link_type, data), view)) in (1..).zip(packets.iter().zip(&views)) {
            let decoded = decode(*link_type, data);
            let seen = endpoints(&decoded);
            let Some(expected) = view.endpoints() else {
                *compared.entry("not compared").or_default() += 1;
                continue;
            };
            if seen != expected {
                wrong.push(format!("{name} packet {number}\n  tshark {expected}\n  here   {seen}\n  {view:?}\n"));
            }
            let kind = match decoded.network {
                Network::Link => "link",
                Network::Ipv4 => "IPv4",
                Network::Ipv6 => "IPv6",
            };
            *compared.entry(kind).or_default() += 1;
            *compared.entry("in tunnels").or_default() += usize::from(decoded.tunnel != 0);
        }
    }
    eprintln!("decode against tshark: {} captures, packets compared: {compared:?}", captures.len());
    assert!(wrong.is_empty(), "{} packets differ:\n{}", wrong.len(), wrong[..wrong.len().min(10)].concat());
    assert!(captures.is_empty() || compared.values().sum::<usize>() > 0);
}

/// The endpoints as text, which is what is compared.
fn endpoints(decoded: &Decoded) -> String {
    let mac = |address: u128| {
        let [.., a, b, c, d, e, f] = address.to_be_bytes();
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    };
    let (source, destination) = match decoded.network {
        Network::Link => (mac(decoded.source), mac(decoded.destination)),
        Network::Ipv4 => {
            let address = |a| Ipv4Addr::from(u32::try_from(a).expect("an IPv4 address")).to_string();
            (address(decoded.source), address(decoded.destination))
        }
        Network::Ipv6 => (Ipv6Addr::from(decoded.source).to_string(), Ipv6Addr::from(decoded.destination).to_string()),
    };
    let detail = match (decoded.network, decoded.protocol) {
        (Network::Link, _) => format!("ethertype {:04x}", decoded.ethertype),
        (_, 6) if decoded.source_port != 0 => format!(
            "tcp {} {} seq {} flags {:02x} len {}",
            decoded.source_port,
            decoded.destination_port,
            decoded.tcp_sequence,
            decoded.tcp_flags,
            // tshark gives no length for a fragment, unless the tunnel itself was fragmented.
            if decoded.fragment.is_none() || decoded.tunnel != 0 {
                decoded.payload_len.to_string()
            } else {
                String::new()
            },
        ),
        (_, 17 | 132) => format!("{} {} {}", decoded.protocol, decoded.source_port, decoded.destination_port),
        (_, 1 | 58) => format!("{} {}", decoded.protocol, decoded.source_port),
        (_, protocol) => protocol.to_string(),
    };
    let vlan = |id: Option<u16>| id.map_or_else(String::new, |id| id.to_string());
    format!("{source} > {destination} {detail} vlan {}/{}", vlan(decoded.vlan), vlan(decoded.inner_vlan))
}

/// The fields that tshark prints.
const FIELDS: [&str; 27] = [
    "frame.protocols",
    "eth.src",
    "eth.dst",
    "eth.type",
    "vlan.id",
    "vlan.etype",
    "sll.src.eth",
    "sll.etype",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.nxt",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.flags",
    "tcp.len",
    "udp.srcport",
    "udp.dstport",
    "sctp.srcport",
    "sctp.dstport",
    "icmp.type",
    "icmpv6.type",
    "llc.type",
    "ipv6.fraghdr.nxt",
];

/// Protocols that tshark decodes and this decoder does not. Their contents are not compared.
const UNREAD: [&str; 14] = [
    "ayiya",
    "cfp",
    "fddi",
    "gtpprime",
    "ieee8021ah",
    "l2tp",
    "nflog",
    "ppi",
    "radiotap",
    "teredo",
    "tr",
    "vntag",
    "wlan",
    "wlan_radio",
];

/// The fields of one packet, each with all its occurrences from the outermost header on.
#[derive(Debug)]
struct View(BTreeMap<&'static str, Vec<String>>);

fn views_of_tshark(capture: &Path) -> Vec<View> {
    let mut command = Command::new("tshark");
    // tshark numbers custom blocks as packets; they have no encapsulation.
    command.arg("-n").arg("-r").arg(capture).args(["-Y", "frame.encap_type"]);
    // Decode each packet on its own: tshark must not reassemble fragments.
    for preference in ["ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE"] {
        command.args(["-o", preference]);
    }
    command.args(["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,", "-E", "separator=/t"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark runs");
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let view = |line: &str| {
        let values =
            line.split('\t').map(|all| all.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect());
        View(FIELDS.into_iter().zip(values).collect())
    };
    String::from_utf8_lossy(&output.stdout).lines().map(view).collect()
}

impl View {
    /// The innermost endpoints. The list of protocols shows where to stop, because an ICMP error quotes another
    /// packet. `None` where tshark decodes a protocol that this decoder does not, or could not read the addresses
    /// itself.
    fn endpoints(&self) -> Option<String> {
        let protocols = self.0["frame.protocols"].first().cloned().unwrap_or_default();
        let mut seen = BTreeMap::<&str, usize>::new();
        let (mut network, mut transport) = ("", "");
        let mut tags = 0;
        for protocol in protocols.split(':') {
            match protocol {
                "eth" | "sll" | "ip" | "ipv6" => (network, transport) = (protocol, ""),
                "tcp" | "udp" | "sctp" | "icmp" | "icmpv6" => transport = protocol,
                "vlan" if !seen.contains_key("ip") && !seen.contains_key("ipv6") => {
                    tags += 1;
                    continue;
                }
                unread if UNREAD.contains(&unread) => return None,
                _ => continue,
            }
            *seen.entry(protocol).or_default() += 1;
            if !matches!(transport, "" | "udp") {
                break;
            }
        }
        let nth = |field: &'static str, layer: &str| {
            let occurrence = seen.get(layer).map_or(0, |count| count - 1);
            self.0[field].get(occurrence).map_or("", String::as_str)
        };
        let number = |text: &str| {
            text.strip_prefix("0x")
                .map_or_else(|| text.parse().unwrap_or(0), |hex| u32::from_str_radix(hex, 16).unwrap_or(0))
        };
        let last = |fields: &[&'static str]| {
            fields.iter().find_map(|field| self.0[field].last()).map_or(0, |text| number(text))
        };

        let (source, destination, protocol) = match network {
            "ip" => (nth("ip.src", "ip"), nth("ip.dst", "ip"), nth("ip.proto", "ip")),
            "ipv6" => (nth("ipv6.src", "ipv6"), nth("ipv6.dst", "ipv6"), nth("ipv6.nxt", "ipv6")),
            "sll" => (nth("sll.src.eth", "sll"), "", ""),
            _ => (nth("eth.src", "eth"), nth("eth.dst", "eth"), ""),
        };
        if network.starts_with("ip") && (source.is_empty() || destination.is_empty()) {
            return None;
        }
        let fragment_of = self.0["ipv6.fraghdr.nxt"].last().map_or("", String::as_str);
        let protocol = if network == "ipv6" && !fragment_of.is_empty() { fragment_of } else { protocol };
        let mac = |text: &str| if text.is_empty() { "00:00:00:00:00:00".to_owned() } else { text.to_owned() };
        let detail = match (network, transport) {
            ("ip" | "ipv6", "tcp") => format!(
                "tcp {} {} seq {} flags {:02x} len {}",
                nth("tcp.srcport", "tcp"),
                nth("tcp.dstport", "tcp"),
                nth("tcp.seq_raw", "tcp"),
                number(nth("tcp.flags", "tcp")) & 0xff,
                nth("tcp.len", "tcp"),
            ),
            ("ip" | "ipv6", "udp") => format!("17 {} {}", nth("udp.srcport", "udp"), nth("udp.dstport", "udp")),
            ("ip" | "ipv6", "sctp") => format!("132 {} {}", nth("sctp.srcport", "sctp"), nth("sctp.dstport", "sctp")),
            ("ip" | "ipv6", "icmp") => format!("1 {}", nth("icmp.type", "icmp")),
            ("ip" | "ipv6", "icmpv6") => format!("58 {}", nth("icmpv6.type", "icmpv6")),
            // Later fragments of the datagram have no ports.
            ("ip" | "ipv6", _) if protocol == "17" => "17 0 0".to_owned(),
            ("ip" | "ipv6", _) => protocol.to_owned(),
            _ => format!("ethertype {:04x}", last(&["llc.type", "vlan.etype", "eth.type", "sll.etype"])),
        };
        let (source, destination) = match network {
            "ip" | "ipv6" => (source.to_owned(), destination.to_owned()),
            _ => (mac(source), mac(destination)),
        };
        let vlan = |at: usize| self.0["vlan.id"].get(at).filter(|_| at < tags).map_or("", String::as_str);
        Some(format!("{source} > {destination} {detail} vlan {}/{}", vlan(0), vlan(1)))
    }
}

/// The packets of a capture file, classic or pcapng, in either byte order; just enough of both formats for this test.
fn packets_of(file: &[u8]) -> Vec<(LinkType, Vec<u8>)> {
    match file.first_chunk::<4>().map(|magic| u32::from_be_bytes(*magic)) {
        Some(0x0a0d_0d0a) => pcapng_packets(file),
        Some(0xa1b2_c3d4 | 0xa1b2_3c4d) => pcap_packets(file, u32::from_be_bytes),
        Some(0xd4c3_b2a1 | 0x4d3c_b2a1) => pcap_packets(file, u32::from_le_bytes),
        _ => panic!("no capture file"),
    }
}

fn word(bytes: &[u8], at: usize, order: fn([u8; 4]) -> u32) -> usize {
    usize::try_from(order(bytes[at..at + 4].try_into().expect("four bytes"))).expect("64 bits")
}

fn link_type(number: usize) -> LinkType {
    LinkType(u16::try_from(number).expect("16 bits"))
}

fn pcap_packets(file: &[u8], order: fn([u8; 4]) -> u32) -> Vec<(LinkType, Vec<u8>)> {
    let link_type = link_type(word(file, 20, order) & 0xffff);
    let mut packets = Vec::new();
    let mut rest = &file[24..];
    while rest.len() >= 16 {
        let captured = word(rest, 8, order);
        packets.push((link_type, rest[16..16 + captured].to_vec()));
        rest = &rest[16 + captured..];
    }
    packets
}

fn pcapng_packets(file: &[u8]) -> Vec<(LinkType, Vec<u8>)> {
    let mut order: fn([u8; 4]) -> u32 = u32::from_le_bytes;
    let mut interfaces = Vec::new();
    let mut packets = Vec::new();
    let mut rest = file;
    while rest.len() >= 12 {
        if word(rest, 0, u32::from_be_bytes) == 0x0a0d_0d0a {
            let big_endian = word(rest, 8, u32::from_be_bytes) == 0x1a2b_3c4d;
            order = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
            interfaces.clear();
        }
        let len = word(rest, 4, order);
        match word(rest, 0, order) {
            // Interface description block: the link type is a 16-bit number.
            1 if order([0, 0, 0, 1]) == 1 => interfaces.push(link_type(word(rest, 8, order) >> 16)),
            1 => interfaces.push(link_type(word(rest, 8, order) & 0xffff)),
            // Simple packet block.
            3 => {
                let captured = word(rest, 8, order).min(len - 16);
                packets.push((interfaces[0], rest[12..12 + captured].to_vec()));
            }
            // Enhanced packet block.
            6 => {
                let captured = word(rest, 20, order);
                packets.push((interfaces[word(rest, 8, order)], rest[28..28 + captured].to_vec()));
            }
            _ => {}
        }
        rest = &rest[len..];
    }
    packets
}
