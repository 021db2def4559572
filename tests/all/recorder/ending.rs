//! How a recorder ends, whom it refuses, and what it leaves behind.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::generate;
use crate::namespaces::{Namespace, available};
use crate::service::asking;

use super::running::{PROGRAM, Recorder, Sender, directory, have, reply, tshark, unanswered};

const PACKETS: u64 = 40_000;

/// A recorder with more packets than fit into the sockets and pipes between it and a client.
fn full() -> Recorder {
    let mut file = generate::header();
    for number in 0..PACKETS {
        generate::packet(&mut file, number * 1000, u32::try_from(number % 100).unwrap(), true, 1000);
    }
    let directory = directory();
    let capture = directory.path().join("capture.pcap");
    std::fs::write(&capture, file).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["run", "-m", "80M", "--speed", "max", "--replay"]).arg(capture);
    let recorder = Recorder::start(command, directory);
    recorder.arrived(PACKETS);
    recorder
}

#[test]
fn an_export_that_runs_at_a_stop_ends_as_a_valid_file() {
    let mut recorder = full();
    let mut reader = UnixStream::connect(recorder.socket()).unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    asking::send(&mut reader, "/v1/packets");
    let mut answer = vec![0; 1000];
    reader.read_exact(&mut answer).unwrap();
    // Another export by the command line, into a pipe and into a file.
    let mut piped = recorder.verb(&["get", "-w", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = piped.stdout.take().unwrap();
    let mut export = vec![0; 1000];
    pipe.read_exact(&mut export).unwrap();

    let start = Instant::now();
    recorder.signal("-TERM");
    let reading = std::thread::spawn(move || pipe.read_to_end(&mut export).map(|_| export));
    reader.read_to_end(&mut answer).unwrap();
    assert_eq!(recorder.child.wait().unwrap().code(), Some(0), "{}", recorder.log());
    eprintln!("stopped within {:?}", start.elapsed());
    assert!(!recorder.socket().exists());

    let answer = asking::parse(&answer);
    assert!(answer.trailer("retrocap-note").unwrap().contains("stopped"));
    let reply = reply(&piped.wait_with_output().unwrap());
    assert!(reply.code == 1 && reply.stderr.contains("the recorder was stopped"), "{reply:?}");
    for (name, bytes) in [("answer.pcapng", answer.body), ("export.pcapng", reading.join().unwrap().unwrap())] {
        let path = recorder.path(name);
        std::fs::write(&path, &bytes).unwrap();
        let (packets, end) = generate::read(&path);
        assert!(end.is_ok() && !packets.is_empty() && (packets.len() as u64) < PACKETS, "{name}: {}", packets.len());
        assert!(String::from_utf8_lossy(&bytes).contains("the recorder was stopped"), "{name}");
        if have("in part: a stopped export", &["tshark", "capinfos"]) {
            assert_eq!(tshark(&path, "frame.number").len(), packets.len());
            let output = Command::new("capinfos").arg(&path).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn a_killed_recorder_is_replaced_and_a_running_one_is_not() {
    let first = full();
    let socket = first.socket();
    // A second recorder is refused, and the first one is not disturbed.
    let second = Command::new(PROGRAM)
        .args(["run", "-m", "16M", "--speed", "max", "--replay"])
        .arg(first.path("capture.pcap"))
        .arg("--socket")
        .arg(&socket)
        .output();
    let second = reply(&second.unwrap());
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("another retrocap is recording") && second.stderr.contains("--socket"));
    assert_eq!(first.packets(&["-c", "5"]).len(), 5);

    first.signal("-KILL");
    let mut first = first;
    first.child.wait().unwrap();
    assert!(socket.exists());
    let answer = first.ask(&["status"]);
    assert!(answer.code == 1 && answer.stderr.contains("retrocap run"), "{answer:?}");
    let mut command = Command::new(PROGRAM);
    command.args(["run", "-m", "80M", "--speed", "max", "--replay"]).arg(first.path("capture.pcap"));
    let directory = std::mem::replace(&mut first.directory, directory());
    std::fs::write(first.path("log"), "").unwrap();
    let again = Recorder::start(command, directory);
    again.arrived(PACKETS);
    assert!(again.log().contains("left behind by a recorder that crashed"), "{}", again.log());
}

#[test]
fn refusals_say_what_to_do() {
    let directory = directory();
    let nowhere = directory.path().join("nowhere");
    let output = Command::new(PROGRAM).args(["status", "--socket"]).arg(&nowhere).output().unwrap();
    let nobody = reply(&output);
    assert!(nobody.code == 1 && nobody.stderr.contains("sudo retrocap run"), "{nobody:?}");
    if !available("budget, rights") || !have("budget, rights", &["setpriv"]) {
        return;
    }
    let namespace = Namespace::new();
    let small = |arguments: &[&str]| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.name, PROGRAM, "run", "--socket"]).arg(&nowhere).args(arguments);
        reply(&command.output().unwrap())
    };
    let one = small(&["-m", "5M"]);
    assert!(one.code == 2 && one.stderr.contains("smallest budget that works is 16 MiB"), "{one:?}");
    let four = small(&["-m", "16M", "--workers", "4"]);
    assert!(four.code == 2 && four.stderr.contains("4 workers") && four.stderr.contains("-m 40M"), "{four:?}");
    assert!(!nowhere.exists());
    let unknown = small(&["-m", "16M", "-i", "nope0"]);
    assert!(unknown.code != 0 && unknown.stderr.contains("nope0") && unknown.stderr.contains("lo"), "{unknown:?}");
    // The smallest budget that the message names does work.
    drop(Recorder::live(&namespace, &["-m", "40M", "--workers", "4"]));

    let recorder = Recorder::live(&namespace, &["-m", "16M"]);
    // Other users may have no access to the folder where the tests are built.
    let program = recorder.path("retrocap");
    std::fs::copy(PROGRAM, &program).unwrap();
    let unprivileged = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(arguments);
        command.current_dir("/").arg("--socket").arg(recorder.socket());
        reply(&command.output().unwrap())
    };
    for verb in ["status", "get", "flows"] {
        let refused = unprivileged(&[verb]);
        assert!(refused.code == 1 && refused.stderr.contains("group retrocap"), "{verb}: {refused:?}");
    }
    let refused = unprivileged(&["run", "-m", "16M"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(recorder.ask(&["status"]).code, 0, "the recorder does not mind");
    let mode = std::fs::metadata(recorder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "others are kept out: {mode:o}");
}

#[test]
fn a_full_disk_leaves_no_partial_file() {
    let test = "a full disk";
    if !available(test) || !have(test, &["unshare"]) {
        return;
    }
    let recorder = full();
    let disk = recorder.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=256k tiny '{disk}' && cd '{disk}' && '{PROGRAM}' get -w odd.pcapng --socket '{socket}'; \
         echo $? $(ls -A)",
        disk = disk.display(),
        socket = recorder.socket().display()
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let disk = reply(&output);
    assert_eq!(disk.stdout.trim(), "1", "exit 1, and an empty folder: {disk:?}");
    assert!(disk.stderr.contains("No space left on device") && disk.stderr.contains("odd.pcapng"), "{disk:?}");
    // An existing file stays as it was.
    let reply = recorder.ask(&["get", "-w", "/dev/full"]);
    assert!(reply.code == 1 && reply.stderr.contains("No space left on device"), "{reply:?}");
    assert_eq!(recorder.packets(&[]).len() as u64, PACKETS, "the recorder is unharmed");
}

#[test]
fn a_stopped_recorder_releases_its_packets_and_files() {
    if !available("a clean end") {
        return;
    }
    let (near, far) = Namespace::pair();
    for signal in ["-TERM", "-INT"] {
        let mut recorder = Recorder::live(&far, &["-m", "32M", "--workers", "2"]);
        let mut sender = Sender::new(&near, "near");
        sender.send(&unanswered(100));
        recorder.arrived(1);
        recorder.signal(signal);
        assert_eq!(recorder.child.wait().unwrap().code(), Some(0), "{}", recorder.log());
        let mut left: Vec<_> = std::fs::read_dir(recorder.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["audit.log", "audit.log.refusals", "log"], "neither socket nor lock");
    }
}
