//! Answers of one recorder agree with each other: what an expression means, what is listed, and what is counted.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;

use super::honest::{capture, ethernet, ipv4, recorded, replayed, tcp, udp};
use super::running::{Recorder, directory};
use crate::generate::Random;
use crate::service::asking;

/// Sessions from ports 4000 and on, in rounds of one packet each. Packet 5 of port 4000 begins with `EVIL`.
fn rounds(random: &mut Random, rounds: u16) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for round in 0..rounds {
        for port in [4000, 4001, 4002] {
            let mut payload: Vec<u8> = (0..900).map(|_| random.below(256).to_le_bytes()[0]).collect();
            let evil: &[u8] = if port == 4000 && round == 5 { b"EVIL" } else { b"GOOD" };
            payload[..4].copy_from_slice(evil);
            let flags = if round == 0 { 2 } else { 24 };
            let payload = if round == 0 { Vec::new() } else { payload };
            frames.push(ethernet(0x800, &ipv4(6, 0, &tcp(port, 80, flags, &payload))));
        }
    }
    frames
}

#[test]
fn honest_13_02_a_pin_means_what_get_means() {
    let mut random = Random(2);
    let mut frames = rounds(&mut random, 20);
    let before = frames.len();
    // After the pin: port 4001 says EVIL, too, and then 40 MB arrive that nothing compresses.
    let evil = [&b"EVIL"[..], &[7; 500]].concat();
    frames.push(ethernet(0x800, &ipv4(6, 0, &tcp(4001, 80, 24, &evil))));
    for number in 0..28_000u32 {
        let payload: Vec<u8> = (0..1400).map(|_| random.below(256).to_le_bytes()[0]).collect();
        // As deep as the other sessions, so that the oldest of all are shortened. Each session has hosts and a service of
        // its own: a flood would compete with itself only.
        let session = u16::try_from(number / 20).unwrap();
        let mut frame = ethernet(0x800, &ipv4(17, 0, &udp(5000 + session, 20_000 + session, &payload)));
        let [high, low] = session.to_be_bytes();
        frame[26..30].copy_from_slice(&[172, 16 + high, low, 1]);
        frame[30..34].copy_from_slice(&[198, 18 + high, low, 2]);
        frames.push(frame);
    }
    let file = capture(1, &frames);
    let split = 24 + frames[..before].iter().map(|frame| 16 + frame.len()).sum::<usize>();

    let mut recorder = Recorder::replaying(&["--replay", "-", "--speed", "max", "-m", "16M"], Stdio::piped());
    let mut stdin = recorder.stdin();
    stdin.write_all(&file[..split]).unwrap();
    recorder.arrived(before as u64);
    let expression = "tcp[20:4] = 0x4556494c";
    let reply = recorder.ask(&["pin", expression, "--for", "1h", "--json"]);
    assert_eq!(reply.code, 0, "{}", reply.stderr);
    let pin: serde_json::Value = serde_json::from_str(&reply.stdout).unwrap();
    assert_eq!((&pin["sessions"], &pin["kept_packets"]), (&1.into(), &20.into()), "{pin}");
    stdin.write_all(&file[split..]).unwrap();
    drop(stdin);
    recorder.arrived(frames.len() as u64);

    let reply = recorder.ask(&["flows", "--json", "--port", "80"]);
    let kept = |port: u64| {
        let rows = reply.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let row = rows.into_iter().find(|row| row["originator"]["port"] == port).unwrap();
        row["kept_packets"].as_u64().unwrap()
    };
    assert_eq!((kept(4000), kept(4001)), (20, 21), "the packets from before the pin and after it: {}", reply.stdout);
    assert!(kept(4002) < 20, "another session was shortened: {}", reply.stdout);
    // The other verbs agree.
    assert_eq!(recorder.ask(&["flows", "--json", expression]).stdout.lines().count(), 2);
    assert_eq!(recorder.packets(&[expression]).len(), 2);
    assert_eq!(recorder.packets(&["--whole-sessions", expression]).len(), 41);
}

