//! `retrocap get`: exports past packets to a file or pipe, or prints them as lines.

pub(crate) mod alert_files;
pub(crate) mod alerts;
mod lines;
mod named;
mod said;

use std::io::{IsTerminal as _, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use jiff::tz::TimeZone;

use crate::archived::{ReadsArchive, Wanted};
use crate::client::{self, Answer, RefusedRequest};
use crate::error::Usage;
use crate::options::Common;
use crate::terminal::compression;
use crate::terminal::human;
use crate::terminal::output::{FileMode, Output};
use crate::terminal::printable::{note, print_json};
use crate::terminal::progress::{Progress, ProgressCounts};
use crate::verbs::analysis::SessionInput;
use crate::verbs::apps;
use crate::verbs::chosen_export::{ChosenExport, Exported};
use crate::verbs::evidence::sealing;
use crate::verbs::export::{self, ExportProgress};
use crate::verbs::interfaces::Interfaces as ListInterfaces;
use crate::verbs::parameter::{parameter, word};
use crate::verbs::process_selection::ProcessSelection;
use crate::verbs::selection::{Selection, TimeWindowArgs};
use crate::verbs::trailers::ended;
use crate::{offline, offline_spool};
use alerts::{AlertArgs, AlertQuery, ExportOptions};
use api::bodies::FilePrecision;
use api::path;
use api::question::{ExportQuestion, FlowsQuestion, ListingQuestion, PacketsQuestion};
use base::time::Timestamp;
use decode::text;
use formats::writer::{Format, Options as FileOptions, Precision};
use lines::LineOptions;
use protocols::AppFilter;
use said::SaidArgs;

/// Get past packets, as lines of text, pcapng or pcap
#[derive(Debug, Args)]
#[command(after_help = "\
Without -w, get prints one line per packet to a terminal, and writes pcapng to a pipe.

Examples:
  retrocap get --since 10m port 53                DNS of the last ten minutes, one line per packet
  retrocap get --around 14:02:07 --window 30s -w odd.pcapng    30 s before and after
  retrocap get host 10.0.0.5 and not port 22 | tshark -r -     one host's packets in tshark
  retrocap get --since 10m --follow -w - | wireshark -k -i -   past packets, then new ones
  retrocap get --flow '10.0.0.5:51234 192.0.2.7:443' -w f.pcapng    one session
  retrocap get --whole-sessions 'tcp[13] & 4 != 0' -w rst.pcapng    all packets of reset sessions
  retrocap get --app modbus:write                  packets that write to Modbus devices
  retrocap get --streams --flow '10.0.0.5:51234 192.0.2.7:80'    what both sides said
  retrocap get --messages --since 1h port 443      hellos, certificates and fingerprints
  retrocap get --alert eve.json --split case42/    one file per alert, and a manifest")]
pub(crate) struct Get {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    around: TimeWindowArgs,
    /// Get all packets of the sessions with this TLS server name, HTTP host or DNS question; a leading dot selects all
    /// names below it
    #[arg(long, value_name = "HOST", help_heading = "Selection", conflicts_with_all = ["alert", "follow"])]
    name: Option<String>,
    /// Get the packets that carry this kind of message: modbus:write; with a protocol alone, as in tls, all packets of its
    /// sessions. Protocols are detected by content
    #[arg(long, value_name = "NAME[:WORD]", help_heading = "Selection",
        conflicts_with_all = ["alert", "follow", "dedup", "name", "process", "container"])]
    app: Option<AppFilter>,
    #[command(flatten)]
    process: ProcessSelection,
    /// Get all packets of the sessions that the matching packets belong to
    #[arg(long, help_heading = "Selection")]
    whole_sessions: bool,
    /// Export only one copy of a packet that was captured twice: on a bridge and its port, or on two mirrored ports
    #[arg(long, help_heading = "Selection", conflicts_with = "follow")]
    dedup: bool,
    #[command(flatten)]
    alerts: AlertArgs,
    /// Only the first N packets
    #[arg(short, long, value_name = "N", value_parser = parameter::<NonZeroU64>)]
    count: Option<NonZeroU64>,
    /// Continue with new packets, until -c, --until 5m (from now) or Ctrl-C
    #[arg(long, conflicts_with_all = ["around", "whole_sessions", "alert"])]
    follow: bool,
    /// Write to this file, which appears only when it is complete; - is stdout. A name that ends in .gz, .zst or .lz4 is
    /// compressed
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    write: Option<PathBuf>,
    /// Permissions of the files written; exports contain secrets
    #[arg(long, value_name = "OCTAL", help_heading = "Output", default_value = "600")]
    mode: FileMode,
    /// Seal the written files with this SSH key: write a manifest beside them, and its signature
    #[arg(long, value_name = "KEY", help_heading = "Output", conflicts_with = "text")]
    seal: Option<PathBuf>,
    #[command(flatten)]
    said: SaidArgs,
    /// Print one line per packet, even to a pipe
    #[arg(long, help_heading = "Output", conflicts_with_all = ["write", "split"])]
    text: bool,
    /// File format [default: pcapng; pcap for a file of that name]
    #[arg(long, help_heading = "Output", value_parser = word::<Format>())]
    format: Option<Format>,
    /// Write times in nanoseconds (the default in files; lines have microseconds by default)
    #[arg(long, help_heading = "Output", conflicts_with = "micro")]
    nano: bool,
    /// Write times in microseconds, for tools that do not read nanoseconds
    #[arg(long, help_heading = "Output")]
    micro: bool,
}

