//! `retrocap ask`: asks many recorders one question.

mod question;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser as _};
use jiff::tz::TimeZone;

use crate::error::Usage;
use crate::fleet::Fleet;
use crate::fleet::exchange::Event;
use crate::fleet::hosts::{HostSources, recorders};
use crate::fleet::merge::{self, Merged, RecorderFile};
use crate::options::Common;
use crate::terminal::human::{counted, size};
use crate::terminal::output::Output;
use crate::terminal::printable::{note, print_json};
use crate::verbs::get::Get;
use formats::writer::Format;
use question::{Answers, Asked, AskedCommand};
use report::Report;

/// Recorders that are asked at a time. One that sends nothing for a second gives its place to the next.
const PARALLEL_DEFAULT: usize = 128;
/// How long a recorder may send nothing, if --timeout does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Ask many recorders one question: flows, hunt, status or get
#[derive(Debug, Args)]
#[command(after_help = "\
Each recorder is asked over TLS with your certificate (see retrocap certs), as with --remote. Answers are printed as they
come, under the name of their recorder. At the end, ask names every recorder that did not answer, refused, or failed.

The exit status is 0 if all answered and something was found, 1 if all answered and nothing was found, and 3 if any did not
answer.

Examples:
  retrocap ask sensor1:57443 sensor2:57443 -- flows host 192.0.2.7     who saw this address?
  retrocap ask --hosts sensors.txt -- flows --name .evil.example       who asked for these names?
  retrocap ask --hosts sensors.txt -- hunt --text 'cmd.exe /c'         where was this said?
  retrocap ask --srv _retrocap._tcp.example.com -- status              is everybody recording?
  retrocap ask --hosts sensors.txt -- get --since 1h host 192.0.2.7 -w all.pcapng
                             the packets of all, with recorder/interface as the name of each interface
  retrocap ask --hosts sensors.txt --json -- flows port 4444 | jq -c 'select(.outcome == \"silent\")'")]
pub(crate) struct Ask {
    /// Recorders: host:port, or https://host:port
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// Ask the recorders in this file, one a line, with # before comments; - is stdin. May be repeated
    #[arg(long = "hosts", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Ask the recorders that DNS has for this SRV name. May be repeated
    #[arg(long = "srv", value_name = "NAME")]
    services: Vec<String>,
    /// How many recorders are asked at a time
    #[arg(long, value_name = "N", default_value_t = PARALLEL_DEFAULT, value_parser = parallel)]
    parallel: usize,
    /// The question: flows, hunt, status or get, with its options
    #[arg(value_name = "QUESTION", last = true, required = true, allow_hyphen_values = true)]
    question: Vec<String>,
}

fn parallel(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(parallel @ 1..=100_000) => Ok(parallel),
        _ => Err("it is a number from 1 to 100000".to_owned()),
    }
}

impl Ask {
    /// Asks all recorders, and prints what they answer as it comes.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        let command = AskedCommand::try_parse_from(&self.question).unwrap_or_else(|error| error.exit());
        if command.common.remote.is_some() || command.common.socket != common.socket {
            return Err(Usage::of("the recorders stand before --: leave out --remote and --socket after it"));
        }
        let mut common = common.clone();
        common.json |= command.common.json;
        common.quiet |= command.common.quiet;
        common.timeout = common.timeout.or(command.common.timeout);
        let common = &common;
        let asked = Asked::new(&command.verb, common)?;
        let sources = HostSources { arguments: &self.hosts, files: &self.files, services: &self.services };
        let timeout = common.timeout.unwrap_or(TIMEOUT_DEFAULT);
        let fleet = Fleet::new(recorders(sources, common)?, self.parallel, timeout, common)?;
        // A bad path fails before the question.
        let output = match asked.answers {
            Answers::Packets(get) => get.output_for_recorders(common)?,
            _ => None,
        };
        let mut report = Report::new(fleet.names(), &asked, common);
        fleet.ask(&asked.target, asked.kind(), |event| match event {
            Event::Lines { recorder, lines } => report.lines(recorder, &lines),
            Event::Ended { recorder, ending } => report.ended(recorder, *ending),
        })?;
        if let Answers::Packets(get) = asked.answers {
            export(get, output, &mut report, common)?;
        }
        report.end()
    }
}

/// Merges the packets of all recorders, and writes or prints them.
fn export(get: &Get, output: Option<Output>, report: &mut Report<'_>, common: &Common) -> anyhow::Result<()> {
    let (files, comments) = (report.take_files(), report.comments());
    if files.is_empty() {
        return Ok(());
    }
    let tz = TimeZone::system();
    let Some(mut output) = output else {
        let mut file = tempfile::tempfile()?;
        let merged = merged(files, Format::Pcapng, get, &comments, &mut |bytes| {
            std::io::Write::write_all(&mut file, bytes)?;
            bytes.clear();
            Ok(())
        })?;
        std::io::Seek::rewind(&mut file)?;
        report.merged(&merged);
        return get.print_lines(Box::new(file), common, &tz);
    };
    let merged = merged(files, get.format(), get, &comments, &mut |bytes| {
        output.buffer().append(bytes);
        output.write_some()
    })?;
    let (is_stdout, file_bytes) = (output.is_stdout(), output.finish()?);
    report.merged(&merged);
    let name = get.written().unwrap_or(Path::new("-")).display();
    if common.json && !is_stdout {
        let (first, last) = merged.span.unzip();
        let document = serde_json::json!({
            "packets": merged.packets, "bytes": merged.bytes, "file": name.to_string(), "file_bytes": file_bytes,
            "first": first, "last": last,
        });
        print_json(&format!("{document}\n"))?;
    } else if !common.quiet && !is_stdout {
        note(&format!("{}, {} -> {name}", counted(merged.packets, "packet"), size(merged.bytes)));
    }
    Ok(())
}

fn merged(
    files: Vec<RecorderFile>,
    format: Format,
    get: &Get,
    comments: &[String],
    to: &mut dyn FnMut(&mut Vec<u8>) -> anyhow::Result<()>,
) -> anyhow::Result<Merged> {
    merge::merge(files, format, get.export_options(), comments, to)
}
