//! Live capture: the cost of a packet compared with tcpdump and dumpcap, the cost of readers, and the cost of idling.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cable::{Cable, FAR, cable};
use crate::machine::have;
use crate::process::{Answer, Recorder, Running};
use crate::scale::Scale;
use crate::table::{Row, median, section, skipped};

/// What one program reported about the generator's packets.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    cpu_s: f64,
    captured: f64,
    lost: f64,
    sent_a_s: f64,
}

impl Seen {
    fn cpu_s_a_million(&self) -> f64 {
        self.cpu_s / (self.captured / 1e6).max(1e-9)
    }
}

/// CPU seconds per million packets.
pub(crate) fn live(scale: Scale) {
    section(
        "live",
        "processor seconds a million packets (user and system), in turn; one core, `get` asked all the time",
    );
    let Some(cable) = cable("live") else { return };
    for (len, packets) in [(64, scale.times(600_000)), (1500, scale.times(400_000))] {
        let (mut ours, mut quiet, mut tcpdump, mut dumpcap) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 {
            ours.extend(by_retrocap(&cable, len, packets, 1));
            quiet.extend(by_retrocap(&cable, len, packets, 0));
            tcpdump.extend(by_peer(&cable, &["tcpdump", "-i", "any", "-w", "/dev/null"], len, packets));
            if have("dumpcap") {
                dumpcap.extend(by_peer(&cable, &["dumpcap", "-q", "-i", FAR, "-w", "/dev/null"], len, packets));
            }
        }
        let middle = |seen: &[Seen]| median(seen.iter().map(Seen::cpu_s_a_million).collect());
        let lost = |seen: &[Seen]| seen.iter().map(|seen| seen.lost).sum::<f64>();
        let rate = median(ours.iter().chain(&quiet).map(|seen| seen.sent_a_s).collect()) / 1e6;
        for (name, theirs, aim) in [("tcpdump", &tcpdump, "<= 1"), ("dumpcap", &dumpcap, "<= 0.25")] {
            if theirs.is_empty() || quiet.is_empty() {
                skipped(&format!("{len} B beside {name}"), format_args!("{name} is not installed or saw nothing"));
                continue;
            }
            let (mine, peers) = (middle(&quiet), middle(theirs));
            Row::new(format_args!("{len} B at {rate:.2} M/s"), format_args!("{mine:.3} s, lost {}", lost(&quiet)))
                .beside(format_args!("{name} {peers:.3} s, lost {}", lost(theirs)), mine / peers)
                .aim(aim)
                .print();
        }
        Row::new(
            format_args!("{len} B, `get` in a loop"),
            format_args!("{:.3} s, lost {}", middle(&ours), lost(&ours)),
        )
        .aim("lost 0")
        .print();
    }
}

/// Readers of everything, some of which stop reading.
pub(crate) fn readers(scale: Scale) {
    section(
        "readers",
        "50 readers of everything, ten of them stalled, at the generator's full rate; one core for all of it",
    );
    let Some(cable) = cable("readers") else { return };
    for (len, packets) in [(64, scale.times(600_000)), (1500, scale.times(400_000))] {
        let Some(seen) = by_retrocap(&cable, len, packets, 50) else { continue };
        let figure = format!("lost {} of {:.0}", seen.lost, seen.captured + seen.lost);
        Row::new(format_args!("{len} B at {:.2} M/s", seen.sent_a_s / 1e6), figure).aim("lost 0").print();
    }
}

fn by_retrocap(cable: &Cable, len: usize, packets: u32, readers: usize) -> Option<Seen> {
    let recorder = cable.recorder(&["-m", "200MiB", "--compression-cpu", "0"]).map_err(|e| eprintln!("{e}")).ok()?;
    let (stop, before) = (AtomicBool::new(false), recorder.running.cpu_s());
    let sent = std::thread::scope(|scope| {
        for reader in 0..readers {
            scope.spawn({
                let (recorder, stop) = (&recorder, &stop);
                move || {
                    if readers > 1 && reader % 5 == 0 {
                        stall(recorder, stop)
                    } else {
                        read(recorder, stop, readers > 1)
                    }
                }
            });
        }
        let sent = cable.generate(len, packets);
        stop.store(true, Ordering::Relaxed);
        sent
    })?;
    // The recorder takes what lies in the ring within 100 ms.
    std::thread::sleep(Duration::from_millis(200));
    let cpu_s = recorder.running.cpu_s() - before;
    Some(Seen {
        cpu_s,
        captured: recorder.count("/packets/received"),
        lost: recorder.count("/packets/kernel_dropped"),
        sent_a_s: f64::from(packets) / sent.as_secs_f64(),
    })
}

