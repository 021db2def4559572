//! Whatever arrives, memory stays within its budget and everything is counted. Memory is taken at start, and the
//! session table and the store are full within seconds; streams of a minute and more belong to benchmarks.

use std::io::{BufWriter, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use retrocap::query::status::Status;

use crate::generate::{self, START_S};
use crate::namespaces::{Namespace, available};

use super::running::{BEYOND_BUDGET, MIB, PROGRAM, Recorder, Sender, conserves, datagram, reply, unanswered};

const SESSIONS: u32 = 4_000_000;

#[test]
fn four_million_sessions_on_a_cable_stay_within_the_budget() {
    if !available("four million sessions") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "64M"]);
    let mut sender = Sender::new(&near, "near");
    let (start, sent) = (Instant::now(), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            sender.send_paced(SESSIONS, 180_000, |number, frame| {
                sent.store(number, Ordering::Relaxed);
                datagram(number, 18, frame);
            });
        });
        while !sending.is_finished() {
            // `status` checks at every moment that the counts add up.
            recorder.status();
            let sent_before = sent.load(Ordering::Relaxed);
            let flows = recorder.ask(&["flows", "--limit", "100", "--json"]);
            let listed = flows.stdout.lines().count();
            // The packets just sent may not have arrived yet.
            assert!(listed == 100 || sent_before < 50_000, "{listed} after {sent_before}: {}", flows.stderr);
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let took = start.elapsed();
    let status = recorder.arrived(u64::from(SESSIONS));
    assert!(status.packets.received > u64::from(SESSIONS) / 2, "{:?}", status.packets);
    assert!(status.sessions.live <= status.sessions.capacity);
    let peak = recorder.resident_peak();
    eprintln!(
        "{SESSIONS} sessions in {took:?}: {} dropped by the kernel, at most {} KiB for a budget of 64 MiB",
        status.packets.kernel_dropped,
        peak >> 10
    );
    assert!(peak <= 64 * MIB + BEYOND_BUDGET, "{} MiB", peak / MIB);
}

/// A capture file that is written into a pipe.
struct Stream<W: std::io::Write> {
    pipe: W,
    record: Vec<u8>,
    packets: u64,
}

impl<W: std::io::Write> Stream<W> {
    fn write(&mut self, nanos: u64, data: &[u8]) {
        let length = u32::try_from(data.len()).unwrap();
        let seconds = u32::try_from(START_S + nanos / 1_000_000_000).unwrap();
        self.record.clear();
        for field in [seconds, u32::try_from(nanos % 1_000_000_000).unwrap(), length, length] {
            self.record.extend_from_slice(&field.to_le_bytes());
        }
        self.record.extend_from_slice(data);
        self.pipe.write_all(&self.record).unwrap();
        self.packets += 1;
    }
}

/// Replays a stream while the peak of its memory is watched; returns the final status.
fn replayed(name: &str, budget: u64, make: impl FnOnce(&mut Stream<BufWriter<std::process::ChildStdin>>)) -> Status {
    let mut child = Command::new(PROGRAM)
        .args(["replay", "-", "--json", "-m", &format!("{}M", budget / MIB)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (process, peak) = (child.id(), AtomicU64::new(0));
    let pipe = BufWriter::with_capacity(64 << 10, child.stdin.take().unwrap());
    let mut stream = Stream { pipe, record: Vec::new(), packets: 0 };
    stream.pipe.write_all(&generate::header()).unwrap();
    let (output, sent) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(bytes) = super::running::resident_peak(process) {
                peak.fetch_max(bytes, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        make(&mut stream);
        stream.pipe.flush().unwrap();
        let sent = stream.packets;
        drop(stream);
        (child.wait_with_output().unwrap(), sent)
    });
    let reply = reply(&output);
    assert_eq!(reply.code, 0, "{name}: {}", reply.stderr);
    let status: Status = serde_json::from_str(&reply.stdout).unwrap();
    conserves(&status);
    assert_eq!(status.packets.received, sent, "{name}");
    let peak = peak.into_inner();
    eprintln!("{name}: {sent} packets, at most {} KiB for a budget of {} MiB", peak >> 10, budget / MIB);
    assert!(peak <= budget + BEYOND_BUDGET, "{name}: {} MiB", peak / MIB);
    status
}

#[test]
fn four_million_sessions_in_a_file_stay_within_the_budget() {
    let status = replayed("4 million sessions", 64 * MIB, |stream| {
        let mut frame = Vec::new();
        for number in 0..SESSIONS {
            frame.clear();
            datagram(number, 18, &mut frame);
            stream.write(u64::from(number) * 7500, &frame);
        }
    });
    // The packets are so similar that compression may keep all of them.
    assert!(status.packets.retained > 0 && status.sessions.unlisted > 0, "{:?}", status.sessions);
}

/// An IPv4 fragment of the datagram with this identification.
fn fragment(id: u32, offset: u16, more: bool) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 60];
    let [high, low, a, b] = id.to_be_bytes();
    let position = (offset / 8) | if more { 0x2000 } else { 0 };
    frame.extend_from_slice(&[a, b]);
    frame.extend_from_slice(&position.to_be_bytes());
    frame.extend_from_slice(&[64, 17, 0, 0, 10, 0, high, low, 192, 0, 2, 7, 0, 53, 0, 53, 0, 40, 0, 0]);
    frame.resize(14 + 60, 0);
    frame
}

