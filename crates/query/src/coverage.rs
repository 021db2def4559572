//! Session coverage: the share of a past period's sessions that is retained, and the sessions that use the most memory.
//!
//! The denominator is the number of sessions that began in the period, whether or not they are still known. It is
//! counted when a session begins ([`SessionArray::begun_since`](engine::session::SessionArray::begun_since)). The
//! numerators come from one pass over the session array, which holds every session with a retained packet. A session
//! without retained packets therefore counts as one that lost its start.

mod hosts;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::History;
use crate::flows::Flow;
use base::foreign::Foreign;
use base::time::Timestamp;
use engine::session::Session;
pub use hosts::LargestHost;

const MINUTE_NS: u64 = 60 * 1_000_000_000;
/// Name and length in nanoseconds of each period before now for which the status reports coverage. It also reports all
/// time.
pub const PERIODS: [(&str, u64); 4] =
    [("1m", MINUTE_NS), ("10m", 10 * MINUTE_NS), ("1h", 60 * MINUTE_NS), ("1d", 1440 * MINUTE_NS)];
/// Number of the largest sessions, and of the largest hosts, that the status lists.
const LARGEST: usize = 5;

/// Coverage of the sessions that began in one period. Shares range from 0 to 1, and are 1 if no session began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// The period before now, for example `1m` or `1d`; `all` for all time.
    #[schemars(extend("enum" = ["1m", "10m", "1h", "1d", "all"]))]
    pub period: Foreign,
    /// Sessions that began in the period, including forgotten ones.
    pub sessions: u64,
    /// Share of sessions whose first packet is retained.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub first_packet: f64,
    /// Share of sessions whose packets in the first 1,024 bytes on the wire are all retained.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub first_kb: f64,
    /// Share of sessions whose packets in the first 10,240 bytes on the wire are all retained.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub first_10kb: f64,
    /// Share of sessions whose packets are all retained.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub whole: f64,
}

/// A session and its retained bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Largest {
    /// The session.
    pub flow: Flow,
    /// Retained captured bytes.
    pub kept_bytes: u64,
}

/// Numbers of known sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionCounts {
    /// Live sessions.
    pub live: u64,
    /// Sessions that have ended.
    pub ledger: u64,
    /// Maximum number of sessions that are live or have retained packets.
    pub capacity: u64,
    /// Sessions of unanswered floods that were counted but not listed.
    #[serde(default)]
    pub unlisted: u64,
}

/// Result of one pass over all sessions.
pub(crate) struct SessionSummary {
    pub(crate) counts: SessionCounts,
    pub(crate) coverage: Vec<Coverage>,
    pub(crate) largest: Vec<Largest>,
    pub(crate) largest_hosts: Vec<LargestHost>,
}

/// Number of sessions in a period, and of those with first packet, first kB, first 10 kB and all packets retained.
#[derive(Clone, Copy, Default)]
struct Tally {
    since: Timestamp,
    sessions: u64,
    with: [u64; 4],
}

impl Tally {
    fn add(&mut self, session: &Session) {
        let lost = session.lost();
        let has = [!lost.first_packet(), !lost.first_kb(), !lost.first_10kb(), session.is_whole()];
        for (with, has) in self.with.iter_mut().zip(has) {
            *with += u64::from(has);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a share of two counts")]
    fn coverage(&self, period: &str) -> Coverage {
        // A reader can see a session before the count of begun sessions includes it.
        let sessions = self.with.iter().fold(self.sessions, |most, with| most.max(*with));
        let share = |with: u64| if sessions == 0 { 1.0 } else { with as f64 / sessions as f64 };
        let [first_packet, first_kb, first_10kb, whole] = self.with.map(share);
        Coverage { period: period.into(), sessions, first_packet, first_kb, first_10kb, whole }
    }
}

impl History {
    /// Visits every session in the arrays twice: linear time, and little memory beyond the answer.
    pub(crate) fn summarize_sessions(&self, now: Timestamp) -> SessionSummary {
        let mut counts = SessionCounts { live: 0, ledger: 0, capacity: 0, unlisted: 0 };
        let mut sums = [Tally::default(); PERIODS.len() + 1];
        // A min-heap: the smallest of these sessions is on top and is replaced first.
        let mut largest = BinaryHeap::with_capacity(LARGEST + 1);
        let mut hosts = hosts::Candidates::default();
        for (number, worker) in self.workers.iter().enumerate() {
            let array = &worker.sessions;
            counts.capacity += u64::from(array.capacity());
            counts.ledger += array.past();
            counts.unlisted += array.unlisted();
            let mut tallies = [Tally::default(); PERIODS.len() + 1];
            for (tally, (_, period_ns)) in tallies.iter_mut().zip(PERIODS) {
                (tally.since, tally.sessions) = array.begun_since(now, period_ns);
            }
            tallies[PERIODS.len()].sessions = array.begun();
            for session in array.sessions() {
                if session.ended(now) {
                    counts.ledger += 1;
                } else {
                    counts.live += 1;
                }
                if session.kept_packets == 0 {
                    continue;
                }
                tallies.iter_mut().filter(|tally| session.first >= tally.since).for_each(|tally| tally.add(&session));
                hosts.add(&session);
                largest.push(Reverse((session.kept_bytes, number, session.slot.0)));
                if largest.len() > LARGEST {
                    largest.pop();
                }
            }
            for (sum, tally) in sums.iter_mut().zip(tallies) {
                sum.sessions += tally.sessions;
                sum.with.iter_mut().zip(tally.with).for_each(|(sum, with)| *sum += with);
            }
        }
        let names = PERIODS.iter().map(|(name, _)| *name).chain(["all"]);
        SessionSummary {
            counts,
            coverage: names.zip(sums).map(|(name, sum)| sum.coverage(name)).collect(),
            largest: self.largest(largest.into_sorted_vec().into_iter().map(|Reverse(place)| place)),
            largest_hosts: hosts.largest(self.workers.iter().flat_map(|worker| worker.sessions.sessions()), LARGEST),
        }
    }

    /// Coverage of the sessions that began in the last `period` before `now`. Takes time linear in the sessions in the
    /// arrays.
    pub fn coverage(&self, now: Timestamp, period: std::time::Duration) -> Coverage {
        let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let mut sum = Tally::default();
        for worker in &self.workers {
            let (since, sessions) = worker.sessions.begun_since(now, period_ns);
            sum.sessions += sessions;
            let kept = worker.sessions.sessions().filter(|session| session.kept_packets > 0 && session.first >= since);
            kept.for_each(|session| sum.add(&session));
        }
        sum.coverage(&base::time::human_age(period))
    }

    fn largest(&self, places: impl Iterator<Item = (u64, usize, u32)>) -> Vec<Largest> {
        let interfaces = self.interfaces.snapshot();
        let seed = self.community_id_seed.get();
        let flow = |(_, worker, slot): (u64, usize, u32)| {
            let session = self.workers.get(worker)?.sessions.session(engine::session::SessionSlot(slot))?;
            let interface = interfaces.get(usize::from(session.key.interface().0));
            let flow = Flow::new(&session, interface.map(std::sync::Arc::as_ref), seed);
            Some(Largest { kept_bytes: session.kept_bytes, flow })
        };
        places.filter_map(flow).collect()
    }
}

#[cfg(test)]
mod tests;
