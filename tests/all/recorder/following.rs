//! The past and then new packets: `get --follow` into files, pipes and tools.

use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use retrocap::formats::reader::FileSource;
use retrocap::source::{Batch, Source as _};

use crate::generate;
use crate::namespaces::{Namespace, available};
use crate::service::asking;

use super::running::{Recorder, Sender, datagram, eventually, have, reply, unanswered};

/// A frame that carries its number.
pub(super) fn numbered(number: u32) -> Vec<u8> {
    let mut frame = unanswered(60);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

pub(super) fn number_of(data: &[u8]) -> u32 {
    u32::from_be_bytes(data[14..18].try_into().unwrap())
}

pub(super) fn send(sender: &mut Sender, numbers: std::ops::Range<u32>) {
    numbers.for_each(|number| sender.send(&numbered(number)));
}

/// The numbers of the packets in a stream. The channel ends with the stream.
pub(super) fn numbers(stream: impl Read + Send + 'static) -> Receiver<u32> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut source = FileSource::from_reader(Box::new(stream), std::sync::Arc::default());
        loop {
            let batch = source.batch(&mut |packet| {
                let _ = sender.send(number_of(packet.data));
            });
            match batch {
                Ok(Batch::End) | Err(_) => return,
                Ok(_) => {}
            }
        }
    });
    receiver
}

pub(super) fn next(numbers: &Receiver<u32>) -> u32 {
    numbers.recv_timeout(Duration::from_secs(20)).expect("a packet comes")
}

