//! `retrocap get --alert`: gets the packets of the sessions that a file of alerts names.
//!
//! This module reads alerts, queries the recorder in batches, and writes one file for all, or one file per alert and a
//! manifest. A broken line is reported with its number. It does not affect other alerts, only the exit status.

pub(crate) mod merged;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use clap::Args;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::alert::{Alert, Alerts, Kind};
use crate::client::{self, Answer, RefusedRequest};
use crate::options::Common;
use crate::terminal::destination;
use crate::terminal::human;
use crate::terminal::output::{FileMode, Output};
use crate::terminal::printable::{note, print_json};
use crate::terminal::progress::{Progress, ProgressCounts};
use crate::verbs::get::alert_files::AlertFiles;
use crate::verbs::selection;
use api::answers::NotOpened;
use api::bodies::{Arrangement, FilePrecision, Selection, SelectionList};
use api::path;
use api::value::ParameterValue as _;
use base::foreign::Foreign;
use base::time::Timestamp;
use formats::writer::Format;
use query::search::SearchTarget;

/// Alerts per request when each gets a file; fewer if the recorder lacks memory.
const BATCH_ALERTS: usize = 1000;
/// Maximum bytes of the outcome of an alert, on average.
const OUTCOME_BYTES_MAX: u64 = 1024;
/// Bytes of outcomes that are allowed for any number of alerts.
const OUTCOMES_BYTES_MIN: u64 = 64 << 10;
/// Maximum number of alerts without packets, and of broken lines, that are listed on the terminal.
const MESSAGES_MAX: usize = 20;

/// Options for alerts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Alerts")]
pub(crate) struct AlertArgs {
    /// Get the sessions that the alerts in this file name, - for stdin: Suricata EVE, Zeek conn.log or notice.log (TSV
    /// or JSON), Sysmon event 3 as JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["since", "until", "around", "community_id", "flow", "address", "port", "count", "whole_sessions"])]
    pub(crate) alert: Option<PathBuf>,
    /// Margin before an alert: a session may have ended this long before it [default: 5s; Sysmon 20s]
    #[arg(long, value_name = "DURATION", requires = "alert", value_parser = selection::duration)]
    before: Option<Duration>,
    /// Margin after an alert: a session may have begun this long after it [default: 5s; Sysmon 20s]
    #[arg(long, value_name = "DURATION", requires = "alert", value_parser = selection::duration)]
    after: Option<Duration>,
    /// Use all Suricata events that name a session, not only alerts: flow, dns, http and others
    #[arg(long, requires = "alert")]
    all_events: bool,
    /// Only packets within these margins, not the whole sessions
    #[arg(long, requires = "alert")]
    only_margins: bool,
    /// Write one file per alert to this directory, and manifest.jsonl, which lists what is missing and why
    #[arg(long, value_name = "DIR", requires = "alert", conflicts_with = "write")]
    pub(crate) split: Option<PathBuf>,
}

/// Options that apply to all alerts.
pub(crate) struct ExportOptions {
    pub(crate) filter: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) seed: Option<u16>,
    pub(crate) format: Format,
    pub(crate) precision: FilePrecision,
    pub(crate) mode: FileMode,
}

/// Alerts that were read, and the options to query them with.
pub(crate) struct AlertQuery<'a> {
    args: &'a AlertArgs,
    asked: ExportOptions,
    common: &'a Common,
    source: String,
    read: Alerts,
    counts: Arc<ProgressCounts>,
}

/// The outcome of an alert, as the service reports it.
#[derive(Clone, Debug, Default, Deserialize)]
struct Outcome {
    selection: usize,
    packets: u64,
    bytes: u64,
    first: Option<String>,
    last: Option<String>,
    sessions: u64,
    same_as: Option<usize>,
    missing: Option<Missing>,
    /// Whether the service was queried.
    #[serde(skip)]
    asked: bool,
}

/// The reason why packets of an alert are missing.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Missing {
    cause: Foreign,
    detail: Foreign,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    horizon: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    not_opened: Vec<NotOpened>,
}

/// Reads the outcomes of alerts. All outcomes stay in memory until the end, so that their total size has a limit.
#[derive(Debug, Default)]
struct OutcomeReader {
    held_bytes: u64,
}

impl OutcomeReader {
    fn outcome(&mut self, line: &str, alerts: usize) -> anyhow::Result<Outcome> {
        self.held_bytes += line.len() as u64;
        let most = OUTCOME_BYTES_MAX.saturating_mul(alerts as u64).max(OUTCOMES_BYTES_MIN);
        if self.held_bytes > most {
            return Err(anyhow!("the recorder says more than {most} bytes about {alerts} alerts"));
        }
        serde_json::from_str(line).context("the recorder has another version")
    }
}

