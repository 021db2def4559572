//! Restart without forgetting: the next recorder has what the previous one kept.

use retrocap::query::status::Status;

use crate::generate::Plain;
use crate::namespaces::{Namespace, available};

use super::running::{BEYOND_BUDGET, MIB, Recorder, Sender, datagram, directory, eventually, have, unanswered};
use super::supervisor::Supervisor;

/// Stops a recorder; returns its folder and its log.
pub(super) fn stop(mut recorder: Recorder) -> (tempfile::TempDir, String) {
    recorder.signal("-TERM");
    assert_eq!(recorder.child.wait().unwrap().code(), Some(0), "{}", recorder.log());
    let log = recorder.log();
    let folder = std::mem::replace(&mut recorder.directory, directory());
    std::fs::write(recorder.path("log"), "").unwrap();
    (folder, log)
}

/// All packets, and all sessions in a fixed order.
fn all(recorder: &Recorder) -> (Vec<Plain>, Vec<String>) {
    let reply = recorder.ask(&["flows", "--json"]);
    let mut flows: Vec<String> = reply.stdout.lines().map(str::to_owned).collect();
    assert!(reply.code == 0 && !flows.is_empty(), "{reply:?}");
    flows.sort();
    (recorder.packets(&[]), flows)
}

/// Sends `count` packets of 300 sessions.
fn talk(sender: &mut Sender, from: u32, count: u32, bytes: u16) {
    sender.send_paced(count, 20_000, |number, frame| datagram(from + number % 300, bytes, frame));
}

/// Runs a recorder that keeps some sessions, and stops it; returns the supervisor with its files, and the packets and
/// sessions it had.
fn left(far: &Namespace, near: &Namespace) -> (Supervisor, tempfile::TempDir, (Vec<Plain>, Vec<String>)) {
    let supervisor = Supervisor::new();
    let recorder = supervisor.record(far, directory(), &["-m", "24M"]);
    talk(&mut Sender::new(near, "near"), 0, 1000, 300);
    recorder.arrived(1000);
    let before = all(&recorder);
    let (folder, _) = stop(recorder);
    eventually("the history is left", || supervisor.kept() > 0);
    (supervisor, folder, before)
}

#[test]
fn the_history_survives_a_restart() {
    let test = "restart";
    if !available(test) || !have(test, &["bash"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let supervisor = Supervisor::new();
    let arguments = ["-m", "40M", "--workers", "2"];
    let recorder = supervisor.record(&far, directory(), &arguments);
    assert!(recorder.status().restart.is_none());
    let mut sender = Sender::new(&near, "near");
    talk(&mut sender, 0, 3000, 300);
    sender.send(&unanswered(100));
    let status = recorder.arrived(3001);
    let pinned = recorder.ask(&["pin", "udp", "--for", "1h"]);
    assert_eq!(pinned.code, 0, "{}", pinned.stderr);
    let before = all(&recorder);
    assert_eq!(before.0.len(), 3001);
    let (folder, log) = stop(recorder);
    assert!(log.contains("history handed over to the next recorder"), "{log}");
    eventually("the history is left", || supervisor.kept() > 0);

    let recorder = supervisor.record(&far, folder, &arguments);
    assert_eq!(all(&recorder), before, "{}", recorder.log());
    eventually("it lets go of what was taken over", || supervisor.kept() == 0);
    assert!(recorder.log().contains("3001 packets") && recorder.log().contains("taken over"), "{}", recorder.log());
    let again: Status = recorder.status();
    assert_eq!(again.packets, status.packets, "it counts on");
    assert_eq!(again.bytes, status.bytes);
    let restart = again.restart.unwrap();
    assert_eq!((restart.packets, restart.lost_packets, restart.pins, restart.gaps), (3001, 0, 1, 1));
    assert!(restart.problem.is_none() && restart.gap_s > 0.0 && restart.gap_s < 60.0, "{restart:?}");
    assert!(again.retained.whole_since >= restart.gap_until, "packets of the gap are not there");
    assert!(recorder.ask(&["pin", "--list"]).stdout.contains("udp"));
    let shown = recorder.ask(&["status"]).stdout;
    assert!(shown.contains("restarted  3,001 packets taken over; nothing recorded for"), "{shown}");
    // A query for the time of the gap says so.
    let (from, until) = (restart.gap_from.unwrap(), restart.gap_until.unwrap());
    let asked = recorder.ask(&["get", "--since", from.untrusted(), "--until", until.untrusted()]);
    assert!(asked.code == 1 && asked.stderr.contains("nothing was recorded from"), "{asked:?}");

    talk(&mut sender, 1000, 500, 300);
    recorder.arrived(3501);
    let after = all(&recorder);
    assert_eq!(after.0[..3001], before.0[..]);
    assert_eq!(after.0.len(), 3501);
    let asked = recorder.ask(&["get", "-w", recorder.path("all.pcapng").to_str().unwrap()]);
    assert!(asked.stderr.contains("nothing was recorded from"), "{asked:?}");
    // A second restart loses nothing either.
    let (folder, _) = stop(recorder);
    let recorder = supervisor.record(&far, folder, &arguments);
    assert_eq!(all(&recorder), after);
    assert_eq!(recorder.status().restart.unwrap().gaps, 2);
}

/// A UDP datagram between hosts of 192.0.2.0/24.
fn udp(from: (u8, u16), to: (u8, u16)) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, from.0, 192, 0, 2, to.0]);
    frame.extend([from.1.to_be_bytes(), to.1.to_be_bytes(), 12u16.to_be_bytes(), [0, 0]].concat());
    frame.extend([1, 2, 3, 4]);
    frame
}

