//! Packets that are made to cost much: none of them costs more than ten times a normal one.
//!
//! Processor time of this thread is compared, not time on the wall, and the least of several rounds is taken.

use std::sync::Arc;
use std::time::Duration;

use retrocap::memory::Lock;
use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::store::retention::Policy;
use retrocap::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::generate::Random;

const PACKETS: usize = 100_000;
const ROUNDS: usize = 3;
/// What a packet may cost, as a multiple of a normal one.
const RATIO_MAX: f64 = 10.0;

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// Nanoseconds a packet, the least of some rounds; each on a recorder that has come round already.
fn cost(frames: &[Vec<u8>]) -> f64 {
    let mut pipeline = Pipeline::new(Config {
        sessions_bytes: 2 << 20,
        store_bytes: 16 << 20,
        policy: Policy::default(),
        classes: retrocap::judge::Classes::default(),
        pins: Arc::default(),
        pinned_bytes: 0,
        filter: None,
        snaplen: 0,
        lock: Lock::No,
        seed: 0x5eed,
    })
    .unwrap();
    let mut number = 0;
    let rounds = (0..=ROUNDS).map(|_| {
        let start = processor_time();
        for frame in frames.iter().cycle().take(PACKETS) {
            pipeline.ingest(&[Packet {
                time: Timestamp(1_795_341_600_000_000_000 + number * 10_000),
                interface: InterfaceId(0),
                link_type: LinkType::ETHERNET,
                direction: Direction::In,
                flags: PacketFlags::default(),
                original_len: u32::try_from(frame.len()).unwrap(),
                drops_before: 0,
                data: frame,
            }]);
            number += 1;
        }
        pipeline.publish();
        (processor_time() - start).as_secs_f64() * 1e9 / PACKETS as f64
    });
    // The first round fills what is empty at the start.
    rounds.skip(1).fold(f64::INFINITY, f64::min)
}

fn ethernet(ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

/// An IPv4 header with room for `payload` bytes after it.
fn ipv4(frame: &mut Vec<u8>, protocol: u8, [id, fragment]: [u16; 2], from: u32, to: u32, payload: usize) {
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&u16::try_from(20 + payload).unwrap().to_be_bytes());
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(&fragment.to_be_bytes());
    frame.extend_from_slice(&[64, protocol, 0, 0]);
    frame.extend_from_slice(&from.to_be_bytes());
    frame.extend_from_slice(&to.to_be_bytes());
}

fn udp(from: (u32, u16), to: (u32, u16), payload: usize) -> Vec<u8> {
    let mut frame = ethernet(0x0800);
    ipv4(&mut frame, 17, [0, 0x4000], from.0, to.0, 8 + payload);
    frame.extend_from_slice(&from.1.to_be_bytes());
    frame.extend_from_slice(&to.1.to_be_bytes());
    frame.extend_from_slice(&u16::try_from(8 + payload).unwrap().to_be_bytes());
    frame.resize(frame.len() + 2 + payload, 0x5a);
    frame
}

fn many(make: impl FnMut(u32) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..20_000).map(make).collect()
}

/// What a network carries: sizes of the usual mix, a thousand sessions.
fn normal() -> Vec<Vec<u8>> {
    let mut random = Random(7);
    many(|_| {
        let session = u32::try_from(random.below(1000)).unwrap();
        let payload =
            [20, 20, 20, 20, 20, 20, 20, 530, 530, 530, 530, 1450][usize::try_from(random.below(12)).unwrap()];
        udp((0x0a00_0000 + session, 40_000), (0xc000_0207, 443), payload)
    })
}

fn ipv6_extensions(length: usize) -> Vec<u8> {
    let mut frame = ethernet(0x86dd);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&u16::try_from(length * 8 + 8).unwrap().to_be_bytes());
    frame.extend_from_slice(&[60, 64]);
    frame.extend_from_slice(&[0x20; 32]);
    for number in 0..length {
        let next = if number + 1 == length { 17 } else { 60 };
        frame.extend_from_slice(&[next, 0, 1, 4, 0, 0, 0, 0]);
    }
    frame.extend_from_slice(&[0, 53, 0, 53, 0, 8, 0, 0]);
    frame
}

fn nested_ipv4(depth: usize) -> Vec<u8> {
    let mut frame = ethernet(0x0800);
    for level in (0..depth).rev() {
        ipv4(&mut frame, if level == 0 { 17 } else { 4 }, [0, 0], 0x0a00_0001, 0x0a00_0002, level * 20 + 8);
    }
    frame.extend_from_slice(&[0, 53, 0, 53, 0, 8, 0, 0]);
    frame
}

fn labels(ethertype: u16, label: [u8; 4], depth: usize) -> Vec<u8> {
    let mut frame = ethernet(ethertype);
    for _ in 0..depth {
        frame.extend_from_slice(&label);
    }
    frame.resize(frame.len() + 20, 0x45);
    frame
}

#[test]
fn no_packet_costs_ten_times_a_normal_one() {
    let normal = cost(&normal());
    let attacks: [(&str, Vec<Vec<u8>>); 12] = [
        // What a hash of both ends together could confuse: their sum, their difference, one bit, the two swapped.
        ("equal sums", many(|n| udp((0x0a00_0000 + n, 1000), (0x0b00_0000 - n, 1000), 20))),
        ("equal differences", many(|n| udp((0x0a00_0000 ^ n, 1000), (0x0b00_0000 ^ n, 1000), 20))),
        (
            "addresses and ports cancel",
            many(|n| {
                udp((0x0a00_0000 + n, u16::try_from(n).unwrap()), (0x0a00_0000 + n, u16::try_from(n).unwrap()), 20)
            }),
        ),
        ("one bit", many(|n| udp((1 << (n % 32), 1 << (n % 16)), (1 << (n / 32 % 32), 1 << (n / 1024 % 16)), 20))),
        ("multiples of a large power of two", many(|n| udp((n << 16, 0), (0, 0), 20))),
        ("a session each", many(|n| udp((0x0a00_0000 + n * 7919, 53), (0x0b00_0000, 53), 0))),
        ("nested IPv4", many(|_| nested_ipv4(70))),
        ("extension headers", many(|_| ipv6_extensions(180))),
        ("VLAN tags", many(|_| labels(0x8100, [0, 5, 0x81, 0], 350))),
        ("MPLS labels", many(|_| labels(0x8847, [0, 0, 0x10, 64], 350))),
        (
            "first fragments",
            many(|n| {
                let mut frame = ethernet(0x0800);
                ipv4(&mut frame, 17, [u16::try_from(n).unwrap(), 0x2000], 0x0a00_0001 + (n << 3), 0x0a00_0002, 8);
                frame.extend_from_slice(&[0, 53, 0, 53, 0, 8, 0, 0]);
                frame
            }),
        ),
        (
            "tiny fragments of one datagram and another",
            many(|n| {
                let mut frame = ethernet(0x0800);
                let place = u16::try_from(n % 8000).unwrap() | 0x2000;
                ipv4(&mut frame, 17, [u16::try_from(n % 3).unwrap(), place], 0x0a00_0001, 0x0a00_0002, 8);
                frame.extend_from_slice(&[0; 8]);
                frame
            }),
        ),
    ];
    eprintln!("{normal:6.0} ns  a normal packet");
    for (name, frames) in &attacks {
        let attack = cost(frames);
        eprintln!("{attack:6.0} ns  {name}: {:.1} times", attack / normal);
        assert!(attack <= normal * RATIO_MAX, "{name}: {attack:.0} ns, a normal packet {normal:.0} ns");
    }
}
