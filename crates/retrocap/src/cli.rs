//! The command line parses arguments, calls the verbs and prints results. It decides nothing about packets.
//!
//! Invariants: results go to stdout and everything else to stderr. Exit status 0 is success, 1 is "nothing matched" or
//! "failed", and 2 is wrong usage. A closed pipe is success, because its reader has seen enough.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand};

use crate::client::{Address, TIMEOUT_DEFAULT, remote, tls};
#[cfg(target_os = "linux")]
use crate::offline::Offline;
use crate::terminal::output::ClosedPipe;
use crate::verbs::{certs, check, completions, extcap, flows, get, interfaces, pin, push, replay, run, status};
use base::time::Timestamp;

pub(crate) use crate::terminal::printable::{note, print, print_csv, print_json, print_own};

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

/// Options that every verb accepts.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Socket of the recorder [default: /run/retrocap/retrocap.sock]
    #[arg(long, global = true, value_name = "PATH", env = "RETROCAP_SOCKET", hide_env_values = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Query a recorder on another machine, as in https://sensor1:57443; also $RETROCAP_REMOTE
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) remote: Option<String>,
    /// CA certificates that must have signed the other side's certificate [default: ca.pem in $RETROCAP_CERTS or
    /// ~/.config/retrocap]
    #[arg(long, global = true, value_name = "FILE", env = "RETROCAP_CA", hide_env_values = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate to present to the other side [default: client.pem there]
    #[arg(long, global = true, value_name = "FILE", env = "RETROCAP_CERT", hide_env_values = true)]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of that certificate [default: client.key there]
    #[arg(long, global = true, value_name = "FILE", env = "RETROCAP_KEY", hide_env_values = true)]
    pub(crate) key: Option<PathBuf>,
    /// Give up when the recorder sends nothing for this long: 30s, 5m [default: 2m]
    #[arg(long, global = true, value_name = "DURATION", value_parser = timeout)]
    pub(crate) timeout: Option<Duration>,
    /// Time of the newest packet in the capture files, when a verb reads files instead of querying a recorder.
    #[arg(skip)]
    pub(crate) newest: Option<Timestamp>,
    /// Print JSON: one document, or one object per line for listings
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print more messages; twice for all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

impl Common {
    /// The recorder's default socket.
    pub(crate) fn socket_default() -> PathBuf {
        PathBuf::from("/run/retrocap/retrocap.sock")
    }

    /// The recorder to query: a Unix socket or a remote URL. The command line takes precedence over the environment,
    /// and `RETROCAP_REMOTE` over `RETROCAP_SOCKET`.
    pub(crate) fn socket(&self) -> Address {
        let variable = std::env::var("RETROCAP_REMOTE").ok().filter(|url| !url.is_empty());
        let said = self.socket.is_some() && self.socket != std::env::var_os("RETROCAP_SOCKET").map(PathBuf::from);
        let url = self.remote.clone().filter(|url| !url.is_empty()).or(variable.filter(|_| !said));
        match url {
            Some(url) => Address::Remote(Box::new(remote::Remote { url, files: self.files() })),
            None => Address::Socket(self.socket.clone().unwrap_or_else(Self::socket_default)),
        }
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match base::time::parse_duration(text) {
        Ok(timeout) if timeout > Duration::ZERO => Ok(timeout),
        Ok(_) => Err("nothing can be answered in no time: try 30s".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Common {
    /// Runs `verb` against the recorder, or against `files` if there are any.
    #[cfg(target_os = "linux")]
    pub(crate) fn reading(
        &self,
        files: &[PathBuf],
        verb: impl FnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if files.is_empty() {
            return verb(self);
        }
        let offline = Offline::start(files, self)?;
        let common =
            Self { socket: Some(offline.socket.clone()), remote: None, newest: offline.newest, ..self.clone() };
        offline.finish(verb(&common))
    }

    /// The time that relative times count from: the system clock, or the newest packet of the capture files.
    pub(crate) fn now(&self) -> Timestamp {
        self.newest.unwrap_or_else(|| Timestamp::from(SystemTime::now()))
    }

    /// How long to wait while the recorder sends nothing.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT)
    }
}

impl Common {
    /// The client's certificate files, as far as they are named. An empty path counts as unset, because Wireshark's
    /// dialog sends empty paths.
    pub(crate) fn files(&self) -> tls::CertificateFiles {
        let said = |file: &Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
        tls::CertificateFiles { ca: said(&self.ca), cert: said(&self.cert), key: said(&self.key) }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(run::Run),
    Get(get::Get),
    Flows(flows::Flows),
    Status(status::Status),
    Push(push::Push),
    Pin(pin::Pin),
    Replay(replay::Replay),
    Interfaces(interfaces::Interfaces),
    Extcap(extcap::Extcap),
    Certs(certs::Certs),
    Check(check::Check),
    Completions(completions::Completions),
    Man(completions::Man),
}

/// Wrong usage, which exits with status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

impl Usage {
    /// Wraps an error that a user's mistake caused. The message stays the same.
    pub(crate) fn of(error: impl std::fmt::Display) -> anyhow::Error {
        Self(error.to_string()).into()
    }
}

/// An error that was printed already. The exit status is 1.
#[derive(Debug, thiserror::Error)]
#[error("already reported")]
pub(crate) struct AlreadyReported;

/// Parses the arguments, runs the verb and returns the exit status.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Ignore a failed write: a reader may close the pipe before the end of the help text.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match cli.verb {
        Verb::Run(run) => run.run(&cli.common),
        Verb::Get(get) => get.run(&cli.common),
        Verb::Flows(flows) => flows.run(&cli.common),
        Verb::Status(status) => status.run(&cli.common),
        Verb::Push(push) => push.run(&cli.common),
        Verb::Pin(pin) => pin.run(&cli.common),
        Verb::Replay(replay) => replay.run(&cli.common),
        Verb::Interfaces(interfaces) => interfaces.run(&cli.common),
        Verb::Extcap(extcap) => extcap.run(&cli.common),
        Verb::Certs(certs) => certs.run(&cli.common),
        Verb::Check(check) => check.run(&cli.common),
        Verb::Completions(completions) => completions.run(&cli.common),
        Verb::Man(man) => man.run(&cli.common),
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
