//! What fuzzing starts from: a few inputs of each kind, made in code and kept in `fuzz/seeds`, one folder a target.
//!
//! They are kept so that every fuzz target begins deep inside its subject, and are read here in the same way, so that
//! they stay what they are meant to be. `make seeds` writes them anew.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retrocap::capture::file::FileSource;
use retrocap::capture::{Batch, Source};
use retrocap::decode::{Network, decode};
use retrocap::export::{Exporter, Format, Options};
use retrocap::interface::Interfaces;
use retrocap::packet::LinkType;
use retrocap::serve::parameters::{Clock, PacketQuery};
use retrocap::time::Timestamp;

use crate::generate;

/// Bytes of all seeds together; a repository is no place for a corpus that was found.
const BYTES_MAX: usize = 64 << 10;

type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, bytes) in packets() {
        seeds.insert(("decode", name.to_owned()), bytes);
    }
    for (name, bytes) in captures() {
        seeds.insert(("handover", name.to_owned()), crate::handover::left_of(&bytes));
        seeds.insert(("capture_file", name.to_owned()), bytes.clone());
        seeds.insert(("pipeline", name.to_owned()), bytes);
    }
    for (name, bytes) in first_bytes() {
        seeds.insert(("names", name.to_owned()), bytes);
    }
    for (number, query) in QUERIES.iter().enumerate() {
        seeds.insert(("http_query", format!("query-{number:02}")), query.as_bytes().to_vec());
    }
    seeds
}

/// What sessions begin with, where it names somebody.
fn first_bytes() -> Vec<(&'static str, Vec<u8>)> {
    let dns = [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3][..], b"www\x07example\x03com", &[0, 0, 1, 0, 1]].concat();
    let in_stream = [&u16::try_from(dns.len()).unwrap().to_be_bytes()[..], &dns].concat();
    let host = b"www.example.com";
    let name = [&[0, 0, 0, 20, 0, 18, 0][..], &[0, 15], host].concat();
    let hello = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &[0, 24], &name].concat();
    let handshake = [&[1, 0][..], &u16::try_from(hello.len()).unwrap().to_be_bytes(), &hello].concat();
    let record = [&[22, 3, 1][..], &u16::try_from(handshake.len()).unwrap().to_be_bytes(), &handshake].concat();
    let http = b"GET /a HTTP/1.1\r\nUser-Agent: x\r\nHost: www.example.com:8080\r\n\r\n".to_vec();
    vec![("dns", dns), ("dns-in-a-stream", in_stream), ("tls-client-hello", record), ("http-request", http)]
}

const ETHERNET: u16 = 1;
const RAW: u16 = 101;
const SLL: u16 = 113;

