//! Answers say what was not looked at: one test for each kind that was reported.

use std::path::PathBuf;
use std::process::Stdio;

use super::running::{Recorder, Sender, directory, eventually, reply, unanswered};
use crate::cli::run;
use crate::generate::Random;
use crate::namespaces::{Namespace, available};

/// A classic capture file of one link type, its packets a millisecond apart.
pub(super) fn capture(link_type: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, link_type] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    for (number, packet) in (0u32..).zip(packets) {
        let length = u32::try_from(packet.len()).unwrap();
        for field in [1_795_341_600, number * 1000, length, length] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(packet);
    }
    file
}

/// A recorder that has read such a capture.
pub(super) fn recorded(link_type: u32, packets: &[Vec<u8>]) -> Recorder {
    let folder = directory();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, capture(link_type, packets)).unwrap();
    replayed(path.to_str().unwrap(), u64::try_from(packets.len()).unwrap(), "32M")
}

pub(super) fn replayed(path: &str, packets: u64, memory: &str) -> Recorder {
    let recorder = Recorder::replaying(&["--replay", path, "--speed", "max", "-m", memory], Stdio::null());
    recorder.arrived(packets);
    recorder
}

pub(super) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &ethertype.to_be_bytes(), payload].concat()
}

/// From 10.0.0.1 to 10.0.0.2, with flags and fragment offset.
pub(super) fn ipv4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let [f0, f1] = fragment.to_be_bytes();
    let header = [0x45, 0, l0, l1, 0xab, 0xcd, f0, f1, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header[..], payload].concat()
}

pub(super) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &length, &[0, 0], payload].concat()
}

/// From port `source` with flags; sequence number 1.
pub(super) fn tcp(source: u16, destination: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0], payload].concat()
}

/// The real capture of that name, if the folder is there.
fn real(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("RETROCAP_CAPTURES").map_or_else(|| "../shared/captures".into(), PathBuf::from);
    let found =
        [folder.join(name), PathBuf::from("../..").join(&folder).join(name)].into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED in part: there is no {name} in {}", folder.display());
    }
    found
}

/// Frames that carry `packet`, which is IPv4, by link type.
fn carriers(packet: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let join = |header: &[u8]| [header, packet].concat();
    let llc = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
    let dot11 = [&[8, 1, 0, 0][..], &[2; 18], &[0, 0], &llc].concat();
    let length = u8::try_from(packet.len() + 4).unwrap();
    vec![
        (50, join(&[0xff, 3, 0, 0x21])),
        (50, join(&[0x0f, 0, 8, 0])),
        (104, join(&[0x0f, 0, 8, 0])),
        (107, join(&[0x18, 0x41, 3, 0xcc])),
        (105, join(&dot11)),
        (127, join(&[&[0, 0, 8, 0, 0, 0, 0, 0][..], &dot11].concat())),
        (119, join(&[&[0x44, 0, 0, 0, 144, 0, 0, 0][..], &[0; 136], &dot11].concat())),
        (239, join(&[2, 0, 0, 0, length, 0, 9, 0])),
        (51, join(&[0x11, 0, 0, 1, 0, length - 2, 0, 0x21])),
        (1, ethernet(0x800, &ipv4(17, 0, &udp(9, 6635, &join(&[0, 1, 1, 64]))))),
        (1, ethernet(0x800, &ipv4(17, 0, &udp(9, 37_008, &join(&[&[1, 0, 0, 18, 1][..], &dot11].concat()))))),
    ]
}

#[test]
fn honest_13_01_link_types_and_tunnels_are_opened() {
    // Another address than that of the frames around it.
    let mut packet = ipv4(17, 0, &udp(4000, 53, b"hello"));
    packet[12] = 192;
    for (link_type, frame) in carriers(&packet) {
        let recorder = recorded(link_type, &[frame]);
        for question in [&["flows", "--json", "--address", "192.0.0.1"][..], &["flows", "--json", "--port", "53"]] {
            let reply = recorder.ask(question);
            assert_eq!(
                (reply.code, reply.stdout.lines().count()),
                (0, 1),
                "{link_type} {question:?}: {}",
                reply.stderr
            );
        }
        assert_eq!(recorder.packets(&["--address", "192.0.0.1"]).len(), 1, "{link_type}");
        if link_type != 1 {
            assert_eq!(recorder.packets(&["host", "192.0.0.1"]).len(), 1, "{link_type}");
            assert_eq!(recorder.ask(&["flows", "host 192.0.0.1"]).code, 0, "{link_type}");
        }
    }
    if let Some(path) = real("nflog-http.pcap") {
        let recorder = replayed(path.to_str().unwrap(), 13, "32M");
        assert_eq!(recorder.packets(&["tcp", "port", "80"]).len(), 13);
        let reply = recorder.ask(&["flows", "--json"]);
        assert!(reply.stdout.contains("\"proto\":\"tcp\""), "{}", reply.stdout);
    }
}

