//! Sums over equal spans of time, and amounts that are spread over them.

use base::time::Timestamp;
use engine::session::SessionSpan;

/// Equal spans of time, and an amount for each.
pub(super) struct Spans {
    pub(super) since: u64,
    /// The end of the last span, which is not in it.
    pub(super) until: u64,
    pub(super) width: u64,
    pub(super) count: usize,
}

/// Amounts that are spread over time. Inner spans of one session have equal parts, which are added as differences, so that a
/// session costs the same however long it lasts.
pub(super) struct Spread {
    exact: Vec<u64>,
    /// What changes from one span to the next.
    steps: Vec<i128>,
}

impl Spread {
    pub(super) fn new(count: usize) -> Self {
        Self { exact: vec![0; count], steps: vec![0; count + 1] }
    }

    /// Spreads `amount` evenly between `first` and `last`, and adds the part that lies in the spans.
    pub(super) fn add(&mut self, spans: &Spans, first: u64, last: u64, amount: u64) {
        if first >= spans.since && last < spans.until && spans.of(first) == spans.of(last) {
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

    pub(super) fn sums(mut self) -> Vec<u64> {
        let mut level = 0;
        for (exact, step) in self.exact.iter_mut().zip(&self.steps) {
            level += step;
            *exact = exact.saturating_add(u64::try_from(level).unwrap_or(0));
        }
        self.exact
    }
}

impl Spans {
    pub(super) fn new(since: Timestamp, until: Timestamp, count: u64) -> Self {
        let (since, last) = (since.0.min(until.0), until.0);
        let width = ((last - since) / count + 1).max(1);
        let count = (last - since) / width + 1;
        let until = since.saturating_add(width.saturating_mul(count));
        Self { since, until, width, count: usize::try_from(count).unwrap_or(1) }
    }

    pub(super) fn of(&self, time: u64) -> usize {
        usize::try_from((time - self.since) / self.width).unwrap_or(usize::MAX).min(self.count - 1)
    }

    /// The times that the spans cover.
    pub(super) fn window(&self) -> (Timestamp, Timestamp) {
        (Timestamp(self.since), Timestamp(self.until - 1))
    }

    fn start(&self, span: usize) -> u64 {
        self.since.saturating_add(self.width.saturating_mul(span as u64))
    }
}

/// Sums over spans of time.
pub(super) struct Sums {
    pub(super) spans: Spans,
    pub(super) starts: Starts,
    /// Sessions that began, of which only sums over a time are known; nothing of them is kept.
    pub(super) past_starts: Spread,
    pub(super) bytes: Spread,
    pub(super) kept_bytes: Spread,
}

impl Sums {
    pub(super) fn new(spans: Spans) -> Self {
        let count = spans.count;
        let starts = Starts(std::array::from_fn(|_| vec![0; count]));
        let [past_starts, bytes, kept_bytes] = std::array::from_fn(|_| Spread::new(count));
        Self { spans, starts, past_starts, bytes, kept_bytes }
    }

    /// Adds a session of the table.
    pub(super) fn add(&mut self, session: &SessionSpan) {
        let (spans, first, last) = (&self.spans, session.first.0, session.last.max(session.first).0);
        if session.packets == 0 || last < spans.since || first >= spans.until {
            return;
        }
        if first >= spans.since {
            let span = spans.of(first);
            self.starts.add(span, session);
            // Most sessions are short, and divisions cost more than all the rest.
            if last < spans.start(span + 1).min(spans.until) {
                self.bytes.exact[span] += session.bytes;
                self.kept_bytes.exact[span] += session.kept_bytes;
                return;
            }
        }
        self.bytes.add(spans, first, last, session.bytes);
        self.kept_bytes.add(spans, first, last, session.kept_bytes);
    }

    /// The number of past sessions that began, and the bytes, of each span.
    pub(super) fn into_cells(self) -> Vec<(u32, u64)> {
        let began = self.past_starts.sums().into_iter().map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        began.zip(self.bytes.sums()).collect()
    }

    /// Adds a past session.
    pub(super) fn add_past(&mut self, first: Timestamp, last: Timestamp, bytes: u64) {
        self.add_sum((first.0, last.0), (first.0, first.0), (1, bytes));
    }

    /// Adds a sum of past sessions: their bytes in a time, and how many began in a time.
    pub(super) fn add_sum(&mut self, carried: (u64, u64), began: (u64, u64), (sessions, bytes): (u64, u64)) {
        let Self { spans, past_starts, bytes: all, .. } = self;
        for (amounts, (first, last), amount) in [(past_starts, began, sessions), (all, carried, bytes)] {
            if amount > 0 && last >= spans.since && first < spans.until {
                amounts.add(spans, first, last, amount);
            }
        }
    }
}

/// The counts of sessions that began in each span: all, and by what of them is kept.
pub(super) struct Starts(pub(super) [Vec<u64>; 5]);

impl Starts {
    fn add(&mut self, span: usize, session: &SessionSpan) {
        let lost = session.lost();
        let has = [true, !lost.first_packet(), !lost.first_kb(), !lost.first_10kb(), session.is_whole()];
        for (counts, has) in self.0.iter_mut().zip(has) {
            counts[span] += u64::from(has);
        }
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
