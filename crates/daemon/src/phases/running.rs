//! The last phase: threads record and answer, until something ends them.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sys::HeldSignals;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::resources::Resources;
use super::stop::StopCondition;
use crate::confinement::Confinement;
use crate::error::{Error, system};
use crate::handover;
use crate::listeners::RemoteListeners;
use crate::memory_limit::{BESIDE_BUDGET_BYTES, MemoryLimit};
use crate::notify::Supervisor;
use crate::priority;
use crate::process_names::Watcher;
use crate::record_seal::SealThread;
use crate::reload::{Reload, Reloader};
use crate::sandbox::Role;
use crate::session_log::{LogThread, RunningLog};
use crate::socket::Socket;
use crate::spool::{self, SpoolThread};
use crate::spool_gate::SpoolGate;
use crate::workers::Workers;
use base::time::Timestamp;
use capture::monitor::Monitor;
use capture::selection::InterfaceSelection;
use engine::budget::ByteSize;
use engine::handover::RestartReport;
use processes::table::SocketTable;
use query::History;
use serve::{self, Recorder, Service};

/// Queries that are answered at normal priority; further ones at the same time have a lower one.
const QUERIES_AT_NORMAL_PRIORITY: usize = 2;
/// Threads of the service, beside those of queries.
const SERVICE_THREADS: usize = 2;
/// The part of the memory for answers that names of processes may take, as a divisor.
const NAMES_SHARE: u64 = 4;
/// How long queries get to notice that the service has ended.
const QUERIES_END_TIMEOUT: Duration = Duration::from_millis(100);
/// How often the monitor of interfaces is checked.
const MONITOR_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A recorder that records and can answer.
pub struct Running {
    live: bool,
    start: Timestamp,
    monitor: Option<Monitor>,
    workers: Workers,
    spool: Option<SpoolThread>,
    log: Option<RunningLog>,
    seal: Option<SealThread>,
    history: Arc<History>,
    service: Arc<Service>,
    service_threads: Runtime,
    query_threads: Runtime,
    reloader: Reloader,
    listener: UnixListener,
    socket: Socket,
    remote: RemoteListeners,
    signals: HeldSignals,
    supervisor: Supervisor,
}

impl Running {
    pub(super) fn start(
        resources: Resources,
        confinement: &Confinement,
        history: History,
        reload: Option<Reload>,
    ) -> Result<Self, Error> {
        let Resources { settings, split, selection, audit, mut remote, mut pipelines, compressors, sources, .. } =
            resources;
        let before = spool::stored(&mut pipelines);
        let (live, history) = (settings.is_live(), Arc::new(history));
        let log = LogThread::new(resources.session_log, resources.spool.clone(), &settings, &history);
        let monitor = watch_interfaces(selection.clone(), &history, confinement)?;
        let recording = Arc::new(AtomicUsize::new(0));
        let gate = resources.spool.clone().filter(|_| !live).map(SpoolGate::new);
        let sources = pipelines.into_iter().zip(sources).collect();
        let workers = Workers::start(sources, compressors, &recording, gate, confinement)?;
        if live {
            priority::normal();
        }
        let start = history.restart.since.unwrap_or_else(now);
        let answers_bytes = split.answers_bytes().saturating_sub(history.shared_bytes());
        let (answers_bytes, names) = name_processes(resources.watcher, answers_bytes, confinement)?;
        let spool = spool::start(resources.spool, &settings, &history, before, confinement)?;
        let log = log.map(|log| log.start(names.clone(), confinement)).transpose()?;
        let recorder = Recorder {
            history: Arc::clone(&history),
            live,
            start,
            started: Instant::now(),
            recording,
            queries_bytes: answers_bytes,
        };
        audit.start(confinement.in_role(Role::Audit)).map_err(system("start the audit log"))?;
        let query_threads = query_threads(confinement, live)?;
        let service = Service::new(recorder, settings.limits())
            .with_query_threads(query_threads.handle().clone())
            .with_sandbox(confinement.sandbox.status().clone(), confinement.sandbox.unrestricted_threads())
            .with_memory_not_locked(resources.not_locked.map(|reason| reason.to_string()))
            .with_input(resources.input)
            .with_own_streams(resources.own_streams)
            .with_tls(remote.tls.clone())
            .with_page(remote.page.take())
            .attested(resources.attestation)
            .with_memory_limit(MemoryLimit::of_cgroup(), split.budget_bytes + BESIDE_BUDGET_BYTES)
            .with_processes(names)
            .audited(audit);
        service.set_retention_target(settings.retention_target());
        let service = Arc::new(service);
        let seal = SealThread::start(&service, settings.evidence_cpu, workers.clocks.clone(), confinement)?;
        let service_threads = service_threads(confinement)?;
        let reloader = Reloader {
            settings,
            reload,
            controls: workers.controls.clone(),
            selection,
            history: Arc::clone(&history),
            service: Arc::clone(&service),
            tls: remote.tls.clone(),
        };
        let Resources { listener, socket, signals, supervisor, .. } = resources;
        Ok(Self {
            live,
            start,
            monitor,
            workers,
            spool,
            log,
            seal,
            history,
            service,
            service_threads,
            query_threads,
            reloader,
            listener,
            socket,
            remote,
            signals,
            supervisor,
        })
    }

