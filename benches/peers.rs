//! Replay beside its peer: the same capture file through `retrocap replay` and `tcpdump -r FILE -w /dev/null`, in turn.
//!
//! The file has 1.6 million packets of 40 to 1500 bytes in 20,000 sessions, about 400 MB.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const PACKETS: u32 = 1_630_000;
const ROUNDS: usize = 5;

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the capture file");
    let file = folder.path().join("bench.pcap");
    let bytes = write_capture(&file).expect("400 MB of room for the capture file");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{PACKETS} packets, {} MB, {cores} cores, median of {ROUNDS} runs in turn", bytes / 1_000_000);
    if Command::new("tcpdump").arg("--version").output().is_err() {
        println!("SKIPPED: tcpdump is not installed, there is nothing to compare with");
        return;
    }
    let file = file.to_str().expect("a path in UTF-8");
    println!("{:<44} {:>9} {:>9} {:>7}", "command", "seconds", "tcpdump", "ratio");
    for (memory, cpu) in [("40MiB", "0"), ("1GiB", "0")] {
        let arguments = ["replay", file, "-m", memory, "--compression-cpu", cpu, "--json"];
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..=ROUNDS {
            ours.push(seconds(env!("CARGO_BIN_EXE_retrocap"), &arguments));
            theirs.push(seconds("tcpdump", &["-r", file, "-w", "/dev/null"]));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let name = format!("retrocap replay -m {memory} --compression-cpu {cpu}");
        println!("{name:<44} {ours:>9.3} {theirs:>9.3} {:>7.2}", ours / theirs);
    }
}

/// The middle of all but the first, which warms up.
fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn seconds(program: &str, arguments: &[&str]) -> f64 {
    let start = Instant::now();
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("the program runs").success(), "{program} {arguments:?}");
    start.elapsed().as_secs_f64()
}

/// Classic pcap: Ethernet, IPv4, UDP; every fourth packet is large.
fn write_capture(path: &Path) -> std::io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    let mut bytes = 24;
    out.write_all(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0])?;
    let mut random = 1u64;
    for i in 0..PACKETS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let session = u16::try_from((random >> 33) % 20_000).unwrap_or(0);
        let payload: u16 = if i % 4 == 0 { 700 } else { 18 + u16::from(random.to_le_bytes()[7] / 2) };
        let mut frame = [0x5a; 42 + 1500];
        frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        frame[16..18].copy_from_slice(&(28 + payload).to_be_bytes());
        frame[18..26].copy_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
        let [high, low] = session.to_be_bytes();
        frame[26..34].copy_from_slice(&[10, 0, high, low, 192, 0, 2, 1]);
        frame[34..38].copy_from_slice(&[4, 0, 0, 53]);
        frame[38..40].copy_from_slice(&(8 + payload).to_be_bytes());
        let len = u32::from(payload) + 42;
        let micros = u64::from(i) * 20;
        let seconds = u32::try_from(1_700_000_000 + micros / 1_000_000).unwrap_or(0);
        let micros = u32::try_from(micros % 1_000_000).unwrap_or(0);
        for field in [seconds, micros, len, len] {
            out.write_all(&field.to_le_bytes())?;
        }
        out.write_all(&frame[..len as usize])?;
        bytes += 16 + u64::from(len);
    }
    out.flush()?;
    Ok(bytes)
}
