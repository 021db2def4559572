//! Retention benchmark: how far back each policy reaches on the campus workload with the same memory.
//!
//! `make retention` sends the workload through the real pipeline and two baselines. It measures what each of them
//! retains at several times in the second half.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are drawn at random and printed rounded"
)]

mod arguments;
mod attacks;
mod baselines;
mod campus;
mod chart;
mod measure;
mod random;
mod report;
mod truth;

use clap::Parser;
use retrocap::budget::Split;
use retrocap::pipeline::{Config, Pipeline};
use retrocap::store::compress::Pace;
use retrocap::time::Timestamp;

use arguments::Args;
use baselines::Fifo;
use campus::Campus;
use measure::{Look, Measured, measure};
use truth::Truth;

/// Cutoff of the baseline, in bytes per session.
const CUTOFF_BYTES: u64 = 10_000;

fn main() {
    let args = Args::parse();
    let split = match Split::new(args.budget.bytes(), 1, false).map(Split::compressing) {
        Ok(split) => split,
        Err(error) => {
            eprintln!("retention: {error}");
            std::process::exit(2);
        }
    };
    if args.attacks {
        attack(&args);
    } else {
        compare(&args, &split);
    }
}

/// Prints how much one host must send, at several rates.
fn attack(args: &Args) {
    const LIMIT: f64 = 64.0;
    println!(
        "Budgets of {} that one host sends before others' hour-old 5 kB sessions lose their first kilobyte",
        args.budget
    );
    println!("{:42}{:>12}{:>12}{:>12}", "", "10 Mbit/s", "100 Mbit/s", "1 Gbit/s");
    for attack in attacks::Attack::ALL {
        let cells = [10_000_000, 100_000_000, 1_000_000_000].map(|rate| {
            let outcome = attacks::run(attack, args.budget.bytes(), rate, LIMIT);
            let sign = if outcome.washed_out { "" } else { "> " };
            format!("{sign}{:.0}", outcome.budgets)
        });
        println!("{:42}{:>12}{:>12}{:>12}", attack.name(), cells[0], cells[1], cells[2]);
    }
}

/// Sends the workload through all policies and prints what they retain.
fn compare(args: &Args, split: &Split) {
    let config = Config {
        pinned_bytes: split.pinned_bytes(),
        seed: args.seed,
        ..Config::new(split.sessions_bytes, split.store_bytes)
    };
    let mut pipeline = match Pipeline::new(config) {
        Ok(pipeline) => pipeline,
        Err(error) => {
            eprintln!("retention: no memory for {}: {error}", args.budget);
            std::process::exit(1);
        }
    };
    if let Some(compression) = split.compression(10.0, Pace::Replay) {
        match pipeline.compress(&compression) {
            Ok(compressor) => drop(std::thread::spawn(move || compressor.run())),
            Err(error) => eprintln!("retention: no compression: {error}"),
        }
    }
    let mut run = Run {
        truth: Truth::default(),
        pipeline,
        // The baselines have no session table, so packets get the whole budget.
        fifo: Fifo::new(args.budget.bytes(), u64::MAX),
        cutoff: Fifo::new(args.budget.bytes(), CUTOFF_BYTES),
        looks: Vec::new(),
    };
    let wire_bytes = run.all(args);
    if args.csv {
        report::csv(&run.looks);
    } else {
        report::title(args, split, &run.truth, wire_bytes);
        report::table(&run.looks);
        if let Some(path) = &args.chart {
            let means = std::array::from_fn(|policy| {
                let looks: Vec<Measured> = run.looks.iter().map(|look| look.policies[policy]).collect();
                Measured::mean(&looks)
            });
            let title = format!(
                "How far back {} reach: campus workload, {} sessions/s, seed {}",
                args.budget, args.rate, args.seed
            );
            if let Err(error) = std::fs::write(path, chart::svg(&title, &means)) {
                eprintln!("retention: cannot write {}: {error}", path.display());
                std::process::exit(1);
            }
        }
        report::sessions(&run.pipeline.worker().sessions);
    }
}

/// State of a comparison: the workload and all policies.
struct Run {
    truth: Truth,
    pipeline: Pipeline,
    fifo: Fifo,
    cutoff: Fifo,
    looks: Vec<Look>,
}

impl Run {
    /// Sends the whole workload and returns its volume in bytes.
    fn all(&mut self, args: &Args) -> u64 {
        let mut campus = args.campus();
        let mut wire_bytes = 0;
        let begin = Campus::begin();
        let length_ns = args.hours * 3600e9;
        // The first measurement is one interval after the middle, and the last one is at the end.
        let due = |look: usize| {
            Timestamp(begin.0 + (length_ns * (0.5 + 0.5 * (look + 1) as f64 / f64::from(args.looks))) as u64)
        };
        while let Some(frame) = campus.next() {
            while frame.packet.time > due(self.looks.len()) && self.looks.len() + 1 < args.looks as usize {
                self.look(due(self.looks.len()));
            }
            wire_bytes += frame.packet.data.len() as u64;
            self.truth.note(&frame);
            self.fifo.ingest(&frame);
            self.cutoff.ingest(&frame);
            self.pipeline.ingest(std::slice::from_ref(&frame.packet));
        }
        self.look(due(args.looks as usize - 1));
        wire_bytes
    }

    fn look(&mut self, now: Timestamp) {
        self.pipeline.publish();
        let worker = self.pipeline.worker();
        let lost_until = worker.published.totals().lost_until.unwrap_or_default();
        let of_fifo = |fifo: &Fifo| measure(&self.truth, &fifo.kept(), fifo.lost_until(), fifo.used_bytes(), now);
        let ours = measure(&self.truth, &measure::kept_by(&worker), lost_until, measure::used_by(&worker), now);
        self.looks.push(Look { now, policies: [of_fifo(&self.fifo), of_fifo(&self.cutoff), ours] });
    }
}
