//! `retrocap-archive`: copies a spool and its log of sessions to S3-compatible storage or to a directory, and reads windows of it back.
//!
//! ```text
//! spool ──► copy ──► packets/…  sessions/…  catalogue/…  removed/…  ──► fetch ──► a spool for `retrocap get`
//!                    (key.rs)                                       ──► databases, which read sessions/ as it lies
//!                       verify reads all of it back, expire removes what is old
//! ```
//!
//! It is a program of its own, so that the recorder has no further dependency and opens no connection. It reads the spool's files
//! and nothing else: it needs no recorder.
//!
//! Invariants:
//!
//! - No object is ever overwritten, and an object appears whole or not at all.
//! - Nothing is remembered on this side: every command can be interrupted anywhere and repeated.
//! - What is removed is noted before, and its description stays.
#![forbid(unsafe_code)]

mod archive_args;
mod copy;
mod credentials;
mod encryption;
mod expire;
mod fetch;
mod inventory;
mod key;
mod list;
mod report;
mod sidecar;
mod source;
mod store;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Keeps a spool and its log of sessions in S3-compatible storage or in a directory, and reads windows of it back
#[derive(Debug, Parser)]
#[command(
    name = "retrocap-archive",
    version,
    max_term_width = 110,
    after_help = "\
Credentials and the server are read from where AWS tools have them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the files \
that AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name (~/.aws/credentials and ~/.aws/config) with AWS_PROFILE; AWS_REGION, \
AWS_ENDPOINT_URL, AWS_CA_BUNDLE.

Examples:
  retrocap-archive copy s3://traffic/eu                       copy what is new
  retrocap-archive list s3://traffic/eu                       what is there, by recorder and class
  retrocap-archive verify s3://traffic/eu --since 7d          read it back
  retrocap get --archive s3://traffic/eu --since 2026-11-01 --until 2026-11-02 host 192.0.2.7"
)]
struct Cli {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Copy(copy::Copy),
    List(list::List),
    Fetch(fetch::Fetch),
    Verify(verify::Verify),
    Expire(expire::Expire),
    Keygen(Keygen),
}

/// Make a key to encrypt with: the private key goes to a file, and the public one is printed
#[derive(Debug, Args)]
struct Keygen {
    /// File for the private key, which must not be there yet. Keep it away from the recorders
    file: PathBuf,
}

fn main() -> ExitCode {
    // Objects in a directory are packets: for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let cli = Cli::parse();
    // The only provider of cryptography; there is none before, so that this cannot fail.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("retrocap-archive: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match cli.verb {
            Verb::Copy(copy) => copy.run(cli.json).await,
            Verb::List(list) => list.run(cli.json).await,
            Verb::Fetch(fetch) => fetch.run(cli.json).await,
            Verb::Verify(verify) => verify.run(cli.json).await,
            Verb::Expire(expire) => expire.run(cli.json).await,
            Verb::Keygen(keygen) => encryption::generate(&keygen.file).map(|public| report::print(&public)),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("retrocap-archive: {error:#}");
            ExitCode::FAILURE
        }
    }
}
