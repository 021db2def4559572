//! The thread that writes the spool.
//!
//! It reads memory as a query does, so that no worker waits for it. Its role may write in the spool's directory and do
//! nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::confinement::Confinement;
use super::error::Error;
use super::sandbox::Role;
use super::settings::Settings;
use base::time::Timestamp;
use engine::pipeline::Pipeline;
use query::History;
use spool::archive::SharedSpool;
use spool::catalogue::OpenReport;
use spool::directory::Directory;
use spool::follow::Follower;
use spool::key_file;
use spool::medium::Medium as _;
use spool::writer::{Options, Spool, SpoolState};

/// A spool in a directory.
pub(super) type DirectorySpool = SharedSpool<Arc<Directory>>;

/// Pause between two passes when everything is written.
const PAUSE: Duration = Duration::from_millis(100);
/// The same while a capture file waits for the disk.
const REPLAY_PAUSE: Duration = Duration::from_micros(200);
/// How often the progress is published.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// How long the thread may write what is left when the recorder stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of the thread's stack.
const STACK_BYTES: usize = 1 << 20;

/// Opens the directory of the spool while privileges are there. Its files belong to the recorder's user.
///
/// # Errors
///
/// If it cannot be used.
pub(super) fn open(path: &Path, key: Option<&Path>, owner: Option<(u32, u32)>) -> Result<Arc<DirectorySpool>, Error> {
    let keys = key.map(key_file::read).transpose().map_err(Error::SpoolKey)?.unwrap_or_default();
    let directory = Directory::open_to_write(path).map_err(Error::Spool)?.with_keys(keys);
    if let Some(key) = directory.keys().writing() {
        tracing::info!("new files of the spool are encrypted with the key {}", key.id());
    }
    if let Some((uid, gid)) = owner {
        directory.give_to(uid, gid).map_err(|source| Error::System { step: "give the spool to the user", source })?;
    }
    if directory.is_in_memory() {
        tracing::warn!("the spool {} is in memory (tmpfs): a reboot loses it", path.display());
    }
    Ok(Arc::new(SharedSpool::new(Arc::new(directory), path.display().to_string())))
}

/// How the settings want the spool written.
fn options(settings: &Settings) -> Options {
    Options {
        limit: settings.spool_size.limit(),
        keep: settings.spool_keep,
        level: u8::try_from(settings.spool_compression).ok().filter(|level| *level > 0),
        comments: vec![
            "retrocap spool: packets of similar depth in their sessions; other files contain the other depths"
                .to_owned(),
        ],
        keys_max: usize::try_from(settings.spool_memory_bytes(0) / 128).unwrap_or(usize::MAX),
    }
}

/// For each worker, the packets that it has stored so far. What was taken over from an earlier recorder is on disk already,
/// or was stored without a spool.
pub(super) fn stored(pipelines: &mut [Pipeline]) -> Vec<u64> {
    pipelines.iter_mut().for_each(Pipeline::publish);
    pipelines.iter().map(|pipeline| pipeline.worker().published.totals().stored.packets).collect()
}

/// Starts the thread, if there is a spool.
///
/// # Errors
///
/// When the system refuses a thread.
pub(super) fn start(
    shelf: Option<Arc<DirectorySpool>>,
    settings: &Settings,
    history: &Arc<History>,
    before: Vec<u64>,
    confinement: &Confinement,
) -> Result<Option<SpoolThread>, Error> {
    let pause = if settings.is_live() { PAUSE } else { REPLAY_PAUSE };
    let start = |shelf| SpoolThread::start(shelf, options(settings), pause, Arc::clone(history), before, confinement);
    shelf.map(start).transpose()
}

/// The running thread.
#[derive(Debug)]
pub(super) struct SpoolThread {
    thread: JoinHandle<()>,
    unlinking: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    stop_unlinking: Arc<AtomicBool>,
}

