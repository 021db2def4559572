//! Queries while packets come in at full speed: an endless history is replayed through a pipe.

use std::io::Write as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::process::{RETROCAP, Recorder};
use crate::scale::Scale;
use crate::table::{Row, percentile, section, skipped};
use crate::traffic::{History, PCAP_HEADER};

/// The budget that leaves about 1 GiB for packets.
const MEMORY: &str = "1600MiB";

pub(crate) fn queries(scale: Scale) {
    section(
        "queries",
        "1 GiB retained (an hour of packets, 1,000 hosts), packets coming in through a pipe at full speed",
    );
    let mut command = Command::new(RETROCAP);
    command.args(["run", "--replay", "-", "--speed", "max", "-m", MEMORY, "--compression-cpu", "0"]);
    let mut recorder = match Recorder::start({
        command.stdin(Stdio::piped());
        command
    }) {
        Ok(recorder) => recorder,
        Err(error) => return skipped("queries", error),
    };
    let Some(pipe) = recorder.running.child.stdin.take() else { return };
    let (stop, pause) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| feed(pipe, &stop, &pause));
        let limit = Instant::now() + Duration::from_secs(120);
        while recorder.count("/packets/evicted") == 0.0 && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(50));
        }
        let retained = recorder.count("/bytes/retained") / f64::from(1 << 30);
        let alone = rate(&recorder, Duration::from_secs(2));
        Row::new(format_args!("ingest alone, {retained:.2} GiB retained"), format_args!("{:.2} M/s", alone / 1e6))
            .print();

        one_host(&recorder, scale.times(200));
        five_hundred(&recorder, alone, f64::from(scale.times(3)));
        readers(&recorder, alone);
        export(&recorder, "full export while recording", "");
        sessions(&recorder, "flows of 100,000 sessions while recording", "");
        pause.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        one_host_quiet(&recorder, scale.times(200));
        export(&recorder, "full export, nothing coming in", ">= 1 GB/s");
        sessions(&recorder, "flows of 100,000 sessions, nothing coming in", "< 1 s");
        stop.store(true, Ordering::Relaxed);
    });
}

/// Writes history into the pipe until it is stopped.
fn feed(mut pipe: ChildStdin, stop: &AtomicBool, pause: &AtomicBool) {
    let mut history = History::new();
    let mut written = pipe.write_all(&PCAP_HEADER);
    while written.is_ok() && !stop.load(Ordering::Relaxed) {
        if pause.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        } else {
            written = pipe.write_all(history.next());
        }
    }
}

/// Packets per second that are recorded.
fn rate(recorder: &Recorder, time: Duration) -> f64 {
    let (start, before) = (Instant::now(), recorder.count("/packets/received"));
    std::thread::sleep(time);
    (recorder.count("/packets/received") - before) / start.elapsed().as_secs_f64()
}

/// A query for one minute of one host, `ago` seconds before the newest packet.
fn minute(recorder: &Recorder, host: u32, ago: u64) -> String {
    let newest = recorder.status().ok().and_then(|status| {
        let text = status.pointer("/retained/newest")?.as_str()?.to_owned();
        text.parse::<jiff::Timestamp>().ok()
    });
    let newest = newest.map_or(0, |time| time.as_second());
    let since = newest.saturating_sub_unsigned(ago);
    format!("/v1/packets?expr=host+{}&since={since}&until={}", History::host(host), since + 60)
}

fn one_host(recorder: &Recorder, count: u32) {
    print_minutes(recorder, count, "one host, one minute, while recording", ["< 10 ms (p99)", "< 50 ms (p99)"]);
}

fn one_host_quiet(recorder: &Recorder, count: u32) {
    print_minutes(recorder, count, "one host, one minute, nothing coming in", ["", ""]);
}

