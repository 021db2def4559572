//! What is searched for: targets, each within a window.

use std::net::IpAddr;

use crate::selectors::Flow;
use base::time::Timestamp;
use engine::session::community_id::CommunityId;

/// What a selector matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchTarget {
    /// Sessions between two endpoints.
    Flow(Flow),
    /// All sessions of a host.
    Host(IpAddr),
    /// The session with this Community ID.
    CommunityId(CommunityId),
}

impl std::fmt::Display for SearchTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flow(flow) => write!(f, "{flow}"),
            Self::Host(host) => write!(f, "{host}"),
            Self::CommunityId(id) => write!(f, "{id}"),
        }
    }
}

/// One selector: it matches the sessions of a target that had packets within a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The target.
    pub target: SearchTarget,
    /// Start of the window, inclusive.
    pub since: Timestamp,
    /// End of the window, inclusive.
    pub until: Timestamp,
}
