//! Questions about the past, asked of a [`History`] while it goes on.
//!
//! A query never holds anything the recorder needs: it looks at segments, copies bytes, and asks afterwards whether
//! they were still there. What it holds itself is bounded, however slowly its reader reads.
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

/// How the byte budget is spent, as the status shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub budget_bytes: u64,
    /// Kernel rings.
    pub rings_bytes: u64,
    /// Buffers of queries.
    pub queries_bytes: u64,
    /// Buffers of compression.
    pub compression_bytes: u64,
}

/// All that is recorded, as readers see it.
#[derive(Debug)]
pub struct History {
    /// One for each worker.
    pub workers: Vec<Worker>,
    /// Where packets came from.
    pub interfaces: Arc<Interfaces>,
    /// The budget.
    pub memory: Memory,
    /// The expression that packets had to match to be recorded, if there is one.
    pub capture_filter: Reloadable<Option<String>>,
    /// The interfaces asked for; empty for all.
    pub capture_interfaces: Reloadable<Vec<String>>,
    /// What was taken over from the recorders before.
    pub restart: RestartReport,
    /// What Community IDs are made with where nothing else is said.
    pub community_id_seed: Reloadable<u16>,
}

/// What the user chose, and may choose anew while it records.
#[derive(Debug, Default)]
pub struct Reloadable<T>(RwLock<T>);

impl<T: Clone> Reloadable<T> {
    /// What holds now.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Chooses anew.
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
    /// The counts of all workers together.
    pub fn totals(&self) -> Totals {
        self.workers.iter().map(|worker| worker.published.totals()).fold(Totals::default(), Totals::and)
    }

    /// The earliest and the latest time of a kept packet.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.workers
            .iter()
            .flat_map(|worker| worker.segments.views())
            .filter(|segment| segment.packets > 0)
            .map(|segment| (segment.oldest, segment.newest))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Every packet newer than this is there; `None` while nothing was recorded.
    pub fn whole_since(&self) -> Option<Timestamp> {
        let lost = self.workers.iter().filter_map(|worker| worker.published.totals().lost_until).max();
        match lost {
            Some(lost) => Some(Timestamp(lost.0.saturating_add(1))),
            None => self.span().map(|(oldest, _)| oldest),
        }
    }

    /// The link types packets were recorded with.
    pub fn link_types(&self) -> Vec<LinkType> {
        let mut types: Vec<LinkType> = self.interfaces.snapshot().iter().map(|i| i.link_type).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// What Community IDs are made with in the answer to a request.
    pub fn seed(&self, request: &Request) -> u16 {
        request.community_id_seed.unwrap_or_else(|| self.community_id_seed.get())
    }

    /// The packets that match, in the order of their times.
    pub fn packets(&self, request: &Request) -> Result<Packets<'_>, QueryError> {
        Packets::new(self, request)
    }

    /// The packets that match, and then those that come.
    pub fn follow(&self, request: &Request) -> Result<Follow<'_>, QueryError> {
        Follow::new(self, request)
    }

    /// The packets that `search` wants, as far as the interface, the expression and the limit of `request` allow.
    pub fn searched(&self, request: &Request, search: search::Search) -> Result<Packets<'_>, QueryError> {
        Packets::searched(self, request, search)
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// No packet before this time.
    pub since: Option<Timestamp>,
    /// No packet after this time.
    pub until: Option<Timestamp>,
    /// The first so many of what matches.
    pub limit: Option<u64>,
    /// Only from interfaces of this name.
    pub interface: Option<String>,
    /// Only of the session with this name.
    pub community_id: Option<CommunityId>,
    /// The seed that name was made with, and sessions are named with; `None` for the one of the history.
    pub community_id_seed: Option<u16>,
    /// Only between these two.
    pub flow: Option<Flow>,
    /// Only with this address, or one of this network, at one end; in tunnels and behind VLAN tags too.
    pub address: Option<Subnet>,
    /// Only with one of these ports at one end.
    pub port: Option<PortRange>,
    /// A tcpdump expression; empty for everything.
    pub expression: String,
    /// Whether packets that were captured twice are given once.
    pub dedup: bool,
}

/// Why a question cannot be answered. All of them are the asker's to mend.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// libpcap does not understand the expression.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The window ends before it begins.
    #[error("the window ends before it begins: --since {since} is after --until {until}; swap them")]
    InvertedWindow {
        /// Its start.
        since: Timestamp,
        /// Its end.
        until: Timestamp,
    },
    /// No packet came from an interface of this name.
    #[error("no interface {name:?} was recorded; there are: {known}{}", only(.asked))]
    UnknownInterface {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
        /// What the recorder was told to record; empty for all.
        asked: String,
    },
}

fn only(asked: &str) -> String {
    if asked.is_empty() { String::new() } else { format!("; the recorder was started to record {asked} alone") }
}

impl Request {
    /// Whether it asks for something that stands in the headers of packets.
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
