//! Ingest from memory: decoding, sessions, storing and eviction on one core, compared with a plain copy of the same
//! packets; how the cost of a packet grows with other quantities; and the throughput of two workers.

use std::hint::black_box;
use std::time::Instant;

use retrocap::budget::Split;
use retrocap::judge::{Class, Classes};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::source::BURST_PACKETS;

use crate::process::resident_mebibytes;
use crate::scale::Scale;
use crate::table::{Row, median, section};
use crate::traffic::{Frames, IMIX};

const MIB: u64 = 1 << 20;
/// Bytes of packets per round.
const ROUND_BYTES: usize = 64 << 20;

#[derive(Clone, Copy)]
struct Case {
    lens: &'static [usize],
    sessions: u32,
    /// The budget from which packets and sessions get their shares.
    budget: u64,
    /// Memory for sessions when it is not the share of the budget; 0 means the share.
    sessions_bytes: u64,
    interfaces: u16,
    classes: usize,
}

const SMALL: Case =
    Case { lens: &[64], sessions: 10_000, budget: 40 * MIB, sessions_bytes: 0, interfaces: 1, classes: 0 };

/// The size of a session table.
struct Table {
    entries: f64,
    used: usize,
    resident_mebibytes: f64,
}

/// A worker and the packets it gets.
struct Ingest {
    frames: Frames,
    pipeline: Pipeline,
    time_ns: u64,
}

impl Ingest {
    fn new(case: &Case) -> Self {
        let split = Split::new(case.budget, 1, false).expect("a budget that can be split");
        let classes: Vec<_> = (0..case.classes)
            .map(|n| Class {
                name: format!("class {n}"),
                filter: format!("net 172.16.{n}.0/24 and tcp port {}", 1000 + n),
                weight: 2.0,
                cutoff_bytes: None,
                reserve_bytes: 0,
                important: None,
            })
            .collect();
        let config = Config {
            classes: Classes::new(&classes, split.store_bytes).expect("classes that can be used"),
            pinned_bytes: MIB,
            ..Config::new(
                if case.sessions_bytes > 0 { case.sessions_bytes } else { split.sessions_bytes },
                split.store_bytes,
            )
        };
        let pipeline = Pipeline::new(config).expect("memory");
        let frames = Frames::new(ROUND_BYTES, case.lens, case.sessions, case.interfaces);
        let mut ingest = Self { frames, pipeline, time_ns: 1_700_000_000_000_000_000 };
        // Fill the store and the session table before anything is measured.
        let fill = case.budget / ROUND_BYTES as u64 + 1 + u64::from(case.sessions) * 64 / ROUND_BYTES as u64;
        for _ in 0..fill.min(80) {
            ingest.renew();
            ingest.round();
        }
        ingest
    }

    /// Prepares the packets of the next round. This is not measured.
    fn renew(&mut self) {
        self.frames.renew();
    }

    fn round(&mut self) {
        let Self { frames, pipeline, time_ns } = self;
        let mut burst = Vec::with_capacity(BURST_PACKETS);
        for some in frames.frames.chunks(BURST_PACKETS) {
            burst.clear();
            burst.extend(some.iter().map(|frame| {
                *time_ns += 700;
                frames.packet(frame, *time_ns)
            }));
            pipeline.ingest(&burst);
        }
        pipeline.publish();
    }

