//! The seeds of fuzzing: a few inputs of each kind, made in code and kept in `fuzz/seeds`, one folder per target.
//!
//! Seeds let each fuzz target begin deep inside the code. They are parsed here in the same way, so that they keep
//! their meaning. `make seeds` rewrites them.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retrocap::api::parameters::{Clock, PacketQuery};
use retrocap::decode::{Network, decode};
use retrocap::formats::reader::FileSource;
use retrocap::formats::writer::{Exporter, Format, Options};
use retrocap::interface::Interfaces;
use retrocap::packet::LinkType;
use retrocap::source::{Batch, Source};
use retrocap::time::Timestamp;

use crate::generate;

/// The size limit of all seeds together: a found corpus does not belong into the repository.
const BYTES_MAX: usize = 96 << 10;

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
    for (name, bytes) in captures().into_iter().filter(|(name, _)| name.ends_with("encapsulations")) {
        seeds.insert(("streams", name.to_owned()), bytes.clone());
        seeds.insert(("lines", name.to_owned()), bytes);
    }
    for (name, bytes) in conversations() {
        seeds.insert(("contents", name), bytes);
    }
    for (name, bytes) in program_inputs() {
        let (target, name) = name.split_once('/').unwrap();
        seeds.insert((target, name.to_owned()), bytes);
    }
    let frames: Vec<Vec<u8>> = packets().iter().take(4).map(|(_, bytes)| bytes[2..].to_vec()).collect();
    seeds.insert(("etl", "packets".to_owned()), crate::etl::file(&frames));
    for (number, query) in QUERIES.iter().enumerate() {
        seeds.insert(("http_query", format!("query-{number:02}")), query.as_bytes().to_vec());
    }
    seeds
}

/// Conversations of the named attacks: the transport, the port, and pieces of what each side says.
fn conversations() -> Vec<(String, Vec<u8>)> {
    let mut conversations = Vec::new();
    for (file, text) in retrocap::hunt::builtin::RULES {
        let rule: toml::Table = toml::from_str(text).unwrap();
        let case =
            rule["case"].as_array().unwrap().iter().find(|case| case["matches"].as_bool() == Some(true)).unwrap();
        let udp = case.get("udp").and_then(toml::Value::as_bool).unwrap_or(false);
        let port = u16::try_from(case["port"].as_integer().unwrap()).unwrap();
        let mut bytes = [&[u8::from(udp)][..], &port.to_be_bytes()].concat();
        for say in case["say"].as_array().unwrap() {
            let said = match say.get("text").and_then(toml::Value::as_str) {
                Some(text) => text.as_bytes().to_vec(),
                None => retrocap::hunt::patterns::unhex(say["hex"].as_str().unwrap()).unwrap(),
            };
            for piece in said.chunks(255) {
                bytes.extend([u8::from(say["from"].as_str() == Some("responder")), u8::try_from(piece.len()).unwrap()]);
                bytes.extend_from_slice(piece);
            }
        }
        conversations.push((file.trim_end_matches(".toml").to_owned(), bytes));
    }
    conversations
}

/// The first bytes of sessions that name a host.
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

/// A packet of each encapsulation, preceded by its link type.
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

/// Capture files of each kind with the same packets.
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
    // The other byte order: swap the fields of the file's header, then those of each packet's.
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

/// Inputs that other programs write: alerts, answers, arguments, bodies, configurations, expressions, and messages of
/// the kernel.
fn program_inputs() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds: Vec<(&str, Vec<u8>)> = TEXTS.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect();
    let status =
        retrocap::query::status::Status::new(&nothing(), 12.5, 1 << 20, Timestamp::from_unix(1_795_400_000, 0));
    // A packet follows each expression.
    for (_, expression) in seeds.iter_mut().filter(|(name, _)| name.starts_with("expression/")) {
        expression.push(0);
        expression.extend_from_slice(&packets()[0].1[2..]);
    }
    seeds.push(("answer/status", serde_json::to_vec(&status).unwrap()));
    seeds.push(("interfaces/new-and-gone", [reported(16, 5, b"eth0"), reported(17, 5, b"eth0")].concat()));
    seeds.push(("interfaces/with-address", [reported(16, 6, b"flap0"), address(6)].concat()));
    seeds.push(("certificate/client", certificate()));
    // The number of instructions; instructions that load a byte, compare it, and return; a length on the wire; a
    // packet.
    let program = [(0x30_u16, [0, 0], 23_u32), (0x15, [0, 1], 6), (6, [0, 0], 0x4_0000), (6, [0, 0], 0)];
    let mut bytes = vec![4];
    for (code, jumps, k) in program {
        bytes.extend_from_slice(&[&code.to_le_bytes()[..], &jumps, &k.to_le_bytes()].concat());
    }
    bytes.extend_from_slice(&60_u32.to_le_bytes());
    bytes.extend_from_slice(&packets()[0].1[2..]);
    seeds.push(("program/tcp", bytes));
    seeds
}

