//! The disk: what a gigabyte costs from the cable to the disk beside other recorders, what it takes there, and how fast one host's
//! minute is found.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use spool::catalogue::Catalogue;
use spool::directory::Directory;

use crate::cable::{Cable, FAR, cable};
use crate::machine::have;
use crate::process::{RETROCAP, Recorder, Running, cost_of};
use crate::real::{FIRST_SECOND, RealPackets};
use crate::scale::Scale;
use crate::table::{Row, median, section, skipped};

const GB: f64 = 1e9;
/// Bytes of the packets of the comparison.
const LEN: usize = 1500;
/// A slow disk, and what arrives meanwhile.
const SLOW_BYTES_S: u64 = 10 << 20;

pub(crate) fn spool(scale: Scale) {
    section("spool", "processor seconds a GB of packets of 1500 B, from the cable to fsync, kernel threads included");
    if let Some(cable) = cable("spool") {
        on_the_cable(&cable, scale);
        killed(&cable);
        slow_disk(&cable);
    }
    section(
        "spool: real captures",
        "repeated with other addresses; bytes on disk, and questions about one host's minute",
    );
    let Some(packets) = RealPackets::read() else {
        return skipped("spool: real captures", "RETROCAP_CAPTURES names no folder with captures");
    };
    for (name, bytes) in sizes(scale) {
        on_disk(&packets, name, bytes);
    }
}

fn sizes(scale: Scale) -> Vec<(&'static str, u64)> {
    let mut sizes = vec![("100 MB", 100_000_000), ("1 GB", 1_000_000_000)];
    if scale.long {
        sizes.push(("10 GB", 10_000_000_000));
    }
    sizes
}

/// Processor time of the kernel's threads so far: they write what programs leave in the page cache.
fn kernel_cpu_s() -> f64 {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0.0 };
    let ticks = processes.flatten().filter_map(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let is_writer = ["kworker", "jbd2", "kswapd"].iter().any(|kind| name.starts_with(kind));
        is_writer.then(|| fields[11].parse::<f64>().unwrap_or(0.0) + fields[12].parse::<f64>().unwrap_or(0.0))
    });
    ticks.sum::<f64>() / 100.0
}

fn on_the_cable(cable: &Cable, scale: Scale) {
    let packets = scale.times(700_000);
    let bytes = f64::from(packets) * LEN as f64;
    let rounds = if scale.long { 5 } else { 3 };
    for (level, aim) in [("0", "<= 1.8 s"), ("1", "<= 4.2 s")] {
        let runs: Vec<(f64, f64)> = (0..rounds).filter_map(|_| by_retrocap(cable, packets, level)).collect();
        let Some((_, lost)) = runs.first().copied() else { continue };
        let costs = median(runs.iter().map(|(cost, _)| *cost).collect());
        let name = if level == "0" { "plain" } else { "compressed (constant bytes)" };
        Row::new(name, format_args!("{costs:.2} s, lost {lost}")).aim(aim).print();
    }
    for peer in ["tcpdump", "dumpcap", "netsniff-ng"] {
        if !have(peer) {
            skipped(peer, "not installed");
            continue;
        }
        let costs: Vec<f64> = (0..rounds).filter_map(|_| by_peer(cable, peer, packets, bytes)).collect();
        Row::new(format_args!("plain, by {peer}"), "").beside(format_args!("{:.2} s", median(costs)), 1.0).print();
    }
    if !have("stenotype") {
        skipped("plain, by stenographer", "stenotype (package stenographer) is not installed");
    }
}

fn recorder(cable: &Cable, folder: &Path, level: &str) -> Option<Recorder> {
    let path = folder.to_str()?;
    let flags = ["-m", "256MiB", "--compression-cpu", "0", "--spool", path, "--spool-size", "6G"];
    let flags = [&flags[..], &["--spool-compression", level, "--spool-sessions", "off"]].concat();
    cable.recorder(&flags).map_err(|error| eprintln!("{error}")).ok()
}

