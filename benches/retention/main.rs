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
mod deployments;
mod measure;
mod random;
mod report;
mod shares;
mod traffic;
mod truth;

use clap::Parser;
use retrocap::budget::{ByteSize, Split};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::store::compress::Pace;
use retrocap::store::retention::Policy;
use retrocap::time::Timestamp;

use arguments::Args;
use baselines::Fifo;
use campus::Campus;
use deployments::Deployment;
use measure::{Look, measure};
use shares::Elephant;
use truth::Truth;

/// Cutoff of the baseline, in bytes per session.
const CUTOFF_BYTES: u64 = 10_000;

fn main() {
    let args = Args::parse();
    let split = match Split::new(args.budget().bytes(), 1, false).map(Split::compressing) {
        Ok(split) => split,
        Err(error) => {
            eprintln!("retention: {error}");
            std::process::exit(2);
        }
    };
    if args.attacks {
        attack(&args);
    } else if let Some(directory) = &args.write {
        write(&args, directory);
    } else if args.deployments {
        stand(&args);
    } else {
        compare(&args, &split);
    }
}

/// Prints how much one host must send, at several rates.
fn attack(args: &Args) {
    println!(
        "Budgets of {} that one host sends before others' hour-old 5 kB sessions lose their first kilobyte",
        args.budget()
    );
    println!("{:42}{:>12}{:>12}{:>12}", "", "10 Mbit/s", "100 Mbit/s", "1 Gbit/s");
    for attack in attacks::Attack::ALL.into_iter().filter(|attack| attack.name().contains(&args.only)) {
        let cells = [10_000_000, 100_000_000, 1_000_000_000].map(|rate| {
            let outcome = attacks::run(attack, args.budget().bytes(), rate, args.limit);
            let sign = if outcome.washed_out { "" } else { "> " };
            format!("{sign}{:.0}", outcome.budgets)
        });
        println!("{:42}{:>12}{:>12}{:>12}", attack.name(), cells[0], cells[1], cells[2]);
    }
}

/// The deployments and the elephant that the arguments select.
fn selected(args: &Args) -> (impl Iterator<Item = Deployment>, Elephant) {
    let (bytes, mss, bytes_per_s) = (args.elephant_bytes, args.elephant_mss, args.elephant_bytes_per_s);
    let deployments = deployments::DEPLOYMENTS.into_iter().filter(|deployment| deployment.name.contains(&args.only));
    (deployments, Elephant { bytes, mss, bytes_per_s })
}

/// Prints the shares of sessions that are left at each deployment.
fn stand(args: &Args) {
    /// Memory in which all small sessions are kept whole.
    const AMPLE: u64 = 241 << 20;
    let (deployments, elephant) = selected(args);
    println!(
        "Percentage of sessions that are left at the end, {} of memory, seed {}; older: by how many points an older quarter has more;\n\
         elephant of {} in packets of {} B: the largest fall of a share (half of it sent, all, and at the end), and what part of the\n\
         packets' memory it keeps at the end; small: of the sessions under 4 kB, those that are whole with {}",
        args.budget(),
        args.seed,
        ByteSize(elephant.bytes),
        elephant.mss,
        ByteSize(AMPLE)
    );
    println!(
        "{:28}{:>9}{:>8}{:>9}{:>10}{:>8}{:>7}{:>7}{:>8}",
        "", "sessions", "first", "request", "first kB", "older", "fall", "keeps", "small"
    );
    for deployment in deployments {
        let half = Elephant::FROM_S + (elephant.ends_s() - Elephant::FROM_S) / 2;
        let at_s = [half, elephant.ends_s()];
        let run = |budget, elephant| shares::looks(deployment, args.seed, budget, Policy::default(), elephant, &at_s);
        let (without, with) = (run(args.budget().bytes(), None), run(args.budget().bytes(), Some(elephant)));
        let falls = with.iter().zip(&without).map(|(with, without)| with.falls_from(without));
        let fall = falls.fold(0.0, |most: f64, (all, quarter)| most.max(all).max(quarter));
        let (Some(end), Some(end_with)) = (without.last(), with.last()) else { continue };
        let small = run(AMPLE, None).last().map_or(0.0, |look| look.all.small_whole);
        let [first, request, kilobyte] = end.all.of_starts();
        println!(
            "{:28}{:>9}{first:>8.1}{request:>9.1}{kilobyte:>10.1}{:>8.1}{fall:>7.1}{:>7.1}{small:>8.1}{}",
            deployment.name,
            end.all.sessions,
            end.disorder(),
            end_with.elephant,
            beside(end)
        );
    }
}

/// What else is left at a deployment: probes of a scan, commands to a controller.
fn beside(look: &shares::Look) -> String {
    let mut text = String::new();
    if look.probes.sessions > 0 {
        text.push_str(&format!("  {:.1} % of {} probes", look.probes.first_packet, look.probes.sessions));
    }
    if look.commands[1] > 0 {
        text.push_str(&format!("  {} of {} commands", look.commands[0], look.commands[1]));
    }
    text
}

/// Writes the traffic of each deployment to a file.
fn write(args: &Args, directory: &std::path::Path) {
    let (deployments, elephant) = selected(args);
    for deployment in deployments {
        let path = directory.join(deployment.name.replace(' ', "-") + ".pcap");
        if let Err(error) = shares::write(deployment, args.seed, (elephant.bytes > 0).then_some(elephant), &path) {
            eprintln!("retention: cannot write {}: {error}", path.display());
            std::process::exit(1);
        }
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
            eprintln!("retention: no memory for {}: {error}", args.budget());
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
        fifo: Fifo::new(args.budget().bytes(), u64::MAX),
        cutoff: Fifo::new(args.budget().bytes(), CUTOFF_BYTES),
        looks: Vec::new(),
    };
    let wire_bytes = run.all(args);
    if args.csv {
        report::csv(&run.looks);
    } else {
        report::title(args, split, &run.truth, wire_bytes);
        report::table(&run.looks);
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
