//! `retrocap flows`: lists sessions, including those whose packets were evicted, or sums of them.

mod with_apps;

use std::io::BufReader;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::tz::TimeZone;

use crate::archived::{ReadsArchive, Wanted};
use crate::client;
use crate::error::Usage;
use crate::options::Common;
use crate::terminal::listing_totals::ListingTotals;
use crate::terminal::output::stdout_is_a_file;
use crate::terminal::printable::{note, print, print_csv, print_json};
use crate::terminal::progress::{Progress, ProgressCounts};
use crate::terminal::screen::Screen;
use crate::terminal::session_tables::{RowWriter, SessionRows, SumRows};
use crate::verbs::interfaces::Interfaces;
use crate::verbs::parameter::{parameter, word};
use crate::verbs::process_selection::ProcessSelection;
use crate::verbs::selection::{Selection, TimeWindowArgs};
use crate::verbs::trailers;
use crate::{offline, offline_spool};
use api::question::{FlowsQuestion, ListingQuestion};
use api::value::{Kind, ParameterValue as _, Texts};
use base::time::Timestamp;
use protocols::AppFilter;
use query::flows::Sort;
use query::listing::PageCursor;
use query::sums::By;
use with_apps::AppListing;

/// The trailer with the mark of the next page.
const NEXT: &str = "retrocap-next";

/// Approximate bytes of text per write.
const PRINT_BYTES: usize = 64 << 10;

/// List sessions, including those whose packets were evicted
#[derive(Debug, Args)]
#[command(after_help = "\
The newest sessions come first. A session that overlaps the time window is listed with its total counts. The column \"kept\" shows which of \
its packets are still there: all, the first part (in bytes), or none (gone). Names are read from a session's first packets: TLS server name, HTTP host, DNS question.

Examples:
  retrocap flows --since 1h --sort bytes --limit 10     the largest of the last hour
  retrocap flows --by peer --sort out --limit 10        who sent the most data, and to whom
  retrocap flows --limit 100                            page by page: the summary names the mark for --after
  retrocap flows --name .example.com                    who asked for these names, by TLS, HTTP or DNS
  retrocap flows --address 10.0.0.0/8 --port 445        by address and port
  retrocap flows --app modbus:write                     writes to controllers, on any port
  retrocap flows --since 1h --by app                    the application protocols in use
  retrocap flows host 10.0.0.5 --csv > flows.csv        for a spreadsheet
  retrocap flows --json | jq 'select(.state == \"reset\")'    for scripts: one JSON object per line")]
pub(crate) struct Flows {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    around: TimeWindowArgs,
    /// As in get; sessions are listed whole in any case
    #[arg(long, hide = true)]
    whole_sessions: bool,
    /// Only sessions whose TLS server name, HTTP host or DNS question contains this text; a leading dot selects all
    /// names below that domain
    #[arg(long, value_name = "TEXT", help_heading = "Selection", conflicts_with = "by")]
    name: Option<String>,
    /// Only the session with this id, as `flows --json` prints it; may be repeated
    #[arg(long, value_name = "ID", help_heading = "Selection", conflicts_with = "by")]
    id: Vec<String>,
    /// Only sessions of this application protocol (detected by content), or with this kind of message: modbus,
    /// modbus:write; any shows the protocol of each session. This reads the packets of the selection
    #[arg(long, value_name = "NAME[:WORD]", help_heading = "Selection")]
    app: Option<AppFilter>,
    #[command(flatten)]
    process: ProcessSelection,
    /// Sort by this key: start and last in ascending order, amounts in descending order; out is the bytes that
    /// originators sent [default: newest first; for sums: bytes]
    #[arg(long, value_name = "KEY", value_parser = word::<Sort>())]
    sort: Option<Sort>,
    /// As in tcpdump; use get to write packets
    #[arg(short, long, value_name = "FILE", hide = true)]
    write: Option<PathBuf>,
    /// Print only the first N rows; totals cover all rows
    #[arg(long, short = 'c', visible_alias = "count", value_name = "N", value_parser = parameter::<NonZeroU64>)]
    limit: Option<NonZeroU64>,
    /// Only sessions after this mark, which the summary of the page before names: the next page of --limit
    #[arg(long, value_name = "MARK", value_parser = parameter::<PageCursor>, conflicts_with_all = ["by", "app"])]
    after: Option<PageCursor>,
    /// Sum the sessions by host (sent and received), by peer (pair of hosts), by port of the responder, by process of this
    /// host, or by application protocol
    #[arg(long, value_name = "WHAT", value_parser = group_key())]
    by: Option<GroupKey>,
    /// Print comma-separated values with times in UTC; columns are never renamed or reordered, and new ones are added last
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

impl ReadsArchive for Flows {
    fn asked(&mut self) -> (&mut Selection, &mut TimeWindowArgs, Wanted) {
        let wanted = Wanted { sessions: self.app.is_none(), whole_sessions: false, follows: false };
        (&mut self.selection, &mut self.around, wanted)
    }