#[test]
fn honest_13_02_followers_learn_what_could_not_be_seen() {
    let inner = ipv4(17, 0, &udp(4000, 5060, b"hello"));
    let tagged = ethernet(0x8100, &[&[0, 42, 8, 0][..], &inner].concat());
    let recorder = recorded(1, &[ethernet(0x800, &inner), tagged.clone(), tagged]);
    let out = recorder.path("out.pcapng");
    for question in [
        &["get", "--follow", "--until", "1s", "port", "5060", "-w", out.to_str().unwrap()][..],
        &["get", "--follow", "-c", "1", "--until", "1s", "port", "5060", "--text"],
    ] {
        let past = recorder.ask(&["get", "port", "5060", "-w", recorder.path("past").to_str().unwrap()]);
        assert!(past.stderr.contains("VLAN"), "{}", past.stderr);
        let reply = recorder.ask(question);
        // A limited number of packets was asked for and found.
        let expected = !question.contains(&"-c");
        assert_eq!((reply.code, reply.stderr.contains("VLAN")), (0, expected), "{question:?}: {}", reply.stderr);
    }
    let file = String::from_utf8_lossy(&std::fs::read(out).unwrap()).into_owned();
    assert!(file.contains("VLAN"), "the file says so, too");
    let reply = recorder.ask(&["get", "--follow", "--until", "1s", "host", "192.0.2.1", "--text"]);
    assert!(reply.stderr.contains("no packet that matches was seen"), "{}", reply.stderr);
}

const SESSIONS: u16 = 24_000;

/// One SYN of each session, a millisecond apart.
fn many_sessions() -> Recorder {
    let frame = |number| ethernet(0x800, &ipv4(6, 0, &tcp(1024 + number, 80, 2, b"")));
    let folder = directory();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, capture(1, &(0..SESSIONS).map(frame).collect::<Vec<_>>())).unwrap();
    replayed(path.to_str().unwrap(), SESSIONS.into(), "64M")
}

fn ports(lines: &str) -> Vec<u64> {
    let rows = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.map(|row| row["originator"]["port"].as_u64().unwrap()).collect()
}

