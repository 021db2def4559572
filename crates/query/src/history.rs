//! Everything that is recorded, as readers see it.

use std::sync::{Arc, PoisonError, RwLock};

use super::logged::SessionLog;
use super::past_sums::PastSums;
use super::request::Request;
use base::counters::Totals;
use base::interface::Interfaces;
use base::packet::LinkType;
use base::time::Timestamp;
use engine::handover::RestartReport;
use engine::pipeline::Worker;
use engine::session::{BlockCache, Session};
use spool::archive::Archive;

/// Parts of the byte budget, as the status reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The whole budget.
    pub budget_bytes: u64,
    /// Kernel rings of all workers.
    pub rings_bytes: u64,
    /// Buffers reserved for queries.
    pub queries_bytes: u64,
    /// Buffers reserved for compression.
    pub compression_bytes: u64,
    /// Buffers and index of the spool.
    pub spool_bytes: u64,
}

/// Everything that is recorded, as readers see it.
#[derive(Debug)]
pub struct History {
    /// The readers' view of each worker.
    pub workers: Vec<Worker>,
    /// The table of capture interfaces.
    pub interfaces: Arc<Interfaces>,
    /// The parts of the byte budget.
    pub memory: Memory,
    /// The capture filter; `None` if every packet is recorded.
    pub capture_filter: Reloadable<Option<String>>,
    /// Names of the interfaces to record; empty for all.
    pub capture_interfaces: Reloadable<Vec<String>>,
    /// State taken over from earlier recorders, and the gaps between them.
    pub restart: RestartReport,
    /// Community ID seed for requests that give none.
    pub community_id_seed: Reloadable<u16>,
    /// The packets on disk, if there is a spool.
    pub disk: Option<Arc<dyn Archive>>,
    /// Sums over sessions of the past, which timelines use.
    pub past_sums: PastSums,
    /// Sessions of the past that listings have decompressed.
    pub past_blocks: BlockCache,
    /// The log of sessions on disk, if there is one.
    pub log: Option<Arc<dyn SessionLog>>,
    /// Whether the log is asked for sessions of all times: memory has only those that the log lacks.
    pub log_comes_first: bool,
}

/// A setting that the user can change while the recorder runs.
#[derive(Debug, Default)]
pub struct Reloadable<T>(RwLock<T>);

impl<T: Clone> Reloadable<T> {
    /// The current value.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<T> From<T> for Reloadable<T> {
    fn from(value: T) -> Self {
        Self(RwLock::new(value))
    }
}

impl History {
    /// The history of these workers, without a capture filter, a predecessor or a spool.
    pub fn new(workers: Vec<Worker>, interfaces: Arc<Interfaces>) -> Self {
        Self {
            workers,
            interfaces,
            memory: Memory::default(),
            capture_filter: Reloadable::default(),
            capture_interfaces: Reloadable::default(),
            restart: RestartReport::default(),
            community_id_seed: Reloadable::default(),
            disk: None,
            past_sums: PastSums::default(),
            past_blocks: BlockCache::default(),
            log: None,
            log_comes_first: false,
        }
    }

    /// Sums up the sessions that were archived since the last time, for timelines.
    pub fn sum_up_past(&self) {
        self.past_sums.extend(self.workers.iter().map(|worker| &*worker.sessions));
    }

    /// Bytes that these sums take at most.
    pub fn past_sums_bytes(&self) -> u64 {
        self.past_sums.bytes_max(self.workers.iter().map(|worker| &*worker.sessions))
    }

    /// Bytes that all answers share: these sums, and decompressed sessions.
    pub fn shared_bytes(&self) -> u64 {
        self.past_sums_bytes() + self.past_blocks.bytes_max()
    }

    /// Counters summed over all workers.
    pub fn totals(&self) -> Totals {
        self.workers.iter().map(|worker| worker.published.totals()).fold(Totals::default(), Totals::and)
    }

    /// Times of the oldest and the newest retained packet.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.workers
            .iter()
            .flat_map(|worker| worker.segments.views())
            .filter(|segment| segment.packets > 0)
            .map(|segment| (segment.oldest, segment.newest))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// The time from which every stored packet is retained; `None` while nothing has been recorded.
    pub fn whole_since(&self) -> Option<Timestamp> {
        let lost = self.workers.iter().filter_map(|worker| worker.published.totals().lost_until).max();
        match lost {
            Some(lost) => Some(Timestamp(lost.0.saturating_add(1))),
            None => self.span().map(|(oldest, _)| oldest),
        }
    }

    /// The time from which every stored packet is retained, and no restart left a gap; `None` while nothing has been
    /// recorded.
    pub fn everything_since(&self) -> Option<Timestamp> {
        let gap = self.restart.gaps.last().map(|gap| gap.until);
        self.whole_since().map(|whole| gap.map_or(whole, |gap| whole.max(gap)))
    }

    /// The distinct link types of the known interfaces, sorted.
    pub fn link_types(&self) -> Vec<LinkType> {
        let mut types: Vec<LinkType> = self.interfaces.snapshot().iter().map(|i| i.link_type).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// A number for a session of this worker that stays the same, also when the session moves to the archive.
    pub fn identity(&self, worker: u16, session: &Session) -> u64 {
        self.workers.get(usize::from(worker)).map_or(0, |worker| worker.sessions.identity(session))
    }

    /// The Community ID seed for the answer to `request`: its own, or else that of the history.
    pub fn seed(&self, request: &Request) -> u16 {
        request.community_id_seed.unwrap_or_else(|| self.community_id_seed.get())
    }
}
