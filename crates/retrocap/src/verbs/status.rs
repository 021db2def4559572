//! `retrocap status`: shows what is kept, how far back, and what was lost and why.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use jiff::tz::TimeZone;

use crate::client;
use crate::offline;
use crate::options::Common;
use crate::terminal::printable::{print, print_json, print_own};
use crate::terminal::screen::Screen;
use crate::terminal::status_page::{self, Heading, View};
use api::path;
use base::time::Timestamp;
use query::status::Status as Document;

/// Interval of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Moves the cursor to the upper left corner and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show what is kept, how far back, and what was lost and why
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap status                              at a glance
  retrocap status --watch                      once a second, until Ctrl-C
  retrocap status --json | jq .retained.oldest    for scripts")]
pub(crate) struct Status {
    /// Show the status of this capture file instead of a recorder; may be repeated
    #[arg(short, long, value_name = "FILE", conflicts_with = "watch")]
    read: Vec<PathBuf>,
    /// Update every second
    #[arg(short, long)]
    watch: bool,
}

impl Status {
    /// Queries and prints the status, once or until Ctrl-C.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        offline::reading(common, &self.read, |common| self.ask(common))
    }

    fn ask(&self, common: &Common) -> anyhow::Result<()> {
        if !self.watch {
            return show(common);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let clear = if std::io::stdout().is_terminal() && !common.json { CLEAR } else { "" };
        // Use one signal future for all rounds, so that an interrupt during a query counts in the next pause.
        let mut interrupt = Box::pin(tokio::signal::ctrl_c());
        loop {
            print_own(clear)?;
            show(common)?;
            let ended = runtime.block_on(async {
                tokio::select! {
                    interrupted = &mut interrupt => interrupted.map(|()| true),
                    () = tokio::time::sleep(WATCH_EVERY) => Ok(false),
                }
            });
            if ended? {
                return Ok(());
            }
        }
    }
}

/// Prints the status document, or the page for people.
fn show(common: &Common) -> anyhow::Result<()> {
    let document = client::get(common, path::STATUS)?.document()?;
    if common.json {
        return print_json(&format!("{}\n", document.trim_end()));
    }
    let status: Document = serde_json::from_str(&document).context("the recorder has another version")?;
    let heading = match common.newest {
        Some(_) if common.in_part => Heading::ReplayedInPart,
        Some(_) => Heading::Replayed,
        None => Heading::Recording { now: Timestamp::from(SystemTime::now()) },
    };
    print(&status_page::status(&status, &here(heading)))
}

/// The view for this terminal.
pub(crate) fn here(heading: Heading) -> View {
    View { heading, screen: Screen::stdout(), tz: TimeZone::system() }
}
