//! A second attempt at the service, with other tools than those of `hostile_readers`: over TLS, slowly, and in crowds of one
//! user.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::certs::Pki;
use super::hostile_readers::{lines, plain};
use super::remote::{Listening, PACKETS};
use super::running::{BEYOND_BUDGET, MIB, Recorder, conserves, directory, eventually, have};
use crate::service::asking;

/// Requests that a certificate has no role for.
const REFUSALS: usize = 5000;

fn metric(recorder: &Recorder, line: &str) -> u64 {
    let metrics = asking::get(recorder.socket(), "/metrics").text();
    let value = metrics.lines().find_map(|there| there.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{line}: {metrics}")).parse().unwrap()
}

/// OpenSSL's client with a client's certificate; it stays connected while its standard input is open.
fn tls(listening: &Listening, pki: &Pki, client: &Path) -> Child {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &format!("localhost:{}", listening.port), "-CAfile"]);
    command
        .arg(pki.path("ca.pem"))
        .arg("-cert")
        .arg(client.join("client.pem"))
        .arg("-key")
        .arg(client.join("client.key"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Many refusals on one TLS connection displace no read, and all of them are counted.
#[test]
fn security_14_1_refusals_over_tls_displace_no_read() {
    if !have("refusals over TLS", &["openssl"]) {
        return;
    }
    let pki = Pki::new();
    let (alice, bob) = (pki.client("alice", "packets"), pki.client("bob", "status"));
    let listening = Listening::new(&pki, "audit = \"required\"\naudit-log-size = \"4KiB\"\naudit-log-keep = 1\n");
    let recorder = &listening.recorder;
    let read = listening.ask(&alice, &["get", "-c", "1", "-w", "/dev/null"]);
    assert_eq!(read.code, 0, "{read:?}");
    let reads = lines(recorder, "audit.log");
    assert!(reads.iter().any(|line| line["who"]["certificate"] == "alice"), "{reads:?}");

    let mut child = tls(&listening, &pki, &bob);
    let (mut requests, mut answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let writer = std::thread::spawn(move || {
        for number in 0..REFUSALS {
            // Other paths and methods than one: each of them needs a role that it does not have.
            let request = match number % 4 {
                0 => "GET /v1/packets HTTP/1.1",
                1 => "GET /v1/flows?filter=tcp HTTP/1.1",
                2 => "DELETE /v1/pins?id=1 HTTP/1.1",
                _ => "GET /v1/packets?c=1 HTTP/1.1",
            };
            requests.write_all(format!("{request}\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        }
        requests
    });
    let (mut seen, mut buffer, mut text) = (0, [0; 65536], String::new());
    while seen < REFUSALS {
        let length = answers.read(&mut buffer).unwrap();
        assert!(length > 0, "closed after {seen} refusals: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        seen += text.matches("HTTP/1.1 403").count();
        // What may be the beginning of another one stays.
        text = text[text.rfind("HTTP/1.1 403").map_or(text.len().saturating_sub(11), |at| at + 12)..].to_owned();
    }
    drop(writer.join().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lines(recorder, "audit.log"), reads, "nothing but reads, and all of them");
    let refused = lines(recorder, "audit.log.refusals");
    assert_eq!(refused.len(), 5, "{refused:?}");
    assert!(refused.iter().all(|line| line["who"]["certificate"] == "bob"), "{refused:?}");
    assert_eq!(listening.ask(&alice, &["get", "-c", "1", "-w", "/dev/null"]).code, 0, "reads go on");
    let path = recorder.path("audit.log.refusals");
    recorder.signal("-TERM");
    eventually("the refusals are counted", || {
        let text = std::fs::read_to_string(&path).unwrap();
        let found = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        found.filter(|line| line["event"] == "refused-more").any(|line| line["refused"] == REFUSALS - 5)
    });
}

/// Takes a few bytes now and then until the other end closes or the test is done.
fn trickle(mut from: impl Read, reads: &AtomicUsize, done: &AtomicBool) {
    let mut few = [0; 100];
    while !done.load(Ordering::Relaxed) {
        match from.read(&mut few) {
            Ok(1..) => reads.fetch_add(1, Ordering::Relaxed),
            Ok(0) | Err(_) => return,
        };
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// More answers than the buffers between the recorder and a client can take.
fn ask_for_packets(stream: &mut impl Write) {
    stream.write_all("GET /v1/packets HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(40).as_bytes()).unwrap();
}

/// Root is answered while clients trickle; they are disconnected, though they never stop reading.
fn root_is_answered_while(recorder: &Recorder, tricklers: u64, packets: u64) {
    eventually("the tricklers are disconnected", || {
        let got = recorder.ask(&["get", "-c", "1", "-w", "/dev/null"]);
        assert_eq!(got.code, 0, "{got:?}");
        let flows = recorder.ask(&["flows", "--limit", "10"]);
        assert_eq!(flows.code, 0, "{flows:?}");
        metric(recorder, "retrocap_clients_closed_total{reason=\"stalled\"}") >= tricklers
    });
    let status = recorder.status();
    conserves(&status);
    assert_eq!(status.packets.received, packets);
}

const SHORT_STALL: &str = "[limits]\nstall-timeout = \"2s\"\n";

#[test]
fn security_14_2_trickling_readers_are_disconnected() {
    const PACKETS: u64 = 20_000;
    const TRICKLERS: u64 = 3;
    let folder = directory();
    let config = folder.path().join("retrocap.toml");
    std::fs::write(&config, SHORT_STALL).unwrap();
    let (recorder, port) = plain(PACKETS, 1000, &["-m", "64M", "--config", config.to_str().unwrap()]);
    let (reads, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..TRICKLERS {
            let (reads, done) = (&reads, &done);
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            ask_for_packets(&mut stream);
            scope.spawn(move || trickle(stream, reads, done));
            let mut stream = UnixStream::connect(recorder.socket()).unwrap();
            ask_for_packets(&mut stream);
            scope.spawn(move || trickle(stream, reads, done));
        }
        root_is_answered_while(&recorder, 2 * TRICKLERS, PACKETS);
        done.store(true, Ordering::Relaxed);
    });
    assert!(reads.load(Ordering::Relaxed) > 20, "they kept reading");
}

#[test]
fn security_14_2_trickling_readers_over_tls_are_disconnected() {
    const TRICKLERS: u64 = 4;
    if !have("trickling readers over TLS", &["openssl"]) {
        return;
    }
    let pki = Pki::new();
    let eve = pki.client("eve", "packets");
    let listening = Listening::new(&pki, SHORT_STALL);
    let (reads, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut children: Vec<Child> = (0..TRICKLERS).map(|_| tls(&listening, &pki, &eve)).collect();
    std::thread::scope(|scope| {
        let mut inputs = Vec::new();
        for child in &mut children {
            let mut input = child.stdin.take().unwrap();
            ask_for_packets(&mut input);
            inputs.push(input);
            let (output, reads, done) = (child.stdout.take().unwrap(), &reads, &done);
            scope.spawn(move || trickle(output, reads, done));
        }
        root_is_answered_while(&listening.recorder, TRICKLERS, PACKETS);
        done.store(true, Ordering::Relaxed);
    });
    assert!(reads.load(Ordering::Relaxed) > 20, "they kept reading");
    for child in &mut children {
        let _ = child.kill();
        child.wait().unwrap();
    }
}

/// Connections of another user of the host, which ask and read nothing. Dropping it ends them.
struct Crowd(Child);

impl Crowd {
    /// `None`, with a message, where this process cannot act as another user.
    fn new(recorder: &Recorder, connections: usize, requests: &[&str]) -> Option<Self> {
        if !have("another user", &["python3"]) || !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can act as another user");
            return None;
        }
        // Stands for a member of the group `retrocap`.
        std::fs::set_permissions(recorder.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
        let script = "import os, resource, socket, sys, time\n\
             resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n\
             os.setgroups([])\n\
             os.setgid(65534)\n\
             os.setuid(65534)\n\
             crowd = []\n\
             for number in range(int(sys.argv[2])):\n    \
                 s = socket.socket(socket.AF_UNIX)\n    \
                 s.connect(sys.argv[1])\n    \
                 s.settimeout(20)\n    \
                 target = sys.argv[3 + number % (len(sys.argv) - 3)]\n    \
                 try:\n        \
                     s.sendall(('GET ' + target + ' HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n').encode())\n    \
                 except OSError:\n        \
                     pass\n    \
                 crowd.append(s)\n\
             print('all', flush=True)\n\
             time.sleep(600)\n";
        let mut command = Command::new("python3");
        command.args(["-c", script]);
        command.arg(recorder.socket()).arg(connections.to_string()).args(requests);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 4];
        child.stdout.take().unwrap().read_exact(&mut said).unwrap();
        Some(Self(child))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A thousand connections of one user, each with a request whose answer is not read: root is answered, and memory stays
/// within its limits.
#[test]
fn security_14_2_a_thousand_connections_of_one_user_lock_nobody_out() {
    const PACKETS: u64 = 20_000;
    let (recorder, _) = plain(PACKETS, 1000, &["-m", "64M"]);
    let requests = ["/v1/packets", "/v1/flows", "/v1/packets?whole-sessions=1", "/v1/packets?follow=1", "/v1/status"];
    let Some(crowd) = Crowd::new(&recorder, 1000, &requests) else { return };
    for _ in 0..3 {
        let got = recorder.ask(&["get", "-c", "1", "-w", "/dev/null"]);
        assert_eq!(got.code, 0, "{got:?}");
        let flows = recorder.ask(&["flows", "--limit", "10"]);
        assert_eq!(flows.code, 0, "{flows:?}");
    }
    assert!(metric(&recorder, "retrocap_connections") <= 256);
    let status = recorder.status();
    conserves(&status);
    assert_eq!(status.packets.received, PACKETS);
    let peak = recorder.resident_peak();
    eprintln!("at most {} KiB resident with 64 MiB", peak >> 10);
    assert!(peak < 64 * MIB + BEYOND_BUDGET, "{peak}");
    drop(crowd);
    eventually("they are gone", || metric(&recorder, "retrocap_connections") == 1);
}

/// With the smallest budget, readers that stall take no more than what lies beyond it.
#[test]
fn security_14_2_the_smallest_budget_holds_under_attack() {
    const PACKETS: u64 = 20_000;
    let (recorder, port) = plain(PACKETS, 1000, &["-m", "16M"]);
    assert_eq!(recorder.ask(&["get", "-c", "1", "-w", "/dev/null"]).code, 0);
    let before = recorder.status().memory.resident_bytes;
    let requests = ["/v1/packets", "/v1/flows", "/v1/packets?whole-sessions=1", "/v1/flows?by=peer"];
    let crowd = Crowd::new(&recorder, 40, &requests);
    let stalled: Vec<TcpStream> = (0..40)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let target = requests[number % requests.len()];
            stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
            stream
        })
        .collect();
    eventually("they hold what they can get", || metric(&recorder, "retrocap_queries_running") >= 3);
    for _ in 0..3 {
        let got = recorder.ask(&["get", "-c", "1", "-w", "/dev/null"]);
        assert_eq!(got.code, 0, "{got:?}");
        let flows = recorder.ask(&["flows", "--limit", "10"]);
        assert_eq!(flows.code, 0, "{flows:?}");
    }
    let status = recorder.status();
    let memory = status.memory;
    eprintln!(
        "{} queries: {} KiB resident, {} KiB before; the budget has {} KiB for queries",
        metric(&recorder, "retrocap_queries_running"),
        memory.resident_bytes >> 10,
        before >> 10,
        memory.queries_bytes >> 10
    );
    conserves(&status);
    assert_eq!(status.packets.received, PACKETS);
    assert!(recorder.resident_peak() < 16 * MIB + BEYOND_BUDGET, "{}", recorder.resident_peak());
    // Answers have their own share of the budget; what they and their connections take beyond it stays small.
    assert!(memory.resident_bytes < before + 8 * MIB, "{} after {before}", memory.resident_bytes);
    drop((crowd, stalled));
}

/// Bytes of a process that belong to no file.
fn private_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Eight readers of packets and two of listings that stop reading hold no more than the budget has for answers.
#[test]
fn security_14_2_slow_readers_hold_no_more_than_the_budget_has_for_them() {
    const PACKETS: u64 = 20_000;
    let (recorder, _) = plain(PACKETS, 1000, &["-m", "16M"]);
    // What the first answers of a process allocate once is not held by readers.
    assert_eq!(recorder.ask(&["get", "-c", "1", "-w", "/dev/null"]).code, 0);
    assert_eq!(recorder.ask(&["flows", "--limit", "1"]).code, 0);
    let budget = recorder.status().memory.queries_bytes;
    let before = private_bytes(recorder.child.id());
    let paths = [vec!["/v1/flows"; 2], vec!["/v1/packets"; 8]].concat();
    let readers: Vec<UnixStream> = paths
        .into_iter()
        .map(|path| {
            let mut stream = UnixStream::connect(recorder.socket()).unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
            stream
        })
        .collect();
    let running = || metric(&recorder, "retrocap_queries_running");
    eventually("both listings and some of the others are answered", || running() >= 5);
    let mut held = 0;
    for _ in 0..20 {
        held = held.max(private_bytes(recorder.child.id()).saturating_sub(before));
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{} answers hold {} KiB of {} KiB", running(), held >> 10, budget >> 10);
    assert!(running() >= 5, "they are stalled, not gone");
    assert!(held > 0 && held <= budget, "{held} of {budget}");
    // Once they are gone, others are answered.
    drop(readers);
    assert_eq!(recorder.ask(&["get", "-c", "1", "-w", "/dev/null"]).code, 0);
    conserves(&recorder.status());
}

/// Handshakes that arrive byte by byte hold places for connections; clients are served nevertheless, and the slow ones are
/// closed.
#[test]
fn security_14_2_slow_handshakes_lock_nobody_out() {
    const SLOW: usize = 200;
    let pki = Pki::new();
    let alice = pki.client("alice", "packets");
    let listening = Listening::new(&pki, "[limits]\nhandshake-timeout = \"3s\"\n");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, port) = (&done, listening.port);
        for part in 0..4 {
            scope.spawn(move || {
                // A record that announces 512 bytes, and a ClientHello of which a byte comes now and then.
                let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 400]].concat();
                let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
                let mut slow: Vec<(TcpStream, usize)> = (0..SLOW / 4).map(|_| (connect(), part)).collect();
                while !done.load(Ordering::Relaxed) {
                    for (stream, at) in &mut slow {
                        match stream.write(&hello[*at % hello.len()..][..1]) {
                            Ok(written) => *at += written,
                            // A client that was closed connects again.
                            Err(_) => (*stream, *at) = (connect(), 0),
                        }
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
        for _ in 0..3 {
            let reply = listening.ask(&alice, &["get", "-c", "1", "-w", "/dev/null"]);
            assert_eq!(reply.code, 0, "{reply:?}");
            assert_eq!(listening.recorder.ask(&["status"]).code, 0);
        }
        let closed = |reason: &str| {
            metric(&listening.recorder, &format!("retrocap_clients_closed_total{{reason=\"{reason}\"}}"))
        };
        eventually("slow ones are closed", || closed("slow") + closed("crowded_out") + closed("untrusted") > 50);
        done.store(true, Ordering::Relaxed);
    });
    conserves(&listening.recorder.status());
}