    /// Seconds per round of ingest and per plain copy of the same packets, measured alternately.
    fn measure(&mut self, rounds: usize) -> (f64, f64) {
        let mut copy = vec![0u8; self.frames.memory.len()];
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            self.renew();
            ours.push(seconds(|| self.round()));
            plain.push(seconds(|| {
                for &(at, len, _) in &self.frames.frames {
                    copy[at..at + len].copy_from_slice(&self.frames.memory[at..at + len]);
                }
                black_box(&mut copy);
            }));
        }
        (median(ours), median(plain))
    }

    fn table(&self) -> Table {
        let sessions = self.pipeline.worker().sessions;
        Table {
            entries: f64::from(sessions.capacity()),
            used: sessions.sessions().count(),
            resident_mebibytes: resident_mebibytes("self"),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "printed rounded")]
    fn packets(&self) -> f64 {
        self.frames.frames.len() as f64
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Packets per second.
pub(crate) fn ingest(scale: Scale) {
    section("ingest", "from memory, one core; 64 MiB a round, median; beside memcpy of the same packets");
    let case = |lens, sessions, mebibytes| Case { lens, sessions, budget: mebibytes * MIB, ..SMALL };
    for (what, case, aim) in [
        ("64 B, 1,000 sessions, 40 MiB", case(&[64], 1_000, 40), ">= 6 M/s"),
        ("64 B, 1,000 sessions, 1 GiB", case(&[64], 1_000, 1024), ">= 6 M/s"),
        ("64 B, 1 M sessions, 2 GiB", case(&[64], 1_000_000, 2048), ">= 3 M/s"),
        (
            "64 B, 10 M sessions, 4 GiB and a table for all",
            Case { sessions_bytes: 3072 * MIB, ..case(&[64], 10_000_000, 4096) },
            ">= 1.5 M/s",
        ),
        ("64 B, 10 M sessions, 1 GiB, a table for a tenth", case(&[64], 10_000_000, 1024), ">= 1.5 M/s"),
        ("64 B, each a new session, 40 MiB", case(&[64], 50_000_000, 40), ""),
        ("64 B, each a new session, 241 MiB", case(&[64], 50_000_000, 241), ""),
        ("IMIX, 10,000 sessions, 40 MiB", case(IMIX, 10_000, 40), ""),
        ("1514 B, 1,000 sessions, 40 MiB", case(&[1514], 1_000, 40), ">= half of memcpy"),
        ("1514 B, 1,000 sessions, 1 GiB", case(&[1514], 1_000, 1024), ">= half of memcpy"),
    ] {
        let mut ingest = Ingest::new(&case);
        let before = ingest.table();
        let (ours, plain) = ingest.measure(scale.rounds());
        #[expect(clippy::cast_precision_loss, reason = "printed rounded")]
        let bytes = ingest.frames.memory.len() as f64 / 1e9;
        let figure = format!("{:.2} M/s {:.2} GB/s", ingest.packets() / ours / 1e6, bytes / ours);
        Row::new(what, figure).beside(format_args!("memcpy {:.2} GB/s", bytes / plain), plain / ours).aim(aim).print();
        if case.sessions >= 1_000_000 && case.sessions < 50_000_000 {
            let after = ingest.table();
            Row::new("  entries of its table in use", format_args!("{} of {}", after.used, after.entries))
                .beside(format_args!("before {} of {}", before.used, before.entries), after.entries / before.entries)
                .aim("never grows")
                .print();
            Row::new("  resident memory", format_args!("{:.0} MiB", after.resident_mebibytes))
                .beside(
                    format_args!("before {:.0} MiB", before.resident_mebibytes),
                    after.resident_mebibytes / before.resident_mebibytes,
                )
                .aim("1.0")
                .print();
        }
    }
}

/// The cost of a packet while one other quantity grows.
pub(crate) fn growth(scale: Scale) {
    section("growth", "cost of a 64 B packet when something else grows, beside the case before it grew");
    let large = Case { sessions: 100_000, budget: 1024 * MIB, ..SMALL };
    for (what, few, many, aim) in [
        ("sessions x10 (10,000 to 100,000; 1 GiB)", Case { sessions: 10_000, ..large }, large, "1.0"),
        ("sessions x10 (100,000 to 1 M; 1 GiB)", large, Case { sessions: 1_000_000, ..large }, "caches end"),
        ("budget x10 (40 to 400 MiB)", SMALL, Case { budget: 400 * MIB, ..SMALL }, "1.0"),
        ("interfaces x100 (1 to 100)", SMALL, Case { interfaces: 100, ..SMALL }, "1.0"),
        ("classes x50 (1 to 50), old sessions", Case { classes: 1, ..SMALL }, Case { classes: 50, ..SMALL }, "1.0"),
        (
            "classes x50 (1 to 50), each packet a new session",
            Case { classes: 1, sessions: 50_000_000, ..SMALL },
            Case { classes: 50, sessions: 50_000_000, ..SMALL },
            "each is asked once a session",
        ),
    ] {
        let (mut few, mut many) = (Ingest::new(&few), Ingest::new(&many));
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for _ in 0..scale.rounds() {
            few.renew();
            many.renew();
            before.push(seconds(|| few.round()) / few.packets() * 1e9);
            after.push(seconds(|| many.round()) / many.packets() * 1e9);
        }
        let (before, after) = (median(before), median(after));
        let figure = format!("{after:.0} ns a packet");
        Row::new(what, figure).beside(format_args!("{before:.0} ns"), after / before).aim(aim).print();
    }
}

/// Two workers compared with one, each with half of the memory.
pub(crate) fn workers(scale: Scale) {
    section("workers", "from memory, IMIX; each has its own thread, table and store, nothing is shared");
    let case = Case { lens: IMIX, ..SMALL };
    let half = Case { budget: case.budget / 2, sessions: case.sessions / 2, ..case };
    let (mut one, mut two) = (Ingest::new(&case), [Ingest::new(&half), Ingest::new(&half)]);
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds() {
        alone.push(one.packets() / seconds(|| one.round()) / 1e6);
        let packets: f64 = two.iter().map(Ingest::packets).sum();
        let taken = seconds(|| {
            std::thread::scope(|scope| two.iter_mut().for_each(|worker| drop(scope.spawn(|| worker.round()))));
        });
        together.push(packets / taken / 1e6);
    }
    let (alone, together) = (median(alone), median(together));
    Row::new("2 workers beside 1", format_args!("{together:.2} M/s"))
        .beside(format_args!("{alone:.2} M/s"), together / alone)
        .aim("2.0 on two free cores")
        .print();
}
