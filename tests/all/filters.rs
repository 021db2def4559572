//! Our filter compared with libpcap's and tcpdump's on real captures: it selects the same packets.

use std::path::Path;
use std::process::Command;

use pcap::{Capture, Offline};
use retrocap::filter::{Filter, FilterSet, SessionProbe};
use retrocap::packet::LinkType;

use crate::machine;

const EXPRESSIONS: [&str; 100] = [
    "",
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "igmp",
    "not ip",
    "not (ip or ip6)",
    "tcp or udp",
    "host 192.168.0.1",
    "host 10.0.0.1 or host 192.168.1.1",
    "src host 192.168.1.1",
    "dst host 192.168.1.1",
    "src net 10.0.0.0/8",
    "net 192.168.0.0/16",
    "net 172.16.0.0/12 and not tcp",
    "dst net 224.0.0.0/4",
    "ip6 host ff02::1",
    "ip6 net fe80::/10",
    "net 10",
    "net 192.168.1.0 mask 255.255.255.0",
    "port 80",
    "port 53",
    "src port 443",
    "dst port 443",
    "tcp port 80 or tcp port 443",
    "udp port 53 and host 192.168.1.1",
    "tcp src port 502",
    "tcp port 102 or tcp port 2404 or tcp port 20000",
    "portrange 1-1023",
    "src portrange 1024-65535",
    "tcp dst portrange 80-90",
    "udp portrange 5000-6000",
    "not port 80",
    "tcp or udp and port 53",
    "udp and port 53 or tcp",
    "udp and (port 53 or port 5353)",
    "not tcp and not udp",
    "not (tcp and port 80) and ip",
    "host 192.168.1.1 and port 80 or port 53",
    "proto 47",
    "ip proto 6",
    "ip proto \\udp",
    "ip6 proto 58",
    "ip proto 50 or ip proto 51",
    "sctp",
    "ether proto 0x0806",
    "ether proto \\ip",
    "ether proto 0x88cc",
    "ether[12:2] = 0x0800",
    "ether host ff:ff:ff:ff:ff:ff",
    "ether broadcast",
    "ether multicast",
    "ether src host 00:11:22:33:44:55",
    "ether[0] & 1 = 1",
    "ip multicast",
    "ip6 multicast",
    "multicast",
    "broadcast",
    "vlan",
    "vlan 100",
    "vlan and host 192.168.1.1",
    "vlan and vlan",
    "vlan and vlan and pppoes",
    "vlan and vlan and pppoes and ip",
    "vlan and ip or arp",
    "not vlan",
    "mpls",
    "mpls 100",
    "pppoed",
    "pppoes",
    "pppoes and tcp",
    "len > 100",
    "len <= 60",
    "greater 1000",
    "less 64",
    "len >= 60 and len < 70",
    "ip[0] & 0xf != 5",
    "ip[2:2] > 576",
    "ip[6:2] & 0x1fff != 0",
    "ip[6] & 0x40 != 0",
    "ip[8] < 5",
    "tcp[tcpflags] & tcp-syn != 0",
    "tcp[tcpflags] == tcp-syn",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "tcp[tcpflags] & (tcp-rst) != 0 and port 80",
    "tcp[13] = 18",
    "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420",
    "(ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2)) != 0",
    "udp[4:2] > 100",
    "udp[8:2] & 0x8000 = 0",
    "icmp[icmptype] = icmp-echo",
    "icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply",
    "icmp6[0] = 135",
    "ip6[6] = 58 and ip6[40] = 135",
    "ether[len - 1] = 0",
    "ip[2:2] % 2 = 1 and ip[1] * 3 / 2 ^ 5 != 4",
];

/// What distinguishes packets: time, length on the wire, and bytes.
pub(crate) type Identity = (i64, i64, u32, Vec<u8>);

pub(crate) struct Stored {
    pub(crate) link_type: LinkType,
    pub(crate) packets: Vec<Identity>,
}

