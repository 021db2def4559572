//! Faults around a recorder: it continues, or it ends with a message; it never records a part in silence.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::namespaces::{Namespace, available};
use crate::service::asking::get;

use super::running::{BEYOND_BUDGET, MIB, PROGRAM, Recorder, Sender, directory, eventually, have, unanswered};
use super::supervisor::Supervisor;

/// The value of a metric with exactly these labels.
fn metric(recorder: &Recorder, name: &str) -> f64 {
    let text = get(recorder.socket(), "/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
    line.parse().unwrap()
}

fn reasons(recorder: &Recorder) -> Vec<String> {
    let health: serde_json::Value = serde_json::from_slice(&get(recorder.socket(), "/v1/health").body).unwrap();
    let reasons = health["reasons"].as_array().unwrap();
    reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn packets_are_recorded_while_interfaces_flap() {
    let test = "flapping interfaces";
    if !available(test) {
        return;
    }
    let (near, far) = Namespace::pair();
    for number in 0..10 {
        far.ip(&format!("link add flap{number} type veth peer name palf{number}"));
        far.ip(&format!("link set palf{number} up"));
    }
    let recorder = Recorder::live(&far, &["-m", "32M", "--promiscuous"]);
    let flapping = std::thread::scope(|scope| {
        let flapping = scope.spawn(|| {
            let mut ip = Command::new("ip")
                .args(["-n", &far.name, "-force", "-batch", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut commands = ip.stdin.take().unwrap();
            for number in 0..300 {
                let flap = number % 10;
                writeln!(commands, "link set flap{flap} down").unwrap();
                writeln!(commands, "link set flap{flap} up").unwrap();
                if number % 5 == 0 {
                    // An interface that exists for a moment only, as those of containers do.
                    writeln!(commands, "link add brief{number} type veth peer name feirb{number}").unwrap();
                    writeln!(commands, "link set brief{number} up").unwrap();
                    writeln!(commands, "link del brief{number}").unwrap();
                }
                commands.flush().unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            drop(commands);
            ip.wait_with_output().unwrap()
        });
        let mut sender = Sender::new(&near, "near");
        let frame = unanswered(200);
        sender.send_paced(6000, 1000, |_, to| to.extend_from_slice(&frame));
        flapping.join().unwrap()
    });
    assert!(flapping.status.success(), "{}", String::from_utf8_lossy(&flapping.stderr));
    let status = recorder.arrived(6000);
    assert_eq!((status.packets.retained, status.packets.kernel_dropped), (6000, 0), "{:?}", status.packets);
    // The recorder knows the final state of each interface.
    eventually("all are up", || {
        let status = recorder.status();
        let up = status.interfaces.iter().filter(|i| i.name.untrusted().starts_with("flap") && i.up).count();
        up == 10 && !status.interfaces.iter().any(|i| i.name.untrusted().starts_with("brief") && i.up)
    });
    let lines = recorder.log().lines().count();
    assert!(lines < 30, "{lines} lines of log:\n{}", recorder.log());
    assert!(recorder.resident_peak() <= 32 * MIB + BEYOND_BUDGET);
    assert_eq!(reasons(&recorder), Vec::<String>::new());
}

#[test]
fn recording_survives_the_end_of_a_network_namespace() {
    let test = "a namespace torn down";
    if !available(test) || !have(test, &["nsenter"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M", "--workers", "2"]);
    let mut sender = Sender::new(&near, "near");
    for _ in 0..100 {
        sender.send(&unanswered(100));
    }
    recorder.arrived(100);
    // First the other end of the cable goes while packets are on their way, and with it the cable; then the name of
    // the namespace.
    near.ip("link del near");
    drop((sender, near));
    drop(far);
    eventually("the interface is gone", || !recorder.status().interfaces.iter().any(|i| i.name == "far" && i.up));
    assert_eq!(recorder.packets(&[]).len(), 100, "what was recorded is there");
    assert_eq!(reasons(&recorder), Vec::<String>::new());
    // The namespace has no name any more, but packets in it are still recorded.
    let pid = recorder.child.id().to_string();
    let inside = |words: &str| {
        let output = Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-ec", words]).output().unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    inside("ip link add again0 type veth peer name back0; ip link set again0 up; ip link set back0 up");
    inside(
        "python3 -c \"import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('back0', 0))\n\
         for _ in range(5): s.send(bytes(64))\"",
    );
    eventually("they are recorded", || recorder.status().packets.received == 110);
    assert_eq!(recorder.packets(&["--interface", "again0"]).len(), 5);
}

#[test]
fn a_recorder_stopped_for_ten_seconds_counts_what_it_lost() {
    if !available("ring starvation") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorders = [Recorder::live(&far, &["-m", "16M"]), Recorder::live(&far, &["-m", "40M", "--workers", "2"])];
    let mut sender = Sender::new(&near, "near");
    let mut number = 0_u32;
    // Many sessions, so that both workers get some.
    let mut frame = |_, to: &mut Vec<u8>| {
        number += 1;
        super::running::datagram(number % 512, 1000, to);
    };
    sender.send_paced(1000, 2000, &mut frame);
    recorders.iter().for_each(|recorder| recorder.signal("-STOP"));
    let stopped = Instant::now();
    sender.send_paced(30_000, 3000, &mut frame);
    std::thread::sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed()));
    recorders.iter().for_each(|recorder| recorder.signal("-CONT"));
    sender.send_paced(1000, 2000, &mut frame);
    for recorder in &recorders {
        // Received and dropped packets together are exactly those that were sent.
        let status = recorder.arrived(32_000);
        let (received, dropped) = (status.packets.received, status.packets.kernel_dropped);
        eprintln!("{received} received, {dropped} dropped by the kernel, of 32000");
        assert!(dropped > 1000 && received > 2000, "{:?}", status.packets);
        assert_eq!(
            metric(recorder, "retrocap_kernel_dropped_packets_total"),
            f64::from(u32::try_from(dropped).unwrap())
        );
        // The count stays exact later, when no more packets are lost.
        assert_eq!(recorder.arrived(32_000).packets.kernel_dropped, dropped);
        let newest = recorder.packets(&["-c", "1000000"]).len() as u64;
        assert_eq!(newest, recorder.status().packets.retained);
    }
}

#[test]
fn a_limit_on_locked_memory_is_reported() {
    let test = "memory that may not be locked";
    if !available(test) || !have(test, &["setpriv", "prlimit"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let before = ["prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"];
    let recorder = Recorder::live_under(&far, &before, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    for _ in 0..10 {
        sender.send(&unanswered(100));
    }
    recorder.arrived(10);
    assert_eq!(recorder.packets(&[]).len(), 10);
    assert!(recorder.log().contains("not locked"), "{}", recorder.log());
    assert_eq!(reasons(&recorder), ["not_locked"]);
    assert_eq!(metric(&recorder, "retrocap_memory_locked"), 0.0);
    assert_eq!(metric(&recorder, "retrocap_degraded{reason=\"not_locked\"}"), 1.0);
}

#[test]
fn a_killed_recorder_can_be_restarted_at_once() {
    if !available("kill -9 and restart") {
        return;
    }
    let (near, far) = Namespace::pair();
    let mut sender = Sender::new(&near, "near");
    let mut folder = directory();
    for round in 0..5 {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &far.name, PROGRAM, "run", "-m", "32M"]);
        // The start fails when a stale socket or lock is in its way.
        let mut recorder = Recorder::start(command, folder);
        sender.send(&unanswered(100));
        recorder.arrived(1);
        assert_eq!(
            recorder.log().matches("left behind by a recorder that crashed").count(),
            round,
            "{}",
            recorder.log()
        );
        recorder.signal("-KILL");
        recorder.child.wait().unwrap();
        assert!(recorder.socket().exists(), "left behind");
        folder = std::mem::replace(&mut recorder.directory, directory());
        std::fs::write(recorder.path("log"), "").unwrap();
    }
}

/// A recorder of two workers with a watchdog of two seconds.
fn watched(supervisor: &Supervisor, namespace: &Namespace, folder: tempfile::TempDir) -> Recorder {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace.name, PROGRAM, "run", "-m", "40M", "--workers", "2"]);
    command.env("NOTIFY_SOCKET", &supervisor.path).env("WATCHDOG_USEC", "2000000");
    Recorder::start(command, folder)
}

/// Stops one thread of a process until the returned child ends; `None` where that is not permitted.
fn hold(process: u32, thread: &str) -> Option<Child> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let task = tasks
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread));
    let number = task.expect(thread).file_name().unwrap().to_str().unwrap().to_owned();
    let mut child = Command::new("python3")
        .args([
            "-c",
            "import ctypes, os, sys\n\
             task = int(sys.argv[1])\n\
             assert ctypes.CDLL(None, use_errno=True).ptrace(16, task, None, None) == 0, os.strerror(ctypes.get_errno())\n\
             os.waitpid(task, 0x40000000)\n\
             print('held', flush=True)\n\
             sys.stdin.read()",
            &number,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (line == "held\n").then_some(child)
}

#[test]
fn a_supervisor_restarts_a_recorder_with_a_stuck_worker() {
    let test = "a watchdog";
    if !available(test) || !have(test, &["python3"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let supervisor = Supervisor::new();
    let mut recorder = watched(&supervisor, &far, directory());
    supervisor.expect("READY=1\nSTATUS=recording all interfaces into 40 MiB");
    for _ in 0..6 {
        supervisor.expect("WATCHDOG=1");
    }
    // The service still answers, and the other worker still records.
    let Some(mut held) = hold(recorder.child.id(), "retrocap-w1") else {
        crate::machine::skipped(test, "a thread cannot be stopped here");
        return;
    };
    eventually("it is silent", || supervisor.hear(Duration::from_secs(2)).is_none());
    assert!(recorder.log().contains("worker 1 makes no progress"), "{}", recorder.log());
    eventually("it says so", || reasons(&recorder) == ["worker_stuck"]);
    assert_eq!(metric(&recorder, "retrocap_ready"), 0.0);

    // What systemd does then.
    recorder.signal("-KILL");
    // A process does not end while a debugger holds one of its threads.
    held.kill().unwrap();
    held.wait().unwrap();
    recorder.child.wait().unwrap();
    let folder = std::mem::replace(&mut recorder.directory, directory());
    std::fs::write(recorder.path("log"), "").unwrap();
    let mut recorder = watched(&supervisor, &far, folder);
    supervisor.expect("READY=1");
    supervisor.expect("WATCHDOG=1");
    let mut sender = Sender::new(&near, "near");
    sender.send(&unanswered(100));
    recorder.arrived(1);
    recorder.signal("-TERM");
    assert_eq!(recorder.child.wait().unwrap().code(), Some(0));
    let mut last = String::new();
    while let Some(heard) = supervisor.hear(Duration::from_millis(100)) {
        last = heard;
    }
    assert_eq!(last, "STOPPING=1\nSTATUS=SIGTERM");
}
