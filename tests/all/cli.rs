//! The command line as scripts and people use it: exit codes, messages, closed pipes, full disks.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::generate;

pub(crate) fn retrocap() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retrocap"));
    command
        .env_remove("RETROCAP_SOCKET")
        .stdin(Stdio::null())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    retrocap().args(arguments).output().unwrap()
}

/// Exit code, stdout and stderr.
pub(crate) fn reply(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_usage_error_shows_examples_and_exits_2() {
    for (arguments, words) in [
        (&[][..], &["Usage:"][..]),
        (&["record"], &["unrecognized subcommand", "--help"]),
        (&["get", "--bogus"], &["--bogus"]),
        (&["get", "prot", "80"], &["\"prot 80\"", "syntax error", "try 'port 53' or 'host 10.0.0.5 and not port 22'"]),
        (&["get", "--since", "soon"], &["the time \"soon\"", "10m", "2026-11-22T10:00:00Z"]),
        (&["get", "--until", "1600-01-01"], &["1600-01-01", "between 1970 and 2554"]),
        (&["get", "--since", "1m", "--until", "5m"], &["swap them"]),
        (&["get", "--around", "1m", "--window", "wide"], &["\"wide\"", "90s", "2h30m"]),
        (&["get", "--window", "5s"], &["--around"]),
        (&["get", "-c", "many"], &["many"]),
        (&["get", "--format", "csv"], &["pcapng", "pcap"]),
        (&["get", "--nano", "--micro"], &["cannot be used with"]),
        (&["get", "--flow", "10.0.0.1"], &["\"10.0.0.1\"", "10.0.0.5:51234 192.0.2.7:443 tcp"]),
        (&["get", "--community-id", "1:x"], &["1:LQU9qZlK", "--flow"]),
        (&["get", "--json"], &["-w odd.pcapng", "flows --json"]),
        (&["flows", "--sort", "colour"], &["start", "duration"]),
        (&["flows", "--by", "colour"], &["host", "peer", "port"]),
        (&["flows", "--by", "host", "--sort", "duration"], &["bytes, out, in"]),
        (&["flows", "--csv", "--json"], &["cannot be used with"]),
        (&["flows", "--address", "10.0.0.0/33"], &["10.0.0.0/8"]),
        (&["flows", "--limit", "0"], &["0"]),
        (&["completions", "csh"], &["bash", "zsh", "fish"]),
        (&["flows", "not port"], &["try 'port 53'"]),
        (&["status", "extra"], &["extra"]),
        (&["pin", "host 10.0.0.5"], &["--for 2h", "--list"]),
        (&["pin", "host 10.0.0.5", "--for", "ever"], &["\"ever\"", "2h30m"]),
        (&["replay"], &["<FILE>"]),
        (&["replay", "x", "-m", "40 bananas"], &["\"40 bananas\"", "40MiB", "1%"]),
        (&["replay", "x", "-m", "0%"], &["0%", "1%"]),
        (&["replay", "x", "-m", "5M"], &["5 MiB", "smallest budget that works is 16 MiB", "-m 16M"]),
        (&["replay", "x", "-m", "9999T"], &["more than this machine has", "-m 1%"]),
        (&["replay", "x", "--compression-cpu", "200"], &["200", "try 10"]),
        (&["replay", "x", "-f", "prot"], &["try 'port 53'"]),
        (&["replay", "x", "-w", "-", "--json"], &["both want stdout"]),
        (&["run", "-m", "1M"], &["smallest budget", "-m 16M"]),
        (&["run", "--speed", "max"], &["--replay"]),
        (&["run", "--replay", "x", "--speed", "warp"], &["\"warp\"", "max"]),
        (&["run", "-f", "prot"], &["try 'port 53'"]),
        (&["run", "--workers", "0"], &["0"]),
        (&["-v", "-q", "status"], &["cannot be used with"]),
    ] {
        let (code, stdout, stderr) = reply(&run(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?} does not say {word:?}: {stderr}");
        }
    }
}

#[test]
fn a_wrong_configuration_names_line_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("retrocap.toml");
    std::fs::write(&path, "snaplen = 96\nmemry = \"40M\"\n").unwrap();
    let (code, _, stderr) = reply(&run(&["run", "--config", path.to_str().unwrap()]));
    assert!(code == 2 && stderr.contains("line 2") && stderr.contains("memry"), "{code}: {stderr}");
    let (code, _, stderr) = reply(&run(&["run", "--config", "/nowhere/retrocap.toml"]));
    assert!(code == 1 && stderr.contains("/nowhere/retrocap.toml"), "{code}: {stderr}");
}

