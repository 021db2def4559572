//! `retrocap replay`: runs a capture file through the recorder's engine, and exports what it would have kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::capture_input;
use crate::error::{AlreadyReported, Usage};
use crate::machine;
use crate::options::Common;
use crate::terminal::output::{FileMode, Output};
use crate::terminal::printable::{note, print, print_json};
use crate::terminal::progress::{Progress, ProgressState};
use crate::terminal::status_page::{self, Heading};
use crate::verbs::run;
use crate::verbs::selection;
use crate::verbs::status;
use base::counters::{Published, Totals};
use base::interface::Interfaces;
use base::packet::Packet;
use base::source::{Batch, Source, SourceCounts, SourceError};
use base::time::Timestamp;
use daemon::settings::Percent;
use engine::budget::{MemorySize, Split};
use engine::judge::Classes;
use engine::pipeline::{Config, Pipeline};
use engine::store::compress::{Compression, Pace};
use filter::FilterSet;
use formats::annotations::{Annotations, CaptureReport};
use formats::reader::FileSource;
use formats::writer::{Exporter, Format, InterfaceStatistics, Options};
use query::status::{InputStatus, Status};
use query::{History, Memory, Request, counted};

/// Seed of the session table. It is constant, so that runs are reproducible.
const SEED: u64 = 0x7265_7472_6f63_6170;

/// Bytes of a record header in a pcap file.
const RECORD_HEADER_BYTES: u64 = 16;

/// Run a capture file through the recorder's engine, and write what it would have kept
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap replay big.pcap -m 40MiB -w kept.pcapng        what 40 MiB of memory would have kept of it
  tcpdump -i eth0 -w - | retrocap replay - -w kept.pcapng    the same of a pipe
  retrocap replay big.pcap -m 1G --json not port 22       only the numbers, without SSH")]
pub(crate) struct Replay {
    /// Capture file: pcap, pcapng, snoop or ETL, also with gzip, zstd or lz4; - is stdin
    file: PathBuf,
    /// Memory to use: a size, or a share of physical memory [default: 1%, at least 16 MiB]
    #[arg(short, long, value_name = "SIZE|PERCENT")]
    memory: Option<MemorySize>,
    /// Write the packets kept at the end to this file as pcapng; - is stdout
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Permissions of the file written; exports contain secrets
    #[arg(long, value_name = "OCTAL", default_value = "600")]
    mode: FileMode,
    /// Share of one core for compression, 0 for none; a replay counts it in the time of the packets [default: 10]
    #[arg(long, value_name = "PERCENT")]
    compression_cpu: Option<Percent>,
    /// Record only what matches this tcpdump expression
    #[arg(short, long, value_name = "EXPR")]
    filter: Option<String>,
    /// Bytes to keep of each packet; 0 for all
    #[arg(short, long, value_name = "BYTES", default_value_t = 0)]
    snaplen: u32,
    /// Read [retention] and [[class]] from this file, as `run` does
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Record only packets that match this tcpdump expression, as with --filter
    #[arg(value_name = "EXPR", conflicts_with = "filter", allow_negative_numbers = true)]
    expression: Vec<String>,
}

