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
#![forbid(unsafe_code)]

pub mod audit;
pub mod certificate;
mod connection_limiter;
mod connections;
mod flows;
mod follow;
mod health;
mod histogram;
mod horizon;
mod http;
mod metrics;
mod minimum_rate;
mod packets;
pub mod parameters;
pub mod pcap_over_ip;
pub mod peer;
pub mod pins;
pub mod problem;
pub mod selections;
mod stream;
pub mod tls;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

pub use connections::{Listener, serve, serve_pcap_over_ip};
pub use horizon::RetentionTarget;
pub use http::{OPENAPI, ROUTES};

use audit::Audit;
use base::time::Timestamp;
use engine::own_streams::OwnStreams;
use health::HealthHistory;
use histogram::Histogram;
use parameters::Clock;
use peer::{Peer, Role};
use problem::Problem;
use query::search::{SEARCH_SESSION_BYTES, SEARCH_SESSIONS_MAX, SELECTOR_BYTES, SearchLimits};
use query::status::{SandboxStatus, Status};
use query::{History, Reloadable};
use tls::Tls;

/// Panics of all threads since the process was started.
pub static PANICS: AtomicU64 = AtomicU64::new(0);

/// Bytes that a query of packets takes: chunks on their way, the stack of its thread, records read ahead,
/// parts of compressed segments.
pub const QUERY_COST_BYTES: u64 = 384 << 10;
/// Queries of packets that run at once at least, however small the budget.
pub const QUERIES_MIN: u64 = 8;
/// Bytes set aside for each byte of a list of selections: itself, and what is made of it.
const BODY_COST: u64 = 4;
/// Bytes set aside for a short list at least.
const SELECTORS_BYTES_MIN: u64 = 64 << 10;
/// KiB for sessions that a query is widened to, below which it is refused.
const SEARCH_KIB_MIN: u64 = 64;
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
    limits: Reloadable<Limits>,
    retention_target: Reloadable<RetentionTarget>,
    counters: ServiceCounters,
    health_history: HealthHistory,
    audit: Audit,
    tls: Option<Arc<Tls>>,
    /// Set when the recorder stops: answers are to end.
    stopping: Arc<AtomicBool>,
    packet_queries: Arc<Semaphore>,
    /// Told when a pin is made.
    pinned: Notify,
    /// Followers stay, so that they get half of the places at most.
    followers: Arc<Semaphore>,
    own_streams: Arc<OwnStreams>,
    /// In KiB.
    listing_memory: Arc<Semaphore>,
    listing_kib: u32,
    /// Where queries run; `None` for the runtime that serves.
    query_threads: Option<Handle>,
    sandbox: Option<SandboxStatus>,
    unrestricted_threads: Arc<AtomicU64>,
    /// Why memory that answers pass through may be swapped out.
    not_locked: Option<String>,
}

