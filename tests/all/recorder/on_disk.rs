//! Questions that the packets on disk answer, after memory has lost them.

use std::path::Path;
use std::process::Stdio;

use super::honest::{capture, ethernet, ipv4, tcp, udp};
use super::running::{Recorder, directory, eventually};
use crate::generate;
use crate::service::asking::get;
use crate::service::metrics::{is_of_disk, named, packaging};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// Packets of the session that is asked for, thirty seconds apart.
const PACKETS: u64 = 40;

/// A session of forty packets within other traffic, then 60 MB of sessions of other hosts, then the same endpoints again.
fn washed_out() -> (Vec<u8>, u64) {
    let mut file = generate::header();
    let mut packets = 0;
    let mut put = |nanos, session, payload| {
        packets += 1;
        generate::packet(&mut file, nanos, session, true, payload);
    };
    for number in 0..PACKETS {
        // One packet has a length of its own.
        put(number * 30 * SECOND, 7, if number == 20 { 1201 } else { 1200 });
        put(number * 30 * SECOND + 1, 8, 1200);
    }
    let start = PACKETS * 30 * SECOND;
    for number in 0..40_000 {
        put(start + number * 100_000, (1000 + u32::try_from(number / 20).unwrap()) << 16 | 5000, 1400);
    }
    for number in 0..5 {
        put(6 * start + number * SECOND, 7, 1200);
    }
    (file, packets)
}

fn recorded(folder: &Path, file: &[u8], packets: u64) -> Recorder {
    let (path, spool) = (folder.join("in.pcap"), folder.join("spool"));
    std::fs::write(&path, file).unwrap();
    let recorder = Recorder::replaying(
        &[
            "--replay",
            path.to_str().unwrap(),
            "--speed",
            "max",
            "-m",
            "24M",
            "--compression-cpu",
            "0",
            "--spool",
            spool.to_str().unwrap(),
            "--spool-size",
            "256M",
        ],
        Stdio::null(),
    );
    recorder.arrived(packets);
    eventually("everything is on disk", || {
        recorder.status().spool.is_some_and(|spool| spool.written_packets + spool.lost_packets >= packets)
    });
    recorder
}

