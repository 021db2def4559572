//! An expression means the same for `get`, `flows`, `pin` and whole sessions: it matches packets. What it leaves out is named
//! with what returns it.

use std::io::Write as _;
use std::process::Stdio;

use super::honest::{capture, ethernet, ipv4, recorded, replayed, tcp, udp};
use super::running::{Recorder, directory, reply};
use crate::cli::run;
use crate::generate::Random;

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A datagram from a port to port 5060.
fn datagram(port: u16) -> Vec<u8> {
    ipv4(17, 0, &udp(port, 5060, b"hello"))
}

/// The answer to it.
fn answer(port: u16) -> Vec<u8> {
    let mut packet = ipv4(17, 0, &udp(5060, port, b"hello"));
    (packet[15], packet[19]) = (2, 1);
    packet
}

fn tagged(id: u8, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    join(&[&[0, id], &ethertype.to_be_bytes(), payload])
}

/// Frames with headers in front of a datagram, and the words that name them. The ports begin with `port`.
fn encapsulated(port: u16) -> Vec<(&'static str, Vec<u8>)> {
    let label = [0, 1, 1, 64];
    let upper = [0, 1, 0, 64];
    let frame = ethernet(0x800, &datagram(port + 5));
    vec![
        ("a VLAN tag", ethernet(0x8100, &tagged(5, 0x800, &datagram(port)))),
        ("a VLAN tag", ethernet(0x88a8, &tagged(5, 0x8100, &tagged(6, 0x800, &datagram(port + 1))))),
        ("MPLS", ethernet(0x8847, &join(&[&label, &datagram(port + 2)]))),
        ("MPLS", ethernet(0x8847, &join(&[&upper, &label, &datagram(port + 3)]))),
        ("MPLS", ethernet(0x800, &ipv4(17, 0, &udp(9, 6635, &join(&[&label, &datagram(port + 4)]))))),
        ("VXLAN", ethernet(0x800, &ipv4(17, 0, &udp(9, 4789, &join(&[&[8, 0, 0, 0, 0, 0, 5, 0], &frame]))))),
        ("a VLAN tag and PPPoE", {
            let pppoe = join(&[&[0x11, 0, 0, 3, 0, 35, 0, 0x21], &datagram(port + 6)]);
            ethernet(0x8100, &tagged(5, 0x8864, &pppoe))
        }),
    ]
}

const EXPRESSIONS: [&str; 8] = [
    "port 5060",
    "host 10.0.0.2",
    "src host 10.0.0.2",
    "vlan and port 5060",
    "vlan 5 and vlan 6",
    "mpls and udp",
    "udp port 4789",
    "udp[8:4] = 0x68656c6c",
];