    fn run_verb(&self, common: &Common) -> anyhow::Result<()> {
        self.run(common)
    }
}

impl Flows {
    /// Queries the recorder and prints rows as they arrive.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        if self.selection.habits.lists_interfaces() {
            return Interfaces::all().run(common);
        }
        if self.write.is_some() {
            return Err(Usage::of("flows writes no packets: try get -w odd.pcapng, or flows --csv > flows.csv"));
        }
        self.selection
            .habits
            .check_no_lines("flows lists sessions, with date and time; try get -X, or flows --json")?;
        if let Some(spool) = self.selection.spool() {
            let window = |now| self.selection.window(None, now, &TimeZone::system());
            return offline_spool::sessions(common, spool, window, |common| self.ask(common));
        }
        offline::reading(common, &self.selection.read, |common| self.ask(common))
    }

    fn ask(&self, common: &Common) -> anyhow::Result<()> {
        if self.reads_apps() {
            return self.ask_with_apps(common);
        }
        let by = self.by.and_then(GroupKey::recorded);
        if by.is_some() && self.sort == Some(Sort::Duration) {
            return Err(Usage::of("sums have no duration: sort them by bytes, out, in, packets, start or last"));
        }
        let tz = TimeZone::system();
        let now = common.now();
        // Sorting and summing may take a while. After that the listing itself shows the progress.
        let counts = Arc::<ProgressCounts>::default();
        let shown_counts = Arc::clone(&counts);
        let mut progress = Some(Progress::start(common, move || shown_counts.done()));
        let answer = client::get(common, &self.target(now, &tz)?)?;
        if !stdout_is_a_file() {
            progress = None;
        }
        let trailers = answer.trailers();
        let screen = Screen::stdout();
        let mut shown: Box<dyn RowWriter> = if common.json { Box::new(JsonRows) } else { self.row_writer(screen, tz) };
        let mut lines = BufReader::with_capacity(64 << 10, answer);
        let (mut count, mut written, mut out, mut line) = (0u64, 0, String::new(), String::new());
        while client::next_line(&mut lines, &mut line, client::ROW_BYTES_MAX)? {
            if !line.trim().is_empty() {
                count += 1;
                if self.limit.is_some_and(|limit| count > limit.get()) {
                    return Err(anyhow!("the recorder sends more than the {count} rows that were asked for"));
                }
                shown.line(&mut out, &line).context("the recorder has another version")?;
            }
            if out.len() >= PRINT_BYTES {
                written += out.len() as u64;
                counts.set(0, written, None);
                self.print(common, &out)?;
                out.clear();
            }
        }
        drop(progress);
        let mut totals = ListingTotals::read(&trailers, count);
        totals.is_later_page = self.after.is_some();
        let summary = shown.end(&mut out, totals);
        self.print(common, &out)?;
        if count == 0 {
            return Err(anyhow!("no session matches"));
        }
        // Where the limit leaves rows out, everybody is told.
        let summary = summary.filter(|_| screen.width.is_some() || totals.rows_left_out() > 0);
        if let Some(summary) = summary.filter(|_| !common.quiet) {
            let next = trailers.text(NEXT).map(|mark| format!("; --after {} lists the next", mark.terminal()));
            let summary = summary + &next.unwrap_or_default();
            note(&format!("{}{summary}", trailers::heading(&trailers)));
        }
        trailers::complete(&trailers)
    }
}