impl Replay {
    /// Reads the file as fast as possible, then writes the export and prints the report.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        if self.is_to_stdout() && common.json {
            return Err(Usage::of("--json and -w - both want stdout: try -w odd.pcapng, or leave out --json"));
        }
        let interfaces = Arc::<Interfaces>::default();
        let filter = self.filter()?;
        let capture_filter = filter.as_ref().map(|filter| filter.expression().to_owned());
        let mut split = Split::new(machine::budget_bytes(self.memory)?, 1, false).map_err(Usage::of)?;
        let percent = self.compression_cpu.unwrap_or_default().0;
        if percent > 0.0 {
            split = split.compressing();
        }
        let file = self.config.as_deref().map(run::read_file).transpose()?.unwrap_or_default();
        let classes = Classes::new(&file.all_classes(), split.store_bytes).map_err(Usage::of)?;
        let mut source = SpanSource { inner: self.source(&interfaces)?, span: None };
        let mut pipeline = Pipeline::new(Config {
            policy: file.retention(),
            classes,
            pinned_bytes: split.pinned_bytes(),
            filter,
            snaplen: self.snaplen,
            seed: SEED,
            ..Config::new(split.sessions_bytes, split.store_bytes)
        })
        .context("cannot take the memory asked for with -m")?;
        if let Some(compression) = split.compression(percent, Pace::Replay) {
            start_compression(&mut pipeline, &compression)?;
        }
        let history = History {
            memory: Memory {
                budget_bytes: split.budget_bytes,
                rings_bytes: split.rings_bytes(),
                queries_bytes: split.queries_bytes,
                compression_bytes: u64::from(split.workers) * split.compression_bytes,
                spool_bytes: 0,
            },
            capture_filter: capture_filter.into(),
            ..History::new(vec![pipeline.worker()], interfaces)
        };
        // Open the output before reading, so that a bad path fails at once.
        let output = self.write.as_deref().map(|path| Output::open(path, self.mode)).transpose()?;

        let progress = self.progress(common, &history.workers[0].published);
        let read = pipeline.run(&mut source, &AtomicBool::new(false));
        drop(progress);
        let heading = match read {
            Ok(()) => Heading::Replayed,
            Err(error) if history.totals().received.packets == 0 => {
                return Err(anyhow::Error::new(error).context(format!("cannot replay {}", self.file.display())));
            }
            Err(error) => {
                // Print the error first, so that nobody takes the report for one of the whole capture.
                note(&format!("retrocap: {}: {error}", self.file.display()));
                Heading::ReplayedInPart
            }
        };
        let mut report = source.inner.report();
        if let Some(output) = output {
            let left_out = export(&history, output, source.inner.annotations())?;
            if left_out > 0 {
                *report.left_out.entry("interfaces without packets").or_default() += left_out;
            }
            // Annotations that remain belong to packets that were not kept.
            let of_others = source.inner.annotations().of_other_packets();
            if of_others > 0 {
                *report.left_out.entry("options of packets that were not kept").or_default() += of_others;
            }
        }
        let uptime = source.span.map_or(Duration::ZERO, |(first, last)| last.since(first));
        let now = history.totals().newest.unwrap_or_default();
        let mut status = Status::new(&history, uptime.as_secs_f64(), machine::resident_bytes(), now);
        status.input =
            Some(InputStatus::new(report.times_changed, report.times_missing, &report.found, &report.left_out));
        self.print(common, heading, &status, &report)
    }

    /// Prints the status of the history and what the file says about itself.
    fn print(&self, common: &Common, heading: Heading, status: &Status, report: &CaptureReport) -> anyhow::Result<()> {
        if common.json {
            print_json(&format!("{}\n", serde_json::to_string_pretty(status)?))?;
        } else if !common.quiet {
            let summary = status_page::status(status, &status::here(heading));
            if self.is_to_stdout() { note(summary.trim_end()) } else { print(&summary)? }
        }
        if !common.quiet {
            report.sentences().iter().for_each(|sentence| note(&format!("retrocap: {sentence}")));
        }
        if heading == Heading::ReplayedInPart { Err(AlreadyReported.into()) } else { Ok(()) }
    }

    fn is_to_stdout(&self) -> bool {
        self.write.as_deref() == Some(Path::new("-"))
    }

    fn filter(&self) -> anyhow::Result<Option<FilterSet>> {
        let words = self.filter.as_ref().map_or(&self.expression[..], std::slice::from_ref);
        selection::filter(words)
    }

    /// Shows the progress, estimated from the bytes that packets and their headers take in a pcap file.
    fn progress(&self, common: &Common, published: &Arc<Published>) -> Progress {
        let file_bytes = self.file.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
        let published = Arc::clone(published);
        Progress::start(common, move || {
            let received = published.totals().received;
            #[expect(clippy::cast_precision_loss, reason = "a part of a file")]
            let part = file_bytes.map(|all| {
                let read = received.bytes.saturating_add(received.packets.saturating_mul(RECORD_HEADER_BYTES));
                (read as f64 / all.max(1) as f64).min(1.0)
            });
            ProgressState { packets: received.packets, bytes: received.bytes, part }
        })
    }

    fn source(&self, interfaces: &Arc<Interfaces>) -> anyhow::Result<FileSource> {
        Ok(FileSource::from_reader(capture_input::open(&self.file)?, Arc::clone(interfaces)))
    }
}

