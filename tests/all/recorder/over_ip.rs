//! PCAP-over-IP without TLS: served on the loopback address, and pushed to a listener there.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::generate;
use crate::namespaces::{Namespace, available};

use super::following::{next, numbers, send};
use super::running::{PROGRAM, Recorder, Sender, datagram, directory, eventually, have, reply};

const ADDRESS: &str = "127.0.0.1:57012";

/// Two namespaces joined by a cable. The recorder runs in the far one and serves PCAP-over-IP there.
fn served(arguments: &[&str]) -> (Namespace, Namespace, Recorder) {
    let (near, far) = Namespace::pair();
    far.ip("link set lo up");
    let recorder =
        Recorder::live(&far, &[&["-m", "32M", "--sandbox", "required", "--pcap-over-ip", ADDRESS], arguments].concat());
    (near, far, recorder)
}

fn connect(namespace: &Namespace) -> TcpStream {
    namespace.enter(|| TcpStream::connect(ADDRESS).unwrap())
}

#[test]
fn a_tcp_client_gets_the_past_and_then_each_packet_once() {
    if !available("over IP") {
        return;
    }
    for (format, magic) in [("pcap", 0xa1b2_c3d4_u32), ("pcap-nano", 0xa1b2_3c4d), ("pcapng", 0x0a0d_0d0a)] {
        let (near, far, recorder) = served(&["--pcap-over-ip-past", "10m", "--pcap-over-ip-format", format]);
        let mut sender = Sender::new(&near, "near");
        // The header comes at once, before any packet.
        let mut quiet = connect(&far);
        quiet.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut start = [0; 4];
        quiet.read_exact(&mut start).unwrap();
        assert_eq!(u32::from_ne_bytes(start), magic, "{format}");
        send(&mut sender, 0..500);
        eventually("they are kept", || recorder.status().packets.stored >= 500);
        let numbers = numbers(connect(&far));
        (0..500).for_each(|number| assert_eq!(next(&numbers), number, "{format}"));
        send(&mut sender, 500..600);
        (500..600).for_each(|number| assert_eq!(next(&numbers), number, "{format}"));
        // The stream of 600 packets itself crossed the loopback interface; none of it was recorded.
        let status = recorder.status();
        assert!(status.packets.filtered > 0, "{:?}", status.packets);
        assert_eq!(status.packets.stored, 600);
        let nothing = recorder.ask(&["get", "-w", "/dev/null", "tcp"]);
        assert_eq!(nothing.code, 1, "{nothing:?}");
    }
}

#[test]
fn the_user_of_a_plain_connection_is_logged() {
    if !available("users over IP") {
        return;
    }
    let (near, far, recorder) = served(&["--pcap-over-ip-past", "10m"]);
    let mut sender = Sender::new(&near, "near");
    send(&mut sender, 0..10);
    let numbers = numbers(connect(&far));
    (0..10).for_each(|number| assert_eq!(next(&numbers), number));
    let log = std::fs::read_to_string(recorder.path("audit.log")).unwrap();
    let begin: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(begin["query"]["pcap_over_ip"], true, "{begin}");
    assert_eq!(begin["who"]["uid"], rustix::process::getuid().as_raw(), "{begin}");
}

