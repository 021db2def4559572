//! `-r FILE`: queries capture files without a recorder.
//!
//! The files go through the same engine as packets of interfaces. The same service answers, on a socket that only this
//! user can reach. So an answer means the same as a recorder's, and verbs need no second code path.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use tokio::sync::watch;

use crate::capture_input;
use crate::error::{AlreadyReported, Usage};
use crate::machine;
use crate::options::Common;
use crate::terminal::human::counted;
use crate::terminal::printable::note;
use crate::terminal::progress::{Progress, ProgressState};
use base::interface::Interfaces;
use base::packet::Packet;
use base::source::{Batch, Source, SourceCounts, SourceError};
use base::time::Timestamp;
use engine::budget::{ByteSize, Split};
use engine::pipeline::{Config, Pipeline};
use formats::reader::FileSource;
use query::{History, Memory};
use serve::{Recorder, Service, ServiceLimits};

/// Seed of the session table. It is constant, so that runs are reproducible.
const SEED: u64 = 0x7265_7472_6f63_6170;
/// Bytes added to the size of the files, so that small files fit with their overhead.
const MEMORY_BYTES_MIN: u64 = 256 << 20;
/// Bytes for the buffers of answers, enough to list some million sessions.
const QUERIES_BYTES: u64 = 256 << 20;
/// Maximum number of files, all of which are open at once.
const FILES_MAX: usize = 256;

/// Runs a verb against the recorder, or against capture files if there are any.
pub(crate) fn reading(
    common: &Common,
    files: &[PathBuf],
    verb: impl FnOnce(&Common) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if files.is_empty() {
        return verb(common);
    }
    let offline = Offline::start(files, common)?;
    offline.tell_problem();
    let asking = Common {
        socket: Some(offline.socket.clone()),
        remote: None,
        newest: offline.newest,
        in_part: offline.damaged,
        ..common.clone()
    };
    offline.finish(verb(&asking))
}

/// Capture files that were read, and the service that answers queries about them.
pub(crate) struct Offline {
    /// The service's socket.
    pub(crate) socket: PathBuf,
    /// The time of the newest packet, from which "10m ago" counts.
    pub(crate) newest: Option<Timestamp>,
    /// Why packets of the files were not read or not kept, if so.
    problem: Option<String>,
    /// Whether the files could be read in part only.
    damaged: bool,
    _folder: tempfile::TempDir,
    _shutdown: watch::Sender<bool>,
    _pipeline: Pipeline,
    _runtime: tokio::runtime::Runtime,
}

impl fmt::Debug for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offline").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Offline {
    /// Reads the files and starts the service.
    ///
    /// # Errors
    ///
    /// When a file cannot be opened, or no packet of the files can be read.
    fn start(paths: &[PathBuf], common: &Common) -> anyhow::Result<Self> {
        if paths.len() > FILES_MAX {
            return Err(Usage::of(format_args!("{} files are too many: -r takes at most {FILES_MAX}", paths.len())));
        }
        let interfaces = Arc::<Interfaces>::default();
        let mut source = FileSequence::open(paths, &interfaces)?;
        let budget = budget_bytes(paths);
        let split = Split::new(budget, 1, false).map_err(Usage::of)?;
        let mut pipeline = Pipeline::new(Config { seed: SEED, ..Config::new(split.sessions_bytes, split.store_bytes) })
            .with_context(|| format!("cannot take {} of memory for the packets of the files", ByteSize(budget)))?;
        let history = History {
            memory: Memory { budget_bytes: budget, queries_bytes: QUERIES_BYTES, ..Memory::default() },
            ..History::new(vec![pipeline.worker()], interfaces)
        };
        let published = Arc::clone(&history.workers[0].published);
        let progress = Progress::start(common, move || {
            let received = published.totals().received;
            ProgressState { packets: received.packets, bytes: received.bytes, part: None }
        });
        let read = pipeline.run(&mut source, &AtomicBool::new(false));
        drop(progress);
        let totals = history.totals();
        let damaged = read.is_err();
        let problem = match read {
            Err(error) if totals.received.packets == 0 => {
                return Err(anyhow!("{}: {error}", source.name()));
            }
            Err(error) => Some(format!(
                "{}: {error}; the answer covers the {} before that",
                source.name(),
                counted(totals.received.packets, "packet")
            )),
            Ok(()) if totals.evicted.packets > 0 => Some(format!(
                "the files hold more than fits into {} of memory: {} of {} were left out, from the ends of their \
                 sessions; ask about one file at a time",
                ByteSize(budget),
                counted(totals.evicted.packets, "packet"),
                counted(totals.received.packets, "packet")
            )),
            Ok(()) => None,
        };
        Ok(Self { damaged, ..Self::serve(history, pipeline, totals.newest, problem)? })
    }

    /// Starts the service.
    ///
    /// # Errors
    ///
    /// When the system refuses a socket or a thread.
    pub(crate) fn serve(
        history: History,
        pipeline: Pipeline,
        newest: Option<Timestamp>,
        problem: Option<String>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("retrocap-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .context("cannot make a folder for a socket")?;
        let socket = folder.path().join("r.sock");
        let listener = UnixListener::bind(&socket).context("cannot make a socket")?;
        listener.set_nonblocking(true).context("cannot use the socket")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the service")?;
        let recorder = Recorder {
            history: Arc::new(history),
            live: false,
            start: newest.unwrap_or_default(),
            started: Instant::now(),
            recording: Arc::new(AtomicUsize::new(1)),
            queries_bytes: QUERIES_BYTES,
        };
        let service = Arc::new(Service::new(recorder, ServiceLimits::default()));
        let (shutdown, shutdown_requested) = watch::channel(false);
        {
            let _entered = runtime.enter();
            let listener = tokio::net::UnixListener::from_std(listener).context("cannot use the socket")?;
            runtime.spawn(serve::serve(listener, service, shutdown_requested));
        }
        Ok(Self {
            socket,
            newest,
            problem,
            damaged: false,
            _folder: folder,
            _shutdown: shutdown,
            _pipeline: pipeline,
            _runtime: runtime,
        })
    }

    /// Prints what was not read or not kept. This comes first, so that no result above it looks like success.
    pub(crate) fn tell_problem(&self) {
        if let Some(problem) = &self.problem {
            note(&format!("retrocap: {problem}"));
        }
    }

    /// The result of a verb that read the files. It is a failure if packets were not read or not kept.
    pub(crate) fn finish(&self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        match (&self.problem, result) {
            (Some(_), Ok(())) => Err(AlreadyReported.into()),
            (_, result) => result,
        }
    }
}