/// Waits until everything that arrived is on disk.
fn written(recorder: &Recorder, limit: Duration) {
    let end = Instant::now() + limit;
    std::thread::sleep(Duration::from_millis(1500));
    while recorder.count("/spool/behind_packets") > 0.0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Processor seconds a GB, and packets that were lost anywhere.
fn by_retrocap(cable: &Cable, packets: u32, level: &str) -> Option<(f64, f64)> {
    let folder = tempfile::tempdir_in(".").ok()?;
    let recorder = recorder(cable, folder.path(), level)?;
    let (before, kernel) = (recorder.running.cpu_s(), kernel_cpu_s());
    cable.generate(LEN, packets)?;
    written(&recorder, Duration::from_secs(60));
    let spent = recorder.running.cpu_s() - before + kernel_cpu_s() - kernel;
    let lost = recorder.count("/packets/kernel_dropped") + recorder.count("/spool/lost_packets");
    Some((spent / (recorder.count("/spool/written_bytes") / GB).max(0.001), lost))
}

fn by_peer(cable: &Cable, peer: &str, packets: u32, bytes: f64) -> Option<f64> {
    let folder = tempfile::tempdir_in(".").ok()?;
    let file = folder.path().join("ring.pcap");
    let (file, directory) = (file.to_str()?, folder.path().to_str()?);
    let words: Vec<&str> = match peer {
        "tcpdump" => vec![peer, "-n", "-Z", "root", "-i", FAR, "-C", "64", "-W", "64", "-w", file],
        "dumpcap" => vec![peer, "-q", "-i", FAR, "-b", "filesize:65536", "-b", "files:64", "-w", file],
        _ => vec![peer, "--in", FAR, "--out", directory, "--interval", "64MiB", "--silent", "--no-sock-mem"],
    };
    let child = cable.recording(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let mut running = Running { child };
    std::thread::sleep(Duration::from_secs(1));
    let kernel = kernel_cpu_s();
    cable.generate(LEN, packets)?;
    std::thread::sleep(Duration::from_millis(500));
    let own = running.cpu_s();
    running.end();
    // What lies in the page cache is not on disk.
    let sync = cost_of(Command::new("sync").arg("-f").arg(directory)).cpu_s;
    let kept: u64 = std::fs::read_dir(directory).ok()?.flatten().filter_map(|e| Some(e.metadata().ok()?.len())).sum();
    #[expect(clippy::cast_precision_loss, reason = "a share of bytes")]
    let share = (kept as f64 / bytes).clamp(0.001, 1.0);
    Some((own + kernel_cpu_s() - kernel + sync) / (bytes * share / GB))
}

/// How much is missing after the recorder was killed while packets arrived.
fn killed(cable: &Cable) {
    let Ok(folder) = tempfile::tempdir_in(".") else { return };
    let Some(mut recorder) = recorder(cable, folder.path(), "0") else { return };
    let killed = std::thread::scope(|scope| {
        let sending = scope.spawn(|| cable.generate(LEN, 2_000_000));
        std::thread::sleep(Duration::from_secs(4));
        let _ = recorder.running.child.kill();
        let killed = SystemTime::now();
        let _ = recorder.running.child.wait();
        let _ = sending.join();
        killed
    });
    let start = Instant::now();
    let Ok(directory) = Directory::open_to_write(folder.path()) else { return };
    let Ok((catalogue, _)) = Catalogue::open(&directory, true) else { return };
    let took = start.elapsed();
    let newest = catalogue.sealed.iter().map(|entry| entry.times().1).max().unwrap_or_default();
    let killed: retrocap::time::Timestamp = killed.into();
    let missing = killed.since(newest).as_secs_f64();
    Row::new("kill -9: missing at the end", format_args!("{missing:.2} s")).aim("<= 2 s").print();
    let files = catalogue.sealed.len();
    Row::new(format_args!("recovery of {files} files"), format_args!("{took:.1?}")).aim("< 1 s").print();
}

/// A disk of 10 MB/s while more arrives.
fn slow_disk(cable: &Cable) {
    let group = Path::new("/sys/fs/cgroup/blkio/retrocap-bench");
    let what = "a disk of 10 MB/s";
    let Ok(folder) = tempfile::tempdir_in(".") else { return };
    let Some(device) = device_of(folder.path()) else { return skipped(what, "the disk has no number") };
    if std::fs::create_dir(group).is_err() {
        return skipped(what, "there is no cgroup blkio (version 1)");
    }
    let limit = std::fs::write(group.join("blkio.throttle.write_bps_device"), format!("{device} {SLOW_BYTES_S}"));
    if let (Ok(()), Some(recorder)) = (limit, recorder(cable, folder.path(), "0")) {
        let moved = std::fs::write(group.join("cgroup.procs"), recorder.running.child.id().to_string());
        let tasks = std::fs::read_to_string(group.join("tasks")).unwrap_or_default().lines().count();
        if moved.is_ok() && tasks > 0 {
            cable.generate(LEN, 250_000);
            let lost = recorder.count("/packets/kernel_dropped");
            let (rate, waits) = (recorder.count("/spool/written_bytes"), recorder.count("/spool/behind_bytes"));
            let figure = format!("lost {lost} in memory; {:.0} MB on disk, {:.0} MB wait", rate / 1e6, waits / 1e6);
            Row::new(what, figure).aim("lost 0").print();
            written(&recorder, Duration::from_secs(60));
            let lost = recorder.count("/spool/lost_packets");
            Row::new("the same, when it has caught up", format_args!("{lost} packets never written")).print();
        }
    } else {
        skipped(what, "the disk cannot be throttled");
    }
    let _ = std::fs::remove_dir(group);
}

/// Numbers of the disk that holds a folder.
fn device_of(folder: &Path) -> Option<String> {
    let output = Command::new("sh")
        .args(["-c", "lsblk -no MAJ:MIN \"$(df --output=source \"$0\" | tail -n 1)\" | head -n 1"])
        .arg(folder)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| text.contains(':'))
}

/// Writes a spool of real packets, plain and compressed, and asks it.
fn on_disk(packets: &RealPackets, name: &str, bytes: u64) {
    let Ok(folder) = tempfile::tempdir_in(".") else { return };
    let capture = folder.path().join("in.pcap");
    let Ok((pcap_bytes, seconds)) = packets.write(&capture, bytes) else { return skipped(name, "there is no room") };
    for level in ["0", "1"] {
        let directory = folder.path().join(format!("spool{level}"));
        let Some((cost, count)) = replayed(&capture, &directory, level) else { continue };
        let Ok(read) = Directory::open_to_read(&directory) else { continue };
        let Ok((catalogue, _)) = Catalogue::open(&read, false) else { continue };
        let index: u64 = catalogue.sealed.iter().map(|entry| entry.len - entry.footer.data_bytes).sum();
        #[expect(clippy::cast_precision_loss, reason = "shares of bytes")]
        let (len, index, pcap) = (catalogue.sealed_bytes() as f64, index as f64, pcap_bytes as f64);
        let kind = if level == "0" { "plain" } else { "gzip -1" };
        Row::new(
            format_args!("{name} {kind}: of plain pcap"),
            format_args!("{:.1} %, {:.2} s a GB", 100.0 * len / pcap, cost / (pcap / GB)),
        )
        .aim(if level == "0" { "" } else { "<= 55 %" })
        .print();
        Row::new(
            format_args!("{name} {kind}: index"),
            format_args!("{:.2} B a packet, {:.2} %", index / count, 100.0 * index / len),
        )
        .aim("<= 2 B, < 1 %")
        .print();
        ask(name, kind, &directory, seconds);
    }
    for (program, arguments) in [("gzip", ["-6", "-c"]), ("zstd", ["-1", "-c"])] {
        let shell = format!("{program} {} < '{}' | wc -c", arguments.join(" "), capture.display());
        let output = Command::new("sh").args(["-c", &shell]).output().ok();
        let packed = output.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse::<f64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "shares of bytes")]
        if let Some(packed) = packed {
            let share = 100.0 * packed / pcap_bytes as f64;
            Row::new(format_args!("{name}: the pcap itself"), "")
                .beside(format_args!("{program} {share:.1} %"), 1.0)
                .print();
        }
    }
}

