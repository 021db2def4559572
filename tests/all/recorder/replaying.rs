//! A capture file in place of interfaces.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::generate;

use super::running::{Recorder, directory, eventually};

/// A capture whose packets are `step_ms` apart.
fn capture(packets: u32, step_ms: u64) -> Vec<u8> {
    let mut file = generate::header();
    for number in 0..packets {
        generate::packet(&mut file, u64::from(number) * step_ms * 1_000_000, number % 7, number % 2 == 0, 100);
    }
    file
}

#[test]
fn a_capture_is_served_as_if_it_were_now() {
    let folder = directory();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, capture(5000, 1)).unwrap();
    let recorder =
        Recorder::replaying(&["--replay", path.to_str().unwrap(), "--speed", "max", "-m", "32M"], Stdio::null());
    recorder.arrived(5000);
    let sent = generate::read(&path).0;
    assert_eq!(recorder.packets(&[]), sent, "times to the nanosecond");
    eventually("it says that it has ended", || recorder.log().contains("replayed to its end"));
    let flows = recorder.ask(&["flows", "--json"]);
    assert_eq!(flows.stdout.lines().count(), 7);
    assert_eq!(recorder.status().packets.retained, 5000);
}

#[test]
fn a_replay_keeps_its_pace() {
    let folder = directory();
    let path = folder.path().join("in.pcap");
    // Two seconds of packets at double speed.
    std::fs::write(&path, capture(200, 10)).unwrap();
    let start = Instant::now();
    let recorder =
        Recorder::replaying(&["--replay", path.to_str().unwrap(), "--speed", "2", "-m", "16M"], Stdio::null());
    let early = recorder.status().packets.received;
    let at = start.elapsed();
    assert!(early < 200 || at > Duration::from_millis(900), "{early} after {at:?}");
    recorder.arrived(200);
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
    assert_eq!(recorder.packets(&[]), generate::read(&path).0);
}

#[test]
fn a_damaged_capture_is_served_up_to_the_damage() {
    let mut file = capture(100, 1);
    let whole = file.len();
    file.extend_from_slice(&capture(50, 1)[24..]);
    file.truncate(whole + 16 + 20);
    let folder = directory();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, &file).unwrap();
    let recorder =
        Recorder::replaying(&["--replay", path.to_str().unwrap(), "--speed", "max", "-m", "16M"], Stdio::null());
    recorder.arrived(100);
    eventually("it is logged", || recorder.log().contains(&format!("byte {whole}")));
    assert_eq!(recorder.packets(&[]).len(), 100);
}

#[test]
fn a_pipe_is_served_while_it_is_written() {
    let mut recorder = Recorder::replaying(&["--replay", "-", "--speed", "max", "-m", "16M"], Stdio::piped());
    let mut stdin = recorder.stdin();
    let file = capture(100, 1);
    let half = file.len() / 2 + 5;
    stdin.write_all(&file[..half]).unwrap();
    stdin.flush().unwrap();
    eventually("the first half is there", || recorder.status().packets.received >= 45);
    stdin.write_all(&file[half..]).unwrap();
    recorder.arrived(100);
    // Stop the recorder while the pipe is still open: waiting for the end of the pipe would hang the test.
    recorder.signal("-TERM");
    assert_eq!(recorder.child.wait().unwrap().code(), Some(0), "{}", recorder.log());
    drop(stdin);
}
