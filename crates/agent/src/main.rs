//! `retrocap-agent`: recorders that nobody can connect to, because they are behind NAT or a firewall, dial out to a NATS
//! server and answer questions from there.
//!
//! ```text
//! asker ── publish retrocap.SITE.ROLE ──► NATS ──► agent ── HTTP over the Unix socket ──► recorder
//!       ◄─ one reply each, ≤ 256 KiB ────      ◄──
//!       ◄─ packets, as objects of a JetStream bucket ◄─
//! ```
//!
//! It is a program of its own, so that the recorder has no further dependency and opens no connection. NATS decides who may
//! publish to which subject, so roles are permissions of subjects; an agent refuses a question of another role than its
//! subject's, and every role that it does not serve. The recorder's audit log has each read of packets, by the agent's user; the agent's
//! log has who asked, as far as the question says.
#![forbid(unsafe_code)]

mod asking;
mod connection;
mod question;
mod recorder;
mod reply;
mod serving;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Connects a recorder behind NAT to a NATS server, and asks all recorders that are connected.
#[derive(Debug, Parser)]
#[command(name = "retrocap-agent", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    server: connection::ServerArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(serving::Serve),
    Ask(asking::Ask),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).with_ansi(false).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("retrocap-agent: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match cli.verb {
            Verb::Serve(serve) => serve.run(&cli.server).await.map(|()| ExitCode::SUCCESS),
            Verb::Ask(ask) => ask.run(&cli.server).await,
        }
    });
    done.unwrap_or_else(|error| {
        eprintln!("retrocap-agent: {error:#}");
        ExitCode::FAILURE
    })
}