impl SpoolThread {
    /// Starts the thread. `before` has, for each worker, the number of packets that need not be written.
    fn start(
        shelf: Arc<DirectorySpool>,
        options: Options,
        pause: Duration,
        history: Arc<History>,
        before: Vec<u64>,
        confinement: &Confinement,
    ) -> Result<Self, Error> {
        let stop_unlinking = Arc::new(AtomicBool::new(false));
        let unlinking = start_unlinking(&shelf, &stop_unlinking, confinement)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (enter, stopped) = (confinement.in_role(Role::Spool), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("retrocap-spool".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                enter();
                run(&shelf, options, pause, &history, &before, &stopped);
            })
            .map_err(|source| Error::System { step: "start the thread of the spool", source })?;
        Ok(Self { thread, unlinking, stop, stop_unlinking })
    }

    /// Writes what is left and ends. Call it when the workers have ended.
    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.join();
        self.stop_unlinking.store(true, Ordering::Release);
        let _ = self.unlinking.join();
    }
}

/// Starts the thread that removes files.
fn start_unlinking(
    shelf: &Arc<DirectorySpool>,
    stop: &Arc<AtomicBool>,
    confinement: &Confinement,
) -> Result<JoinHandle<()>, Error> {
    let (enter, directory, stop) = (confinement.in_role(Role::Spool), Arc::clone(shelf.medium()), Arc::clone(stop));
    let queue = directory.unlink_in_background();
    std::thread::Builder::new()
        .name("retrocap-unlink".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            enter();
            directory.run_unlinks(&queue, &stop);
        })
        .map_err(|source| Error::System { step: "start the thread that removes files of the spool", source })
}

/// Lets go of a source that waits for the disk.
struct Released<'a>(&'a DirectorySpool);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.set_reached_bytes(None);
    }
}

fn run(
    shelf: &DirectorySpool,
    options: Options,
    pause: Duration,
    history: &History,
    before: &[u64],
    stop: &AtomicBool,
) {
    // However this ends, nobody waits for the disk any more.
    let _released = Released(shelf);
    let began = Instant::now();
    let (mut spool, opening) = match Spool::open(Arc::clone(shelf.medium()), options, now()) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!("the spool cannot be opened, so nothing is written to disk: {error}");
            return shelf.set_problem(error.to_string());
        }
    };
    report(&opening, began.elapsed());
    shelf.opened(spool.board());
    let mut follower = Follower::new(history.workers.clone(), Arc::clone(&history.interfaces), before);
    let mut shown = Instant::now();
    let mut state = SpoolState::Ok;
    while !stop.load(Ordering::Acquire) {
        let stored = follower.stored_bytes();
        let more = follower.pass(&mut spool, now());
        if spool.state() != SpoolState::Ok {
            shelf.set_reached_bytes(None);
        } else if !more {
            shelf.set_reached_bytes(Some(stored));
        }
        if spool.state() != state {
            state = spool.state();
            log_state(state, spool.problem());
        }
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            shelf.set_progress(follower.progress(&spool, now()));
        }
        if !more {
            std::thread::sleep(pause);
        }
    }
    shelf.set_reached_bytes(None);
    // The workers have ended: this is all there is.
    let end = Instant::now() + FINISH_TIMEOUT;
    while follower.pass(&mut spool, now()) && Instant::now() < end {}
    follower.finish_within(&mut spool, now());
    // Twice, because a loss counts when it is seen twice.
    follower.progress(&spool, now());
    let progress = follower.progress(&spool, now());
    spool.close(now());
    shelf.set_progress(progress);
    if progress.behind_packets > 0 {
        tracing::warn!("{} packets in memory were not written to the spool in time", progress.behind_packets);
    }
}

fn log_state(state: SpoolState, problem: Option<&str>) {
    let problem = problem.unwrap_or("no reason is known");
    match state {
        SpoolState::Ok => tracing::info!("the spool is written again"),
        SpoolState::Full => tracing::warn!("the spool is full: {problem}"),
        SpoolState::Failed => tracing::error!("the spool cannot be written: {problem}"),
    }
}

fn report(opening: &OpenReport, took: Duration) {
    let OpenReport { recovered, unconfirmed_bytes, removed, .. } = opening;
    if *recovered > 0 || *removed > 0 {
        tracing::info!(
            "the spool was not closed: {recovered} files were completed ({unconfirmed_bytes} bytes at their ends were \
             not confirmed) and {removed} without packets removed, in {took:.1?}"
        );
    }
    for (name, reason) in &opening.failed {
        tracing::warn!("the file {name} of the spool cannot be read: {reason}");
    }
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
