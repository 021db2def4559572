//! What all connections share: the recorder, the limits, and what answers may take of memory and time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::answer_memory::{AnswerMemory, CONTENTS_BYTES_MAX};
use super::attestation::Attestation;
use super::audit::Audit;
use super::clock::now;
use super::counters::ServiceCounters;
use super::drop_times::DropTimes;
use super::health_history::HealthHistory;
use super::page_port::PagePort;
use super::peer::Peer;
use super::quota::{Quota, Share};
use super::record::{SharedSealer, SharedSeals};
use super::retention_target::RetentionTarget;
use super::tls::Tls;
use api::bodies::SelectionList;
use api::parameters::Clock;
use api::{Problem, Role};
use base::log_limit::LogLimit;
use base::time::Timestamp;
use engine::own_streams::OwnStreams;
use formats::annotations::SharedReport;
use processes::table::SocketTable;
use query::listing::ROW_BYTES;
use query::search::{SEARCH_SESSION_BYTES, SEARCH_SESSIONS_MAX, SELECTOR_BYTES, SearchLimits};
use query::status::{InputStatus, ProcessNaming, SandboxStatus, Status};
use query::{History, Reloadable};

/// Bytes set aside for each byte of a list of selections: the byte itself, and its parsed form.
const BODY_COST: u64 = 4;
/// Bytes set aside for a short list of selections.
const SELECTORS_BYTES_MIN: u64 = 64 << 10;
/// KiB that a search for sessions needs; a query with less is refused.
const SEARCH_KIB_MIN: u64 = 64;
/// The recorder, as far as the service needs it.
#[derive(Debug)]
pub struct Recorder {
    /// The history.
    pub history: Arc<History>,
    /// Whether it records this host, or replays a capture.
    pub live: bool,
    /// When recording began.
    pub start: Timestamp,
    /// The same on the monotonic clock.
    pub started: Instant,
    /// Workers that are recording.
    pub recording: Arc<AtomicUsize>,
    /// Bytes for the buffers of all queries together.
    pub queries_bytes: u64,
}

/// The limits of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Connections to the socket at once; beyond that, connections without a request are closed. Default 256.
    pub connections_max: usize,
    /// The same for each address of the TCP listeners. Default 64.
    pub remote_connections_max: usize,
    /// How long a client may take for its part of a TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a client may take for the head of a request, and again for its body. Default 10 s.
    pub head_timeout: Duration,
    /// The window in which a client has to read at the minimum rate, while data waits for it. Default 60 s.
    pub stall_timeout: Duration,
    /// How long a query waits for its share of places and memory. Default 5 s.
    pub queue_timeout: Duration,
    /// How long answers have to end when the recorder stops. Default 600 ms.
    pub stop_timeout: Duration,
}

impl Default for ServiceLimits {
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
    pub(crate) recorder: Recorder,
    pub(crate) limits: Reloadable<ServiceLimits>,
    pub(crate) retention_target: Reloadable<RetentionTarget>,
    pub(crate) counters: ServiceCounters,
    pub(crate) health_history: HealthHistory,
    pub(crate) drop_times: DropTimes,
    /// The port of the page, if it is reserved.
    pub(crate) page: Option<Arc<PagePort>>,
    pub(crate) audit: Audit,
    /// What exports state about the recorder; `None` where files are read without one.
    pub(crate) attestation: Option<Arc<Attestation>>,
    /// Seals the record, if the recorder has a key.
    pub(crate) record: Option<SharedSealer>,
    /// The files of the spool that are sealed.
    pub(crate) spool_seals: SharedSeals,
    /// Set when all of them that were complete have been sealed for the first time.
    pub(crate) spool_was_sealed: AtomicBool,
    /// The processes of sessions, where they are watched.
    pub(crate) processes: Option<Arc<SocketTable>>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// The limit of a cgroup and what a search of contents needs, where that is more.
    pub(crate) no_memory_for_contents: Option<(u64, u64)>,
    /// Set when the recorder stops; answers then end.
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) packet_queries: Arc<Quota>,
    /// Notified when a pin is made.
    pub(crate) pinned: Notify,
    /// Followers run for long, so that they take half of the places at most.
    pub(crate) followers: Arc<Quota>,
    /// Answers that search contents take memory beside the budget, so that there is one at a time.
    pub(crate) contents: Arc<Quota>,
    pub(crate) own_streams: Arc<OwnStreams>,
    /// In KiB.
    pub(crate) listing_memory: Arc<Quota>,
    pub(crate) memory: AnswerMemory,
    /// The runtime of queries; `None` for the runtime that serves.
    pub(crate) query_threads: Option<Handle>,
    pub(crate) sandbox: Option<SandboxStatus>,
    pub(crate) unrestricted_threads: Arc<AtomicU64>,
    /// Why memory that answers pass through may be swapped out.
    pub(crate) not_locked: Option<String>,
    input: Option<SharedReport>,
}

