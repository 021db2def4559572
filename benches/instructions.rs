//! Instructions per packet, counted by valgrind, because counts are stable where times are not. It needs valgrind and
//! `gungraun-runner`, which `scripts/setup bench` installs; `make bench` shows the counts divided by [`PACKETS`].
#![allow(missing_docs, unreachable_pub, reason = "what the macros make")]

use std::hint::black_box;

use gungraun::prelude::*;
use retrocap::budget::Split;
use retrocap::packet::Packet;
use retrocap::pipeline::{Config, Pipeline};
use retrocap::source::BURST_PACKETS;

#[allow(dead_code, reason = "the table uses more of it")]
#[path = "table/traffic.rs"]
mod traffic;

#[allow(
    dead_code,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the retention benchmark uses more of it, and allows these casts too"
)]
#[path = "retention/campus.rs"]
mod campus;
#[allow(dead_code, clippy::cast_possible_truncation, reason = "as above")]
#[path = "retention/random.rs"]
mod random;

use campus::Campus;
use traffic::{Frames, IMIX};

/// Packets per run.
const PACKETS: usize = 24_000;

/// A worker with a full store, and the packets that it gets next.
struct Work {
    pipeline: Pipeline,
    frames: Frames,
    time_ns: u64,
    burst: usize,
}

impl Work {
    fn run(&mut self, packets: std::ops::Range<usize>) {
        let mut burst = Vec::with_capacity(self.burst);
        for some in self.frames.frames[packets].chunks(self.burst) {
            burst.clear();
            burst.extend(some.iter().map(|frame| {
                self.time_ns += 700;
                self.frames.packet(frame, self.time_ns)
            }));
            self.pipeline.ingest(&burst);
        }
        self.pipeline.publish();
    }
}

const MIB: usize = 1 << 20;

/// More sessions than any run has packets, so that each packet begins a session.
const EACH_NEW: u32 = 50_000_000;

/// A 16 MiB worker, after packets for one and a half times its memory.
fn full(lens: &[usize], sessions: u32, burst: usize) -> Work {
    let split = Split::new(16 * MIB as u64, 1, false).expect("a budget that can be split");
    let config = Config { pinned_bytes: MIB as u64, ..Config::new(split.sessions_bytes, split.store_bytes) };
    let mean = lens.iter().sum::<usize>() / lens.len();
    let fill = 24 * MIB / mean / PACKETS * PACKETS + PACKETS;
    let frames = Frames::new((fill + PACKETS) * mean, lens, sessions, 1);
    let pipeline = Pipeline::new(config).expect("memory");
    let mut work = Work { pipeline, frames, time_ns: 1_700_000_000_000_000_000, burst };
    let first = work.frames.frames.len() - PACKETS;
    work.run(0..first);
    work
}

#[library_benchmark]
#[bench::small(full(&[64], 1_000, BURST_PACKETS))]
#[bench::small_alone(full(&[64], 1_000, 1))]
#[bench::imix(full(IMIX, 1_000, BURST_PACKETS))]
#[bench::large(full(&[1500], 1_000, BURST_PACKETS))]
#[bench::each_new(full(&[64], EACH_NEW, BURST_PACKETS))]
#[bench::large_alone(full(&[1500], 1_000, 1))]
fn ingest(mut work: Work) -> Work {
    let all = work.frames.frames.len();
    work.run(all - PACKETS..all);
    black_box(work)
}

/// A worker with a full store, and the packets of the campus workload that it gets next, each at its own time.
struct CampusWork {
    pipeline: Pipeline,
    bytes: Vec<u8>,
    /// Each packet, with its bytes' place in `bytes`.
    packets: Vec<(Packet<'static>, std::ops::Range<usize>)>,
}

impl CampusWork {
    fn run(&mut self, packets: std::ops::Range<usize>) {
        let mut burst = Vec::with_capacity(BURST_PACKETS);
        for some in self.packets[packets].chunks(BURST_PACKETS) {
            burst.clear();
            burst.extend(some.iter().map(|(packet, at)| Packet { data: &self.bytes[at.clone()], ..*packet }));
            self.pipeline.ingest(&burst);
        }
        self.pipeline.publish();
    }
}

/// A 40 MiB worker after packets of 20 sessions a second for one and a half times its memory.
fn full_campus() -> CampusWork {
    let split = Split::new(40 * MIB as u64, 1, false).expect("a budget that can be split");
    let pinned_bytes = split.pinned_bytes();
    let config = Config { pinned_bytes, ..Config::new(split.sessions_bytes, split.store_bytes) };
    let pipeline = Pipeline::new(config).expect("memory");
    let mut work = CampusWork { pipeline, bytes: Vec::with_capacity(100 * MIB), packets: Vec::new() };
    let mut campus = Campus::new(1, 20.0, 24.0);
    let (mut full_at, fill) = (usize::MAX, 60 * MIB);
    while work.packets.len() < full_at.saturating_add(PACKETS) {
        let packet = campus.next().expect("a day of traffic").packet;
        let at = work.bytes.len();
        work.bytes.extend_from_slice(packet.data);
        work.packets.push((Packet { data: &[], ..packet }, at..work.bytes.len()));
        if full_at == usize::MAX && work.bytes.len() >= fill {
            full_at = work.packets.len();
        }
    }
    work.run(0..full_at);
    work
}

#[library_benchmark]
#[bench::campus(full_campus())]
fn ingest_campus(mut work: CampusWork) -> CampusWork {
    let all = work.packets.len();
    work.run(all - PACKETS..all);
    black_box(work)
}

library_benchmark_group!(name = packets, benchmarks = [ingest, ingest_campus]);
main!(library_benchmark_groups = packets);