/// A line of the service's answer.
#[derive(Debug, Deserialize)]
struct Line {
    selection: Option<usize>,
    data: Option<String>,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    packets: u64,
    /// The part of the search that is done, 0 to 1.
    part: Option<f64>,
    #[serde(default)]
    note: Foreign,
}

impl<'a> AlertQuery<'a> {
    /// Reads the alerts.
    pub(crate) fn read(args: &'a AlertArgs, asked: ExportOptions, common: &'a Common) -> anyhow::Result<Option<Self>> {
        let Some(path) = &args.alert else { return Ok(None) };
        let source = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        let read = if path == Path::new("-") {
            Alerts::read_events(std::io::stdin().lock(), args.all_events)
        } else {
            let file = File::open(path).with_context(|| format!("cannot read {source}"))?;
            Alerts::read_events(BufReader::with_capacity(256 << 10, file), args.all_events)
        };
        let read = read.map_err(|why| anyhow!("cannot read alerts from {source}: {why}"))?;
        let job = Self { args, asked, common, source, read, counts: Arc::default() };
        job.report_broken();
        if job.read.alerts.is_empty() {
            let passed = job.read.passed_over;
            let others = job.read.other_events;
            return Err(match job.read.broken_count {
                0 if others > 0 => anyhow!(
                    "{}: none of its events is an alert; --all-events takes the {others} others that name a session",
                    job.source
                ),
                0 if passed > 0 => anyhow!("{}: none of its {passed} events names a session", job.source),
                0 => anyhow!("{}: it contains no alert", job.source),
                broken => anyhow!("{}: no alert could be read, {broken} lines are broken", job.source),
            });
        }
        Ok(Some(job))
    }

    /// Queries sessions that were found otherwise, without a file of alerts.
    pub(crate) fn of_sessions(args: &'a AlertArgs, asked: ExportOptions, common: &'a Common, sessions: Alerts) -> Self {
        Self { args, asked, common, source: "the sessions found".to_owned(), read: sessions, counts: Arc::default() }
    }

    fn report_broken(&self) {
        for (line, why) in self.read.broken.iter().take(MESSAGES_MAX) {
            note(&format!("retrocap: {} line {line}: {why}", self.source));
        }
        let more = self.read.broken_count.saturating_sub(MESSAGES_MAX as u64);
        if more > 0 {
            note(&format!("retrocap: {}: {more} more lines are broken", self.source));
        }
        if self.read.cut {
            note(&format!("retrocap: {}: only the first {} alerts are queried", self.source, self.read.alerts.len()));
        }
        if self.read.other_events > 0 && !self.common.quiet {
            let (events, source) = (human::counted(self.read.other_events, "event"), &self.source);
            note(&format!("retrocap: {source}: left out {events} of other kinds; --all-events takes all"));
        }
        if self.read.passed_over > 0 && self.common.verbose > 0 {
            note(&format!("{}: {} events name no session", self.source, self.read.passed_over));
        }
    }

    /// The time window of an alert with its margins.
    fn window(&self, alert: &Alert) -> (Timestamp, Timestamp) {
        let default = match alert.kind {
            Kind::Session => Duration::ZERO,
            Kind::Sysmon => Duration::from_secs(20),
            Kind::Suricata | Kind::Zeek => Duration::from_secs(5),
        };
        (
            alert.start.saturating_sub(self.args.before.unwrap_or(default)),
            alert.end.saturating_add(self.args.after.unwrap_or(default)),
        )
    }

    fn body(&self, answer: Arrangement, alerts: &[usize]) -> anyhow::Result<String> {
        let selections = alerts.iter().map(|&at| {
            let alert = &self.read.alerts[at];
            let (since, until) = self.window(alert);
            let (since, until) = (Some(since.to_rfc3339()), Some(until.to_rfc3339()));
            let selection = Selection { since, until, ..Selection::default() };
            match &alert.names {
                SearchTarget::Flow(flow) => Selection { flow: Some(flow.to_string()), ..selection },
                SearchTarget::Host(host) => Selection { host: Some(*host), ..selection },
                SearchTarget::CommunityId(id) => Selection { community_id: Some(id.to_string()), ..selection },
            }
        });
        Ok(serde_json::to_string(&SelectionList {
            selections: selections.collect(),
            answer,
            whole_sessions: !self.args.only_margins,
            community_id_seed: self.asked.seed,
            filter: self.asked.filter.clone().unwrap_or_default(),
            interface: self.asked.interface.clone(),
            format: self.asked.format.into(),
            precision: self.asked.precision,
        })?)
    }

