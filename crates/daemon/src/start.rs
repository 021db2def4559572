//! From a configuration to a recorder that runs, and its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sys::{HeldSignals, share_one_heap};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::error::{Error, system};
use super::handover::{self, InheritedHistory};
use super::listeners::RemoteListeners;
use super::memory::{self, LockError};
use super::notify::Supervisor;
use super::reload::{Reload, Reloader};
use super::replay::PacedSource;
use super::sandbox::SandboxMode;
use super::sandbox::{PathRules, Role, Sandbox};
use super::settings::{Settings, Speed};
use super::socket::{Socket, SocketClaim, SocketPermissions};
use super::workers::{PacketSource, Workers};
use super::{listeners, priority, privileges, replay};
use base::interface::Interfaces;
use base::memory::Lock;
use base::time::Timestamp;
use capture::interfaces::{Monitor, links};
use capture::live::{LiveConfig, LiveSource, capture_rights};
use capture::selection::InterfaceSelection;
use engine::budget::{ByteSize, RING_BLOCK_BYTES, Split};
use engine::handover::RestartReport;
use engine::judge::{Classes, Pins};
use engine::own_streams::OwnStreams;
use engine::pipeline::{self, Pipeline};
use engine::store::compress::{Compression, Compressor, Pace};
use filter::FilterSet;
use query::{History, Memory};
use serve::audit::Audit;
use serve::{self, Recorder, Service};

/// So many queries at once are answered at the usual priority, further ones behind other programs.
const QUERIES_AT_NORMAL_PRIORITY: usize = 2;
/// Threads of the service, beside those of queries.
const SERVICE_THREADS: usize = 2;
/// How long queries get to notice that the service has ended.
const QUERIES_END_TIMEOUT: Duration = Duration::from_millis(100);

/// How often it is asked whether interfaces are still watched.
const MONITOR_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What ends a recorder.
#[derive(Debug)]
pub(super) enum StopCondition {
    Signal,
    Requested(oneshot::Receiver<()>),
}

/// Everything is open, nothing runs, and privileges are dropped.
#[derive(Debug)]
pub(super) struct Prepared {
    listener: std::os::unix::net::UnixListener,
    own_streams: Arc<OwnStreams>,
    socket: Socket,
    pipelines: Vec<(Pipeline, PacketSource)>,
    compressors: Vec<(Compressor, Compression)>,
    history: History,
    /// Of live capture.
    selection: Option<Arc<InterfaceSelection>>,
    remote: RemoteListeners,
    audit: Audit,
    signals: HeldSignals,
    sandbox: Sandbox,
    /// Why memory beside that of packets may be swapped out.
    not_locked: Option<LockError>,
    settings: Settings,
    supervisor: Supervisor,
    answers_bytes: u64,
}

impl Prepared {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        let live = settings.is_live();
        share_one_heap();
        memory::never_dump();
        // What is replayed lies in a file.
        let not_locked = if live { memory::lock(settings.no_drop_privileges).err() } else { None };
        let inherited = InheritedHistory::from_environment();
        let supervisor = Supervisor::from_environment();
        let owner = if settings.drops_privileges() { privileges::target(settings.user.as_deref())? } else { None };
        let access = SocketPermissions { group: privileges::readers()?, owner };
        let claim = SocketClaim::new(&settings.socket, access)?;
        let mut split = Split::new(settings.memory_bytes()?, settings.workers_used(), live)?;
        if settings.compression_cpu.0 > 0.0 {
            split = split.compressing();
        }
        if live {
            // Before memory is taken: this is what goes wrong most.
            capture_rights()?;
            priority::raise_for_capture();
        }
        let interfaces = Arc::new(Interfaces::default());
        let own_streams = Arc::new(OwnStreams::default());
        let pins = Arc::new(Pins::new(split.pinned_bytes() * u64::from(split.workers)));
        let lock = match (live, inherited.is_empty()) {
            (false, _) => Lock::No,
            (true, true) => Lock::IfPermitted,
            // What was inherited is still there, and its memory comes free as it is taken over.
            (true, false) => Lock::AsUsed,
        };
        let mut made = make_pipelines(&settings, &split, &pins, lock)?;
        made.iter_mut().for_each(|pipeline| pipeline.leave_out(Arc::clone(&own_streams)));
        let compressors = make_compressors(&settings, &split, &mut made)?;
        let selection = live.then(|| Arc::new(InterfaceSelection::new(&settings.interface)));
        let sources = match &selection {
            Some(selection) => open_live(&settings, &split, selection, &interfaces)?,
            None => vec![open_replay(&settings, &interfaces)?],
        };
        // The audit log, keys and low ports take rights.
        let audit = Audit::open(settings.audit_log(), owner)?;
        let remote = RemoteListeners::new(&settings)?;
        // Who can connect can send a signal; and a thread in its role could not pass one on.
        let signals = HeldSignals::new().map_err(system("hold signals back"))?;
        let (listener, socket) = claim.bind(access)?;
        serve::open_files();
        let dropped = privileges::drop(settings.user.as_deref(), settings.no_drop_privileges)?;
        let sandbox = match settings.sandbox {
            SandboxMode::Off => Sandbox::none(),
            mode => Sandbox::enforce(mode, &path_rules(&settings, &audit), &dropped)?,
        };

