//! What a recording service may still do, according to the kernel; and reloading inside the sandbox.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::namespaces::{Namespace, available};

use super::running::{PROGRAM, Recorder, Sender, datagram, directory, eventually, reply, unanswered};

/// A field of a /proc/PID/status file.
fn field(status: &Path, key: &str) -> String {
    let text = std::fs::read_to_string(status).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{key} in {text}")).trim().to_owned()
}

#[test]
fn the_kernel_confirms_what_the_status_says() {
    if !available("sandbox") {
        return;
    }
    let far = Namespace::new();
    let recorder = Recorder::live(&far, &["-m", "32M", "--workers", "2", "--user", "nobody", "--sandbox", "required"]);
    // A query starts a query thread.
    assert_eq!(recorder.ask(&["get"]).code, 1, "nothing was sent");
    let process = Path::new("/proc").join(recorder.child.id().to_string());
    let mut threads: BTreeMap<String, usize> = BTreeMap::new();
    for task in std::fs::read_dir(process.join("task")).unwrap() {
        let task = task.unwrap().path();
        let status = task.join("status");
        let name = std::fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{name}: {set}");
        }
        assert_eq!(field(&status, "Uid"), "65534\t65534\t65534\t65534", "{name}");
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{name}");
        assert_eq!(field(&status, "Seccomp"), "2", "{name}");
        // Three filters for all threads, one more for a role. A query's thread inherits the service's, which started
        // it.
        let filters = match name.as_str() {
            "retrocap" => "3",
            "retrocap-query" => "5",
            _ => "4",
        };
        // A thread that was not scheduled yet has not entered its role.
        eventually(&format!("{name} has {filters} filters"), || field(&status, "Seccomp_filters") == filters);
        // Signals go to the first thread only; the others block them.
        let held = u64::from_str_radix(&field(&status, "SigBlk"), 16).unwrap();
        let (hangup, terminate, interrupt) = (1 << 0, 1 << 14, 1 << 1);
        let of = hangup | terminate | interrupt;
        assert_eq!(held & of, if name == "retrocap" { 0 } else { of }, "{name}");
        *threads.entry(name).or_default() += 1;
    }
    for (name, count) in [
        ("retrocap", 1),
        ("retrocap-w0", 1),
        ("retrocap-w1", 1),
        ("retrocap-z0", 1),
        ("retrocap-z1", 1),
        ("interfaces", 1),
        ("retrocap-serve", 2),
        ("retrocap-audit", 1),
    ] {
        assert_eq!(threads.remove(name), Some(count), "{name}");
    }
    assert!(threads.remove("retrocap-query").is_some());
    assert!(threads.is_empty(), "threads of no known role: {threads:?}");
    // The files of an undumpable process belong to root.
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(process.join("environ")).unwrap()), 0);

    let status = recorder.status();
    let sandbox = status.sandbox.unwrap();
    assert_eq!((sandbox.mode.untrusted(), sandbox.uid, sandbox.gid), ("required", 65534, 65534));
    assert_eq!(sandbox.capabilities, "0000000000000000");
    assert!(sandbox.no_new_privs && !sandbox.dumpable && sandbox.missing.is_empty(), "{sandbox:?}");
    assert_eq!(sandbox.seccomp.roles, ["capture", "interfaces", "query", "serve", "audit", "spool"]);
    assert!(sandbox.seccomp.enforced && sandbox.landlock.enforced == "full", "{sandbox:?}");
    assert!(status.memory.resident_bytes > 32 << 20, "it still knows its own size");
}

#[test]
fn a_sandboxed_recorder_follows_interfaces_and_resolves_names() {
    if !available("interfaces under the sandbox") {
        return;
    }
    let far = Namespace::new();
    let recorder = Recorder::live(&far, &["-m", "32M", "--promiscuous", "--user", "nobody", "--sandbox", "required"]);
    far.ip("link add later0 type veth peer name back0");
    far.ip("link set back0 up");
    far.ip("link set later0 up");
    let mut sender = Sender::new(&far, "back0");
    let mut frame = Vec::new();
    datagram(1, 100, &mut frame);
    sender.send(&frame);
    recorder.arrived(2);
    // Names are looked up in files that the sandbox leaves readable.
    let reply = recorder.ask(&["get", "--interface", "later0", "port", "domain"]);
    assert!(reply.code == 0, "{reply:?}");
    let promiscuous = |name: &str| {
        let output = far.ip(&format!("-d link show {name}"));
        String::from_utf8(output.stdout).unwrap().contains("promiscuity 1")
    };
    eventually("it became promiscuous", || promiscuous("later0"));
    // The recorder reports what it cannot read, and nothing breaks.
    let reply = recorder.ask(&["status"]);
    assert!(reply.stdout.contains("uid 65534, no capability; system calls filtered by role"), "{reply:?}");
    assert!(reply.code == 0 && !recorder.log().contains("panicked"), "{reply:?} {}", recorder.log());
}

#[test]
fn a_missing_required_layer_is_reported() {
    let run = |arguments: &[&str]| {
        let directory = directory();
        let mut command = Command::new(PROGRAM);
        command.args(["run", "-m", "16M", "--replay", "/dev/null", "--socket"]).arg(directory.path().join("socket"));
        reply(&command.args(arguments).output().unwrap())
    };
    let reply = run(&["--sandbox", "required", "--no-drop-privileges"]);
    assert!(reply.code == 1 && reply.stderr.contains("the sandbox is required, but"), "{reply:?}");
    assert!(reply.stderr.contains("--no-drop-privileges") && reply.stderr.contains("best-effort"), "{reply:?}");
    let reply = run(&["--sandbox", "maybe"]);
    assert!(reply.code == 2 && reply.stderr.contains("required, best-effort, off"), "{reply:?}");
}