/// A follower over a network never receives packets of its own connection, since each would cause more.
#[test]
fn a_follower_over_tcp_is_not_recorded() {
    if !available("following over TCP") {
        return;
    }
    let (near, far) = Namespace::pair();
    far.ip("link set lo up");
    let recorder = Recorder::live(&far, &["-m", "32M", "--sandbox", "required", "--listen-plain", ADDRESS]);
    let mut sender = Sender::new(&near, "near");
    let mut follower = connect(&far);
    follower.write_all(b"GET /v1/packets?follow HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    follower.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut start = [0; 12];
    follower.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    let reader = std::thread::spawn(move || std::io::copy(&mut follower, &mut std::io::sink()));
    let filtered = recorder.status().packets.filtered;
    for number in 0..20 {
        send(&mut sender, number * 50..(number + 1) * 50);
        eventually("what is sent is left out", || {
            let status = recorder.status();
            status.packets.stored >= u64::from(number + 1) * 50
                && status.packets.filtered > filtered + u64::from(number)
        });
    }
    // The handshake and the request were recorded, and nothing after them.
    let stored = recorder.status().packets.stored;
    assert!((1000..1000 + 20).contains(&stored), "{stored}");
    drop(recorder);
    let _ = reader.join().unwrap();
}

#[test]
fn tshark_reads_the_stream() {
    if !available("tshark over IP") || !have("tshark over IP", &["tshark"]) {
        return;
    }
    for format in ["pcap", "pcap-nano", "pcapng"] {
        // tshark probes for Android devices over the loopback interface; the filter leaves that traffic out.
        let (near, far, recorder) =
            served(&["--pcap-over-ip-past", "10m", "--pcap-over-ip-format", format, "-f", "ether proto 0x88b5"]);
        let mut sender = Sender::new(&near, "near");
        send(&mut sender, 0..50);
        recorder.arrived(50);
        let reader = Command::new("ip")
            .args(["netns", "exec", &far.name, "tshark", "-n", "-l", "-i", &format!("TCP@{ADDRESS}"), "-c", "60"])
            .args(["-a", "duration:60", "-T", "fields", "-e", "eth.type"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("it reads", || recorder.log().contains("reads packets as they come"));
        send(&mut sender, 50..60);
        let output = reader.wait_with_output().unwrap();
        let types = String::from_utf8_lossy(&output.stdout);
        assert_eq!(types.lines().filter(|kind| *kind == "0x88b5").count(), 60, "{format}: {types}");
    }
}

#[test]
fn classic_pcap_holds_what_other_link_types_carry() {
    let mut file = generate::header();
    for number in 0..5 {
        generate::packet(&mut file, u64::from(number) * 1000, number, true, 100);
    }
    // As pcapng with an interface of raw IP besides the Ethernet one.
    let directory = directory();
    let (classic, mixed) = (directory.path().join("classic.pcap"), directory.path().join("mixed.pcapng"));
    std::fs::write(&classic, file).unwrap();
    std::fs::write(&mixed, two_link_types(&generate::read(&classic).0)).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["run", "-m", "16M", "--speed", "max", "--pcap-over-ip", "127.0.0.1:0"]);
    command.args(["--pcap-over-ip-past", "10m", "--replay"]).arg(&mixed);
    let recorder = Recorder::start(command, directory);
    recorder.arrived(15);
    let log = recorder.log();
    let address = log.split("PCAP-over-IP on ").nth(1).and_then(|rest| rest.split(": ").next()).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // 10 packets of the same length, five of which were raw IP. The five of CAN do not fit into classic pcap.
    let mut bytes = vec![0; 24 + 10 * (16 + 142)];
    stream.read_exact(&mut bytes).unwrap();
    drop(stream);
    let path = recorder.path("streamed.pcap");
    std::fs::write(&path, bytes).unwrap();
    let (packets, end) = generate::read(&path);
    assert!(end.is_ok() && packets.len() == 10);
    assert!(packets.iter().all(|(_, original, data)| *original == 142 && data[12..15] == [8, 0, 0x45]));
    eventually("it says what was left out", || {
        recorder.log().contains("5 left out because their link type does not fit")
            || TcpStream::connect(address).is_err()
    });
}

/// Writes each packet on an Ethernet interface, and its payload on one of raw IP and one of CAN.
fn two_link_types(packets: &[generate::Plain]) -> Vec<u8> {
    use retrocap::formats::writer::{Exporter, Format, Options};
    use retrocap::interface::Interfaces;
    use retrocap::packet::{Direction, LinkType, Packet, PacketFlags};
    use retrocap::time::Timestamp;
    let interfaces = Interfaces::default();
    let mut exporter = Exporter::new(Format::Pcapng, Options::default());
    let mut out = Vec::new();
    exporter.begin(&mut out, &[]);
    for (time, _, data) in packets {
        for (name, link_type, data) in [
            ("eth0", LinkType::ETHERNET, &data[..]),
            ("tun0", LinkType::RAW, &data[14..]),
            ("can0", LinkType(227), &data[..16]),
        ] {
            let id = interfaces.intern(name, 0, link_type).unwrap();
            let packet = Packet {
                time: Timestamp(*time),
                interface: id,
                link_type,
                direction: Direction::Unknown,
                flags: PacketFlags::default(),
                original_len: u32::try_from(data.len()).unwrap(),
                drops_before: 0,
                data,
            };
            exporter.packet(&mut out, &interfaces.interface(id).unwrap(), &packet).unwrap();
        }
    }
    exporter.end(&mut out, &[], &[]);
    out
}

#[test]
fn a_client_that_stalls_is_not_waited_for() {
    const MANY: u32 = 300_000;
    if !available("a client that stalls") {
        return;
    }
    let (near, far, recorder) = served(&[]);
    let mut sender = Sender::new(&near, "near");
    let mut stalled = connect(&far);
    stalled.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The service ignores what the client sends.
    stalled.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    stalled.read_exact(&mut [0; 24]).unwrap();
    sender.send_paced(MANY, 60_000, |number, frame| datagram(number % 1000, 200, frame));
    eventually("all have come", || recorder.status().packets.stored >= u64::from(MANY));
    let status = recorder.status();
    assert_eq!((status.packets.kernel_dropped, status.packets.dropped), (0, 0));
    // The client reads again, and the log says what it has missed.
    std::thread::spawn(move || std::io::copy(&mut stalled, &mut std::io::sink()));
    eventually("the log says so", || recorder.log().contains("reads too slowly"));
}

#[test]
fn a_client_that_stalls_beyond_the_limit_is_disconnected() {
    const MANY: u32 = 60_000;
    if !available("a client that stalls for long") {
        return;
    }
    let config = directory();
    let file = config.path().join("retrocap.toml");
    std::fs::write(&file, "[limits]\nstall-timeout = \"1s\"\n").unwrap();
    let (near, far, recorder) = served(&["--config", file.to_str().unwrap()]);
    let mut sender = Sender::new(&near, "near");
    let mut stalled = connect(&far);
    stalled.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stalled.read_exact(&mut [0; 24]).unwrap();
    let mut good = connect(&far);
    let bytes = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let counted = std::sync::Arc::clone(&bytes);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = good.read(&mut buffer) {
            counted.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        }
    });
    eventually("both are there", || recorder.log().matches("reads packets as they come").count() == 2);
    sender.send_paced(MANY, 20_000, |number, frame| datagram(number % 1000, 200, frame));
    eventually("the log says so", || recorder.log().contains("has read too slowly for 1s, and is disconnected: "));
    let metrics = crate::service::asking::get(recorder.socket(), "/metrics").text();
    assert!(metrics.contains("retrocap_clients_closed_total{reason=\"stalled\"} 1\n"), "{metrics}");
    // The stalled client is disconnected, and no other client waited for it.
    let all = 24 + MANY as usize * (16 + 242);
    let mut rest = Vec::new();
    let _ = stalled.read_to_end(&mut rest);
    assert!(rest.len() < all, "{} bytes", rest.len());
    eventually("the other has all", || bytes.load(std::sync::atomic::Ordering::Relaxed) == all);
    assert_eq!(recorder.log().matches("and is disconnected: ").count(), 1, "{}", recorder.log());
}