/// A recorder that has recorded nothing.
fn nothing() -> retrocap::query::History {
    retrocap::query::History::new(Vec::new(), Arc::default())
}

/// An rtnetlink message about an interface.
fn reported(kind: u16, index: u32, name: &[u8]) -> Vec<u8> {
    let mut attribute = u16::try_from(4 + name.len() + 1).unwrap().to_ne_bytes().to_vec();
    attribute.extend_from_slice(&[3, 0]);
    attribute.extend_from_slice(name);
    attribute.resize((attribute.len() + 1).next_multiple_of(4), 0);
    let mac = [&[10, 0, 1, 0][..], &[2, 0, 0, 0, 0, 1, 0, 0]].concat();
    message(kind, &[&[0, 0, 1, 0][..], &index.to_ne_bytes(), &[0x43, 0, 1, 0, 0, 0, 0, 0], &attribute, &mac].concat())
}

/// An rtnetlink message about an address.
fn address(index: u32) -> Vec<u8> {
    message(20, &[&[2, 24, 0, 0][..], &index.to_ne_bytes(), &[8, 0, 2, 0, 10, 0, 0, 5]].concat())
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap();
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
}

/// A client's certificate. It was made once, so that the bytes stay the same.
fn certificate() -> Vec<u8> {
    let text: String = CERTIFICATE.split_whitespace().collect();
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap()
}

const CERTIFICATE: &str = include_str!("seeds/certificate.txt");

