//! How much traffic there was when, and how much of it is kept: sums over equal spans of time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flows::MILLI_NS;
use super::matching::SessionMatcher;
use super::time_sums::{Spans, Sums};
use super::turnover::Turnover;
use super::{History, QueryError, Request};
use base::foreign::Foreign;
use base::time::Timestamp;

/// Spans of a timeline at most.
pub const BUCKETS_MAX: u64 = 4096;
/// Spans of a timeline, unless more or fewer are asked for.
pub const BUCKETS_DEFAULT: u64 = 600;

/// Sums over equal spans of time. Each list has one number for each span.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timeline {
    /// Start of the first span.
    #[schemars(extend("format" = "date-time"))]
    pub since: Foreign,
    /// End of the last span.
    #[schemars(extend("format" = "date-time"))]
    pub until: Foreign,
    /// Length of a span in nanoseconds.
    pub span_ns: u64,
    /// Sessions that began in the span. Very many sessions whose packets are gone are summed up by parts of the time, which
    /// are spread evenly over eight spans at most: then their number is exact, and the place is not.
    pub sessions: Vec<u64>,
    /// Their number with the first packet kept.
    pub first_packet: Vec<u64>,
    /// Their number with all packets of the first 1,024 bytes kept.
    pub first_kb: Vec<u64>,
    /// Their number with all packets of the first 10,240 bytes kept.
    pub first_10kb: Vec<u64>,
    /// Their number with all packets kept.
    pub whole: Vec<u64>,
    /// Bytes on the wire. Those of a session are spread evenly between its first and its last packet, so that the sum over all
    /// spans is exact and the place is not.
    pub bytes: Vec<u64>,
    /// Captured bytes of these that are kept, spread likewise.
    pub kept_bytes: Vec<u64>,
    /// Everything that was recorded is kept since then; null while nothing was recorded.
    #[schemars(extend("format" = "date-time"))]
    pub whole_since: Option<Foreign>,
    /// Times in which nothing was recorded.
    pub gaps: Vec<TimelineGap>,
    /// Times in which packets were lost, as far as they are known: the recorder looks every five seconds.
    pub drops: Vec<TimelineDrops>,
}

/// A time in which nothing was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimelineGap {
    /// Its start.
    #[schemars(extend("format" = "date-time"))]
    pub since: Foreign,
    /// Its end.
    #[schemars(extend("format" = "date-time"))]
    pub until: Foreign,
    /// The interface; empty for all.
    pub interface: Foreign,
}

/// A time in which packets were lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimelineDrops {
    /// Its start.
    #[schemars(extend("format" = "date-time"))]
    pub since: Foreign,
    /// Its end.
    #[schemars(extend("format" = "date-time"))]
    pub until: Foreign,
    /// Packets that the kernel dropped, or that the recorder had to drop.
    pub packets: u64,
}

impl History {
    /// The timeline of the sessions that match, in so many spans or one fewer; without drops, which the history does not know.
    ///
    /// # Errors
    ///
    /// As [`flows`](Self::flows).
    pub fn timeline(&self, request: &Request, count: u64) -> Result<Timeline, QueryError> {
        request.window()?;
        let known = self.workers.iter().filter_map(|worker| worker.sessions.earliest());
        let oldest = known.chain(self.span().map(|(oldest, _)| oldest)).min();
        let newest = self.totals().newest;
        let (Some(oldest), Some(newest)) = (oldest, newest) else { return Ok(Timeline::default()) };
        let since = request.since.unwrap_or(oldest);
        // The times of past sessions are whole milliseconds.
        let end = Timestamp(newest.0.checked_next_multiple_of(MILLI_NS).unwrap_or(newest.0));
        let until = request.until.unwrap_or_else(|| end.max(since));
        let spans = Spans::new(since, until, count.clamp(1, BUCKETS_MAX));
        let mut sums = Sums::new(spans);
        let selects = Request { since: None, until: None, limit: None, community_id_seed: None, ..request.clone() };
        if selects == Request::default() {
            self.sum_all(&mut sums);
        } else {
            self.sum_matching(request, &mut sums)?;
        }
        let Sums { spans, starts, past_starts, bytes, kept_bytes } = sums;
        let [mut sessions, first_packet, first_kb, first_10kb, whole] = starts.0;
        sessions.iter_mut().zip(past_starts.sums()).for_each(|(sessions, past)| *sessions += past);
        Ok(Timeline {
            since: Timestamp(spans.since).to_rfc3339().into(),
            until: Timestamp(spans.until).to_rfc3339().into(),
            span_ns: spans.width,
            sessions,
            first_packet,
            first_kb,
            first_10kb,
            whole,
            bytes: bytes.sums(),
            kept_bytes: kept_bytes.sums(),
            whole_since: self.everything_since().map(|time| time.to_rfc3339().into()),
            gaps: self.timeline_gaps(newest),
            drops: Vec::new(),
        })
    }

    /// Adds the sessions that match.
    fn sum_matching(&self, request: &Request, sums: &mut Sums) -> Result<(), QueryError> {
        let mut matcher = SessionMatcher::new(self, request)?;
        let mut turnover = Turnover::new(self);
        for (number, _) in (0u16..).zip(&self.workers) {
            turnover.read(self, number, sums.spans.window(), |_, session| {
                if matcher.matches(number, session) {
                    sums.add(&session.into());
                }
            });
        }
        Ok(())
    }

    /// Adds all sessions: those of the table one by one, and past ones from the sums that are kept of them.
    fn sum_all(&self, sums: &mut Sums) {
        self.sum_up_past();
        let mut turnover = Turnover::new(self);
        for (number, worker) in (0u16..).zip(&self.workers) {
            let past = turnover.read_spans(self, number, sums.spans.window(), |span| sums.add(span));
            self.past_sums.add_to(usize::from(number), &worker.sessions, past, sums);
        }
    }

    fn timeline_gaps(&self, newest: Timestamp) -> Vec<TimelineGap> {
        let time = |time: Timestamp| time.to_rfc3339().into();
        let restarts = self.restart.gaps.iter();
        let restarts = restarts.map(|gap| TimelineGap {
            since: time(gap.from),
            until: time(gap.until),
            interface: Foreign::default(),
        });
        let interfaces = self.interfaces.gaps().into_iter();
        let interfaces = interfaces.map(|gap| TimelineGap {
            since: time(gap.from),
            until: time(gap.until.unwrap_or(newest)),
            interface: gap.name.into(),
        });
        restarts.chain(interfaces).collect()
    }
}
