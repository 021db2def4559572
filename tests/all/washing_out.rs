//! Promise 6: no single host can push out the history of others. `make retention ARGS=--attacks` prints the traffic
//! volume that each attack needs.

#[path = "../../benches/retention/attacks.rs"]
#[allow(
    dead_code,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shared with the benchmark"
)]
mod attacks;

use attacks::{Attack, run};

/// Traffic volume that the attacker must be able to send without effect, in multiples of the memory budget.
const BUDGETS: f64 = 20.0;
const BUDGET_BYTES: u64 = 16 << 20;

/// Rate of the attack. At this rate 20 budgets take less than a minute.
const BITS_PER_S: u64 = 100_000_000;

fn holds(attack: Attack) {
    let outcome = run(attack, BUDGET_BYTES, BITS_PER_S, BUDGETS);
    println!("{}: {:.1} budgets, {} of {} left", attack.name(), outcome.budgets, outcome.left, outcome.watched);
    assert!(
        !outcome.washed_out && outcome.budgets >= BUDGETS,
        "{}: after {:.1} budgets {} of {} sessions have their first kilobyte",
        attack.name(),
        outcome.budgets,
        outcome.left,
        outcome.watched
    );
}

#[test]
fn spoofed_syns() {
    holds(Attack::SpoofedSyns);
}

#[test]
fn a_port_scan() {
    holds(Attack::PortScan);
}

#[test]
fn single_packets() {
    holds(Attack::SingleUdp);
}

#[test]
fn random_names() {
    holds(Attack::RandomNames);
}

#[test]
fn medium_sessions() {
    holds(Attack::MediumSessions);
}

#[test]
fn an_elephant() {
    holds(Attack::Elephant);
}

#[test]
fn fragments() {
    holds(Attack::Fragments);
}
