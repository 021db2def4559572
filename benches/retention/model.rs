//! A fast model of the store, to search the shape of the curve: bytes by second and depth instead of packets.
//!
//! It follows the store's rule (segments of one rank, the one with the highest age × weight goes whole) at a
//! resolution of a second, which takes milliseconds where the pipeline takes seconds, and lets ranks be cut otherwise
//! than the store cuts them. A session counts as having what began after the newest loss of all ranks it needs.

use std::collections::VecDeque;

use retrocap::budget::ByteSize;
use retrocap::time::Timestamp;

use crate::campus::Campus;
use crate::measure::horizon_s;
use crate::random::Random;
use crate::report::{TARGETS, multiple};
use crate::truth::{Level, Truth};

/// What a record costs beside the packet's bytes.
const RECORD_BYTES: u64 = 11;
const SEGMENT_BYTES: u32 = 64 << 10;
const LOOKS: u32 = 36;

/// Bytes of the first rank and ranks to a doubling, as far as they are tried.
const CUTS: [(f64, f64); 7] =
    [(64.0, 1.0), (128.0, 1.0), (256.0, 1.0), (512.0, 1.0), (1024.0, 1.0), (512.0, 0.5), (512.0, 2.0)];
/// Depths at which the curve that the search starts from is given; in between it is interpolated, in logarithms.
const KNOTS_BYTES: [f64; 8] = [0.0, 1_000.0, 3_000.0, 10_000.0, 20_000.0, 60_000.0, 400_000.0, 4e6];
/// Horizons there, in any unit.
const START: [f64; KNOTS_BYTES.len()] = [50.0, 30.0, 10.0, 6.0, 3.0, 1.0, 0.4, 0.2];
/// Beyond this depth weights are not searched one by one.
const DEEPEST_BYTES: f64 = 16e6;
/// A deeper rank goes at least so much earlier, so that sessions are cut from their end.
const STEP_MIN: f64 = 1.03;

/// How ranks are cut: rank = `per_octave` × log2(1 + offset / `first_bytes`).
#[derive(Clone, Copy, Debug)]
struct Cut {
    first_bytes: f64,
    per_octave: f64,
}

impl Cut {
    fn rank(self, offset: f64) -> usize {
        (self.per_octave * (1.0 + offset / self.first_bytes).log2()) as usize
    }

    fn offset_from(self, rank: usize) -> f64 {
        ((rank as f64 / self.per_octave).exp2() - 1.0) * self.first_bytes
    }

    fn ranks(self) -> usize {
        self.rank(64e9) + 1
    }
}

/// The workload as the model sees it.
struct Flow {
    truth: Truth,
    /// Second, depth cell, bytes; by second.
    bytes: Vec<(u32, u16, u32)>,
    seconds: u32,
}

/// Cells to a doubling of the depth.
const CELLS_PER_OCTAVE: f64 = 16.0;
const CELL_BYTES: f64 = 64.0;

fn cell_of(offset: u64) -> u16 {
    (CELLS_PER_OCTAVE * (1.0 + offset as f64 / CELL_BYTES).log2()) as u16
}

/// The middle of a cell, but the start of the first one.
fn offset_of(cell: u16) -> f64 {
    if cell == 0 { 0.0 } else { (((f64::from(cell) + 0.5) / CELLS_PER_OCTAVE).exp2() - 1.0) * CELL_BYTES }
}

impl Flow {
    fn new(mut campus: Campus, hours: f64) -> Self {
        let mut flow = Self { truth: Truth::default(), bytes: Vec::new(), seconds: (hours * 3600.0) as u32 };
        let mut second = 0;
        let mut cells = vec![0u32; usize::from(cell_of(u64::MAX)) + 1];
        while let Some(frame) = campus.next() {
            let now = ((frame.packet.time.0 - Campus::begin().0) / 1_000_000_000) as u32;
            if now != second {
                flow.add(second, &mut cells);
                second = now;
            }
            let bytes = frame.packet.data.len() as u64 + RECORD_BYTES;
            // The store keeps closing packets with the start.
            let cell = if frame.closes { 0 } else { cell_of(frame.offset) };
            cells[usize::from(cell)] += bytes as u32;
            flow.truth.note(&frame);
        }
        flow.add(second, &mut cells);
        flow
    }

    fn add(&mut self, second: u32, cells: &mut [u32]) {
        for (cell, bytes) in (0..).zip(cells) {
            if *bytes > 0 {
                self.bytes.push((second, cell, std::mem::take(bytes)));
            }
        }
    }
}

