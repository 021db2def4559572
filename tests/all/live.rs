//! Live capture against the real kernel, in network namespaces that the tests make.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use retrocap::capture::interfaces::{links, list};
use retrocap::capture::live::{LiveConfig, LiveSource};
use retrocap::capture::monitor::Monitor;
use retrocap::capture::selection::InterfaceSelection;
use retrocap::interface::Interfaces;
use retrocap::packet::{Direction, LinkType, PacketFlags};
use retrocap::source::{Batch, Source};

use crate::machine;
use crate::namespaces::{Namespace, available};

/// A packet as it was captured, with the name of its interface.
#[derive(Clone, Debug)]
struct Seen {
    interface: String,
    link_type: LinkType,
    direction: Direction,
    flags: PacketFlags,
    original_len: u32,
    drops_before: u32,
    time_ns: u64,
    data: Vec<u8>,
}

/// A live source in a namespace.
struct Recorder {
    source: LiveSource,
    interfaces: Arc<Interfaces>,
    selection: Arc<InterfaceSelection>,
    seen: Vec<Seen>,
    _monitor: Monitor,
}

impl Recorder {
    fn start(namespace: &Namespace, names: &[&str], config: LiveConfig) -> Self {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        namespace.enter(|| {
            let (selection, interfaces) = (Arc::new(InterfaceSelection::new(&names)), Arc::new(Interfaces::default()));
            selection.refresh(links().unwrap());
            let source = LiveSource::open(&config, Arc::clone(&selection), Arc::clone(&interfaces)).unwrap();
            let monitor = Monitor::start(Arc::clone(&selection), Arc::clone(&interfaces), || {}).unwrap();
            Self { source, interfaces, selection, seen: Vec::new(), _monitor: monitor }
        })
    }

    fn batch(&mut self) -> Batch {
        let Self { source, interfaces, seen, .. } = self;
        let batch = source.batch(&mut |packet| {
            let interface = interfaces.interface(packet.interface).unwrap();
            assert_eq!(interface.link_type, packet.link_type);
            seen.push(Seen {
                interface: interface.name.clone(),
                link_type: packet.link_type,
                direction: packet.direction,
                flags: packet.flags,
                original_len: packet.original_len,
                drops_before: packet.drops_before,
                time_ns: packet.time.0,
                data: packet.data.to_vec(),
            });
        });
        batch.unwrap()
    }

    /// Takes everything that is there: stops when nothing came for a whole timeout, twice.
    fn drain(&mut self) -> &[Seen] {
        let mut idle = 0;
        while idle < 2 {
            idle = if self.batch() == Batch::Idle { idle + 1 } else { 0 };
        }
        &self.seen
    }

    /// Whether the table has an interface of this name that is up.
    fn is_up(&self, name: &str) -> bool {
        self.interfaces.snapshot().iter().any(|interface| interface.name == name && interface.up)
    }
}

/// Waits for an event in another thread.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The packets of a capture file.
fn packets_of(path: &std::path::Path) -> Vec<Vec<u8>> {
    let mut capture = pcap::Capture::from_file(path).unwrap();
    std::iter::from_fn(|| capture.next_packet().ok().map(|packet| packet.data.to_vec())).collect()
}

/// Ethernet frames of a protocol that nobody answers, as a Python expression.
const FRAMES: &str = "[bytes([2,0,0,0,0,1, 2,0,0,0,0,2, 0x88,0xb5]) + bytes(186)]";