        let before = if live {
            let before = inherited.take_over(&supervisor, now(), &interfaces, &pins, &mut made);
            let populated = made.iter().filter(|_| lock == Lock::AsUsed).try_for_each(Pipeline::populate);
            populated.map_err(|source| Error::Memory { budget: ByteSize(split.budget_bytes), source })?;
            before
        } else {
            inherited.discard(&supervisor);
            RestartReport::default()
        };
        let history = History {
            restart: before,
            workers: made.iter().map(Pipeline::worker).collect(),
            interfaces,
            memory: Memory {
                budget_bytes: split.budget_bytes,
                rings_bytes: split.rings_bytes(),
                queries_bytes: split.queries_bytes,
                compression_bytes: u64::from(split.workers) * split.compression_bytes,
            },
            capture_filter: settings.filter.clone().into(),
            capture_interfaces: settings.interface.clone().into(),
            community_id_seed: settings.community_id_seed.into(),
        };
        announce(&settings, &split, &history, &socket, &dropped, &sandbox, &audit);
        if let Some(why) = &not_locked {
            tracing::warn!("what answers and compression use beside the packets' memory is not locked in RAM: {why}");
        }
        remote.announce();
        Ok(Self {
            listener,
            own_streams,
            socket,
            pipelines: made.into_iter().zip(sources).collect(),
            compressors,
            history,
            selection,
            remote,
            audit,
            signals,
            sandbox,
            not_locked,
            settings,
            supervisor,
            answers_bytes: split.answers_bytes(),
        })
    }

    /// Runs until it is told to stop or cannot go on.
    pub(super) fn run(self, until: StopCondition, reload: Option<Reload>) -> Result<(), Error> {
        let Self {
            listener,
            own_streams,
            mut socket,
            pipelines,
            compressors,
            history,
            selection,
            answers_bytes,
            sandbox,
            not_locked,
            settings,
            supervisor,
            remote,
            audit,
            signals,
        } = self;
        let live = selection.is_some();
        let interfaces = Arc::clone(&history.interfaces);
        let in_role = |role| {
            let sandbox = sandbox.clone();
            move || sandbox.enter(role)
        };
        let monitor = selection
            .clone()
            .map(|selection| Monitor::start(selection, interfaces, in_role(Role::Interfaces)))
            .transpose();
        let monitor = monitor.map_err(system("watch the interfaces"))?;
        let recording = Arc::new(AtomicUsize::new(0));
        let mut workers = Workers::start(pipelines, compressors, &recording, &sandbox)?;
        if live {
            priority::normal();
        }
        let history = Arc::new(history);
        let recorder = Recorder {
            history: Arc::clone(&history),
            live,
            start: history.restart.since.unwrap_or_else(now),
            started: Instant::now(),
            recording,
            queries_bytes: answers_bytes,
        };
        let start = recorder.start;
        audit.start(in_role(Role::Audit)).map_err(system("start the audit log"))?;
        // Of its threads only those that may block are used: each query gets one. Whoever asks alone has the answer at
        // once, on a busy host too; a crowd gives way.
        let answers = Arc::new(AtomicUsize::new(0));
        let (begun, ended) = (Arc::clone(&answers), answers);
        let query = in_role(Role::Query);
        let queries = tokio::runtime::Builder::new_current_thread()
            .thread_name("retrocap-query")
            .on_thread_start(move || {
                if begun.fetch_add(1, Ordering::Relaxed) >= QUERIES_AT_NORMAL_PRIORITY && live {
                    priority::lower_for_crowd();
                }
                query();
            })
            .on_thread_stop(move || {
                ended.fetch_sub(1, Ordering::Relaxed);
            })
            .build()
            .map_err(system("start the queries"))?;
        let status = status_line(&recorder.history, live);
        // Whoever replays a capture may have to wait for it.
        let watched: Vec<_> = recorder.history.workers.iter().filter(|_| live).cloned().collect();
        let turns = move || watched.iter().map(|worker| worker.published.publications()).collect();
        let service = Service::new(recorder, settings.limits())
            .with_query_threads(queries.handle().clone())
            .with_sandbox(sandbox.status().clone(), sandbox.unrestricted_threads())
            .with_memory_not_locked(not_locked.map(|why| why.to_string()))
            .with_own_streams(own_streams)
            .with_tls(remote.tls.clone())
            .audited(audit);
        service.set_retention_target(settings.retention_target());
        let service = Arc::new(service);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SERVICE_THREADS)
            .thread_name("retrocap-serve")
            .on_thread_start(in_role(Role::Serve))
            .enable_all()
            .build()
            .map_err(system("start the service"))?;
        let mut reloader = Reloader {
            settings,
            reload,
            controls: workers.controls.clone(),
            selection,
            history: Arc::clone(&history),
            service: Arc::clone(&service),
            tls: remote.tls.clone(),
        };
        let ended = runtime.block_on(async {
            // Before anybody can be told that it runs.
            let mut hangup = signal(SignalKind::hangup()).map_err(system("listen for signals"))?;
            let until = until.listen()?;
            drop(signals);
            let listener = tokio::net::UnixListener::from_std(listener).map_err(system("start the service"))?;
            let (shutdown, shutdown_requested) = watch::channel(false);
            let mut others = remote.serve(&service, &shutdown_requested).map_err(system("start the service"))?;
            let mut serving = tokio::spawn(serve::serve(listener, service, shutdown_requested));
            supervisor.ready(&status);
            let alive = supervisor.watch(turns);
            tokio::pin!(until, alive);
            let ended = loop {
                tokio::select! {
                    why = &mut until => {
                        tracing::info!("stopping: {why}");
                        supervisor.stopping(why);
                        break Ok(());
                    }
                    error = workers.failure() => break Err(error),
                    error = monitor_ended(monitor.as_ref()) => break Err(error),
                    Some(()) = hangup.recv() => {
                        supervisor.reloading();
                        reloader.reload();
                        supervisor.ready(&status);
                    }
                    () = &mut alive => unreachable!("it never ends"),
                    _ = async { tokio::select! { _ = &mut serving => {}, Some(_) = others.join_next() => {} } } => {
                        let source = std::io::Error::other("the service has ended by itself");
                        return Err(Error::System { step: "go on serving", source });
                    }
                }
            };
            if let Err(error) = &ended {
                supervisor.stopping(&error.to_string());
            }
            socket.unlink();
            workers.stop();
            let _ = shutdown.send(true);
            let _ = serving.await;
            while others.join_next().await.is_some() {}
            ended
        });
        let pipelines = workers.finish();
        let stopped = now();
        runtime.shutdown_timeout(QUERIES_END_TIMEOUT);
        queries.shutdown_timeout(QUERIES_END_TIMEOUT);
        if let (Ok(()), true, Some(mut pipelines)) = (&ended, live, pipelines) {
            let before = RestartReport { since: Some(start), ..history.restart.clone() };
            let Some(pins) = history.workers.first().map(|worker| Arc::clone(&worker.pins)) else { return ended };
            let budget = history.memory.budget_bytes;
            handover::hand_over(&supervisor, budget, &before, stopped, &history.interfaces, &pins, &mut pipelines);
        }
        ended
    }
}

