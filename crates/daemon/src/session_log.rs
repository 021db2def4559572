//! The thread that writes the log of sessions.
//!
//! It reads memory as a query does, and has the role of the spool: it may write in the spool's directory and do nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::confinement::Confinement;
use super::error::Error;
use super::priority;
use super::sandbox::Role;
use super::settings::{Settings, SpoolSessions};
use super::spool::DirectorySpool;
use base::interface::Interfaces;
use base::log_limit::LogLimit;
use base::time::Timestamp;
use processes::table::SocketTable;
use query::History;
use query::logged::SessionLog;
use sessionlog::collect::{Collector, Due};
use sessionlog::row::{Observer, hour};
use sessionlog::shared::SharedLog;
use sessionlog::tree::LogTree;
use sessionlog::writer::LogWriter;
use spool::archive::{Archive as _, LogView};
use spool::medium::Medium as _;
use spool::writer::SpoolState;

/// Time between two looks at the sessions in memory.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How often the thread looks whether there is something to do.
const PAUSE: Duration = Duration::from_millis(200);
/// Time without packets after which a replayed capture counts as read.
const REPLAYED_AFTER: Duration = Duration::from_secs(3);
/// The log may take this part of the spool.
const SHARE_DIVISOR: u64 = 8;
/// Bytes of the thread's stack.
const STACK_BYTES: usize = 1 << 20;
/// Bytes of a session that is remembered from one hour to the next, while the next list is made.
const REMEMBERED_BYTES: u64 = 80;

/// Opens the log in the directory of the spool while privileges are there. Its files belong to the recorder's user.
///
/// # Errors
///
/// If it cannot be used.
pub(super) fn open(
    settings: &Settings,
    spool: Option<&Arc<DirectorySpool>>,
    owner: Option<(u32, u32)>,
    interfaces: &Arc<Interfaces>,
) -> Result<Option<Arc<LogHandle>>, Error> {
    let Some(spool) = spool.filter(|_| settings.spool_sessions != SpoolSessions::Off) else { return Ok(None) };
    let system = |source| Error::System { step: "open the log of sessions in the spool", source };
    let directory = spool.medium().descriptor().try_clone().map_err(system)?;
    let tree = LogTree::new(directory, spool.medium().keys().clone());
    tree.prepare(owner).map_err(system)?;
    let log = SharedLog::new(Arc::new(tree), Arc::clone(interfaces));
    Ok(Some(Arc::new(LogHandle(Arc::new(log)))))
}

/// The log of a spool.
#[derive(Debug)]
pub(super) struct LogHandle(Arc<SharedLog>);

impl LogHandle {
    /// The log for questions.
    pub(super) fn for_queries(&self) -> Arc<dyn SessionLog> {
        Arc::clone(&self.0) as _
    }
}

/// A log that is not written yet.
#[derive(Debug)]
pub(super) struct LogThread {
    log: Arc<SharedLog>,
    spool: Arc<DirectorySpool>,
    history: Arc<History>,
    collector: Collector,
    observer: Observer,
    live: bool,
    /// When files were finished last.
    closed: Instant,
}

