//! A seeded simulation of the medium runs the real spool against an oracle: what was reported as durable is there after
//! a crash, nothing invented appears, and nothing is there twice.
//!
//! `SPOOL_SEEDS=N` runs N seeds of each kind instead of the default.

#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/run.rs"]
mod run;

use disk::Faults;
use run::{Plan, Run};
use spool::writer::SizeLimit;

const MIB: u64 = 1 << 20;

fn seeds() -> std::ops::Range<u64> {
    let seeds = std::env::var("SPOOL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    0..seeds
}

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        compressed: seed % 2 == 1,
        encrypted: seed % 4 >= 2,
        limit: SizeLimit::Bytes(64 * MIB),
        capacity: 256 * MIB,
        faults: Faults { short_read: 5, ..Faults::default() },
        rounds: 3,
        packets: 2500,
        power: true,
    }
}

#[test]
fn power_loss_costs_nothing_that_was_durable() {
    let mut durable = 0;
    for seed in seeds() {
        let mut run = Run::new(plan(seed));
        run.go();
        durable += run.durable.len();
    }
    assert!(durable > 10_000, "{durable}");
}

#[test]
fn a_killed_process_costs_nothing_that_was_durable() {
    for seed in seeds() {
        Run::new(Plan { power: false, ..plan(1000 + seed) }).go();
    }
}

#[test]
fn a_failing_disk_costs_nothing_that_was_durable() {
    for seed in seeds() {
        let faults = Faults { append: 30, sync: 30, truncate: 5, create: 10, ..Faults::default() };
        Run::new(Plan { faults, ..plan(2000 + seed) }).go();
    }
}

#[test]
fn a_full_disk_is_emptied_from_its_old_end() {
    let mut removed = 0;
    for seed in seeds() {
        let mut run = Run::new(Plan { limit: SizeLimit::Bytes(4 * MIB), packets: 6000, ..plan(3000 + seed) });
        run.go();
        removed += run.disk.removed().len();
        let used: u64 = run.disk.contents().values().map(|content| content.len() as u64).sum();
        assert!(used <= 4 * MIB, "seed {seed}: {used} bytes");
    }
    assert!(removed > 0);
}

#[test]
fn a_file_system_that_others_fill_costs_old_files_first() {
    for seed in seeds() {
        let capacity = 8 * MIB;
        let mut run =
            Run::new(Plan { limit: SizeLimit::Percent(90.0), capacity, packets: 6000, rounds: 1, ..plan(4000 + seed) });
        run.disk.set_others(capacity / 4);
        run.go();
        run.disk.set_others(capacity * 3 / 4);
        run.go();
        let used: u64 = run.disk.contents().values().map(|content| content.len() as u64).sum();
        assert!(used + capacity * 3 / 4 <= capacity, "seed {seed}");
        // There is no room at all, and nothing to remove: packets are refused, and no file is left behind broken.
        run.disk.set_others(capacity);
        run.go();
        assert!(run.refused() > 0, "seed {seed}");
    }
}

#[test]
fn a_flipped_bit_is_found_and_costs_only_what_it_is_in() {
    let mut found = 0;
    for seed in seeds() {
        let mut run = Run::new(Plan { rounds: 1, ..plan(5000 + seed) });
        run.go();
        found += run.flip_bits(20);
    }
    assert!(found > 50, "{found}");
}