/// Waits until interfaces are no longer watched, which would be half a recorder.
async fn monitor_ended(monitor: Option<&Monitor>) -> Error {
    let Some(monitor) = monitor else { return std::future::pending().await };
    while monitor.is_watching() {
        tokio::time::sleep(MONITOR_CHECK_INTERVAL).await;
    }
    let source = std::io::Error::other("what watched them has ended; the log says why");
    Error::System { step: "go on watching the interfaces", source }
}

/// What `systemctl status` shows.
fn status_line(history: &History, live: bool) -> String {
    let budget = ByteSize(history.memory.budget_bytes);
    match (live, history.capture_interfaces.get().as_slice()) {
        (false, _) => format!("replaying a capture into {budget}"),
        (true, []) => format!("recording all interfaces into {budget}"),
        (true, names) => format!("recording {} into {budget}", names.join(", ")),
    }
}

impl StopCondition {
    /// Listens from now on; the future says what has come.
    fn listen(self) -> Result<impl Future<Output = &'static str>, Error> {
        let listen = |kind| signal(kind).map_err(system("listen for signals"));
        let (shutdown_requested, mut signals) = match self {
            Self::Requested(stop) => (Some(stop), None),
            Self::Signal => (None, Some((listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))),
        };
        Ok(async move {
            match (shutdown_requested, &mut signals) {
                (Some(stop), _) => {
                    let _ = stop.await;
                    "as requested"
                }
                (None, Some((terminate, interrupt))) => {
                    tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
                }
                (None, None) => unreachable!("it waits for one of the two"),
            }
        })
    }
}

