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
    /// Total memory, split as in a live recorder [default: 40MiB; 24MiB with --deployments, 16MiB with --attacks].
    #[arg(long)]
    budget: Option<ByteSize>,
    /// Seed of the traffic.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Number of measurements, spread evenly over the second half.
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) looks: u32,
    /// Print every measurement as comma-separated values instead of the table.
    #[arg(long)]
    pub(crate) csv: bool,
    /// Instead show how much one host must send before others lose their history.
    #[arg(long)]
    pub(crate) attacks: bool,
    /// Instead show what share of sessions is left in typical deployments, without and with a large transfer.
    #[arg(long, conflicts_with = "attacks")]
    pub(crate) deployments: bool,
    /// Bytes of the large transfer at each deployment.
    #[arg(long, default_value_t = 200_000_000)]
    pub(crate) elephant_bytes: u64,
    /// Payload bytes in each packet of the large transfer.
    #[arg(long, default_value_t = 14_480)]
    pub(crate) elephant_mss: u64,
    /// Bytes per second of the large transfer.
    #[arg(long, default_value_t = 160_000_000)]
    pub(crate) elephant_bytes_per_s: u64,
    /// Show only attacks and deployments whose names contain this text.
    #[arg(long, default_value = "")]
    pub(crate) only: String,
    /// Most budgets that an attack sends.
    #[arg(long, default_value_t = 64.0)]
    pub(crate) limit: f64,
    /// With --deployments: write the traffic of each deployment to a capture file in this directory instead, for other judges.
    #[arg(long, requires = "deployments")]
    pub(crate) write: Option<std::path::PathBuf>,
    /// Cargo passes this option to benchmarks.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// The total memory.
    pub(crate) fn budget(&self) -> ByteSize {
        let default_mib = if self.deployments {
            24
        } else if self.attacks {
            16
        } else {
            40
        };
        self.budget.unwrap_or(ByteSize(default_mib << 20))
    }

    pub(crate) fn campus(&self) -> Campus {
        Campus::new(self.seed, self.rate, self.hours)
    }
}