#[test]
fn a_listener_also_gets_the_packets_of_the_time_it_was_away() {
    if !available("push") {
        return;
    }
    let (near, far) = Namespace::pair();
    far.ip("link set lo up");
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    send(&mut sender, 0..100);
    recorder.arrived(100);
    let listener = far.enter(|| TcpListener::bind("127.0.0.1:57013").unwrap());
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &far.name, PROGRAM, "push", "--since", "1h", "-c", "300", "127.0.0.1:57013"]);
    // Only the connection of the stream is excluded; the filter leaves out the first packets of that connection.
    command.arg("ether proto 0x88b5").arg("--socket").arg(recorder.socket());
    let push = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (first, _) = listener.accept().unwrap();
    let ending = first.try_clone().unwrap();
    let got = numbers(first);
    (0..100).for_each(|number| assert_eq!(next(&got), number));
    send(&mut sender, 100..200);
    (100..200).for_each(|number| assert_eq!(next(&got), number));
    ending.shutdown(std::net::Shutdown::Both).unwrap();
    drop(ending);
    // Send these while the listener is away.
    std::thread::sleep(Duration::from_millis(500));
    send(&mut sender, 200..300);
    let (second, _) = listener.accept().unwrap();
    let got = numbers(second);
    (200..300).for_each(|number| assert_eq!(next(&got), number));
    let reply = reply(&push.wait_with_output().unwrap());
    assert!(reply.code == 0 && reply.stderr.contains("300 packets -> 127.0.0.1:57013"), "{reply:?}");
    assert!(reply.stderr.contains("has gone after 200 packets"), "{reply:?}");
    // The pushed stream crossed the loopback interface and was not recorded.
    let status = recorder.status();
    assert!(status.packets.filtered > 0, "{:?}", status.packets);
    assert!(status.packets.stored < 300 + 20, "handshakes at most: {:?}", status.packets);
}