#[test]
fn honest_13_6_a_session_has_the_same_responder_after_a_restart() {
    if !available("restart-servers") {
        return;
    }
    let (near, far) = Namespace::pair();
    let supervisor = Supervisor::new();
    let recorder = supervisor.record(&far, directory(), &["-m", "24M", "--workers", "2"]);
    let mut sender = Sender::new(&near, "near");
    let (server, stranger) = ((9, 40_009), (3, 40_003));
    // It answers other hosts, and then a session is seen from its middle.
    for client in 20..30 {
        sender.send(&udp((client, 50_000), server));
        sender.send(&udp(server, (client, 50_000)));
    }
    sender.send(&udp(server, stranger));
    recorder.arrived(21);
    let responder = |recorder: &Recorder| {
        let told = recorder.ask(&["flows", "--json", "host 192.0.2.3"]);
        let flow: serde_json::Value = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{told:?}"));
        (flow["responder"]["ip"].clone(), flow["responder"]["port"].clone(), flow["id"].clone())
    };
    let before = responder(&recorder);
    let (folder, _) = stop(recorder);
    let again = supervisor.record(&far, folder, &["-m", "24M", "--workers", "1"]);
    assert_eq!(responder(&again), before, "{}", again.log());
    assert_eq!((before.0, before.1), ("192.0.2.9".into(), 40_009.into()), "the server of the others");
}

