//! The packet path allocates nothing after start. This is a program of its own, because the counting allocator
//! applies to a whole program.

use std::sync::Arc;

use retrocap::budget::Split;
use retrocap::judge::{Class, Classes, Pins};
use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::source::BURST_PACKETS;
use retrocap::store::compress::{Compressor, Pace};
use retrocap::time::Timestamp;

const MIB: u64 = 1 << 20;
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;

/// Traffic that exercises every part of the packet path: long sessions with a class, with a pin and with neither, TCP
/// with its start and end, fragments, tunnels, traffic that is not IP, and hosts that open sessions without end.
struct Traffic {
    random: u64,
    count: u64,
    time_ns: u64,
    bytes: Vec<u8>,
    at: Vec<(usize, u64)>,
}

impl Traffic {
    fn new() -> Self {
        let (bytes, at) = (Vec::with_capacity(64 << 10), Vec::with_capacity(BURST_PACKETS));
        Self { random: 1, count: 0, time_ns: BEGIN_NS, bytes, at }
    }

    fn below(&mut self, end: u32) -> u32 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.random >> 33) % u64::from(end)).unwrap()
    }

    /// Sends the next packets through the pipeline.
    fn send(&mut self, packets: u64, pipeline: &mut Pipeline) {
        for _ in 0..packets / BURST_PACKETS as u64 {
            self.bytes.clear();
            self.at.clear();
            for _ in 0..BURST_PACKETS {
                self.time_ns += 2_000_000;
                self.at.push((self.bytes.len(), self.time_ns));
                self.frame();
            }
            let ends = self.at[1..].iter().map(|&(at, _)| at).chain([self.bytes.len()]);
            let mut burst = [NOTHING; BURST_PACKETS];
            for ((packet, &(at, time_ns)), end) in burst.iter_mut().zip(&self.at).zip(ends) {
                let data = &self.bytes[at..end];
                *packet =
                    Packet { time: Timestamp(time_ns), original_len: data.len().try_into().unwrap(), data, ..NOTHING };
            }
            pipeline.ingest(&burst);
            pipeline.publish();
        }
    }

    fn frame(&mut self) {
        self.count += 1;
        match self.count % 8 {
            // A scan: one host contacts another one each time.
            0 | 1 => {
                let n = u32::try_from(self.count).unwrap();
                self.ipv4(6, [10, 9, 9, 9], n.to_be_bytes(), 40_000, 22, 0x02, 0);
            }
            // An unknown protocol, not IP.
            2 => {
                let host = self.below(200).to_le_bytes()[0];
                self.bytes.extend([2, 0, 0, 0, 0, host, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
                self.bytes.extend([7; 46]);
            }
            // Bulk transfers and conversations, and their ends.
            3 => self.session(30, 1200),
            // Endless polling, whose start must be carried forward.
            4 => self.session(40, 60),
            // New short sessions all the time, which push old starts out.
            _ => self.session(500_000, 400),
        }
    }

    /// Writes a packet of one of `sessions` sessions, which end now and then.
    fn session(&mut self, sessions: u32, payload_max: u32) {
        let session = self.below(sessions);
        let payload = self.below(payload_max) as usize;
        let [_, _, high, low] = session.to_be_bytes();
        let flags = match self.below(50) {
            0 => 0x02,
            1 => 0x11,
            _ => 0x18,
        };
        let protocol = if session.is_multiple_of(3) { 17 } else { 6 };
        let (client, server) = ([10, 1, high, low], [192, 0, 2, low]);
        if self.below(2) == 0 {
            self.ipv4(protocol, client, server, 1024 + session % 60_000, 80 + session % 4, flags, payload);
        } else {
            self.ipv4(protocol, server, client, 80 + session % 4, 1024 + session % 60_000, flags, payload);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a header has as many fields")]
    fn ipv4(&mut self, protocol: u8, from: [u8; 4], to: [u8; 4], source: u32, target: u32, flags: u8, payload: usize) {
        let transport = if protocol == 6 { 20 } else { 8 };
        let len = u16::try_from(20 + transport + payload).unwrap();
        // Large ones are the first of several fragments.
        let fragment = if payload > 1000 { 0x20 } else { 0 };
        let id = u16::try_from(self.count % 65_536).unwrap().to_be_bytes();
        let id_word = self.random;
        let out = &mut self.bytes;
        out.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
        out.extend(len.to_be_bytes());
        out.extend([id[0], id[1], fragment, 0, 64, protocol, 0, 0]);
        out.extend(from);
        out.extend(to);
        out.extend(u16::try_from(source).unwrap().to_be_bytes());
        out.extend(u16::try_from(target).unwrap().to_be_bytes());
        if protocol == 6 {
            out.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 4, 0, 0, 0, 0, 0]);
        } else {
            out.extend((len - 20).to_be_bytes());
            out.extend([0, 0]);
        }
        // Half of each payload compresses, so that segments are both compressed and evicted.
        let mut word = id_word;
        for i in 0..payload {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            out.push(if i % 2 == 0 { word.to_be_bytes()[0] } else { 0x5a });
        }
    }
}

const NOTHING: Packet<'static> = Packet {
    time: Timestamp(0),
    interface: InterfaceId(0),
    link_type: LinkType::ETHERNET,
    direction: Direction::Unknown,
    flags: PacketFlags { checksum_not_ready: false, segmentation_offload: false },
    original_len: 0,
    drops_before: 0,
    data: &[],
};