fn make_pipelines(settings: &Settings, split: &Split, pins: &Arc<Pins>, lock: Lock) -> Result<Vec<Pipeline>, Error> {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let filter = settings.filter.as_deref().map(FilterSet::new).transpose()?;
    let classes =
        Classes::new(&settings.classes, split.store_bytes * u64::from(split.workers))?.shared_by(split.workers);
    (0..split.workers)
        .map(|_| {
            Pipeline::new(pipeline::Config {
                sessions_bytes: split.sessions_bytes,
                store_bytes: split.store_bytes,
                policy: settings.retention(),
                classes: classes.clone(),
                pins: Arc::clone(pins),
                pinned_bytes: split.pinned_bytes(),
                filter: filter.clone(),
                snaplen: settings.snaplen,
                lock,
                // Who sends packets must not know it.
                seed: RandomState::new().build_hasher().finish(),
            })
            .map_err(|source| Error::Memory { budget: ByteSize(split.budget_bytes), source })
        })
        .collect()
}

/// What compresses for each pipeline; nothing where no processor time is given to it.
fn make_compressors(
    settings: &Settings,
    split: &Split,
    pipelines: &mut [Pipeline],
) -> Result<Vec<(Compressor, Compression)>, Error> {
    let pace = if settings.is_live() { Pace::Live } else { Pace::Replay };
    // The share is of one core, however many workers there are.
    let percent = settings.compression_cpu.0 / f64::from(split.workers);
    let Some(compression) = split.compression(percent, pace) else { return Ok(Vec::new()) };
    pipelines
        .iter_mut()
        .map(|pipeline| Ok((pipeline.compress(&compression)?, compression)))
        .collect::<std::io::Result<_>>()
        .map_err(|source| Error::Memory { budget: ByteSize(split.budget_bytes), source })
}

fn open_live(
    settings: &Settings,
    split: &Split,
    selection: &Arc<InterfaceSelection>,
    interfaces: &Arc<Interfaces>,
) -> Result<Vec<PacketSource>, Error> {
    selection.refresh(links().map_err(system("list the interfaces"))?);
    selection.check()?;
    // The low half of the process's number: no other group of this host has it, short of 65,536 processes on.
    let [low, high, ..] = std::process::id().to_le_bytes();
    let live = LiveConfig {
        snaplen: settings.snaplen,
        promiscuous: settings.uses_promiscuous(),
        block_size: RING_BLOCK_BYTES,
        block_count: split.ring_blocks,
        fanout: (split.workers > 1).then_some(u16::from_le_bytes([low, high])),
    };
    let open = || LiveSource::open(&live, Arc::clone(selection), Arc::clone(interfaces));
    (0..split.workers).map(|_| Ok(PacketSource::Live(Box::new(open()?)))).collect()
}

fn open_replay(settings: &Settings, interfaces: &Arc<Interfaces>) -> Result<PacketSource, Error> {
    let Some(path) = &settings.replay else { unreachable!("only replays are opened as such") };
    let source = replay::open(path, settings.speed, Arc::clone(interfaces))?;
    Ok(match settings.speed {
        Speed::Max => PacketSource::File(Box::new(source)),
        Speed::Recorded => PacketSource::Paced(Box::new(PacedSource::new(source, 1.0))),
        Speed::Times(speed) => PacketSource::Paced(Box::new(PacedSource::new(source, speed))),
    })
}

