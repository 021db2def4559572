//! Processes of sessions: real programs in a namespace, recorded by a recorder that has dropped its privileges.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use query::status::Source;
use serde_json::Value;

use super::running::{Recorder, eventually, have};
use crate::namespaces::{Namespace, available};

/// A program in the namespace that goes on until its standard input ends.
pub(super) struct Program(Child);

impl Program {
    /// Starts a script of bash, and waits until it prints a line.
    pub(super) fn start(namespace: &Namespace, script: &str) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.name, "bash", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "{script}");
        Self(child)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.stdin.take().unwrap().write_all(b"\n");
        let _ = self.0.wait();
    }
}

pub(super) fn flows(recorder: &Recorder, arguments: &[&str]) -> Vec<Value> {
    let reply = recorder.ask(&[&["flows", "--json"], arguments].concat());
    reply.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn processes_of_local_sessions_are_named_after_privileges_are_dropped() {
    let test = "processes of sessions";
    if !available(test) || !have(test, &["bash", "python3", "ip"]) {
        return;
    }
    let namespace = Namespace::new();
    let up = Command::new("ip").args(["-n", &namespace.name, "link", "set", "lo", "up"]).status();
    assert!(up.unwrap().success());
    let recorder = Recorder::live(&namespace, &["-m", "16M", "--processes", "--user", "nobody"]);
    let server = "import socket, sys\n\
                  s = socket.create_server((\"127.0.0.1\", 4000)); u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  u.bind((\"0.0.0.0\", 4001)); print(\"up\", flush=True)\n\
                  held = []\n\
                  s.settimeout(0.05)\n\
                  import select\n\
                  while not select.select([sys.stdin], [], [], 0)[0]:\n\
                  \ttry: held.append(s.accept()[0])\n\
                  \texcept TimeoutError: pass\n";
    let server = Program::start(&namespace, &format!("exec python3 -c '{server}'"));
    let clients: Vec<_> = (0..20)
        .map(|_| Program::start(&namespace, "exec 3<>/dev/tcp/127.0.0.1/4000; echo x >&3; echo up; read -r line"))
        .collect();
    let talker = Program::start(&namespace, "exec 3<>/dev/udp/127.0.0.1/4001; echo x >&3; echo up; read -r line");
    let pid = |flow: &Value, of: &str| flow[of]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    // Until a client is found, `process` may be the server at the other end.
    eventually("all clients are named", || {
        let flows = flows(&recorder, &["port", "4000"]);
        flows.len() == clients.len() && flows.iter().all(|flow| flow["process"]["end"] == "originator")
    });
    let mut named: Vec<_> = flows(&recorder, &["port", "4000"])
        .iter()
        .map(|flow| {
            assert_eq!(flow["process"]["name"], "bash");
            assert_eq!(
                (&flow["process"]["end"], &flow["process"]["certainty"]),
                (&"originator".into(), &"socket".into())
            );
            // The server may not have accepted yet; it is not mistaken for another process then.
            assert!(pid(flow, "other_process").is_none_or(|pid| pid == server.pid()), "{flow}");
            pid(flow, "process").unwrap()
        })
        .collect();
    named.sort_unstable();
    let mut expected: Vec<_> = clients.iter().map(Program::pid).collect();
    expected.sort_unstable();
    assert_eq!(named, expected, "each client has its own session, and none another's");

    eventually("the server of a datagram is named", || {
        flows(&recorder, &["port", "4001"])
            .iter()
            .any(|flow| pid(flow, "process") == Some(talker.pid()) && pid(flow, "other_process") == Some(server.pid()))
    });
    let of_one = flows(&recorder, &["--process", &clients[3].pid().to_string()]);
    assert_eq!(of_one.iter().map(|flow| pid(flow, "process")).collect::<Vec<_>>(), [Some(clients[3].pid())]);
    assert_eq!(flows(&recorder, &["--process", "bash", "--limit", "5"]).len(), 5);
    let sums = flows(&recorder, &["--by", "process"]);
    let sum = |name: &str| sums.iter().find(|sum| sum["process"] == name).map(|sum| sum["sessions"].clone());
    let with_name = flows(&recorder, &["--process", "bash"]).len();
    assert!(with_name > clients.len(), "the clients, and the talker");
    assert_eq!(sum("bash"), Some(with_name.into()), "{sums:?}");
    let all: u64 = sums.iter().map(|sum| sum["sessions"].as_u64().unwrap()).sum();
    assert!(all >= flows(&recorder, &[]).len() as u64, "a session is in one sum at least: {sums:?}");
    let packets = recorder.packets(&["--process", &clients[3].pid().to_string()]);
    assert!(!packets.is_empty() && packets.len() < 20, "{}", packets.len());
    let nobody = recorder.ask(&["flows", "--process", "no-such-program"]);
    assert!(nobody.code == 1 && nobody.stderr.contains("none of"), "{nobody:?}");
}

/// Mounts a cgroup2 hierarchy and goes on: `ip netns exec` has a `/sys` of its own, and its mounts end with it.
pub(super) const CGROUP2: [&str; 4] =
    ["sh", "-c", "mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null; exec \"$@\"", "sh"];

/// How a recorder names processes, and why it does not do better.
pub(super) fn method(recorder: &Recorder) -> (Source, String) {
    let naming = || recorder.status().processes.unwrap();
    eventually("the method is known", || naming().method.is_some());
    let naming = naming();
    (naming.method.unwrap(), naming.reason.map(|reason| reason.untrusted().to_owned()).unwrap_or_default())
}

#[test]
fn programs_of_milliseconds_are_named_after_privileges_are_dropped() {
    let test = "processes of milliseconds";
    if !available(test) || !have(test, &["bash", "ip"]) {
        return;
    }
    let namespace = Namespace::new();
    let up = Command::new("ip").args(["-n", &namespace.name, "link", "set", "lo", "up"]).status();
    assert!(up.unwrap().success());
    let recorder = Recorder::live_under(&namespace, &CGROUP2, &["-m", "64M", "--processes", "--user", "nobody"]);
    if let (Source::SockDiag, reason) = method(&recorder) {
        assert!(reason.len() > 20, "{reason}");
        eprintln!("SKIPPED: {test}: {reason}");
        return;
    }
    // Nobody listens: refused connections and datagrams that nobody reads have a process too.
    let mut pids = Vec::new();
    for port in 5000..5050 {
        for protocol in ["tcp", "udp"] {
            let script = format!("echo x >/dev/{protocol}/127.0.0.1/{port}");
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &namespace.name, "bash", "-c", &script]).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            pids.push(child.id());
            child.wait().unwrap();
        }
    }
    let named = || flows(&recorder, &["portrange", "5000-5049"]);
    eventually("all sessions are named", || {
        let named = named();
        named.len() == pids.len() && named.iter().all(|flow| flow["process"]["pid"].is_u64())
    });
    let mut by_ebpf = 0;
    let mut found: Vec<_> = named()
        .iter()
        .map(|flow| {
            let process = &flow["process"];
            assert_eq!(process["name"], "bash", "{flow}");
            by_ebpf += u32::from(process["source"] == "ebpf");
            assert_eq!(process["end"], "originator");
            u32::try_from(process["pid"].as_u64().unwrap()).unwrap()
        })
        .collect();
    found.sort_unstable();
    pids.sort_unstable();
    assert_eq!(found, pids, "each process has its own session, and none another's");
    assert!(by_ebpf >= 90, "a scan is rarely faster: {by_ebpf} of 100");
    if !have(test, &["tshark"]) {
        return;
    }
    let capture = recorder.path("named.pcapng");
    let reply = recorder.ask(&["get", "portrange", "5000-5049", "-w", capture.to_str().unwrap()]);
    assert_eq!(reply.code, 0, "{reply:?}");
    let arguments = ["-r", capture.to_str().unwrap(), "-Y", "frame.comment contains \"bash, pid \"", "-T", "fields"];
    let output = Command::new("tshark").args(arguments).args(["-e", "frame.comment"]).output().unwrap();
    let comments = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut told: Vec<u32> = comments
        .lines()
        .map(|line| line.split("pid ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap())
        .collect();
    told.sort_unstable();
    assert_eq!(told, pids, "the first packet of each session names its process in Wireshark: {comments}");
}

#[test]
fn a_recorder_without_the_right_to_trace_scans_and_says_so() {
    let test = "processes without CAP_BPF";
    if !available(test) || !have(test, &["setpriv", "bash", "ip"]) {
        return;
    }
    let namespace = Namespace::new();
    let before = [&CGROUP2[..], &["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin"]].concat();
    let recorder = Recorder::live_under(&namespace, &before, &["-m", "16M", "--processes"]);
    let (method, reason) = method(&recorder);
    assert!(method == Source::SockDiag && reason.contains("CAP_BPF"), "{method:?}: {reason}");
    let page = recorder.ask(&["status"]).stdout;
    assert!(page.contains("named by scans alone"), "{page}");
    let _client = {
        let up = Command::new("ip").args(["-n", &namespace.name, "link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        Program::start(&namespace, "exec 3<>/dev/udp/127.0.0.1/4001; echo x >&3; echo up; read -r line")
    };
    eventually("a session that lasts is named", || {
        flows(&recorder, &["port", "4001"]).iter().any(|flow| flow["process"]["source"] == "sock_diag")
    });
}

#[test]
fn a_recorder_that_watches_no_processes_says_so() {
    let test = "processes that are not watched";
    if !available(test) {
        return;
    }
    let recorder = Recorder::live(&Namespace::new(), &["-m", "16M"]);
    let reply = recorder.ask(&["flows", "--process", "bash"]);
    assert!(reply.code == 1 && reply.stderr.contains("--processes"), "{reply:?}");
}
