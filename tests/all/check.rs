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
