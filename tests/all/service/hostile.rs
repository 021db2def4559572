//! Clients that stall, disconnect, send garbage, or are too many; and a service that stops meanwhile.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use retrocap::serve::ServiceLimits;

use super::asking::{get, parse, send};
use super::recording::{Recording, Server, packets_by, packets_in};

/// More than fits into the buffers between the service and a client that does not read.
const BULK_PACKETS: u64 = 15_000;

#[test]
fn a_stalled_reader_disturbs_nobody_and_is_disconnected() {
    let limits = ServiceLimits { stall_timeout: Duration::from_millis(500), ..ServiceLimits::default() };
    let server = Server::with(Recording::default().bulk(BULK_PACKETS), limits);
    let mut stalled = server.connect();
    send(&mut stalled, "/v1/packets");
    stalled.read_exact(&mut [0; 100]).unwrap();
    let answer = get(&server, "/v1/packets");
    assert_eq!((answer.status, packets_in(&answer.body) as u64), (200, BULK_PACKETS));
    server.wait_for("retrocap_clients_closed_total{reason=\"stalled\"} 1");
    server.wait_for("retrocap_queries_running 0");
    let mut rest = Vec::new();
    stalled.read_to_end(&mut rest).unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "what was cut off does not look whole");
}

#[test]
fn a_disconnected_client_ends_its_query() {
    let server = Server::start(Recording::default().bulk(BULK_PACKETS));
    let mut going = server.connect();
    send(&mut going, "/v1/packets");
    going.read_exact(&mut [0; 100]).unwrap();
    server.wait_for("retrocap_queries_running 1");
    drop(going);
    server.wait_for("retrocap_queries_running 0");
}

#[test]
fn queries_beyond_the_budget_wait_and_are_then_refused() {
    let limits = ServiceLimits { queue_timeout: Duration::from_millis(200), ..ServiceLimits::default() };
    let server = Server::with(Recording::default().bulk(BULK_PACKETS), limits);
    let mut readers: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for reader in &mut readers {
        send(reader, "/v1/packets");
        reader.read_exact(&mut [0; 100]).unwrap();
    }
    let answer = get(&server, "/v1/packets");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert!(answer.text().contains("try again in 5 s"), "{}", answer.text());
    assert_eq!(get(&server, "/v1/status").status, 200, "other questions are answered");
    assert_eq!(get(&server, "/v1/flows").status, 200);
    readers.pop();
    server.wait_for("retrocap_queries_running 7");
    assert_eq!(get(&server, "/v1/packets?c=1").status, 200);
}

