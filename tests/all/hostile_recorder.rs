//! A recorder that was taken over: whatever it answers, the client's memory stays small, its terminal is left alone, and
//! it does not wait forever.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::cli::{reply, retrocap, run};

/// Resident memory that a client may take at its peak.
pub(crate) const RESIDENT_KIB_MAX: u64 = 128 << 10;
/// Bytes that the recorder sends at most, if it is let.
const SENT_BYTES_MAX: u64 = 3 << 30;

/// Listens in a directory of its own, and answers every request with what `body` writes.
pub(crate) fn hostile(
    body: impl Fn(&mut dyn Write) -> std::io::Result<()> + Send + 'static,
) -> (tempfile::TempDir, PathBuf) {
    hostile_from_the_start(move |out| {
        out.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        body(out)
    })
}

/// As [`hostile`], but `answer` also writes the head of the answer.
pub(crate) fn hostile_from_the_start(
    answer: impl Fn(&mut dyn Write) -> std::io::Result<()> + Send + 'static,
) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if request(&stream).is_none() {
                continue;
            }
            // A client that has seen enough closes the connection.
            let _ = answer(&mut stream);
        }
    });
    (directory, path)
}

/// Reads a request and its body.
fn request(stream: &UnixStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()
}

/// Writes `piece` over and over.
pub(crate) fn without_end(out: &mut dyn Write, piece: &[u8]) -> std::io::Result<()> {
    for _ in 0..SENT_BYTES_MAX / piece.len() as u64 {
        out.write_all(piece)?;
    }
    Ok(())
}

/// Runs a client to its end: its exit code, what it says on stderr, and the most memory it held, in KiB.
pub(crate) fn peak(socket: &Path, arguments: &[&str]) -> (i32, String, u64) {
    let mut child = retrocap()
        .args(arguments)
        .args(["--timeout", "20s", "--socket"])
        .arg(socket)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let exit = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()) {
            peak_kib = peak_kib.max(kib);
        }
        // One that grows is stopped, so that the test harms nobody.
        if peak_kib > 4 * RESIDENT_KIB_MAX {
            child.kill().unwrap();
        }
        match child.try_wait().unwrap() {
            Some(exit) => break exit,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (exit.code().unwrap_or(-1), stderr, peak_kib)
}

pub(crate) fn row(name: &str) -> String {
    format!(
        "{{\"first\":\"2026-11-22T10:00:00Z\",\"last\":\"2026-11-22T10:00:01Z\",\"proto\":\"tcp\",\"originator\":\
         {{\"ip\":\"10.0.0.1\",\"port\":1}},\"responder\":{{\"ip\":\"10.0.0.2\",\"port\":80}},\"interface\":{0},\
         \"packets\":{{\"originator\":1,\"responder\":0}},\"bytes\":{{\"originator\":60,\"responder\":0}},\"kept_bytes\":60,\
         \"kept_packets\":1,\"state\":{0},\"community_id\":null,\"vlan\":null,\"http_host\":{0}}}\n",
        serde_json::to_string(name).unwrap()
    )
}