/// A packet of each encapsulation, behind its link type.
fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let macs: &[u8] = &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let udp = |port: u16, payload: &[u8]| -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
        [&[0xc0, 0], &port.to_be_bytes()[..], &length, &[0, 0], payload].concat()
    };
    let tcp: Vec<u8> =
        [&[0xc0, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0][..], b"GET /"].concat();
    let ipv4 = |protocol: u8, fragment: u16, payload: &[u8]| -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let [high, low] = fragment.to_be_bytes();
        [&[0x45, 0], &length[..], &[0, 7, high, low, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], payload].concat()
    };
    let ipv6 = |next: u8, payload: &[u8]| -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[0x60, 0, 0, 0], &length[..], &[next, 64], &[0x20; 16], &[0x21; 16], payload].concat()
    };
    let ether = |kind: u16, payload: &[u8]| [macs, &kind.to_be_bytes(), payload].concat();
    let inner = ipv4(6, 0x4000, &tcp);
    let inner_ether = ether(0x0800, &inner);
    let of = |link_type: u16, bytes: Vec<u8>| [&link_type.to_be_bytes()[..], &bytes].concat();
    let on = |kind: u16, payload: &[u8]| of(ETHERNET, ether(kind, payload));
    vec![
        ("tcp", on(0x0800, &inner)),
        ("udp", on(0x0800, &ipv4(17, 0, &udp(53, &[0; 12])))),
        ("icmp", on(0x0800, &ipv4(1, 0, &[8, 0, 0, 0, 0, 1, 0, 1]))),
        ("sctp", on(0x0800, &ipv4(132, 0, &[0, 36, 0, 37, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 4]))),
        ("fragment-first", on(0x0800, &ipv4(17, 0x2000, &udp(53, &[0; 8])))),
        ("fragment-later", on(0x0800, &ipv4(17, 0x2002, &[0; 16]))),
        ("ipv6", on(0x86dd, &ipv6(6, &tcp))),
        (
            "ipv6-extensions",
            on(
                0x86dd,
                &ipv6(
                    0,
                    &[&[60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 9], &tcp[..]].concat(),
                ),
            ),
        ),
        ("arp", on(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2])),
        ("vlan", on(0x8100, &[&[0, 5, 8, 0], &inner[..]].concat())),
        ("qinq", on(0x88a8, &[&[0, 7, 0x81, 0, 0, 5, 8, 0], &inner[..]].concat())),
        ("mpls", on(0x8847, &[&[0, 1, 0, 64, 0, 2, 1, 64], &inner[..]].concat())),
        ("pppoe", on(0x8864, &[&[0x11, 0, 0, 1, 0, 47, 0, 0x21], &inner[..]].concat())),
        ("gre", on(0x0800, &ipv4(47, 0, &[&[0, 0, 8, 0], &inner[..]].concat()))),
        ("gre-key-bridged", on(0x0800, &ipv4(47, 0, &[&[0x20, 0, 0x65, 0x58, 0, 0, 0, 9], &inner_ether[..]].concat()))),
        ("ipip", on(0x0800, &ipv4(4, 0, &inner))),
        ("sit", on(0x0800, &ipv4(41, 0, &ipv6(6, &tcp)))),
        ("vxlan", on(0x0800, &ipv4(17, 0, &udp(4789, &[&[8, 0, 0, 0, 0, 0, 9, 0], &inner_ether[..]].concat())))),
        (
            "geneve",
            on(
                0x0800,
                &ipv4(17, 0, &udp(6081, &[&[1, 0, 0x65, 0x58, 0, 0, 9, 0, 0, 0, 0, 0], &inner_ether[..]].concat())),
            ),
        ),
        ("gtp-u", on(0x0800, &ipv4(17, 0, &udp(2152, &[&[0x30, 0xff, 0, 45, 0, 0, 0, 1], &inner[..]].concat())))),
        ("raw", of(RAW, inner.clone())),
        ("sll", of(SLL, [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 2, 0, 0, 8, 0], &inner[..]].concat())),
    ]
}

/// Capture files of each kind, of the same packets.
fn captures() -> Vec<(&'static str, Vec<u8>)> {
    let little = generate::traffic(3000, 1);
    let interfaces = Arc::new(Interfaces::default());
    let mut source = FileSource::from_reader(Box::new(Cursor::new(little.clone())), Arc::clone(&interfaces));
    let mut exporter = Exporter::new(Format::Pcapng, Options::default());
    let mut pcapng = Vec::new();
    exporter.begin(&mut pcapng, &["a seed".to_owned()]);
    while source
        .batch(&mut |packet| {
            exporter.packet(&mut pcapng, &interfaces.interface(packet.interface).unwrap(), packet).unwrap()
        })
        .unwrap()
        != Batch::End
    {}
    exporter.end(&mut pcapng, &[], &[]);
    // The same with the other byte order: the file's header, then each packet's.
    let mut big = little.clone();
    let swap = |bytes: &mut [u8]| bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    swap(&mut big[..4]);
    big[4..8].copy_from_slice(&[0, 2, 0, 4]);
    swap(&mut big[8..24]);
    let mut at = 24;
    while at < big.len() {
        let length = u32::from_le_bytes(little[at + 8..at + 12].try_into().unwrap());
        swap(&mut big[at..at + 16]);
        at += 16 + usize::try_from(length).unwrap();
    }
    let mut odd = generate::header();
    for (_, packet) in packets().iter().filter(|(_, packet)| packet[..2] == [0, 1]) {
        let length = u32::try_from(packet.len() - 2).unwrap();
        for field in [1_795_341_600, 0, length, length] {
            odd.extend_from_slice(&u32::to_le_bytes(field));
        }
        odd.extend_from_slice(&packet[2..]);
    }
    let cut = little[..little.len() - 100].to_vec();
    vec![
        ("pcap-little", little),
        ("pcap-big", big),
        ("pcapng", pcapng),
        ("pcap-encapsulations", odd),
        ("pcap-cut", cut),
    ]
}

