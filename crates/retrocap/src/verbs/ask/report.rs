//! Prints answers under the name of their recorder, and at the end what each recorder's answer is worth.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::question::{Answers, Asked};
use crate::error::{AlreadyReported, Incomplete};
use crate::fleet::exchange::{Ending, Horizon, Outcome};
use crate::fleet::merge::{Merged, RecorderFile};
use crate::options::Common;
use crate::terminal::human::{count, counted, printed_time};
use crate::terminal::listing_totals::ListingTotals;
use crate::terminal::printable::{note, plain, print, print_csv, print_json};
use crate::terminal::screen::{BOLD, Screen};
use crate::terminal::session_tables::{RowWriter, endpoint};
use crate::verbs::flows::Flows;
use crate::verbs::trailers::{MISSING, NOTE, is_incomplete};
use api::content::MatchLine;
use base::foreign::{Csv, Foreign};
use base::time;

/// Bytes of lines that are held for one recorder, so that its rows stand together.
const HELD_BYTES: usize = 64 << 10;
/// Recorders with remarks that are listed in text; JSON has all of them.
const REMARKS_MAX: usize = 20;

/// The answers of all recorders so far.
pub(super) struct Report<'a> {
    asked: &'a Asked<'a>,
    common: &'a Common,
    names: Vec<String>,
    /// Rows that wait for the end of their recorder's answer.
    held: Vec<String>,
    /// Rows that this version cannot read.
    unreadable: Vec<u64>,
    endings: Vec<Option<Ending>>,
    has_csv_heading: bool,
    tz: TimeZone,
}

impl<'a> Report<'a> {
    pub(super) fn new(names: Vec<String>, asked: &'a Asked<'a>, common: &'a Common) -> Self {
        let endings = names.iter().map(|_| None).collect();
        let (held, unreadable) = (vec![String::new(); names.len()], vec![0; names.len()]);
        Self { asked, common, names, held, unreadable, endings, has_csv_heading: false, tz: TimeZone::system() }
    }

    /// Takes lines of a recorder's answer.
    pub(super) fn lines(&mut self, recorder: usize, lines: &str) -> anyhow::Result<()> {
        if self.common.json {
            let rows = self.named_rows(recorder, lines);
            return print_json(&rows);
        }
        self.held[recorder].push_str(lines);
        if self.held[recorder].len() >= HELD_BYTES { self.show(recorder, None) } else { Ok(()) }
    }

    /// Rows of JSON with the name of their recorder. A row of another shape is counted.
    fn named_rows(&mut self, recorder: usize, lines: &str) -> String {
        let mut out = String::with_capacity(lines.len() + lines.len() / 8);
        for line in lines.lines() {
            match serde_json::from_str::<Map<String, Value>>(line) {
                Ok(mut row) => {
                    // A recorder does not choose under which name it is listed.
                    row.insert("recorder".to_owned(), json!(self.names[recorder]));
                    let _ = writeln!(out, "{}", Value::Object(row));
                }
                Err(_) => self.unreadable[recorder] += u64::from(!line.trim().is_empty()),
            }
        }
        out
    }

    /// Prints the rows of a recorder that were held.
    fn show(&mut self, recorder: usize, ending: Option<&Ending>) -> anyhow::Result<()> {
        let lines = std::mem::take(&mut self.held[recorder]);
        let rows = lines.lines().filter(|line| !line.trim().is_empty()).count() as u64;
        if rows == 0 {
            return Ok(());
        }
        match self.asked.answers {
            Answers::Sessions(flows) if flows.is_csv() => self.show_csv(recorder, flows, &lines),
            Answers::Sessions(flows) => {
                let screen = Screen::stdout();
                let mut writer = flows.row_writer(screen, self.tz.clone());
                let mut out = self.heading(recorder, screen, ending);
                self.unreadable[recorder] += push_rows(&mut *writer, &mut out, &lines);
                let totals = ending.map(|ending| ListingTotals::read(&ending.trailers, ending.rows));
                let summary = writer.end(&mut out, totals.unwrap_or_default()).filter(|_| totals.is_some());
                let _ = writeln!(out, "{}", summary.unwrap_or_default());
                print(&out)
            }
            _ => {
                let mut out = self.heading(recorder, Screen::stdout(), ending);
                for line in lines.lines() {
                    match serde_json::from_str::<MatchLine>(line) {
                        Ok(found) => push_match(&mut out, &found, &self.tz),
                        Err(_) => self.unreadable[recorder] += 1,
                    }
                }
                out.push('\n');
                print(&out)
            }
        }
    }