fn alerts(directory: &Path, count: usize) -> String {
    let path = directory.join("eve.json");
    let line = "{\"event_type\":\"alert\",\"timestamp\":\"2026-11-22T10:00:00Z\",\"src_ip\":\"10.0.0.1\",\"src_port\":1,\
                \"dest_ip\":\"10.0.0.2\",\"dest_port\":80,\"proto\":\"TCP\"}\n";
    std::fs::write(&path, line.repeat(count)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn security_14_5_no_answer_grows_the_clients_memory() {
    let long_row = row(&"n".repeat(18 << 10));
    let row_without_end = b"x".repeat(1 << 20);
    let interfaces = {
        let interface = "{\"name\":\"e\",\"index\":1,\"link_type\":\"EN10MB\",\"packets\":1,\"bytes\":1,\"up\":true},";
        format!("{{\"interfaces\":[{}", interface.repeat(10_000))
    };
    let cases: [(&str, &[&str], Vec<u8>); 6] = [
        ("long rows", &["flows"], long_row.clone().into_bytes()),
        ("long rows", &["flows", "--csv"], long_row.clone().into_bytes()),
        ("long rows", &["flows", "--json"], long_row.into_bytes()),
        ("a row without end", &["flows"], row_without_end.clone()),
        ("a status without end", &["status"], interfaces.into_bytes()),
        ("a document without end", &["pin", "--list"], row_without_end),
    ];
    for (what, arguments, piece) in cases {
        let (_directory, socket) = hostile(move |out| without_end(out, &piece));
        let (code, stderr, peak_kib) = peak(&socket, arguments);
        eprintln!("{what}: {arguments:?} took {peak_kib} KiB, exit {code}");
        assert!(peak_kib < RESIDENT_KIB_MAX, "{what}: {arguments:?} took {peak_kib} KiB: {stderr}");
        assert!(code == 1 || what == "long rows", "{what}: {arguments:?}: {code}: {stderr}");
    }
}

#[test]
fn security_14_5_what_is_said_about_alerts_has_a_limit_in_total() {
    let folder = tempfile::tempdir().unwrap();
    let eve = alerts(folder.path(), 300);
    let split = folder.path().join("split");
    for arguments in
        [&["get", "--alert", &eve, "--split", split.to_str().unwrap()][..], &["get", "--alert", &eve, "-w", "-"]]
    {
        for missing in
            [format!("\"{}\"", "d".repeat(3 << 20)), format!("\"x\",\"more\":[{}0]", "[[]],".repeat(500_000))]
        {
            let (_directory, socket) = hostile(move |out| {
                for selection in 0..300 {
                    let missing = format!("{{\"cause\":\"cut\",\"detail\":{missing}}}");
                    let line = format!(
                        "{{\"selection\":{selection},\"packets\":0,\"bytes\":0,\"sessions\":0,\"missing\":{missing}}}\n"
                    );
                    out.write_all(line.as_bytes())?;
                }
                out.write_all(b"{\"done\":true}\n")
            });
            let (code, stderr, peak_kib) = peak(&socket, arguments);
            eprintln!("{arguments:?} took {peak_kib} KiB");
            assert!(peak_kib < RESIDENT_KIB_MAX, "{arguments:?} took {peak_kib} KiB");
            assert!(code == 1 && stderr.contains("300 alerts"), "{code}: {}", &stderr[..stderr.len().min(500)]);
        }
    }
}

#[test]
fn security_14_5_a_recorder_that_stops_sending_is_not_waited_for() {
    let (_directory, silent) = hostile(|_| {
        std::thread::sleep(Duration::from_secs(600));
        Ok(())
    });
    let (_directory, trickling) = hostile(|out| {
        loop {
            out.write_all(b"\n")?;
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    for socket in [silent, trickling] {
        for verb in ["flows", "status"] {
            let (code, stdout, stderr) = reply(&run(&[verb, "--timeout", "1s", "--socket", socket.to_str().unwrap()]));
            assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
            assert!(stderr.contains("timed out"), "{verb}: {stderr}");
        }
    }
}

/// What nothing may print: escapes, C1, bidirectional, zero-width and tag characters, line separators.
const DECEPTIVE: &str =
    "\x1b[31m\u{9b}2J\u{85}\u{202e}\u{2066}\u{200e}\u{200b}\u{61c}\u{2028}\u{feff}\u{e0041}\x7f\x07";

fn is_deceptive(c: char) -> bool {
    DECEPTIVE.contains(c) && !"[31mJ2".contains(c)
}

#[test]
fn security_14_3_nothing_a_recorder_says_moves_the_cursor() {
    let line = row(DECEPTIVE);
    let problem = serde_json::json!({"detail": format!("no{DECEPTIVE}"), "cause": "never_seen"}).to_string();
    for arguments in [&["flows"][..], &["flows", "--csv"], &["flows", "--json"]] {
        let line = line.clone();
        let (_directory, socket) = hostile(move |out| out.write_all(line.as_bytes()));
        let output = run(&[arguments, &["--socket", socket.to_str().unwrap()]].concat());
        let (code, stdout, stderr) = reply(&output);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("10.0.0.1"), "{stdout}");
        for text in [&stdout, &stderr] {
            assert!(!text.contains(is_deceptive), "{arguments:?}: {text:?}");
        }
        if arguments.contains(&"--json") {
            let row: serde_json::Value = serde_json::from_str(&stdout).unwrap();
            assert_eq!(row["http_host"], DECEPTIVE, "JSON keeps the value");
        }
    }
    let (_directory, socket) = hostile(move |out| out.write_all(problem.as_bytes()));
    for arguments in [&["status", "--json"][..], &["pin", "--list", "--json"], &["status"]] {
        let (_, stdout, stderr) = reply(&run(&[arguments, &["--socket", socket.to_str().unwrap()]].concat()));
        assert!(
            !stdout.contains(is_deceptive) && !stderr.contains(is_deceptive),
            "{arguments:?}: {stdout:?} {stderr:?}"
        );
    }
}

#[test]
fn security_14_4_no_field_of_a_table_is_a_formula() {
    for (name, field) in [
        ("=1+1", "\"'=1+1\""),
        ("a;=cmd|' /C calc'!A0", "\"a;'=cmd|' /C calc'!A0\""),
        ("\u{ff1d}1+1", "\"'\u{ff1d}1+1\""),
        ("  @SUM(1)", "\"  '@SUM(1)\""),
        ("a,b", "\"a,b\""),
        ("plain.example", "\"plain.example\""),
    ] {
        let line = row(name);
        let (_directory, socket) = hostile(move |out| out.write_all(line.as_bytes()));
        let (code, stdout, stderr) = reply(&run(&["flows", "--csv", "--socket", socket.to_str().unwrap()]));
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stdout.matches(field).count(), 3, "{name}: {stdout}");
    }
}

#[test]
fn security_14_6_a_planted_link_is_not_followed_and_exports_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let capture = at.join("one.pcap");
    std::fs::write(&capture, crate::generate::traffic(1000, 7)).unwrap();
    let replay = |out: &Path, more: &[&str]| {
        let (capture, out) = (capture.to_str().unwrap(), out.to_str().unwrap());
        reply(&run(&[&["replay", capture, "-m", "16M", "-q", "-w", out], more].concat()))
    };
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;

    let plain = at.join("plain.pcapng");
    assert_eq!(replay(&plain, &[]).0, 0);
    assert_eq!(mode(&plain), 0o600);
    let shared = at.join("shared.pcapng");
    assert_eq!(replay(&shared, &["--mode", "644"]).0, 0);
    assert_eq!(mode(&shared), 0o644);

    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: only root can make a link that belongs to somebody else");
        return;
    }
    let sticky = at.join("sticky");
    std::fs::create_dir(&sticky).unwrap();
    std::fs::set_permissions(&sticky, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let (victim, link) = (at.join("victim"), sticky.join("out.pcapng"));
    std::fs::write(&victim, "mine").unwrap();
    symlink(&victim, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(1000), Some(1000)).unwrap();
    let (code, _, stderr) = replay(&link, &[]);
    assert!(code == 1 && stderr.contains("symbolic link of uid 1000"), "{code}: {stderr}");
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    // The same for the manifest of a split export.
    let manifest = sticky.join("manifest.jsonl");
    symlink(&victim, &manifest).unwrap();
    std::os::unix::fs::lchown(&manifest, Some(1000), Some(1000)).unwrap();
    let eve = alerts(at, 1);
    let (_directory, socket) = hostile(|out| {
        out.write_all(b"{\"selection\":0,\"packets\":0,\"bytes\":0,\"sessions\":0,\"missing\":null}\n{\"done\":true}\n")
    });
    let socket = socket.to_str().unwrap();
    let (code, _, stderr) =
        reply(&run(&["get", "--alert", &eve, "--split", sticky.to_str().unwrap(), "--socket", socket]));
    assert!(code == 1 && stderr.contains("symbolic link of uid 1000"), "{code}: {stderr}");
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
}