fn replay(name: &str) {
    if !available(name) {
        return;
    }
    let Some(path) = machine::capture(name, name) else { return };
    let (near, far) = Namespace::pair();
    let mut recorder = Recorder::start(&far, &[], LiveConfig { block_count: 64, ..LiveConfig::default() });
    near.exec(&["tcpreplay", "--quiet", "--mbps=400", "--intf1=near", path.to_str().unwrap()]);
    let expect = packets_of(&path);
    let seen = recorder.drain();
    assert_eq!(seen.len(), expect.len());
    for (number, (seen, expect)) in seen.iter().zip(&expect).enumerate() {
        assert_eq!(seen.data, *expect, "packet {number}");
        assert_eq!(seen.original_len as usize, expect.len());
        assert_eq!((seen.interface.as_str(), seen.direction), ("far", Direction::In));
    }
    assert!(seen.is_sorted_by_key(|seen| seen.time_ns));
    assert_eq!(
        (
            recorder.source.counts().kernel_dropped,
            recorder.source.counts().truncated,
            recorder.source.counts().unselected.packets
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_replayed_capture_is_recorded_byte_for_byte() {
    replay("mixed-lan.pcap");
}

#[test]
fn a_replayed_capture_with_stacked_vlans_is_recorded_byte_for_byte() {
    replay("pppoe-over-qinq.pcap");
}

#[test]
fn vlan_tags_are_put_back_in_both_directions() {
    if !available("vlan tags") {
        return;
    }
    let (near, far) = Namespace::pair();
    let mut sender = Recorder::start(&near, &["near"], LiveConfig::default());
    let mut receiver = Recorder::start(&far, &[], LiveConfig { snaplen: 64, ..LiveConfig::default() });
    let macs = "bytes([2,0,0,0,0,1, 2,0,0,0,0,2])";
    near.send("near", &format!("[{macs} + bytes([0x88,0xa8,0x60,7, 0x81,0,0,9, 0x88,0xb5]) + b'x' * 80]"), 1);
    near.send("near", &format!("[{macs} + bytes([0x81,0,0,5, 0x88,0xb5]) + b'y' * 80]"), 1);

    // A sent packet still has its tag in its bytes; of a received one the kernel has removed the outer tag.
    let expect = [(&b"\x88\xa8\x60\x07\x81\x00\x00\x09\x88\xb5"[..], b'x'), (b"\x81\x00\x00\x05\x88\xb5", b'y')]
        .map(|(tags, fill)| [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], tags, &[fill; 80]].concat());
    let sent = sender.drain();
    assert_eq!(sent.iter().map(|seen| &seen.data).collect::<Vec<_>>(), expect.iter().collect::<Vec<_>>());
    assert!(sent.iter().all(|seen| seen.direction == Direction::Out && seen.interface == "near"));
    let received = receiver.drain();
    assert_eq!(received.len(), 2);
    for (seen, expect) in received.iter().zip(&expect) {
        assert_eq!(seen.original_len as usize, expect.len());
        assert_eq!(seen.data, expect[..68], "64 bytes and the tag that was put back");
    }
    assert_eq!(receiver.source.counts().truncated, 0, "cut because asked to");
}

#[test]
fn a_tun_device_gives_raw_ip() {
    if !available("tun device") {
        return;
    }
    let namespace = Namespace::new();
    let mut recorder = Recorder::start(&namespace, &[], LiveConfig::default());
    namespace.python(
        "import fcntl, os, socket, struct, subprocess\n\
         tun = os.open('/dev/net/tun', os.O_RDWR)\n\
         fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH', b'tun9', 0x1001))\n\
         subprocess.check_call('ip addr add 10.9.0.1/24 dev tun9; ip link set tun9 up', shell=True)\n\
         os.write(tun, bytes.fromhex('4500001c00000000401166cd0a0900020a09000100350036000800') + b'\\0')\n\
         socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', ('10.9.0.2', 9))",
    );
    let seen: Vec<_> = recorder.drain().iter().filter(|seen| seen.data.get(9) == Some(&17)).collect();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.interface == "tun9" && seen.link_type == LinkType::RAW));
    assert_eq!((seen[0].direction, seen[0].data.len(), seen[0].data[0]), (Direction::In, 28, 0x45));
    assert_eq!((seen[1].direction, &seen[1].data[28..]), (Direction::Out, &b"hello"[..]));
}

