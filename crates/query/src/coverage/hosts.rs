//! The hosts whose sessions use the most memory, with the memory bounded however many hosts there are.
//!
//! A first pass over all sessions finds candidates: every host with more than a small part of the bytes is among them
//! (the frequent-items algorithm of Misra and Gries, 1982, with counters purged in batches as in Anderson et al., "A
//! High-Performance Algorithm for Identifying Frequent Items in Data Streams", 2017). A second pass counts the
//! candidates exactly.

use std::cmp::Reverse;
use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use base::foreign::Foreign;
use engine::session::{Endpoint, Session};

/// Hosts with more than this part, as a divisor, of all retained bytes are found.
const PART: usize = 1024;

/// A host and what is retained of its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LargestHost {
    /// IP address; null if the sessions are not IP.
    pub ip: Option<Foreign>,
    /// Link-layer address, if the sessions are not IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Foreign>,
    /// Sessions with retained packets that have the host at one end. Each session counts for both of its ends.
    pub sessions: u64,
    /// Retained captured bytes of these sessions.
    pub kept_bytes: u64,
}

/// Hosts that may be among the largest.
#[derive(Default)]
pub(super) struct Candidates {
    /// Bytes of each host, less what was subtracted from all of them.
    bytes: HashMap<Endpoint, u64>,
}

impl Candidates {
    /// Counts the retained bytes of a session for both of its hosts.
    pub(super) fn add(&mut self, session: &Session) {
        for host in ends(session) {
            *self.bytes.entry(host).or_default() += session.kept_bytes;
        }
        if self.bytes.len() > 2 * PART {
            self.purge();
        }
    }

    /// Subtracts the median from all counters, and removes the half that has no more than that.
    fn purge(&mut self) {
        let mut all: Vec<u64> = self.bytes.values().copied().collect();
        let middle = all.len() / 2;
        let (_, &mut median, _) = all.select_nth_unstable(middle);
        self.bytes.retain(|_, bytes| {
            *bytes = bytes.saturating_sub(median);
            *bytes > 0
        });
    }

    /// The largest candidates, counted exactly over all sessions.
    pub(super) fn largest(self, sessions: impl Iterator<Item = Session>, count: usize) -> Vec<LargestHost> {
        let mut exact: HashMap<Endpoint, (u64, u64)> = self.bytes.into_keys().map(|host| (host, (0, 0))).collect();
        for session in sessions.filter(|session| session.kept_packets > 0) {
            for host in ends(&session) {
                if let Some((bytes, sessions)) = exact.get_mut(&host) {
                    (*bytes, *sessions) = (*bytes + session.kept_bytes, *sessions + 1);
                }
            }
        }
        let mut all: Vec<_> = exact.into_iter().filter(|(_, (bytes, _))| *bytes > 0).collect();
        all.sort_unstable_by_key(|(host, (bytes, _))| (Reverse(*bytes), host.ip, host.mac));
        let largest = all.into_iter().take(count);
        largest
            .map(|(host, (kept_bytes, sessions))| LargestHost {
                ip: host.ip.map(|ip| ip.to_string().into()),
                mac: host.mac.map(|_| host.to_string().into()),
                sessions,
                kept_bytes,
            })
            .collect()
    }
}

/// The hosts of a session: two, or one that talks to itself.
fn ends(session: &Session) -> impl Iterator<Item = Endpoint> {
    let [a, b] = [session.originator(), session.responder()].map(|end| Endpoint { port: 0, ..end });
    std::iter::once(a).chain((a != b).then_some(b))
}
