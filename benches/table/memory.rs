//! The time to obtain memory: locked, as a recorder does at start, and on demand, as a replay does.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sys::{Memory, Residence};

use crate::scale::Scale;
use crate::table::{Row, median, section};

const WORDS: usize = (1 << 30) / 8;

/// How long free memory is left alone, so that a hypervisor that reclaims it has done so.
const REST: Duration = Duration::from_secs(5);

/// Measures 1 GiB compared with the kernel alone, which makes the same mapping resident by one call. Each is measured
/// once after the machine has rested, and then several times in direct succession.
pub(crate) fn memory(scale: Scale) {
    section(
        "memory",
        "1 GiB taken at start, in turn: the first time, after 5 s of rest, and the best in direct succession",
    );
    let (mut locked, mut plain, mut demanded, mut zeros) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut huge, mut is_locked) = (0, false);
    for round in 0..=scale.rounds() {
        let rest = || std::thread::sleep(if round == 0 { REST } else { Duration::ZERO });
        rest();
        let start = Instant::now();
        let memory = Memory::new(WORDS, Residence::Locked).expect("1 GiB of memory");
        locked.push(start.elapsed().as_secs_f64());
        (huge, is_locked) = (huge_mebibytes(), memory.is_locked());
        drop(memory);
        rest();
        let start = Instant::now();
        let memory = Memory::new(WORDS, Residence::OnDemand).expect("1 GiB of memory");
        memory.populate().expect("1 GiB of memory");
        plain.push(start.elapsed().as_secs_f64());
        zeros.push(write(&memory, 1));
        drop(memory);
        let memory = Memory::new(WORDS, Residence::OnDemand).expect("1 GiB of memory");
        // One word of each page is enough to make the page resident.
        demanded.push(write(&memory, 512));
    }
    let note = format!("{huge} MiB huge, {}", if is_locked { "locked" } else { "NOT locked (ulimit -l)" });
    let first = |seconds: &[f64]| seconds.first().copied().unwrap_or(0.0);
    let best = |seconds: &[f64]| seconds.iter().copied().fold(f64::INFINITY, f64::min);
    for (which, ours, theirs, aim) in
        [("first", first(&locked), first(&plain), ""), ("best", best(&locked), best(&plain), "< 1 s")]
    {
        Row::new(format_args!("taken locked, {which}: {note}"), format_args!("{ours:.3} s"))
            .beside(format_args!("mmap, populate {theirs:.3} s"), ours / theirs)
            .aim(aim)
            .print();
    }
    let (demanded, zeros) = (median(demanded), median(zeros));
    Row::new("taken on demand, a word of each page", format_args!("{demanded:.3} s"))
        .beside(format_args!("zeros written {zeros:.3} s"), demanded / zeros)
        .print();
}

fn write(memory: &Memory, step: usize) -> f64 {
    let start = Instant::now();
    memory.iter().step_by(step).for_each(|word| word.store(0, Ordering::Relaxed));
    start.elapsed().as_secs_f64()
}

/// The share of this process's memory that is in huge pages.
fn huge_mebibytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