#[test]
fn a_loopback_packet_is_seen_once() {
    if !available("loopback") {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("link set lo up");
    let mut recorder = Recorder::start(&namespace, &[], LiveConfig::default());
    namespace.exec(&["ping", "-q", "-c", "3", "-i", "0.1", "127.0.0.1"]);
    let seen = recorder.drain();
    assert_eq!(seen.len(), 6, "three requests, three replies");
    assert!(seen.iter().all(|seen| seen.interface == "lo" && seen.direction == Direction::In));
    assert_eq!(seen.iter().map(|seen| &seen.data).collect::<BTreeSet<_>>().len(), 6);
}

#[test]
fn an_unknown_link_layer_is_recorded_cooked() {
    if !available("cooked capture") {
        return;
    }
    let namespace = Namespace::new();
    let mut recorder = Recorder::start(&namespace, &[], LiveConfig::default());
    // A tun device may claim any hardware type, here ARPHRD_PPP.
    namespace.python(
        "import fcntl, os, struct, subprocess\n\
         tun = os.open('/dev/net/tun', os.O_RDWR)\n\
         fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH', b'tun9', 0x1001))\n\
         fcntl.ioctl(tun, 0x400454cd, 512)\n\
         subprocess.check_call('ip link set tun9 up', shell=True)\n\
         os.write(tun, bytes.fromhex('4500001c00000000401166cd0a0900020a09000100350036000800') + b'\\0')",
    );
    let seen = recorder.drain();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].link_type, seen[0].direction), (LinkType::LINUX_SLL2, Direction::In));
    let (header, packet) = seen[0].data.split_at(20);
    assert_eq!((&header[..4], &header[8..11]), (&b"\x08\0\0\0"[..], &b"\x02\0\0"[..]));
    assert_eq!((packet.len(), packet[0], seen[0].original_len), (28, 0x45, 48));
}