/// What the service has done, and does.
#[derive(Debug, Default)]
struct ServiceCounters {
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
    clients_revoked: AtomicU64,
    roles_refused: AtomicU64,
    /// From asking for packets or flows to the first byte of the answer.
    latency: Histogram,
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
            limits: limits.into(),
            retention_target: RetentionTarget::default().into(),
            counters: ServiceCounters::default(),
            health_history: HealthHistory::default(),
            audit: Audit::default(),
            tls: None,
            stopping: Arc::default(),
            pinned: Notify::new(),
            packet_queries: places(queries),
            followers: places(queries / 2),
            own_streams: Arc::default(),
            listing_memory: Arc::new(Semaphore::new(listing_kib as usize)),
            listing_kib,
            query_threads: None,
            sandbox: None,
            unrestricted_threads: Arc::default(),
            not_locked: None,
        }
    }

    /// Runs queries on threads of this runtime, which may do less than those that serve.
    pub fn with_query_threads(mut self, runtime: Handle) -> Self {
        self.query_threads = Some(runtime);
        self
    }

    /// Shows what is enforced on this process with its status, and how many threads are not held to their role.
    pub fn with_sandbox(mut self, sandbox: SandboxStatus, unrestricted_threads: Arc<AtomicU64>) -> Self {
        self.sandbox = Some(sandbox);
        self.unrestricted_threads = unrestricted_threads;
        self
    }

    /// Says why memory beside that of packets may be swapped out, if it may.
    pub fn with_memory_not_locked(mut self, why: Option<String>) -> Self {
        self.not_locked = why;
        self
    }

    /// Bears more or less from now on; connections keep the timeouts they began with.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.set(limits);
    }

    /// Wants to reach so far back from now on.
    pub fn set_retention_target(&self, target: RetentionTarget) {
        self.retention_target.set(target);
    }

    fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// Runs `work` on a thread where it may block, with the rights of a query.
    fn spawn_query<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // Packets are looked for and what is missing is explained by the same expression.
        let work = || filter::once(work);
        match &self.query_threads {
            Some(runtime) => runtime.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        }
    }

    /// Lets it say which connections of its own are not to be recorded: to the pipelines that have this list.
    #[must_use]
    pub fn with_own_streams(mut self, own_streams: Arc<OwnStreams>) -> Self {
        self.own_streams = own_streams;
        self
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
        let uptime_s = self.recorder.started.elapsed().as_secs_f64();
        let status = Status::new(self.history(), uptime_s, resident_bytes(), now());
        Status { sandbox: self.sandbox(), ..status }
    }

    /// What is enforced on this process, as of now.
    fn sandbox(&self) -> Option<SandboxStatus> {
        let threads = self.unrestricted_threads.load(Ordering::Relaxed);
        self.sandbox.clone().map(|sandbox| sandbox.with_unrestricted_threads(threads))
    }

    /// Why packets may be swapped out; `None` where they cannot be, or lie in a file anyway.
    fn not_locked(&self) -> Option<String> {
        let packets = self.history().workers.iter().all(|worker| worker.segments.are_locked());
        match &self.not_locked {
            _ if !self.recorder.live => None,
            _ if !packets => {
                Some("packets may be swapped out: start retrocap with CAP_IPC_LOCK or a higher `ulimit -l`".to_owned())
            }
            Some(why) if rustix::system::sysinfo().totalswap > 0 => Some(format!(
                "packets are locked in RAM, but on their way to a reader they may be swapped out: {why}; start retrocap with \
                 `ulimit -l unlimited`, or have no swap"
            )),
            // There is no swap.
            Some(_) | None => None,
        }
    }

    /// Whether somebody who was let in may still ask for this: the configuration may say otherwise since.
    fn may_still(&self, peer: &Peer, role: Role) -> bool {
        self.tls.as_ref().map_or_else(|| peer.may(role), |tls| tls.with_current_roles(peer.clone()).may(role))
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits for a place among the queries of packets.
    async fn packet_query(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.acquire(&self.packet_queries, 1, "queries of packets").await
    }

    /// Waits for a place among those that follow.
    async fn follower(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Problem> {
        let follower = self.acquire(&self.followers, 1, "followers").await?;
        Ok((follower, self.packet_query().await?))
    }

    /// Waits for memory to sort so many sessions in; gives also how many fit.
    async fn listing(&self, rows: u64) -> Result<(OwnedSemaphorePermit, u64), Problem> {
        let fixed = QUERY_COST_BYTES >> 10;
        let wanted = fixed + (rows.saturating_mul(ROW_BYTES) >> 10) + 1;
        let kib = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.listing_kib);
        let rows_max = (u64::from(kib).saturating_sub(fixed) << 10) / ROW_BYTES;
        Ok((self.acquire(&self.listing_memory, kib, "listings").await?, rows_max))
    }

    /// Waits for memory to widen packets to their sessions; gives also how many sessions fit.
    async fn widening(&self) -> Result<(OwnedSemaphorePermit, SearchLimits), Problem> {
        self.selections(0).await
    }

    /// Waits for memory for selections whose description has so many bytes.
    async fn selections(&self, body_bytes: u64) -> Result<(OwnedSemaphorePermit, SearchLimits), Problem> {
        let fixed = (QUERY_COST_BYTES + Self::selectors_bytes(body_bytes)) >> 10;
        let picks = (SEARCH_SESSIONS_MAX as u64 * SEARCH_SESSION_BYTES) >> 10;
        let all = u64::from(self.listing_kib);
        let room = all.saturating_sub(fixed);
        if room < SEARCH_KIB_MIN.min(all / 8) || body_bytes > selections::BODY_BYTES_MAX {
            let most = (all << 10).saturating_sub(QUERY_COST_BYTES + (SEARCH_KIB_MIN << 10)) / BODY_COST;
            return Err(Problem::body_too_large(most.min(selections::BODY_BYTES_MAX)));
        }
        let picks = picks.min(room);
        let sessions_max = usize::try_from((picks << 10) / SEARCH_SESSION_BYTES).unwrap_or(usize::MAX);
        let kib = u32::try_from(fixed + picks).unwrap_or(u32::MAX);
        Ok((self.acquire(&self.listing_memory, kib, "queries of many sessions").await?, SearchLimits { sessions_max }))
    }

    /// Bytes set aside for selections whose description has so many bytes.
    fn selectors_bytes(body_bytes: u64) -> u64 {
        body_bytes.saturating_mul(BODY_COST).max(SELECTORS_BYTES_MIN.min(body_bytes << 10))
    }

    /// Selections that fit into that.
    fn selectors_max(body_bytes: u64) -> u64 {
        Self::selectors_bytes(body_bytes) / SELECTOR_BYTES
    }

    async fn acquire(&self, among: &Arc<Semaphore>, count: u32, what: &str) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(among).acquire_many_owned(count);
        match tokio::time::timeout(self.limits().queue_timeout, place).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Problem::stopping()),
            Err(_) => {
                self.counters.queries_refused.fetch_add(1, Ordering::Relaxed);
                Err(Problem::busy(what))
            }
        }
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The process's memory as the system counts it.
static STATM: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/statm").ok());

/// Opens what the service reads later. Call it before files are out of reach.
pub fn open_files() {
    LazyLock::force(&STATM);
    // It is in a file, too, and remembered.
    rustix::param::page_size();
}

/// Bytes of this process that are in RAM; 0 where the system does not say.
fn resident_bytes() -> u64 {
    // A line of seven numbers; a thread that answers opens nothing.
    let mut statm = [0; 256];
    let read = STATM.as_ref().and_then(|statm_file| statm_file.read_at(&mut statm, 0).ok()).unwrap_or(0);
    let statm = String::from_utf8_lossy(&statm[..read]);
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
