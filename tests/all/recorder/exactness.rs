//! Every packet is recorded once, byte for byte, and every count is exact.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::generate;
use crate::machine;
use crate::namespaces::{Namespace, available};

use super::running::{Recorder, Sender, conserves, contents, datagram, eventually, have};

const ETHERNET: [&str; 9] = [
    "mixed-lan.pcap",
    "scans-many-flows.pcap",
    "ics-modbus.pcap",
    "iot-setup.pcap",
    "smb2-100-files.pcap",
    "pppoe-over-qinq.pcap",
    "gre-within-gre.pcap",
    "vxlan-http.pcap",
    "http-pdf.pcap",
];

/// These captures; `None`, with a message, when something to replay them is missing.
fn captures(test: &str, names: &[&str]) -> Option<Vec<PathBuf>> {
    if !available(test) || !have(test, &["tcpreplay"]) {
        return None;
    }
    names.iter().map(|name| machine::capture(test, name)).collect()
}

fn replay(near: &Namespace, path: &std::path::Path, arguments: &[&str]) {
    let words = [&["tcpreplay", "--quiet", "--intf1=near"], arguments, &[path.to_str().unwrap()]].concat();
    near.exec(&words);
}

#[test]
fn packets_on_the_cable_are_exported_byte_for_byte() {
    let Some(captures) = captures("what was on the cable", &ETHERNET) else { return };
    let (near, far) = Namespace::pair();
    far.ip("link set far arp off");
    let recorder = Recorder::live(&far, &["-m", "128M"]);
    let mut sent = Vec::new();
    for path in &captures {
        replay(&near, path, &["--mbps=200"]);
        sent.extend(contents(generate::read(path).0));
        let status = recorder.arrived(sent.len() as u64);
        let bytes: u64 = sent.iter().map(|(_, data)| data.len() as u64).sum();
        let (p, b) = (status.packets, status.bytes);
        let name = path.display();
        assert_eq!((p.stored, p.filtered, p.dropped, p.kernel_dropped), (sent.len() as u64, 0, 0, 0), "{name}");
        assert_eq!((p.retained, p.evicted, b.received, b.retained), (p.stored, 0, bytes, bytes), "{name}");
        let interface = status.interfaces.iter().find(|interface| interface.name == "far").unwrap();
        assert_eq!((interface.packets, interface.bytes, interface.up), (p.received, bytes, true), "{name}");
        assert_eq!(interface.link_type, "EN10MB");
    }
    let got = recorder.packets(&[]);
    assert!(got.is_sorted_by_key(|packet| packet.0));
    let got = contents(got);
    assert_eq!(got.len(), sent.len());
    let wrong = got.iter().zip(&sent).position(|(got, sent)| got != sent);
    assert_eq!(wrong, None, "the first packet that differs");
}

#[test]
fn counts_add_up_while_memory_overflows() {
    let Some(captures) = captures("counts add up", &ETHERNET[..1]) else { return };
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "24M"]);
    let packets = generate::read(&captures[0]).0.len() as u64;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| replay(&near, &captures[0], &["--mbps=250", "--loop=20", "--preload-pcap"]));
        // `status` checks that the counts of each document add up.
        while !sender.is_finished() {
            recorder.status();
        }
    });
    let status = recorder.arrived(20 * packets);
    assert!(status.packets.evicted > 0 && status.packets.retained > 0, "{:?}", status.packets);
    assert_eq!(recorder.packets(&[]).len() as u64, status.packets.retained);
}

/// Workers start one after the other: from the first recorded packet on, none is missing, whichever worker it belongs to.
#[test]
fn workers_start_together() {
    const AFTER: u32 = 500;
    if !available("workers start together") {
        return;
    }
    let (near, far) = Namespace::pair();
    let frame = |number: u32| {
        let mut frame = Vec::new();
        datagram(number, 100, &mut frame);
        frame
    };
    for _ in 0..2 {
        let (started, sending) = (AtomicBool::new(false), AtomicBool::new(false));
        let (recorder, sent) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sender = Sender::new(&near, "near");
                let (mut number, mut left) = (0u32, AFTER);
                // Each packet is a session of its own, so that about half of them belong to each worker.
                while left > 0 {
                    sender.send(&frame(number));
                    number += 1;
                    left -= u32::from(started.load(Ordering::Relaxed));
                    sending.store(true, Ordering::Relaxed);
                    if number.is_multiple_of(16) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                number
            });
            eventually("packets are sent", || sending.load(Ordering::Relaxed));
            let recorder = Recorder::live(&far, &["-m", "64M", "--workers", "2", "-i", "far"]);
            started.store(true, Ordering::Relaxed);
            (recorder, sender.join().unwrap())
        });
        let last = frame(sent - 1);
        eventually("the last one is there", || recorder.packets(&[]).iter().any(|packet| packet.2 == last));
        // The other worker may hand over its last block a moment later. A sender that moves to another processor can
        // overtake its own packets, so the order is not compared.
        let got = || -> BTreeSet<_> { contents(recorder.packets(&[])).into_iter().map(|(_, frame)| frame).collect() };
        let missing = |got: &BTreeSet<Vec<u8>>| {
            let first = sent - u32::try_from(got.len()).unwrap();
            (first..sent).filter(|number| !got.contains(&frame(*number))).collect::<Vec<_>>()
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        while !missing(&got()).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let got = got();
        let status = recorder.status();
        conserves(&status);
        assert_eq!((status.capture.workers, status.packets.kernel_dropped), (2, 0));
        assert_eq!(got.len() as u64, status.packets.retained, "each packet once");
        assert!(got.len() < sent as usize && got.len() >= AFTER as usize, "{} of {sent}", got.len());
        assert_eq!(missing(&got), Vec::<u32>::new(), "of {sent} packets, {} are there", got.len());
    }
}

#[test]
fn two_workers_record_each_packet_once() {
    let Some(captures) = captures("two workers", &ETHERNET[..2]) else { return };
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "128M", "--workers", "2"]);
    let mut sent = Vec::new();
    for path in &captures {
        replay(&near, path, &["--mbps=200"]);
        sent.extend(contents(generate::read(path).0));
    }
    let status = recorder.arrived(sent.len() as u64);
    let bytes: u64 = sent.iter().map(|(_, data)| data.len() as u64).sum();
    assert_eq!((status.capture.workers, status.packets.kernel_dropped, status.bytes.retained), (2, 0, bytes));
    assert_eq!(status.interfaces.iter().map(|interface| interface.packets).sum::<u64>(), sent.len() as u64);
    let got = recorder.packets(&[]);
    assert!(got.is_sorted_by_key(|packet| packet.0), "merged by time");
    let mut got = contents(got);
    got.sort();
    sent.sort();
    assert!(got == sent, "{} of {}", got.len(), sent.len());
    // Each worker counts its own packets of a session; the answer lists each session once.
    let flows = recorder.ask(&["flows", "--json"]);
    let seen: u64 = flows
        .stdout
        .lines()
        .map(|line| {
            let flow: serde_json::Value = serde_json::from_str(line).unwrap();
            flow["packets"]["originator"].as_u64().unwrap() + flow["packets"]["responder"].as_u64().unwrap()
        })
        .sum();
    assert_eq!(seen, sent.len() as u64);
}
