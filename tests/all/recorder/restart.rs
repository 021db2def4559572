//! Restart without forgetting: what one recorder has kept, the next one has.

use std::process::Command;

use retrocap::query::status::Status;

use crate::generate::Plain;
use crate::namespaces::{Namespace, available};

use super::running::{BEYOND_BUDGET, MIB, Recorder, Sender, datagram, directory, have, unanswered};
use super::supervisor::Supervisor;

/// Stops a recorder; how it was, and its log.
fn stop(mut recorder: Recorder) -> (tempfile::TempDir, String) {
    recorder.signal("-TERM");
    assert_eq!(recorder.child.wait().unwrap().code(), Some(0), "{}", recorder.log());
    let log = recorder.log();
    let folder = std::mem::replace(&mut recorder.directory, directory());
    std::fs::write(recorder.path("log"), "").unwrap();
    (folder, log)
}

/// All packets, and all sessions, in an order of their own.
fn all(recorder: &Recorder) -> (Vec<Plain>, Vec<String>) {
    let told = recorder.ask(&["flows", "--json", "--limit", "0"]);
    let mut flows: Vec<String> = told.stdout.lines().map(str::to_owned).collect();
    flows.sort();
    (recorder.packets(&[]), flows)
}

/// Sends `count` packets of some hundred sessions.
fn talk(sender: &mut Sender, from: u32, count: u32, bytes: u16) {
    sender.send_paced(count, 20_000, |number, frame| datagram(from + number % 300, bytes, frame));
}

#[test]
fn what_was_kept_is_there_after_a_restart() {
    let test = "restart";
    if !available(test) || !have(test, &["bash"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let supervisor = Supervisor::new();
    let recorder = supervisor.record(&far, directory(), &["-m", "40M", "--workers", "2"]);
    let mut sender = Sender::new(&near, "near");
    talk(&mut sender, 0, 3000, 300);
    sender.send(&unanswered(100));
    let status = recorder.arrived(3001);
    let pinned = recorder.ask(&["pin", "udp", "--for", "1h"]);
    assert_eq!(pinned.code, 0, "{}", pinned.stderr);
    let before = all(&recorder);
    assert_eq!(before.0.len(), 3001);
    let peak = recorder.resident_peak();
    let (folder, log) = stop(recorder);
    assert!(log.contains("history left to the recorder that comes next"), "{log}");
    assert!(supervisor.kept() > 0);

    let recorder = supervisor.record(&far, folder, &["-m", "40M", "--workers", "2"]);
    assert_eq!(all(&recorder), before, "{}", recorder.log());
    assert_eq!(supervisor.kept(), 0, "it lets go of what was taken over");
    let again: Status = recorder.status();
    eprintln!("{}", recorder.log());
    assert_eq!(again.packets.received, status.packets.received);
    eprintln!("{peak} {}", recorder.resident_peak());
    assert!(recorder.resident_peak() < 40 * MIB + BEYOND_BUDGET);
    talk(&mut sender, 1000, 500, 300);
    recorder.arrived(3501);
    let after = all(&recorder);
    assert_eq!(after.0[..3001], before.0[..]);
    assert_eq!(after.0.len(), 3501);
}