    fn show_csv(&mut self, recorder: usize, flows: &Flows, lines: &str) -> anyhow::Result<()> {
        let mut writer = flows.row_writer(Screen::stdout(), self.tz.clone());
        let (mut rows, mut out) = (String::new(), String::new());
        self.unreadable[recorder] += push_rows(&mut *writer, &mut rows, lines);
        writer.end(&mut rows, ListingTotals::default());
        let mut rows = rows.split_inclusive("\r\n");
        let heading = rows.next().unwrap_or_default();
        if !std::mem::replace(&mut self.has_csv_heading, true) {
            let _ = write!(out, "recorder,{heading}");
        }
        rows.for_each(|row| {
            let _ = write!(out, "{},{row}", Csv(&self.names[recorder]));
        });
        print_csv(&out)
    }

    fn heading(&self, recorder: usize, screen: Screen, ending: Option<&Ending>) -> String {
        let name = screen.paint(BOLD, &plain(&self.names[recorder]));
        match ending.and_then(|ending| ending.horizon.as_ref()) {
            Some(horizon) => format!("{name}  ({})\n", self.horizon(horizon)),
            None => format!("{name}\n"),
        }
    }

    /// How far back a recorder can look, in words.
    fn horizon(&self, horizon: &Horizon) -> String {
        let local = |time: &Option<Foreign>| {
            let time = printed_time(time.as_ref()?)?;
            Some(format!("{} {}", time::local(time, &self.tz), time::zone(time, &self.tz)))
        };
        let mut text = match (local(&horizon.oldest), local(&horizon.whole_since)) {
            (None, _) => "it has no packet".to_owned(),
            (Some(oldest), Some(whole)) if oldest == whole => format!("every packet since {whole}"),
            (Some(oldest), Some(whole)) => format!("packets since {oldest}, every packet since {whole}"),
            (Some(oldest), None) => format!("packets since {oldest}"),
        };
        if horizon.lost_packets > 0 {
            let _ = write!(text, ", {} lost", counted(horizon.lost_packets, "packet"));
        }
        text
    }

    /// Takes the end of a recorder's answer.
    pub(super) fn ended(&mut self, recorder: usize, ending: Ending) -> anyhow::Result<()> {
        if self.common.json {
            if let Some(status) = &ending.document {
                let status = self.named_rows(recorder, &status.to_string());
                print_json(&status)?;
            }
            print_json(&format!("{}\n", self.outcome(recorder, &ending)))?;
        } else {
            self.show(recorder, Some(&ending))?;
            if let (Answers::Status, Outcome::Answered, Some(horizon)) =
                (&self.asked.answers, &ending.outcome, &ending.horizon)
            {
                print(&format!("{}: {}\n", plain(&self.names[recorder]), self.horizon(horizon)))?;
            }
        }
        self.endings[recorder] = Some(ending);
        Ok(())
    }

    /// What the answer of one recorder is worth, as JSON.
    fn outcome(&self, recorder: usize, ending: &Ending) -> Value {
        let reason = match &ending.outcome {
            Outcome::Answered => None,
            Outcome::Nothing(text) | Outcome::Refused(text) => Some(text.untrusted().to_owned()),
            Outcome::Failed(text) | Outcome::Silent(text) => Some(text.clone()),
        };
        let horizon = ending.horizon.clone().unwrap_or_default();
        json!({
            "recorder": self.names[recorder],
            "outcome": ending.outcome.word(),
            "found": self.found(ending),
            "rows": ending.rows,
            "bytes": ending.bytes,
            "reason": reason,
            "unreadable_rows": self.unreadable[recorder],
            "reaches_back": self.reaches_back(ending),
            "complete": self.is_complete(recorder, ending),
            "note": ending.trailers.text(NOTE),
            "missing": ending.trailers.text(MISSING),
            "oldest": horizon.oldest,
            "whole_since": horizon.whole_since,
            "lost_packets": ending.horizon.as_ref().map(|horizon| horizon.lost_packets),
            "took_s": ending.took.as_secs_f64(),
        })
    }

