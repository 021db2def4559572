//! `hunt --yara`, and the process in which `hunt` searches objects. The program yara is the real one.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::hunting::{Replaying, assert_confined, http, lines, retrocap, said, text};
use crate::machine;

/// Compresses with gzip.
fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn rules(folder: &Path, name: &str, rules: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, rules).unwrap();
    path
}

fn found(output: &std::process::Output) -> Vec<(String, String, bool)> {
    let mut found: Vec<_> = lines(output)
        .iter()
        .map(|one| {
            assert_eq!(one["kind"], "yara");
            let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
            (text("rule"), text("direction"), !one["file"].is_null())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn yara_rules_match_in_streams_and_in_decoded_objects() {
    let what = "yara_rules_match_in_streams_and_in_decoded_objects";
    if !machine::have(what, "yara") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let body = gzip(b"MZ and the word dropper in a compressed answer");
    let mut response =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(&body);
    let file = http(folder.path(), b"GET /beacon HTTP/1.1\r\nHost: a.example\r\n\r\n", &response, 7);
    let more = folder.path().join("rules");
    std::fs::create_dir_all(more.join("below")).unwrap();
    rules(&more, "one.yar", "rule beacon { strings: $a = \"GET /beacon\" condition: $a }");
    rules(
        &more.join("below"),
        "two.yara",
        "import \"hash\"\nrule dropper { strings: $a = \"dropper\" condition: uint16(0) == 0x5a4d and $a and filename == \"\" }\n\
         rule beacon { condition: false }",
    );
    let all = retrocap(&["hunt", "-r", text(&file), "--yara", text(&more), "--json"]);
    assert_eq!(all.status.code(), Some(0), "{}", said(&all));
    let owned = |rows: &[(&str, &str, bool)]| -> Vec<_> {
        rows.iter().map(|(rule, side, file)| ((*rule).to_owned(), (*side).to_owned(), *file)).collect()
    };
    let expected = [("beacon", "originator", false), ("dropper", "responder", true)];
    assert_eq!(found(&all), owned(&expected), "{}", said(&all));
    let one = &lines(&all).into_iter().find(|one| one["rule"] == "beacon").unwrap();
    assert_eq!((one["stream_offset"].as_u64(), one["length"].as_u64()), (Some(0), Some(11)));
    assert!(one["context_hex"].as_str().unwrap().starts_with("474554202f626561636f6e"), "{one}");
    for (place, rows) in [("stream", &expected[..1]), ("file", &expected[1..])] {
        let output = retrocap(&["hunt", "-r", text(&file), "--yara", text(&more), "--in", place, "--json"]);
        assert_eq!(found(&output), owned(rows), "{place}: {}", said(&output));
    }
    assert!(said(&all).contains("searched 1 object"), "{}", said(&all));
    let out = folder.path().join("seen.pcapng");
    let written = retrocap(&["hunt", "-r", text(&file), "--yara", text(&more), "--in", "file", "-w", text(&out)]);
    assert!(written.status.success(), "{}", said(&written));
    let (packets, all) = (crate::generate::read(&out).0.len(), crate::generate::read(&file).0.len());
    assert_eq!(packets, all, "the whole session, found in an object by another process");
}

#[test]
fn a_yara_rule_matches_once_where_windows_meet_and_in_a_recorder() {
    let what = "a_yara_rule_matches_once_where_windows_meet_and_in_a_recorder";
    if !machine::have(what, "yara") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The first word lies across the end of the first mebibyte, and the second in the part that both windows have.
    let mut body = vec![b'.'; 3 << 20];
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 3145728\r\n\r\n";
    for (at, word) in [((1 << 20) - 3, "needle-one"), ((1 << 20) - 1000, "needle-two"), (2_500_000, "needle-three")] {
        body[at - head.len()..at - head.len() + word.len()].copy_from_slice(word.as_bytes());
    }
    let file = http(folder.path(), b"GET / HTTP/1.1\r\n\r\n", &[head.as_bytes(), &body].concat(), 1400);
    let path = rules(
        folder.path(),
        "rules.yar",
        "rule one { strings: $a = \"needle-one\" condition: $a }\nrule two { strings: $a = \"needle-two\" condition: $a }\n\
         rule three { strings: $a = \"needle-three\" condition: $a }\nrule fourth { strings: $a = \"needle-four\" condition: $a }\n\
         rule both { strings: $a = \"needle-two\" $b = \"needle-one\" condition: all of them }",
    );
    let recorder = Replaying::start(&file, &["-m", "32MiB"]);
    for input in [["-r", text(&file)], ["--socket", &recorder.socket()]] {
        let output = retrocap(&[&["hunt"], &input[..], &["--yara", text(&path), "--in", "stream", "--json"]].concat());
        let mut places: Vec<_> = lines(&output)
            .iter()
            .map(|one| (one["stream_offset"].as_u64().unwrap(), one["rule"].as_str().unwrap().to_owned()))
            .collect();
        places.sort();
        // The first window ends within a string of `both`; the first string of the second window lies in the part of both.
        let expected = [
            ((1 << 20) - 1000, "both".to_owned()),
            ((1 << 20) - 1000, "two".to_owned()),
            ((1 << 20) - 3, "one".to_owned()),
            (2_500_000, "three".to_owned()),
        ];
        assert_eq!(places, expected, "{input:?}: {}", said(&output));
    }
}

#[test]
fn a_recorder_leaves_out_no_object_in_which_a_rule_matches() {
    let what = "a_recorder_leaves_out_no_object_in_which_a_rule_matches";
    if !machine::have(what, "yara") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = rules(
        folder.path(),
        "rules.yar",
        "rule dropper { strings: $a = \"dropper\" condition: $a and uint16(0) == 0x5a4d }\n\
         rule nowhere { strings: $a = \"cannot be found\" condition: $a }",
    );
    let content = b"MZ and the word dropper in an answer";
    let zipped = gzip(content);
    let head = |more: &str, len: usize| format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {len}\r\n\r\n").into_bytes();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\nMZ and the word drop\r\n10\r\nper in an answer\r\n0\r\n\r\n";
    for (name, response, rows) in [
        ("plain", [head("", content.len()), content.to_vec()].concat(), 1),
        ("coded", [head("content-ENCODING: gzip\r\n", zipped.len()), zipped.clone()].concat(), 1),
        ("archive", [head("", zipped.len()), zipped].concat(), 1),
        ("chunked", chunked.to_vec(), 1),
        ("other", [head("", 5), b"hello".to_vec()].concat(), 0),
    ] {
        let file = http(folder.path(), b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", &response, 17);
        let recorder = Replaying::start(&file, &["-m", "16MiB"]);
        for input in [["-r", text(&file)], ["--socket", &recorder.socket()]] {
            for place in [&["--in", "file"][..], &[]] {
                let output = retrocap(&[&["hunt"], &input[..], &["--yara", text(&path), "--json"], place].concat());
                let of_files = lines(&output).iter().filter(|one| !one["file"].is_null()).count();
                assert_eq!(of_files, rows, "{name} {input:?} {place:?}: {}", said(&output));
                if name == "other" && input[0] == "--socket" {
                    assert!(said(&output).contains("left out sessions"), "{}", said(&output));
                }
            }
        }
    }
}

#[test]
fn yara_that_is_missing_and_rules_that_are_wrong_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = http(folder.path(), b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", 1000);
    let broken = rules(folder.path(), "broken.yar", "rule broken { strings: $a = \"x\" condition: $b }");
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrocap"));
    command.args(["hunt", "-r", text(&file), "--yara", text(&broken)]).env("PATH", folder.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("install the package yara"), "{}", said(&output));
    if !machine::have("yara_that_is_missing_and_rules_that_are_wrong_are_named", "yara") {
        return;
    }
    for (path, word) in [
        (text(&broken), "undefined string"),
        (text(folder.path()), "undefined string"),
        ("/nowhere/at-all", "/nowhere/at-all"),
    ] {
        let output = retrocap(&["hunt", "-r", text(&file), "--yara", path]);
        assert!(!output.status.success());
        assert!(said(&output).contains(word), "{path}: {}", said(&output));
    }
}

#[test]
fn yara_goes_on_with_new_packets_and_says_where_a_rule_may_be_wrong() {
    let what = "yara_goes_on_with_new_packets_and_says_where_a_rule_may_be_wrong";
    if !machine::have(what, "yara") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = rules(folder.path(), "rules.yar", "rule needle { strings: $a = \"needle\" condition: $a }");
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let file = http(folder.path(), b"GET / HTTP/1.1\r\n\r\n", &[head.as_bytes(), b"a needle"].concat(), 1000);
    let recorder = Replaying::start(&file, &["-m", "16MiB"]);
    // The session is still open, and its window far from full.
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_retrocap"), "hunt", "--socket", &recorder.socket(), "--follow"]);
    let output = command.args(["--yara", text(&path), "--in", "stream", "--limit", "1", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(found(&output), [("needle".to_owned(), "responder".to_owned(), false)]);

    // More than a million places of one string.
    let body = b"ab".repeat(1_050_000);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let file = http(folder.path(), b"GET / HTTP/1.1\r\n\r\n", &[head.as_bytes(), &body].concat(), 1400);
    let path = rules(folder.path(), "many.yar", "rule many { strings: $a = \"aba\" condition: $a }");
    let output = retrocap(&["hunt", "-r", text(&file), "--yara", text(&path), "--in", "file", "--json"]);
    assert_eq!(found(&output), [("many".to_owned(), "responder".to_owned(), true)], "{}", said(&output));
    assert!(said(&output).contains("yara warned 1 time that a string occurs too often"), "{}", said(&output));
}

#[test]
fn archives_are_unpacked_and_searched() {
    let folder = tempfile::tempdir().unwrap();
    let body = gzip(&gzip(b"a needle in two layers"));
    let mut response =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\nContent-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    response.extend_from_slice(&body);
    let file = http(folder.path(), b"GET /a.txt.gz HTTP/1.1\r\nHost: a.example\r\n\r\n", &response, 1000);
    let objects = lines(&retrocap(&["files", "-r", text(&file), "--json"]));
    let parts: Vec<_> = objects.iter().map(|one| (one["number"].as_u64().unwrap(), one["part_of"].as_u64())).collect();
    assert_eq!(parts, [(1, None), (2, Some(1)), (3, Some(2))]);
    assert_eq!((objects[2]["name"].as_str(), objects[2]["size"].as_u64()), (Some("a.txt"), Some(22)));
    let found = retrocap(&["hunt", "-r", text(&file), "--text", "needle", "--in", "file", "--json"]);
    let found = lines(&found);
    assert_eq!((found.len(), found[0]["file"]["sha256"].as_str()), (1, objects[2]["sha256"].as_str()));
    let in_stream = retrocap(&["hunt", "-r", text(&file), "--text", "needle"]);
    assert_eq!(in_stream.status.code(), Some(1), "on the wire, it is compressed");
    assert_eq!(objects[0]["unpacked"], true);
    // An archive whose part cannot be read is complete itself, and says what was not unpacked.
    let broken = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 40]].concat();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", broken.len());
    let file = http(folder.path(), b"GET /b.gz HTTP/1.1\r\n\r\n", &[head.as_bytes(), &broken].concat(), 1000);
    let objects = lines(&retrocap(&["files", "-r", text(&file), "--json"]));
    assert_eq!((objects.len(), &objects[0]["complete"], &objects[0]["unpacked"]), (1, &true.into(), &false.into()));
    assert!(objects[0]["notes"][0].as_str().unwrap().contains("cannot be unpacked"), "{}", objects[0]);
    let output = retrocap(&["hunt", "-r", text(&file), "--text", "nowhere", "--in", "file"]);
    assert!(said(&output).contains("1 of them incomplete"), "{}", said(&output));
}

#[test]
fn matches_are_sorted_if_asked() {
    let Some(file) = machine::capture("matches_are_sorted_if_asked", "http-files.pcap") else { return };
    let hunt = |more: &[&str]| {
        let output = retrocap(&[&["hunt", "-r", text(&file), "--text", "HTTP/1.1", "--json"], more].concat());
        assert!(output.status.success(), "{}", said(&output));
        lines(&output).iter().map(|one| one["time"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (mut found, sorted) = (hunt(&[]), hunt(&["--sort"]));
    assert!(sorted.len() > 10 && sorted.is_sorted(), "{sorted:?}");
    found.sort();
    assert_eq!(found, sorted);
}

#[test]
fn contents_are_searched_in_a_confined_process() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrocap"));
    command.arg("search-objects").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    assert_confined(&child);
    drop(child.stdin.take());
    assert!(!child.wait().unwrap().success(), "there was no question");
}