impl LogThread {
    /// Looks at the sessions that are there. Call it before packets arrive, so that none is counted twice.
    pub(super) fn new(
        log: Option<Arc<LogHandle>>,
        spool: Option<Arc<DirectorySpool>>,
        settings: &Settings,
        history: &Arc<History>,
    ) -> Option<Self> {
        let (log, spool) = (Arc::clone(&log?.0), spool?);
        let remembered = settings.spool_memory_bytes(history.memory.budget_bytes) / 4 / REMEMBERED_BYTES;
        let remembered = usize::try_from(remembered).unwrap_or(usize::MAX);
        let newest = history.totals().newest.unwrap_or(Timestamp::MIN);
        let observer = Observer {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            with_community_id: settings.spool_sessions == SpoolSessions::Full,
            community_id_seed: settings.community_id_seed,
        };
        let collector = Collector::new(Arc::clone(history), remembered, newest);
        let (live, closed) = (settings.is_live(), Instant::now());
        Some(Self { log, spool, history: Arc::clone(history), collector, observer, live, closed })
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub(super) fn start(
        mut self,
        processes: Option<Arc<SocketTable>>,
        confinement: &Confinement,
    ) -> Result<RunningLog, Error> {
        self.collector.name_processes(processes);
        let stop = Arc::new(AtomicBool::new(false));
        let (enter, stopped) = (confinement.in_role(Role::Spool), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("retrocap-log".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                priority::lower_for_crowd();
                enter();
                self.run(&stopped);
            })
            .map_err(|source| Error::System { step: "start the thread of the log of sessions", source })?;
        Ok(RunningLog { thread, stop })
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut writer = match LogWriter::open(Arc::clone(&self.log), self.observer.clone()) {
            Ok(writer) => writer,
            Err(error) => {
                tracing::error!("the log of sessions cannot be opened, so none is written: {error}");
                return self.spool.set_log(LogView { problem: Some(error.to_string()), ..LogView::default() });
            }
        };
        let mut missed = 0;
        self.publish(&writer, missed);
        let mut looked = Instant::now();
        let mut quiet = (self.newest(), Instant::now());
        let mut current = hour(self.now());
        while !stop.load(Ordering::Acquire) {
            std::thread::sleep(PAUSE);
            let now = self.now();
            if self.newest() != quiet.0 {
                quiet = (self.newest(), Instant::now());
            } else if !self.live && quiet.1.elapsed() >= REPLAYED_AFTER && writer.is_behind(quiet.0) {
                // Nobody else would end the last hour of a capture.
                missed += self.look(&mut writer, now, None, Due::All);
                writer.reached(quiet.0);
                self.publish(&writer, missed);
            }
            let ends = Some(current).filter(|current| hour(now) != *current);
            if ends.is_some() || looked.elapsed() >= LOOK_INTERVAL || self.collector.must_hurry() {
                looked = Instant::now();
                current = hour(now);
                let due = if ends.is_some() { Due::Hour } else { Due::Ended };
                missed += self.look(&mut writer, now, ends, due);
                self.keep_size(&mut writer);
                self.publish(&writer, missed);
            }
        }
        // The workers have ended: this is all there is.
        let now = self.now();
        missed += self.look(&mut writer, now, None, Due::All);
        self.publish(&writer, missed);
    }

    /// The time by which sessions end: that of the system, or of the packets of a capture.
    fn now(&self) -> Timestamp {
        if self.live { std::time::SystemTime::now().into() } else { self.newest() }
    }

    fn newest(&self) -> Timestamp {
        self.history.totals().newest.unwrap_or(Timestamp::MIN)
    }

    /// Writes the sessions that are due, and finishes the files if an hour ends. Returns how many sessions were missed.
    fn look(&mut self, writer: &mut LogWriter, now: Timestamp, ends: Option<u64>, due: Due) -> u64 {
        let (failures, live) = (writer.counts().failures, self.live);
        self.collector.look(now, due, &mut |row| {
            let hour = LogWriter::hour_of(&row, ends.filter(|_| live));
            writer.put(row, hour, now);
        });
        let missed = self.collector.take_missed();
        writer.missed(missed);
        let known_since = self.history.sessions_since();
        if due != Due::Ended || (writer.is_forgotten(known_since) && self.closed.elapsed() >= LOOK_INTERVAL) {
            writer.close();
            self.closed = Instant::now();
        }
        // Answers have these when their file is finished.
        self.log.set_pending(if writer.is_forgotten(known_since) { writer.open_rows() } else { 0 });
        if writer.counts().failures > failures {
            static LIMIT: LogLimit = LogLimit::new();
            if let (Some(left_out), Some(problem)) = (LIMIT.admit(), &writer.counts().problem) {
                tracing::error!("the log of sessions cannot be written: {problem}{left_out}");
            }
        }
        missed
    }

    /// Removes old files, so that the log keeps its share, and packets find room when others fill the disk.
    fn keep_size(&self, writer: &mut LogWriter) {
        let Some(view) = self.spool.view() else { return };
        writer.shrink(view.budget_bytes / SHARE_DIVISOR);
        if view.state == SpoolState::Full {
            writer.remove_oldest();
        }
    }

    fn publish(&self, writer: &LogWriter, missed: u64) {
        let counts = writer.counts();
        self.spool.set_log(LogView {
            files: self.log.files().len() as u64,
            bytes: writer.bytes(),
            oldest: self.log.span().map(|(oldest, _)| oldest),
            rows: counts.rows,
            missed,
            lost_rows: counts.lost_rows,
            removed_files: counts.removed_files,
            problem: counts.problem.clone(),
        });
    }
}

/// The running thread.
#[derive(Debug)]
pub(super) struct RunningLog {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl RunningLog {
    /// Writes what is left and ends. Call it when the workers have ended, and before the spool ends.
    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.join();
    }
}