impl ReadsArchive for Get {
    fn asked(&mut self) -> (&mut Selection, &mut TimeWindowArgs, Wanted) {
        let wanted = Wanted { sessions: false, whole_sessions: self.whole_sessions, follows: self.follow };
        (&mut self.selection, &mut self.around, wanted)
    }

    fn run_verb(&self, common: &Common) -> anyhow::Result<()> {
        self.run(common)
    }
}

impl Get {
    /// Queries the recorder and writes the answer.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        if self.selection.habits.lists_interfaces() {
            return ListInterfaces::all().run(common);
        }
        if self.follow && (!self.selection.read.is_empty() || self.selection.spool().is_some()) {
            return Err(Usage::of(
                "--follow goes on with packets as they come, and files have no more: leave out one of both",
            ));
        }
        let ask = |files: &[PathBuf]| match self.selection.spool() {
            Some(spool) => offline_spool::packets(common, spool, |common| self.ask(common)),
            None => offline::reading(common, files, |common| self.ask(common)),
        };
        let Some(key) = &self.seal else { return ask(&self.selection.read) };
        let written = self.alerts.split.as_deref().or(self.write.as_deref()).filter(|path| *path != Path::new("-"));
        let written = written.ok_or_else(|| Usage::of("--seal needs a file to seal: add -w case.pcapng"))?;
        if compression::is_compressed(written) {
            return Err(Usage::of(
                "--seal seals what the recorder sent, and a compressed file differs from it: try -w case.pcapng",
            ));
        }
        sealing::prepare(written, key)?;
        ask(&self.selection.read)?;
        sealing::seal_export(written, key, common)
    }

    fn ask(&self, common: &Common) -> anyhow::Result<()> {
        let tz = TimeZone::system();
        if self.alerts.alert.is_some() {
            return self.alerts(common, &tz);
        }
        if let Some(app) = &self.app {
            return self.by_app(app, common, &tz);
        }
        let now = common.now();
        if self.said.are_given() {
            let selection = self.selection.question(Some(&self.around), now, &tz)?;
            return self.said.print(selection, self.count, self.selection.habits.dump(), common, &tz);
        }
        if self.name.is_some() || self.process.is_given() {
            return self.named(now, common, &tz);
        }
        let selection = self.selection(now, &tz)?;
        let mut question = self.question(now, &tz)?;
        let (_, until) = selection.window(Some(&self.around), now, &tz)?;
        let file = self.write.as_deref().filter(|path| *path != Path::new("-"));
        if common.json && file.is_none() {
            return Err(Usage::of(
                "--json tells what was written to a file: try get --json -w odd.pcapng, or flows --json",
            ));
        }
        let lines = self.prints_lines();
        // Open the output first, so that a bad path fails before the query.
        let output = match (&self.write, lines) {
            (_, true) => None,
            (None, false) => Some(Output::open(Path::new("-"), self.mode)?),
            (Some(path), false) if self.follow => Some(Output::open_to_follow(path, self.mode)?),
            (Some(path), false) => Some(Output::open(path, self.mode)?),
        };
        if !lines {
            question.export.format = Some(self.format());
            question.export.precision = self.micro.then_some(Precision::Micro);
        }
        let counts = Arc::<ProgressCounts>::default();
        let shown = Arc::clone(&counts);
        let progress = Progress::start(common, move || shown.done());
        match (client::get(common, &question.target()), output) {
            (Ok(mut answer), None) => {
                drop(progress);
                if self.follow {
                    answer.end_or_exit_when_interrupted();
                }
                self.lines(answer, common, &tz)
            }
            (Ok(mut answer), Some(output)) if self.follow && !output.is_file() => {
                drop(progress);
                answer.end_or_exit_when_interrupted();
                export::copy_at_once(answer, output, common)
            }
            (Ok(answer), Some(output))
                if file.is_none() && !(output.is_redirected() && std::io::stderr().is_terminal()) =>
            {
                // The reader of the pipe may print to the same terminal.
                drop(progress);
                export::copy(answer, output, common)
            }
            (Ok(mut answer), Some(output)) => {
                if self.follow {
                    // Ctrl-C ends the export and keeps the packets so far.
                    answer.end_when_interrupted();
                }
                // An export that follows has no end to measure progress by.
                let until = if self.follow { None } else { self.reaches_until(common, until) };
                let name = file.map_or_else(|| "stdout".to_owned(), |path| path.display().to_string());
                export::file(answer, output, &name, common, &tz, ExportProgress { counts, until, progress })
            }
            (Err(error), output) => {
                drop(progress);
                let nothing = error.downcast_ref::<RefusedRequest>().is_some_and(RefusedRequest::is_nothing_found);
                if let Some(output) = output.filter(|output| nothing && output.is_stdout()) {
                    self.empty(output)?;
                }
                Err(error)
            }
        }
    }

    /// Whether to print lines instead of writing a file.
    fn prints_lines(&self) -> bool {
        let dumps = self.selection.habits.dump().is_some();
        self.write.is_none() && (self.text || dumps || std::io::stdout().is_terminal())
    }

    /// The requested format, or the one of the file name's extension.
    pub(crate) fn format(&self) -> Format {
        let named = || {
            let name = compression::without_compression(self.write.as_ref()?);
            matches!(name.extension()?.to_str()?, "pcap" | "cap" | "dmp").then_some(Format::Pcap)
        };
        self.format.or_else(named).unwrap_or(Format::Pcapng)
    }

    /// The selection. With `--follow`, `--until` counts from now on.
    fn selection(&self, now: Timestamp, tz: &TimeZone) -> anyhow::Result<Selection> {
        let mut selection = self.selection.clone();
        if self.follow {
            selection.ahead(now, tz)?;
        }
        Ok(selection)
    }

    /// The request to recorders elsewhere, whose packets are merged.
    ///
    /// # Errors
    ///
    /// [`Usage`] for options that take several requests to one recorder.
    pub(crate) fn question_for_recorders(&self, now: Timestamp, tz: &TimeZone) -> anyhow::Result<PacketsQuestion> {
        self.selection.check_no_files()?;
        let other = self.follow || self.said.are_given() || self.name.is_some() || self.process.is_given();
        if other || self.alerts.alert.is_some() || self.seal.is_some() {
            return Err(Usage::of(
                "ask gets packets by expression, address, port, flow and time: leave out --follow, --name, --process, \
                 --container, --alert, --streams, --messages and --seal",
            ));
        }
        let mut question = self.question(now, tz)?;
        question.export.app.clone_from(&self.app);
        Ok(question)
    }

    /// The file to write; `None` where lines are printed.
    pub(crate) fn output_for_recorders(&self, common: &Common) -> anyhow::Result<Option<Output>> {
        if common.json && self.written().is_none() {
            return Err(Usage::of("--json tells what was written to a file: try get -w odd.pcapng after --"));
        }
        if self.prints_lines() {
            return Ok(None);
        }
        Output::open(self.write.as_deref().unwrap_or(Path::new("-")), self.mode).map(Some)
    }

    /// The file that is written, if it is not stdout.
    pub(crate) fn written(&self) -> Option<&Path> {
        self.write.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// The options of the written file.
    pub(crate) fn export_options(&self) -> FileOptions {
        let precision = if self.micro { Precision::Micro } else { Precision::Nano };
        FileOptions { precision, ..FileOptions::default() }
    }

    /// The request to the recorder, without the format of the answer.
    pub(crate) fn question(&self, now: Timestamp, tz: &TimeZone) -> anyhow::Result<PacketsQuestion> {
        let selection = self.selection(now, tz)?.question(Some(&self.around), now, tz)?;
        let export = ExportQuestion {
            follow: self.follow.then_some(true),
            carried_by: None,
            whole_sessions: self.whole_sessions.then_some(true),
            dedup: self.dedup.then_some(true),
            app: None,
            count: self.count,
            format: None,
            precision: None,
            nano: None,
            micro: None,
            seal: self.seal.as_ref().map(|_| true),
        };
        Ok(PacketsQuestion { selection, export })
    }

    /// Finds the packets of an application, and writes or prints them.
    fn by_app(&self, filter: &AppFilter, common: &Common, tz: &TimeZone) -> anyhow::Result<()> {
        let file = self.write.as_deref().filter(|path| *path != Path::new("-"));
        if common.json && file.is_none() {
            return Err(Usage::of("--json tells what was written to a file: try get --json -w odd.pcapng"));
        }
        let lines = self.prints_lines();
        // A bad path fails before the question.
        let output = match lines {
            true => None,
            false => Some(Output::open(self.write.as_deref().unwrap_or(Path::new("-")), self.mode)?),
        };
        let (selection, around, whole_sessions) = (&self.selection, &self.around, self.whole_sessions);
        let question = SessionInput { common, selection, around, follow: false, whole_sessions, narrowed: None };
        let interfaces = Arc::default();
        let chosen = apps::find(filter, &question, &interfaces, whole_sessions)?;
        if chosen.is_empty() {
            return Err(anyhow!(
                "no packet that is kept carries {filter}; of encrypted sessions, only the start is read"
            ));
        }
        let export = ChosenExport {
            question,
            chosen,
            interfaces,
            format: if lines { Format::Pcapng } else { self.format() },
            precision: if self.micro && !lines { Precision::Micro } else { Precision::Nano },
            limit: self.count.map_or(u64::MAX, Into::into),
            comments: &[],
        };
        let Some(output) = output else { return self.print_lines(Box::new(export.into_file()?), common, tz) };
        let Exported { packets, bytes, file_bytes } = export.into_output(output)?;
        let Some(name) = file.map(|name| name.display().to_string()) else { return Ok(()) };
        if common.json {
            let document =
                serde_json::json!({ "packets": packets, "bytes": bytes, "file": name, "file_bytes": file_bytes });
            print_json(&format!("{document}\n"))?;
        } else if !common.quiet {
            note(&format!("{}, {} -> {name}", human::counted(packets, "packet"), human::size(bytes)));
        }
        Ok(())
    }

    /// Prints one line per packet.
    fn lines(&self, answer: Answer, common: &Common, tz: &TimeZone) -> anyhow::Result<()> {
        let trailers = answer.trailers();
        self.print_lines(Box::new(answer), common, tz)?;
        ended(&trailers, common)
    }

    /// Prints one line for each packet of a capture file.
    pub(crate) fn print_lines(&self, file: Box<dyn Read + Send>, common: &Common, tz: &TimeZone) -> anyhow::Result<()> {
        let precision = if self.nano { text::Precision::Nano } else { text::Precision::Micro };
        let (stamp, dump) = (self.selection.habits.stamp(), self.selection.habits.dump());
        lines::print_lines(file, &LineOptions { precision, stamp, dump }, common, tz)
    }

    /// Finds the sessions that name a host, and then gets their packets.
    fn named(&self, now: Timestamp, common: &Common, tz: &TimeZone) -> anyhow::Result<()> {
        if self.follow {
            return Err(Usage::of("--follow goes on with packets, and processes are known of sessions: leave out one"));
        }
        let selection = self.selection.question(Some(&self.around), now, tz)?;
        let listing = ListingQuestion {
            name: self.name.clone(),
            process: self.process.process.clone(),
            container: self.process.container.clone(),
            ..ListingQuestion::default()
        };
        let answer = client::get(common, &FlowsQuestion { selection, listing }.target())?;
        let window = self.selection.window(Some(&self.around), now, tz)?;
        let sessions = named::sessions(answer, window)?;
        self.selected(AlertQuery::of_sessions(&self.alerts, self.options()?, common, sessions), common, tz)
    }

    /// Gets the packets of the sessions that alerts name.
    fn alerts(&self, common: &Common, tz: &TimeZone) -> anyhow::Result<()> {
        let Some(query) = AlertQuery::read(&self.alerts, self.options()?, common)? else { return Ok(()) };
        self.selected(query, common, tz)
    }

    /// The options that apply to the packets of all sessions.
    fn options(&self) -> anyhow::Result<ExportOptions> {
        let lines = self.prints_lines() && self.alerts.split.is_none();
        Ok(ExportOptions {
            filter: self.selection.expression()?,
            interface: self.selection.interface_name(),
            seed: self.selection.community_id_seed,
            format: if lines { Format::Pcapng } else { self.format() },
            precision: if self.micro && !lines { FilePrecision::Micro } else { FilePrecision::Nano },
            mode: self.mode,
        })
    }

    /// Writes the packets of several sessions.
    fn selected(&self, query: AlertQuery<'_>, common: &Common, tz: &TimeZone) -> anyhow::Result<()> {
        let to_file = self.write.as_deref().filter(|path| *path != Path::new("-"));
        let lines = self.prints_lines() && self.alerts.split.is_none();
        if common.json && to_file.is_none() && self.alerts.split.is_none() {
            return Err(Usage::of("--json tells what was written to files: try --split DIR, or -w odd.pcapng"));
        }
        if let Some(directory) = &self.alerts.split {
            return query.split(directory);
        }
        if lines {
            let (file, merged) = query.merged()?;
            // An answer without packets is empty, which is no valid capture file.
            let mut file = std::io::BufReader::new(file);
            if !std::io::BufRead::fill_buf(&mut file)?.is_empty() {
                self.print_lines(Box::new(file), common, tz)?;
            }
            return merged.end("");
        }
        let mut output = Output::open(to_file.unwrap_or(Path::new("-")), self.mode)?;
        // The reader of a pipe may print to the same terminal.
        let progress = (output.is_file() || output.is_redirected()).then(|| query.progress());
        let (mut file, merged) = query.merged()?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                bytes => output.buffer().extend_from_slice(&buffer[..bytes]),
            }
            output.write_some()?;
        }
        drop(progress);
        let mut written = String::new();
        if !merged.is_empty() {
            written = to_file.map(|file| format!(" -> {}", file.display())).unwrap_or_default();
            output.finish()?;
        } else if output.is_stdout() {
            self.empty(output)?;
        }
        merged.end(&written)
    }

    /// The latest time that an export can reach, to compute progress. `None` if nobody sees the progress line.
    fn reaches_until(&self, common: &Common, until: Option<Timestamp>) -> Option<Timestamp> {
        if common.quiet || !std::io::stderr().is_terminal() {
            return None;
        }
        let document = client::get(common, path::STATUS).ok()?.document().ok()?;
        let status: serde_json::Value = serde_json::from_str(&document).ok()?;
        let newest = human::time(status.pointer("/retained/newest")?.as_str()?)?;
        Some(until.map_or(newest, |until| until.min(newest)))
    }

    /// Writes a capture file without packets, because readers of a pipe reject empty input.
    fn empty(&self, output: Output) -> anyhow::Result<()> {
        export::empty(self.format(), output)
    }
}
