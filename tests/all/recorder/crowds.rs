//! Thousands of clients, clients that never finish a request, and clients that send garbage: recording goes on, and
//! others are served.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::certs::Pki;
use super::running::{Recorder, Sender, datagram, eventually, have};
use crate::namespaces::{Namespace, available};
use crate::service::asking;

const CROWD: usize = 10_000;
const FRAMES: u32 = 4000;

/// Raises the limit of open files to its maximum, and returns it.
fn descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

#[test]
fn ten_thousand_connections_disturb_neither_recording_nor_a_reader() {
    if !available("crowds") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let keep = descriptors().saturating_sub(500).min(CROWD);
    let done = AtomicBool::new(false);
    let mut sender = Sender::new(&near, "near");
    let (reads, peak) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) || reads == 0 {
                // Before the first packet arrives nothing is found.
                let answer = asking::get(recorder.socket(), "/v1/packets?filter=udp&c=5");
                assert!(matches!(answer.status, 200 | 404), "{}", answer.text());
                assert_eq!(asking::get(recorder.socket(), "/v1/status").status, 200);
                reads += 1;
            }
            reads
        });
        let recording =
            scope.spawn(move || sender.send_paced(FRAMES, 2000, |number, frame| datagram(number % 50, 200, frame)));
        let mut crowd = std::collections::VecDeque::new();
        for number in 0..CROWD {
            let mut stream = UnixStream::connect(recorder.socket()).unwrap();
            // Half of them begin a request that they never finish.
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET /v1/packets HTTP/1.1\r\nX-Slow: ");
            }
            // Some of them send another byte now and then.
            if let Some(slow) = crowd.get_mut(number / 2) {
                let _ = UnixStream::write(slow, b"z");
            }
            crowd.push_back(stream);
            if crowd.len() > keep {
                crowd.pop_front();
            }
        }
        recording.join().unwrap();
        done.store(true, Ordering::Relaxed);
        (reader.join().unwrap(), recorder.resident_peak())
    });
    let status = recorder.arrived(u64::from(FRAMES));
    eprintln!(
        "{reads} reads meanwhile, {} packets lost in the kernel, at most {} MiB",
        status.packets.kernel_dropped,
        peak >> 20
    );
    assert_eq!(status.packets.kernel_dropped, 0);
    assert!(reads > 10, "{reads}");
    assert!(peak < (32 << 20) + super::running::BEYOND_BUDGET, "{peak}");
    let metrics = asking::get(recorder.socket(), "/metrics").text();
    let crowded =
        metrics.lines().find_map(|line| line.strip_prefix("retrocap_clients_closed_total{reason=\"crowded_out\"} "));
    assert!(crowded.unwrap().parse::<usize>().unwrap() > CROWD - 1000, "{metrics}");
    eventually("the crowd is gone", || {
        let metrics = asking::get(recorder.socket(), "/metrics").text();
        metrics.lines().any(|line| line == "retrocap_connections 1")
    });
}

#[test]
fn unauthenticated_connections_keep_no_client_out() {
    let test = "strangers at the door";
    if !available(test) || !have(test, &["openssl"]) {
        return;
    }
    let pki = Pki::new();
    let alice = pki.client("alice", "packets");
    let (near, far) = Namespace::pair();
    far.ip("addr add 192.0.2.2/24 dev far");
    near.ip("addr add 192.0.2.1/24 dev near");
    let made = pki.certs(&["server", "192.0.2.2", "--out", pki.path("far").to_str().unwrap()]);
    assert_eq!(made.code, 0, "{made:?}");
    let file = |name: &str| pki.path(name).to_str().unwrap().to_owned();
    let recorder = Recorder::live(
        &far,
        &[
            "-m",
            "32M",
            "--listen",
            "192.0.2.2:57443",
            "--ca",
            &file("ca.pem"),
            "--cert",
            &file("far/server.pem"),
            "--key",
            &file("far/server.key"),
        ],
    );
    let status = || {
        let program = super::running::PROGRAM;
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &near.name, program, "status", "--json", "--remote", "https://192.0.2.2:57443"]);
        super::running::reply(&command.env("RETROCAP_CERTS", &alice).output().unwrap())
    };
    assert_eq!(status().code, 0);
    let crowd: Vec<TcpStream> = near.enter(|| {
        (0..1000)
            .map(|number| {
                let mut stream =
                    TcpStream::connect_timeout(&"192.0.2.2:57443".parse().unwrap(), Duration::from_secs(10)).unwrap();
                let garbage: &[u8] = match number % 4 {
                    // Silence, half a handshake, another protocol, and noise.
                    0 => b"",
                    1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                    2 => b"GET /v1/packets HTTP/1.1\r\nHost: x\r\n\r\n",
                    _ => &[0xff; 5000],
                };
                let _ = stream.write_all(garbage);
                stream
            })
            .collect()
    });
    let reply = status();
    assert_eq!(reply.code, 0, "from the same address, among a thousand: {reply:?}");
    assert_eq!(recorder.ask(&["status"]).code, 0);
    let closed = |reason: &str| {
        let metrics = asking::get(recorder.socket(), "/metrics").text();
        let line = format!("retrocap_clients_closed_total{{reason=\"{reason}\"}} ");
        metrics.lines().find_map(|there| there.strip_prefix(&line)).unwrap().parse::<u64>().unwrap()
    };
    // A refused client stays connected for a moment so that it can read the reason.
    eventually("nonsense is counted", || closed("untrusted") > 0 && closed("crowded_out") + closed("too_many") >= 100);
    let refusals = recorder.log().lines().filter(|line| line.contains("was refused")).count();
    assert!((1..100).contains(&refusals), "the log is not flooded: {refusals} lines");
    drop(crowd);
}