#[test]
fn honest_13_01_what_was_not_opened_is_a_cause() {
    // USB, which no decoder here reads.
    let recorder = recorded(220, &[vec![7; 64], vec![8; 64]]);
    for question in [
        &["get", "host", "192.0.2.1"][..],
        &["get", "--address", "192.0.2.1"],
        &["flows", "host", "192.0.2.1"],
        &["flows", "--port", "80"],
    ] {
        let reply = recorder.ask(question);
        assert_eq!(reply.code, 1, "{question:?}");
        assert!(
            reply.stderr.contains("2 packets of link type USB_LINUX_MMAPPED were not opened"),
            "{question:?}: {}",
            reply.stderr
        );
        assert!(!reply.stderr.contains("was seen"), "{question:?}: {}", reply.stderr);
    }
}

/// pcapng with a frame of Ethernet, and two packets of USB on another interface.
fn with_usb(frame: &[u8]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padded = [body, &vec![0; body.len().next_multiple_of(4) - body.len()]].concat();
        let length = u32::try_from(12 + padded.len()).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &length, &padded, &length].concat()
    };
    let interface = |link_type: u16| block(1, &[&link_type.to_le_bytes()[..], &[0; 6]].concat());
    let packet = |interface: u32, time_us: u64, data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap();
        let [high, low] = [time_us >> 32, time_us & 0xffff_ffff].map(|part| u32::try_from(part).unwrap());
        let head = [interface, high, low, length, length].map(u32::to_le_bytes).concat();
        block(6, &[&head[..], data].concat())
    };
    let start = block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    let time_us = 1_795_341_600_000_000;
    let packets = [packet(0, time_us, frame), packet(1, time_us + 1, &[7; 64]), packet(1, time_us + 2, &[8; 64])];
    [start, interface(1), interface(220), packets.concat()].concat()
}

/// An answer that has something names what was not opened, too: of a recorder and of files.
#[test]
fn honest_13_01_what_was_not_opened_is_named_beside_what_was_found() {
    const SENTENCE: &str = "2 packets of link type USB_LINUX_MMAPPED were not opened";
    let frame = ethernet(0x0800, &ipv4(17, 0, &udp(4000, 5353, b"a needle")));
    let directory = directory();
    let path = directory.path().join("mixed.pcapng");
    std::fs::write(&path, with_usb(&frame)).unwrap();
    let file = path.to_str().unwrap();
    let recorder = replayed(file, 3, "32M");
    for (question, code) in [
        (&["get", "--text", "--port", "5353"][..], 0),
        (&["flows", "--port", "5353"], 0),
        (&["flows", "--by", "peer", "--port", "5353"], 0),
        (&["hunt", "--text", "needle"], 0),
        (&["hunt", "--text", "nothing like it"], 1),
        (&["files"], 1),
    ] {
        let of_file = [question, &["-r", file]].concat();
        for reply in [recorder.ask(question), reply(&run(&of_file))] {
            assert!(reply.stderr.contains(SENTENCE), "{question:?}: {reply:?}");
            assert_eq!(reply.stderr.matches(SENTENCE).count(), 1, "{question:?}: {reply:?}");
            assert_eq!(reply.code, code, "{question:?}: {reply:?}");
        }
    }
}

#[test]
fn honest_13_02_a_part_of_the_sessions_is_named() {
    let whole = udp(5060, 5060, &[7; 64]);
    // Two datagrams in three fragments each: the first fragments have ports.
    let mut frames = Vec::new();
    for id in 0..2 {
        for (at, part) in [(0u16, &whole[..24]), (3, &whole[24..48]), (6, &whole[48..])] {
            let more = if at == 6 { 0 } else { 0x2000 };
            let mut packet = ipv4(17, at | more, part);
            packet[5] = id;
            frames.push(ethernet(0x800, &packet));
        }
    }
    let recorder = recorded(1, &frames);
    assert_eq!(recorder.packets(&["port", "5060"]).len(), 2);
    let reply = recorder.ask(&["get", "port", "5060", "-w", recorder.path("out.pcapng").to_str().unwrap()]);
    assert!(reply.stderr.contains("4 more that the expression does not match"), "{}", reply.stderr);
    assert!(reply.stderr.contains("4 fragments after the first"), "{}", reply.stderr);
    assert!(reply.stderr.contains("--whole-sessions returns them"), "{}", reply.stderr);
    assert_eq!(recorder.packets(&["--whole-sessions", "port", "5060"]).len(), 6);
}