fn print_minutes(recorder: &Recorder, count: u32, what: &str, aims: [&'static str; 2]) {
    let (mut first, mut total, mut bytes) = (Vec::new(), Vec::new(), 0.0);
    for n in 0..count {
        let question = minute(recorder, n * 37, 300);
        if let Ok(answer) = recorder.ask(&question)
            && answer.ok
        {
            first.push(answer.first_s * 1e3);
            total.push(answer.total_s * 1e3);
            bytes += answer.bytes;
        }
    }
    let answered = first.len();
    let bytes = bytes / f64::from(u32::try_from(answered).unwrap_or(1).max(1));
    for (part, times, aim) in [("first byte", &mut first, aims[0]), ("all", &mut total, aims[1])] {
        let figure = format!("p50 {:.1} p99 {:.1} ms", percentile(times, 50), percentile(times, 99));
        let note = format!("{answered}/{count} answered, {bytes:.0} B");
        Row { peer: note, ..Row::new(format_args!("{what}: {part}"), figure) }.aim(aim).print();
    }
}

/// 500 queries per second from 8 clients, each at a steady pace.
fn five_hundred(recorder: &Recorder, alone: f64, seconds: f64) {
    const CLIENTS: u32 = 8;
    const A_SECOND: f64 = 500.0;
    let (answered, failed) = (AtomicU32::new(0), AtomicU32::new(0));
    let question = minute(recorder, 5, 60);
    let (start, before) = (Instant::now(), recorder.count("/packets/received"));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (answered, failed, question) = (&answered, &failed, &question);
            scope.spawn(move || {
                let mut due = f64::from(client) / A_SECOND;
                while due < seconds {
                    std::thread::sleep(Duration::from_secs_f64((due - start.elapsed().as_secs_f64()).max(0.0)));
                    if start.elapsed().as_secs_f64() > seconds {
                        break;
                    }
                    // A query that finds nothing any more counts as answered.
                    let ok = recorder.ask(question).is_ok();
                    (if ok { answered } else { failed }).fetch_add(1, Ordering::Relaxed);
                    due += f64::from(CLIENTS) / A_SECOND;
                }
            });
        }
    });
    let taken = start.elapsed().as_secs_f64();
    let ingest = (recorder.count("/packets/received") - before) / taken;
    let queries = f64::from(answered.load(Ordering::Relaxed)) / taken;
    Row::new("500 such queries a second", format_args!("{queries:.0}/s, {} failed", failed.load(Ordering::Relaxed)))
        .print();
    Row::new("  ingest meanwhile", format_args!("{:.2} M/s", ingest / 1e6))
        .beside(format_args!("alone {:.2} M/s", alone / 1e6), ingest / alone)
        .aim("lost 0; see readers for live")
        .print();
}

/// 50 readers of everything, ten of which never read.
fn readers(recorder: &Recorder, alone: f64) {
    let before = recorder.running.resident_mebibytes();
    let stop = AtomicBool::new(false);
    let (ingest, after) = std::thread::scope(|scope| {
        for reader in 0..50 {
            let stop = &stop;
            scope.spawn(move || {
                let Ok(mut stream) = recorder.connect() else { return };
                let _ = stream.write_all(b"GET /v1/packets HTTP/1.1\r\nHost: localhost\r\n\r\n");
                let mut buffer = vec![0; 64 << 10];
                let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
                while !stop.load(Ordering::Relaxed) {
                    if reader % 5 == 0 {
                        std::thread::sleep(Duration::from_millis(20));
                    } else {
                        let _ = std::io::Read::read(&mut stream, &mut buffer);
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        let ingest = rate(recorder, Duration::from_secs(2));
        let after = recorder.running.resident_mebibytes();
        stop.store(true, Ordering::Relaxed);
        (ingest, after)
    });
    Row::new("50 readers, ten stalled: ingest", format_args!("{:.2} M/s", ingest / 1e6))
        .beside(format_args!("alone {:.2} M/s", alone / 1e6), ingest / alone)
        .print();
    Row::new("50 readers, ten stalled: resident memory", format_args!("{after:.0} MiB"))
        .beside(format_args!("before {before:.0} MiB"), after / before)
        .aim("1.0")
        .print();
}

fn export(recorder: &Recorder, what: &str, aim: &'static str) {
    match recorder.ask("/v1/packets") {
        Ok(answer) => {
            let figure = format!("{:.2} GB/s", answer.bytes / answer.total_s / 1e9);
            let note = format!("{:.0} MB, first {:.1} ms", answer.bytes / 1e6, answer.first_s * 1e3);
            Row { peer: note, ..Row::new(what, figure) }.aim(aim).print();
        }
        Err(error) => skipped(what, error),
    }
}

fn sessions(recorder: &Recorder, what: &str, aim: &'static str) {
    match recorder.ask("/v1/flows?limit=100000") {
        Ok(answer) => {
            let note = format!("{:.0} MB, first {:.0} ms", answer.bytes / 1e6, answer.first_s * 1e3);
            Row { peer: note, ..Row::new(what, format_args!("{:.2} s", answer.total_s)) }.aim(aim).print();
        }
        Err(error) => skipped(what, error),
    }
}