/// All packets up to the end, or up to where libpcap stops reading because a file has several link types.
fn read_all(mut capture: Capture<Offline>) -> Stored {
    let mut packets = Vec::new();
    // The link type as the file has it. libpcap's own number differs only for raw IP, where both are understood.
    let link_type = LinkType(u16::try_from(capture.get_datalink().0).expect("a link type"));
    while let Ok(packet) = capture.next_packet() {
        let time = packet.header.ts;
        packets.push((time.tv_sec, time.tv_usec, packet.header.len, packet.data.to_vec()));
    }
    Stored { link_type, packets }
}

/// Reads a capture file; `None` where libpcap cannot read it.
pub(crate) fn read(path: &Path) -> Option<Stored> {
    Some(read_all(Capture::from_file(path).ok()?))
}

fn filtered(stored: &Stored, expression: &str) -> Option<Vec<usize>> {
    let program = Filter::compile(expression, stored.link_type).ok()?;
    let numbered = stored.packets.iter().enumerate();
    Some(numbered.filter(|(_, (_, _, len, data))| program.matches(data, *len)).map(|(number, _)| number).collect())
}

fn positions(stored: &Stored, chosen: &[Identity]) -> Vec<usize> {
    let mut packets = stored.packets.iter().enumerate();
    chosen.iter().filter_map(|one| packets.by_ref().find(|(_, packet)| *packet == one).map(|(at, _)| at)).collect()
}

#[test]
fn filters_match_the_packets_that_libpcap_matches() {
    let mut compared = 0;
    for path in machine::captures("filters") {
        let stored = read(&path).expect("readable");
        for expression in EXPRESSIONS {
            let mut capture = Capture::from_file(&path).expect("readable");
            let expected = match capture.filter(expression, true) {
                Ok(()) => Some(positions(&stored, &read_all(capture).packets)),
                Err(_) => None,
            };
            assert_eq!(filtered(&stored, expression), expected, "{expression:?} over {}", path.display());
            compared += 1;
        }
    }
    eprintln!("{compared} pairs of capture and expression compared");
}

#[test]
fn filters_match_the_packets_that_tcpdump_matches() {
    if !machine::have("filters against tcpdump", "tcpdump") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let chosen = folder.path().join("chosen.pcap");
    let named = ["mixed-lan", "sll2", "pppoe-over-qinq", "many-interfaces", "gre-within-gre", "ics-dnp3"];
    for path in machine::captures("filters")
        .iter()
        .filter(|p| p.file_stem().is_some_and(|stem| named.iter().any(|n| stem == *n)))
    {
        let stored = read(path).expect("readable");
        for expression in EXPRESSIONS {
            let _ = std::fs::remove_file(&chosen);
            Command::new("tcpdump")
                .arg("-r")
                .arg(path)
                .arg("-w")
                .arg(&chosen)
                .arg("--")
                .arg(expression)
                .output()
                .expect("runs");
            // tcpdump creates the file after it has compiled the filter.
            let expected = chosen.exists().then(|| positions(&stored, &read(&chosen).expect("readable").packets));
            assert_eq!(filtered(&stored, expression), expected, "{expression:?} over {}", path.display());
        }
    }
}

/// Every expression of the table can also be asked of sessions.
#[test]
fn every_expression_can_be_asked_of_sessions() {
    for expression in EXPRESSIONS {
        SessionProbe::new(expression).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// A recorder resolves `host example.org` with `/etc/hosts` alone, so an unknown name gets an explanation.
#[test]
fn an_unknown_name_is_answered_with_what_to_do() {
    for expression in ["host name.invalid", "src net name.invalid"] {
        let error = FilterSet::new(expression).unwrap_err().to_string();
        assert!(error.contains("unknown"), "{error}");
        assert!(
            error.contains("only the names in /etc/hosts") && error.contains("`getent ahosts name.invalid`"),
            "{error}"
        );
    }
    let other = FilterSet::new("port nonsense").unwrap_err().to_string();
    assert!(!other.contains("getent"), "{other}");
}