    /// Whether the recorder has what was asked for.
    fn found(&self, ending: &Ending) -> bool {
        match self.asked.answers {
            Answers::Status => ending.document.is_some(),
            Answers::Packets(_) => ending.file.is_some() && ending.bytes > 0 || ending.rows > 0,
            _ => ending.rows > 0,
        }
    }

    /// Whether the recorder has everything since the start of the window; for sessions, anything from before it. `None` if
    /// that is unknown.
    fn reaches_back(&self, ending: &Ending) -> Option<bool> {
        let Some(since) = self.asked.since else { return Some(true) };
        let horizon = ending.horizon.as_ref()?;
        let reach = match self.asked.answers {
            Answers::Sessions(_) => &horizon.oldest,
            _ => &horizon.whole_since,
        };
        Some(reach.as_ref().and_then(printed_time).is_some_and(|reach| reach <= since))
    }

    /// Whether the recorder answered, looked at all that was asked for, and all of its answer could be read.
    fn is_complete(&self, recorder: usize, ending: &Ending) -> bool {
        let answered = matches!(ending.outcome, Outcome::Answered | Outcome::Nothing(_));
        let is_cut = ending.trailers.text(NOTE).is_some_and(|note| is_incomplete(note.untrusted()));
        answered && !is_cut && self.unreadable[recorder] == 0 && self.reaches_back(ending) == Some(true)
    }

    /// The files that the recorders sent, in the order of the recorders.
    pub(super) fn take_files(&mut self) -> Vec<RecorderFile> {
        let named = self.names.iter().zip(&mut self.endings);
        named
            .filter_map(|(name, ending)| {
                let ending = ending.as_mut().filter(|ending| ending.bytes > 0)?;
                let file = ending.file.take()?;
                // It counts as found after the file is taken.
                ending.rows = ending.rows.max(1);
                Some(RecorderFile { recorder: name.clone(), file })
            })
            .collect()
    }

    /// What a merged file says of the recorders: who answered, how far back, and who did not.
    pub(super) fn comments(&self) -> Vec<String> {
        let named = self.names.iter().zip(&self.endings);
        named
            .filter_map(|(name, ending)| {
                let ending = ending.as_ref()?;
                let horizon = ending.horizon.as_ref().map(|horizon| format!(" ({})", self.horizon(horizon)));
                let mut text = format!("{name} {}{}", ending.outcome.word(), horizon.unwrap_or_default());
                for remark in [NOTE, MISSING].into_iter().filter_map(|name| ending.trailers.text(name)) {
                    let _ = write!(text, "; {}", remark.terminal());
                }
                Some(text)
            })
            .collect()
    }

    /// Says what could not be merged.
    pub(super) fn merged(&self, merged: &Merged) {
        for (recorder, damage) in &merged.damaged {
            note(&format!("retrocap: INCOMPLETE: the packets of {} end early: {damage}", plain(recorder)));
        }
        if merged.left_out_packets > 0 {
            let packets = counted(merged.left_out_packets, "packet");
            note(&format!("retrocap: INCOMPLETE: {packets} are left out, because there are too many interfaces"));
        }
    }

