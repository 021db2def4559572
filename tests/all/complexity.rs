//! Packets that are made to be expensive: none of them costs more than ten times as much as a normal one.
//!
//! The processor time of this thread is compared, not time on the wall, and the least of several rounds is taken, so
//! that other programs do not disturb the result.

use std::time::Duration;

use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::generate::Random;

const PACKETS: usize = 100_000;
const ROUNDS: usize = 3;
/// The largest cost of a packet, as a multiple of a normal one.
const RATIO_MAX: f64 = 10.0;

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// Nanoseconds per packet, the least of several rounds, with a recorder whose memory is already full.
fn cost(frames: &[Vec<u8>]) -> f64 {
    let mut pipeline = Pipeline::new(Config { seed: 0x5eed, ..Config::new(2 << 20, 16 << 20) }).unwrap();
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
    // The first round fills memory that is empty at the start.
    rounds.skip(1).fold(f64::INFINITY, f64::min)
}

fn ethernet(ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

/// Writes an IPv4 header for a payload of `payload` bytes.
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

/// Normal traffic: the usual mix of sizes in a thousand sessions.
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

/// UDP tunnels within each other, one for each port.
fn nested_udp(ports: &[u16], number: u32) -> Vec<u8> {
    let mut inside = udp((0x0a00_0001 + number, 53), (0x0a00_0002, 53), 8);
    for port in ports.iter().rev() {
        let ip = inside[14..].to_vec();
        let payload = match port {
            2152 => [&[0x30, 0xff][..], &u16::try_from(ip.len()).unwrap().to_be_bytes(), &[0, 0, 0, 1], &ip].concat(),
            6081 => [&[0, 0, 0x65, 0x58, 0, 0, 9, 0][..], &inside].concat(),
            _ => [&[8, 0, 0, 0, 0, 0, 9, 0][..], &inside].concat(),
        };
        let mut frame = udp((0x0a00_0003, 1000), (0x0a00_0004, *port), payload.len());
        let at = frame.len() - payload.len();
        frame[at..].copy_from_slice(&payload);
        inside = frame;
    }
    inside
}

fn nested_gre(depth: usize) -> Vec<u8> {
    let mut frame = ethernet(0x0800);
    for level in (0..depth).rev() {
        ipv4(&mut frame, 47, [0, 0], 0x0a00_0001, 0x0a00_0002, 4 + level * 24 + 20);
        frame.extend_from_slice(&[0, 0, 8, 0]);
    }
    ipv4(&mut frame, 17, [0, 0], 0x0a00_0001, 0x0a00_0002, 0);
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
    let attacks: [(&str, Vec<Vec<u8>>); 15] = [
        // Endpoint pairs that a weak hash of both ends would confuse: equal sums, equal differences, one bit changed,
        // ends swapped.
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
        ("VXLAN in VXLAN", many(|n| nested_udp(&[4789; 24], n))),
        (
            "GTP-U, Geneve and VXLAN by turns",
            many(|n| nested_udp(&[2152, 6081, 4789, 2152, 6081, 4789, 2152, 6081], n)),
        ),
        ("GRE in GRE", many(|_| nested_gre(40))),
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

/// An expression that is too long is refused before it is parsed.
#[test]
fn refusing_an_expression_of_100_kb_costs_no_more_than_an_ordinary_one() {
    const KB_100: usize = 100_000;
    let compiling = |expression: &str, times: u32| {
        let rounds = (0..ROUNDS).map(|_| {
            let start = processor_time();
            for _ in 0..times {
                let compiled = retrocap::filter::FilterSet::new(expression);
                std::hint::black_box(compiled.is_ok());
            }
            (processor_time() - start).as_secs_f64() * 1e9 / f64::from(times)
        });
        rounds.fold(f64::INFINITY, f64::min)
    };
    let ordinary = compiling("tcp port 80", 20);
    for (name, expression) in [
        ("alternatives", "host 10.0.0.1 or ".repeat(KB_100 / 17)),
        ("parentheses", "(".repeat(KB_100)),
        ("negations", "not ".repeat(KB_100 / 4)),
        ("loads within loads", "ip[".repeat(KB_100 / 3)),
        ("sums", format!("len = {}1", "1+".repeat(KB_100 / 2))),
        ("spaces", " ".repeat(KB_100)),
        ("letters", "a".repeat(KB_100)),
    ] {
        assert!(retrocap::filter::FilterSet::new(&expression).is_err() || name == "spaces", "{name}");
        let refusal = compiling(&expression, 20);
        eprintln!("{refusal:6.0} ns  to refuse {name}; {ordinary:.0} ns to compile an ordinary expression");
        assert!(refusal <= ordinary * RATIO_MAX, "{name}: {refusal:.0} ns, an ordinary one {ordinary:.0} ns");
    }
}
