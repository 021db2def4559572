//! Instructions per packet, counted by valgrind, because counts are stable where times are not. It needs valgrind and
//! `gungraun-runner`, which `scripts/setup bench` installs; `make bench` shows the counts divided by [`PACKETS`].
#![allow(missing_docs, unreachable_pub, reason = "what the macros make")]

use std::hint::black_box;

use gungraun::prelude::*;
use retrocap::budget::Split;
use retrocap::memory::Lock;
use retrocap::pipeline::{Config, Pipeline};
use retrocap::source::BURST_PACKETS;
use retrocap::store::retention::Policy;

#[allow(dead_code, reason = "the table uses more of it")]
#[path = "table/traffic.rs"]
mod traffic;

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

/// A 16 MiB worker with 1,000 sessions, after packets for one and a half times its memory.
fn full(lens: &[usize], burst: usize) -> Work {
    const MIB: usize = 1 << 20;
    let split = Split::new(16 * MIB as u64, 1, false).expect("a budget that can be split");
    let config = Config {
        sessions_bytes: split.sessions_bytes,
        store_bytes: split.store_bytes,
        policy: Policy::default(),
        classes: Default::default(),
        pins: Default::default(),
        pinned_bytes: MIB as u64,
        filter: None,
        snaplen: 0,
        lock: Lock::No,
        seed: 1,
    };
    let mean = lens.iter().sum::<usize>() / lens.len();
    let fill = 24 * MIB / mean / PACKETS * PACKETS + PACKETS;
    let frames = Frames::new((fill + PACKETS) * mean, lens, 1_000, 1);
    let pipeline = Pipeline::new(config).expect("memory");
    let mut work = Work { pipeline, frames, time_ns: 1_700_000_000_000_000_000, burst };
    let first = work.frames.frames.len() - PACKETS;
    work.run(0..first);
    work
}

#[library_benchmark]
#[bench::small(full(&[64], BURST_PACKETS))]
#[bench::small_alone(full(&[64], 1))]
#[bench::imix(full(IMIX, BURST_PACKETS))]
#[bench::large(full(&[1500], BURST_PACKETS))]
#[bench::large_alone(full(&[1500], 1))]
fn ingest(mut work: Work) -> Work {
    let all = work.frames.frames.len();
    work.run(all - PACKETS..all);
    black_box(work)
}

library_benchmark_group!(name = packets, benchmarks = ingest);
main!(library_benchmark_groups = packets);
