//! `retrocap replay`: the output is the input, as far as the memory reaches.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::generate;
use crate::machine;

const MIB: u64 = 1 << 20;

fn retrocap() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrocap"));
    command.env_remove("RETROCAP_SOCKET").stdin(Stdio::null());
    command
}

fn replay(capture: &Path, arguments: &[&str]) -> Output {
    retrocap().arg("replay").arg(capture).args(arguments).output().unwrap()
}

fn status(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Checks promise 2 on a status document.
fn check_conservation(status: &Value) {
    for unit in ["packets", "bytes"] {
        let n = |key: &str| status[unit][key].as_u64().unwrap_or_else(|| panic!("{unit}.{key}"));
        assert_eq!(n("received"), n("stored") + n("filtered") + n("dropped"), "{unit}: {status}");
        assert_eq!(n("stored"), n("retained") + n("evicted"), "{unit}: {status}");
    }
    let dropped: u64 = status["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(status["packets"]["dropped"].as_u64(), Some(dropped));
}

#[test]
fn a_capture_that_fits_is_exported_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let generated = directory.path().join("generated.pcap");
    std::fs::write(&generated, generate::traffic(3 << 20, 1)).unwrap();
    let mut captures = machine::captures("replay of real captures");
    captures.push(generated);
    for capture in captures {
        let out = directory.path().join("out.pcapng");
        let output = replay(&capture, &["-m", "64M", "--json", "-w", out.to_str().unwrap()]);
        assert!(output.status.success(), "{}: {}", capture.display(), String::from_utf8_lossy(&output.stderr));
        let (mut sent, ended) = generate::read(&capture);
        ended.unwrap();
        sent.sort_by_key(|packet| packet.0);
        let (kept, ended) = generate::read(&out);
        ended.unwrap();
        assert_eq!(kept.len(), sent.len(), "{}", capture.display());
        for (n, (kept, sent)) in kept.iter().zip(&sent).enumerate() {
            assert_eq!(kept, sent, "packet {n} of {}", capture.display());
        }
        let status = status(&output);
        check_conservation(&status);
        assert_eq!(status["packets"]["retained"].as_u64(), Some(sent.len() as u64));
        assert_eq!(status["packets"]["evicted"].as_u64(), Some(0));
    }
}

#[test]
fn the_same_replay_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let capture = directory.path().join("large.pcap");
    let bytes = generate::traffic(100 << 20, 2);
    std::fs::write(&capture, &bytes).unwrap();
    let [first, second, piped] = ["1.pcapng", "2.pcapng", "3.pcapng"].map(|name| directory.path().join(name));
    let output = replay(&capture, &["-m", "16M", "--json", "-w", first.to_str().unwrap()]);
    let again = replay(&capture, &["-m", "16M", "--json", "-w", second.to_str().unwrap()]);
    let (mut status_1, mut status_2) = (status(&output), status(&again));
    check_conservation(&status_1);
    assert!(status_1["packets"]["evicted"].as_u64() > Some(10_000), "{status_1}");
    // The resident size depends on the system, not on the engine.
    status_1["memory"]["resident_bytes"] = Value::Null;
    status_2["memory"]["resident_bytes"] = Value::Null;
    assert_eq!(status_1, status_2);

    let mut child = retrocap();
    child.args(["replay", "-", "-m", "16M", "-q", "-w", piped.to_str().unwrap()]).stdin(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for piece in bytes.chunks(77_777) {
        stdin.write_all(piece).unwrap();
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());

    let kept = std::fs::read(&first).unwrap();
    assert!(kept.len() > 8 << 20, "{} bytes", kept.len());
    assert!(kept == std::fs::read(&second).unwrap(), "the same file twice");
    assert!(kept == std::fs::read(&piped).unwrap(), "the same bytes through a pipe");
    let (packets, ended) = generate::read(&first);
    ended.unwrap();
    assert!(packets.is_sorted_by_key(|packet| packet.0), "times go backwards");
    assert_eq!(status_1["packets"]["retained"].as_u64(), Some(packets.len() as u64));
}

#[test]
fn other_tools_open_an_export() {
    let directory = tempfile::tempdir().unwrap();
    let capture = directory.path().join("in.pcap");
    std::fs::write(&capture, generate::traffic(30 << 20, 3)).unwrap();
    let out = directory.path().join("out.pcapng");
    let output = replay(&capture, &["-m", "16M", "--json", "-w", out.to_str().unwrap()]);
    let retained = status(&output)["packets"]["retained"].as_u64().unwrap();
    for (tool, arguments) in
        [("tshark", &["-n", "-T", "fields", "-e", "frame.number", "-r"][..]), ("tcpdump", &["-nqr"])]
    {
        let Ok(output) = Command::new(tool).args(arguments).arg(&out).output() else {
            machine::skipped("reading an export", format_args!("{tool} is not installed"));
            continue;
        };
        let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(lines, retained, "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_damaged_capture_is_kept_up_to_the_damage() {
    let directory = tempfile::tempdir().unwrap();
    let capture = directory.path().join("cut.pcap");
    let mut bytes = generate::header();
    for n in 0..100u32 {
        generate::packet(&mut bytes, u64::from(n) * 1000, n % 7, true, 100);
    }
    let offset = bytes.len();
    generate::packet(&mut bytes, 100_000, 0, true, 100);
    bytes.truncate(bytes.len() - 50);
    std::fs::write(&capture, &bytes).unwrap();
    let out = directory.path().join("out.pcapng");
    let output = replay(&capture, &["-m", "16M", "--json", "-w", out.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("at byte {offset}")), "{error}");
    assert_eq!(status(&output)["packets"]["retained"].as_u64(), Some(100));
    let (kept, ended) = generate::read(&out);
    ended.unwrap();
    assert_eq!(kept.len(), 100);
}

#[test]
fn a_filter_and_a_snap_length_are_applied() {
    let directory = tempfile::tempdir().unwrap();
    let capture = directory.path().join("in.pcap");
    let mut bytes = generate::header();
    for n in 0..100u32 {
        generate::packet(&mut bytes, u64::from(n) * 1000, n, n % 4 != 0, 500);
    }
    std::fs::write(&capture, bytes).unwrap();
    for arguments in [&["-f", "dst port 53"][..], &["dst", "port", "53"]] {
        let out = directory.path().join("out.pcapng");
        let all = [&["-m", "16M", "--json", "-s", "96", "-w", out.to_str().unwrap()], arguments].concat();
        let status = status(&replay(&capture, &all));
        check_conservation(&status);
        assert_eq!(
            (status["packets"]["filtered"].as_u64(), status["packets"]["retained"].as_u64()),
            (Some(25), Some(75))
        );
        let (kept, _) = generate::read(&out);
        assert!(kept.len() == 75 && kept.iter().all(|packet| packet.1 == 542 && packet.2.len() == 96));
    }
}

/// Promise 1: four million sessions of one packet each, about 1 GiB, through a pipe.
#[cfg(target_os = "linux")]
#[test]
fn memory_stays_within_the_budget() {
    const BUDGET_MIB: u64 = 40;
    const SESSIONS: u32 = 4_000_000;
    let mut command = retrocap();
    command.args(["replay", "-", "-m", &format!("{BUDGET_MIB}MiB"), "--json", "-w", "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let mut piece = generate::header();
        for session in 0..SESSIONS {
            generate::packet(&mut piece, u64::from(session) * 7_500, session, true, 200);
            if piece.len() > 1 << 20 || session == SESSIONS - 1 {
                stdin.write_all(&piece).unwrap();
                piece.clear();
            }
        }
    });
    let peak_bytes = watch_peak(&mut child);
    feeder.join().unwrap();
    let output = child.wait_with_output().unwrap();
    let status = status(&output);
    check_conservation(&status);
    assert_eq!(status["packets"]["received"].as_u64(), Some(u64::from(SESSIONS)));
    assert!(peak_bytes < (BUDGET_MIB + 32) * MIB, "{} MiB resident at most", peak_bytes / MIB);
    assert!(peak_bytes > BUDGET_MIB * MIB / 2, "{} MiB: was it measured?", peak_bytes / MIB);
}

/// The peak of a child's memory until its end.
#[cfg(target_os = "linux")]
fn watch_peak(child: &mut Child) -> u64 {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = kib.unwrap_or(0).max(peak);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    peak * 1024
}