/// Sends queries continually: for everything, or for one host.
fn read(recorder: &Recorder, stop: &AtomicBool, everything: bool) {
    let path = if everything { "/v1/packets" } else { "/v1/packets?expr=host+10.0.7.7&c=100" };
    while !stop.load(Ordering::Relaxed) {
        let Ok(stream) = recorder.connect() else { return };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let cut = stream.try_clone();
        let _ = Answer::read(stream, path, |_| {
            if let (true, Ok(stream)) = (stop.load(Ordering::Relaxed), &cut) {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        });
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a query and never reads the answer.
fn stall(recorder: &Recorder, stop: &AtomicBool) {
    let Ok(mut stream) = recorder.connect() else { return };
    let _ = std::io::Write::write_all(&mut stream, b"GET /v1/packets HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn by_peer(cable: &Cable, words: &[&str], len: usize, packets: u32) -> Option<Seen> {
    let mut command = cable.recording(words);
    let mut peer = Running { child: command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()? };
    // Wait until the peer has opened its socket; each peer announces that in another way.
    std::thread::sleep(Duration::from_millis(500));
    let before = peer.cpu_s();
    let sent = cable.generate(len, packets)?;
    std::thread::sleep(Duration::from_millis(1200));
    let cpu_s = peer.cpu_s() - before;
    peer.end()?;
    let mut text = String::new();
    peer.child.stderr.take()?.read_to_string(&mut text).ok()?;
    let (captured, lost) = counts(&text);
    // A peer that does not report captured packets has captured all that was sent and not lost.
    let captured = captured.unwrap_or_else(|| f64::from(packets) - lost);
    Some(Seen { cpu_s, captured, lost, sent_a_s: f64::from(packets) / sent.as_secs_f64() })
}

/// The packets captured and dropped, as tcpdump or dumpcap report them at their end.
fn counts(text: &str) -> (Option<f64>, f64) {
    let number = |word: &str| word.trim_matches(|c: char| !c.is_ascii_digit()).parse::<f64>().ok();
    let first = |line: &str| line.split_whitespace().find_map(number);
    // tcpdump: "12 packets dropped by kernel"; dumpcap: "received/dropped on interface 'far': 12/0 (pcap:0/…)".
    let slash = |line: &str| {
        let (received, dropped) = line.rsplit_once(": ")?.1.split_whitespace().next()?.split_once('/')?;
        Some((number(received)?, number(dropped)?))
    };
    if let Some((received, dropped)) = text.lines().find(|line| line.contains("received/dropped")).and_then(slash) {
        return (Some(received), dropped);
    }
    let captured = text.lines().find(|line| line.contains("packets captured")).and_then(first);
    let dropped = text.lines().find(|line| line.contains("dropped by kernel")).and_then(first);
    (captured, dropped.unwrap_or(0.0))
}

/// The cost of sealing the record, beside that of ingest without its part in the kernel.
pub(crate) fn chain(scale: Scale) {
    section(
        "chain",
        "the worker with and without the chain, and the thread that seals; a minute of packets of 800 bytes",
    );
    let Some(cable) = cable("chain") else { return };
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return skipped("chain", error),
    };
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (key, log) = (path("key"), path("audit.log"));
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).status();
    if !made.is_ok_and(|status| status.success()) {
        return skipped("chain", "ssh-keygen is not installed");
    }
    let plain = ["-m", "200MiB", "--compression-cpu", "0", "--audit-log", &log];
    for (what, flags) in [("without", plain.to_vec()), ("with", [&plain[..], &["--evidence-key", &key]].concat())] {
        let recorder = match cable.recorder(&flags) {
            Ok(recorder) => recorder,
            Err(error) => return skipped(what, error),
        };
        let end = Instant::now() + Duration::from_secs(60 * u64::from(scale.times(1)));
        while Instant::now() < end && cable.generate(800, 200_000).is_some() {}
        let (worker, seal) = (recorder.running.thread_s("retrocap-w0"), recorder.running.thread_s("retrocap-seal"));
        let packets = recorder.count("/packets/received");
        let figure =
            format!("worker {:.0} ns a packet, seal {:.2} %", worker * 1e9 / packets.max(1.0), seal / worker * 100.0);
        Row::new(what, figure).aim("< 3 %").print();
    }
}

/// The cost of a recorder that has nothing to record.
pub(crate) fn idle(scale: Scale) {
    let seconds = f64::from(scale.times(10));
    section("idle", "a namespace in which nothing happens");
    let Some(cable) = cable("idle") else { return };
    for (what, flags) in [("40 MiB", &["-m", "40MiB"][..]), ("1 GiB, 2 workers", &["-m", "1GiB", "--workers", "2"])] {
        let recorder = match cable.recorder(flags) {
            Ok(recorder) => recorder,
            Err(error) => return skipped(what, error),
        };
        std::thread::sleep(Duration::from_secs(1));
        let (cpu_s, wakeups) = (recorder.running.cpu_s(), recorder.running.wakeups());
        std::thread::sleep(Duration::from_secs_f64(seconds));
        let cpu = (recorder.running.cpu_s() - cpu_s) / seconds * 100.0;
        let wakeups = (recorder.running.wakeups() - wakeups) / seconds;
        let figure = format!("{cpu:.3} % {wakeups:.1} wakeups/s");
        Row::new(what, figure).aim("<= 0.1 %, <= 20 wakeups/s").print();
    }
}