    /// Prints the summary. Its error decides the exit status.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        let endings = || self.names.iter().zip(self.endings.iter().flatten());
        let of = |word: &str| endings().filter(|(_, ending)| ending.outcome.word() == word).count() as u64;
        let found = endings().filter(|(_, ending)| self.found(ending)).count() as u64;
        let answered = of("answered") + of("nothing");
        let all = self.names.len() as u64;
        let verb = match self.asked.answers {
            Answers::Status => "answered",
            _ => "have it",
        };
        let mut text = format!("{} of {} {verb}", count(found), counted(all, "recorder"));
        let rest = [
            (answered.saturating_sub(found), "found nothing"),
            (of("refused"), "refused"),
            (of("failed"), "failed"),
            (of("silent"), "did not answer"),
        ];
        for (number, what) in rest.into_iter().filter(|(number, _)| *number > 0) {
            let _ = write!(text, ", {} {what}", count(number));
        }
        if !self.common.quiet {
            note(&text);
            self.remarks();
        }
        for (name, ending) in endings() {
            let (what, reason) = match &ending.outcome {
                Outcome::Silent(reason) => ("did not answer", reason.clone()),
                Outcome::Failed(reason) => ("failed", reason.clone()),
                Outcome::Refused(reason) => ("refused", reason.terminal().to_string()),
                Outcome::Answered | Outcome::Nothing(_) => continue,
            };
            note(&format!("retrocap: {} {what}: {}", plain(name), plain(&reason)));
        }
        match () {
            () if answered < all => Err(Incomplete.into()),
            () if found == 0 => Err(AlreadyReported.into()),
            () => Ok(()),
        }
    }

    /// What recorders said about the limits of their answers.
    fn remarks(&self) {
        let ended = self.names.iter().zip(&self.endings).zip(&self.unreadable);
        let ended = ended.filter_map(|((name, ending), unreadable)| Some((name, ending.as_ref()?, *unreadable)));
        let remarks: Vec<String> = ended
            .flat_map(|(name, ending, unreadable)| {
                let nothing = match &ending.outcome {
                    Outcome::Nothing(reason) => Some(reason.clone()),
                    _ => None,
                };
                let answered = matches!(ending.outcome, Outcome::Answered | Outcome::Nothing(_));
                let short = (answered && self.reaches_back(ending) != Some(true)).then(|| {
                    let horizon = ending.horizon.as_ref().map(|horizon| self.horizon(horizon));
                    let horizon = horizon.unwrap_or_else(|| "its horizon is unknown".to_owned());
                    Foreign::from(format!("it does not reach back to the time that was asked for ({horizon})").as_str())
                });
                let broken = (unreadable > 0).then(|| {
                    let rows = counted(unreadable, "row");
                    Foreign::from(format!("INCOMPLETE: {rows} of its answer cannot be read by this version").as_str())
                });
                let said = [broken, short, nothing, ending.trailers.text(NOTE), ending.trailers.text(MISSING)];
                said.into_iter().flatten().map(move |text| format!("{}: {}", plain(name), text.terminal()))
            })
            .collect();
        for remark in remarks.iter().take(REMARKS_MAX) {
            note(&format!("retrocap: {remark}"));
        }
        if remarks.len() > REMARKS_MAX {
            let more = counted((remarks.len() - REMARKS_MAX) as u64, "remark");
            note(&format!("retrocap: {more} more; --json has all of them"));
        }
    }
}

/// Formats rows. Returns how many cannot be read.
fn push_rows(writer: &mut dyn RowWriter, out: &mut String, lines: &str) -> u64 {
    let rows = lines.lines().filter(|line| !line.trim().is_empty());
    rows.map(|line| u64::from(writer.line(out, line).is_err())).sum()
}

fn push_match(out: &mut String, found: &MatchLine, tz: &TimeZone) {
    let at = printed_time(&found.time).map_or_else(|| found.time.terminal().to_string(), |at| time::local(at, tz));
    let stage = found.stage.as_ref().map(|stage| format!(" ({})", stage.terminal())).unwrap_or_default();
    let (from, to) = (endpoint(&found.flow.originator), endpoint(&found.flow.responder));
    let place = match (&found.direction, found.stream_offset) {
        (Some(direction), Some(offset)) => format!("  {} at {offset}", direction.terminal()),
        _ => String::new(),
    };
    let (rule, proto) = (found.rule.terminal(), found.flow.proto.terminal());
    let _ = writeln!(out, "{at}  {rule}{stage}  {proto} {from} > {to}{place}");
    let shown = match &found.detail {
        Some(detail) => detail.terminal().to_string(),
        None => shown_bytes(found.context_hex.untrusted()),
    };
    let _ = writeln!(out, "    {shown}");
}

/// Bytes in hexadecimal as text, with a dot for what is not printable.
fn shown_bytes(hex: &str) -> String {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = hex.as_bytes().chunks(2).filter_map(byte);
    bytes.map(|byte| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '.' }).collect()
}
