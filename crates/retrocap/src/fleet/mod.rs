//! Asks many recorders one question at a time, over TLS.
//!
//! ```text
//! host list / file / DNS SRV ─► recorders ─► one exchange each, a bounded number at a time ─► events ─► the caller
//! ```
//!
//! Invariants: every recorder ends with exactly one [`Ending`], which says whether it answered; so nobody takes silence for
//! "not seen". A recorder that sends nothing for [`PATIENCE`] gives its place to the next one, so that it delays nobody; at
//! the end only the timeout of the slowest is waited for. What one recorder may send is limited in total.

pub(crate) mod exchange;
pub(crate) mod hosts;
pub(crate) mod merge;
mod srv;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc};

use crate::client::remote::Remote;
use crate::client::tls::{Credentials, Peer};
use crate::options::Common;
use exchange::{AnswerKind, Ending, Event, Exchange, Outcome};

/// Silence after which an exchange gives its place to another.
const PATIENCE: Duration = Duration::from_secs(1);
/// Events that wait to be printed. Each holds at most a chunk of an answer.
const EVENTS_MAX: usize = 256;
/// Descriptors that the program needs beside its connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// The recorders that are asked.
#[derive(Debug)]
pub(crate) struct Fleet {
    recorders: Vec<Remote>,
    credentials: Option<Arc<Credentials>>,
    /// Exchanges at a time.
    parallel: usize,
    timeout: Duration,
}

impl Fleet {
    /// Reads the certificates once for all recorders.
    ///
    /// # Errors
    ///
    /// If a recorder takes TLS and the client's certificate or key cannot be read.
    pub(crate) fn new(
        recorders: Vec<Remote>,
        parallel: usize,
        timeout: Duration,
        common: &Common,
    ) -> anyhow::Result<Self> {
        let is_encrypted = recorders.iter().any(|recorder| !recorder.url.starts_with("http://"));
        let credentials = is_encrypted.then(|| Credentials::read(&common.files(), Peer::Recorder)).transpose()?;
        Ok(Self { recorders, credentials: credentials.map(Arc::new), parallel, timeout })
    }

    /// The names of the recorders, as they were given.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |url: &str| url.trim_start_matches("https://").trim_end_matches('/').to_owned();
        self.recorders.iter().map(|recorder| name(&recorder.url)).collect()
    }

    /// Sends the request for `target` to all recorders, and passes on what happens, until all have ended or `on_event`
    /// fails. After Ctrl-C the recorders that have not answered yet end as [`Outcome::Silent`].
    pub(crate) fn ask(
        &self,
        target: &str,
        kind: AnswerKind,
        mut on_event: impl FnMut(Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
        let connections = Arc::new(Semaphore::new(connections_max()));
        let slots = Arc::new(Semaphore::new(self.parallel));
        let (events, mut received) = mpsc::channel(EVENTS_MAX);
        for (recorder, remote) in self.recorders.iter().enumerate() {
            let exchange = Exchange {
                recorder,
                remote: remote.clone(),
                credentials: self.credentials.clone(),
                target: target.to_owned(),
                kind,
                timeout: self.timeout,
                progress: Arc::default(),
            };
            runtime.spawn(in_its_turn(exchange, Arc::clone(&connections), Arc::clone(&slots), events.clone()));
        }
        drop(events);
        let mut open: Vec<bool> = vec![true; self.recorders.len()];
        let asked: anyhow::Result<()> = runtime.block_on(async {
            let interrupted = tokio::signal::ctrl_c();
            tokio::pin!(interrupted);
            loop {
                let event = tokio::select! {
                    event = received.recv() => event,
                    _ = &mut interrupted => return Ok(()),
                };
                let Some(event) = event else { return Ok(()) };
                if let Event::Ended { recorder, .. } = &event {
                    open[*recorder] = false;
                }
                // Printing may wait for a slow reader; the exchanges then wait, too.
                tokio::task::block_in_place(|| on_event(event))?;
            }
        });
        runtime.shutdown_background();
        asked?;
        for (recorder, _) in open.iter().enumerate().filter(|(_, open)| **open) {
            let ending =
                Box::new(Ending::of(Outcome::Silent("it had not answered when you stopped asking".to_owned())));
            on_event(Event::Ended { recorder, ending })?;
        }
        Ok(())
    }
}

/// Waits for a place, and runs an exchange. An exchange that makes no progress gives its place away and goes on.
async fn in_its_turn(
    exchange: Exchange,
    connections: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    events: mpsc::Sender<Event>,
) {
    let (Ok(_connection), Ok(slot)) = (connections.acquire().await, slots.acquire().await) else { return };
    let mut slot = Some(slot);
    let (recorder, progress) = (exchange.recorder, Arc::clone(&exchange.progress));
    let running = exchange.run(&events);
    tokio::pin!(running);
    let mut seen = 0;
    let ending = loop {
        tokio::select! {
            ending = &mut running => break ending,
            () = tokio::time::sleep(PATIENCE) => {
                let now = progress.load(Ordering::Relaxed);
                if std::mem::replace(&mut seen, now) == now {
                    slot = None;
                }
            }
        }
    };
    drop(slot);
    let _ = events.send(Event::Ended { recorder, ending: Box::new(ending) }).await;
}

/// The most connections at a time. Raises the limit of open files as far as the process may.
#[cfg(unix)]
fn connections_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // A packet file of each recorder is open beside its connection.
    usize::try_from(files.saturating_sub(OTHER_DESCRIPTORS) / 2).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(not(unix))]
fn connections_max() -> usize {
    1024
}
