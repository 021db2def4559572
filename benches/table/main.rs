//! `make bench`: one table with the cost of the hot path on this machine, compared with its peers in the same run.
//!
//! `make bench ARGS='ingest replay'` measures these sections alone. `ARGS=--long` measures more rounds of everything.

mod asked;
mod cable;
mod conversations;
mod hunt;
mod ingest;
mod instructions;
mod live;
mod machine;
mod memory;
mod process;
mod queries;
mod real;
mod replay;
mod scale;
mod spool;
mod table;
mod traffic;

use clap::Parser;

use scale::Scale;

/// Print one table with the cost of the hot path on this machine, compared with its peers in the same run.
#[derive(Debug, Parser)]
struct Args {
    /// Sections to measure [default: all]
    sections: Vec<String>,
    /// Measure longer
    #[arg(long)]
    long: bool,
    /// Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

type Section = (&'static str, fn(Scale));

const SECTIONS: [Section; 14] = [
    ("instructions", instructions::instructions),
    ("ingest", ingest::ingest),
    ("growth", ingest::growth),
    ("workers", ingest::workers),
    ("memory", memory::memory),
    ("replay", replay::replay),
    ("live", live::live),
    ("asked", asked::asked),
    ("readers", live::readers),
    ("chain", live::chain),
    ("idle", live::idle),
    ("queries", queries::queries),
    ("hunt", hunt::hunt),
    ("spool", spool::spool),
];

fn main() {
    let args = Args::parse();
    let names = SECTIONS.map(|(name, _)| name);
    if let Some(unknown) = args.sections.iter().find(|name| !names.contains(&name.as_str())) {
        eprintln!("there is no section {unknown:?}; there are {}", names.join(", "));
        std::process::exit(2);
    }
    machine::print();
    println!();
    table::head();
    for (name, measure) in SECTIONS {
        if args.sections.is_empty() || args.sections.iter().any(|wanted| wanted == name) {
            measure(Scale { long: args.long });
        }
    }
}
