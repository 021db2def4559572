//! The command line.

use clap::Parser;
use retrocap::budget::ByteSize;

use crate::campus::Campus;

/// Measure how far back each policy reaches on the campus workload with the same memory.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Hours of traffic.
    #[arg(long, default_value_t = 12.0)]
    pub(crate) hours: f64,
    /// New sessions per second.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) rate: f64,
    /// Total memory, split as in a live recorder.
    #[arg(long, default_value = "40MiB")]
    pub(crate) budget: ByteSize,
    /// Seed of the traffic.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Number of measurements, spread evenly over the second half.
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) looks: u32,
    /// Print every measurement as comma-separated values instead of the table.
    #[arg(long)]
    pub(crate) csv: bool,
    /// Also write a chart of the mean horizons to this SVG file.
    #[arg(long)]
    pub(crate) chart: Option<std::path::PathBuf>,
    /// Instead show how much one host must send before others lose their history.
    #[arg(long)]
    pub(crate) attacks: bool,
    /// Cargo passes this option to benchmarks.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    pub(crate) fn campus(&self) -> Campus {
        Campus::new(self.seed, self.rate, self.hours)
    }
}