#[test]
fn garbage_is_refused_and_the_next_request_answered() {
    let limits = ServiceLimits { head_timeout: Duration::from_millis(300), ..ServiceLimits::default() };
    let server = Server::with(Recording::default().udp(3, 100), limits);
    let many = "X-Header: 1\r\n".repeat(65);
    let large = format!("X-Header: {}\r\n", "x".repeat(100_000));
    let long = "x".repeat(100_000);
    for (sent, status) in [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03 garbage\r\n\r\n".to_owned(), "400"),
        ("GET /v1/status HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("GET /v1/sta".to_owned(), ""),
        ("GET /v1/status HTTP/1.1\r\nHost: localhost\r\n".to_owned(), ""),
        (String::new(), ""),
        (format!("GET /v1/status HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "431"),
        (format!("GET /v1/status HTTP/1.1\r\nHost: x\r\n{large}\r\n"), "431"),
        (format!("GET /v1/packets?filter={long} HTTP/1.1\r\nHost: x\r\n\r\n"), "4"),
        ("POST /v1/pins HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n".to_owned(), "413"),
        ("POST /v1/pins HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_owned(), "400"),
        (
            format!(
                "GET /v1/packets?filter={}not+tcp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                "(".repeat(8000)
            ),
            "400",
        ),
        (
            format!(
                "GET /v1/packets?filter={} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                "tcp+or+".repeat(2000)
            ),
            "400",
        ),
    ] {
        let mut stream = server.connect();
        // The service may close the connection before it has taken everything.
        let _ = stream.write_all(sent.as_bytes());
        let mut answer = Vec::new();
        let closed = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let shown: String = sent.chars().take(60).collect();
        let stayed = matches!(&closed, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!stayed, "{shown:?} stays open");
        if closed.is_ok() {
            let answered = answer.strip_prefix("HTTP/1.1 ").unwrap_or(&answer);
            assert!(answered.starts_with(status), "{shown:?}: {answer}");
        }
        assert_eq!(get(&server, "/v1/status").status, 200, "after {shown:?}");
    }
}

#[test]
fn idle_connections_make_room_for_requests() {
    let server = Server::with(
        Recording::default().udp(3, 100),
        ServiceLimits { connections_max: 4, ..ServiceLimits::default() },
    );
    let mut idle: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for _ in 0..10 {
        assert_eq!(get(&server, "/v1/packets").status, 200);
        idle.push(server.connect());
    }
    let metrics = get(&server, "/metrics").text();
    let crowded =
        metrics.lines().find_map(|line| line.strip_prefix("retrocap_clients_closed_total{reason=\"crowded_out\"} "));
    assert!(crowded.unwrap().parse::<u32>().unwrap() >= 20, "{metrics}");
    // The first connection has been closed; the last one still waits.
    assert_eq!(idle[0].read(&mut [0; 1]).unwrap(), 0);
    let mut last = idle.pop().unwrap();
    send(&mut last, "/v1/status");
    let mut answer = Vec::new();
    last.read_to_end(&mut answer).unwrap();
    assert_eq!(parse(&answer).status, 200);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted() {
    let server = Server::with(
        Recording::default().bulk(BULK_PACKETS),
        ServiceLimits { connections_max: 4, ..ServiceLimits::default() },
    );
    let mut readers: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for reader in &mut readers {
        send(reader, "/v1/packets");
        reader.read_exact(&mut [0; 100]).unwrap();
    }
    // One user gets at most three of four connections.
    let mut refused = server.connect();
    assert_eq!(refused.read(&mut [0; 1]).unwrap_or(0), 0);
    drop(readers);
    // Wait until the service has noticed that they are gone.
    std::thread::sleep(Duration::from_millis(300));
    server.wait_for("retrocap_clients_closed_total{reason=\"too_many\"} 1");
}

#[test]
fn a_trickling_reader_counts_as_stalled() {
    let limits = ServiceLimits { stall_timeout: Duration::from_millis(600), ..ServiceLimits::default() };
    let server = Server::with(Recording::default().bulk(BULK_PACKETS), limits);
    let mut slow = server.connect();
    send(&mut slow, "/v1/packets");
    let start = Instant::now();
    let mut piece = [0; 512];
    while matches!(slow.read(&mut piece), Ok(1..)) && start.elapsed() < Duration::from_secs(20) {
        if get(&server, "/metrics").text().contains("{reason=\"stalled\"} 1") {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    server.wait_for("retrocap_clients_closed_total{reason=\"stalled\"} 1");
    server.wait_for("retrocap_queries_running 0");
}

#[test]
fn an_incomplete_body_is_not_waited_for() {
    let limits = ServiceLimits { head_timeout: Duration::from_millis(300), ..ServiceLimits::default() };
    let server = Server::with(Recording::default().udp(3, 100), limits);
    let mut stream = server.connect();
    stream.write_all(b"POST /v1/pins HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"filter\"").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    server.wait_for("retrocap_clients_closed_total{reason=\"slow\"} 1");
}

#[test]
fn a_stopped_export_is_a_valid_file() {
    for (question, pcapng) in [("/v1/packets", true), ("/v1/packets?format=pcap", false)] {
        let mut server = Server::start(Recording::default().bulk(BULK_PACKETS));
        let mut reader = server.connect();
        send(&mut reader, question);
        let mut bytes = vec![0; 100_000];
        reader.read_exact(&mut bytes).unwrap();
        let start = Instant::now();
        server.request_shutdown();
        reader.read_to_end(&mut bytes).unwrap();
        server.wait_for_end();
        assert!(
            start.elapsed() < ServiceLimits::default().stall_timeout,
            "the end waited for the client: {:?}",
            start.elapsed()
        );
        let answer = parse(&bytes);
        let packets = packets_in(&answer.body);
        assert!(0 < packets && (packets as u64) < BULK_PACKETS, "{packets}");
        assert_eq!(answer.trailer("retrocap-packets").unwrap(), packets.to_string());
        assert!(answer.trailer("retrocap-note").unwrap().contains("the recorder was stopped"));
        let says = answer.body.windows(24).any(|window| window == b"the recorder was stopped");
        assert_eq!(says, pcapng);
        if super::have("tshark") {
            assert_eq!(packets_by("tshark", &answer.body), packets);
        }
    }
}

#[test]
fn a_stalled_client_does_not_delay_the_end() {
    let mut server = Server::start(Recording::default().bulk(BULK_PACKETS));
    let mut stalled = server.connect();
    send(&mut stalled, "/v1/packets");
    stalled.read_exact(&mut [0; 100]).unwrap();
    let _idle = server.connect();
    let start = Instant::now();
    server.request_shutdown();
    server.wait_for_end();
    assert!(
        start.elapsed() < ServiceLimits::default().stall_timeout,
        "the end waited for the client: {:?}",
        start.elapsed()
    );
}