#[test]
fn a_recorder_without_a_sandbox_says_so() {
    if !available("no sandbox") {
        return;
    }
    let far = Namespace::new();
    let recorder = Recorder::live(&far, &["-m", "32M", "--sandbox", "off"]);
    let sandbox = recorder.status().sandbox.unwrap();
    assert_eq!((sandbox.mode.untrusted(), sandbox.landlock.enforced.untrusted()), ("off", "none"));
    let process = Path::new("/proc").join(recorder.child.id().to_string()).join("status");
    assert_eq!((field(&process, "Seccomp").as_str(), sandbox.seccomp.enforced), ("0", false));
    assert!(recorder.log().contains("no sandbox, as asked"), "{}", recorder.log());
}

/// A recorder with a configuration file in a folder of its own.
fn configured(far: &Namespace, text: &str) -> Recorder {
    let directory = directory();
    let etc = directory.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let file = etc.join("retrocap.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &far.name, PROGRAM, "run", "--user", "nobody", "--config"]).arg(&file);
    Recorder::start(command, directory)
}

/// Replaces the file by renaming, as editors do, and waits until a new line of the log contains `says`.
fn reload(recorder: &Recorder, text: &str, says: &str) {
    let before = recorder.log().len();
    std::fs::write(recorder.path("etc/new"), text).unwrap();
    std::fs::rename(recorder.path("etc/new"), recorder.path("etc/retrocap.toml")).unwrap();
    recorder.signal("-HUP");
    eventually(says, || recorder.log()[before..].contains(says));
}

#[test]
fn a_reload_changes_what_is_recorded_and_forgets_nothing() {
    if !available("reload") {
        return;
    }
    let far = Namespace::new();
    for number in 0..2 {
        far.ip(&format!("link add in{number} type veth peer name out{number}"));
        far.ip(&format!("link set in{number} up"));
        far.ip(&format!("link set out{number} up"));
    }
    let base = "memory = \"32M\"\nworkers = 2\n";
    let recorder = configured(&far, &format!("{base}interface = \"in0\"\nfilter = \"udp\"\n"));
    let mut senders = [Sender::new(&far, "out0"), Sender::new(&far, "out1")];
    let mut frame = Vec::new();
    datagram(1, 100, &mut frame);
    let mut send = || {
        for sender in &mut senders {
            sender.send(&frame);
            sender.send(&unanswered(100));
        }
    };
    send();
    let stored = |count: u64, of: u64| {
        let status = recorder.arrived(of);
        assert_eq!(status.packets.stored, count, "{:?}", status.packets);
    };
    stored(1, 2);

    // A filter that passes only what the old one did not, and one more interface.
    let new = format!("{base}interface = [\"in0\", \"in1\"]\nfilter = \"not udp\"\n[limits]\nconnections = 7\n");
    reload(&recorder, &new, "the configuration is reloaded: interface, filter, [limits] changed");
    let status = recorder.status();
    assert_eq!(status.capture.filter, Some("not udp".into()));
    assert_eq!(status.capture.interfaces, ["in0", "in1"]);
    // The workers apply the filter with the next block of their ring at the latest.
    std::thread::sleep(std::time::Duration::from_millis(300));
    send();
    stored(3, 6);
    assert_eq!(recorder.packets(&["udp"]).len(), 1, "what was recorded before is still there");
    assert_eq!(recorder.packets(&["not udp"]).len(), 2);

    // An invalid configuration changes nothing, and the message says where the mistake is.
    for (text, says) in [
        ("memory = \"32M\"\nfilter = \"udp prt\"\n", "syntax error"),
        ("memory = \"32M\"\nfiltre = \"udp\"\n", "line 2: there is no key filtre; did you mean filter?"),
        ("memory = 32M\n", "line 1"),
        ("interface = \"in0\"\nmemory = \"1M\"\nfilter = \"ip\"\n[limits]\nhead-timeout = 5\n", "line 5: head-timeout"),
    ] {
        reload(&recorder, text, "nothing was changed");
        eventually(says, || recorder.log().contains(says));
        assert_eq!(recorder.status().capture.filter, Some("not udp".into()), "{text}");
    }
    std::fs::remove_file(recorder.path("etc/retrocap.toml")).unwrap();
    recorder.signal("-HUP");
    eventually("a missing file", || recorder.log().contains("cannot read"));

    // Changes that need a restart are named (memory is the default now), and others beside them apply.
    let new = "workers = 1\nverbose = 1\n";
    reload(&recorder, new, "memory, workers changed too, which takes a restart");
    let status = recorder.status();
    assert_eq!((status.memory.budget_bytes, status.capture.workers), (32 << 20, 2));
    assert_eq!((status.capture.filter, status.capture.interfaces.len()), (None, 0));
    assert_eq!(recorder.ask(&["get", "-c", "1"]).code, 0);
    eventually("details are logged", || recorder.log().contains("DEBUG"));
    assert_eq!(status.packets.received, 6, "and nothing was forgotten");
}

#[test]
fn a_hangup_without_a_configuration_file_is_harmless() {
    if !available("hangup") {
        return;
    }
    let far = Namespace::new();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    // The socket exists before the recorder handles signals, but it answers only afterwards.
    recorder.status();
    recorder.signal("-HUP");
    eventually("it says what to do", || recorder.log().contains("start with --config"));
    assert_eq!(recorder.ask(&["status"]).code, 0);
}
