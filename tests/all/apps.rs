//! `app=` of the API: packets and sessions by what they say, as the command line selects them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::generate::{self, Plain};
use crate::hunting::{Replaying, lines, retrocap, said, text};
use crate::machine;
use crate::service::asking::{Answer, get};

/// The packets of an answer.
fn packets(answer: &Answer, folder: &Path) -> Vec<Plain> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let path = folder.join("answer.pcapng");
    std::fs::write(&path, &answer.body).unwrap();
    generate::read(&path).0
}

/// The packets that the command line finds in a file.
fn found(file: &Path, arguments: &[&str], folder: &Path) -> Vec<Plain> {
    let out = folder.join("found.pcapng");
    let output = retrocap(&[&["get", "-r", text(file), "-w", text(&out)], arguments].concat());
    assert!(output.status.success(), "{}", said(&output));
    generate::read(&out).0
}

fn sessions<'a>(flows: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    let session = |flow: &Value| {
        assert_eq!(flow["app"]["name"], "modbus", "{flow}");
        format!("{} {} {} {} {}", flow["originator"], flow["responder"], flow["first"], flow["last"], flow["app"])
    };
    flows.map(session).collect()
}

#[test]
fn a_recorder_chooses_packets_and_sessions_by_what_they_say_as_the_command_line_does() {
    let what = "a_recorder_chooses_by_what_packets_say";
    let Some(file) = machine::capture(what, "ics-modbus.pcap") else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let plain = format!("127.0.0.1:{port}");
    let recorder = Replaying::start(&file, &["-m", "64MiB", "--listen-plain", &plain]);
    let ask = |question: &str| get(recorder.socket(), question);
    for (question, arguments) in [
        ("app=modbus:write", &["--app", "modbus:write"][..]),
        ("app=modbus:write&whole-sessions", &["--app", "modbus:write", "--whole-sessions"]),
        ("app=modbus&filter=host+141.81.0.10", &["--app", "modbus", "host", "141.81.0.10"]),
        ("app=any:read", &["--app", "any:read"]),
    ] {
        let answer = ask(&format!("/v1/packets?{question}"));
        let sent = packets(&answer, folder);
        assert_eq!(sent, found(&file, arguments, folder), "{question}");
        assert_eq!(answer.trailer("retrocap-packets"), Some(sent.len().to_string().as_str()), "{question}");
    }
    let all = packets(&ask("/v1/packets?app=modbus:write"), folder);
    assert_eq!(
        packets(&ask("/v1/packets?app=modbus:write&count=5"), folder),
        all[..5],
        "the limit is of what is found"
    );

    let by_file = lines(&retrocap(&["flows", "-r", text(&file), "--app", "modbus:write", "--json"]));
    let answer = ask("/v1/flows?app=modbus:write");
    let listed: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!listed.is_empty());
    assert_eq!(sessions(listed.iter()), sessions(by_file.iter()));
    assert_eq!(answer.trailer("retrocap-flows"), Some(listed.len().to_string().as_str()));
    let few = ask("/v1/flows?app=modbus:write&limit=2&filter=tcp");
    assert_eq!((few.status, few.text().lines().count()), (200, 2), "{}", few.text());
    // Without a condition on the protocol, every session is there.
    let (every, known) = (ask("/v1/flows?app=any").text(), ask("/v1/flows").text());
    assert_eq!(every.lines().count(), known.lines().count());

    // Of sessions that are named, only the packets of these are read.
    let named: Vec<&Value> = listed.iter().step_by(7).collect();
    let ids: Vec<String> = named.iter().map(|flow| format!("id={}", flow["id"].as_str().unwrap())).collect();
    let answer = ask(&format!("/v1/flows?{}&app=any", ids.join("&")));
    let some: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(sessions(some.iter()), sessions(named.into_iter()));
    assert_eq!(ask(&format!("/v1/flows?{}&app=tls", ids[0])).status, 404);
    // A client that is not root has a share of the memory for listings: the search does not wait for more.
    if machine::have(what, "curl") {
        let limited = |question: &str| {
            let url = format!("http://{plain}{question}");
            let output = Command::new("curl").args(["-s", "-w", "%{http_code}", &url]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let of_ids = limited(&format!("/v1/flows?{}&app=any", ids.join("&")));
        assert_eq!((of_ids.lines().count(), of_ids.ends_with("200")), (some.len() + 1, true), "{of_ids}");
        let of_window = limited("/v1/flows?app=modbus:write&since=2000-01-01T00:00:00Z");
        assert_eq!((of_window.lines().count(), of_window.ends_with("200")), (listed.len() + 1, true), "{of_window}");
    }

    for (question, status, words) in [
        ("/v1/packets?app=tls", 404, "carries tls"),
        ("/v1/packets?app=tls&filter=port+1", 404, "matches"),
        ("/v1/flows?app=tls", 404, "is known to carry tls"),
        ("/v1/packets?app=telepathy", 400, "known by content"),
        ("/v1/packets?app=tls&follow", 400, "exclude each other"),
        ("/v1/flows?app=tls&by=port", 400, "exclude each other"),
    ] {
        let answer = ask(question);
        assert_eq!(answer.status, status, "{question}: {}", answer.text());
        assert!(answer.text().contains(words), "{question}: {}", answer.text());
    }
}

#[test]
fn packets_on_disk_are_chosen_by_what_they_say() {
    let what = "packets_on_disk_are_chosen_by_what_they_say";
    let Some(file) = machine::capture(what, "ics-modbus.pcap") else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let recorder = Replaying::start(&file, &["-m", "64MiB", "--spool", text(&spool), "--spool-size", "64M"]);
    let expected = found(&file, &["--app", "modbus:write"], folder.path());
    // The spool writes soon after the packets were stored.
    for _ in 0..600 {
        let answer = get(recorder.socket(), "/v1/packets?from=disk");
        if answer
            .trailer("retrocap-packets")
            .is_some_and(|packets| packets.parse() == Ok(generate::read(&file).0.len()))
        {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for question in ["app=modbus:write&from=disk", "app=modbus:write", "app=modbus:write&from=memory"] {
        let sent = packets(&get(recorder.socket(), &format!("/v1/packets?{question}")), folder.path());
        assert_eq!(sent, expected, "{question}");
    }
    // Sessions are widened in memory; what is on disk too does not disturb that.
    for question in ["app=modbus:write&whole-sessions", "filter=port+502&whole-sessions"] {
        let answer = get(recorder.socket(), &format!("/v1/packets?{question}"));
        assert!(packets(&answer, folder.path()).len() > expected.len(), "{question}");
    }
}

#[test]
fn what_finds_no_room_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // More sessions at a time than the recorder reads; none of them ends, and the first ones speak last.
    let file = folder.join("many.pcap");
    std::fs::write(&file, conversations(9000)).unwrap();
    let recorder = Replaying::start(&file, &["-m", "64MiB"]);
    let answer = get(recorder.socket(), "/v1/packets?app=http:read");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let note = answer.trailer("retrocap-note").unwrap_or_default();
    assert!(note.contains("read in part, because too many were open at a time"), "{note}");
}

/// Connections that stay open, with one request each after all have begun.
fn conversations(count: u16) -> Vec<u8> {
    let mut file = generate::header();
    let mut add = |number: u16, time_us: u32, from_client: bool, flags: u8, payload: &[u8]| {
        let length = u32::try_from(54 + payload.len()).unwrap();
        for field in [u32::try_from(generate::START_S).unwrap(), time_us, length, length] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
        file.extend_from_slice(&u16::try_from(length - 14).unwrap().to_be_bytes());
        file.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        let mut ends = [([10, 0, 0, 1], 20_000 + number), ([192, 0, 2, 7], 8080)];
        if !from_client {
            ends.reverse();
        }
        ends.iter().for_each(|(ip, _)| file.extend_from_slice(ip));
        ends.iter().for_each(|(_, port)| file.extend_from_slice(&port.to_be_bytes()));
        let sequence = u32::from(flags & 2 == 0);
        let acknowledged = u32::from(flags != 2);
        file.extend_from_slice(&sequence.to_be_bytes());
        file.extend_from_slice(&acknowledged.to_be_bytes());
        file.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        file.extend_from_slice(payload);
    };
    for number in 0..count {
        let at = u32::from(number) * 20;
        add(number, at, true, 2, b"");
        add(number, at + 1, false, 0x12, b"");
    }
    for number in 0..count {
        let at = 500_000 + u32::from(number) * 20;
        add(number, at, true, 0x18, b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n");
    }
    file
}

#[test]
fn tshark_agrees_about_what_a_recorder_chose() {
    let what = "tshark_agrees_about_what_a_recorder_chose";
    let Some(file) = machine::capture(what, "ics-modbus.pcap") else { return };
    if !machine::have(what, "tshark") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let recorder = Replaying::start(&file, &["-m", "64MiB"]);
    let out = folder.path().join("out.pcapng");
    std::fs::write(&out, get(recorder.socket(), "/v1/packets?app=modbus:write").body).unwrap();
    let tshark = |file: &Path| {
        let filter = "modbus.func_code in {5,6,15,16,22,23}";
        let output = Command::new("tshark").args(["-r", text(file), "-Y", filter]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    assert_eq!((tshark(&out), generate::read(&out).0.len()), (tshark(&file), tshark(&file)));
}
