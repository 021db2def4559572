//! Names that senders of packets and users of a host choose: HTTP hosts, DNS names, names of files and of processes. None of
//! them moves the cursor, reorders a line, or is a formula, in any sink.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::hostile_recorder::{hostile, row};
use crate::hunting::http;

/// What a terminal acts on, and what changes how a line is read. `evil` shows that the name was printed.
const NAME: &str = "evil\x1b]0;t\x07\u{9b}2J\u{202e}\u{2066}\u{200b}\u{2028}\u{e0041}\x7f";

fn is_deceptive(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\r') || "\u{202e}\u{2066}\u{200b}\u{2028}\u{e0041}".contains(c)
}

/// Runs the program, and checks all that it prints.
fn checked(arguments: &[&str], evil: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrocap"));
    let output = command.args(arguments).env_remove("RETROCAP_SOCKET").env("TZ", "UTC").output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    for text in [&stdout, &stderr] {
        assert!(!text.contains(is_deceptive), "{arguments:?}: {text:?}");
        let is_lone = |at: usize| text.as_bytes().get(at + 1) != Some(&b'\n');
        assert!(!text.match_indices('\r').any(|(at, _)| is_lone(at)), "{arguments:?}: {text:?}");
    }
    assert!(!evil || stdout.contains("evil") || stderr.contains("evil"), "{arguments:?}: {stdout:?} {stderr:?}");
    if arguments.contains(&"--json") {
        stdout.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
    }
    output
}

/// A capture of one DNS question.
pub(crate) fn dns(folder: &Path, label: &[u8]) -> std::path::PathBuf {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(label.len()).unwrap()];
    question.extend_from_slice(label);
    question.extend_from_slice(b"\x07example\0\0\x01\0\x01");
    let length = |more: usize| u16::try_from(question.len() + more).unwrap().to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend_from_slice(&length(28));
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7, 0x9c, 0x40, 0, 53]);
    frame.extend_from_slice(&length(8));
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&question);
    let mut file = crate::generate::header();
    let bytes = u32::try_from(frame.len()).unwrap();
    for field in [u32::try_from(crate::generate::START_S).unwrap(), 1, bytes, bytes] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.extend_from_slice(&frame);
    let path = folder.join("dns.pcap");
    std::fs::write(&path, file).unwrap();
    path
}

#[test]
fn security_14_3_names_in_packets_reach_no_sink_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let request = format!("GET /{NAME} HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: {NAME}\r\n\r\n");
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename=\"{NAME}\"\r\nContent-Type: {NAME}\r\n\
         Content-Length: 5\r\n\r\nhello"
    );
    let http = http(folder.path(), request.as_bytes(), response.as_bytes(), 1000);
    let dns = dns(folder.path(), NAME.as_bytes());
    let out = folder.path().join("objects");
    for file in [&http, &dns] {
        let file = file.to_str().unwrap();
        for verb in [
            &["flows"][..],
            &["flows", "--csv"],
            &["flows", "--json"],
            &["flows", "--by", "name"],
            &["get", "--text"],
            &["get", "--text", "-X"],
            &["hunt", "--text", "evil"],
            &["hunt", "--text", "evil", "--json"],
            &["files"],
            &["files", "--json"],
        ] {
            checked(&[verb, &["-r", file]].concat(), false);
        }
    }
    // The names are there, so that the checks above are of something.
    assert!(checked(&["hunt", "--text", "evil", "-r", dns.to_str().unwrap()], false).status.success());
    checked(&["get", "--text", "-r", http.to_str().unwrap()], true);
    // With control characters, a head is no HTTP: these are in names that are read.
    let readable: String = NAME.chars().filter(|c| !c.is_ascii_control()).collect();
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename=\"{readable}\"\r\nContent-Length: 5\r\n\r\nhello"
    );
    let request = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let http = crate::hunting::http(folder.path(), request, response.as_bytes(), 1000);
    let file = http.to_str().unwrap();
    for verb in [&["files"][..], &["files", "--json"], &["files", "-o", out.to_str().unwrap()]] {
        assert!(checked(&[verb, &["-r", file]].concat(), false).status.success(), "{verb:?}");
    }
    for entry in std::fs::read_dir(&out).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)), "{name:?}");
    }
    let manifest = std::fs::read_to_string(out.join("manifest.jsonl")).unwrap();
    assert!(!manifest.contains(is_deceptive), "{manifest:?}");
}

#[test]
fn security_14_3_names_of_processes_and_files_reach_no_sink_unchanged() {
    let quoted = serde_json::to_string(NAME).unwrap();
    let process = format!(
        "{{\"pid\":7,\"name\":{quoted},\"path\":{quoted},\"uid\":0,\"ppid\":1,\"start_ticks\":1,\"container\":{quoted},\
         \"pod\":{quoted},\"unit\":{quoted},\"source\":{quoted},\"certainty\":\"socket\",\"end\":\"originator\"}}"
    );
    let line = row(NAME);
    let line =
        format!("{},\"process\":{process},\"process_unknown\":{quoted}}}\n", line.trim_end().trim_end_matches('}'));
    // The last brace of a row closes it; the ones before belong to members.
    assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    for verb in [&["flows"][..], &["flows", "--csv"], &["flows", "--json"]] {
        let line = line.clone();
        let (_directory, socket) = hostile(move |out| std::io::Write::write_all(out, line.as_bytes()));
        checked(&[verb, &["--socket", socket.to_str().unwrap()]].concat(), true);
    }
    // Files whose names others chose: a capture that is no capture, and a file in a spool.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(NAME.replace('/', ""));
    std::fs::write(&file, "no capture").unwrap();
    for verb in ["get", "flows", "hunt", "files"] {
        let rule: &[&str] = if verb == "hunt" { &["--text", "x"] } else { &[] };
        checked(&[&[verb, "-r", file.to_str().unwrap()], rule].concat(), true);
    }
    checked(&["flows", "--spool", folder.path().to_str().unwrap()], false);
}