#[test]
fn honest_13_02_what_hides_packets_is_named() {
    let inner = ipv4(17, 0, &udp(4000, 5060, b"hello"));
    let frame = ethernet(0x800, &inner);
    let geneve = udp(9, 6081, &[&[0, 0, 0x65, 0x58, 0, 0, 5, 0][..], &frame].concat());
    let erspan = [&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 1, 0, 0, 0, 0][..], &frame].concat();
    let pppoe = [&[0x11, 0, 0, 3, 0, 35, 0, 0x21][..], &inner].concat();
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let v6 = [&[0x60, 0, 0, 0, 0, 21, 60, 64][..], &[0xfd; 16], &[0xfc; 16], &options, &udp(4000, 5060, b"hello")];
    for (name, frame, expression) in [
        ("a VLAN tag", ethernet(0x8100, &[&[0, 5, 8, 0][..], &inner].concat()), "vlan"),
        ("MPLS", ethernet(0x8847, &[&[0, 1, 1, 64][..], &inner].concat()), "mpls"),
        ("PPPoE", ethernet(0x8864, &pppoe), "pppoes"),
        ("Geneve", ethernet(0x800, &ipv4(17, 0, &geneve)), "geneve"),
        ("ERSPAN", ethernet(0x800, &ipv4(47, 0, &erspan)), "proto 47"),
        ("IPv6 extension headers", ethernet(0x86dd, &v6.concat()), "ip6"),
    ] {
        let recorder = recorded(1, &[frame]);
        let reply = recorder.ask(&["get", "port", "5060"]);
        assert_eq!(reply.code, 1, "{name}");
        assert!(reply.stderr.contains(&format!("1 behind {name}")), "{name}: {}", reply.stderr);
        assert!(reply.stderr.contains("--port") && !reply.stderr.contains("was seen"), "{name}: {}", reply.stderr);
        assert_eq!(name == "a VLAN tag", reply.stderr.contains("VLAN"), "{name}: {}", reply.stderr);
        // What an expression finds in packets, it finds in sessions.
        assert_eq!(recorder.packets(&[expression]).len(), 1, "{name}");
        for listing in [&["flows", "--json", expression][..], &["flows", "--json", "--port", "5060"]] {
            let reply = recorder.ask(listing);
            assert_eq!((reply.code, reply.stdout.lines().count()), (0, 1), "{name} {listing:?}: {}", reply.stderr);
        }
        let reply = recorder.ask(&["flows", "port", "5060"]);
        assert!(reply.code == 1 && reply.stderr.contains(&format!("behind {name}")), "{name}: {}", reply.stderr);
    }
}

#[test]
fn honest_13_02_flows_asks_the_packets() {
    let frames = [
        ethernet(0x800, &ipv4(6, 0, &tcp(4000, 80, 2, b""))),
        ethernet(0x800, &ipv4(6, 0, &tcp(4000, 80, 24, b"GET /"))),
        ethernet(0x800, &ipv4(6, 0, &tcp(4000, 80, 4, b""))),
        ethernet(0x800, &ipv4(6, 0, &tcp(4001, 80, 2, b""))),
    ];
    let recorder = recorded(1, &frames);
    for (expression, sessions) in [
        ("tcp[13] & 4 != 0", 1),
        ("tcp[13] & 2 != 0", 2),
        ("tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", 1),
        ("less 55", 2),
        ("ether src 02:00:00:00:00:01", 2),
    ] {
        let reply = recorder.ask(&["flows", "--json", expression]);
        assert_eq!((reply.code, reply.stdout.lines().count()), (0, sessions), "{expression}: {}", reply.stderr);
        assert!(!recorder.packets(&[expression]).is_empty());
    }
    assert_eq!(recorder.ask(&["flows", "tcp[13] & 1 != 0"]).code, 1);
}

#[test]
fn honest_13_03_cut_sessions_that_may_match_are_counted() {
    // Eight sessions of 3.5 MB each, which nothing compresses, do not fit into 16 MiB.
    let mut random = Random(1);
    let mut frames = Vec::new();
    for number in 0..20_000u16 {
        let flags = if number < 8 { 2 } else { 24 };
        let payload: Vec<u8> =
            if number < 8 { Vec::new() } else { (0..1400).map(|_| random.below(256).to_le_bytes()[0]).collect() };
        frames.push(ethernet(0x800, &ipv4(6, 0, &tcp(4000 + number % 8, 80, flags, &payload))));
    }
    let folder = directory();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, capture(1, &frames)).unwrap();
    let recorder = replayed(path.to_str().unwrap(), 20_000, "16M");
    assert!(recorder.status().packets.evicted > 0);
    let out = recorder.path("out.pcapng");
    for question in [
        &["get", "tcp[13] = 2", "-w", out.to_str().unwrap()][..],
        &["get", "tcp[20:4] = 0x47455420"],
        &["flows", "tcp[20:4] = 0x47455420"],
    ] {
        let reply = recorder.ask(question);
        let cut = reply.stderr.split(" sessions that may match are cut").next().unwrap();
        let count: u32 = cut.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap_or(0);
        assert!((1..=8).contains(&count), "{question:?}: {}", reply.stderr);
        assert!(reply.stderr.contains("what they lost cannot be searched"), "{question:?}: {}", reply.stderr);
        assert!(!reply.stderr.contains("was seen;"), "{question:?}: {}", reply.stderr);
    }
}