#[test]
fn a_failure_exits_1_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let stale = directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let text = directory.path().join("text.pcap");
    std::fs::write(&text, "this is no capture at all, it is a text\n").unwrap();
    for (arguments, words) in [
        (&["get", "--socket", "/nowhere/r.sock"][..], &["no recorder at /nowhere/r.sock", "sudo retrocap run"][..]),
        (&["status", "--socket", stale.to_str().unwrap()], &["left its socket behind", "sudo retrocap run"]),
        (&["replay", "/nowhere/x.pcap"], &["/nowhere/x.pcap", "No such file"]),
        (&["replay", text.to_str().unwrap()], &["not a capture file", "expected pcap or pcapng"]),
        (&["run", "--replay", "/nowhere/x.pcap", "--socket", "/nowhere/r.sock"], &["/nowhere/"]),
    ] {
        let (code, _, stderr) = reply(&run(arguments));
        assert_eq!(code, 1, "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?} does not say {word:?}: {stderr}");
        }
    }
}

#[test]
fn the_help_of_each_verb_has_three_examples() {
    for verb in [
        "run",
        "get",
        "flows",
        "status",
        "pin",
        "replay",
        "interfaces",
        "push",
        "extcap",
        "check",
        "evidence",
        "completions",
        "man",
    ] {
        let (code, stdout, stderr) = reply(&run(&[verb, "--help"]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{verb}");
        let (_, examples) = stdout.split_once("Examples:").unwrap_or_else(|| panic!("{verb}: {stdout}"));
        let own = examples.lines().filter(|line| line.contains("retrocap ") && line.starts_with("  ")).count();
        assert!(own >= 3, "{verb}: {examples}");
    }
    let (code, stdout, _) = reply(&run(&["--version"]));
    assert!(code == 0 && stdout.starts_with(concat!("retrocap ", env!("CARGO_PKG_VERSION"))), "{stdout}");
}

/// A capture that is many times as large as a pipe's buffer.
fn capture(directory: &Path) -> String {
    let path = directory.join("in.pcap");
    std::fs::write(&path, generate::traffic(4 << 20, 7)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_closed_pipe_is_success() {
    let directory = tempfile::tempdir().unwrap();
    let capture = capture(directory.path());
    let mut child = retrocap()
        .args(["replay", &capture, "-m", "16M", "-w", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
    let (code, _, stderr) = reply(&child.wait_with_output().unwrap());
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn a_full_disk_is_reported_and_exits_1() {
    let directory = tempfile::tempdir().unwrap();
    let capture = capture(directory.path());
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    for (arguments, stdout) in
        [(&["-w", "/dev/full"][..], Stdio::piped()), (&["-w", "-"], full()), (&["--json"], full()), (&[], full())]
    {
        let mut command = retrocap();
        command.args(["replay", &capture, "-m", "16M"]).args(arguments).stdout(stdout).stderr(Stdio::piped());
        let (code, _, stderr) = reply(&command.spawn().unwrap().wait_with_output().unwrap());
        assert_eq!(code, 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains("No space left on device"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn devices_and_pipes_are_written_to_and_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let capture = capture(directory.path());
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::read(fifo).unwrap().len()
    });
    assert_eq!(reply(&run(&["replay", &capture, "-m", "16M", "-q", "-w", fifo.to_str().unwrap()])).0, 0);
    assert!(reader.join().unwrap() > 3 << 20);
    assert!(!fifo.metadata().unwrap().is_file());
    assert_eq!(reply(&run(&["replay", &capture, "-m", "16M", "-q", "-w", "/dev/null"])).0, 0);
    assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
    assert_eq!(reply(&run(&["replay", &capture, "-w", directory.path().to_str().unwrap()])).0, 2);
}

/// A recorder that serves a replayed capture. It is killed on drop.
pub(crate) struct Recorder(Child);

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Recorder {
    /// Starts it with 32 MiB, and waits until it has read everything.
    pub(crate) fn start(capture: &str, socket: &str, packets: u64) -> Self {
        Self::with(capture, socket, packets, &["-m", "32M"])
    }

    /// Starts it with these arguments, and waits until it has read everything.
    pub(crate) fn with(capture: &str, socket: &str, packets: u64, arguments: &[&str]) -> Self {
        let mut command = retrocap();
        command.args(["run", "--replay", capture, "--speed", "max", "-q", "--socket", socket]).args(arguments);
        let recorder = Self(command.spawn().unwrap());
        let start = Instant::now();
        loop {
            let (_, stdout, stderr) = reply(&run(&["status", "--json", "--socket", socket]));
            let status: serde_json::Value = serde_json::from_str(&stdout).unwrap_or_default();
            if status["packets"]["received"].as_u64() == Some(packets) {
                return recorder;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the recorder does not begin: {stdout}{stderr}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_past_can_be_queried() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let capture = capture(directory.path());
    let (mut sent, _) = generate::read(Path::new(&capture));
    sent.sort_by_key(|packet| packet.0);
    let socket = path("r.sock");
    let _recorder = Recorder::start(&capture, &socket, sent.len() as u64);
    let ask = |arguments: &[&str]| reply(&run(&[arguments, &["--socket", &socket]].concat()));

    let file = path("all.pcapng");
    let (code, stdout, stderr) = ask(&["get", "-w", &file]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains(" packets, ") && stderr.contains("2026-11-22") && stderr.contains(" -> "), "{stderr}");
    assert_eq!(generate::read(Path::new(&file)).0, sent);

    let (code, stdout, stderr) = ask(&["get", "-c", "7", "--format", "pcap", "--micro", "--json", "-w", &file]);
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, stderr.as_str(), document["packets"].as_u64()), (0, "", Some(7)));
    assert_eq!(generate::read(Path::new(&file)).0.len(), 7);

    // When nothing is found, no file is written, but a pipe gets a valid empty one.
    let nothing = path("nothing.pcapng");
    let (code, _, stderr) = ask(&["get", "-w", &nothing, "port 9999"]);
    assert!(code == 1 && stderr.contains("no packet that matches"), "{stderr}");
    assert!(!Path::new(&nothing).exists());
    let output = retrocap().args(["get", "--socket", &socket, "--since", "1m"]).output().unwrap();
    let (code, _, stderr) = reply(&output);
    assert!(code == 1 && stderr.contains("the newest packet kept is from 2026-11-22T10:"), "{stderr}");
    std::fs::write(&nothing, &output.stdout).unwrap();
    let (packets, ended) = generate::read(Path::new(&nothing));
    assert!(packets.is_empty() && ended.is_ok());

    let (code, stdout, _) = ask(&["flows", "--sort", "bytes", "--limit", "3", "--json"]);
    let flows: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, flows.len(), flows[0]["proto"].as_str()), (0, 3, Some("udp")));
    let (code, stdout, _) = ask(&["flows", "--limit", "3"]);
    assert!(code == 0 && stdout.lines().count() == 4 && stdout.contains("192.0.2.7:53"), "{stdout}");
    let (code, stdout, _) = ask(&["status"]);
    assert!(code == 0 && stdout.starts_with("recording 1 interface for ") && !stdout.contains('\x1b'), "{stdout}");
    let (code, _, stderr) = ask(&["get", "--interface", "nope"]);
    assert!(code == 2 && stderr.contains("\"nope\""), "{stderr}");
    let (code, stdout, _) = ask(&["pin", "udp", "port", "53", "--for", "2h"]);
    assert!(code == 0 && stdout.starts_with("pin 1: udp port 53 is kept whole until "), "{stdout}");
    let (code, stdout, _) = ask(&["pin", "--list"]);
    assert!(code == 0 && stdout.starts_with("pins hold ") && stdout.contains("udp port 53"), "{stdout}");
    let (code, stdout, _) = ask(&["pin", "--list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(code == 0 && list["pins"][0]["sessions"].as_u64() > Some(0), "{stdout}");
    let (code, _, stderr) = ask(&["pin", "--remove", "1"]);
    assert!(code == 0 && stderr.contains("pin 1 is removed"), "{stderr}");
    let (code, _, stderr) = ask(&["pin", "--remove", "1"]);
    assert!(code == 1 && stderr.contains("there is no pin 1"), "{stderr}");
    for arguments in [&["get"][..], &["get", "-w", "/dev/full"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = retrocap();
        let output = command.args(arguments).args(["--socket", &socket]).stdout(full).output().unwrap();
        let (code, _, stderr) = reply(&output);
        assert!(code == 1 && stderr.contains("No space left on device"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn an_interrupted_export_leaves_nothing_behind() {
    use std::io::Write as _;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("never.pcapng");
    let mut child = retrocap();
    child.args(["replay", "-", "-m", "16M", "-w", file.to_str().unwrap()]).stdin(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&generate::traffic(100_000, 1)).unwrap();
    let entries = || std::fs::read_dir(directory.path()).unwrap().count();
    let start = Instant::now();
    while entries() == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing is written");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The thread that handles the interrupt starts right after the file appears.
    std::thread::sleep(Duration::from_millis(200));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(entries(), 0);
    drop(stdin);
}

/// A connection that breaks within an answer leaves no partial file.
#[test]
fn a_broken_answer_leaves_no_file() {
    use std::io::Write as _;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let mut body = generate::traffic(100_000, 1);
        body.truncate(90_000);
        write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()).unwrap();
        stream.write_all(&body).unwrap();
    });
    let file = directory.path().join("half.pcapng");
    let (code, _, stderr) = reply(&run(&["get", "--socket", socket.to_str().unwrap(), "-w", file.to_str().unwrap()]));
    server.join().unwrap();
    assert!(code == 1 && stderr.contains("ended its answer early"), "{code}: {stderr}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "only the socket is there");
}