#[test]
fn interfaces_that_appear_while_recording_are_recorded() {
    if !available("hot plug") {
        return;
    }
    let (near, far) = (Namespace::new(), Namespace::new());
    let mut all = Recorder::start(&far, &[], LiveConfig::default());
    let mut one = Recorder::start(&far, &["later0"], LiveConfig { promiscuous: true, ..LiveConfig::default() });
    assert_eq!(one.selection.check().unwrap_err().to_string(), "no interface is called later0; there are lo");

    far.ip("link add later0 type veth peer name back0");
    far.ip("link add other0 type veth peer name back1");
    for name in ["later0", "back0", "other0", "back1"] {
        far.ip(&format!("link set {name} up"));
    }
    eventually("it is in the table", || all.is_up("later0") && one.is_up("later0"));
    assert!(one.selection.check().is_ok() && !one.is_up("other0"));
    assert_eq!(one.batch(), Batch::Idle, "takes over the selection");
    let shown = String::from_utf8(far.ip("-d link show later0").stdout).unwrap();
    assert!(shown.contains("promiscuity 1"), "{shown}");

    far.send("back0", FRAMES, 3);
    far.send("back1", FRAMES, 2);
    let count = |recorder: &mut Recorder, name| recorder.drain().iter().filter(|seen| seen.interface == name).count();
    assert_eq!(["later0", "back0", "other0", "back1"].map(|name| count(&mut all, name)), [3, 3, 2, 2]);
    assert_eq!((count(&mut one, "later0"), one.seen.len(), one.source.counts().unselected.packets), (3, 3, 0));

    far.ip("link del later0");
    eventually("it is down", || !all.is_up("later0") && !one.is_up("later0"));
    // The interface returns under another index.
    near.ip("link add later0 type veth peer name back0");
    near.ip("link set later0 up");
    far.ip("link add later0 type veth peer name back0");
    far.ip("link set later0 up");
    far.ip("link set back0 up");
    eventually("it is back", || one.is_up("later0"));
    one.drain();
    far.send("back0", FRAMES, 4);
    assert_eq!(count(&mut one, "later0"), 7);
    let entries = one.interfaces.snapshot();
    assert_eq!(
        entries.iter().filter(|interface| interface.name == "later0").map(|i| i.up).collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn a_renamed_interface_keeps_its_old_packets_and_gets_a_new_entry() {
    if !available("rename") {
        return;
    }
    let (near, far) = Namespace::pair();
    let mut recorder = Recorder::start(&far, &[], LiveConfig::default());
    near.send("near", FRAMES, 3);
    recorder.drain();
    far.ip("link set far down");
    far.ip("link set far name renamed0");
    far.ip("link set renamed0 up");
    eventually("both names are in the table", || recorder.is_up("renamed0") && !recorder.is_up("far"));
    near.send("near", FRAMES, 2);
    let names: Vec<_> = recorder.drain().iter().map(|seen| seen.interface.as_str()).collect();
    assert_eq!(names, ["far", "far", "far", "renamed0", "renamed0"]);
}

#[test]
fn offloaded_segments_are_recorded_whole() {
    if !available("offload") {
        return;
    }
    let (near, far) = Namespace::pair();
    for (namespace, interface, address) in [(&near, "near", "10.9.0.1"), (&far, "far", "10.9.0.2")] {
        namespace.ip(&format!("link set {interface} mtu 1500"));
        namespace.ip(&format!("addr add {address}/24 dev {interface}"));
    }
    let mut recorder = Recorder::start(&far, &["far"], LiveConfig { block_count: 64, ..LiveConfig::default() });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            far.python(
                "import socket\ns = socket.create_server(('10.9.0.2', 999))\ns.settimeout(10)\nc = s.accept()[0]\n\
                 c.settimeout(10)\nn = 0\nwhile n < 4000000:\n n += len(c.recv(1 << 20)) or exit(1)",
            )
        });
        near.python(
            "import socket, time\nfor _ in range(100):\n try: c = socket.create_connection(('10.9.0.2', 999), 5); break\n \
             except ConnectionRefusedError: time.sleep(0.05)\nc.sendall(bytes(4000000))\nc.recv(1)",
        );
    });
    let seen = recorder.drain();
    let largest = seen.iter().max_by_key(|seen| seen.data.len()).unwrap();
    assert!(largest.data.len() > 60_000, "{}", largest.data.len());
    assert!(largest.flags.segmentation_offload && largest.flags.checksum_not_ready);
    assert!(seen.iter().all(|seen| seen.data.len() == seen.original_len as usize));
    let to_server = seen.iter().filter(|seen| seen.direction == Direction::In && seen.data[12..14] == [8, 0]);
    let payload: usize = to_server.map(|seen| seen.data.len() - 14 - 20 - 4 * usize::from(seen.data[46] >> 4)).sum();
    assert!(payload >= 4_000_000, "{payload}");
    assert_eq!((recorder.source.counts().truncated, recorder.source.counts().kernel_dropped), (0, 0));
}

#[test]
fn a_lone_packet_does_not_wait_for_others() {
    if !available("quiet link") {
        return;
    }
    let (near, far) = Namespace::pair();
    let mut recorder = Recorder::start(&far, &[], LiveConfig::default());
    // Wait for the end of the kernel's timer period, so that the packet arrives somewhere within the next one.
    assert_eq!(recorder.batch(), Batch::Idle);
    for count in 1..=3 {
        near.send("near", FRAMES, 1);
        let sent = Instant::now();
        while recorder.seen.len() < count {
            recorder.batch();
            assert!(sent.elapsed() < Duration::from_secs(20), "packet {count} did not come");
        }
    }
}

