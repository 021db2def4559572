//! Seeded simulation of the engine. A simple oracle that keeps lists checks the result after each step.
//!
//! The traffic has bursts, floods, polls, clock steps, suspended machines and packets out of order. Pins, policies and
//! filters change, readers stall, and segments are compressed. Each run prints its seed. `RETROCAP_SIM_SEED=N` runs
//! only that seed, and `RETROCAP_SIM_STEPS=N` sets the number of steps per run.

#[path = "sim/choice.rs"]
mod choice;
#[path = "sim/fifo.rs"]
mod fifo;
#[path = "sim/kept.rs"]
mod kept;
#[path = "sim/oracle.rs"]
mod oracle;
#[path = "sim/recorder.rs"]
mod recorder;
#[path = "sim/run.rs"]
mod run;
#[path = "sim/segments.rs"]
mod segments;
#[path = "sim/sessions.rs"]
mod sessions;
#[path = "sim/setup.rs"]
mod setup;
#[path = "sim/traffic.rs"]
mod traffic;

use run::Run;
use setup::Setup;

/// Number of seeds without `RETROCAP_SIM_SEED`.
const SEEDS: u64 = 3;
/// Number of steps per run without `RETROCAP_SIM_STEPS`.
const STEPS: u64 = 200;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

/// Runs each seed and prints the seed that fails.
fn for_seeds(what: &str, from: u64, run: impl Fn(u64, u64)) {
    let seeds = variable("RETROCAP_SIM_SEED").map_or(from..from + SEEDS, |seed| seed..seed + 1);
    let steps = variable("RETROCAP_SIM_STEPS").unwrap_or(STEPS);
    for seed in seeds {
        println!("{what}: seed {seed}, {steps} steps");
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed, steps)));
        if let Err(panic) = failed {
            println!("{what} FAILED: RETROCAP_SIM_SEED={seed} RETROCAP_SIM_STEPS={steps} cargo test --test sim");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn it_keeps_what_the_oracle_keeps() {
    for_seeds("oracle", 16, |seed, steps| Run::new(seed, &Setup::plain(seed)).go(steps));
}

#[test]
fn it_keeps_its_promises_while_it_compresses() {
    for_seeds("compression", 101, |seed, steps| Run::new(seed, &Setup::compressing(seed)).go(steps));
}

#[test]
fn it_keeps_its_promises_with_too_few_entries_for_sessions() {
    for_seeds("few entries", 201, |seed, steps| Run::new(seed, &Setup::few_entries(seed)).go(steps));
}

#[test]
fn the_same_packets_give_the_same_history() {
    for_seeds("determinism", 301, |seed, steps| {
        let kept = |burst: usize| {
            let mut run = Run::new(seed, &Setup { burst, ..Setup::everything(seed) });
            run.go(steps);
            run.kept()
        };
        let once = kept(1);
        assert!(!once.is_empty());
        assert!(once == kept(64) && once == kept(7), "it depends on how packets were bundled, or on chance");
    });
}