    fn ask(&self, answer: Arrangement, alerts: &[usize]) -> anyhow::Result<Answer> {
        client::ask(self.common, Method::POST, path::PACKETS, Some(self.body(answer, alerts)?))
    }

    /// Shows the progress line until it is dropped.
    pub(crate) fn progress(&self) -> Progress {
        let counts = Arc::clone(&self.counts);
        Progress::start(self.common, move || counts.done())
    }

    /// Writes one file per alert.
    pub(crate) fn split(self, directory: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let directory = &destination::resolve(directory)?;
        let progress = self.progress();
        let mut files = AlertFiles::new(directory, &self.read.alerts, &self.asked.format.write(), self.asked.mode)?;
        let mut outcomes: Vec<Outcome> = vec![Outcome::default(); self.read.alerts.len()];
        let mut order: Vec<usize> = (0..self.read.alerts.len()).collect();
        // Put alerts of one session into one batch, so that their file is made once.
        let key = |at: &usize| (self.read.alerts[*at].names.to_string(), self.read.alerts[*at].start, *at);
        order.sort_by_cached_key(key);
        let (mut rest, mut batch_max, mut note_text) = (&order[..], BATCH_ALERTS, Foreign::default());
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_max.min(rest.len()));
            let answer = match self.ask(Arrangement::Split, batch) {
                Err(error)
                    if batch.len() > 1
                        && error
                            .downcast_ref::<RefusedRequest>()
                            .is_some_and(|refused| refused.status == StatusCode::PAYLOAD_TOO_LARGE) =>
                {
                    batch_max = batch.len() / 2;
                    continue;
                }
                answer => answer?,
            };
            self.batch(answer, batch, &mut files, &mut outcomes, &mut note_text)?;
            rest = after;
        }
        drop(progress);
        files.link_equal(outcomes.iter().map(|outcome| outcome.same_as))?;
        files.finish()?;
        self.manifest(directory, &outcomes, &files.names)?;
        let count = outcomes.iter().filter(|outcome| outcome.packets > 0).count();
        let summary = format!("{} and manifest.jsonl", human::counted(count as u64, "file"));
        self.end(&outcomes, &format!("{summary} -> {}", directory.display()), &note_text, Some(directory))
    }

    fn batch(
        &self,
        answer: Answer,
        batch: &[usize],
        files: &mut AlertFiles,
        outcomes: &mut [Outcome],
        note_text: &mut Foreign,
    ) -> anyhow::Result<()> {
        let asked_before = outcomes.iter().filter(|outcome| outcome.asked).count();
        let mut lines = BufReader::with_capacity(64 << 10, answer);
        let (mut text, mut done, mut read) = (String::new(), false, OutcomeReader::default());
        while client::next_line(&mut lines, &mut text, client::PIECE_LINE_BYTES_MAX)? {
            let line: Line = serde_json::from_str(&text).context("the recorder has another version")?;
            let alert = line.selection.and_then(|selection| batch.get(selection)).copied();
            match (alert, line.data) {
                (Some(alert), Some(data)) => {
                    let data = decoded(&data)?;
                    let part = line.part.unwrap_or_default();
                    self.counts.add(line.packets, data.len() as u64, self.part(asked_before, batch.len(), part));
                    files.write(alert, &data)?;
                }
                (Some(alert), None) => {
                    let mut outcome = read.outcome(&text, batch.len())?;
                    outcome.same_as = outcome.same_as.and_then(|other| batch.get(other)).copied();
                    (outcome.selection, outcome.asked) = (alert, true);
                    outcomes[alert] = outcome;
                }
                _ => {
                    done |= line.done;
                    if !line.note.untrusted().is_empty() {
                        *note_text = line.note;
                    }
                }
            }
        }
        if done { Ok(()) } else { Err(anyhow!("the recorder ended its answer early; ask again")) }
    }

    /// The part of all alerts that is done: `before` alerts of earlier batches, and `part` of a batch of `batch`
    /// alerts.
    #[expect(clippy::cast_precision_loss, reason = "numbers of alerts")]
    fn part(&self, before: usize, batch: usize, part: f64) -> f64 {
        (before as f64 + batch as f64 * part) / self.read.alerts.len().max(1) as f64
    }

    fn manifest(&self, directory: &Path, outcomes: &[Outcome], names: &[String]) -> anyhow::Result<()> {
        let mut output = Output::open(&directory.join("manifest.jsonl"), self.asked.mode)?;
        let mut rows: Vec<(u64, Value)> = Vec::with_capacity(outcomes.len());
        for ((alert, outcome), name) in self.read.alerts.iter().zip(outcomes).zip(names) {
            rows.push((
                alert.line,
                json!({
                    "alert": self.described(alert),
                    "file": (outcome.packets > 0).then_some(name),
                    "packets": outcome.packets,
                    "bytes": outcome.bytes,
                    "first": outcome.first,
                    "last": outcome.last,
                    "sessions": outcome.sessions,
                    "missing": outcome.missing,
                }),
            ));
        }
        for (line, why) in &self.read.broken {
            let missing = json!({"cause": "broken_line", "detail": why});
            let alert = json!({"source": self.source, "line": line});
            rows.push((*line, json!({"alert": alert, "file": null, "packets": 0, "bytes": 0, "missing": missing})));
        }
        rows.sort_by_key(|(line, _)| *line);
        for (_, row) in rows {
            output.buffer().extend_from_slice(row.to_string().as_bytes());
            output.buffer().push(b'\n');
            output.write_some()?;
        }
        output.finish()?;
        Ok(())
    }

    fn described(&self, alert: &Alert) -> Value {
        let key = match alert.names {
            SearchTarget::Flow(_) => "flow",
            SearchTarget::Host(_) => "host",
            SearchTarget::CommunityId(_) => "community_id",
        };
        let (since, until) = self.window(alert);
        json!({
            "source": self.source, "line": alert.line, "kind": alert.kind.as_str(), "name": alert.name, "id": alert.id,
            "time": alert.start, key: alert.names.to_string(), "since": since, "until": until,
        })
    }

    /// Prints the summary and what is missing. Returns an error if the exit status must be 1.
    fn end(
        &self,
        outcomes: &[Outcome],
        written: &str,
        note_text: &Foreign,
        directory: Option<&Path>,
    ) -> anyhow::Result<()> {
        let alerts = self.read.alerts.len();
        let without = outcomes.iter().filter(|outcome| outcome.packets == 0).count();
        let partly = outcomes.iter().filter(|outcome| outcome.packets > 0 && outcome.missing.is_some()).count();
        if !self.common.quiet {
            for outcome in outcomes.iter().filter(|outcome| outcome.missing.is_some()).take(MESSAGES_MAX) {
                let Some(alert) = self.read.alerts.get(outcome.selection) else { continue };
                let detail =
                    outcome.missing.as_ref().map(|missing| missing.detail.terminal().to_string()).unwrap_or_default();
                let (line, name) = (alert.line, Foreign::new(shortened(&alert.name)));
                note(&format!("retrocap: {} line {line} ({}): {detail}", self.source, name.terminal()));
            }
            let more = (without + partly).saturating_sub(MESSAGES_MAX);
            if more > 0 {
                let place = if directory.is_some() { "; manifest.jsonl has them all" } else { "" };
                note(&format!("retrocap: {more} more alerts are not answered in full{place}"));
            }
            note(&format!(
                "{}: {} with packets, {without} without, {partly} in part{}; {written}",
                human::counted(alerts as u64, if self.args.alert.is_some() { "alert" } else { "session" }),
                alerts - without,
                match self.read.broken_count {
                    0 => String::new(),
                    broken => format!(", {} broken", human::counted(broken, "line")),
                },
            ));
        }
        if self.common.json {
            let broken: Vec<Value> =
                self.read.broken.iter().map(|(line, why)| json!({"line": line, "error": why})).collect();
            let document = json!({
                "alerts": alerts, "with_packets": alerts - without, "without_packets": without, "in_part": partly,
                "broken": broken, "passed_over": self.read.passed_over,
                "directory": directory.map(|directory| directory.display().to_string()),
                "note": (!note_text.untrusted().is_empty()).then_some(note_text),
            });
            print_json(&format!("{document}\n"))?;
        }
        if note_text.untrusted().starts_with("incomplete") {
            return Err(anyhow!("{}", note_text.terminal()));
        }
        if !note_text.untrusted().is_empty() {
            note(&format!("retrocap: {}", note_text.terminal()));
        }
        match self.read.broken_count {
            0 if self.read.cut => Err(anyhow!("{}: it has more alerts than can be queried at once", self.source)),
            0 if without == alerts => Err(anyhow!("no packet matches any of {alerts} alerts")),
            0 => Ok(()),
            broken => Err(anyhow!("{}: {} could not be read", self.source, human::counted(broken, "line"))),
        }
    }
}

fn decoded(data: &str) -> anyhow::Result<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(data).context("the recorder's answer is damaged; ask again")
}

fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}
