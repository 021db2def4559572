//! How far back the history should reach.

use std::time::Duration;

/// How far back the history should reach; if it does not, `/v1/health` is degraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionTarget {
    /// For the starts of sessions.
    pub starts: Option<Duration>,
    /// For every packet.
    pub whole: Option<Duration>,
}
