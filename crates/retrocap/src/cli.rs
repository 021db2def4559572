//! The command line parses arguments, calls the verbs and prints results. It decides nothing about packets.
//!
//! Invariants: results go to stdout and everything else to stderr. Exit status 0 is success, 1 is "nothing matched" or
//! "failed", 2 is wrong usage, and 3 is "not all recorders answered". A closed pipe is success, because its reader has seen enough.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::archived;
use crate::error::{AlreadyReported, Incomplete, Usage};
use crate::options::Common;
use crate::terminal::output::ClosedPipe;
use crate::terminal::printable::note;
use crate::verbs::{
    ask, certs, check, completions, evidence, extcap, files, flows, get, hunt, interfaces, page, pin, push, replay,
    run, spool, status,
};

const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nCopyright the Retrocap authors; MIT or Apache-2.0");

/// Records every interface of this host into a small, fixed share of RAM, and exports past traffic as pcapng.
#[derive(Debug, Parser)]
#[command(name = "retrocap", version, long_version = LONG_VERSION, max_term_width = 110, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  sudo retrocap run                          record all interfaces into 1% of the memory
  retrocap get --since 10m port 53           the DNS of the last ten minutes, one line a packet
  retrocap get --since 10m -w odd.pcapng     the same minutes for Wireshark";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(run::Run),
    Get(get::Get),
    Flows(flows::Flows),
    Hunt(hunt::Hunt),
    Files(files::Files),
    Status(status::Status),
    Ask(Box<ask::Ask>),
    Page(page::Page),
    Push(push::Push),
    Pin(pin::Pin),
    Replay(replay::Replay),
    Interfaces(interfaces::Interfaces),
    Extcap(extcap::Extcap),
    Evidence(evidence::Evidence),
    Certs(certs::Certs),
    Check(check::Check),
    /// The second process of `run --processes`
    #[command(hide = true)]
    WatchSockets,
    #[command(hide = true)]
    DecodeObjects(files::decoder::DecodeObjects),
    #[command(hide = true)]
    SearchObjects(hunt::SearchObjects),
    #[command(hide = true)]
    ScanConfined(hunt::ScanConfined),
    Spool(spool::Spool),
    Completions(completions::Completions),
    Man(completions::Man),
}

/// Parses the arguments, runs the verb and returns the exit status.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.get(ContextKind::InvalidArg) == Some(&ContextValue::String("--version".to_owned())) => {
            // clap knows the flag before the verb only.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), Cli::command().render_long_version().as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // Ignore a failed write: a reader may close the pipe before the end of the help text.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match cli.verb {
        Verb::Run(run) => run.run(&cli.common),
        Verb::Get(mut get) => archived::run(&mut get, &cli.common),
        Verb::Flows(mut flows) => archived::run(&mut flows, &cli.common),
        Verb::Hunt(mut hunt) => archived::run(&mut hunt, &cli.common),
        Verb::Files(mut files) => archived::run(&mut files, &cli.common),
        Verb::Status(status) => status.run(&cli.common),
        Verb::Ask(ask) => ask.run(&cli.common),
        Verb::Page(page) => page.run(&cli.common),
        Verb::Push(push) => push.run(&cli.common),
        Verb::Pin(pin) => pin.run(&cli.common),
        Verb::Replay(replay) => replay.run(&cli.common),
        Verb::Interfaces(interfaces) => interfaces.run(&cli.common),
        Verb::Extcap(extcap) => extcap.run(&cli.common),
        Verb::Evidence(evidence) => evidence.run(&cli.common),
        Verb::Certs(certs) => certs.run(&cli.common),
        Verb::Check(check) => check.run(&cli.common),
        Verb::WatchSockets => daemon::process_names::watch().map_err(Into::into),
        Verb::DecodeObjects(decode) => decode.run(&cli.common),
        Verb::SearchObjects(search) => search.run(&cli.common),
        Verb::ScanConfined(scan) => scan.run(&cli.common),
        Verb::Spool(spool) => spool.run(&cli.common),
        Verb::Completions(completions) => completions.run(&mut Cli::command()),
        Verb::Man(man) => man.run(&cli.common, Cli::command()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Prints the error and returns its exit status.
fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<ClosedPipe>() {
        return ExitCode::SUCCESS;
    }
    if error.is::<AlreadyReported>() {
        return ExitCode::FAILURE;
    }
    if error.is::<Incomplete>() {
        return ExitCode::from(3);
    }
    let mut sentence = error.to_string();
    // Most error messages already contain their cause; append only causes that are missing.
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    note(&format!("retrocap: {sentence}"));
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}
