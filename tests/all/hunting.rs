//! `hunt` and `files`: what is found in captures and in a recorder, and what is said about the rest.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::machine;

fn retrocap(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrocap"));
    command.args(arguments).env_remove("RETROCAP_SOCKET").env("TZ", "UTC").output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A capture of one HTTP session between 10.0.0.1 and 192.0.2.7, each part in packets of `piece` bytes.
fn http(folder: &Path, request: &[u8], response: &[u8], piece: usize) -> std::path::PathBuf {
    let mut file = crate::generate::header();
    let mut sequence = [1u32, 1];
    let mut add = |from: usize, flags: u8, payload: &[u8], sequence: &mut [u32; 2]| {
        let length = u32::try_from(54 + payload.len()).unwrap();
        let seconds = u32::try_from(crate::generate::START_S).unwrap();
        for field in [seconds, sequence[0] + sequence[1], length, length] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
        file.extend_from_slice(&u16::try_from(length - 14).unwrap().to_be_bytes());
        file.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        let (ends, ports) = ([[10, 0, 0, 1], [192, 0, 2, 7]], [[0x9c, 0x40], [0x1f, 0x90]]);
        for part in [&ends[from][..], &ends[1 - from], &ports[from], &ports[1 - from]] {
            file.extend_from_slice(part);
        }
        file.extend_from_slice(&sequence[from].to_be_bytes());
        file.extend_from_slice(&sequence[1 - from].to_be_bytes());
        file.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        file.extend_from_slice(payload);
        sequence[from] += u32::try_from(payload.len()).unwrap() + u32::from(flags & 2 != 0);
    };
    add(0, 2, b"", &mut sequence);
    add(1, 0x12, b"", &mut sequence);
    for (from, bytes) in [(0, request), (1, response)] {
        bytes.chunks(piece).for_each(|part| add(from, 0x18, part, &mut sequence));
    }
    let path = folder.join("http.pcap");
    std::fs::File::create(&path).unwrap().write_all(&file).unwrap();
    path
}

#[test]
fn heartbleed_is_named_as_attempt_and_success_and_nothing_else_is() {
    let what = "heartbleed_is_named";
    for (name, stages) in [("heartbleed.pcap", &["attempt", "success"][..]), ("heartbleed-attempt.pcap", &["attempt"])]
    {
        let Some(file) = machine::capture(what, name) else { return };
        let output = retrocap(&["hunt", "-r", text(&file), "--attack", "heartbleed", "--json"]);
        assert!(output.status.success(), "{}", said(&output));
        let found = lines(&output);
        let found_stages: Vec<_> = found.iter().map(|one| one["stage"].as_str().unwrap()).collect();
        assert_eq!(found_stages, stages, "{name}");
        for one in &found {
            assert_eq!((one["rule"].as_str(), one["kind"].as_str()), (Some("heartbleed"), Some("attack")));
            assert!(one["packet"]["sequence"].as_u64().unwrap() > 0 && one["flow"]["responder"]["port"] == 443);
        }
    }
    let Some(file) = machine::capture(what, "mixed-lan.pcap") else { return };
    let output = retrocap(&["hunt", "-r", text(&file), "--attack", "heartbleed"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nothing matched in the bytes that could be searched"), "{}", said(&output));
}

#[test]
fn a_match_across_packets_has_its_place_and_the_session_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = http(
        folder.path(),
        b"GET /secret HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        7,
    );
    let out = folder.path().join("found.pcapng");
    let output = retrocap(&["hunt", "-r", text(&file), "--text", "/secret", "--json", "-w", text(&out)]);
    assert!(output.status.success(), "{}", said(&output));
    let found = lines(&output);
    assert_eq!(found.len(), 1);
    let one = &found[0];
    assert_eq!((one["stream_offset"].as_u64(), one["length"].as_u64()), (Some(4), Some(7)));
    assert_eq!((one["direction"].as_str(), one["packet"]["sequence"].as_u64()), (Some("originator"), Some(3)));
    assert_eq!((one["gap_before"].as_bool(), one["file"].is_null()), (Some(false), true));
    assert!(one["context_hex"].as_str().unwrap().contains("2f736563726574"));
    let written = crate::generate::read(&out).0.len();
    assert_eq!(written, crate::generate::read(&file).0.len());
    for (rule, pattern, code) in
        [("--text", "nowhere", 1), ("--regex", "s.cr(e|x)t", 0), ("--bytes", "2f 73 65", 0), ("--regex", "(", 2)]
    {
        let output = retrocap(&["hunt", "-r", text(&file), rule, pattern]);
        assert_eq!(output.status.code(), Some(code), "{rule} {pattern}: {}", said(&output));
    }
    let payload = retrocap(&["hunt", "-r", text(&file), "--text", "/secret", "--in", "payload"]);
    assert_eq!(payload.status.code(), Some(1), "it is in no packet alone");
    let in_file = retrocap(&["hunt", "-r", text(&file), "--text", "hello", "--in", "file", "--json"]);
    assert_eq!(lines(&in_file)[0]["file"]["size"], 5);
}

#[test]
fn indicators_are_addresses_names_and_hashes() {
    let folder = tempfile::tempdir().unwrap();
    let file = http(
        folder.path(),
        b"GET /x HTTP/1.1\r\nHost: www.evil.example\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        1000,
    );
    let list = folder.path().join("list.txt");
    std::fs::write(
        &list,
        "192.0.2.0/24,net\nevil[.]example\n5d41402abc4b2a76b9719d911017c592 # md5 of hello\nnot an indicator!\n",
    )
    .unwrap();
    let output = retrocap(&["hunt", "-r", text(&file), "--ioc", text(&list), "--json"]);
    let mut rules: Vec<_> = lines(&output).iter().map(|one| one["rule"].as_str().unwrap().to_owned()).collect();
    rules.sort();
    assert_eq!(rules, ["192.0.2.0/24", "5d41402abc4b2a76b9719d911017c592", "evil.example"]);
    assert!(said(&output).contains("list.txt line 4"), "{}", said(&output));
}

#[test]
fn rules_are_checked_on_their_own_cases() {
    let folder = tempfile::tempdir().unwrap();
    let rule = folder.path().join("rule.toml");
    let text_of = |matches: &str| {
        format!(
            "name = 'x'\ntitle = 'x'\nreference = ['y']\n[[match]]\ntext = 'abc'\n[[case]]\nname = 'with'\nmatches = true\nport = 9\nsay = [{{from = 'originator', text = '{matches}'}}]\n[[case]]\nname = 'without'\nmatches = false\nport = 9\nsay = [{{from = 'originator', text = 'xyz'}}]\n"
        )
    };
    std::fs::write(&rule, text_of("..abc..")).unwrap();
    let output = retrocap(&["hunt", "--check", text(&rule)]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x: 2 test conversations passed\n", "{}", said(&output));
    std::fs::write(&rule, text_of("nothing")).unwrap();
    let output = retrocap(&["hunt", "--check", text(&rule)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("case \"with\" is not found"), "{}", said(&output));
    let list = retrocap(&["hunt", "--attack", "list", "--json"]);
    assert!(lines(&list).len() >= 9);
}

#[test]
fn objects_are_listed_and_written_under_safe_names() {
    let folder = tempfile::tempdir().unwrap();
    let response = b"HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename=\"../../etc/passwd\"\r\nContent-Type: image/png\r\nContent-Length: 5\r\n\r\nhello";
    let file = http(folder.path(), b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", response, 10);
    let out = folder.path().join("out");
    let output = retrocap(&["files", "-r", text(&file), "-o", text(&out), "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let one = lines(&output).remove(0);
    assert_eq!((one["mime"].as_str(), one["mime_declared"].as_str()), (Some("text/plain"), Some("image/png")));
    assert_eq!(
        (one["size"].as_u64(), one["complete"].as_bool(), one["missing_bytes"].as_u64()),
        (Some(5), Some(true), Some(0))
    );
    assert_eq!(one["md5"], "5d41402abc4b2a76b9719d911017c592");
    let names: Vec<_> =
        std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(
        names.contains(&"manifest.jsonl".to_owned()) && names.contains(&"00001-2cf24dba5fb0.bin".to_owned()),
        "{names:?}"
    );
    let path = one["path"].as_str().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"hello");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = retrocap(&["files", "-r", text(&file), "-o", text(&out)]);
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten");
    assert!(said(&again).contains("which is not overwritten"), "{}", said(&again));
    let hash = one["sha256"].as_str().unwrap();
    assert!(retrocap(&["files", "-r", text(&file), "--sha256", hash]).status.success());
    assert_eq!(retrocap(&["files", "-r", text(&file), "--kind", "smtp"]).status.code(), Some(1));
}

#[test]
fn an_object_with_a_hole_is_partial() {
    let folder = tempfile::tempdir().unwrap();
    let file = http(
        folder.path(),
        b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nonly the beginning",
        1000,
    );
    let out = folder.path().join("out");
    let output = retrocap(&["files", "-r", text(&file), "-o", text(&out), "--json"]);
    let one = lines(&output).remove(0);
    assert_eq!((one["complete"].as_bool(), one["missing_bytes"].as_u64()), (Some(false), Some(12)));
    assert_eq!(one["holes"][0]["offset"], 18);
    assert!(one["path"].as_str().unwrap().ends_with(".partial"));
}

#[test]
fn a_file_that_is_no_capture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("odd.pcap");
    std::fs::write(&file, "this is no capture").unwrap();
    for verb in [&["hunt", "--text", "x"][..], &["files"]] {
        let output = retrocap(&[verb, &["-r", text(&file)]].concat());
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    }
    let output = retrocap(&["hunt", "-r", text(&file)]);
    assert_eq!(output.status.code(), Some(2), "nothing to look for");
}