const TEXTS: &[(&str, &str)] = &[
    ("rules/attack", include_str!("../../crates/hunt/attacks/heartbleed.toml")),
    (
        "rules/indicators",
        "192.0.2.7\n198.51.100.0/24\nexample.com\nhttp://example.com/a\nd41d8cd98f00b204e9800998ecf8427e\n",
    ),
    ("rules/regex", "(?i)user-agent: [a-z]{2,9}/\\d+"),
    ("manifest/signers", "ann@example.org namespaces=\"retrocap\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==\n"),
    (
        "processes/docker",
        "0::/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope\n",
    ),
    (
        "processes/kubernetes",
        "1:name=systemd:/kubepods/burstable/pod01234567-89ab-cdef-0123-456789abcdef/0123456789abcdef0123456789abcdef\n",
    ),
    ("spool_file/plain", "\0\0\0"),
    ("spool_file/encrypted", "\u{5}\0\u{1}"),
    ("spool_file/raw", "\u{2}\n\r\r\n"),
    (
        "alerts/eve",
        r#"{"timestamp":"2026-11-22T10:00:00.123456+0000","flow_id":1,"event_type":"alert","src_ip":"10.0.0.5","src_port":51234,"dest_ip":"192.0.2.7","dest_port":443,"proto":"TCP","community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg=","alert":{"signature_id":2,"signature":"ET a/b"}}
{"timestamp":"2026-11-22T10:00:01.5+0100","event_type":"flow","src_ip":"2001:db8::1","src_port":53,"dest_ip":"2001:db8::2","dest_port":53,"proto":"UDP","flow":{"start":"2026-11-22T10:00:00.0+0000","end":"2026-11-22T10:01:00.0+0000"}}
"#,
    ),
    (
        "alerts/zeek-table",
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\n1795341600.5\tCx\t10.0.0.5\t51234\t192.0.2.7\t80\ttcp\t1.5\n",
    ),
    (
        "alerts/zeek-json",
        r#"{"ts":1795341600.5,"uid":"Cx","id.orig_h":"10.0.0.5","id.orig_p":51234,"id.resp_h":"192.0.2.7","id.resp_p":80,"proto":"tcp","duration":1.5}
{"ts":1795341600.5,"note":"Scan::Port_Scan","src":"10.0.0.5"}
"#,
    ),
    (
        "alerts/sysmon",
        r#"[{"EventID":3,"EventData":{"UtcTime":"2026-11-22 10:00:00.123","Image":"C:\\x.exe","Protocol":"tcp","SourceIp":"10.0.0.5","SourcePort":51234,"DestinationIp":"192.0.2.7","DestinationPort":443}}]"#,
    ),
    (
        "answer/flows",
        r#"{"first":"2026-11-22T10:00:00.123456789Z","last":"2026-11-22T10:00:42.5Z","proto":"tcp","originator":{"ip":"10.0.0.5","port":51234},"responder":{"ip":"192.0.2.7","port":443},"interface":"eth0","packets":{"originator":1000,"responder":3000},"bytes":{"originator":90000,"responder":4200000},"kept_bytes":9000,"kept_packets":12,"state":"closed","community_id":null,"vlan":5,"server_name":"www.example.com"}
"#,
    ),
    (
        "answer/sums",
        r#"{"host":"10.0.0.5","peer":"10.0.0.6","sessions":2,"bytes":{"out":5,"in":6},"packets":{"out":1,"in":2},"first":"2026-11-22T10:00:00Z","last":"2026-11-22T10:00:42.5Z"}
"#,
    ),
    (
        "answer/pins",
        r#"{"pins":[{"id":1,"filter":"host 10.0.0.5","since":"2026-11-22T10:00:00Z","until":"2026-11-22T12:00:00Z","sessions":1,"kept_packets":2,"kept_bytes":3,"pinned_bytes":4,"refused_packets":5}],"used_bytes":4,"limit_bytes":100}"#,
    ),
    ("answer/problem", r#"{"title":"Not Found","detail":"nothing was seen","cause":"never_seen"}"#),
    (
        "answer/selections",
        r#"{"data":"CgsMDQ=="}
{"selection":0,"packets":1,"bytes":60,"first":null,"last":null,"sessions":1,"missing":{"cause":"cut","detail":"cut"}}
{"done":true,"packets":1,"bytes":60,"overtaken":0,"note":"x"}
"#,
    ),
    ("arguments/get", "get\n--since\n10m\n--until\nnow\n-c\n5\n--whole-sessions\nport\n53"),
    ("arguments/flow", "get\n--flow\n10.0.0.1:40000 10.0.0.2:80 tcp\n--interface\neth0"),
    ("arguments/follow", "get\n--around\n14:02:07\n--window\n30s"),
    ("arguments/flows", "flows\n--name\nexample.com\n--sort\nbytes\n--limit\n10"),
    ("arguments/sums", "flows\n--by\nhost\n--sort\nout\nport\n53"),
    (
        "arguments/extcap",
        "extcap\n--capture\n--extcap-interface\nretrocap\n--fifo\n/x\n--since\n2h\n--filter\nport 53\n--follow",
    ),
    ("bodies/pin", r#"{"filter":"host 10.0.0.5","for_s":7200}"#),
    (
        "bodies/selections",
        r#"{"selections":[{"flow":"10.0.0.5:51234 192.0.2.7:443 tcp","since":"10m"},{"host":"10.0.0.5","until":"2026-11-22T10:00:00Z"},{"community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg="}],"answer":"split","whole_sessions":false,"format":"pcap","precision":"micro"}"#,
    ),
    (
        "configuration/some",
        "interface = [\"eth0\"]\nfilter = \"not port 22\"\nmemory = \"2%\"\nunlisted-clients = \"nothing\"\n[[class]]\nname = \"a\"\nfilter = \"port 502\"\nweight = 50\ncutoff = \"10K\"\nreserve = \"4M\"\n[[client]]\nname = \"b\"\nserial = \"4f:a0\"\nroles = [\"packets\"]\n[retention]\nkeep = \"starts\"\n[health]\nstarts = \"6h\"\n[limits]\nconnections = 9\nstall-timeout = \"2m\"\n",
    ),
    ("configuration/mistakes", "snaplem = 1\nmemory = \"40 bananas\"\n[retension]\nalpha = 1.0\n"),
    ("expression/host", "host 10.0.0.1 and not port 22"),
    ("expression/vlan", "vlan 5 and (tcp[13] & 2 != 0 or icmp6)"),
    ("expression/bytes", "ether[12:2] = 0x86dd or len > 100 or ip[ip[0]&15] = 7"),
    ("expression/net", "src net 10.0.0.0/8 and dst portrange 1-1024 or mpls"),
];

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
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("fuzz/seeds")
}

#[test]
fn first_bytes_name_a_host() {
    use retrocap::decode::names::{Parsed, dns_question, dns_question_in_stream, http_host, server_name};
    for (name, bytes) in first_bytes() {
        let named = match name {
            "dns" => matches!(dns_question(&bytes), Parsed::Name(_)),
            "dns-in-a-stream" => matches!(dns_question_in_stream(&bytes), Parsed::Name(_)),
            "http-request" => matches!(http_host(&bytes), Parsed::Name(_)),
            _ => matches!(server_name(&bytes), Parsed::Name(_)),
        };
        assert!(named, "{name}");
    }
}

#[test]
fn the_seeds_of_fuzzing_are_up_to_date() {
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
fn seeds_parse_as_what_they_are_called() {
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
    for (name, bytes) in program_inputs() {
        reads(name, &bytes);
    }
    let clock = Clock { now: Timestamp::from_unix(1_795_400_000, 0), newest: None };
    let read = |query: &&str| PacketQuery::read(query, clock).is_ok();
    assert!(QUERIES.iter().copied().filter(|query| read(query)).count() >= 4);
}

/// Checks that a seed parses, unless its name says that it is a mistake.
fn reads(name: &str, bytes: &[u8]) {
    use retrocap::untrusted;
    let now = Timestamp::from_unix(1_795_400_000, 0);
    let text = || std::str::from_utf8(bytes).unwrap();
    let clock = Clock { now, newest: None };
    let understood = match name {
        "answer/status" => untrusted::status(text(), now).is_some(),
        "answer/pins" => untrusted::pins(text()).is_some(),
        "answer/problem" => untrusted::refusal(text()) == "nothing was seen",
        "answer/flows" => untrusted::listing(text())[1].contains("www.example.com"),
        "answer/sums" => untrusted::listing(text())[3].contains("10.0.0.6"),
        "answer/selections" => untrusted::selections(bytes, 1).is_ok_and(|file| file == [10, 11, 12, 13]),
        "bodies/pin" => retrocap::api::bodies::NewPin::read(bytes).is_ok(),
        "bodies/selections" => retrocap::api::bodies::SelectionList::read(bytes)
            .and_then(|list| list.selectors(clock))
            .is_ok_and(|all| all.len() == 3),
        "configuration/some" => untrusted::configuration(text()).is_ok_and(|classes| classes.len() == 1),
        "configuration/mistakes" => untrusted::configuration(text()).is_err_and(|mistakes| mistakes.len() == 3),
        "certificate/client" => {
            let certificate = retrocap::serve::certificate::Certificate::read(bytes);
            certificate
                .is_some_and(|certificate| certificate.name.untrusted() == "alice" && !certificate.roles.is_empty())
        }
        "interfaces/new-and-gone" => retrocap::capture::interfaces::reports(bytes).count() == 2,
        "interfaces/with-address" => retrocap::capture::interfaces::addresses(bytes).count() == 1,
        "rules/attack" => retrocap::hunt::attack::Attack::read(text()).is_ok(),
        "rules/indicators" => {
            let mut indicators = retrocap::hunt::indicators::Indicators::default();
            indicators.read(text());
            indicators.len() == 5
        }
        "rules/regex" => {
            let pattern = retrocap::hunt::patterns::Pattern::new("regex", retrocap::hunt::Kind::Text);
            retrocap::hunt::patterns::Builder::default().regex(pattern, text()).is_ok()
        }
        "manifest/signers" => retrocap::evidence::signers::AllowedSigners::read(text()).is_ok(),
        _ => match name.split_once('/').unwrap().0 {
            "processes" => processes::container::Cgroup::read(text()).container.is_some(),
            "spool_file" | "etl" => bytes.len() >= 3,
            "alerts" => retrocap::alert::Alerts::read(bytes).is_ok_and(|it| it.broken_count == 0),
            "arguments" => {
                let words = std::iter::once("retrocap").chain(text().split('\n')).map(Into::into).collect();
                untrusted::arguments(words, now).is_ok_and(|target| target.is_some())
            }
            "expression" => {
                let text = bytes.split(|byte| *byte == 0).next().unwrap();
                retrocap::filter::FilterSet::new(std::str::from_utf8(text).unwrap()).is_ok()
            }
            "program" => {
                use retrocap::filter::{Program, vm::RawInstruction};
                let raw = bytes[1..33].chunks_exact(8).map(|it| RawInstruction {
                    code: u16::from_le_bytes([it[0], it[1]]),
                    jump_true: it[2],
                    jump_false: it[3],
                    k: u32::from_le_bytes([it[4], it[5], it[6], it[7]]),
                });
                Program::load(&raw.collect::<Vec<_>>()).is_ok_and(|program| program.matches(&bytes[37..], 60))
            }
            _ => false,
        },
    };
    assert!(understood, "{name}");
}