/// A follower that writes into a pipe.
fn follower(recorder: &Recorder, arguments: &[&str]) -> Child {
    let mut command = recorder.verb(&[&["get", "--follow"], arguments].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_follower_gets_the_past_and_then_each_packet_once() {
    if !available("follow") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    send(&mut sender, 0..1000);
    recorder.arrived(1000);
    for arguments in [&["-c", "1020"][..], &["-c", "1020", "--format", "pcap"], &["-c", "1020", "ether proto 0x88b5"]] {
        let before = u32::try_from(recorder.status().packets.received).unwrap();
        let mut child = follower(&recorder, arguments);
        let numbers = numbers(child.stdout.take().unwrap());
        (0..1000).for_each(|number| assert_eq!(next(&numbers), number));
        // Packets from earlier rounds are part of the past by now.
        (1000..before).for_each(|number| assert_eq!(next(&numbers), number));
        let mut waits = Vec::new();
        for number in before..1020 {
            let sent = Instant::now();
            send(&mut sender, number..number + 1);
            assert_eq!(next(&numbers), number);
            waits.push(sent.elapsed());
        }
        waits.sort();
        eprintln!("from the cable to the pipe: {:?} at most", waits.last());
        let reply = reply(&child.wait_with_output().unwrap());
        assert_eq!((reply.code, reply.stderr.as_str()), (0, ""), "the count ends it");
        assert!(numbers.recv().is_err(), "nothing comes twice");
    }
}

#[test]
fn a_follower_ends_at_its_until_time() {
    if !available("until") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    let mut child = follower(&recorder, &["--until", "2s"]);
    let numbers = numbers(child.stdout.take().unwrap());
    send(&mut sender, 0..10);
    (0..10).for_each(|number| assert_eq!(next(&numbers), number));
    let reply = reply(&child.wait_with_output().unwrap());
    assert_eq!((reply.code, reply.stderr.as_str()), (0, ""));

    let reply = recorder.ask(&["get", "--follow", "--until", "2020-01-01"]);
    assert!(reply.code == 2 && reply.stderr.contains("--until 5m"), "{reply:?}");
}

#[test]
fn tools_read_a_follower_through_a_pipe() {
    if !available("pipes") || !have("pipes", &["tshark", "tcpdump"]) {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    send(&mut sender, 0..30);
    recorder.arrived(30);
    for (at, tool) in [["tshark", "-n", "-l", "-r", "-"], ["tcpdump", "-n", "-l", "-r", "-"]].into_iter().enumerate() {
        let sent = 30 + 10 * u32::try_from(at).unwrap();
        let mut child = follower(&recorder, &["-c", &(sent + 10).to_string(), "-w", "-"]);
        let pipe = child.stdout.take().unwrap();
        let reader = std::process::Command::new(tool[0])
            .args(&tool[1..])
            .stdin(pipe)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        send(&mut sender, sent..sent + 10);
        let output = reader.wait_with_output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.contains("88b5") || line.contains("88B5"))
            .count();
        assert_eq!(u32::try_from(lines).unwrap(), sent + 10, "{tool:?}: {}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(reply(&child.wait_with_output().unwrap()).code, 0);
    }
}

#[test]
fn an_interrupted_follower_keeps_its_packets() {
    if !available("interrupt") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    send(&mut sender, 0..100);
    recorder.arrived(100);
    let path = recorder.path("kept.pcapng");
    let child = follower(&recorder, &["-w", path.to_str().unwrap()]);
    send(&mut sender, 100..150);
    recorder.arrived(150);
    // A follower polls many times a second, and nothing reports that it has written.
    std::thread::sleep(Duration::from_secs(1));
    assert!(!path.exists(), "it appears whole");
    let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let reply = reply(&child.wait_with_output().unwrap());
    assert!(reply.code == 0 && reply.stderr.contains("150 packets"), "{reply:?}");
    let (packets, end) = generate::read(&path);
    assert!(end.is_ok());
    let numbers: Vec<u32> = packets.iter().map(|packet| number_of(&packet.2)).collect();
    assert_eq!(numbers, (0..150).collect::<Vec<_>>());
}

/// The queries that run now.
pub(super) fn running(recorder: &Recorder) -> u64 {
    let text = asking::get(recorder.socket(), "/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix("retrocap_queries_running ")).expect("it is counted");
    line.parse().unwrap()
}

/// Sends a follower one Ctrl-C as soon as it handles it, and returns what it said.
pub(super) fn interrupted(child: Child) -> super::running::Reply {
    eventually("it handles Ctrl-C", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        // SIGHUP is the last of the three, and bit 0.
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 != 0
    });
    let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    reply(&child.wait_with_output().unwrap())
}

#[test]
fn honest_13_2_an_interrupted_follower_says_what_it_could_not_see() {
    if !available("interrupt-notes") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    send(&mut sender, 0..100);
    recorder.arrived(100);
    let path = recorder.path("nothing.pcapng");
    let file = path.to_str().unwrap();
    for arguments in
        [&["-w", file, "host 192.0.2.99"][..], &["-w", "-", "host 192.0.2.99"], &["--text", "host 192.0.2.99"]]
    {
        let child = follower(&recorder, arguments);
        eventually("it follows", || running(&recorder) >= 1);
        let told = interrupted(child);
        assert_eq!(told.code, 0, "{told:?}");
        assert!(told.stderr.contains("100 packets with ethertype 0x88b5 were not opened"), "{arguments:?}: {told:?}");
        eventually("its place is free again", || running(&recorder) == 0);
    }
    // Packets that match are not denied.
    let child = follower(&recorder, &["-w", file]);
    eventually("it follows", || running(&recorder) >= 1);
    send(&mut sender, 100..150);
    recorder.arrived(150);
    std::thread::sleep(Duration::from_secs(1));
    let told = interrupted(child);
    assert!(told.stderr.contains("150 packets") && !told.stderr.contains("no packet"), "{told:?}");
}

#[test]
fn a_stalled_follower_costs_nobody_a_packet_and_learns_what_it_missed() {
    const MANY: u32 = 300_000;
    if !available("a follower that stops") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let mut sender = Sender::new(&near, "near");
    let mut stalled = UnixStream::connect(recorder.socket()).unwrap();
    stalled.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    asking::send(&mut stalled, "/v1/packets?follow&until=12s");
    let mut answer = vec![0; 100];
    stalled.read_exact(&mut answer).unwrap();
    sender.send_paced(MANY, 60_000, |number, frame| datagram(number % 1000, 200, frame));
    let status = recorder.arrived(u64::from(MANY));
    assert_eq!((status.packets.kernel_dropped, status.packets.dropped), (0, 0));
    assert!(status.packets.evicted > 0, "memory came round meanwhile");
    stalled.read_to_end(&mut answer).unwrap();
    let answer = asking::parse(&answer);
    let file = recorder.path("stalled.pcapng");
    std::fs::write(&file, &answer.body).unwrap();
    let (packets, end) = generate::read(&file);
    assert!(end.is_ok());
    let overtaken: u64 = answer.trailer("retrocap-overtaken").unwrap().parse().unwrap();
    eprintln!("the one that stopped got {} packets, and lost {overtaken}", packets.len());
    assert!(overtaken > 0 && packets.len() as u64 + overtaken == u64::from(MANY), "{overtaken}");
    assert!(String::from_utf8_lossy(&answer.body).contains("were evicted before they could be sent"));
    eventually("the log says so", || recorder.log().contains("reads too slowly"));
}

#[test]
fn followers_leave_room_for_other_queries() {
    if !available("places") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "16M"]);
    send(&mut Sender::new(&near, "near"), 0..10);
    recorder.arrived(10);
    // With so little memory six answers run at once, and three of them may follow.
    let mut followers: Vec<UnixStream> = (0..3).map(|_| UnixStream::connect(recorder.socket()).unwrap()).collect();
    for follower in &mut followers {
        asking::send(follower, "/v1/packets?follow");
        follower.read_exact(&mut [0; 100]).unwrap();
    }
    let refused = asking::get(recorder.socket(), "/v1/packets?follow");
    assert!(refused.status == 503 && refused.text().contains("followers"), "{}", refused.text());
    assert_eq!(recorder.packets(&[]).len(), 10, "who asks for the past is answered");
    // A follower that disconnects is noticed, although there is nothing to send to it.
    followers.pop().unwrap().flush().unwrap();
    eventually("there is a place again", || {
        let mut stream = UnixStream::connect(recorder.socket()).unwrap();
        asking::send(&mut stream, "/v1/packets?follow");
        let mut start = [0; 12];
        stream.read_exact(&mut start).is_ok() && start.ends_with(b"200")
    });
}
