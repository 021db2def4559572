//! When interfaces were not recorded, which of them are gone, and packets that are captured on several of them.

use crate::namespaces::{Namespace, available};

use super::restart::stop;
use super::running::{Recorder, Sender, directory, eventually, have, unanswered};
use super::supervisor::Supervisor;

/// The comments of an export, and everything else that is text in it.
fn texts(recorder: &Recorder, arguments: &[&str]) -> String {
    String::from_utf8_lossy(&std::fs::read(recorder.export("texts.pcapng", arguments)).unwrap()).into_owned()
}

/// The reasons of the gaps of an interface, each with whether it has ended.
fn gaps(recorder: &Recorder, name: &str) -> Vec<(String, bool)> {
    let status = recorder.status();
    assert!(status.interface_gaps_total >= status.interface_gaps.len() as u64);
    let of_it = status.interface_gaps.into_iter().filter(|gap| gap.interface == name);
    of_it.map(|gap| (gap.reason.untrusted().to_owned(), gap.until.is_some())).collect()
}

#[test]
fn honest_13_08_gaps_are_in_the_status_and_survive_a_restart() {
    let test = "gaps of interfaces";
    if !available(test) || !have(test, &["bash"]) {
        return;
    }
    let host = Namespace::new();
    for name in ["near0", "near1", "near2"] {
        host.ip(&format!("link add {name} type veth peer name {}", name.replace("near", "far")));
        host.ip(&format!("link set {name} up"));
        host.ip(&format!("link set {} up", name.replace("near", "far")));
    }
    let supervisor = Supervisor::new();
    let recorder = supervisor.record(&host, directory(), &["-m", "32M"]);
    for name in ["far0", "far1", "far2"] {
        Sender::new(&host, name).send(&unanswered(100));
    }
    recorder.arrived(6);
    let ended = |reason: &str| (reason.to_owned(), true);
    let lasts = |reason: &str| (reason.to_owned(), false);
    host.ip("link set near0 down");
    eventually("the gap began", || gaps(&recorder, "near0") == [lasts("down")]);
    host.ip("link set near0 up");
    eventually("the gap ended", || gaps(&recorder, "near0") == [ended("down")]);
    host.ip("link set near1 down");
    host.ip("link set near1 name other1");
    eventually("it was renamed", || gaps(&recorder, "near1") == [lasts("renamed")]);
    let renamed = recorder.status().interface_gaps.into_iter().find(|gap| gap.interface == "near1").unwrap();
    assert_eq!(renamed.renamed_to, Some("other1".into()));
    host.ip("link del near2");
    eventually("both ends are gone", || {
        gaps(&recorder, "near2") == [lasts("gone")] && gaps(&recorder, "far2") == [lasts("gone")]
    });
    let reply = |recorder: &Recorder| {
        let file = texts(recorder, &[]);
        for sentence in ["recorded from near0 from", "it was renamed to other1", "recorded from near2 from"] {
            assert!(file.contains(sentence), "{sentence}: {file}");
        }
        // A query that finds something has a note, and one of a single interface is about that one.
        let out = recorder.path("near0.pcapng");
        let asked = recorder.ask(&["get", "--interface", "near0", "-w", out.to_str().unwrap()]);
        assert!(asked.code == 0 && asked.stderr.contains("nothing was recorded from near0"), "{asked:?}");
        assert!(!texts(recorder, &["--interface", "near0"]).contains("near2"), "of another interface");
        let page = recorder.ask(&["status"]).stdout;
        assert!(page.contains("in recording of an interface, the last one: "), "{page}");
    };
    reply(&recorder);
    let gone = recorder.ask(&["interfaces", "--gone"]);
    assert!(gone.code == 0 && gone.stdout.starts_with("3 interfaces that are gone"), "{gone:?}");

    // An interface that goes down while nobody records has a gap from then on.
    let before: Vec<_> = recorder.status().interface_gaps;
    let (folder, _) = stop(recorder);
    host.ip("link set near0 down");
    let recorder = supervisor.record(&host, folder, &["-m", "32M"]);
    let status = recorder.status();
    assert!(status.restart.is_some() && status.packets.retained == 6, "{status:?}");
    assert_eq!(status.interface_gaps[..before.len()], before, "gaps are handed over");
    eventually("it is down", || gaps(&recorder, "near0") == [ended("down"), lasts("down")]);
    assert_eq!(gaps(&recorder, "near2"), [lasts("gone")], "no second gap");
    reply(&recorder);
    assert!(recorder.ask(&["interfaces", "--gone"]).stdout.starts_with("3 interfaces that are gone"));
}

