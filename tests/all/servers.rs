//! Promise 6 in typical deployments. `make retention ARGS=--deployments` prints the same figures for other seeds and other
//! elephants.

#[path = "../../benches/retention/deployments.rs"]
mod deployments;
#[path = "../../benches/retention/random.rs"]
#[allow(dead_code, clippy::cast_precision_loss, reason = "shared with the benchmark")]
mod random;
#[path = "../../benches/retention/shares.rs"]
#[allow(dead_code, clippy::cast_precision_loss, reason = "shared with the benchmark")]
mod shares;
#[path = "../../benches/retention/traffic.rs"]
mod traffic;

use retrocap::store::retention::Policy;

use deployments::{DEPLOYMENTS, Deployment};
use shares::{Elephant, Look, looks};

const BUDGET_BYTES: u64 = 24 << 20;
const SEED: u64 = 7;
/// Moments at which the share with an elephant is compared with the share without: half of it sent, and all of it.
const WHILE_S: [u64; 2] = [1501, 1502];

fn deployment(name: &str) -> Deployment {
    DEPLOYMENTS.into_iter().find(|deployment| deployment.name == name).unwrap()
}

fn run(deployment: Deployment, policy: Policy, elephant: Option<Elephant>) -> Vec<Look> {
    let looks = looks(deployment, SEED, BUDGET_BYTES, policy, elephant, &WHILE_S);
    println!("{}, {elephant:?}: {:.1?}", deployment.name, looks.last().unwrap());
    looks
}

/// Asserts the figures that hold in every deployment, without an elephant and beside one. `request_min` is the percentage
/// of sessions that have their first packet and the first with payload.
fn holds(name: &str, request_min: f64) {
    let deployment = deployment(name);
    let without = run(deployment, Policy::default(), None);
    let end = without.last().unwrap();
    let [first, request, kilobyte] = end.all.of_starts();
    assert!(first >= 98.0 && request >= request_min, "{name}: {first} % first packets, {request} % requests");
    assert!(kilobyte >= 50.0, "{name}: {kilobyte} % first kilobytes");
    assert!(end.disorder() <= 0.2, "{name}: an older quarter has more: {end:?}");
    compare(deployment, &without, Elephant { bytes: 200_000_000, mss: 14_480, bytes_per_s: 160_000_000 });
}

/// Asserts that an elephant takes nothing but bulk.
fn compare(deployment: Deployment, without: &[Look], elephant: Elephant) {
    let with = run(deployment, Policy::default(), Some(elephant));
    for (with, without) in with.iter().zip(without) {
        let (fall, of_a_quarter) = with.falls_from(without);
        assert!(fall <= 2.0, "{}, {elephant:?}: a share falls by {fall}: {without:?} {with:?}", deployment.name);
        // The oldest quarter alone loses first kilobytes to a slow elephant's own.
        assert!(of_a_quarter <= 4.0, "{}, {elephant:?}: {of_a_quarter}: {without:?} {with:?}", deployment.name);
        assert!(with.elephant <= 10.5, "{}: the elephant keeps {} % of the memory", deployment.name, with.elephant);
    }
}

#[test]
fn a_server() {
    holds("one server", 98.0);
}

#[test]
fn a_single_client() {
    holds("one client", 98.0);
}

#[test]
fn many_servers() {
    holds("sixty servers", 98.0);
}

#[test]
fn a_gateway() {
    holds("gateway", 98.0);
}

#[test]
fn a_resolver() {
    holds("resolver", 98.0);
}

#[test]
fn a_load_balancer() {
    holds("load balancer", 98.0);
}

#[test]
fn a_mail_relay() {
    holds("mail relay", 98.0);
}

#[test]
fn a_scanner_beside_a_server() {
    holds("scanner beside a server", 98.0);
}

#[test]
fn a_mirror_port() {
    // Of every sixth session only the server is seen. There the first payload is a packet of the response, which is as
    // long as a first kilobyte.
    holds("mirror port", 97.0);
}

#[test]
fn a_controller_beside_a_server() {
    let beside = deployment("controller beside a server");
    let without = run(Deployment { seconds: beside.seconds, ..deployment("one server") }, Policy::default(), None);
    let with = run(beside, Policy::default(), None);
    let [with, without] = [with, without].map(|mut looks| looks.pop().unwrap());
    assert_eq!(with.commands, [60, 60], "every write of an hour of polling");
    let (all, quarter) = with.falls_from(&without);
    let fall = all.max(quarter);
    assert!(fall <= 2.0, "polling takes {fall} points from the server's sessions: {without:?} {with:?}");
}

#[test]
fn elephants_of_any_size_take_nothing_but_bulk() {
    let deployment = deployment("one server");
    let without = run(deployment, Policy::default(), None);
    for (bytes, mss, bytes_per_s) in
        [(200_000_000, 1448, 10_000_000), (40_000_000, 536, 160_000_000), (20_000_000, 64_000, 100_000)]
    {
        compare(deployment, &without, Elephant { bytes, mss, bytes_per_s });
    }
}

#[test]
fn ample_memory_keeps_small_sessions_whole() {
    for deployment in [DEPLOYMENTS[0], DEPLOYMENTS[6]] {
        let look = looks(deployment, SEED, 241 << 20, Policy::default(), None, &[]).pop().unwrap();
        assert!(look.all.sessions > 8000 && look.all.small_whole >= 100.0, "{}: {look:?}", deployment.name);
    }
}

/// Without weights and shares, memory is a FIFO. Then no deployment keeps what the tests above ask for.
#[test]
fn without_the_rule_starts_are_lost_everywhere() {
    for deployment in DEPLOYMENTS {
        let look = looks(deployment, SEED, BUDGET_BYTES, Policy::steepness(0.0), None, &[]).pop().unwrap();
        println!("{}: {:.1?} {:?}", deployment.name, look.all, look.commands);
        assert!(look.all.request < 90.0, "{}: {:?}", deployment.name, look.all);
    }
}