/// Memory budget in bytes: what the files need, but at most half of the available memory.
fn budget_bytes(paths: &[PathBuf]) -> u64 {
    let half = machine::available_bytes().map_or(1 << 30, |bytes| bytes / 2);
    let sizes = paths.iter().map(|path| plain_bytes(path));
    match sizes.sum::<Option<u64>>() {
        // Sessions and segments that are not full need memory beside the packets.
        Some(bytes) => bytes.saturating_mul(2).saturating_add(MEMORY_BYTES_MIN).min(half),
        None => half,
    }
    .max(Split::BYTES_MIN)
}

/// The size in bytes of an uncompressed regular file; `None` if it is not known before reading.
fn plain_bytes(path: &Path) -> Option<u64> {
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let compressed =
        path.extension().is_some_and(|name| !matches!(name.to_str(), Some("pcap" | "pcapng" | "cap" | "snoop")));
    (!compressed).then_some(metadata.len())
}

/// Reads several files in sequence, ordered by their first packets.
struct FileSequence {
    rest: std::vec::IntoIter<(String, FileSource)>,
    current: (String, FileSource),
    /// Counts of the files that have ended.
    before: SourceCounts,
}

impl FileSequence {
    fn open(paths: &[PathBuf], interfaces: &Arc<Interfaces>) -> anyhow::Result<Self> {
        let mut paths: Vec<&PathBuf> = paths.iter().collect();
        if paths.len() > 1 {
            // Rotated captures may be named in any order. Inputs that are no regular files sort first, in the given
            // order.
            paths.sort_by_cached_key(|path| first_time(path));
        }
        let mut files = Vec::new();
        for path in paths {
            let capture = capture_input::open(path)?;
            files.push((path.display().to_string(), FileSource::from_reader(capture, Arc::clone(interfaces))));
        }
        let mut rest = files.into_iter();
        let current = rest.next().ok_or_else(|| Usage::of("-r takes a capture file: try -r odd.pcapng"))?;
        Ok(Self { rest, current, before: SourceCounts::default() })
    }

    fn name(&self) -> &str {
        &self.current.0
    }
}

/// The time of the first packet in a regular file.
fn first_time(path: &Path) -> Option<Timestamp> {
    path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut source = FileSource::from_reader(capture_input::open(path).ok()?, Arc::default());
    let mut first = None;
    while first.is_none() {
        let batch = source.batch(&mut |packet| first = first.or(Some(packet.time))).ok()?;
        if batch == Batch::End {
            break;
        }
    }
    first
}

impl Source for FileSequence {
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        match self.current.1.bursts(each)? {
            Batch::End => match self.rest.next() {
                None => Ok(Batch::End),
                Some(next) => {
                    let ended = std::mem::replace(&mut self.current, next).1.counts();
                    self.before.refused.packets += ended.refused.packets;
                    self.before.refused.bytes += ended.refused.bytes;
                    Ok(Batch::More)
                }
            },
            batch => Ok(batch),
        }
    }

    fn counts(&self) -> SourceCounts {
        let mut counts = self.current.1.counts();
        counts.refused.packets += self.before.refused.packets;
        counts.refused.bytes += self.before.refused.bytes;
        counts
    }
}