/// Names in expressions, `port domain` say, are looked up here.
const NAME_FILES: [&str; 7] = [
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/networks",
    "/etc/hosts",
    "/etc/ethers",
    "/etc/host.conf",
];

/// What is opened while it records.
fn path_rules(settings: &Settings, audit: &Audit) -> PathRules {
    let mut readable: Vec<PathBuf> = NAME_FILES.map(PathBuf::from).into();
    // What it says of itself.
    readable.push("/proc/self".into());
    // Not the file itself: editors put another in its place.
    readable.extend(settings.file.as_deref().map(directory));
    if listeners::need_certificates(settings) {
        let files = settings.certificates();
        readable.extend([&files.ca, &files.cert, &files.key].map(|file| directory(file)));
    }
    let (who, log) = audit.needs();
    readable.extend(who.iter().map(PathBuf::from));
    let writable = log.map(Path::to_owned).into_iter().collect();
    PathRules { readable, writable, removable: vec![directory(&settings.socket)] }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The one line that says what runs.
fn announce(
    settings: &Settings,
    split: &Split,
    history: &History,
    socket: &Socket,
    dropped: &privileges::PrivilegeReport,
    sandbox: &Sandbox,
    audit: &Audit,
) {
    let what = match (&settings.replay, settings.interface.as_slice()) {
        (Some(path), _) if path.as_os_str() == "-" => "standard input".to_owned(),
        (Some(path), _) => path.display().to_string(),
        (None, []) => "all interfaces".to_owned(),
        (None, names) => names.join(", "),
    };
    let filter = settings.filter.as_deref().map(|filter| format!(" ({filter})")).unwrap_or_default();
    let workers = u64::from(split.workers);
    let locked = history.workers.iter().all(|worker| worker.segments.are_locked());
    tracing::info!(
        "recording {what}{filter} into {} (packets {}, sessions {}, kernel rings {}, queries {}; {}) with {workers} {}; \
         socket {} for {}; {dropped}; {sandbox}; {audit}",
        ByteSize(split.budget_bytes),
        ByteSize(workers * split.store_bytes),
        ByteSize(workers * split.sessions_bytes),
        ByteSize(split.rings_bytes()),
        ByteSize(split.queries_bytes),
        if locked { "locked in RAM" } else { "not locked, may be swapped out" },
        if workers == 1 { "worker" } else { "workers" },
        settings.socket.display(),
        if socket.for_group { "its owner and the group retrocap" } else { "its owner alone" },
    );
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::settings::Percent;

    /// It ends, says so, and leaves no socket that answers for half a recorder.
    #[test]
    fn a_worker_that_panics_ends_the_recorder() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let settings = Settings {
            socket: socket.clone(),
            memory: Some("16M".parse().unwrap()),
            replay: Some("/dev/null".into()),
            speed: Speed::Max,
            no_drop_privileges: true,
            compression_cpu: Percent(0.0),
            sandbox: SandboxMode::Off,
            ..Settings::default()
        };
        let mut prepared = Prepared::new(settings).unwrap();
        prepared.pipelines[0].1 = PacketSource::Panicking;
        let notify = directory.path().join("notify");
        let supervisor = UnixDatagram::bind(&notify).unwrap();
        supervisor.set_nonblocking(true).unwrap();
        prepared.supervisor = Supervisor::new(Some(notify.as_os_str()), None, None);
        // Nobody stops it.
        let (_stop, shutdown_requested) = oneshot::channel();
        let error = prepared.run(StopCondition::Requested(shutdown_requested), None).unwrap_err();
        assert!(matches!(error, Error::WorkerPanicked(0)), "{error}");
        assert!(error.to_string().contains("recording was stopped"), "{error}");
        assert!(!socket.exists(), "nobody is answered by half a recorder");
        let mut said = String::new();
        let mut buffer = [0; 256];
        while let Ok(length) = supervisor.recv(&mut buffer) {
            said += &String::from_utf8_lossy(&buffer[..length]);
        }
        assert!(said.contains("STOPPING=1\nSTATUS=worker 0 has failed"), "{said}");
    }
}