#[test]
fn a_full_memory_is_taken_over_within_the_budget() {
    let test = "restart with a full memory";
    if !available(test) || !have(test, &["bash"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let supervisor = Supervisor::new();
    let recorder = supervisor.record(&far, directory(), &["-m", "40M"]);
    let mut sender = Sender::new(&near, "near");
    sender.send_paced(90_000, 15_000, |number, frame| datagram(number % 3000, 1000, frame));
    let status = recorder.arrived(90_000);
    assert!(status.packets.evicted > 0);
    let before = all(&recorder);
    let peak = recorder.resident_peak();
    let (folder, log) = stop(recorder);
    eprintln!("{}", log.lines().last().unwrap_or_default());
    assert!(peak < 40 * MIB + BEYOND_BUDGET);

    let recorder = supervisor.record(&far, folder, &["-m", "40M"]);
    eprintln!("{}", recorder.log().lines().find(|line| line.contains("taken over")).unwrap_or_default());
    let (packets, flows) = all(&recorder);
    assert!(packets == before.0 && flows == before.1, "{} of {}", packets.len(), before.0.len());
    assert!(recorder.resident_peak() < 40 * MIB + BEYOND_BUDGET);
    // Less memory takes over the most important part, and the log says so.
    let (folder, _) = stop(recorder);
    let recorder = supervisor.record(&far, folder, &["-m", "20M"]);
    let status = recorder.status();
    let restart = status.restart.unwrap();
    assert!(restart.lost_packets > 0 && restart.packets + restart.lost_packets == packets.len() as u64, "{restart:?}");
    assert!(recorder.log().contains("packets found no room"), "{}", recorder.log());
    assert!(recorder.resident_peak() < 20 * MIB + BEYOND_BUDGET);
    let (fewer, _) = all(&recorder);
    assert_eq!(fewer[fewer.len() - 1000..], packets[packets.len() - 1000..], "what is recent is there");
    sender.send_paced(1000, 15_000, |number, frame| datagram(number % 3000, 1000, frame));
    recorder.arrived(91_000);
}

#[test]
fn an_untrusted_history_is_not_taken_over() {
    let test = "damaged history";
    if !available(test) || !have(test, &["bash"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let (supervisor, mut folder, before) = left(&far, &near);
    let good = supervisor.contents();
    let changed = |at: usize| {
        let mut files = good.clone();
        files[0][at] ^= 2;
        files
    };
    let mut shorter = good.clone();
    shorter[0].truncate(5000);
    let reads = format!("this version reads format {} alone", retrocap::handover::chunk::FORMAT);
    let cases: [(Vec<Vec<u8>>, bool, &str); 7] = [
        // Byte 8 holds the version of the format.
        (changed(8), true, &reads),
        (changed(0), true, "it is not what a recorder leaves behind"),
        (changed(4000), true, "it is damaged: the content"),
        (shorter, true, "it is damaged: the length of a part"),
        ([good.clone(), good.clone()].concat(), true, "a part occurs twice"),
        (vec![Vec::new()], true, "it is damaged: the length of a part"),
        (good.clone(), false, "it is not sealed"),
    ];
    for (files, sealed, says) in cases {
        supervisor.exchange(&files, sealed);
        let recorder = supervisor.record(&far, folder, &["-m", "24M"]);
        let status = recorder.status();
        let problem = status.restart.as_ref().and_then(|restart| restart.problem.clone()).unwrap_or_default();
        assert!(problem.untrusted().contains(says), "{problem:?}, not {says}");
        assert!(
            recorder.log().contains("this one starts empty") && recorder.log().contains(says),
            "{}",
            recorder.log()
        );
        assert!(recorder.ask(&["status"]).stdout.contains("restarted  EMPTY: "));
        assert_eq!((status.packets.received, status.packets.retained), (0, 0));
        eventually("it is in nobody's way twice", || supervisor.kept() == 0);
        // The recorder records as usual.
        Sender::new(&near, "near").send(&unanswered(100));
        recorder.arrived(1);
        (folder, _) = stop(recorder);
    }
    supervisor.exchange(&good, true);
    let recorder = supervisor.record(&far, folder, &["-m", "24M"]);
    assert_eq!(all(&recorder), before, "nothing but what was done to it was wrong with it");
}

#[test]
fn without_a_supervisor_nothing_is_left() {
    if !available("restart without a supervisor") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "24M"]);
    Sender::new(&near, "near").send(&unanswered(100));
    recorder.arrived(1);
    let (_, log) = stop(recorder);
    assert!(!log.contains("history"), "{log}");
}

#[test]
fn a_recorder_without_privileges_hands_over_its_history() {
    let test = "restart within the sandbox";
    if !available(test) || !have(test, &["bash"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let supervisor = Supervisor::new();
    let arguments = ["-m", "24M", "--user", "nobody", "--sandbox", "required"];
    let recorder = supervisor.record(&far, directory(), &arguments);
    talk(&mut Sender::new(&near, "near"), 0, 500, 300);
    recorder.arrived(500);
    let before = all(&recorder);
    let (folder, _) = stop(recorder);
    eventually("the history is left", || supervisor.kept() > 0);
    let recorder = supervisor.record(&far, folder, &arguments);
    assert_eq!(all(&recorder), before, "{}", recorder.log());
}
