//! Retrocap as an interface of Wireshark, used by tshark.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::namespaces::{Namespace, available};

use super::certs::Pki;
use super::following::send;
use super::remote::{Listening, PACKETS};
use super::running::{PROGRAM, Recorder, Reply, Sender, directory, have, reply};

/// Runs a program with this home folder, in which Wireshark looks for extcap programs.
fn at_home(home: &Path, program: &str, arguments: &[&str]) -> Reply {
    reply(&Command::new(program).args(arguments).env("HOME", home).env_remove("RETROCAP_SOCKET").output().unwrap())
}

#[test]
fn wireshark_goes_back_in_time() {
    let test = "extcap";
    if !available(test) || !have(test, &["tshark"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    send(&mut sender, 0..40);
    recorder.arrived(40);
    let directory = directory();
    let home = directory.path();
    let socket = recorder.socket();
    let installed = at_home(home, PROGRAM, &["extcap", "--install", "--socket", socket.to_str().unwrap()]);
    assert_eq!(installed.code, 0, "{installed:?}");
    let list = at_home(home, "tshark", &["-D"]);
    assert!(list.stdout.contains("retrocap (Retrocap: go back in time)"), "{list:?}");
    assert!(at_home(home, "tshark", &["-i", "retrocap", "-L"]).stdout.contains("EN10MB"));

    let past = ["-n", "-i", "retrocap", "-o", "extcap.retrocap.follow:false"];
    let shown = |arguments: &[&str]| {
        let reply = at_home(home, "tshark", &[&past[..], &["-T", "fields", "-e", "eth.type"], arguments].concat());
        reply.stdout.lines().filter(|kind| *kind == "0x88b5").count()
    };
    assert_eq!(shown(&[]), 40);
    assert_eq!(shown(&["-f", "ether[17] < 10"]), 10, "the capture filter");
    assert_eq!(shown(&["-o", "extcap.retrocap.filter:ether[17] < 10", "-f", "ether[17] >= 5"]), 5, "both filters");
    assert_eq!(shown(&["-o", "extcap.retrocap.since:2020-01-01T00:00:00Z"]), 40);
    let wrong = at_home(home, "tshark", &[&past[..], &["-f", "prot 80"]].concat());
    assert!(wrong.stderr.contains("syntax error"), "{wrong:?}");
    let nobody = at_home(home, "tshark", &[&past[..], &["-o", "extcap.retrocap.socket:/dev/no-such-socket"]].concat());
    assert!(nobody.stderr.contains("no recorder at /dev/no-such-socket"), "{nobody:?}");

    // Capture packets to come, as Wireshark usually does.
    let reader = Command::new("tshark")
        .args(["-n", "-l", "-i", "retrocap", "-c", "50", "-a", "duration:60", "-T", "fields", "-e", "eth.type"])
        .env("HOME", home)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    send(&mut sender, 40..50);
    let output = reader.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 50);

    assert_eq!(at_home(home, PROGRAM, &["extcap", "--uninstall"]).code, 0);
    assert!(!at_home(home, "tshark", &["-D"]).stdout.contains("retrocap"));
    assert_eq!(at_home(home, PROGRAM, &["extcap", "--uninstall"]).code, 1, "nothing to remove");
}

#[test]
fn wireshark_goes_back_in_time_on_another_machine() {
    let test = "extcap and a recorder elsewhere";
    if !have(test, &["tshark"]) {
        return;
    }
    let pki = Pki::new();
    let (alice, watcher) = (pki.client("alice", "packets"), pki.client("watcher", "status"));
    let listening = Listening::new(&pki, "");
    let directory = directory();
    let home = directory.path();
    assert_eq!(at_home(home, PROGRAM, &["extcap", "--install"]).code, 0);
    // Pass the fields of Wireshark's dialog. The recorder's address overrules the socket field.
    let ask = |certs: &Path, more: &[&str]| {
        let preference = |name: &str, value: String| ["-o".to_owned(), format!("extcap.retrocap.{name}:{value}")];
        let file = |name: &str| certs.join(name).display().to_string();
        let preferences = [
            preference("follow", "false".to_owned()),
            preference("since", "2020-01-01".to_owned()),
            preference("socket", "/dev/no-such-socket".to_owned()),
            preference("remote", format!("https://localhost:{}", listening.port)),
            preference("ca", file("ca.pem")),
            preference("cert", file("client.pem")),
            preference("key", file("client.key")),
        ];
        let preferences: Vec<&str> = preferences.as_flattened().iter().map(String::as_str).collect();
        let fields = ["-n", "-i", "retrocap", "-T", "fields", "-e", "udp.port"];
        at_home(home, "tshark", &[&fields[..], &preferences, more].concat())
    };
    let reply = ask(&alice, &[]);
    assert_eq!(reply.stdout.lines().filter(|line| line.contains("53")).count() as u64, PACKETS, "{}", reply.stderr);
    assert_eq!(ask(&alice, &["-f", "udp port 7"]).stdout.lines().count() as u64, PACKETS / 10);
    // A refused client sees the reason where Wireshark shows it.
    let refused = ask(&watcher, &[]);
    assert!(refused.stderr.contains("watcher") && refused.stderr.contains("takes the role packets"), "{refused:?}");
    let nobody = ask(Path::new("/nowhere"), &[]);
    assert!(nobody.stderr.contains("cannot read /nowhere/"), "{nobody:?}");
}

#[test]
fn the_extcap_protocol_is_answered_as_wireshark_expects() {
    let directory = directory();
    let home = directory.path();
    let ask = |arguments: &[&str]| at_home(home, PROGRAM, &[&["extcap"], arguments].concat());
    let interfaces = ask(&["--extcap-interfaces", "--extcap-version=4.4"]);
    assert!(
        interfaces.stdout.contains("interface {value=retrocap}{display=Retrocap: go back in time}"),
        "{interfaces:?}"
    );
    let config = ask(&["--extcap-config", "--extcap-interface", "retrocap"]).stdout;
    for field in ["--since", "--filter", "--follow", "--socket", "--remote", "--ca", "--cert", "--key"] {
        assert!(
            config.lines().any(|line| line.starts_with("arg ") && line.contains(&format!("{{call={field}}}"))),
            "{config}"
        );
    }
    // Any output means that the filter is invalid.
    assert_eq!(ask(&["--extcap-interface", "retrocap", "--extcap-capture-filter", "port 80"]).stdout, "");
    assert_ne!(ask(&["--extcap-capture-filter", "prot 80", "--extcap-interface", "retrocap"]).stdout, "");
    let other = ask(&["--extcap-dlts", "--extcap-interface", "eth0"]);
    assert!(other.code == 2 && other.stderr.contains("there is retrocap"), "{other:?}");
    let alone = ask(&[]);
    assert!(alone.code == 2 && alone.stderr.contains("--install"), "{alone:?}");
    // A file of somebody else stays in place.
    let folder = home.join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("retrocap"), "#!/bin/sh\n").unwrap();
    for verb in ["--install", "--uninstall"] {
        let refused = ask(&[verb, "--folder", folder.to_str().unwrap()]);
        assert!(refused.code == 1 && refused.stderr.contains("not ours"), "{refused:?}");
    }
    assert_eq!(std::fs::read_to_string(folder.join("retrocap")).unwrap(), "#!/bin/sh\n");
}
