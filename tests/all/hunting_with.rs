//! `hunt --with`: the user's own program over the past. Suricata is no package of Debian 12, so a small script stands for it: it
//! takes a capture file on its standard input, and writes what Suricata's EVE has of an alert. tshark is the real one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::generate::START_S;
use crate::hunting::{Replaying, http, lines, said, text};
use crate::machine;

/// Runs `retrocap hunt` with this folder before all others that programs are looked for in.
fn hunt(folder: &Path, arguments: &[&str]) -> Output {
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrocap"));
    command.arg("hunt").args(arguments).env_remove("RETROCAP_SOCKET").env("TZ", "UTC").env("PATH", path);
    command.output().unwrap()
}

/// A program that does what `script` says, after it has read its arguments: `$folder` is that of its output.
fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    let head = "#!/bin/sh\narguments=\"$*\"\nwhile [ $# -gt 0 ]; do [ \"$1\" = -l ] && folder=$2; shift; done\n";
    std::fs::write(&path, format!("{head}{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn alerts_of_a_program_become_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let file = http(folder.path(), b"GET /secret HTTP/1.1\r\nHost: a.example\r\n\r\n", response, 20);
    let alert = |source: &str, signature: &str| {
        format!(
            "{{\"timestamp\":\"{START_S}.5\",\"event_type\":\"alert\",\"src_ip\":\"{source}\",\"src_port\":8080,\"dest_ip\":\"10.0.0.1\",\"dest_port\":40000,\"proto\":\"TCP\",\"alert\":{{\"signature\":\"{signature}\",\"signature_id\":7}}}}"
        )
    };
    let (one, other) = (alert("192.0.2.7", "A secret"), alert("192.0.2.99", "Elsewhere"));
    let flow = "{\"event_type\":\"stats\"}";
    program(
        folder.path(),
        "suricata",
        &format!(
            "[ \"$(od -An -tx4 -N4 | tr -d ' ')\" = a1b2c3d4 ] || exit 9\ncat >/dev/null\n\
             echo \"$arguments\" >'{}'\nprintf '%s\\n' '{flow}' '{one}' '{other}' >\"$folder/eve.json\"",
            folder.path().join("arguments").display()
        ),
    );
    let out = folder.path().join("out.pcapng");
    let recorder = Replaying::start(&file, &["-m", "16MiB"]);
    let of_recorder = ["--socket", &recorder.socket()].map(str::to_owned);
    let of_file = ["-r", text(&file)].map(str::to_owned);
    for of in [of_recorder, of_file] {
        let _ = std::fs::remove_file(&out);
        let arguments = [&of[0], &of[1], "--json", "-w", text(&out), "--with", "suricata", "--", "-S", "new.rules"];
        let output = hunt(folder.path(), &arguments);
        assert!(output.status.success(), "{}", said(&output));
        let found = lines(&output);
        assert_eq!(found.len(), 1, "{}", said(&output));
        assert_eq!((found[0]["rule"].as_str(), found[0]["kind"].as_str()), (Some("A secret"), Some("suricata")));
        assert_eq!(found[0]["flow"]["responder"]["port"], 8080);
        assert!(said(&output).contains("1 alerts name no session of the selection"), "{}", said(&output));
        assert_eq!(crate::generate::read(&out).0.len(), crate::generate::read(&file).0.len());
        let given = std::fs::read_to_string(folder.path().join("arguments")).unwrap();
        assert!(given.contains("pcap-file.buffer-size=0") && given.trim_end().ends_with("-S new.rules"), "{given}");
    }
}

#[test]
fn a_program_that_is_missing_or_fails_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = http(folder.path(), b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", 1000);
    program(folder.path(), "suricata", "echo 'E: no rules were loaded' >&2; exit 3");
    program(folder.path(), "zeek", "cat >/dev/null");
    for (arguments, code, words) in [
        (&["--with", "suricata"][..], 1, &["suricata failed", "no rules were loaded"][..]),
        (&["--with", "zeek"], 1, &["nothing matched"]),
        (&["--with", "tshark"], 2, &["-Y"]),
        (&["--text", "x", "--", "-S", "rules"], 2, &["--with"]),
        (&["--with", "snort"], 2, &["suricata"]),
        (&["--with", "zeek", "--text", "x"], 2, &["cannot be used with"]),
    ] {
        let output = hunt(folder.path(), &[&["-r", text(&file)], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        for word in words {
            assert!(said(&output).contains(word), "{arguments:?}: {}", said(&output));
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrocap"));
    command.args(["hunt", "-r", text(&file), "--with", "suricata"]).env("PATH", folder.path().join("empty"));
    let output = command.output().unwrap();
    assert!(said(&output).contains("install the package suricata"), "{}", said(&output));
}

#[test]
fn packets_of_a_display_filter_become_sessions() {
    let what = "packets_of_a_display_filter_become_sessions";
    if !machine::have(what, "tshark") {
        return;
    }
    let Some(file) = machine::capture(what, "http-files.pcap") else { return };
    let folder = tempfile::tempdir().unwrap();
    let filter = ["--with", "tshark", "--", "-Y", "http.request.method == GET"];
    let output = hunt(folder.path(), &[&["-r", text(&file), "--json"], &filter[..]].concat());
    let fields = ["-T", "fields", "-e", "tcp.dstport", "-Y", "http.request.method == GET"];
    let requests = Command::new("tshark").args(["-n", "-r", text(&file)]).args(fields).output().unwrap();
    let ports: Vec<u64> =
        String::from_utf8_lossy(&requests.stdout).lines().filter_map(|port| port.parse().ok()).collect();
    let found = lines(&output);
    let found: Vec<u64> = found.iter().filter_map(|one| one["flow"]["responder"]["port"].as_u64()).collect();
    assert!(!ports.is_empty() && found == ports, "{ports:?} {found:?}: {}", said(&output));
    assert!(lines(&output).iter().all(|one| one["kind"] == "tshark"));
}
