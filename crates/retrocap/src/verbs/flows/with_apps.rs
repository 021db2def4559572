//! `flows --app` and `flows --by app`: sessions with their application, which is read from their packets.

use std::io::BufReader;

use anyhow::{Context as _, anyhow};
use jiff::tz::TimeZone;

use crate::client;
use crate::error::Usage;
use crate::options::Common;
use crate::terminal::human;
use crate::terminal::listing_totals::ListingTotals;
use crate::terminal::printable::{note, print, print_csv, print_json};
use crate::terminal::screen::Screen;
use crate::terminal::session_tables::{RowWriter, SessionRows};
use crate::verbs::analysis::SessionInput;
use crate::verbs::apps::{self, AppSums, Apps};
use crate::verbs::selection::{Selection, TimeWindowArgs};
use crate::verbs::trailers;
use api::question::SelectionQuestion;
use protocols::AppFilter;
use query::flows::Flow;

/// Approximate bytes of text per write.
const PRINT_BYTES: usize = 64 << 10;

/// A listing of sessions with their applications, or sums by application.
pub(super) struct AppListing<'a> {
    pub(super) selection: &'a Selection,
    pub(super) around: &'a TimeWindowArgs,
    /// The request for the sessions, without a limit.
    pub(super) target: String,
    pub(super) app: Option<&'a AppFilter>,
    pub(super) sums: bool,
    pub(super) csv: bool,
    pub(super) limit: u64,
}

impl AppListing<'_> {
    /// Lists or sums the sessions.
    pub(super) fn print(&self, common: &Common) -> anyhow::Result<()> {
        if self.sums && self.csv {
            return Err(Usage::of("--by app has no columns in --csv: try --json"));
        }
        let (selection, around) = (self.selection, self.around);
        let tz = TimeZone::system();
        // The start of a session is what tells its protocol, and it may lie before the window.
        let whole_sessions = selection.question(Some(around), common.now(), &tz)? != SelectionQuestion::default();
        let mut apps =
            Apps::read(&SessionInput { common, selection, around, follow: false, whole_sessions, narrowed: None })?;
        let answer = client::get(common, &self.target)?;
        let trailers = answer.trailers();
        let mut rows = (!common.json).then(|| SessionRows::new(Screen::stdout(), tz, self.csv));
        let (mut sums, mut out, mut line) = (AppSums::default(), String::new(), String::new());
        let (mut matched, mut listed, mut bytes) = (0u64, 0u64, 0u64);
        let mut lines = BufReader::with_capacity(64 << 10, answer);
        while client::next_line(&mut lines, &mut line, client::ROW_BYTES_MAX)? {
            if line.trim().is_empty() {
                continue;
            }
            let mut flow: Flow = serde_json::from_str(&line).context("the recorder speaks another version")?;
            flow.app = apps.of(&flow);
            if self.app.is_some_and(|filter| !apps::wants(filter, flow.app.as_ref())) {
                continue;
            }
            (matched, bytes) = (matched + 1, bytes.saturating_add(flow.bytes.sum()));
            if self.sums {
                sums.add(&flow, flow.app.as_ref());
            } else if listed < self.limit {
                listed += 1;
                let row = format!("{}\n", serde_json::to_string(&flow)?);
                match &mut rows {
                    Some(rows) => rows.line(&mut out, &row)?,
                    None => out.push_str(&row),
                }
            }
            if out.len() >= PRINT_BYTES {
                self.write(common, &out)?;
                out.clear();
            }
        }
        if self.sums {
            out = sums.lines(common.json, usize::try_from(self.limit).unwrap_or(usize::MAX)).concat();
        } else if let Some(rows) = &mut rows {
            rows.end(&mut out, ListingTotals::default());
        }
        self.write(common, &out)?;
        let unknown = apps.unknown();
        if matched == 0 {
            return Err(anyhow!("no session matches{}", unknown.map(|why| format!("; {why}")).unwrap_or_default()));
        }
        if !common.quiet {
            let sessions = format!("{}, {}", human::counted(matched, "session"), human::size(bytes));
            let why = unknown.map(|why| format!("; {why}")).unwrap_or_default();
            let shown = if !self.sums && listed < matched { "; not all are listed" } else { "" };
            note(&format!("{}{sessions}{shown}{why}", trailers::heading(&trailers)));
        }
        trailers::complete(&trailers)
    }

    fn write(&self, common: &Common, out: &str) -> anyhow::Result<()> {
        match (common.json, self.csv) {
            (true, _) => print_json(out),
            (false, true) => print_csv(out),
            (false, false) => print(out),
        }
    }
}