/// Replays a capture into a spool. Returns the processor seconds, and the packets.
fn replayed(capture: &Path, directory: &Path, level: &str) -> Option<(f64, f64)> {
    let mut command = Command::new(RETROCAP);
    command.args(["run", "--speed", "max", "-m", "256MiB", "--compression-cpu", "0", "--replay"]).arg(capture);
    command.args(["--spool-size", "20G", "--spool-sessions", "off", "--spool-compression", level, "--spool"]);
    command.arg(directory);
    let kernel = kernel_cpu_s();
    let mut recorder = Recorder::start(command).map_err(|error| eprintln!("{error}")).ok()?;
    let (mut before, end) = (-1.0, Instant::now() + Duration::from_secs(600));
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let received = recorder.count("/packets/received");
        if (received - before).abs() < 0.5 && recorder.count("/spool/behind_packets") < 0.5 || Instant::now() > end {
            break;
        }
        before = received;
    }
    let cost = recorder.running.cpu_s() + kernel_cpu_s() - kernel;
    recorder.running.end();
    Some((cost, before))
}

/// The first byte of one host's minute, with and without the page cache.
fn ask(name: &str, kind: &str, directory: &Path, seconds: u64) {
    let Ok(empty) = tempfile::NamedTempFile::new() else { return };
    let header: Vec<u8> =
        [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1].iter().flat_map(|field| field.to_le_bytes()).collect();
    if std::fs::write(empty.path(), header).is_err() {
        return;
    }
    let mut command = Command::new(RETROCAP);
    command.args(["run", "-m", "64MiB", "--spool-sessions", "off", "--replay"]).arg(empty.path());
    command.arg("--spool").arg(directory);
    let start = Instant::now();
    let Ok(recorder) = Recorder::start(command) else { return };
    while recorder.count("/spool/files") < 0.5 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let ready = start.elapsed();
    let minute = |part: u64| {
        let since = FIRST_SECOND + seconds * part / 16;
        // Some host of that minute.
        format!("/v1/packets?from=disk&expr=net+172.16.0.0/12&since={since}&until={}", since + 60)
    };
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for part in 1..15 {
        forget(directory);
        cold.extend(recorder.ask(&minute(part)).ok().map(|answer| answer.first_s * 1e3));
        warm.extend(recorder.ask(&minute(part)).ok().map(|answer| answer.first_s * 1e3));
    }
    cold.retain(|ms| *ms > 0.0);
    warm.retain(|ms| *ms > 0.0);
    if cold.is_empty() {
        return skipped(&format!("{name} {kind}: one network, one minute"), "nothing was found");
    }
    let worst = cold.iter().copied().fold(0.0, f64::max);
    Row::new(
        format_args!("{name} {kind}: one network's minute"),
        format_args!("cold {:.1} ms (worst {worst:.1}), warm {:.1} ms", median(cold), median(warm)),
    )
    .aim("< 50 ms, < 10 ms")
    .print();
    Row::new(format_args!("{name} {kind}: ready after"), format_args!("{ready:.1?}")).aim("< 1 s").print();
}

/// Removes the files of a folder from the page cache.
fn forget(directory: &Path) {
    let Ok(files) = std::fs::read_dir(directory) else { return };
    for file in files.flatten() {
        let input = format!("if={}", file.path().display());
        let _ =
            Command::new("dd").args([&input, "iflag=nocache", "count=0", "status=none"]).stderr(Stdio::null()).status();
    }
}
