//! Ingest from memory: decode, session, store and eviction on one core, beside a plain copy of the same packets.

use std::hint::black_box;
use std::time::Instant;

use retrocap::capture::BURST_PACKETS;
use retrocap::memory::Lock;
use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::store::retention::Policy;
use retrocap::time::Timestamp;

/// An Ethernet/IPv4/UDP frame of `len` bytes of session `session`.
fn frame(session: u32, len: usize) -> Vec<u8> {
    let ip_len = u16::try_from(len - 14).unwrap();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend(ip_len.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend((0x0a00_0000 | session >> 4).to_be_bytes());
    frame.extend([192, 0, 2, 1]);
    frame.extend((1024 + (session & 15) as u16).to_be_bytes());
    frame.extend(443u16.to_be_bytes());
    frame.extend((ip_len - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(len, 0x5a);
    frame
}

struct Case {
    name: &'static str,
    lens: &'static [usize],
    sessions: u32,
    budget: u64,
}

fn main() {
    const MIB: u64 = 1 << 20;
    // `cargo bench --bench ingest -- 1514` runs only the cases whose names contain this.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let imix = &[64, 64, 64, 64, 64, 64, 64, 570, 570, 570, 570, 1514];
    println!("{:<28} {:>10} {:>10} {:>10} {:>10}", "case", "Mpps", "GB/s", "memcpy", "ratio");
    for case in [
        Case { name: "64 B, 1k sessions", lens: &[64], sessions: 1_000, budget: 40 * MIB },
        Case { name: "64 B, 1k sessions, 1 GiB", lens: &[64], sessions: 1_000, budget: 1024 * MIB },
        Case { name: "64 B, 1M sessions, 4 GiB", lens: &[64], sessions: 1_000_000, budget: 4096 * MIB },
        Case { name: "64 B, 10M sessions, 4 GiB", lens: &[64], sessions: 10_000_000, budget: 4096 * MIB },
        Case { name: "64 B, 10M sessions, 1 GiB", lens: &[64], sessions: 10_000_000, budget: 1024 * MIB },
        Case { name: "IMIX, 10k sessions", lens: imix, sessions: 10_000, budget: 40 * MIB },
        Case { name: "1514 B, 1k sessions", lens: &[1514], sessions: 1_000, budget: 40 * MIB },
        Case { name: "1514 B, 1k sessions, 1 GiB", lens: &[1514], sessions: 1_000, budget: 1024 * MIB },
    ] {
        if wanted.as_ref().is_none_or(|wanted| case.name.contains(wanted)) {
            run(&case);
        }
    }
}

fn run(case: &Case) {
    // Frames lie one after another in memory, as in a ring: 64 MiB of them, in five rounds.
    let count = (64 << 20) / (case.lens.iter().sum::<usize>() / case.lens.len());
    let mut memory = Vec::new();
    let mut frames = Vec::new();
    let mut random = 1u64;
    for i in 0..count {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let session = u32::try_from((random >> 33) % u64::from(case.sessions)).unwrap();
        let data = frame(session, case.lens[i % case.lens.len()]);
        frames.push((memory.len(), data.len()));
        memory.extend(data);
    }
    let split = retrocap::budget::Split::new(case.budget, 1, false).unwrap();
    let config = Config {
        sessions_bytes: split.sessions_bytes,
        store_bytes: split.store_bytes,
        policy: Policy::default(),
        classes: retrocap::judge::Classes::default(),
        pins: Default::default(),
        pinned_bytes: 1 << 20,
        filter: None,
        snaplen: 0,
        lock: Lock::No,
        seed: 1,
    };
    let mut pipeline = Pipeline::new(config).unwrap();
    let mut time = 1_700_000_000_000_000_000u64;
    let mut pass = |pipeline: &mut Pipeline| {
        let mut burst = Vec::with_capacity(BURST_PACKETS);
        for frames in frames.chunks(BURST_PACKETS) {
            burst.clear();
            burst.extend(frames.iter().map(|&(at, len)| {
                time += 700;
                Packet {
                    time: Timestamp(time),
                    interface: InterfaceId(0),
                    link_type: LinkType::ETHERNET,
                    direction: Direction::In,
                    flags: PacketFlags::default(),
                    original_len: u32::try_from(len).unwrap(),
                    drops_before: 0,
                    data: &memory[at..at + len],
                }
            }));
            pipeline.ingest(&burst);
        }
        pipeline.publish();
    };
    pass(&mut pipeline);
    let mut copy = vec![0u8; memory.len()];
    let mut ours = Vec::new();
    let mut plain = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        pass(&mut pipeline);
        ours.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        for &(at, len) in &frames {
            copy[at..at + len].copy_from_slice(&memory[at..at + len]);
        }
        black_box(&mut copy);
        plain.push(start.elapsed().as_secs_f64());
    }
    ours.sort_by(f64::total_cmp);
    plain.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss)]
    let (packets, bytes) = (frames.len() as f64, memory.len() as f64);
    println!(
        "{:<28} {:>10.2} {:>10.2} {:>10.2} {:>10.2}",
        case.name,
        packets / ours[2] / 1e6,
        bytes / ours[2] / 1e9,
        bytes / plain[2] / 1e9,
        plain[2] / ours[2]
    );
}