#[test]
fn honest_13_05_all_sessions_are_listed_newest_first() {
    let recorder = many_sessions();
    let newest_first: Vec<u64> = (1024..1024 + u64::from(SESSIONS)).rev().collect();
    let reply = recorder.ask(&["flows", "--json"]);
    assert_eq!(reply.code, 0, "{}", reply.stderr);
    assert_eq!(ports(&reply.stdout), newest_first);
    let oldest_first = ports(&recorder.ask(&["flows", "--json", "--sort", "start"]).stdout);
    assert!(oldest_first.iter().eq(newest_first.iter().rev()));
    for sort in ["last", "bytes", "packets", "duration"] {
        let listed: BTreeSet<u64> =
            ports(&recorder.ask(&["flows", "--json", "--sort", sort]).stdout).into_iter().collect();
        assert_eq!(listed.len(), usize::from(SESSIONS), "{sort}");
    }
    for question in
        [&["flows", "--limit", "3"][..], &["flows", "--limit", "3", "--json"], &["flows", "-c", "3", "--csv"]]
    {
        let reply = recorder.ask(question);
        let lines = reply.stdout.lines().count() - usize::from(!question.contains(&"--json"));
        assert_eq!((reply.code, lines), (0, 3), "{question:?}");
        assert!(reply.stderr.starts_with("24,000 sessions, "), "{question:?}: {}", reply.stderr);
        assert!(reply.stderr.contains("the first 3 are listed"), "{question:?}: {}", reply.stderr);
    }
    let reply = recorder.ask(&["flows", "--by", "port", "--limit", "1"]);
    assert!(reply.stderr.starts_with("1 port, 24,000 sessions, ") || reply.stderr.is_empty(), "{}", reply.stderr);
    let reply = recorder.ask(&["flows", "--by", "host", "--limit", "1"]);
    assert!(reply.stderr.starts_with("2 hosts, 24,000 sessions, "), "{}", reply.stderr);

    // Page by page, as the summary says.
    let (mut listed, mut mark) = (Vec::new(), None::<String>);
    loop {
        let after = mark.iter().flat_map(|mark| ["--after", mark]);
        let question: Vec<&str> = ["flows", "--json", "--limit", "9000"].into_iter().chain(after).collect();
        let reply = recorder.ask(&question);
        assert_eq!(reply.code, 0, "{question:?}: {}", reply.stderr);
        assert!(reply.stderr.starts_with("24,000 sessions, "), "{question:?}: {}", reply.stderr);
        listed.extend(ports(&reply.stdout));
        let next = reply.stderr.split("--after ").nth(1).and_then(|rest| rest.split(' ').next());
        mark = next.map(str::to_owned);
        if mark.is_none() {
            break;
        }
    }
    assert_eq!(listed, newest_first);

    // Page by page over the API.
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let answer = asking::get(recorder.socket(), &format!("/v1/flows?limit=7000{after}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.trailer("retrocap-sessions"), Some("24000"));
        listed.extend(ports(&answer.text()));
        match answer.trailer("retrocap-next") {
            Some(mark) => after = format!("&after={mark}"),
            None => break,
        }
    }
    assert_eq!(listed, newest_first);
}

#[test]
fn honest_13_06_the_responder_is_the_side_that_was_the_server_in_other_sessions() {
    let answer = |source, destination, flags| {
        let mut packet = ipv4(6, 0, &tcp(source, destination, flags, b""));
        (packet[15], packet[19]) = (2, 1);
        ethernet(0x800, &packet)
    };
    let ask = |source, destination, flags| ethernet(0x800, &ipv4(6, 0, &tcp(source, destination, flags, b"")));
    // The server's port is the higher one, and no known service.
    let midstream = [answer(60_000, 40_000, 24), ask(40_000, 60_000, 16)];
    let others =
        [ask(50_000, 60_000, 2), answer(60_000, 50_000, 18), ask(50_001, 60_000, 2), answer(60_000, 50_001, 18)];
    for frames in [[&midstream[..], &others].concat(), [&others[..], &midstream].concat()] {
        let recorder = recorded(1, &frames);
        let reply = recorder.ask(&["flows", "--json", "--port", "40000"]);
        let flow: serde_json::Value = serde_json::from_str(reply.stdout.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&flow["responder"]["port"], &flow["responder"]["ip"]),
            (&60_000.into(), &"10.0.0.2".into()),
            "{flow}"
        );
    }
    // Without other sessions, the lower port is the server's.
    let reply = recorded(1, &midstream).ask(&["flows", "--json"]);
    let flow: serde_json::Value = serde_json::from_str(reply.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(flow["responder"]["port"], 40_000, "{flow}");
}

#[test]
fn answers_of_memory_alone_say_that_the_spool_was_not_searched() {
    let folder = directory();
    let (file, spool) = (folder.path().join("in.pcap"), folder.path().join("spool"));
    std::fs::create_dir(&spool).unwrap();
    let frames: Vec<_> = (0..10).map(|number| ethernet(0x800, &ipv4(17, 0, &udp(4000 + number, 53, b"x")))).collect();
    std::fs::write(&file, capture(1, &frames)).unwrap();
    let (file, spool) = (file.to_str().unwrap(), spool.to_str().unwrap());
    let arguments = ["--replay", file, "--speed", "max", "-m", "32M", "--spool", spool, "--spool-size", "64M"];
    // With a log of sessions, `flows` says more; see `session_log`.
    let arguments = [&arguments[..], &["--spool-sessions", "off"]].concat();
    let recorder = Recorder::replaying(&arguments, Stdio::null());
    recorder.arrived(10);
    let words = format!("the spool was not searched: ask it with --spool {spool}");
    for (arguments, code) in [(&["flows", "udp"][..], 0), (&["flows", "tcp"], 1), (&["flows", "--by", "port"], 0)] {
        let answer = recorder.ask(arguments);
        assert_eq!(answer.code, code, "{arguments:?}: {}", answer.stderr);
        assert!(answer.stderr.contains(&words), "{arguments:?}: {}", answer.stderr);
    }
    // These answers are of both.
    for arguments in [&["get", "udp"][..], &["get", "tcp"], &["get", "--whole-sessions", "tcp"]] {
        let answer = recorder.ask(arguments);
        assert!(!answer.stderr.contains("not searched"), "{arguments:?}: {}", answer.stderr);
    }
    let answer = recorder.ask(&["get", "tcp"]);
    assert!(answer.stderr.contains("no packet on disk matches"), "{}", answer.stderr);
}