/// Packets of one rank that go together.
#[derive(Clone, Copy, Debug)]
struct Segment {
    oldest_s: u32,
    newest_s: u32,
    bytes: u32,
}

/// Five horizons in seconds, as the report shows them.
type Horizons = [f64; 5];

/// The horizons of the looks: means, but the median of the whole stretch, which quiet minutes would flatter.
fn simulate(flow: &Flow, cut: Cut, weights: &[f64], capacity_bytes: u64) -> Horizons {
    let ranks: Vec<usize> =
        (0..=cell_of(u64::MAX)).map(|cell| cut.rank(offset_of(cell)).min(weights.len() - 1)).collect();
    let mut queues = vec![VecDeque::<Segment>::new(); weights.len()];
    let mut lost_until_s = vec![-1i64; weights.len()];
    let mut used: u64 = 0;
    let mut looks = Vec::new();
    for &(second, cell, bytes) in &flow.bytes {
        while looks.len() < LOOKS as usize && second >= look_at(flow.seconds, looks.len()) {
            looks.push(look(flow, cut, &lost_until_s, look_at(flow.seconds, looks.len())));
        }
        let rank = ranks[usize::from(cell)];
        let mut left = bytes;
        while left > 0 {
            match queues[rank].back_mut() {
                Some(open) if open.bytes < SEGMENT_BYTES => {
                    let taken = left.min(SEGMENT_BYTES - open.bytes);
                    open.bytes += taken;
                    open.newest_s = second;
                    left -= taken;
                }
                _ => queues[rank].push_back(Segment { oldest_s: second, newest_s: second, bytes: 0 }),
            }
        }
        used += u64::from(bytes);
        while used > capacity_bytes {
            let score = |rank: usize| {
                queues[rank].front().map_or(-1.0, |head| (f64::from(second - head.oldest_s) + 0.5) * weights[rank])
            };
            let Some(victim) = (0..weights.len()).max_by(|&a, &b| score(a).total_cmp(&score(b))) else { break };
            let Some(head) = queues[victim].pop_front() else { break };
            used -= u64::from(head.bytes);
            lost_until_s[victim] = lost_until_s[victim].max(i64::from(head.newest_s));
        }
    }
    while looks.len() < LOOKS as usize {
        looks.push(look(flow, cut, &lost_until_s, look_at(flow.seconds, looks.len())));
    }
    let mut stretches: Vec<f64> = looks.iter().map(|look| look[4]).collect();
    stretches.sort_by(f64::total_cmp);
    let mut mean = std::array::from_fn(|i| looks.iter().map(|look| look[i]).sum::<f64>() / looks.len() as f64);
    mean[4] = stretches[stretches.len() / 2];
    mean
}

fn look_at(seconds: u32, look: usize) -> u32 {
    (f64::from(seconds) * (0.5 + 0.5 * (look + 1) as f64 / f64::from(LOOKS))) as u32
}

/// What is there at `now_s`, after each rank was lost up to some second.
fn look(flow: &Flow, cut: Cut, lost_until_s: &[i64], now_s: u32) -> Horizons {
    let mut lost = lost_until_s.to_vec();
    for rank in 1..lost.len() {
        lost[rank] = lost[rank].max(lost[rank - 1]);
    }
    let begin = Campus::begin().0;
    let now = Timestamp(begin + u64::from(now_s) * 1_000_000_000);
    let sessions = flow.truth.sessions();
    let sessions = &sessions[..sessions.partition_point(|session| session.start <= now)];
    let level = |level: Level| {
        horizon_s(sessions, now, |at| {
            let session = &sessions[at];
            let deepest = session.last_offset.min(level.end_bytes() - 1);
            let start_s = (session.start.0 - begin) / 1_000_000_000;
            i64::try_from(start_s).unwrap_or(i64::MAX) <= lost[cut.rank(deepest as f64).min(lost.len() - 1)]
        })
    };
    let [start, kilobyte, ten, whole] = Level::ALL.map(level);
    let last = lost.last().copied().unwrap_or(-1).max(0);
    [start, kilobyte, ten, whole, f64::from(now_s) - last as f64]
}

/// The weight of each rank for horizons at the knots.
fn weights(cut: Cut, horizons: &[f64]) -> Vec<f64> {
    let mut weights: Vec<f64> = (0..cut.ranks())
        .map(|rank| 1.0 / interpolate(horizons, if rank == 0 { 0.0 } else { cut.offset_from(rank) }))
        .collect();
    rise(&mut weights);
    weights
}

