//! What was not opened is named with its cause, beside every answer: one test for each kind.

use super::honest::{capture, ethernet, ipv4, recorded, tcp, udp};
use super::running::{directory, reply};
use crate::cli::run;
use crate::service::asking;

/// From 192.0.2.1, the address that is asked for.
fn inner() -> Vec<u8> {
    let mut packet = ipv4(17, 0, &udp(4000, 5353, b"hello"));
    packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
    packet
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Link type, a frame that hides the address, and what the answer must say of it.
fn hidden() -> Vec<(u32, Vec<u8>, &'static str, &'static str)> {
    let frame = ethernet(0x800, &inner());
    let in_udp = |port, payload: &[u8]| ethernet(0x800, &ipv4(17, 0, &udp(4000, port, payload)));
    let vxlan = in_udp(4789, &join(&[&[8, 0, 0, 0, 0, 0, 5, 0], &frame]));
    let protected = join(&[&[8, 0x41, 0, 0], &[2; 18], &[0, 0], &[9; 40]]);
    let cut_in = |frame: &[u8], len: usize| frame[..len].to_vec();
    vec![
        (105, protected, "encrypted", "1 packet with 802.11 (encrypted) was not opened"),
        (1, ethernet(0x88e5, &[0x0c; 60]), "encrypted", "1 packet with MACsec (encrypted) was not opened"),
        (1, ethernet(0x800, &ipv4(50, 0, &[9; 60])), "encrypted", "1 packet with ESP (encrypted) was not opened"),
        (1, in_udp(4500, &[9; 60]), "encrypted", "1 packet with ESP (encrypted) was not opened"),
        (1, in_udp(51_820, &join(&[&[4, 0, 0, 0], &[9; 60]])), "encrypted", "1 packet with WireGuard (encrypted)"),
        (1, ethernet(0x800, &ipv4(108, 0, &[9; 60])), "not_opened", "1 packet with IPComp (compressed) was not opened"),
        (1, ethernet(0x800, &ipv4(200, 0, &[9; 60])), "not_opened", "1 packet with IP protocol 200 was not opened"),
        (1, ethernet(0xabcd, &[9; 60]), "not_opened", "1 packet with ethertype 0xabcd was not opened"),
        (1, cut_in(&frame, 13), "cut_headers", "1 packet with Ethernet (cut within the headers) was not opened"),
        (1, cut_in(&frame, 26), "cut_headers", "1 packet with IPv4 (cut within the headers) was not opened"),
        (1, cut_in(&vxlan, 60), "cut_headers", "1 packet with Ethernet (cut within the headers) was not opened"),
        (1, ethernet(0x800, &[0x41; 40]), "not_opened", "1 packet with IPv4 (with damaged headers) was not opened"),
        (
            1,
            ethernet(0x800, &ipv4(1, 0, &join(&[&[3, 3, 0, 0, 0, 0, 0, 0], &inner()]))),
            "quoted",
            "1 ICMP error quotes such a packet: 'icmp or icmp6' finds them",
        ),
        (
            1,
            ethernet(
                0x800,
                &ipv4(4, 0, &{
                    let mut between = ipv4(4, 0, &ipv4(17, 0, &udp(1, 2, b"")));
                    between[12..16].copy_from_slice(&[192, 0, 2, 1]);
                    between
                }),
            ),
            "encapsulated",
            "1 packet has it between the outermost and the innermost addresses",
        ),
    ]
}

#[test]
fn honest_13_01_what_stopped_the_decoder_is_a_cause_of_its_own() {
    for (link_type, frame, cause, sentence) in hidden() {
        let recorder = recorded(link_type, &[frame]);
        for question in
            [&["get", "host", "192.0.2.1"][..], &["get", "--address", "192.0.2.1"], &["flows", "host 192.0.2.1"]]
        {
            let answer = recorder.ask(question);
            assert_eq!(answer.code, 1, "{question:?}: {answer:?}");
            assert!(answer.stderr.contains(sentence), "{sentence} of {question:?}: {answer:?}");
            assert!(!answer.stderr.contains("that matches was seen"), "{question:?}: {answer:?}");
        }
        let answer = asking::get(recorder.socket(), "/v1/packets?address=192.0.2.1");
        let problem: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!(problem["cause"], cause, "{problem}");
        let is_listed = !matches!(cause, "quoted" | "encapsulated");
        assert_eq!(problem["not_opened"].as_array().is_some_and(|list| list.len() == 1), is_listed, "{problem}");
    }
}

/// A packet whose captured bytes end before what the expression tests is not denied.
#[test]
fn honest_13_01_what_was_not_captured_is_not_denied() {
    let frame = ethernet(0x800, &ipv4(6, 0, &tcp(4000, 80, 24, b"GET / HTTP/1.1")));
    let folder = directory();
    let path = folder.path().join("in.pcap");
    // The packet was longer on the wire.
    let mut file = capture(1, &[frame[..54].to_vec()]);
    file[36..40].copy_from_slice(&u32::try_from(frame.len()).unwrap().to_le_bytes());
    std::fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    const SENTENCE: &str = "1 packet of link type EN10MB (captured without what the expression tests) was not opened";
    for (expression, is_decided) in [("tcp[20:4] = 0x47455420", false), ("tcp[13] = 2", true), ("udp[8:2] = 1", true)] {
        for verb in ["get", "flows"] {
            let answer = reply(&run(&[verb, expression, "-r", path]));
            assert_eq!((answer.code, answer.stderr.contains(SENTENCE)), (1, !is_decided), "{expression}: {answer:?}");
            assert_eq!(answer.stderr.contains("that matches was seen"), is_decided, "{expression}: {answer:?}");
        }
    }
}

/// JSON and manifests list what was not opened.
#[test]
fn honest_13_01_json_and_manifests_list_what_was_not_opened() {
    let esp = ethernet(0x800, &ipv4(50, 0, &[9; 60]));
    let cut = ethernet(0x800, &ipv4(6, 0, &tcp(1, 2, 2, b"")))[..30].to_vec();
    let seen = ethernet(0x800, &ipv4(17, 0, &udp(4000, 53, b"")));
    let recorder = recorded(1, &[esp.clone(), esp, cut, seen]);
    let answer = asking::get(recorder.socket(), "/v1/packets?address=192.0.2.1");
    let problem: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!((answer.status, &problem["cause"]), (404, &"not_opened".into()), "{problem}");
    let expected = serde_json::json!([
        {"header": "ESP", "reason": "encrypted", "packets": 2},
        {"header": "IPv4", "reason": "cut", "packets": 1},
    ]);
    let sorted = |list: &serde_json::Value| {
        let mut list = list.as_array().unwrap().clone();
        list.sort_by_key(|one| one["header"].to_string());
        serde_json::Value::from(list)
    };
    assert_eq!(sorted(&problem["not_opened"]), expected);

    let (alerts, out, split) = (recorder.path("eve.json"), recorder.path("out.pcapng"), recorder.path("split"));
    let alert = r#"{"timestamp":"2026-11-22T10:00:00.000000+0000","event_type":"alert","src_ip":"192.0.2.1","src_port":1,"dest_ip":"192.0.2.2","dest_port":2,"proto":"TCP"}"#;
    std::fs::write(&alerts, alert).unwrap();
    let answer = recorder.ask(&["get", "--alert", alerts.to_str().unwrap(), "-q", "--split", split.to_str().unwrap()]);
    let manifest = std::fs::read_to_string(split.join("manifest.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(manifest.lines().next().unwrap()).unwrap();
    let missing = &line["missing"];
    assert_eq!(missing["cause"], "not_opened", "{line} {answer:?}");
    assert_eq!(sorted(&missing["not_opened"]), expected);

    // Beside what was found; but an answer that holds all of them has nothing to say.
    let answer = recorder.ask(&["get", "port", "53", "-w", out.to_str().unwrap()]);
    for sentence in ["2 packets with ESP (encrypted)", "1 packet with IPv4 (cut within the headers)"] {
        assert!(answer.stderr.contains(sentence), "{answer:?}");
        assert!(String::from_utf8_lossy(&std::fs::read(&out).unwrap()).contains(sentence), "the file says so, too");
    }
    let answer = recorder.ask(&["get", "ip proto 50", "-w", out.to_str().unwrap()]);
    assert!(answer.code == 0 && !answer.stderr.contains("ESP"), "{answer:?}");
    assert!(recorder.ask(&["flows", "--port", "53"]).stderr.contains("2 packets with ESP"), "listings, too");
}

/// The clear ones are opened: their addresses are those of sessions.
#[test]
fn honest_13_01_small_tunnels_are_opened() {
    let frame = ethernet(0x800, &inner());
    let in_udp = |port, payload: &[u8]| ethernet(0x800, &ipv4(17, 0, &udp(4000, port, payload)));
    let carriers = [
        ("802.1ah", ethernet(0x88e7, &join(&[&[0, 0, 0, 5], &frame]))),
        ("NSH", ethernet(0x894f, &join(&[&[0, 2, 1, 3, 0, 0, 0, 1], &frame]))),
        ("NSH in VXLAN", in_udp(4790, &join(&[&[12, 0, 0, 4, 0, 0, 5, 0], &[0, 2, 1, 1, 0, 0, 0, 1], &inner()]))),
        ("L2TPv3 in IP", ethernet(0x800, &ipv4(115, 0, &join(&[&[0, 0, 0, 7, 0, 0, 0, 0], &frame])))),
        ("L2TPv3 in UDP", in_udp(1701, &join(&[&[0, 3, 0, 0, 0, 0, 0, 7], &frame]))),
        ("GUE", in_udp(6080, &join(&[&[0, 4, 0, 0], &inner()]))),
        ("batman-adv", ethernet(0x4305, &join(&[&[0x40, 15, 50, 1, 2, 0, 0, 0, 0, 9], &frame]))),
        ("pseudowire", ethernet(0x8847, &join(&[&[0, 1, 1, 64], &[0, 0, 0, 0], &frame]))),
        ("pseudowire without a control word", ethernet(0x8847, &join(&[&[0, 1, 1, 64], &frame]))),
        ("PIM register", ethernet(0x800, &ipv4(103, 0, &join(&[&[0x21, 0, 0, 0, 0, 0, 0, 0], &inner()])))),
    ];
    let folder = directory();
    for (name, frame) in carriers {
        let path = folder.path().join("in.pcap");
        std::fs::write(&path, capture(1, &[frame])).unwrap();
        let path = path.to_str().unwrap();
        let answer = reply(&run(&["flows", "--json", "--address", "192.0.2.1", "-r", path]));
        assert_eq!((answer.code, answer.stdout.lines().count()), (0, 1), "{name}: {answer:?}");
        let answer = reply(&run(&["get", "--text", "--address", "192.0.2.1", "-r", path]));
        assert!(answer.code == 0 && answer.stdout.contains("192.0.2.1.4000"), "{name}: {answer:?}");
    }
}
