//! How much traffic there was when, and how much of it is kept: sums over equal spans of time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::matching::SessionMatcher;
use super::turnover::Turnover;
use super::{History, QueryError, Request};
use base::foreign::Foreign;
use base::time::Timestamp;
use engine::session::Session;

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
    /// Sessions that began in the span.
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

/// Equal spans of time, and an amount for each.
struct Spans {
    since: u64,
    until: u64,
    width: u64,
    count: usize,
}

/// Amounts that are spread over time. Inner spans of one session have equal parts, which are added as differences, so that a
/// session costs the same however long it lasts.
struct Spread {
    exact: Vec<u64>,
    /// What changes from one span to the next.
    steps: Vec<i128>,
}

impl Spread {
    fn new(count: usize) -> Self {
        Self { exact: vec![0; count], steps: vec![0; count + 1] }
    }

    /// Spreads `amount` evenly between `first` and `last`, and adds the part that lies in the spans.
    fn add(&mut self, spans: &Spans, first: u64, last: u64, amount: u64) {
        if first >= spans.since && last < spans.until && spans.of(first) == spans.of(last) {
            // Most sessions are short, and the division below costs more than all the rest.
            self.exact[spans.of(first)] += amount;
            return;
        }
        let length = u128::from(last - first) + 1;
        // Of the amount, this much lies before a time.
        let before = |time: u64| -> u64 {
            let elapsed = u128::from(time.saturating_sub(first)).min(length);
            u64::try_from(u128::from(amount) * elapsed / length).unwrap_or(u64::MAX)
        };
        let (from, to) = (first.max(spans.since), last.min(spans.until - 1));
        let (first_span, last_span) = (spans.of(from), spans.of(to));
        let inside = before(to.saturating_add(1)) - before(from);
        if first_span == last_span {
            self.exact[first_span] += inside;
            return;
        }
        let in_first = before(spans.start(first_span + 1)) - before(from);
        let inner = (last_span - first_span - 1) as u64;
        let each = u64::try_from(u128::from(amount) * u128::from(spans.width) / length).unwrap_or(u64::MAX);
        // Rounding leaves less than one for each span.
        let each = (inside - in_first).checked_div(inner).map_or(0, |most| each.min(most));
        self.exact[first_span] += in_first;
        self.exact[last_span] += inside - in_first - each * inner;
        self.steps[first_span + 1] += i128::from(each);
        self.steps[last_span] -= i128::from(each);
    }

    fn sums(mut self) -> Vec<u64> {
        let mut level = 0;
        for (exact, step) in self.exact.iter_mut().zip(&self.steps) {
            level += step;
            *exact = exact.saturating_add(u64::try_from(level).unwrap_or(0));
        }
        self.exact
    }
}

impl Spans {
    fn new(since: Timestamp, until: Timestamp, count: u64) -> Self {
        let (since, last) = (since.0.min(until.0), until.0);
        let width = ((last - since) / count + 1).max(1);
        let count = (last - since) / width + 1;
        let until = since.saturating_add(width.saturating_mul(count));
        Self { since, until, width, count: usize::try_from(count).unwrap_or(1) }
    }

    fn of(&self, time: u64) -> usize {
        usize::try_from((time - self.since) / self.width).unwrap_or(usize::MAX).min(self.count - 1)
    }

    fn start(&self, span: usize) -> u64 {
        self.since.saturating_add(self.width.saturating_mul(span as u64))
    }
}

/// The counts of sessions that began in each span: all, and by what of them is kept.
struct Starts([Vec<u64>; 5]);

impl Starts {
    fn add(&mut self, span: usize, session: &Session) {
        let lost = session.lost();
        let has = [true, !lost.first_packet(), !lost.first_kb(), !lost.first_10kb(), session.is_whole()];
        for (counts, has) in self.0.iter_mut().zip(has) {
            counts[span] += u64::from(has);
        }
    }
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
        let until = request.until.unwrap_or_else(|| newest.max(since));
        let spans = Spans::new(since, until, count.clamp(1, BUCKETS_MAX));
        let mut starts = Starts(std::array::from_fn(|_| vec![0; spans.count]));
        let (mut bytes, mut kept_bytes) = (Spread::new(spans.count), Spread::new(spans.count));
        let mut matcher = SessionMatcher::new(self, request)?;
        let mut turnover = Turnover::new(self);
        let window = (Timestamp(spans.since), Timestamp(spans.until - 1));
        for (number, _) in (0u16..).zip(&self.workers) {
            turnover.read(self, number, window, |_, session| {
                if session.packets.sum() == 0 || !matcher.matches(number, session) {
                    return;
                }
                let (first, last) = (session.first.0, session.last.0.max(session.first.0));
                if first >= spans.since && first < spans.until {
                    starts.add(spans.of(first), session);
                }
                if last >= spans.since && first < spans.until {
                    bytes.add(&spans, first, last, session.bytes.sum());
                    kept_bytes.add(&spans, first, last, session.kept_bytes);
                }
            });
        }
        let [sessions, first_packet, first_kb, first_10kb, whole] = starts.0;
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn an_amount_is_spread_without_loss(
            since in 0u64..1000, length in 1u64..100_000, count in 1u64..700, first in 0u64..200_000, lasts in 0u64..200_000,
            amount in proptest::prelude::any::<u32>(),
        ) {
            let spans = Spans::new(Timestamp(since), Timestamp(since + length), count);
            proptest::prop_assert!(spans.count as u64 <= count && spans.until > since + length);
            let last = first + lasts;
            proptest::prop_assume!(last >= spans.since && first < spans.until);
            let mut spread = Spread::new(spans.count);
            spread.add(&spans, first, last, amount.into());
            let sums = spread.sums();
            let total: u64 = sums.iter().sum();
            if first >= spans.since && last < spans.until {
                proptest::prop_assert_eq!(total, u64::from(amount));
            }
            // No span has more than its part, but for what rounding leaves to the last one.
            let part = u128::from(amount) * u128::from(spans.width) / u128::from(lasts + 1);
            for sum in sums {
                proptest::prop_assert!(u128::from(sum) <= part + spans.count as u128 + 2);
            }
        }
    }
}
