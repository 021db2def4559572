//! `retrocap check`: its findings, its advice, and its exit code.

use std::process::{Command, Output};

use serde_json::Value;

use crate::namespaces::{Namespace, available};

const PROGRAM: &str = env!("CARGO_BIN_EXE_retrocap");

fn check(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("check").args(arguments).output().unwrap()
}

fn findings(output: &Output) -> (bool, Vec<(String, String, String)>) {
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, key| finding[key].as_str().unwrap_or_default().to_owned();
    let list = document["findings"].as_array().unwrap().iter();
    let list =
        list.map(|f| (text(f, "check"), text(f, "result"), format!("{} -> {}", text(f, "found"), text(f, "advice"))));
    (document["ok"].as_bool().unwrap(), list.collect())
}

#[test]
fn a_wrong_configuration_is_an_error_with_its_lines() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("retrocap.toml");
    std::fs::write(&file, "snaplem = 5\n\nmemory = \"40 bananas\"\n").unwrap();
    let output = check(&["--json", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let (ok, findings) = findings(&output);
    let (_, result, text) = findings.iter().find(|(check, ..)| check == "configuration").unwrap();
    assert!(!ok && result == "error" && text.contains("--sample"), "{text}");
    assert!(text.contains("line 1: there is no key snaplem; did you mean snaplen?"), "{text}");
    assert!(text.contains("line 3: memory: cannot read the size \"40 bananas\""), "{text}");
    assert!(findings.len() > 5, "the machine is looked at all the same");
    let output = check(&["--config", "/nowhere/retrocap.toml"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && text.contains("cannot read /nowhere/retrocap.toml"), "{text}");
}

#[test]
fn the_printed_sample_is_the_packaged_file() {
    let sample = check(&["--sample"]);
    assert!(sample.status.success());
    let there = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/retrocap.toml")).unwrap();
    assert!(sample.stdout == there);
}

#[test]
fn problems_are_reported_and_a_machine_that_can_record_is_ok() {
    if !available("check") {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("link set lo up");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("retrocap.toml");
    let look = |text: &str| {
        let socket = directory.path().join("run/socket");
        std::fs::write(&file, format!("socket = {socket:?}\n{text}")).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.name, PROGRAM, "check", "--json", "--config"]).arg(&file);
        let output = command.output().unwrap();
        let (ok, findings) = findings(&output);
        assert_eq!(output.status.code(), Some(i32::from(!ok)), "{findings:?}");
        (ok, findings)
    };
    let (ok, found) = look("memory = \"32M\"");
    assert!(ok, "{found:?}");
    for check in [
        "configuration",
        "budget",
        "memory",
        "capture-rights",
        "memory-lock",
        "interfaces",
        "offloads",
        "clock",
        "user",
        "readers",
        "seccomp",
        "landlock",
        "reload",
        "disk",
    ] {
        let (_, result, text) = found.iter().find(|(name, ..)| name == check).unwrap_or_else(|| panic!("{check}"));
        assert_eq!(result == "ok", text.ends_with("-> "), "{check}: only what is not ok has advice: {text}");
    }
    assert!(!directory.path().join("run").exists(), "nothing is changed");
    for (text, check, result, words) in [
        ("memory = \"32M\"\ninterface = \"nope0\"", "interfaces", "error", "no interface is called nope0"),
        ("memory = \"1M\"", "budget", "error", "-m 16M"),
        ("memory = \"32M\"\nuser = \"nobody-at-all\"", "user", "error", "useradd"),
        ("memory = \"32M\"\nsandbox = \"off\"", "sandbox", "warning", "best-effort"),
        ("memory = \"32M\"\nfilter = \"prt 5\"", "configuration", "error", "syntax error"),
        ("memory = \"32M\"\npcap-over-ip = \"127.0.0.1:57012\"", "pcap-over-ip", "ok", "every user of this host"),
        (
            "memory = \"32M\"\npcap-over-ip = \"0.0.0.0:57012\"\nca = \"/nowhere/ca.pem\"",
            "certificates",
            "error",
            "retrocap certs server",
        ),
        // The directories that tempfile makes can be entered by their owner alone.
        ("memory = \"32M\"\nno-drop-privileges = true", "user", "warning", "privileges are kept"),
    ] {
        let (ok, found) = look(text);
        let (_, is, detail) = found.iter().find(|(name, ..)| name == check).unwrap();
        assert!(is == result && detail.contains(words), "{text}: {is}: {detail}");
        assert_eq!(ok, result != "error", "{text}");
    }
}

#[test]
fn the_disk_of_a_spool_is_measured_and_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("retrocap.toml");
    let spool = directory.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let look = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = check(&["--json", "--config", file.to_str().unwrap()]);
        let (_, findings) = findings(&output);
        let of_spool = findings.into_iter().filter(|(check, ..)| check == "spool");
        of_spool.map(|(_, result, text)| (result, text)).collect::<Vec<_>>()
    };
    let place = spool.display();
    let found = look(&format!("spool = \"{place}\"\nspool-size = \"64M\"\n"));
    assert!(found.iter().any(|(_, text)| text.contains("64 MiB of room")), "{found:?}");
    assert!(
        found.iter().any(|(_, text)| text.contains("it bears about") && text.contains("a sync takes")),
        "{found:?}"
    );
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0, "nothing is left there");
    // A directory that is not there yet is on the disk of the one above it.
    let found = look(&format!("spool = \"{place}/not/yet\"\n"));
    assert!(found.iter().any(|(_, text)| text.contains("it bears about")), "{found:?}");
    assert!(!spool.join("not").exists());
    assert!(look("memory = \"32M\"\n").is_empty(), "no spool, no finding");
    if std::path::Path::new("/dev/shm").is_dir() {
        let found = look("spool = \"/dev/shm\"\n");
        assert!(
            found.iter().any(|(result, text)| result == "warning" && text.contains("a reboot loses it")),
            "{found:?}"
        );
    }
}

#[test]
fn the_example_of_a_sensor_is_a_configuration() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/sensor.toml");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("retrocap.toml");
    let text = std::fs::read_to_string(example).unwrap();
    // The machine of this test has another disk.
    let text = text.replace("/var/lib/retrocap/spool", directory.path().join("spool").to_str().unwrap());
    std::fs::write(&file, text).unwrap();
    let (_, findings) = findings(&check(&["--json", "--config", file.to_str().unwrap()]));
    let of = |name: &str| findings.iter().find(|(check, ..)| check == name).unwrap();
    assert_eq!(of("configuration").1, "ok", "{findings:?}");
    assert!(of("interfaces").2.contains("enp1s0"), "it looks for the interface of the example: {findings:?}");
}
