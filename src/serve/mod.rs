//! The service: one HTTP/1.1 API on a Unix socket, for the command line, scripts and `curl --unix-socket`.
//!
//! ```text
//! connection ─► limits ─► router ─► parameters ─► a place among the queries ─► blocking thread: query ─► export
//!     ▲                                                                                                    │
//!     └───────────────────── body ◄── channel of two chunks, 64 KiB each ◄─────────────────────────────────┘
//! ```
//!
//! What always holds: handlers see the store through [`History`] alone, which never waits for a reader; what a client
//! makes the service hold is bounded, in bytes and in number, and counted; a client that stalls blocks its own query
//! and is closed; an answer that was cut short is marked as such, or its connection is closed before its end.

mod connections;
mod flows;
mod follow;
mod health;
mod http;
mod metrics;
mod packets;
pub mod parameters;
pub mod pcap_over_ip;
pub mod pins;
pub mod problem;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use connections::serve;
pub use http::{OPENAPI, ROUTES};

use crate::own_streams::OwnStreams;
use crate::query::History;
use crate::query::status::Status;
use crate::time::Timestamp;
use health::Drops;
use parameters::Clock;
use problem::Problem;

/// Bytes that a query of packets takes: chunks on their way, the stack of its thread, records read ahead.
pub const QUERY_COST_BYTES: u64 = 256 << 10;
/// Queries of packets that run at once at least, however small the budget.
pub const QUERIES_MIN: u64 = 8;
/// Bytes that a session takes in a listing that is being sorted.
const ROW_BYTES: u64 = 32;

/// What the service knows of the recorder.
#[derive(Debug)]
pub struct Recorder {
    /// All that is recorded.
    pub history: Arc<History>,
    /// Whether it records this host, or replays a capture.
    pub live: bool,
    /// When recording began.
    pub start: Timestamp,
    /// The same on the clock that is never set.
    pub started: Instant,
    /// Workers that record at this moment.
    pub recording: Arc<AtomicUsize>,
    /// Bytes for the buffers of all queries together.
    pub queries_bytes: u64,
}

/// How much the service bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones are closed. Default 512.
    pub connections_max: usize,
    /// How long a client may take for the head of a request. Default 10 s.
    pub head_timeout: Duration,
    /// How long a client may take nothing of what it is sent. Default 60 s.
    pub stall_timeout: Duration,
    /// How long a query waits for others to end. Default 5 s.
    pub queue_timeout: Duration,
    /// How long answers may take to end once the recorder stops. Default 600 ms.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            queue_timeout: Duration::from_secs(5),
            stop_timeout: Duration::from_millis(600),
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct Service {
    recorder: Recorder,
    limits: Limits,
    activity: Activity,
    drops: Drops,
    /// Set when the recorder stops: answers are to end.
    stopping: Arc<AtomicBool>,
    packet_queries: Arc<Semaphore>,
    /// Followers stay, so that they get half of the places at most.
    followers: Arc<Semaphore>,
    own_streams: Arc<OwnStreams>,
    /// In KiB.
    listing_memory: Arc<Semaphore>,
    listing_kib: u32,
}

/// What the service has done, and does.
#[derive(Debug, Default)]
struct Activity {
    connections: AtomicUsize,
    queries_running: AtomicUsize,
    packet_queries: AtomicU64,
    flow_queries: AtomicU64,
    queries_refused: AtomicU64,
    packets_sent: AtomicU64,
    packets_overtaken: AtomicU64,
    bytes_sent: AtomicU64,
    clients_stalled: AtomicU64,
    clients_refused: AtomicU64,
}

impl Service {
    /// A service that nobody has asked anything yet.
    pub fn new(recorder: Recorder, limits: Limits) -> Self {
        let half = recorder.queries_bytes / 2;
        let queries = (half / QUERY_COST_BYTES).max(QUERIES_MIN);
        let listing_kib = u32::try_from((half >> 10).max(QUERY_COST_BYTES >> 9)).unwrap_or(u32::MAX >> 4);
        let places = |queries: u64| Arc::new(Semaphore::new(usize::try_from(queries).unwrap_or(usize::MAX >> 4)));
        Self {
            recorder,
            limits,
            activity: Activity::default(),
            drops: Drops::default(),
            stopping: Arc::default(),
            packet_queries: places(queries),
            followers: places(queries / 2),
            own_streams: Arc::default(),
            listing_memory: Arc::new(Semaphore::new(listing_kib as usize)),
            listing_kib,
        }
    }

    /// Lets it say which connections of its own are not to be recorded: to the pipelines that have this list.
    #[must_use]
    pub fn with_own_streams(mut self, own_streams: Arc<OwnStreams>) -> Self {
        self.own_streams = own_streams;
        self
    }

    /// The recorder.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    fn history(&self) -> &Arc<History> {
        &self.recorder.history
    }

    /// What time it is for a question.
    fn clock(&self) -> Clock {
        Clock { now: now(), newest: self.history().totals().newest }
    }

    fn status(&self) -> Status {
        Status::new(self.history(), self.recorder.started.elapsed().as_secs_f64(), resident_bytes(), now())
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits for a place among the queries of packets.
    async fn packet_query(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.place(&self.packet_queries, 1, "queries of packets").await
    }

    /// Waits for a place among those that follow.
    async fn follower(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Problem> {
        let follower = self.place(&self.followers, 1, "followers").await?;
        Ok((follower, self.packet_query().await?))
    }

    /// Waits for memory to sort so many sessions in; gives also how many fit.
    async fn listing(&self, rows: u64) -> Result<(OwnedSemaphorePermit, u64), Problem> {
        let fixed = QUERY_COST_BYTES >> 10;
        let wanted = fixed + (rows.saturating_mul(ROW_BYTES) >> 10) + 1;
        let kib = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.listing_kib);
        let rows_max = (u64::from(kib).saturating_sub(fixed) << 10) / ROW_BYTES;
        Ok((self.place(&self.listing_memory, kib, "listings").await?, rows_max))
    }

    async fn place(&self, among: &Arc<Semaphore>, count: u32, what: &str) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(among).acquire_many_owned(count);
        match tokio::time::timeout(self.limits.queue_timeout, place).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Problem::stopping()),
            Err(_) => {
                self.activity.queries_refused.fetch_add(1, Ordering::Relaxed);
                Err(Problem::busy(what))
            }
        }
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Bytes of this process that are in RAM; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
