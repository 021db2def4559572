//! A second attempt at a client, with other tools than those of `hostile_recorder`: framing of HTTP, documents that are
//! large or deep, other escape sequences, and other starts of formulas.

use std::io::Write;

use serde_json::Value;

use crate::cli::{reply, run};
use crate::hostile_recorder::{RESIDENT_KIB_MAX, hostile, hostile_from_the_start, peak, row, without_end};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n";
const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\ntrailer: retrocap-note\r\n\r\n";

/// Writes `before`, then `piece` until the client has enough.
fn endless(out: &mut dyn Write, before: &[&[u8]], piece: &[u8]) -> std::io::Result<()> {
    before.iter().try_for_each(|part| out.write_all(part))?;
    without_end(out, piece)
}

/// Whatever part of an answer has no end: the client gives up, and its memory stays small.
#[test]
fn security_14_5_no_part_of_http_is_read_without_end() {
    let line = row("n").into_bytes();
    let chunk = [format!("{:x}\r\n", line.len()).as_bytes(), &line, b"\r\n"].concat();
    type Parts = (&'static str, Vec<Vec<u8>>, Vec<u8>);
    let cases: Vec<Parts> = vec![
        ("a status line", vec![b"HTTP/1.1 200 ".to_vec()], b"K".repeat(1 << 16)),
        ("headers", vec![HEAD.to_vec()], b"x-more: 1\r\n".repeat(4096)),
        ("a header", vec![HEAD.to_vec(), b"x-long: ".to_vec()], b"v".repeat(1 << 16)),
        ("interim answers", vec![], b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(1024)),
        ("a chunk extension", vec![HEAD.to_vec(), CHUNKED.to_vec(), b"5;".to_vec()], b"e=".repeat(1 << 15)),
        (
            "chunk extensions",
            vec![HEAD.to_vec(), CHUNKED.to_vec()],
            [format!("{:x};{}\r\n", line.len(), "e".repeat(1000)).as_bytes(), &line, b"\r\n"].concat().repeat(64),
        ),
        ("a chunk size", vec![HEAD.to_vec(), CHUNKED.to_vec()], b"0".repeat(1 << 16)),
        (
            "trailers",
            vec![HEAD.to_vec(), CHUNKED.to_vec(), chunk.clone(), b"0\r\n".to_vec()],
            b"x-more: 1\r\n".repeat(4096),
        ),
        (
            "a trailer",
            vec![HEAD.to_vec(), CHUNKED.to_vec(), chunk, b"0\r\nretrocap-note: ".to_vec()],
            b"n".repeat(1 << 16),
        ),
    ];
    for (what, before, piece) in cases {
        for verb in ["flows", "status"] {
            let (before, piece) = (before.clone(), piece.clone());
            let (_directory, socket) = hostile_from_the_start(move |out| {
                endless(out, &before.iter().map(Vec::as_slice).collect::<Vec<_>>(), &piece)
            });
            let (code, stderr, peak_kib) = peak(&socket, &[verb]);
            eprintln!("{what}: {verb} took {peak_kib} KiB, exit {code}");
            assert!(peak_kib < RESIDENT_KIB_MAX, "{what}: {verb} took {peak_kib} KiB: {stderr}");
            assert!(code == 1 && !stderr.is_empty(), "{what}: {verb}: {code}: {stderr}");
        }
    }
}

/// Documents that are too large or too deep are refused, and never fill memory or the stack.
#[test]
fn security_14_5_large_and_deep_documents_are_refused() {
    let status = include_str!("../../crates/retrocap/src/terminal/testdata/status.json");
    let with = |more: &str| {
        let end = status.rfind('}').unwrap();
        format!("{}, {more}{}", &status[..end], &status[end..])
    };
    let gaps = "{\"interface\":\"e\",\"index\":1,\"from\":\"x\",\"until\":null,\"reason\":\"down\"},".repeat(300_000);
    let documents = [
        ("deep arrays", with(&format!("\"more\": {}", "[".repeat(4_000_000)))),
        ("deep objects", with(&format!("\"more\": {}", "{\"a\":".repeat(1_000_000)))),
        ("a long text", with(&format!("\"more\": \"{}\"", "x".repeat(64 << 20)))),
        ("many gaps", with(&format!("\"interface_gaps\": [{}{{}}]", gaps))),
        ("numbers", with(&format!("\"more\": [{}0]", "1e999,".repeat(3_000_000)))),
        ("a number", with(&format!("\"more\": {}", "9".repeat(20 << 20)))),
    ];
    for (what, document) in documents {
        for arguments in [&["status"][..], &["interfaces", "--gone"]] {
            let document = document.clone();
            let (_directory, socket) = hostile(move |out| out.write_all(document.as_bytes()));
            let (code, stderr, peak_kib) = peak(&socket, arguments);
            eprintln!("{what}: {arguments:?} took {peak_kib} KiB, exit {code}");
            assert!(peak_kib < RESIDENT_KIB_MAX, "{what}: {arguments:?} took {peak_kib} KiB");
            assert_eq!(code, 1, "{what}: {arguments:?}: {stderr}");
        }
    }
}

/// Sequences that terminals act on, and characters that change how text is read.
const SEQUENCES: [&str; 16] = [
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;title\x07",
    "\x1bP$q\"p\x1b\\",
    "\x1b_G=1\x1b\\",
    "\x1b^private\x1b\\",
    "\x1bX string\x1b\\",
    "\x1b[6n\x1b[c",
    "\u{9d}8;;https://evil.example\u{9c}",
    "\u{90}q\u{9c}",
    "\u{8d}\u{84}\u{9b}2J",
    "\u{2066}\u{2067}\u{2068}\u{2069}",
    "\u{e0001}\u{e0065}\u{e007f}",
    "\r\x08\x0b\x0c",
    "\u{fff9}a\u{fffa}b\u{fffb}",
    "\u{2029}\u{2060}\u{180e}\u{3164}",
];

fn is_control(c: char) -> bool {
    let invisible = [
        '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{fff9}', '\u{fffa}', '\u{fffb}', '\u{2029}', '\u{2060}',
        '\u{180e}', '\u{3164}',
    ];
    (c.is_control() && c != '\n') || invisible.contains(&c) || ('\u{e0000}'..='\u{e007f}').contains(&c)
}

#[test]
fn security_14_3_other_sequences_reach_no_terminal() {
    let name = SEQUENCES.concat();
    let session = row(&name);
    let quoted = serde_json::to_string(&name).unwrap();
    let sum = format!(
        "{{\"host\":{quoted},\"peer\":{quoted},\"sessions\":1,\"bytes\":{{\"out\":1,\"in\":1}},\"packets\":{{\"out\":1,\"in\":1}},\
         \"first\":{quoted},\"last\":{quoted}}}\n"
    );
    let pins = format!(
        "{{\"used_bytes\":0,\"limit_bytes\":0,\"pins\":[{{\"id\":1,\"filter\":{quoted},\"since\":{quoted},\"until\":{quoted},\
         \"sessions\":0,\"kept_packets\":0,\"kept_bytes\":0,\"pinned_bytes\":0,\"refused_packets\":0}}]}}"
    );
    // Every text of a status.
    let mut status: Value =
        serde_json::from_str(include_str!("../../crates/retrocap/src/terminal/testdata/status.json")).unwrap();
    replace_texts(&mut status, &name);
    status["interface_gaps"] = serde_json::json!([
        {"interface": name, "index": 1, "from": name, "until": name, "reason": name, "renamed_to": name}
    ]);
    status["interface_gaps_total"] = 1.into();
    status["input"] = serde_json::json!({"times_changed": 0, "annotations": {}, "left_out": {name.as_str(): 1}});
    let gone = &mut status["interfaces"][0]["gone"];
    *gone = name.clone().into();
    let status = status.to_string();
    for (answer, arguments) in [
        (&session, &["flows"][..]),
        (&session, &["flows", "--csv"]),
        (&session, &["flows", "--json"]),
        (&sum, &["flows", "--by", "peer"]),
        (&sum, &["flows", "--by", "peer", "--csv"]),
        (&pins, &["pin", "--list"]),
        (&status, &["status"]),
        (&status, &["status", "--json"]),
        (&status, &["interfaces", "--gone"]),
        (&status, &["interfaces", "--gone", "--json"]),
    ] {
        let answer = answer.clone();
        let (_directory, socket) = hostile(move |out| out.write_all(answer.as_bytes()));
        let (code, stdout, stderr) = reply(&run(&[arguments, &["--socket", socket.to_str().unwrap()]].concat()));
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        let text = stdout.replace("\r\n", "\n");
        assert!(stdout.contains("evil.example") && !text.contains(is_control), "{arguments:?}: {text:?}");
        assert!(!stderr.contains(is_control), "{arguments:?}: {stderr:?}");
    }
}

/// Replaces every text in a document.
fn replace_texts(value: &mut Value, text: &str) {
    match value {
        Value::String(old) => text.clone_into(old),
        Value::Array(values) => values.iter_mut().for_each(|value| replace_texts(value, text)),
        Value::Object(values) => values.values_mut().for_each(|value| replace_texts(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A problem document and trailers go to stderr, which is a terminal too.
#[test]
fn security_14_3_other_sequences_reach_no_terminal_with_a_refusal() {
    let name = SEQUENCES.concat();
    let problem = serde_json::json!({"title": name, "detail": name, "cause": name}).to_string();
    let head = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n", problem.len());
    for arguments in [&["get", "--text"][..], &["flows"], &["status"], &["pin", "--list"], &["interfaces", "--gone"]] {
        let answer = format!("{head}{problem}");
        let (_directory, socket) = hostile_from_the_start(move |out| out.write_all(answer.as_bytes()));
        let (code, stdout, stderr) = reply(&run(&[arguments, &["--socket", socket.to_str().unwrap()]].concat()));
        assert_ne!(code, 0, "{arguments:?}");
        assert!(stderr.contains("evil.example"), "{arguments:?}: {stderr}");
        assert!(!stdout.contains(is_control) && !stderr.contains(is_control), "{arguments:?}: {stderr:?}");
    }
    let note = b"retrocap-flows: 1\r\nretrocap-note: see \xc2\x9b2J \xe2\x81\xa6 evil.example\r\n\r\n";
    let answer = [HEAD, CHUNKED, b"0\r\n", note].concat();
    let (_directory, socket) = hostile_from_the_start(move |out| out.write_all(&answer));
    let (_, stdout, stderr) = reply(&run(&["flows", "--socket", socket.to_str().unwrap()]));
    assert!(!stdout.contains(is_control) && !stderr.contains(is_control), "{stderr:?}");
}

/// What spreadsheets evaluate, or skip before they look for a formula.
#[test]
fn security_14_4_other_starts_of_formulas_are_text() {
    let starts = [
        "=",
        "+",
        "-",
        "@",
        "\t=",
        "\r=",
        "\n=",
        "\u{b}=",
        " =",
        "\u{a0}=",
        "\u{2003}=",
        "\u{3000}=",
        "\"=",
        "'=",
        "''=",
        "\u{ff1d}",
        "\u{ff0b}",
        "\u{ff0d}",
        "\u{ff20}",
        "\u{feff}=",
        "\u{200b}=",
        "a,=",
        "a;=",
        "a|=",
        "a\t=",
        "a\r\n=",
        "a\",=",
        "a\";=",
        "\u{fe66}",
        "\u{207a}",
        "\u{2212}",
        "%=",
        "\0=",
    ];
    for start in starts {
        let text = format!("{start}cmd|'/c calc'!A1");
        let line = row(&text);
        let (_directory, socket) = hostile(move |out| out.write_all(line.as_bytes()));
        let (code, stdout, stderr) = reply(&run(&["flows", "--csv", "--socket", socket.to_str().unwrap()]));
        assert_eq!(code, 0, "{stderr}");
        let record = stdout.split_once("\r\n").unwrap().1;
        for separator in [',', ';', '\t', '|'] {
            for cell in cells(record, separator) {
                // What a spreadsheet sees after it has skipped blanks.
                let seen = cell.trim_start_matches(|c: char| c.is_whitespace() || "\"\u{fffd}".contains(c));
                let formula =
                    seen.starts_with(|c| "=+-@\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}\u{fe66}\u{207a}\u{2212}".contains(c));
                assert!(!formula, "{text:?} in a table split at {separator:?}: {cell:?}");
            }
        }
    }
}

/// The cells of a line for a spreadsheet that splits at `separator`, also within quotes that it does not know.
fn cells(record: &str, separator: char) -> Vec<String> {
    record.trim_end().split(separator).map(str::to_owned).collect()
}