/// Starts the thread that compresses. It ends with the pipeline.
fn start_compression(pipeline: &mut Pipeline, compression: &Compression) -> anyhow::Result<()> {
    let compressor = pipeline.compress(compression).context("cannot take the memory asked for with -m")?;
    std::thread::Builder::new()
        .name("retrocap-zstd".to_owned())
        .spawn(move || compressor.run())
        .context("cannot start the thread that compresses")?;
    Ok(())
}

/// Writes all packets kept, and the interfaces without packets. Returns how many of these the file cannot have.
fn export(history: &History, mut output: Output, annotations: &mut Annotations) -> anyhow::Result<u64> {
    let options = Options {
        filter: history.capture_filter.get(),
        hardware: annotations.hardware.clone(),
        os: annotations.os.clone(),
        blocks: std::mem::take(&mut annotations.blocks),
        interfaces: std::mem::take(&mut annotations.interfaces),
        ..Options::default()
    };
    let mut exporter = Exporter::new(Format::Pcapng, options);
    exporter.begin(output.buffer(), &[comments(history), std::mem::take(&mut annotations.comments)].concat());
    let mut packets = history.packets(&Request::default())?;
    while let Some(found) = packets.next() {
        match annotations.take(&found.packet) {
            None => exporter.packet(output.buffer(), found.interface, &found.packet)?,
            Some(annotation) => {
                exporter.annotated_packet(output.buffer(), found.interface, &found.packet, &annotation)?;
            }
        }
        output.write_some()?;
    }
    let mut left_out = 0;
    for interface in history.interfaces.snapshot() {
        left_out += u64::from(!exporter.interface_without_packets(output.buffer(), &interface));
    }
    exporter.end(output.buffer(), &statistics(history, annotations), &[]);
    output.finish()?;
    Ok(left_out)
}

/// Comments for the export: what share of the packets it has, and since when it is complete.
fn comments(history: &History) -> Vec<String> {
    let Totals { stored, retained, evicted, .. } = history.totals();
    let packets = counted(stored.packets, "packet", "packets");
    let mut comment =
        format!("{} of {packets} {} kept", retained.packets, if stored.packets == 1 { "was" } else { "were" });
    if evicted.packets > 0
        && let Some(whole_since) = history.whole_since()
    {
        comment.push_str(&format!("; before {whole_since} sessions are shortened from their ends"));
    }
    vec![comment]
}

fn statistics(history: &History, annotations: &Annotations) -> Vec<InterfaceStatistics> {
    let interfaces = history.interfaces.snapshot();
    let received = |id| history.workers.iter().map(|worker| worker.published.interface(id).packets).sum();
    interfaces
        .iter()
        .map(|i| {
            // Statistics in the capture about its own recording stay valid, so copy them.
            let known = annotations.statistics.get(&i.id).copied();
            let known = known.unwrap_or_else(|| InterfaceStatistics::of(i.id));
            InterfaceStatistics { received: known.received.or(Some(received(i.id))), ..known }
        })
        .collect()
}

/// Wraps a source, and notes the earliest and latest packet times.
struct SpanSource<S> {
    inner: S,
    span: Option<(Timestamp, Timestamp)>,
}

impl<S: Source> Source for SpanSource<S> {
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        let span = &mut self.span;
        self.inner.bursts(&mut |burst| {
            for packet in burst {
                let (first, last) = span.get_or_insert((packet.time, packet.time));
                *first = packet.time.min(*first);
                *last = packet.time.max(*last);
            }
            each(burst);
        })
    }

    fn counts(&self) -> SourceCounts {
        self.inner.counts()
    }
}
