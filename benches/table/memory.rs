//! How long it takes to take memory: locked, as a recorder does at start, and on demand, as a replay does.

use std::sync::atomic::Ordering;
use std::time::Instant;

use afpacket::{Memory, Residence};

use crate::Scale;
use crate::table::{Row, median, section};

const WORDS: usize = (1 << 30) / 8;

/// 1 GiB, beside writing zeros to memory that is there already: less than that no kernel can do.
pub(crate) fn memory(scale: Scale) {
    section("memory", "1 GiB taken at start; beside writing zeros to memory that is there");
    let (mut locked, mut demanded, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
    let (mut huge, mut is_locked) = (0, false);
    for _ in 0..scale.rounds() {
        let start = Instant::now();
        let memory = Memory::new(WORDS, Residence::Locked).expect("1 GiB of memory");
        locked.push(start.elapsed().as_secs_f64());
        (huge, is_locked) = (huge_mebibytes(), memory.is_locked());
        zeros.push(write(&memory, 1));
        drop(memory);
        let memory = Memory::new(WORDS, Residence::OnDemand).expect("1 GiB of memory");
        // One word of each page, as much as makes it resident.
        demanded.push(write(&memory, 512));
    }
    let zeros = median(zeros);
    let note = format!("{huge} MiB huge, {}", if is_locked { "locked" } else { "NOT locked (ulimit -l)" });
    for (what, seconds, aim) in [
        (format!("taken locked: {note}"), median(locked), "< 1 s"),
        ("taken on demand, a word of each page".to_owned(), median(demanded), ""),
    ] {
        Row::new(what, format_args!("{seconds:.3} s"))
            .beside(format_args!("{zeros:.3} s"), seconds / zeros)
            .aim(aim)
            .print();
    }
}

fn write(memory: &Memory, step: usize) -> f64 {
    let start = Instant::now();
    memory.iter().step_by(step).for_each(|word| word.store(0, Ordering::Relaxed));
    start.elapsed().as_secs_f64()
}

/// How much of this process is in huge pages.
fn huge_mebibytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
