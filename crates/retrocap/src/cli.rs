//! The command line: parses, calls, prints; it decides nothing about packets.
//!
//! What always holds: results go to stdout and everything else to stderr; exit 0 is done, 1 is "nothing matched" or
//! "failed", 2 is wrong usage; whoever closes the pipe has seen enough, which is success.

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

/// Records every interface of this host into a small fixed share of RAM, and gives the past back as pcapng.
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

/// What every verb takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Where the recorder listens [default: /run/retrocap/retrocap.sock]
    #[arg(long, global = true, value_name = "PATH", env = "RETROCAP_SOCKET", hide_env_values = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Ask a recorder on another machine, as in https://sensor1:57443; also $RETROCAP_REMOTE
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) remote: Option<String>,
    /// Certificates of the authority that the other side must have [default: ca.pem in $RETROCAP_CERTS or
    /// ~/.config/retrocap]
    #[arg(long, global = true, value_name = "FILE", env = "RETROCAP_CA", hide_env_values = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate to show the other side [default: client.pem there]
    #[arg(long, global = true, value_name = "FILE", env = "RETROCAP_CERT", hide_env_values = true)]
    pub(crate) cert: Option<PathBuf>,
    /// Private key to that certificate [default: client.key there]
    #[arg(long, global = true, value_name = "FILE", env = "RETROCAP_KEY", hide_env_values = true)]
    pub(crate) key: Option<PathBuf>,
    /// Give up when the recorder sends nothing for this long: 30s, 5m [default: 2m]
    #[arg(long, global = true, value_name = "DURATION", value_parser = timeout)]
    pub(crate) timeout: Option<Duration>,
    /// The last packet of the capture files that are asked instead of a recorder.
    #[arg(skip)]
    pub(crate) newest: Option<Timestamp>,
    /// Print JSON: one document, or one object a line where there are many
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

impl Common {
    /// Where the recorder listens unless something else is said.
    pub(crate) fn socket_default() -> PathBuf {
        PathBuf::from("/run/retrocap/retrocap.sock")
    }

    /// Where the recorder that is asked is: on a socket, or on another machine. What the command line says wins over
    /// the environment, and the environment's remote over its socket.
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
    /// Runs `verb` against the recorder, or against capture files where some are named.
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

    /// The time that spans are counted from: now, or the last packet of the capture files.
    pub(crate) fn now(&self) -> Timestamp {
        self.newest.unwrap_or_else(|| Timestamp::from(SystemTime::now()))
    }

    /// How long the recorder may send nothing.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT)
    }
}

impl Common {
    /// Where the certificates of a client are, as far as that is said. An empty name says nothing: dialogs send such.
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

/// Wrong usage: exit 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

impl Usage {
    /// A mistake of the user's, in the words of the error that found it.
    pub(crate) fn of(error: impl std::fmt::Display) -> anyhow::Error {
        Self(error.to_string()).into()
    }
}

/// What went wrong has been said already.
#[derive(Debug, thiserror::Error)]
#[error("already reported")]
pub(crate) struct AlreadyReported;

/// Parses the arguments, does what they say, and tells how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A help text nobody reads to its end is no failure.
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

/// Says what went wrong, and gives the exit code for it.
fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<ClosedPipe>() {
        return ExitCode::SUCCESS;
    }
    if error.is::<AlreadyReported>() {
        return ExitCode::FAILURE;
    }
    let mut sentence = error.to_string();
    // Most errors name their cause themselves.
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    note(&format!("retrocap: {sentence}"));
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}
