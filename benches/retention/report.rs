//! Output of the results as a table or as comma-separated values.

use retrocap::budget::{ByteSize, Split};
use retrocap::session::SessionArray;

use crate::arguments::Args;
use crate::measure::{Look, Measured};
use crate::truth::Truth;

pub(crate) const POLICIES: [&str; 3] = ["FIFO", "10 kB cutoff", "Retrocap"];
/// Targets for Retrocap, in multiples of the FIFO horizons.
pub(crate) const TARGETS: [f64; 5] = [25.0, 15.0, 2.5, 1.0, 0.15];
pub(crate) const COLUMNS: [&str; 5] = ["starts", "first 1 kB", "first 10 kB", "whole", "whole stretch"];

/// Prints the workload and the memory sizes.
pub(crate) fn title(args: &Args, split: &Split, truth: &Truth, wire_bytes: u64) {
    println!(
        "campus workload, seed {}: {} h at {} sessions/s, {} sessions, {} packets, {:.2} GB ({:.1} kB/s)",
        args.seed,
        args.hours,
        args.rate,
        truth.sessions().len(),
        truth.packets(),
        wire_bytes as f64 / 1e9,
        wire_bytes as f64 / args.hours / 3.6e6
    );
    println!(
        "budget {}, of it {} for packets ({} for the others, which know no sessions); mean of {} looks in the second half",
        args.budget(),
        ByteSize(split.store_bytes),
        args.budget(),
        args.looks
    );
}

/// Prints the horizons of all policies with the targets, then the counts of retained packets and sessions.
pub(crate) fn table(looks: &[Look]) {
    let policies: [Vec<Measured>; 3] =
        std::array::from_fn(|policy| looks.iter().map(|look| look.policies[policy]).collect());
    let means = policies.each_ref().map(|looks| Measured::mean(looks));
    horizons("mean of looks", &means);
    horizons("median look", &policies.each_ref().map(|looks| Measured::quantile(looks, 0.5)));
    horizons("worst tenth", &policies.each_ref().map(|looks| Measured::quantile(looks, 0.1)));
    println!("{:<14}{}", "target", TARGETS.map(|target| format!("{:>17}", multiple(target))).concat());

    println!(
        "\n{:<14}{:>11}{:>11}{:>11}{:>14}{:>11}{:>9}{:>12}",
        "kept", "packets", "sessions", "headless", "only closing", "with gap", "%", "memory"
    );
    for (name, mean) in POLICIES.iter().zip(&means) {
        println!(
            "{name:<14}{:>11.0}{:>11.0}{:>11.1}{:>14.1}{:>11.1}{:>9.3}{:>12}",
            mean.packets,
            mean.sessions,
            mean.headless,
            mean.only_closing,
            mean.gaps,
            mean.gaps_percent(),
            ByteSize(mean.used_bytes as u64).to_string()
        );
    }
}

/// Prints one line per policy with each horizon and its multiple of the FIFO horizon.
fn horizons(title: &str, policies: &[Measured; 3]) {
    println!("\n{title:<14}{}", COLUMNS.map(|name| format!("{name:>17}")).concat());
    let fifo = horizons_s(&policies[0]);
    for (name, measured) in POLICIES.iter().zip(policies) {
        let cells: Vec<String> = horizons_s(measured)
            .iter()
            .zip(fifo)
            .map(|(&horizon, fifo)| format!("{:>10}{:>7}", duration(horizon), multiple(horizon / fifo)))
            .collect();
        println!("{name:<14}{}", cells.concat());
    }
}

/// Prints one line per measurement and policy.
pub(crate) fn csv(looks: &[Look]) {
    println!(
        "time_s,policy,starts_s,first_1kb_s,first_10kb_s,whole_s,whole_stretch_s,packets,sessions,headless,only_closing,gaps,used_bytes"
    );
    let begin = crate::campus::Campus::begin();
    for look in looks {
        let time_s = (look.now.0 - begin.0) / 1_000_000_000;
        for (name, measured) in POLICIES.iter().zip(&look.policies) {
            let [starts, kilobyte, ten, whole, stretch] = horizons_s(measured);
            println!(
                "{time_s},{name},{starts:.3},{kilobyte:.3},{ten:.3},{whole:.3},{stretch:.3},{},{},{},{},{},{}",
                measured.packets,
                measured.sessions,
                measured.headless,
                measured.only_closing,
                measured.gaps,
                measured.used_bytes
            );
        }
    }
}

pub(crate) fn horizons_s(measured: &Measured) -> [f64; 5] {
    let [starts, kilobyte, ten, whole] = measured.horizons_s;
    [starts, kilobyte, ten, whole, measured.whole_stretch_s]
}

/// Formats a duration in the unit that suits its size.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.1} s"),
        ..7200.0 => format!("{:.1} min", seconds / 60.0),
        ..172_800.0 => format!("{:.2} h", seconds / 3600.0),
        _ => format!("{:.2} d", seconds / 86_400.0),
    }
}

/// Formats a multiple with one decimal from 10 on, and with two below.
pub(crate) fn multiple(times: f64) -> String {
    if times >= 10.0 { format!("×{times:.1}") } else { format!("×{times:.2}") }
}

/// Prints how many sessions are known at the end, and the memory for archived sessions.
pub(crate) fn sessions(array: &SessionArray) {
    let with_packets = array.sessions().filter(|session| session.kept_packets > 0).count() as u64;
    let known = array.sessions().count() as u64 + array.past();
    let (bytes, sessions) = array.archive_fill();
    println!(
        "\nledger: {known} sessions known, {with_packets} of them with packets, {} entries in the array; {} in the archive at {:.1} \
         bytes each, {} only counted; {} bytes for the archive",
        array.capacity(),
        array.past(),
        bytes as f64 / sessions.max(1) as f64,
        array.unlisted(),
        array.archive_bytes(),
    );
}
