//! `retrocap status`: what is kept, how far back, what was lost and why.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use jiff::tz::TimeZone;

use crate::cli::{Common, print, print_json, print_own};
use crate::client::{self, Target};
use crate::terminal::screen::Screen;
use crate::terminal::status_page::{self, Heading, View};
use base::time::Timestamp;
use query::status::Status as Document;

/// How long `--watch` shows the same.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// To the upper left corner, and away with everything.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is kept, how far back, what was lost and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap status                              at a glance
  retrocap status --watch                      once a second, until Ctrl-C
  retrocap status --json | jq .retained.oldest    for scripts")]
pub(crate) struct Status {
    /// Show what capture files hold, instead of a recorder; may be repeated
    #[arg(short, long, value_name = "FILE", conflicts_with = "watch")]
    read: Vec<PathBuf>,
    /// Again each second
    #[arg(short, long)]
    watch: bool,
}

impl Status {
    /// Asks and shows, once or until Ctrl-C.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        common.reading(&self.read, |common| self.ask(common))
    }

    fn ask(&self, common: &Common) -> anyhow::Result<()> {
        if !self.watch {
            return show(common);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let clear = if std::io::stdout().is_terminal() && !common.json { CLEAR } else { "" };
        // One for all rounds: an interrupt that comes while the recorder is asked counts in the next pause.
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

/// Prints the status document, or the page that people read.
fn show(common: &Common) -> anyhow::Result<()> {
    let document = client::get(common, &Target::new("/v1/status"))?.document()?;
    if common.json {
        return print_json(&format!("{}\n", document.trim_end()));
    }
    let status: Document = serde_json::from_str(&document).context("the recorder speaks another version")?;
    let heading = match common.newest {
        Some(_) => Heading::Replayed,
        None => Heading::Recording { now: Timestamp::from(SystemTime::now()) },
    };
    print(&status_page::status(&status, &here(heading)))
}

/// How this terminal shows things.
pub(crate) fn here(heading: Heading) -> View {
    View { heading, screen: Screen::stdout(), tz: TimeZone::system() }
}
