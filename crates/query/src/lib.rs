//! Queries over the recorded [`History`], answered while recording continues.
//!
//! A query never blocks the recorder. It reads segments, copies bytes, and then checks that the segment was not evicted
//! in the meantime. The memory of a query is bounded, however slowly its client reads.
#![forbid(unsafe_code)]

mod copies;
pub mod coverage;
pub mod explain;
pub mod flows;
mod follow;
mod found;
mod interfaces;
mod matching;
mod merge;
pub mod names;
mod notes;
mod page_mark;
mod remainder;
pub mod search;
pub mod selectors;
pub mod status;
pub mod sums;

use std::sync::{Arc, PoisonError, RwLock};

pub use follow::Follow;
pub use found::{Found, Summary};
pub use merge::Packets;
pub use notes::SearchNotes;
pub use remainder::Remainder;
use selectors::{Flow, PortRange, SessionSelectors, Subnet};

use base::counters::Totals;
use base::interface::Interfaces;
use base::packet::LinkType;
use base::time::Timestamp;
use engine::handover::RestartReport;
use engine::pipeline::Worker;
use engine::session::community_id::CommunityId;
use filter::{FilterError, FilterSet};

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

    /// The distinct link types of the known interfaces, sorted.
    pub fn link_types(&self) -> Vec<LinkType> {
        let mut types: Vec<LinkType> = self.interfaces.snapshot().iter().map(|i| i.link_type).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// The Community ID seed for the answer to `request`: its own, or else that of the history.
    pub fn seed(&self, request: &Request) -> u16 {
        request.community_id_seed.unwrap_or_else(|| self.community_id_seed.get())
    }

    /// Searches for the packets that match, in time order.
    ///
    /// # Errors
    ///
    /// If the window, the interface or the expression is invalid.
    pub fn packets(&self, request: &Request) -> Result<Packets<'_>, QueryError> {
        Packets::new(self, request)
    }

    /// Searches for the packets that match, then continues with new packets.
    ///
    /// # Errors
    ///
    /// If the window, the interface or the expression is invalid.
    pub fn follow(&self, request: &Request) -> Result<Follow<'_>, QueryError> {
        Follow::new(self, request)
    }

    /// Searches for the packets that `search` selects. Of `request`, the window, the flow and the Community ID are
    /// ignored.
    ///
    /// # Errors
    ///
    /// If the interface or the expression is invalid.
    pub fn searched(&self, request: &Request, search: search::Search) -> Result<Packets<'_>, QueryError> {
        Packets::searched(self, request, search)
    }
}

/// What to search for. A result meets all conditions that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Earliest time, inclusive.
    pub since: Option<Timestamp>,
    /// Latest time, inclusive.
    pub until: Option<Timestamp>,
    /// Maximum number of results.
    pub limit: Option<u64>,
    /// Name of the capture interface.
    pub interface: Option<String>,
    /// Community ID of the session.
    pub community_id: Option<CommunityId>,
    /// Seed of `community_id` and of the Community IDs in the answer; `None` for the seed of the history.
    pub community_id_seed: Option<u16>,
    /// The two endpoints of the session.
    pub flow: Option<Flow>,
    /// Address of one endpoint, or a network that contains it, also inside tunnels and VLAN tags.
    pub address: Option<Subnet>,
    /// Port of one endpoint, or a range that contains it.
    pub port: Option<PortRange>,
    /// tcpdump expression; empty matches every packet.
    pub expression: String,
    /// Whether to leave out further copies of packets that were captured twice.
    pub dedup: bool,
}

/// Why a request is invalid. The client can correct every such request.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The expression cannot be compiled.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The window ends before it begins.
    #[error("the window ends before it begins: --since {since} is after --until {until}; swap them")]
    InvertedWindow {
        /// Start of the window.
        since: Timestamp,
        /// End of the window.
        until: Timestamp,
    },
    /// No interface of this name is known.
    #[error("no interface {name:?} was recorded; there are: {known}{}", only(.asked))]
    UnknownInterface {
        /// The requested name.
        name: String,
        /// The known names, separated by commas.
        known: String,
        /// The interfaces that the recorder was told to record, separated by commas; empty for all.
        asked: String,
    },
}

fn only(asked: &str) -> String {
    if asked.is_empty() { String::new() } else { format!("; the recorder was started to record {asked} alone") }
}

impl Request {
    /// Whether the request has a condition on the headers of packets.
    fn names_content(&self) -> bool {
        !self.expression.trim().is_empty()
            || self.flow.is_some()
            || self.community_id.is_some()
            || self.address.is_some()
            || self.port.is_some()
    }

    fn window(&self) -> Result<(Timestamp, Timestamp), QueryError> {
        let since = self.since.unwrap_or(Timestamp::MIN);
        let until = self.until.unwrap_or(Timestamp::MAX);
        if since > until { Err(QueryError::InvertedWindow { since, until }) } else { Ok((since, until)) }
    }

    fn selectors(&self, history: &History) -> Result<SessionSelectors, QueryError> {
        SessionSelectors::new(self, history)
    }

    fn filter(&self, link_types: &[LinkType]) -> Result<Option<FilterSet>, QueryError> {
        if self.expression.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(FilterSet::for_these(&self.expression, link_types, &[])?))
    }
}

#[cfg(test)]
mod tests;
