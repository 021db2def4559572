//! The systemd unit, as far as it can be tested where systemd does not run.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::namespaces::{Namespace, available};
use crate::service::asking::get;

use super::running::{PROGRAM, Recorder, Sender, directory, eventually, have, unanswered};
use super::supervisor::Supervisor;

const UNIT: &str = include_str!("../../../packaging/retrocap.service");
/// The highest acceptable exposure, on a scale to 10. Reading the state of the clock costs 0.1: `ProtectClock=` would
/// refuse it.
const EXPOSURE_MAX: f64 = 2.1;

fn analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze").args(arguments).env("SYSTEMD_COLORS", "0").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

/// The values of a key, in order.
fn values(key: &str) -> impl Iterator<Item = &str> {
    UNIT.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}

#[test]
fn systemd_accepts_the_unit_and_rates_its_exposure_low() {
    if !have("the unit", &["systemd-analyze"]) {
        return;
    }
    let directory = directory();
    let path = directory.path().join("retrocap.service");
    std::fs::write(&path, UNIT.replace("/usr/bin/retrocap", PROGRAM)).unwrap();
    let path = path.to_str().unwrap();
    let said = analyze(&["verify", "--man=no", path]);
    assert!(!said.contains("retrocap.service:"), "{said}");
    let said = analyze(&["security", "--offline=yes", path]);
    let exposure = said.split_once("exposure level for retrocap.service:").expect(&said).1;
    let exposure: f64 = exposure.split_whitespace().next().unwrap().parse().unwrap();
    eprintln!("exposure {exposure}");
    assert!(exposure <= EXPOSURE_MAX, "{said}");
}

/// The system calls in each set of this systemd version. Sets within sets are expanded.
fn sets() -> BTreeMap<String, BTreeSet<String>> {
    let text = analyze(&["syscall-filter", "--no-pager"]);
    let mut direct: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let word = line.trim();
        if line.starts_with('@') {
            current = word.to_owned();
        } else if line.starts_with(' ') && !word.is_empty() && !word.starts_with('#') {
            direct.entry(current.clone()).or_default().push(word.to_owned());
        }
    }
    fn all(of: &str, direct: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
        let members = direct.get(of).into_iter().flatten();
        members.flat_map(|name| if name.starts_with('@') { all(name, direct) } else { [name.clone()].into() }).collect()
    }
    direct.keys().map(|set| (set.clone(), all(set, &direct))).collect()
}

/// The system calls that the unit permits.
fn allowed() -> BTreeSet<String> {
    let sets = sets();
    let mut allowed = BTreeSet::new();
    for value in values("SystemCallFilter") {
        let (value, take) = value.strip_prefix('~').map_or((value, true), |value| (value, false));
        for name in value.split(' ') {
            let calls = sets.get(name).cloned().unwrap_or_else(|| [name.to_owned()].into());
            allowed = if take { &allowed | &calls } else { &allowed - &calls };
        }
    }
    allowed
}

#[test]
fn the_unit_permits_every_system_call_of_a_recorder() {
    let test = "system calls under the unit";
    if !available(test) || !have(test, &["systemd-analyze", "strace", "setpriv"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let folder = directory();
    // Other users may have no access to the folder where the tests are built, nor write where root may.
    let program = folder.path().join("retrocap");
    std::fs::copy(PROGRAM, &program).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let trace = folder.path().join("trace");
    let caps = values("AmbientCapabilities").next().unwrap().to_lowercase().replace("cap_", "+").replace(' ', ",");
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &far.name, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--no-new-privs", &format!("--inh-caps=-all,{caps}"), &format!("--ambient-caps={caps}")])
        .args([&format!("--bounding-set=-all,{caps}"), "strace", "-D", "-f", "-qq", "-o"])
        .arg(&trace)
        .arg(&program)
        .args(["run", "-m", "40M", "--workers", "2", "--promiscuous"]);
    // A supervisor keeps the history that the recorder leaves.
    let supervisor = Supervisor::new();
    std::os::unix::fs::chown(supervisor.path.parent().unwrap(), Some(65534), Some(65534)).unwrap();
    command.env("NOTIFY_SOCKET", &supervisor.path);
    let mut recorder = Recorder::start(command, folder);
    let mut sender = Sender::new(&near, "near");
    for _ in 0..10 {
        sender.send(&unanswered(100));
    }
    recorder.arrived(10);
    far.ip("link add later0 type veth peer name back0");
    assert_eq!(recorder.packets(&[]).len(), 10);
    assert_eq!(recorder.ask(&["flows", "--json"]).stdout.lines().count(), 1);
    for path in ["/metrics", "/v1/health", "/v1/openapi.json"] {
        assert_eq!(get(recorder.socket(), path).status, 200);
    }
    recorder.signal("-TERM");
    assert_eq!(recorder.child.wait().unwrap().code(), Some(0), "{}", recorder.log());

    let trace = std::fs::read_to_string(trace).unwrap();
    let used: BTreeSet<String> = trace
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    eventually("the history is left", || supervisor.kept() > 0);
    assert!(
        ["mmap", "poll", "accept4", "setsockopt", "memfd_create", "sendmsg"].iter().all(|name| used.contains(*name)),
        "{used:?}"
    );
    let refused: Vec<_> = used.difference(&allowed()).cloned().collect();
    assert!(refused.is_empty(), "{refused:?} of {used:?}");
}