const QUERIES: &[&str] = &[
    "filter=tcp+port+80&since=10m&until=now&c=5&format=pcap&micro",
    "expr=host+10.0.0.1+and+not+port+22&around=2026-11-22T10:00:00Z&window=30s",
    "flow=10.0.0.1:40000+10.0.0.2:80+tcp&interface=eth0",
    "flow=%5B2001:db8::1%5D:53+%5B2001:db8::2%5D:53+udp",
    "community-id=1:LQU9qZlK%2BB5F3KDmev6m5PMibrg=",
    "since=1795341600.123456789&until=yesterday+14:00&sort=bytes&limit=10",
    "filter=%00&since=%ff&c=-1",
    "filter=%28%28%28tcp%29%29%29+or+ip%5Bip%5B0%5D%5D%3D0",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

#[test]
fn first_bytes_name_somebody() {
    use retrocap::query::names::parse::{Told, dns_question, dns_question_in_stream, http_host, server_name};
    for (name, bytes) in first_bytes() {
        let named = match name {
            "dns" => matches!(dns_question(&bytes), Told::Name(_)),
            "dns-in-a-stream" => matches!(dns_question_in_stream(&bytes), Told::Name(_)),
            "http-request" => matches!(http_host(&bytes), Told::Name(_)),
            _ => matches!(server_name(&bytes), Told::Name(_)),
        };
        assert!(named, "{name}");
    }
}

#[test]
fn fuzzing_starts_from_these() {
    let seeds = seeds();
    if std::env::var_os("RETROCAP_WRITE_SEEDS").is_some() {
        let _ = std::fs::remove_dir_all(folder());
        for ((target, name), bytes) in &seeds {
            std::fs::create_dir_all(folder().join(target)).unwrap();
            std::fs::write(folder().join(target).join(name), bytes).unwrap();
        }
    }
    let targets: Vec<_> = std::fs::read_dir(folder().join("../fuzz_targets")).unwrap().collect();
    assert!(targets.len() >= 4);
    for target in targets {
        let path = target.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(seeds.keys().any(|(target, _)| *target == name), "{name} has no seeds");
    }
    for ((target, name), bytes) in &seeds {
        let kept = std::fs::read(folder().join(target).join(name)).unwrap_or_default();
        assert!(kept == *bytes, "{target}/{name} is not what is made: run make seeds");
    }
    assert!(seeds.values().map(Vec::len).sum::<usize>() < BYTES_MAX);
}

#[test]
fn seeds_are_what_they_are_called() {
    for (name, packet) in packets() {
        let decoded = decode(LinkType(u16::from_be_bytes([packet[0], packet[1]])), &packet[2..]);
        assert_eq!(decoded.network == Network::Link, name == "arp", "{name}: {decoded:?}");
    }
    for (name, bytes) in captures() {
        let mut source = FileSource::from_reader(Box::new(Cursor::new(bytes)), Arc::default());
        let mut packets = 0;
        let ended = loop {
            match source.batch(&mut |_| packets += 1) {
                Ok(Batch::End) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        assert!(packets > 2 && ended == (name != "pcap-cut"), "{name}: {packets}");
    }
    let clock = Clock { now: Timestamp::from_unix(1_795_400_000, 0), newest: None };
    let read = |query: &&str| PacketQuery::read(query, clock).is_ok();
    assert!(QUERIES.iter().copied().filter(|query| read(query)).count() >= 4);
}
