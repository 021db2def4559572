//! What to search for.

use super::selectors::{Flow, PortRange, Subnet};
use base::packet::LinkType;
use base::time::Timestamp;
use engine::session::community_id::CommunityId;
use filter::{FilterError, FilterSet};

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
    /// Where to search; `None` for memory and disk.
    pub tier: Option<Tier>,
}

/// Where packets are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The recorder's memory.
    Memory,
    /// The spool.
    Disk,
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
    pub fn names_content(&self) -> bool {
        !self.expression.trim().is_empty()
            || self.flow.is_some()
            || self.community_id.is_some()
            || self.address.is_some()
            || self.port.is_some()
    }

    pub(super) fn window(&self) -> Result<(Timestamp, Timestamp), QueryError> {
        let since = self.since.unwrap_or(Timestamp::MIN);
        let until = self.until.unwrap_or(Timestamp::MAX);
        if since > until { Err(QueryError::InvertedWindow { since, until }) } else { Ok((since, until)) }
    }

    pub(super) fn filter(&self, link_types: &[LinkType]) -> Result<Option<FilterSet>, QueryError> {
        if self.expression.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(FilterSet::for_these(&self.expression, link_types, &[])?))
    }
}
