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

pub mod audit;
pub mod certificate;
mod connections;
mod flows;
mod guests;
mod health;
mod http;
mod metrics;
mod packets;
pub mod parameters;
pub mod peer;
pub mod pins;
pub mod problem;
mod stream;
pub mod tls;
mod watched;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use connections::{Door, serve};
pub use http::{OPENAPI, ROUTES};

use crate::query::History;
use crate::query::status::Status;
use crate::time::Timestamp;
use audit::Audit;
use health::Drops;
use parameters::Clock;
use problem::Problem;
use tls::Tls;

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
    /// Connections to the socket at once; beyond them those that ask nothing are closed. Default 256.
    pub connections_max: usize,
    /// The same for each address where other machines connect. Default 64.
    pub remote_connections_max: usize,
    /// How long a client may take for its part of a TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a client may take for the head of a request, and again for its body. Default 10 s.
    pub head_timeout: Duration,
    /// How long a client may take nothing, or next to nothing, of what it is sent. Default 60 s.
    pub stall_timeout: Duration,
    /// How long a query waits for others to end. Default 5 s.
    pub queue_timeout: Duration,
    /// How long answers may take to end once the recorder stops. Default 600 ms.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            remote_connections_max: 64,
            handshake_timeout: Duration::from_secs(10),
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
    audit: Audit,
    tls: Option<Arc<Tls>>,
    /// Set when the recorder stops: answers are to end.
    stopping: Arc<AtomicBool>,
    packet_queries: Arc<Semaphore>,
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
    clients_crowded_out: AtomicU64,
    clients_slow: AtomicU64,
    clients_garbled: AtomicU64,
    clients_untrusted: AtomicU64,
    roles_refused: AtomicU64,
}

impl Service {
    /// A service that nobody has asked anything yet.
    pub fn new(recorder: Recorder, limits: Limits) -> Self {
        let half = recorder.queries_bytes / 2;
        let queries = (half / QUERY_COST_BYTES).max(QUERIES_MIN);
        let listing_kib = u32::try_from((half >> 10).max(QUERY_COST_BYTES >> 9)).unwrap_or(u32::MAX >> 4);
        Self {
            recorder,
            limits,
            activity: Activity::default(),
            drops: Drops::default(),
            audit: Audit::default(),
            tls: None,
            stopping: Arc::default(),
            packet_queries: Arc::new(Semaphore::new(usize::try_from(queries).unwrap_or(usize::MAX >> 4))),
            listing_memory: Arc::new(Semaphore::new(listing_kib as usize)),
            listing_kib,
        }
    }

    /// Writes down who reads.
    pub fn audited(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// Watches over the certificate that other machines are shown.
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    /// Where reads and pins are written down.
    pub fn audit(&self) -> &Audit {
        &self.audit
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