/// A worker with classes and pins, and its compressor.
fn worker() -> (Pipeline, Compressor) {
    let split = Split::new(24 * MIB, 1, true).unwrap().compressing();
    let class = |name: &str, filter: &str, cutoff_bytes, reserve_bytes| Class {
        name: name.to_owned(),
        filter: filter.to_owned(),
        weight: 4.0,
        cutoff_bytes,
        reserve_bytes,
        important: None,
    };
    let classes = [
        class("control", "port 81", None, MIB),
        class("bulk", "tcp port 82", Some(20_000), 0),
        class("names", "udp", None, 0),
    ];
    let pins = Arc::new(Pins::new(split.pinned_bytes()));
    let until = Timestamp(BEGIN_NS + 100_000_000_000_000);
    pins.add("host 10.1.0.7 or port 83", Timestamp(BEGIN_NS), until).unwrap();
    let config = Config {
        classes: Classes::new(&classes, split.store_bytes).unwrap(),
        pins,
        pinned_bytes: split.pinned_bytes(),
        filter: Some(retrocap::filter::FilterSet::new("not host 10.1.0.9").unwrap()),
        ..Config::new(split.sessions_bytes, split.store_bytes)
    };
    let mut pipeline = Pipeline::new(config).unwrap();
    let compression = split.compression(10.0, Pace::Replay).unwrap();
    let compressor = pipeline.compress(&compression).unwrap();
    (pipeline, compressor)
}

#[test]
fn the_packet_path_allocates_nothing_after_start() {
    let (mut pipeline, compressor) = worker();
    let compressing = std::thread::spawn(move || compressor.run());
    let mut traffic = Traffic::new();
    pipeline.refresh();
    // Fill the store, and let the session table replace entries, before anything is counted.
    traffic.send(800_000, &mut pipeline);
    let before = pipeline.worker().published.totals();
    let allocations = allocation_counter::measure(|| traffic.send(200_000, &mut pipeline));
    let after = pipeline.worker().published.totals();

    assert_eq!((allocations.count_total, allocations.bytes_total), (0, 0), "{allocations:?}");
    // The traffic has exercised what it should.
    assert!(after.evicted.packets > before.evicted.packets, "{after:?}");
    assert!(after.carried.volume.packets > before.carried.volume.packets, "{after:?}");
    assert!(after.packed.segments > before.packed.segments, "{after:?}");
    assert!(after.filtered.packets > before.filtered.packets, "{after:?}");
    assert!(after.dropped.iter().any(|dropped| dropped.packets > 0), "{after:?}");
    // The allocation counter works.
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 9]))).count_total, 1);
    drop(pipeline);
    compressing.join().unwrap();
}