#[test]
fn a_flood_of_fragments_stays_within_the_budget() {
    replayed("first fragments without end", 16 * MIB, |stream| {
        for id in 0..300_000 {
            stream.write(u64::from(id) * 1000, &fragment(id, 0, true));
        }
    });
    replayed("later fragments without firsts", 16 * MIB, |stream| {
        for id in 0..300_000 {
            stream.write(u64::from(id) * 1000, &fragment(id, 1480, id % 2 == 0));
        }
    });
    replayed("overlapping fragments of one datagram", 16 * MIB, |stream| {
        for number in 0..300_000_u32 {
            let offset = u16::try_from(number % 8192 * 8).unwrap_or(0);
            stream.write(u64::from(number) * 1000, &fragment(7, offset, true));
        }
    });
}

#[test]
fn malformed_frames_are_counted() {
    let status = replayed("40 nested VLAN tags", 16 * MIB, |stream| {
        for number in 0..100_000_u32 {
            let mut frame = unanswered(0)[..12].to_vec();
            for tag in 0..40_u8 {
                frame.extend_from_slice(&[0x81, 0, number.to_be_bytes()[3] & 0x0f, tag]);
            }
            frame.extend_from_slice(&[8, 0, 0x45]);
            stream.write(u64::from(number) * 1000, &frame);
        }
    });
    assert_eq!(status.oddities.too_deep, 100_000);

    let status = replayed("frames of 0 to 20 bytes", 16 * MIB, |stream| {
        for number in 0..210_000_u32 {
            let bytes = usize::try_from(number % 21).unwrap();
            stream.write(u64::from(number) * 1000, &unanswered(6)[..bytes]);
        }
    });
    assert_eq!(status.oddities.cut_headers, 140_000, "those shorter than an Ethernet header");
}

#[test]
fn packets_with_odd_times_are_counted() {
    const SECOND: u64 = 1_000_000_000;
    const YEAR: u64 = 365 * 24 * 3600 * SECOND;
    let mut frame = Vec::new();
    let mut write = |stream: &mut Stream<_>, nanos, session| {
        frame.clear();
        datagram(session, 400, &mut frame);
        stream.write(nanos, &frame);
    };
    let status = replayed("time runs backwards", 16 * MIB, |stream| {
        for number in 0..100_000_u32 {
            write(stream, YEAR - u64::from(number) * 1_000_000, number % 5000);
        }
    });
    assert_eq!(status.oddities.out_of_order, 99_999);
    assert!(status.packets.retained > 1000, "{:?}", status.packets);

    let status = replayed("time jumps a year to and fro", 16 * MIB, |stream| {
        for number in 0..100_000_u32 {
            let year = u64::from(number / 10_000 % 2) * YEAR;
            write(stream, year + u64::from(number) * 1_000_000, number % 5000);
        }
    });
    assert!(status.packets.retained > 1000, "{:?}", status.packets);
}