#[test]
fn packets_dropped_by_the_kernel_are_counted_exactly() {
    if !available("kernel drops") {
        return;
    }
    let (near, far) = Namespace::pair();
    let config = LiveConfig { block_size: 32 << 10, block_count: 4, ..LiveConfig::default() };
    let mut recorder = Recorder::start(&far, &[], config);
    let lost = |recorder: &Recorder| recorder.seen.iter().map(|seen| u64::from(seen.drops_before)).sum::<u64>();
    for round in 1..=3 {
        near.send("near", FRAMES, 5000);
        recorder.drain();
        let (seen, dropped) = (recorder.seen.len() as u64, recorder.source.counts().kernel_dropped);
        assert!(seen > 100 * round && dropped > 1000 * round, "{seen} {dropped}");
        assert_eq!(seen + dropped, 5000 * round);
        assert!(lost(&recorder) < dropped, "those after the last packet cannot be reported yet");
    }
    let before = recorder.seen.len();
    near.send("near", FRAMES, 1);
    recorder.drain();
    assert_eq!(lost(&recorder), recorder.source.counts().kernel_dropped);
    assert!(recorder.seen[before].drops_before > 1000, "on the first packet after the gap");
}

#[test]
fn a_packet_larger_than_a_block_is_counted_as_truncated() {
    if !available("truncation") {
        return;
    }
    let (near, far) = Namespace::pair();
    let config = LiveConfig { block_size: 4096, block_count: 8, ..LiveConfig::default() };
    let mut recorder = Recorder::start(&far, &[], config);
    near.send("near", "[bytes([2,0,0,0,0,1, 2,0,0,0,0,2, 0x88,0xb5]) + bytes(9000)]", 2);
    let seen = recorder.drain();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.original_len == 9014 && (3900..4096).contains(&seen.data.len())));
    assert_eq!(recorder.source.counts().truncated, 2);
}

#[test]
fn two_sources_share_the_packets_and_keep_sessions_together() {
    if !available("fanout") {
        return;
    }
    let Some(path) = machine::capture("fanout", "mixed-lan.pcap") else { return };
    let (near, far) = Namespace::pair();
    let config = LiveConfig { block_count: 64, fanout: Some(7), ..LiveConfig::default() };
    let mut sources = [(); 2].map(|()| Recorder::start(&far, &[], config));
    near.exec(&["tcpreplay", "--quiet", "--mbps=400", "--intf1=near", path.to_str().unwrap()]);
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut owner = BTreeMap::new();
    for (number, source) in sources.iter_mut().enumerate() {
        let packets = source.drain();
        assert!(packets.len() > 100, "{number} got {}", packets.len());
        for packet in packets {
            seen.push(&packet.data);
            // Unfragmented TCP and UDP over IPv4 without options: addresses and ports, the smaller endpoint first.
            let data = &packet.data;
            if data.len() >= 38 && data[12..15] == [8, 0, 0x45] && data[20] & 0x3f == 0 && matches!(data[23], 6 | 17) {
                let ends = [(&data[26..30], &data[34..36]), (&data[30..34], &data[36..38])];
                let key = (data[23], ends.iter().min().copied(), ends.iter().max().copied());
                assert_eq!(*owner.entry(key).or_insert(number), number, "both directions of {key:?}");
            }
        }
    }
    let mut expect = packets_of(&path);
    expect.sort();
    seen.sort();
    assert_eq!(seen, expect);
}

#[test]
fn interfaces_are_listed_with_their_addresses() {
    if !available("listing") {
        return;
    }
    let (_near, far) = Namespace::pair();
    far.ip("addr add 10.9.0.2/24 dev far");
    far.ip("link set far address 02:00:00:00:00:07");
    far.ip("link set far alias uplink");
    let all = far.enter(|| list().unwrap());
    let far = all.iter().find(|interface| interface.name == "far").unwrap();
    assert_eq!((far.mac, far.mtu, far.up, far.loopback), (Some([2, 0, 0, 0, 0, 7]), 16000, true, false));
    assert_eq!(far.addresses, [("10.9.0.2".parse().unwrap(), 24)]);
    assert_eq!((far.description.as_deref(), far.link_type), (Some("uplink"), LinkType::ETHERNET));
    assert!(all.iter().any(|interface| interface.loopback && !interface.up));
}