#[test]
fn honest_13_02_a_pin_protects_the_sessions_of_the_packets_that_get_returns() {
    // Before the pins and after them: sessions without further headers, one of them answered, and those with headers.
    let part = |port: u16| -> Vec<Vec<u8>> {
        let plain = [datagram(port), datagram(port + 1), answer(port)].map(|packet| ethernet(0x800, &packet));
        let mut frames: Vec<_> = encapsulated(port + 10).into_iter().map(|(_, frame)| frame).collect();
        frames.extend(plain);
        frames
    };
    let frames = [part(1000), part(2000)].concat();
    let file = capture(1, &frames);
    let split = 24 + part(1000).iter().map(|frame| 16 + frame.len()).sum::<usize>();
    let mut recorder = Recorder::replaying(&["--replay", "-", "--speed", "max", "-m", "32M"], Stdio::piped());
    let mut stdin = recorder.stdin();
    stdin.write_all(&file[..split]).unwrap();
    recorder.arrived(10);
    let whole = |expression: &str| recorder.packets(&["--whole-sessions", expression]).len();
    for expression in EXPRESSIONS {
        let reply = recorder.ask(&["pin", expression, "--for", "1h", "--json"]);
        assert_eq!(reply.code, 0, "{expression}: {}", reply.stderr);
        let pin: serde_json::Value = serde_json::from_str(&reply.stdout).unwrap();
        assert_eq!(pin["kept_packets"].as_u64(), Some(whole(expression) as u64), "{expression}: {pin}");
        let listed = recorder.ask(&["flows", "--json", expression]).stdout.lines().count();
        assert_eq!(pin["sessions"].as_u64(), Some(listed as u64), "{expression}: {pin}");
        let is_hidden = matches!(expression, "port 5060" | "host 10.0.0.2" | "udp[8:4] = 0x68656c6c");
        assert!(!is_hidden || expression.starts_with("udp[") || pin["note"].is_string(), "{expression}: {pin}");
    }
    stdin.write_all(&file[split..]).unwrap();
    drop(stdin);
    recorder.arrived(20);
    let reply = recorder.ask(&["pin", "--list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&reply.stdout).unwrap();
    for (pin, expression) in list["pins"].as_array().unwrap().iter().zip(EXPRESSIONS) {
        assert_eq!(pin["filter"], expression);
        assert_eq!(pin["kept_packets"].as_u64(), Some(whole(expression) as u64), "{expression}: {pin}");
        let listed = recorder.ask(&["flows", "--json", expression]).stdout.lines().count();
        assert_eq!(pin["sessions"].as_u64(), Some(listed as u64), "{expression}: {pin}");
    }
}

/// The expressions in quotes at the end of a message.
fn offers(stderr: &str) -> Vec<&str> {
    let after = stderr.split("--flow finds ").nth(1).unwrap_or_default();
    after.split('\'').skip(1).step_by(2).collect()
}

#[test]
fn honest_13_02_hints_return_the_packets_that_they_promise() {
    let folder = directory();
    for (number, (name, frame)) in encapsulated(1000).into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.pcap"));
        std::fs::write(&path, capture(1, &[frame])).unwrap();
        let path = path.to_str().unwrap();
        let refused = reply(&run(&["get", "port", "5060", "-r", path]));
        assert!(refused.code == 1 && refused.stderr.contains(&format!("(1 behind {name})")), "{refused:?}");
        let offers = offers(&refused.stderr);
        // No word of an expression looks into UDP.
        let has_word = !matches!(number, 4 | 5);
        assert_eq!(offers.len(), usize::from(has_word), "{number} {name}: {refused:?}");
        for offer in offers {
            let found = reply(&run(&["get", "--text", offer, "-r", path]));
            assert_eq!((found.code, found.stdout.lines().count()), (0, 1), "{name} {offer}: {found:?}");
        }
        let found = reply(&run(&["get", "--text", "--port", "5060", "-r", path]));
        assert_eq!((found.code, found.stdout.lines().count()), (0, 1), "{name}: {found:?}");
    }
    // Several kinds need several expressions.
    let both: Vec<_> = encapsulated(1000).into_iter().take(2).map(|(_, frame)| frame).collect();
    let path = folder.path().join("both.pcap");
    std::fs::write(&path, capture(1, &both)).unwrap();
    let path = path.to_str().unwrap();
    let refused = reply(&run(&["get", "port", "5060", "-r", path]));
    let found: usize = offers(&refused.stderr)
        .into_iter()
        .map(|offer| reply(&run(&["get", "--text", offer, "-r", path])).stdout.lines().count())
        .sum();
    assert_eq!(found, 2, "{refused:?}");
}

#[test]
fn honest_13_02_whole_sessions_keep_the_hints() {
    let plain = ethernet(0x800, &datagram(1000));
    let tag = ethernet(0x8100, &tagged(5, 0x800, &datagram(1001)));
    let esp = ethernet(0x800, &ipv4(50, 0, &[9; 60]));
    let recorder = recorded(1, &[plain, tag, esp]);
    let out = recorder.path("out.pcapng");
    let reply = recorder.ask(&["get", "--whole-sessions", "port", "5060", "-w", out.to_str().unwrap()]);
    for words in ["(1 behind a VLAN tag)", "'vlan and (port 5060)'", "1 packet with ESP (encrypted) was not opened"] {
        assert!(reply.code == 0 && reply.stderr.contains(words), "{words}: {reply:?}");
    }
}

#[test]
fn honest_13_02_one_fragment_is_one() {
    let whole = udp(5060, 5060, &[7; 32]);
    let first = ethernet(0x800, &ipv4(17, 0x2000, &whole[..24]));
    let last = ethernet(0x800, &ipv4(17, 3, &whole[24..]));
    let recorder = recorded(1, &[first, last]);
    let reply = recorder.ask(&["get", "port", "5060", "-w", recorder.path("out.pcapng").to_str().unwrap()]);
    assert!(reply.stderr.contains("(1 fragment after the first): --whole-sessions"), "{reply:?}");
}

#[test]
fn honest_13_03_only_sessions_that_were_cut_are_called_so() {
    // Twelve sessions of 3.5 MB each do not fit into 16 MiB. Eight small ones stay whole, as do later ones of another port.
    let mut random = Random(3);
    let mut frames = Vec::new();
    for number in 0..30_000u16 {
        let port = if number % 100 < 8 && number > 29_000 { 4100 + number % 100 } else { 4000 + number % 12 };
        let flags = if number < 12 { 2 } else { 24 };
        let payload: Vec<u8> =
            if number < 12 { Vec::new() } else { (0..1400).map(|_| random.below(256).to_le_bytes()[0]).collect() };
        frames.push(ethernet(0x800, &ipv4(6, 0, &tcp(port, 80, flags, &payload))));
    }
    let folder = directory();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, capture(1, &frames)).unwrap();
    let recorder = replayed(path.to_str().unwrap(), 30_000, "16M");
    let reply = recorder.ask(&["flows", "--json", "--port", "80"]);
    let rows: Vec<serde_json::Value> = reply.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_cut =
        |row: &serde_json::Value| row["kept_packets"].as_u64() < Some(row["packets"]["originator"].as_u64().unwrap());
    let cut = rows.iter().filter(|row| is_cut(row)).count();
    assert!(cut > 1 && cut < rows.len(), "{cut} of {}", rows.len());
    let out = recorder.path("out.pcapng");
    for whole in [&["--whole-sessions"][..], &[]] {
        let question = [&["get", "tcp port 80", "-w", out.to_str().unwrap()][..], whole].concat();
        let reply = recorder.ask(&question);
        let expected = match whole.len() {
            1 => format!("{cut} of the {} sessions that match were cut", rows.len()),
            _ => format!("{cut} sessions that match were cut"),
        };
        assert!(reply.code == 0 && reply.stderr.contains(&expected), "{expected}: {reply:?}");
    }
    // What cannot be decided without the lost packets.
    let reply = recorder.ask(&["get", "tcp[20:4] = 0x47455420"]);
    assert!(reply.stderr.contains(&format!("{cut} sessions that may match are cut")), "{cut}: {reply:?}");
    // Sessions that are in the answer are no longer in doubt.
    let reply = recorder.ask(&["get", "--whole-sessions", "tcp[13] = 2", "-w", out.to_str().unwrap()]);
    let started = rows.iter().filter(|row| row["originator"]["port"].as_u64() < Some(4100)).count();
    assert!(reply.stderr.contains(&format!("of the {started} sessions that match")) || started == cut, "{reply:?}");
    assert!(!reply.stderr.contains("may match"), "{reply:?}");
}

