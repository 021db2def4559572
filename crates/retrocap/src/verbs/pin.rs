//! `retrocap pin`: keeps all packets of the sessions that match a filter, for a time.

use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use hyper::Method;
use jiff::tz::TimeZone;

use crate::client;
use crate::error::Usage;
use crate::options::Common;
use crate::terminal::printable::{note, print, print_json};
use crate::terminal::progress::{Progress, ProgressState};
use crate::verbs::selection;
use api::answers::{PinList, PinStatus};
use api::bodies::NewPin;
use api::path;
use api::question::UnpinQuestion;
use base::foreign::Foreign;
use base::time::{self, Timestamp};
use engine::budget::ByteSize;
use query::counted;

/// Keep all packets of the sessions that match a filter, for a time
///
/// A pin keeps the packets that are still there and those that follow, of every session with a packet that matches. While
/// a pin tests flags, lengths or payload, the recorder tests every packet. All pins together hold up to a quarter of the
/// recorder's memory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap pin host 10.0.0.5 --for 2h     keep everything of one host
  retrocap pin 'tcp[13] & 4 != 0' --for 1h    sessions that were or will be reset
  retrocap pin --list                     what is pinned, and until when
  retrocap pin --remove 3                 remove a pin")]
pub(crate) struct Pin {
    /// Time to keep them: 30m, 2h, 3 days
    #[arg(long = "for", value_name = "DURATION", requires = "expression")]
    duration: Option<String>,
    /// List the pins
    #[arg(long, conflicts_with_all = ["remove", "expression"])]
    list: bool,
    /// Remove the pin with this ID
    #[arg(long, value_name = "ID", conflicts_with = "expression")]
    remove: Option<u64>,
    /// tcpdump expression, as in: host 10.0.0.5
    #[arg(value_name = "EXPR", allow_negative_numbers = true)]
    expression: Vec<String>,
}

impl Pin {
    /// Creates, lists or removes pins, and prints the answer.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        if let Some(id) = self.remove {
            client::ask(common, Method::DELETE, &UnpinQuestion { id: Some(id) }.target(), None)?.document()?;
            note(&format!("pin {id} is removed; what it held ages from now on"));
            return Ok(());
        }
        if self.list {
            let document = client::get(common, path::PINS)?.document()?;
            return if common.json { print_line(&document) } else { print(&list(&read(&document)?)) };
        }
        let (Some(expression), Some(duration)) = (selection::translated(self.expression.join(" "))?, &self.duration)
        else {
            return Err(Usage::of(
                "what to pin, and for how long? try retrocap pin host 10.0.0.5 --for 2h, or retrocap pin --list",
            ));
        };
        let duration = time::parse_duration(duration).map_err(Usage::of)?;
        let body = serde_json::to_string(&NewPin { filter: expression, for_s: duration.as_secs_f64(), hunt: false })?;
        // The recorder searches all known sessions, which may take a while.
        let _searching = Progress::start(common, ProgressState::default);
        let document = client::ask(common, Method::POST, path::PINS, Some(body))?.document()?;
        if common.json {
            return print_line(&document);
        }
        let pin: PinStatus = read(&document)?;
        print(&made(&pin))?;
        if let Some(text) = pin.note.as_ref().filter(|_| !common.quiet) {
            note(&format!("retrocap: {}", text.terminal()));
        }
        Ok(())
    }
}

fn print_line(document: &str) -> anyhow::Result<()> {
    print_json(&format!("{}\n", document.trim_end()))
}

fn read<T: serde::de::DeserializeOwned>(document: &str) -> anyhow::Result<T> {
    serde_json::from_str(document).context("the recorder has another version")
}

fn made(pin: &PinStatus) -> String {
    format!("pin {}: {} is kept whole until {}; {}\n", pin.id, pin.filter.terminal(), local(&pin.until), kept(pin))
}

fn kept(pin: &PinStatus) -> String {
    let sessions = if pin.sessions == 1 { "session has" } else { "sessions have" };
    let packets = if pin.kept_packets == 1 { "packet" } else { "packets" };
    format!("{} {sessions} {} {packets} there, {}", pin.sessions, pin.kept_packets, ByteSize(pin.kept_bytes))
}

pub(crate) fn list(list: &PinList) -> String {
    let mut text =
        format!("pins hold {} of the {} they may take\n", ByteSize(list.used_bytes), ByteSize(list.limit_bytes));
    for pin in &list.pins {
        text += &format!("{:>3}  until {}  {}\n     {}", pin.id, local(&pin.until), pin.filter.terminal(), kept(pin));
        if pin.refused_packets > 0 {
            text += &format!(
                "; {} no room, and age like others",
                counted(pin.refused_packets, "packet found", "packets found")
            );
        }
        text.push('\n');
    }
    text
}

/// Formats a time in the local time zone, with the time left until then.
fn local(text: &Foreign) -> String {
    let Ok(at) = text.untrusted().parse::<jiff::Timestamp>() else { return text.terminal().to_string() };
    let now = Timestamp::from(SystemTime::now());
    let left_s = u64::try_from(at.as_second()).unwrap_or(0).saturating_sub(now.0 / 1_000_000_000);
    let left = match left_s {
        0..120 => format!("{left_s} s"),
        120..7200 => format!("{} min", left_s / 60),
        7200..172_800 => format!("{} h", left_s / 3600),
        _ => format!("{} days", left_s / 86_400),
    };
    format!("{} ({left})", at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z"))
}