#[test]
fn honest_13_11_interfaces_that_are_gone_are_listed_on_request() {
    if !available("interfaces that are gone") {
        return;
    }
    let host = Namespace::new();
    let recorder = Recorder::live(&host, &["-m", "32M"]);
    assert_eq!(recorder.ask(&["interfaces", "--gone"]).stdout, "no interface that was recorded is gone\n");
    let mut expected = 0;
    for number in 0..3 {
        let (here, there) = (format!("here{number}"), format!("there{number}"));
        host.ip(&format!("link add {here} type veth peer name {there}"));
        host.ip(&format!("link set {here} up"));
        host.ip(&format!("link set {there} up"));
        Sender::new(&host, &there).send(&unanswered(100 + number));
        expected += 2;
        recorder.arrived(expected);
    }
    host.ip("link del here0");
    host.ip("link set here1 down");
    host.ip("link set here1 name new1");
    let listed = || -> Vec<String> {
        let reply = recorder.ask(&["interfaces", "--gone", "--json"]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&reply.stdout).unwrap();
        assert!(rows.iter().all(|row| row["gone"].is_string() && row["packets"] == 1), "{rows:?}");
        let mut names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    eventually("they are listed", || listed() == ["here0", "here1", "there0"]);
    let text = recorder.ask(&["interfaces", "--gone"]).stdout;
    assert!(text.starts_with("3 interfaces that are gone") && text.matches("gone since").count() == 3, "{text}");
    // The page of the status names those that exist.
    let page = recorder.ask(&["status"]).stdout;
    assert!(page.contains("3 interfaces are gone: retrocap interfaces --gone") && !page.contains("here0 "), "{page}");
    assert!(page.contains("there1") && page.contains("new1"), "{page}");
    let status = recorder.status();
    let gone = status.interfaces.iter().filter(|interface| interface.gone.is_some()).count();
    assert_eq!(gone, 3, "{:?}", status.interfaces);
    // An interface that comes back is listed no longer.
    host.ip("link set new1 name here1");
    host.ip("link set here1 up");
    let is_gone = |name: &str| recorder.status().interfaces.iter().any(|i| i.name == name && i.gone.is_some());
    eventually("it is back", || !is_gone("here1") && is_gone("new1"));
}

/// A bridge shows each packet on its port and on itself.
#[test]
fn honest_13_08_packets_of_a_bridge_are_recognised_as_copies() {
    const PINGS: usize = 8;
    let test = "copies on a bridge";
    if !available(test) || !have(test, &["ping"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    for words in ["link add br0 type bridge", "link set far master br0", "link set br0 up"] {
        far.ip(words);
    }
    far.ip("addr add 10.9.8.1/24 dev br0");
    near.ip("addr add 10.9.8.2/24 dev near");
    let spool = tempfile::tempdir().unwrap();
    let with_spool = ["-m", "32M", "--spool", spool.path().to_str().unwrap(), "--spool-size", "64M"];
    let recorder = Recorder::live(&far, &with_spool);
    near.exec(&["ping", "-q", "-c", &PINGS.to_string(), "-i", "0.1", "-w", "20", "10.9.8.1"]);
    let all = || recorder.packets(&["icmp and host 10.9.8.2"]).len();
    // A request and its reply, each on the bridge and on the port.
    eventually("all are recorded", || all() == 4 * PINGS);
    let count = |interface: &str| recorder.packets(&["--interface", interface, "icmp"]).len();
    assert_eq!((count("br0"), count("far")), (2 * PINGS, 2 * PINGS));
    let out = recorder.path("out.pcapng");
    let get = |more: &[&str]| {
        let reply = recorder.ask(&[&["get", "-w", out.to_str().unwrap()], more, &["icmp and host 10.9.8.2"]].concat());
        assert_eq!(reply.code, 0, "{reply:?}");
        (crate::generate::read(&out).0, reply.stderr)
    };
    let (packets, note) = get(&[]);
    assert_eq!(packets.len(), 4 * PINGS);
    assert!(note.contains(&format!("{} packets were captured twice", 2 * PINGS)) && note.contains("--dedup"), "{note}");
    eventually("all are on disk", || {
        recorder.status().spool.is_some_and(|spool| spool.behind_packets == 0 && spool.written_packets > 0)
            && recorder.packets(&["--from", "disk", "icmp and host 10.9.8.2"]).len() == 4 * PINGS
    });
    for from in [&["--dedup", "--from", "memory"][..], &["--dedup", "--from", "disk"], &["--dedup"]] {
        let (packets, note) = get(from);
        assert!(note.contains("the copies were left out"), "{from:?}: {note}");
        let mut messages: Vec<&[u8]> = packets.iter().map(|packet| &packet.2[14..]).collect();
        assert_eq!(messages.len(), 2 * PINGS, "{from:?}");
        messages.sort();
        messages.dedup();
        assert_eq!(messages.len(), 2 * PINGS, "{from:?}: each message once, and none is missing");
    }
}
