//! Entry points to the parsers of untrusted input, for fuzz targets and for the tests of their seeds.
//!
//! Arguments also come from Wireshark's dialog, alerts from other tools and configurations from packages, and an
//! attacker may control a remote recorder. Invariants: no input makes the program panic, and nothing that is printed
//! for people moves a terminal's cursor.

use std::ffi::OsString;
use std::io::Read as _;
use std::sync::Arc;

use clap::Parser as _;
use jiff::tz::TimeZone;

use crate::alert::Alert;
use crate::cli::{Cli, Verb};
use crate::client;
use crate::terminal::listing_totals::ListingTotals;
use crate::terminal::printable;
use crate::terminal::screen::Screen;
use crate::terminal::session_tables::{RowWriter, SessionRows, SumRows};
use crate::terminal::status_page;
use crate::terminal::status_page::{Heading, View};
use crate::verbs::get::alert_files;
use crate::verbs::get::alerts;
use crate::verbs::pin;
use crate::verbs::selection;
use base::time::Timestamp;
use daemon::settings::{FileMistake, Settings};
use engine::judge::Class;
use query::sums::By;

const PLAIN: Screen = Screen { width: Some(80), colour: false };

/// Parses arguments, of which the first is the program's name. Returns the request target of a verb that has one.
///
/// # Errors
///
/// What is wrong with the input.
pub fn arguments(words: Vec<OsString>, now: Timestamp) -> Result<Option<String>, String> {
    let tz = TimeZone::UTC;
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    let target = match &cli.verb {
        Verb::Get(get) => get.question(now, &tz).map(|question| Some(question.target())),
        Verb::Flows(flows) => flows.target(now, &tz).map(Some),
        Verb::Extcap(extcap) => extcap.target().map(Some),
        _ => Ok(None),
    };
    target.map_err(|error: anyhow::Error| error.to_string())
}

/// Parses a configuration. Returns its classes.
///
/// # Errors
///
/// All mistakes, each with its line number and message.
pub fn configuration(text: &str) -> Result<Vec<Class>, Vec<(usize, String)>> {
    let mistakes =
        |mistakes: Vec<FileMistake>| mistakes.into_iter().map(|mistake| (mistake.line, mistake.text)).collect();
    Settings::read(text).map(|settings| settings.classes).map_err(mistakes)
}

/// The name of the file with an alert's packets.
pub fn alert_file(alert: &Alert) -> String {
    alert_files::file_name(alert, "pcapng")
}

/// Checks a filter expression as the command line does.
///
/// # Errors
///
/// What is wrong with the input.
pub fn expression(text: &str) -> Result<(), String> {
    selection::expression(&[text.to_owned()]).map(|_| ()).map_err(|error| error.to_string())
}

/// Formats a recorder's status for people; `None` if the document is no status.
pub fn status(document: &str, now: Timestamp) -> Option<String> {
    let status = serde_json::from_str(document).ok()?;
    Some(status_page::status(&status, &View { heading: Heading::Recording { now }, screen: PLAIN, tz: TimeZone::UTC }))
}

/// Formats a recorder's pins for people; `None` if the document is no list of pins.
pub fn pins(document: &str) -> Option<String> {
    Some(pin::list(&serde_json::from_str(document).ok()?))
}

/// Formats a recorder's refusal as a sentence.
pub fn refusal(document: &str) -> String {
    printable::plain_lines(&client::refused(hyper::StatusCode::BAD_REQUEST, document).to_string()).into_owned()
}

/// Formats a recorder's sessions and sums up to the first bad line: sessions as a table and as CSV, then sums as a
/// table and as CSV.
pub fn listing(lines: &str) -> [String; 4] {
    let all: [Box<dyn Fn() -> Box<dyn RowWriter>>; 4] = [
        Box::new(|| Box::new(SessionRows::new(PLAIN, TimeZone::UTC, false))),
        Box::new(|| Box::new(SessionRows::new(PLAIN, TimeZone::UTC, true))),
        Box::new(|| Box::new(SumRows::new(PLAIN, TimeZone::UTC, false, By::Peer))),
        Box::new(|| Box::new(SumRows::new(PLAIN, TimeZone::UTC, true, By::Peer))),
    ];
    all.map(|shown| {
        let (mut shown, mut out) = (shown(), String::new());
        let read = lines.lines().try_for_each(|line| shown.line(&mut out, line));
        let _ = (read, shown.end(&mut out, ListingTotals::default()));
        out
    })
}

/// Reads a recorder's merged answer to `asked` selections. Returns the capture file in it.
///
/// # Errors
///
/// When the answer is damaged.
pub fn selections(answer: &[u8], asked: usize) -> std::io::Result<Vec<u8>> {
    let mut file = Vec::new();
    alerts::merged::MergedReader::new(answer, asked, Arc::default()).read_to_end(&mut file)?;
    Ok(file)
}