/// Copies match the expression, too: they are no packets that it leaves out.
#[test]
fn honest_13_08_copies_are_not_called_packets_that_do_not_match() {
    let mut packet = datagram(1000);
    packet[5] = 7;
    let frame = ethernet(0x800, &packet);
    let block = |kind: u32, body: &[u8]| {
        let padded = join(&[body, &vec![0; body.len().next_multiple_of(4) - body.len()]]);
        let length = u32::try_from(12 + padded.len()).unwrap().to_le_bytes();
        join(&[&kind.to_le_bytes(), &length, &padded, &length])
    };
    let start = block(0x0a0d_0d0a, &join(&[&0x1a2b_3c4d_u32.to_le_bytes(), &[1, 0, 0, 0], &[0xff; 8]]));
    let interface = block(1, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let copy = |interface: u32, time_us: u64| {
        let length = u32::try_from(frame.len()).unwrap();
        let [high, low] = [time_us >> 32, time_us & 0xffff_ffff].map(|part| u32::try_from(part).unwrap());
        block(6, &join(&[&[interface, high, low, length, length].map(u32::to_le_bytes).concat(), &frame]))
    };
    let time_us = 1_795_341_600_000_000;
    // On two interfaces, and twice on one.
    let packets = join(&[&copy(0, time_us), &copy(1, time_us + 1), &copy(0, time_us + 2)]);
    let folder = directory();
    let path = folder.path().join("in.pcapng");
    std::fs::write(&path, join(&[&start, &interface, &interface, &packets])).unwrap();
    let (path, out) = (path.to_str().unwrap(), folder.path().join("out.pcapng"));
    for (dedup, words) in [
        (false, "2 packets were captured twice"),
        (true, "2 packets were captured twice, and the copies were left out"),
    ] {
        let mut question = vec!["get", "udp port 5060", "-r", path, "-w", out.to_str().unwrap()];
        question.extend(dedup.then_some("--dedup"));
        let reply = reply(&run(&question));
        assert!(reply.code == 0 && reply.stderr.contains(words), "{reply:?}");
        assert!(!reply.stderr.contains("the expression does not"), "{reply:?}");
    }
}