impl Service {
    /// A service for this recorder.
    pub fn new(recorder: Recorder, limits: ServiceLimits) -> Self {
        let memory = AnswerMemory::new(recorder.queries_bytes);
        Self {
            recorder,
            limits: limits.into(),
            retention_target: RetentionTarget::default().into(),
            counters: ServiceCounters::default(),
            health_history: HealthHistory::default(),
            drop_times: DropTimes::default(),
            page: None,
            audit: Audit::default(),
            attestation: None,
            record: None,
            spool_seals: SharedSeals::default(),
            spool_was_sealed: AtomicBool::new(false),
            processes: None,
            tls: None,
            no_memory_for_contents: None,
            stopping: Arc::default(),
            pinned: Notify::new(),
            packet_queries: Quota::new(memory.places, 1),
            followers: Quota::new(memory.places / 2, 1),
            contents: Quota::new(1, 1),
            own_streams: Arc::default(),
            listing_memory: Quota::new(memory.listing_bytes >> 10, memory.listing_bytes_min() >> 10),
            memory,
            query_threads: None,
            sandbox: None,
            unrestricted_threads: Arc::default(),
            not_locked: None,
            input: None,
        }
    }

    /// Refuses searches of contents where the limit of a cgroup does not cover them beside `without_bytes`, which the
    /// process needs without them.
    pub fn with_memory_limit(mut self, limit_bytes: Option<u64>, without_bytes: u64) -> Self {
        let needed = without_bytes.saturating_add(CONTENTS_BYTES_MAX);
        self.no_memory_for_contents = limit_bytes.filter(|limit| *limit < needed).map(|limit| (limit, needed));
        self
    }

    /// Runs queries on threads of this runtime, which have fewer system calls than those that serve.
    pub fn with_query_threads(mut self, runtime: Handle) -> Self {
        self.query_threads = Some(runtime);
        self
    }

    /// Adds the sandbox to the status, and the number of threads that are not held to their role.
    pub fn with_sandbox(mut self, sandbox: SandboxStatus, unrestricted_threads: Arc<AtomicU64>) -> Self {
        self.sandbox = Some(sandbox);
        self.unrestricted_threads = unrestricted_threads;
        self
    }

    /// Adds what is read of a replayed capture file beside packets to the status.
    pub fn with_input(mut self, input: Option<SharedReport>) -> Self {
        self.input = input;
        self
    }

    /// Sets why memory beside that of packets may be swapped out, if it may.
    pub fn with_memory_not_locked(mut self, why: Option<String>) -> Self {
        self.not_locked = why;
        self
    }

    /// Changes the limits; open connections keep their timeouts.
    pub fn set_limits(&self, limits: ServiceLimits) {
        self.limits.set(limits);
    }

    /// Changes how far back the history should reach.
    pub fn set_retention_target(&self, target: RetentionTarget) {
        self.retention_target.set(target);
    }

    pub(crate) fn limits(&self) -> ServiceLimits {
        self.limits.get()
    }