#[test]
fn honest_13_04_sums_follow_the_direction_of_bytes() {
    // 10.0.0.2 opened the first session; later 10.0.0.1 sends much.
    let mut frames = vec![{
        let mut packet = ipv4(6, 0, &tcp(5000, 22, 2, b""));
        (packet[15], packet[19]) = (2, 1);
        ethernet(0x800, &packet)
    }];
    frames.extend((0..50).map(|_| ethernet(0x800, &ipv4(6, 0, &tcp(4000, 443, 24, &[7; 1000])))));
    let recorder = recorded(1, &frames);
    for sort in ["out", "bytes"] {
        let reply = recorder.ask(&["flows", "--by", "peer", "--sort", sort, "--json"]);
        let row: serde_json::Value = serde_json::from_str(reply.stdout.lines().next().unwrap()).unwrap();
        assert_eq!((row["host"].as_str(), row["peer"].as_str()), (Some("10.0.0.1"), Some("10.0.0.2")), "{row}");
        assert!(row["bytes"]["out"].as_u64() > Some(50_000) && row["bytes"]["in"].as_u64() < Some(100), "{row}");
    }
}

#[test]
fn honest_13_06_the_responder_of_a_session_seen_from_its_middle() {
    let answer = |source, destination| {
        let mut packet = ipv4(6, 0, &tcp(source, destination, 24, b"answer"));
        (packet[15], packet[19]) = (2, 1);
        ethernet(0x800, &packet)
    };
    // A known service, the lower of two other ports, a service among ports that are all high.
    for (server, client) in [(443, 50_000), (40_000, 50_000), (3306, 2000)] {
        let recorder = recorded(1, &[answer(server, client), answer(server, client)]);
        let reply = recorder.ask(&["flows", "--json"]);
        let flow: serde_json::Value = serde_json::from_str(reply.stdout.lines().next().unwrap()).unwrap();
        assert_eq!(flow["responder"]["port"], server, "{flow}");
        assert_eq!(
            (&flow["originator"]["ip"], &flow["responder"]["ip"]),
            (&"10.0.0.1".into(), &"10.0.0.2".into()),
            "{flow}"
        );
        assert_eq!((&flow["packets"]["originator"], &flow["packets"]["responder"]), (&0.into(), &2.into()), "{flow}");
    }
    // Whoever sends a SYN is the originator, whatever the ports.
    let recorder = recorded(1, &[ethernet(0x800, &ipv4(6, 0, &tcp(443, 50_000, 2, b"")))]);
    assert!(recorder.ask(&["flows", "--json"]).stdout.contains("\"responder\":{\"ip\":\"10.0.0.2\",\"port\":50000"));
}

#[test]
fn honest_13_08_gaps_of_interfaces_are_logged_and_reported() {
    if !available("gaps of interfaces") {
        return;
    }
    let host = Namespace::new();
    let recorder = Recorder::live(&host, &["-m", "32M"]);
    host.ip("link add near0 type veth peer name far0");
    host.ip("link set far0 up");
    host.ip("link set near0 up");
    let mut sender = Sender::new(&host, "far0");
    sender.send(&unanswered(100));
    recorder.arrived(2);
    let listed = |name: &str, up: bool| recorder.status().interfaces.iter().any(|i| i.name == name && i.up == up);
    eventually("it is listed", || listed("near0", true));
    host.ip("link set near0 down");
    eventually("it is logged", || recorder.log().contains("interface near0 is down"));
    host.ip("link set near0 up");
    eventually("it is logged", || recorder.log().contains("interface near0 is up again"));
    host.ip("link set near0 down");
    host.ip("link set near0 name other0");
    eventually("it is logged", || recorder.log().contains("interface near0 was renamed to other0"));
    host.ip("link del other0");
    eventually("it is logged", || recorder.log().contains("interface other0 is gone"));
    let out = recorder.export("out.pcapng", &["--interface", "near0"]);
    let reply = recorder.ask(&["get", "--interface", "near0", "-w", out.to_str().unwrap()]);
    assert!(reply.stderr.contains("nothing was recorded") && reply.stderr.contains("near0"), "{}", reply.stderr);
    let file = String::from_utf8_lossy(&std::fs::read(out).unwrap()).into_owned();
    assert!(file.contains("near0 from"), "the export says so, too");
}
