//! The audit log: who read what, and what happens when a read cannot be logged.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::running::{PROGRAM, Recorder, directory, eventually, have, reply};
use crate::generate;
use crate::namespaces::{Namespace, available};
use crate::service::asking;

const PACKETS: u64 = 500;

fn command(arguments: &[&str]) -> (Command, tempfile::TempDir) {
    let directory = directory();
    let capture = directory.path().join("capture.pcap");
    let mut bytes = generate::header();
    for number in 0..PACKETS {
        generate::packet(&mut bytes, number * 1000, 7, true, 100);
    }
    std::fs::write(&capture, bytes).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["run", "-m", "40M", "--speed", "max", "--replay"]).arg(capture).args(arguments);
    (command, directory)
}

fn lines(recorder: &Recorder) -> Vec<Value> {
    let text = std::fs::read_to_string(recorder.path("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[test]
fn every_read_is_logged() {
    let (command, directory) = command(&[]);
    let recorder = Recorder::start(command, directory);
    recorder.arrived(PACKETS);
    assert_eq!(lines(&recorder).len(), 0, "a status is no read");
    assert_eq!(recorder.packets(&["--since", "2026-11-22T10:00:00Z", "-c", "7", "udp"]).len(), 7);
    assert_eq!(recorder.ask(&["flows"]).code, 0);
    assert_eq!(recorder.ask(&["get", "tcp"]).code, 1);
    assert_eq!(recorder.ask(&["get", "tpc"]).code, 2);
    let lines = lines(&recorder);
    let ends: Vec<_> = lines.iter().filter(|line| line["event"] == "end").collect();
    assert_eq!((lines.len(), ends.len()), (6, 3), "{lines:?}");
    let first = ends[0];
    assert_eq!(
        (&first["action"], &first["packets"], &first["outcome"]),
        (&"packets".into(), &7.into(), &"complete".into())
    );
    assert_eq!(first["bytes"], 7 * 142);
    assert_eq!(first["query"]["expression"], "udp");
    assert_eq!(first["query"]["since"], "2026-11-22T10:00:00.000000000Z");
    assert_eq!(first["query"]["limit"], 7);
    assert_eq!((&first["from"], &first["who"]["uid"]), (&"socket".into(), &rustix::process::getuid().as_raw().into()));
    assert!(first["who"]["pid"].as_u64().is_some() && first["who"]["gid"].as_u64().is_some(), "{first}");
    if rustix::process::getuid().is_root() {
        assert_eq!(first["who"]["user"], "root");
    }
    assert_eq!((&ends[1]["action"], &ends[1]["sessions"]), (&"flows".into(), &1.into()));
    assert_eq!((&ends[2]["packets"], &ends[2]["outcome"]), (&0.into(), &"nothing matched".into()));
    let mode = std::fs::metadata(recorder.path("audit.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Requests for many selections, as alerts send them, and pins.
#[test]
fn selections_and_pins_are_logged() {
    let (command, directory) = command(&[]);
    let recorder = Recorder::start(command, directory);
    recorder.arrived(PACKETS);
    for (answer, filter) in [("file", ""), ("split", ""), ("lines", "tcp")] {
        let selection = serde_json::json!({ "host": "192.0.2.7", "since": "2026-01-01" });
        let body = serde_json::json!({ "selections": [selection], "answer": answer, "filter": filter }).to_string();
        let reply = asking::curl(recorder.socket(), "/v1/packets", &["-X", "POST", "-d", &body]);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(recorder.ask(&["pin", "--for", "1h", "port 53"]).code, 0);
    eventually("all have ended", || lines(&recorder).len() == 8);
    let lines = lines(&recorder);
    let ends: Vec<_> = lines.iter().filter(|line| line["event"] == "end").collect();
    for (end, outcome, packets) in
        [(ends[0], "complete", PACKETS), (ends[1], "complete", PACKETS), (ends[2], "nothing matched", 0)]
    {
        assert_eq!((&end["action"], &end["outcome"]), (&"packets".into(), &outcome.into()), "{end}");
        assert_eq!((&end["packets"], &end["query"]["selections_count"]), (&packets.into(), &1.into()), "{end}");
        assert!(end["query"]["selections"][0].as_str().unwrap().contains("192.0.2.7"), "{end}");
    }
    assert_eq!((&ends[3]["action"], &ends[3]["query"]["add"]["filter"]), (&"pin".into(), &"port 53".into()));
}

#[test]
fn the_log_is_rotated_after_privileges_are_dropped() {
    let test = "rotation without rights";
    if !available(test) || !have(test, &["setpriv"]) {
        return;
    }
    let (mut command, directory) = command(&["--user", "nobody", "--audit-log-size", "2K", "--audit-log-keep", "3"]);
    let log = directory.path().join("logs/audit.log");
    command.arg("--audit-log").arg(&log);
    // `Recorder::start` would name another log, and the last one given would win.
    command.arg("--socket").arg(directory.path().join("socket"));
    command.stdout(Stdio::null()).stderr(std::fs::File::create(directory.path().join("log")).unwrap());
    let mut child = command.spawn().unwrap();
    let socket = directory.path().join("socket");
    eventually("it listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    // The recorder listens before it has read the capture.
    eventually("it has packets", || asking::get(&socket, "/v1/packets?c=1").status == 200);
    for _ in 0..20 {
        assert_eq!(asking::get(&socket, "/v1/packets?c=1").status, 200);
    }
    let mut names: Vec<_> = log.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    // Four files of reads, and one of refusals.
    assert_eq!(names.len(), 5, "{names:?}");
    for name in &names {
        let found = std::fs::metadata(name).unwrap();
        assert!(found.len() <= 2048, "{name:?}");
        assert_eq!((found.permissions().mode() & 0o777, std::os::unix::fs::MetadataExt::uid(&found)), (0o600, 65534));
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid=1", "--regid=65534", "--clear-groups", "cat"]).arg(&log);
    let refused = reply(&other.output().unwrap());
    assert!(refused.code == 1 && refused.stdout.is_empty(), "{refused:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A recorder whose log is on a disk of 64 KiB, in a mount namespace of its own.
fn on_a_tiny_disk(policy: &str) -> Recorder {
    let directory = directory();
    let disk = directory.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let capture = directory.path().join("capture.pcap");
    let mut bytes = generate::header();
    for number in 0..PACKETS {
        generate::packet(&mut bytes, number * 1000, 7, true, 100);
    }
    std::fs::write(&capture, bytes).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64k tiny '{disk}' && exec '{PROGRAM}' run -m 40M --speed max --replay '{capture}' \
         --audit {policy} --audit-log '{disk}/audit.log' --socket '{socket}'",
        disk = disk.display(),
        capture = capture.display(),
        socket = directory.path().join("socket").display(),
    );
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).stdout(Stdio::null()).stderr(log);
    let recorder = Recorder { child: command.spawn().unwrap(), directory };
    eventually("it listens", || std::os::unix::net::UnixStream::connect(recorder.socket()).is_ok());
    recorder.arrived(PACKETS);
    recorder
}

#[test]
fn a_read_that_cannot_be_logged_is_refused() {
    let test = "a full disk under the audit log";
    if !available(test) || !have(test, &["unshare", "nsenter"]) {
        return;
    }
    let recorder = on_a_tiny_disk("required");
    let inside = |script: &str| {
        let script = script.replace("DISK", recorder.path("disk").to_str().unwrap());
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &recorder.child.id().to_string(), "sh", "-c", &script]);
        reply(&command.output().unwrap())
    };
    assert_eq!(recorder.packets(&[]).len() as u64, PACKETS);
    // `cat` fails when the disk is full, which is its purpose here.
    inside("cat /dev/zero > DISK/filler");
    // The last page of the log may still have room for some lines.
    let mut refused = recorder.ask(&["get", "-c", "1", "-w", "-"]);
    for _ in 0..50 {
        if refused.code != 0 {
            break;
        }
        refused = recorder.ask(&["get", "-c", "1", "-w", "-"]);
    }
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
    for says in ["audit log", "No space left on device", "--audit best-effort"] {
        assert!(refused.stderr.contains(says), "{refused:?}");
    }
    assert_eq!(asking::get(recorder.socket(), "/v1/packets").status, 503);
    assert_eq!(asking::get(recorder.socket(), "/v1/flows").status, 503);
    let health = asking::get(recorder.socket(), "/v1/health").text();
    assert!(health.contains("\"audit\"") && health.contains("nothing can be read"), "{health}");
    assert_eq!(recorder.ask(&["status"]).code, 0, "what is no read is answered");
    let whole = inside("tail -c 1 DISK/audit.log | od -An -c; grep -vc '^{.*}$' DISK/audit.log");
    assert_eq!(whole.stdout.split_whitespace().collect::<Vec<_>>(), ["\\n", "0"], "no half lines: {whole:?}");
    assert_eq!(inside("rm DISK/filler").code, 0);
    assert_eq!(recorder.packets(&[]).len() as u64, PACKETS, "with room again it is served again");
    let health = asking::get(recorder.socket(), "/v1/health").text();
    assert!(!health.contains("\"audit\""), "{health}");

    let recorder = on_a_tiny_disk("best-effort");
    let pid = recorder.child.id().to_string();
    let script = format!("cat /dev/zero > '{}'", recorder.path("disk/filler").display());
    let _ = Command::new("nsenter").args(["-m", "-t", &pid, "sh", "-c", &script]).output();
    for _ in 0..20 {
        assert_eq!(recorder.packets(&[]).len() as u64, PACKETS);
    }
    let metrics = asking::get(recorder.socket(), "/metrics").text();
    let failures = metrics.lines().find_map(|line| line.strip_prefix("retrocap_audit_failures_total ")).unwrap();
    assert!(failures.parse::<u64>().unwrap() > 0, "{metrics}");
}

#[test]
fn a_log_that_cannot_be_opened_stops_the_start_when_it_is_required() {
    let (mut command, directory) = command(&["--audit-log", "/proc/nowhere/audit.log"]);
    let refused = reply(&command.arg("--socket").arg(directory.path().join("socket")).output().unwrap());
    assert!(
        refused.code == 1 && refused.stderr.contains("--audit-log") && refused.stderr.contains("best-effort"),
        "{refused:?}"
    );
    let (mut command, directory) = self::command(&["--audit", "required"]);
    if !available("a required audit log") {
        return;
    }
    // A replay writes no log unless one is named.
    let refused = reply(&command.arg("--socket").arg(directory.path().join("socket")).output().unwrap());
    assert!(refused.code == 2 && refused.stderr.contains("--audit-log FILE"), "{refused:?}");
}

#[test]
fn a_read_by_another_user_is_logged_with_their_name() {
    let test = "names in the audit log";
    if !available(test) || !have(test, &["setpriv"]) {
        return;
    }
    let namespace = Namespace::new();
    let recorder = Recorder::live(&namespace, &["-m", "16M"]);
    // Let everybody connect.
    std::fs::set_permissions(recorder.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let program = recorder.path("retrocap");
    std::fs::copy(PROGRAM, &program).unwrap();
    let mut other = Command::new("setpriv");
    other.args(["--reuid=1", "--regid=1", "--clear-groups"]).arg(&program).args(["get", "--socket"]);
    let reply = reply(&other.arg(recorder.socket()).current_dir("/").output().unwrap());
    assert_eq!(reply.code, 1, "nothing was recorded: {reply:?}");
    let lines = lines(&recorder);
    let end = lines.last().unwrap();
    assert_eq!((&end["who"]["uid"], &end["who"]["user"]), (&1.into(), &"daemon".into()), "{end}");
    assert!(reply.stderr.contains("no packet") || reply.stderr.contains("nothing"), "{reply:?}");
}