    /// Runs `work` on a thread where it may block, with the system calls of a query.
    pub(crate) fn spawn_query<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // The search and the explanation of what is missing share one compiled expression.
        let work = || filter::once(work);
        match &self.query_threads {
            Some(runtime) => runtime.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        }
    }

    /// Sets the list through which pipelines learn which connections of the service are not recorded.
    #[must_use]
    pub fn with_own_streams(mut self, own_streams: Arc<OwnStreams>) -> Self {
        self.own_streams = own_streams;
        self
    }

    /// Sets the port of the page.
    #[must_use]
    pub fn with_page(self, page: Option<PagePort>) -> Self {
        Self { page: page.map(Arc::new), ..self }
    }

    /// Sets the audit log.
    pub fn audited(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// Sets what exports state about the recorder.
    #[must_use]
    pub fn attested(self, attestation: Arc<Attestation>) -> Self {
        let record = attestation.key.is_some().then(SharedSealer::default);
        Self { attestation: Some(attestation), record, ..self }
    }

    /// Sets the table of processes.
    #[must_use]
    pub fn with_processes(self, processes: Option<Arc<SocketTable>>) -> Self {
        Self { processes, ..self }
    }

    /// Sets the certificate that other machines are shown.
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The recorder.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(crate) fn history(&self) -> &Arc<History> {
        &self.recorder.history
    }

    /// The time that a question refers to.
    pub(crate) fn clock(&self) -> Clock {
        Clock { now: now(), newest: self.history().totals().newest }
    }

    pub(crate) fn status(&self) -> Status {
        let uptime_s = self.recorder.started.elapsed().as_secs_f64();
        let status = Status::new(self.history(), uptime_s, resident_bytes(), now());
        let input = self.input.as_ref().map(SharedReport::get);
        let input = input
            .map(|input| InputStatus::new(input.times_changed, input.times_missing, &input.found, &input.left_out));
        let processes = self.processes.as_deref().map(ProcessNaming::of);
        Status { sandbox: self.sandbox(), input, processes, ..status }
    }

    /// The sandbox, with the current number of unrestricted threads.
    pub(crate) fn sandbox(&self) -> Option<SandboxStatus> {
        let threads = self.unrestricted_threads.load(Ordering::Relaxed);
        self.sandbox.clone().map(|sandbox| sandbox.with_unrestricted_threads(threads))
    }

    /// Why packets may be swapped out; `None` where they cannot be, or come from a file anyway.
    pub(crate) fn not_locked(&self) -> Option<String> {
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

    /// Whether a connected client still has a role: the configuration may have changed.
    pub(crate) fn may_still(&self, peer: &Peer, role: Role) -> bool {
        self.tls.as_ref().map_or_else(|| peer.may(role), |tls| tls.with_current_roles(peer.clone()).may(role))
    }

    /// Whether the recorder is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits for a place among the queries of packets.
    pub(crate) async fn packet_query(&self, peer: &Peer) -> Result<Share, Problem> {
        self.take(&self.packet_queries, peer, 1, 1, "queries of packets").await
    }

    /// Waits until nobody else searches contents, and for a place among the queries.
    pub(crate) async fn content_query(&self, peer: &Peer) -> Result<(Share, Share), Problem> {
        if let Some((limit, needed)) = self.no_memory_for_contents {
            return Err(Problem::no_memory_for_contents(limit, needed));
        }
        let content = self.take(&self.contents, peer, 1, 1, "searches of contents").await?;
        Ok((content, self.packet_query(peer).await?))
    }

    /// Waits for a place among the followers, which stay, and for one among the queries.
    pub(crate) async fn follower(&self, peer: &Peer) -> Result<(Share, Share), Problem> {
        let follower = self.take(&self.followers, peer, 1, 1, "followers").await?;
        Ok((follower, self.packet_query(peer).await?))
    }

    /// As [`follower`](Self::follower), but refuses at once where there is no place.
    pub(crate) async fn follower_at_once(&self, peer: &Peer) -> Result<(Share, Share), Problem> {
        let follower = self.followers.try_take(&peer.holder(), 1, 1).ok_or_else(|| Problem::busy("followers"))?;
        Ok((follower, self.packet_query(peer).await?))
    }

    /// Waits for memory to sort up to `rows` sessions in; gives also how many fit.
    pub(crate) async fn listing(&self, peer: &Peer, rows: u64) -> Result<(Share, u64), Problem> {
        let (fixed, least) = (self.memory.listing_fixed_bytes() >> 10, self.memory.listing_bytes_min() >> 10);
        let wanted = fixed + (rows.saturating_mul(ROW_BYTES) >> 10) + 1;
        // One listing that is not read leaves room for another one, of root too.
        let wanted = wanted.min((self.memory.listing_bytes / 2) >> 10);
        let share = self.take(&self.listing_memory, peer, wanted.min(least), wanted, "listings").await?;
        let rows_max = (share.amount().saturating_sub(fixed) << 10) / ROW_BYTES;
        Ok((share, rows_max))
    }

    /// Waits for memory to widen packets to their sessions; gives also how many sessions fit.
    pub(crate) async fn widening(&self, peer: &Peer) -> Result<(Share, SearchLimits), Problem> {
        self.selections(peer, 0).await
    }

    /// As [`widening`](Self::widening), but at once, or not at all.
    pub(crate) fn widening_at_once(&self, peer: &Peer) -> Option<(Share, SearchLimits)> {
        let fixed = self.memory.query_bytes() >> 10;
        let wanted = fixed + ((SEARCH_SESSIONS_MAX as u64 * SEARCH_SESSION_BYTES) >> 10);
        let share = self.listing_memory.try_take(&peer.holder(), fixed + SEARCH_KIB_MIN, wanted)?;
        let search_bytes = (share.amount() - fixed) << 10;
        let sessions_max = usize::try_from(search_bytes / SEARCH_SESSION_BYTES).unwrap_or(usize::MAX);
        Some((share, SearchLimits { sessions_max }))
    }

    /// Waits for memory for selections whose description has so many bytes.
    pub(crate) async fn selections(&self, peer: &Peer, body_bytes: u64) -> Result<(Share, SearchLimits), Problem> {
        let fixed = (self.memory.query_bytes() + Self::selectors_bytes(body_bytes)) >> 10;
        let all = self.listing_memory.most(peer.holder().standing);
        let least = fixed + SEARCH_KIB_MIN.min(all / 8);
        if least > all || body_bytes > SelectionList::BODY_BYTES_MAX {
            let most = (all << 10).saturating_sub(self.memory.query_bytes() + (SEARCH_KIB_MIN << 10)) / BODY_COST;
            return Err(Problem::body_too_large(most.min(SelectionList::BODY_BYTES_MAX)));
        }
        let wanted = fixed + ((SEARCH_SESSIONS_MAX as u64 * SEARCH_SESSION_BYTES) >> 10);
        let share = self.take(&self.listing_memory, peer, least, wanted, "queries of many sessions").await?;
        let search_bytes = (share.amount() - fixed) << 10;
        let sessions_max = usize::try_from(search_bytes / SEARCH_SESSION_BYTES).unwrap_or(usize::MAX);
        Ok((share, SearchLimits { sessions_max }))
    }

    /// Bytes set aside for selections whose description has so many bytes.
    fn selectors_bytes(body_bytes: u64) -> u64 {
        body_bytes.saturating_mul(BODY_COST).max(SELECTORS_BYTES_MIN.min(body_bytes << 10))
    }

    /// Selections that fit into that.
    pub(crate) fn selectors_max(body_bytes: u64) -> u64 {
        Self::selectors_bytes(body_bytes) / SELECTOR_BYTES
    }

    async fn take(
        &self,
        quota: &Arc<Quota>,
        peer: &Peer,
        least: u64,
        wanted: u64,
        what: &str,
    ) -> Result<Share, Problem> {
        let share = quota.take(&peer.holder(), least, wanted, self.limits().queue_timeout).await;
        share.ok_or_else(|| {
            self.counters.queries_refused.fetch_add(1, Ordering::Relaxed);
            Problem::busy(what)
        })
    }

    /// Runs `work` on a thread where it may block; a panic there is a problem.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        self.spawn_query(work).await.map_err(|error| {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::error!("an answer failed: {error}{left_out}");
            }
            Problem::internal()
        })
    }
}

/// The memory of the process, as the kernel counts it.
static STATM: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/statm").ok());

/// Opens files that the service reads later. Call it before the sandbox is entered.
pub fn open_files() {
    LazyLock::force(&STATM);
    // The first call reads a file.
    rustix::param::page_size();
}

/// Resident bytes of this process; 0 where the kernel does not say.
fn resident_bytes() -> u64 {
    // A line of seven numbers.
    let mut statm = [0; 256];
    let read = STATM.as_ref().and_then(|statm_file| statm_file.read_at(&mut statm, 0).ok()).unwrap_or(0);
    let statm = String::from_utf8_lossy(&statm[..read]);
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