#[test]
fn other_users_can_neither_read_nor_hide_a_connection() {
    if !available("rights") {
        return;
    }
    for (arguments, words) in [
        (&["run", "--pcap-over-ip", "localhost"][..], "try 127.0.0.1:57012"),
        (&["run", "--pcap-over-ip-tls"], "add --pcap-over-ip"),
        (&["run", "--pcap-over-ip-past", "5m"], "add --pcap-over-ip"),
        (&["run", "--pcap-over-ip", "127.0.0.1:1", "--pcap-over-ip-past", "5"], "90s"),
    ] {
        let reply = reply(&Command::new(PROGRAM).args(arguments).args(["-m", "16M"]).output().unwrap());
        assert!(reply.code == 2 && reply.stderr.contains(words), "{arguments:?}: {reply:?}");
    }
    // Beyond loopback only TLS is served, which needs certificates.
    let mut command = Command::new(PROGRAM);
    command.args(["run", "-m", "16M", "--pcap-over-ip", "0.0.0.0:57012", "--ca", "/nowhere/ca.pem"]);
    let socket = directory();
    let alone = reply(&command.arg("--socket").arg(socket.path().join("socket")).output().unwrap());
    assert!(alone.code == 1 && alone.stderr.contains("PCAP-over-IP on 0.0.0.0:57012 needs TLS"), "{alone:?}");
    assert!(alone.stderr.contains("/nowhere/ca.pem") && alone.stderr.contains("retrocap certs"), "{alone:?}");
    let far = Namespace::new();
    let recorder = Recorder::live(&far, &["-m", "16M"]);
    let reply = recorder.ask(&["push", "192.0.2.1:57012"]);
    assert!(reply.code == 2 && reply.stderr.contains("--plain") && reply.stderr.contains("--tls"), "{reply:?}");
    // A user who may read, but is neither root nor the recorder's user.
    let open = Command::new("chmod").args(["666", recorder.socket().to_str().unwrap()]).status().unwrap();
    assert!(open.success());
    let question = "http://x/v1/packets?follow&carried-by=127.0.0.1:1%20127.0.0.1:2";
    let python = format!(
        "import os, socket\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\ns.connect('{}')\n\
         s.sendall(b'GET {} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n\
         print(s.recv(100).decode())",
        recorder.socket().display(),
        question.trim_start_matches("http://x")
    );
    let output = Command::new("python3").args(["-c", &python]).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}{}", String::from_utf8_lossy(&output.stderr));
}