impl Flows {
    /// Whether packets have to be read.
    fn reads_apps(&self) -> bool {
        self.app.is_some() || self.by == Some(GroupKey::App)
    }

    fn ask_with_apps(&self, common: &Common) -> anyhow::Result<()> {
        if self.by.is_some_and(|by| by != GroupKey::App) {
            return Err(Usage::of("--app goes with --by app alone: the recorder sums without reading packets"));
        }
        let listing = AppListing {
            selection: &self.selection,
            around: &self.around,
            target: self.target(common.now(), &TimeZone::system())?,
            app: self.app.as_ref(),
            sums: self.by.is_some(),
            csv: self.csv,
            limit: self.limit.map_or(u64::MAX, Into::into),
        };
        listing.print(common)
    }

    /// The question for recorders elsewhere.
    ///
    /// # Errors
    ///
    /// [`Usage`] for options that need packets or files.
    pub(crate) fn question_for_recorders(&self, now: Timestamp, tz: &TimeZone) -> anyhow::Result<FlowsQuestion> {
        self.selection.check_no_files()?;
        if self.by == Some(GroupKey::App) || self.write.is_some() {
            return Err(Usage::of("ask sums sessions by what recorders know of them: leave out --by app and -w"));
        }
        let mut question = self.question(now, tz)?;
        question.listing.app.clone_from(&self.app);
        question.listing.limit = self.limit;
        Ok(question)
    }

    /// Whether rows are printed as CSV.
    pub(crate) fn is_csv(&self) -> bool {
        self.csv
    }

    /// What formats the rows.
    pub(crate) fn row_writer(&self, screen: Screen, tz: TimeZone) -> Box<dyn RowWriter> {
        match self.by.and_then(GroupKey::recorded) {
            None => Box::new(SessionRows::new(screen, tz, self.csv)),
            Some(by) => Box::new(SumRows::new(screen, tz, self.csv, by)),
        }
    }

    fn print(&self, common: &Common, out: &str) -> anyhow::Result<()> {
        match (common.json, self.csv) {
            (true, _) => print_json(out),
            (false, true) => print_csv(out),
            (false, false) => print(out),
        }
    }

    /// The request target for the recorder.
    pub(crate) fn target(&self, now: Timestamp, tz: &TimeZone) -> anyhow::Result<String> {
        Ok(self.question(now, tz)?.target())
    }

    fn question(&self, now: Timestamp, tz: &TimeZone) -> anyhow::Result<FlowsQuestion> {
        let selection = self.selection.question(Some(&self.around), now, tz)?;
        let listing = ListingQuestion {
            sort: self.sort,
            // With applications, rows are counted here.
            limit: self.limit.filter(|_| !self.reads_apps()),
            after: self.after,
            ids: (!self.id.is_empty()).then(|| Texts(self.id.clone())),
            name: self.name.clone(),
            process: self.process.process.clone(),
            container: self.process.container.clone(),
            app: None,
            by: self.by.and_then(GroupKey::recorded),
        };
        Ok(FlowsQuestion { selection, listing })
    }
}

/// What sessions are summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupKey {
    /// What the recorder knows of each session.
    Recorded(By),
    /// What packets say.
    App,
}

impl GroupKey {
    /// The key that the recorder knows.
    fn recorded(self) -> Option<By> {
        match self {
            Self::Recorded(by) => Some(by),
            Self::App => None,
        }
    }
}

/// Reads a [`GroupKey`].
fn group_key() -> impl TypedValueParser<Value = GroupKey> {
    let mut words: Vec<&'static str> = match By::KIND {
        Kind::Words(words) => words.to_vec(),
        _ => Vec::new(),
    };
    words.push("app");
    PossibleValuesParser::new(words).try_map(|word| match word.as_str() {
        "app" => Ok(GroupKey::App),
        word => parameter::<By>(word).map(GroupKey::Recorded),
    })
}

/// Passes the recorder's JSON lines through.
struct JsonRows;

impl RowWriter for JsonRows {
    fn line(&mut self, out: &mut String, line: &str) -> serde_json::Result<()> {
        out.push_str(line);
        Ok(())
    }

    fn end(&mut self, _: &mut String, totals: ListingTotals) -> Option<String> {
        Some(totals.of_sessions()).filter(|_| totals.rows_left_out() > 0)
    }
}