#[test]
fn a_capture_waits_for_the_disk() {
    let folder = directory();
    let (file, packets) = washed_out();
    let recorder = recorded(folder.path(), &file, packets);
    let status = recorder.status();
    assert!(status.packets.evicted > packets / 2, "memory is too small for all: {:?}", status.packets);
    let spool = status.spool.unwrap();
    assert_eq!((spool.written_packets, spool.lost_packets), (packets, 0));
    assert_eq!(recorder.packets(&["--from", "disk"]).len() as u64, packets);
    assert_eq!(recorder.packets(&[]).len() as u64, packets, "memory and disk, each packet once");
    let answer = recorder.ask(&["spool", "status", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(document["written_packets"], packets, "{document}");
    assert!(document["syncs"]["count"].as_u64().unwrap() > 0 && document["writes"]["count"].as_u64().unwrap() > 0);
    // What the dashboard and the alerts use of the disk is there.
    let metrics = get(recorder.socket(), "/metrics").text();
    for file in ["prometheus/alerts.yml", "grafana/retrocap.json"] {
        let named: Vec<String> = named(&packaging(file)).into_iter().filter(|name| is_of_disk(name)).collect();
        let missing: Vec<&String> = named.iter().filter(|name| !metrics.contains(&format!("\n{name}"))).collect();
        assert!(named.len() > 1 && missing.is_empty(), "{file}: {missing:?}");
    }
    let page = recorder.ask(&["spool", "status"]).stdout;
    assert!(page.contains("nothing lost") && page.contains("FROM BYTE"), "{page}");
    assert!(recorder.ask(&["status"]).stdout.contains("\nspool      ok, "));
}

#[test]
fn whole_sessions_and_alerts_come_from_disk() {
    let folder = directory();
    let (file, packets) = washed_out();
    let recorder = recorded(folder.path(), &file, packets);
    let session = "udp and host 10.0.0.0 and port 7";
    let in_memory = recorder.ask(&["get", "--from", "memory", "--json", "-w", "/dev/null", session]);
    assert!(in_memory.code == 0 || in_memory.stderr.contains("cut"), "{}", in_memory.stderr);
    let in_memory = recorder.packets(&["--from", "memory", "--until", "2026-11-22T11:30:00Z", session]).len() as u64;
    assert!(in_memory < PACKETS, "memory still has {in_memory} packets of the session");

    let marked = "greater 1243 and less 1243";
    assert_eq!(recorder.packets(&[marked]).len(), 1);
    for tier in [&[][..], &["--from", "disk"]] {
        let whole = recorder.packets(&[tier, &["--whole-sessions", marked]].concat());
        assert_eq!(whole.len() as u64, PACKETS, "{tier:?}: all packets before the pause, and none after it");
    }
    assert!((recorder.packets(&["--from", "memory", "--whole-sessions", session]).len() as u64) < PACKETS);
    let answer = recorder.ask(&["get", "--whole-sessions", "-w", "/dev/null", marked]);
    assert!(!answer.stderr.contains("cut") && !answer.stderr.contains("not searched"), "{}", answer.stderr);

    let alert = serde_json::json!({
        "timestamp": "2026-11-22T10:10:00.000000+0000", "event_type": "alert", "src_ip": "10.0.0.0", "src_port": 7,
        "dest_ip": "192.0.2.7", "dest_port": 53, "proto": "UDP", "flow": {"start": "2026-11-22T10:10:00.000000+0000"},
        "alert": {"signature_id": 1, "signature": "test", "severity": 1},
    });
    let path = folder.path().join("eve.json");
    std::fs::write(&path, format!("{alert}\n")).unwrap();
    let found = recorder.packets(&["--alert", path.to_str().unwrap()]);
    assert_eq!(found.len() as u64, PACKETS);
    let split = folder.path().join("split");
    let answer = recorder.ask(&["get", "--alert", path.to_str().unwrap(), "--split", split.to_str().unwrap()]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let manifest = std::fs::read_to_string(split.join("manifest.jsonl")).unwrap();
    assert!(manifest.contains(&format!("\"packets\":{PACKETS}")), "{manifest}");
}

#[test]
fn packets_on_disk_that_cannot_be_opened_are_counted() {
    let folder = directory();
    let plain = ethernet(0x800, &ipv4(17, 0, &udp(4000, 53, b"hello")));
    let encrypted = ethernet(0x800, &ipv4(50, 0, &[7; 64]));
    let stream = ethernet(0x800, &ipv4(6, 0, &tcp(4001, 80, 2, b"")));
    let frames: Vec<_> = [vec![plain; 3], vec![encrypted; 5], vec![stream; 2]].concat();
    let recorder = recorded(folder.path(), &capture(1, &frames), 10);
    let words = "on disk, at these times, 5 packets with ESP (encrypted) were not opened";
    for (arguments, code) in [
        (&["get", "--from", "disk", "-w", "/dev/null", "udp port 53"][..], 0),
        (&["get", "--from", "disk", "host 192.0.2.99"], 1),
        (&["get", "--from", "disk", "--port", "9"], 1),
    ] {
        let answer = recorder.ask(arguments);
        assert_eq!(answer.code, code, "{arguments:?}: {}", answer.stderr);
        assert!(answer.stderr.contains(words), "{arguments:?}: {}", answer.stderr);
    }
    // Whoever asks for them has them.
    let answer = recorder.ask(&["get", "--from", "disk", "-w", "/dev/null", "ip proto 50"]);
    assert!(!answer.stderr.contains("not opened"), "{}", answer.stderr);
    // The index of a sealed file has the counts, too.
    let spool = folder.path().join("spool");
    drop(recorder);
    let answer = crate::cli::run(&["get", "--spool", spool.to_str().unwrap(), "host 192.0.2.99"]);
    assert!(String::from_utf8_lossy(&answer.stderr).contains(words), "{}", String::from_utf8_lossy(&answer.stderr));
}