fn interpolate(horizons: &[f64], offset: f64) -> f64 {
    let depth = |bytes: f64| (1.0 + bytes / CELL_BYTES).ln();
    for (knots, ends) in KNOTS_BYTES.windows(2).zip(horizons.windows(2)) {
        if offset <= knots[1] {
            let share = (depth(offset) - depth(knots[0])) / (depth(knots[1]) - depth(knots[0]));
            return (ends[0].ln() * (1.0 - share) + ends[1].ln() * share).exp();
        }
    }
    horizons.last().copied().unwrap_or(1.0)
}

/// How many times its target the worst horizon reaches, and a little of the others, so that none is given away.
fn merit(horizons: &Horizons, fifo: &Horizons) -> f64 {
    let reached: Vec<f64> = (0..5).map(|i| horizons[i] / fifo[i] / TARGETS[i]).collect();
    let least = reached.iter().copied().fold(f64::MAX, f64::min);
    least + 0.02 * reached.iter().map(|r| r.max(1e-3).ln()).sum::<f64>()
}

/// For several ways to cut ranks, climbs to the horizons that exceed the targets most evenly, and prints their weights.
pub(crate) fn search(campus: Campus, hours: f64, store_bytes: u64, steps: u32, first_bytes: Option<f64>) {
    let flow = Flow::new(campus, hours);
    let one_rank = Cut { first_bytes: 1e15, per_octave: 1.0 };
    let fifo = simulate(&flow, one_rank, &[1.0], store_bytes);
    println!("model, {}: FIFO keeps {:.0} s (whole stretch, median: {:.0} s)", ByteSize(store_bytes), fifo[0], fifo[4]);
    println!("columns: starts, first 1 kB, first 10 kB, whole, whole stretch (median), as multiples of FIFO");
    let cuts = match first_bytes {
        Some(first_bytes) => vec![Cut { first_bytes, per_octave: 1.0 }],
        None => CUTS.map(|(first_bytes, per_octave)| Cut { first_bytes, per_octave }).to_vec(),
    };
    for cut in cuts {
        let Cut { first_bytes, per_octave } = cut;
        let show = |name: &str, weights: &[f64]| {
            let horizons = simulate(&flow, cut, weights, store_bytes);
            let cells: Vec<String> = (0..5).map(|i| format!("{:>8}", multiple(horizons[i] / fifo[i]))).collect();
            println!("  {name:<12}{}   merit {:.2}", cells.concat(), merit(&horizons, &fifo));
        };
        println!("\nfirst rank {first_bytes} B, {per_octave} ranks to a doubling");
        let geometric: Vec<f64> = (0..cut.ranks()).map(|rank| (rank as f64 / per_octave).exp2()).collect();
        show("geometric", &geometric);
        show("start", &weights(cut, &START));
        let best = climb(&flow, cut, store_bytes, &fifo, steps);
        show("best", &best);
        println!("  --weights {}", list(&best.iter().map(|weight| weight / best[0]).collect::<Vec<_>>()));
    }
}

/// Changes the weight of one rank, or from one rank on, at random, and keeps what is better.
fn climb(flow: &Flow, cut: Cut, store_bytes: u64, fifo: &Horizons, steps: u32) -> Vec<f64> {
    let mut random = Random::new(1);
    let evaluate = |weights: &[f64]| merit(&simulate(flow, cut, weights, store_bytes), fifo);
    let mut best = weights(cut, &START);
    let mut best_merit = evaluate(&best);
    for _ in 0..steps {
        let mut next = best.clone();
        let from = random.between(1, cut.rank(DEEPEST_BYTES) as u32) as usize;
        let to = if random.unit() < 0.5 { from + 1 } else { next.len() };
        let factor = random.lognormal(1.0, 0.4);
        next[from..to].iter_mut().for_each(|weight| *weight *= factor);
        rise(&mut next);
        let merit = evaluate(&next);
        if merit > best_merit {
            (best, best_merit) = (next, merit);
        }
    }
    best
}

/// Raises weights until each is enough above the one before.
fn rise(weights: &mut [f64]) {
    for rank in 1..weights.len() {
        weights[rank] = weights[rank].max(weights[rank - 1] * STEP_MIN);
    }
}

fn list(values: &[f64]) -> String {
    let digits = |value: &f64| if *value < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") };
    values.iter().map(digits).collect::<Vec<_>>().join(",")
}