    /// Serves until `stop` occurs or the recorder cannot go on, then hands its history over to the next one.
    ///
    /// # Errors
    ///
    /// Why it could not go on.
    pub fn run(self, stop: StopCondition) -> Result<(), Error> {
        let Self {
            live,
            start,
            monitor,
            mut workers,
            spool,
            log,
            seal,
            history,
            service,
            mut reloader,
            mut socket,
            supervisor,
            ..
        } = self;
        let status = status_line(&history, live);
        // A replay may have to wait for its reader, so that its workers are not watched.
        let watched: Vec<_> = history.workers.iter().filter(|_| live).cloned().collect();
        let turns = move || watched.iter().map(|worker| worker.published.publications()).collect();
        let ended = self.service_threads.block_on(async {
            // Signals are listened for before the supervisor learns that the recorder runs.
            let mut hangup = signal(SignalKind::hangup()).map_err(system("listen for signals"))?;
            let stop = stop.listen()?;
            drop(self.signals);
            let listener = tokio::net::UnixListener::from_std(self.listener).map_err(system("start the service"))?;
            let (shutdown, shutdown_requested) = watch::channel(false);
            let mut remote = self.remote.serve(&service, &shutdown_requested).map_err(system("start the service"))?;
            let mut local = tokio::spawn(serve::serve(listener, service, shutdown_requested));
            supervisor.ready(&status);
            let watchdog = supervisor.watch(turns);
            tokio::pin!(stop, watchdog);
            let ended = loop {
                tokio::select! {
                    reason = &mut stop => {
                        tracing::info!("stopping: {reason}");
                        supervisor.stopping(reason);
                        break Ok(());
                    }
                    error = workers.failure() => break Err(error),
                    error = monitor_ended(monitor.as_ref()) => break Err(error),
                    Some(()) = hangup.recv() => {
                        supervisor.reloading();
                        reloader.reload();
                        supervisor.ready(&status);
                    }
                    () = &mut watchdog => unreachable!("it never ends"),
                    _ = async { tokio::select! { _ = &mut local => {}, Some(_) = remote.join_next() => {} } } => {
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
            let _ = local.await;
            while remote.join_next().await.is_some() {}
            ended
        });
        let pipelines = workers.finish();
        // What the workers stored last is written before memory is handed over.
        spool.into_iter().for_each(SpoolThread::finish);
        log.into_iter().for_each(RunningLog::finish);
        // A recorder that failed does not end in order, and its record does not say so.
        seal.into_iter().filter(|_| ended.is_ok()).for_each(SealThread::finish);
        let stopped = now();
        self.service_threads.shutdown_timeout(QUERIES_END_TIMEOUT);
        self.query_threads.shutdown_timeout(QUERIES_END_TIMEOUT);
        if let (Ok(()), true, Some(mut pipelines)) = (&ended, live, pipelines) {
            let before = RestartReport { since: Some(start), ..history.restart.clone() };
            let Some(pins) = history.workers.first().map(|worker| Arc::clone(&worker.pins)) else { return ended };
            let budget = history.memory.budget_bytes;
            handover::hand_over(&supervisor, budget, &before, stopped, &history.interfaces, &pins, &mut pipelines);
        }
        ended
    }
}

/// Follows the interfaces, in live capture.
fn watch_interfaces(
    selection: Option<Arc<InterfaceSelection>>,
    history: &History,
    confinement: &Confinement,
) -> Result<Option<Monitor>, Error> {
    let watched = selection.map(|selection| {
        let enter = confinement.in_role(Role::Interfaces);
        Monitor::start(selection, Arc::clone(&history.interfaces), enter)
    });
    watched.transpose().map_err(system("watch the interfaces"))
}

/// Names processes, if they are watched, in a part of the memory for answers. Returns what is left of that.
fn name_processes(
    watcher: Option<Watcher>,
    answers_bytes: u64,
    confinement: &Confinement,
) -> Result<(u64, Option<Arc<SocketTable>>), Error> {
    let Some(watcher) = watcher else { return Ok((answers_bytes, None)) };
    let names_bytes = answers_bytes / NAMES_SHARE;
    let table = watcher.listen(names_bytes, confinement.in_role(Role::Query))?;
    Ok((answers_bytes - names_bytes, Some(table)))
}

/// The runtime of the service.
fn service_threads(confinement: &Confinement) -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SERVICE_THREADS)
        .thread_name("retrocap-serve")
        .on_thread_start(confinement.in_role(Role::Serve))
        .enable_all()
        .build()
        .map_err(system("start the service"))
}

/// The runtime of queries. Each one gets a thread that may block; a crowd of queries runs at a lower priority, so that it
/// takes no processor time from other programs.
fn query_threads(confinement: &Confinement, live: bool) -> Result<Runtime, Error> {
    let running = Arc::new(AtomicUsize::new(0));
    let ended = Arc::clone(&running);
    let enter = confinement.in_role(Role::Query);
    tokio::runtime::Builder::new_current_thread()
        .thread_name("retrocap-query")
        .on_thread_start(move || {
            if running.fetch_add(1, Ordering::Relaxed) >= QUERIES_AT_NORMAL_PRIORITY && live {
                priority::lower_for_crowd();
            }
            enter();
        })
        .on_thread_stop(move || {
            ended.fetch_sub(1, Ordering::Relaxed);
        })
        .build()
        .map_err(system("start the queries"))
}

/// Waits until the monitor of interfaces ends, because without it new interfaces would be missed.
async fn monitor_ended(monitor: Option<&Monitor>) -> Error {
    let Some(monitor) = monitor else { return std::future::pending().await };
    while monitor.is_watching() {
        tokio::time::sleep(MONITOR_CHECK_INTERVAL).await;
    }
    let source = std::io::Error::other("the monitor of interfaces has ended; the log says why");
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

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
