//! Interfaces that come, go and are renamed; link types; what `-i`, `-f` and `-s` select.

use crate::namespaces::{Namespace, available};

use super::following::send;
use super::running::{Recorder, Sender, contents, datagram, eventually, have, tshark, unanswered};

/// How often each value occurs.
fn counted(values: &[String]) -> Vec<(&str, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for value in values {
        *counts.entry(value.as_str()).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn is_up(recorder: &Recorder, name: &str) -> bool {
    recorder.status().interfaces.iter().any(|interface| interface.name == name && interface.up)
}

#[test]
fn new_and_renamed_interfaces_keep_their_packets() {
    if !available("hot plug") || !have("hot plug", &["tshark"]) {
        return;
    }
    let far = Namespace::new();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    far.ip("link add later0 type veth peer name back0");
    far.ip("link set back0 up");
    far.ip("link set later0 up");
    // Send at once, when the recorder may not even know the interface yet.
    let mut sender = Sender::new(&far, "back0");
    for _ in 0..3 {
        sender.send(&unanswered(100));
    }
    recorder.arrived(6);
    eventually("it is listed", || is_up(&recorder, "later0"));
    far.ip("link set later0 down");
    far.ip("link set later0 name renamed0");
    far.ip("link set renamed0 up");
    eventually("the new name is listed", || is_up(&recorder, "renamed0") && !is_up(&recorder, "later0"));
    for _ in 0..2 {
        sender.send(&unanswered(200));
    }
    recorder.arrived(10);
    assert_eq!(recorder.packets(&["--interface", "later0"]).len(), 3);
    assert_eq!(recorder.packets(&["--interface", "renamed0"]).len(), 2);
    assert_eq!(recorder.packets(&["--interface", "back0"]).len(), 5);
    let names = tshark(&recorder.export("all.pcapng", &[]), "frame.interface_name");
    assert_eq!(counted(&names), [("back0", 5), ("later0", 3), ("renamed0", 2)]);

    drop(sender);
    far.ip("link del renamed0");
    eventually("it is gone", || !is_up(&recorder, "renamed0"));
    assert_eq!(recorder.packets(&["--interface", "renamed0"]).len(), 2, "its packets are not");
    let reply = recorder.ask(&["get", "--interface", "renamed1"]);
    assert!(reply.code == 2 && reply.stderr.contains("renamed1"), "{reply:?}");
}

#[test]
fn vlan_tags_are_in_the_packets() {
    if !available("vlan") {
        return;
    }
    let (near, far) = Namespace::pair();
    let recorder = Recorder::live(&far, &["-m", "32M"]);
    let macs = &unanswered(0)[..12];
    let frames = [
        [macs, &[0x81, 0, 0, 5, 0x88, 0xb5], &[1; 80]].concat(),
        [macs, &[0x88, 0xa8, 0x60, 7, 0x81, 0, 0, 9, 0x88, 0xb5], &[2; 80]].concat(),
        [macs, &[0x88, 0xb5], &[3; 80]].concat(),
    ];
    let mut sender = Sender::new(&near, "near");
    for frame in &frames {
        sender.send(frame);
    }
    let status = recorder.arrived(3);
    assert_eq!(status.bytes.received, frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
    let data = |arguments: &[&str]| -> Vec<Vec<u8>> {
        contents(recorder.packets(arguments)).into_iter().map(|(_, data)| data).collect()
    };
    assert_eq!(data(&[]), frames);
    assert_eq!(data(&["vlan", "5"]), frames[..1]);
    assert_eq!(data(&["vlan 7 and vlan 9"]), frames[1..2]);
    assert_eq!(data(&["not", "vlan"]), frames[2..]);
}

#[test]
fn raw_ip_and_loopback_keep_their_link_types() {
    if !available("tun and loopback") || !have("tun and loopback", &["tshark", "ping"]) {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("link set lo up");
    let recorder = Recorder::live(&namespace, &["-m", "32M"]);
    namespace.exec(&["ping", "-q", "-c", "3", "-i", "0.1", "127.0.0.1"]);
    namespace.python(
        "import fcntl, os, socket, struct, subprocess\n\
         tun = os.open('/dev/net/tun', os.O_RDWR)\n\
         fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH', b'tun9', 0x1001))\n\
         subprocess.check_call('ip addr add 10.9.0.1/24 dev tun9; ip link set tun9 up', shell=True)\n\
         socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', ('10.9.0.2', 9))",
    );
    eventually("all is there", || recorder.status().packets.received >= 7);
    assert_eq!(recorder.packets(&["icmp"]).len(), 6, "each of three requests and replies once");
    let tun = contents(recorder.packets(&["--interface", "tun9", "udp port 9"]));
    assert_eq!(tun.len(), 1);
    assert_eq!((tun[0].1[0], &tun[0].1[28..]), (0x45, &b"hello"[..]), "no header in front of IP");
    let file = recorder.export("both.pcapng", &["icmp or udp port 9"]);
    assert_eq!(counted(&tshark(&file, "frame.interface_name")), [("lo", 6), ("tun9", 1)]);
    assert_eq!(counted(&tshark(&file, "frame.encap_type")), [("1", 6), ("7", 1)], "Ethernet and raw IP");

    let reply = recorder.ask(&["get", "--format", "pcap", "-w", recorder.path("no.pcap").to_str().unwrap()]);
    assert!(reply.code != 0 && reply.stderr.contains("pcapng") && !recorder.path("no.pcap").exists(), "{reply:?}");
    assert_eq!(recorder.packets(&["--format", "pcap", "--interface", "lo"]).len(), 6);
}

#[test]
fn only_selected_packets_are_recorded() {
    if !available("selection") {
        return;
    }
    let far = Namespace::new();
    for number in 0..3 {
        far.ip(&format!("link add in{number} type veth peer name out{number}"));
        far.ip(&format!("link set in{number} up"));
        far.ip(&format!("link set out{number} up"));
    }
    let recorder = Recorder::live(&far, &["-m", "32M", "-i", "in0", "-i", "in2", "-f", "udp port 53", "-s", "60"]);
    for number in 0..3 {
        let mut sender = Sender::new(&far, &format!("out{number}"));
        for session in 0..5 {
            let mut frame = Vec::new();
            datagram(session, 100, &mut frame);
            sender.send(&frame);
        }
        sender.send(&unanswered(100));
    }
    let status = recorder.arrived(12);
    let (p, b) = (status.packets, status.bytes);
    assert_eq!((p.stored, p.filtered, b.received, b.stored), (10, 2, 12 * 60, 10 * 60));
    assert_eq!(status.capture.interfaces, ["in0", "in2"]);
    assert_eq!(status.capture.filter, Some("udp port 53".into()));
    let got = contents(recorder.packets(&[]));
    assert!(got.len() == 10 && got.iter().all(|(original, data)| (*original, data.len()) == (142, 60)), "{got:?}");
    for (name, packets) in [("in0", 5), ("in2", 5)] {
        assert_eq!(recorder.packets(&["--interface", name]).len(), packets);
    }
    // A filter sees the length on the wire, not the captured length.
    assert_eq!(recorder.packets(&["greater", "142"]).len(), 10);
    let reply = recorder.ask(&["get", "--interface", "in1"]);
    assert_ne!(reply.code, 0, "{reply:?}");
}

#[test]
fn an_empty_answer_names_an_interface_that_is_not_recorded() {
    if !available("an interface that was not recorded") {
        return;
    }
    let (near, far) = Namespace::pair();
    far.ip("link set lo up");
    let recorder = Recorder::live(&far, &["-m", "16M", "-i", "far"]);
    let mut sender = Sender::new(&near, "near");
    send(&mut sender, 0..5);
    recorder.arrived(5);
    for verb in [&["get"][..], &["flows"], &["get", "--follow"]] {
        let nothing = recorder.ask(&[verb, &["--interface", "lo"]].concat());
        assert_eq!((nothing.code, nothing.stdout.as_str()), (2, ""), "{nothing:?}");
        let why = "no interface \"lo\" was recorded; there are: far; the recorder was started to record far alone";
        assert!(nothing.stderr.contains(why), "{nothing:?}");
    }
    assert_eq!(recorder.packets(&["--interface", "far"]).len(), 5);
}
