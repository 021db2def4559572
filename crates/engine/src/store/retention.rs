//! How memory is shared, and the store's own time.
//!
//! `store::eviction` uses these: the weight of each rank, and the shares of the middle of sessions and of bulk.

use super::rank::Rank;
use base::time::Timestamp;

/// How old sessions are shortened, and which are treated otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    weights: [f64; Rank::COUNT],
    shares: [f64; 2],
    classes: Vec<Terms>,
}

/// How the sessions of a class are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// How many times as long as others their packets stay.
    pub weight: f64,
    /// Bytes of memory that others cannot take from them.
    pub reserve_bytes: u64,
}

/// What each rank counts against age by default, within its band.
const WEIGHTS: [f64; Rank::COUNT] = [1.0, 1.64, 1.0, 1.2, 1.4, 3.5, 1.0];
/// The shares of the middle of sessions and of bulk.
const SHARES: [f64; 2] = [0.195, 0.085];

impl Default for Policy {
    fn default() -> Self {
        Self::steepness(1.0)
    }
}

impl Policy {
    /// Weights and shares to the power of `alpha`: 1 as measured; towards 0, where only age counts, whole sessions
    /// stay longer and starts shorter; with 2 hardly anything but starts stays.
    pub fn steepness(alpha: f64) -> Self {
        Self::new(WEIGHTS.map(|weight| weight.powf(alpha)), SHARES.map(|share| share.powf(alpha)))
    }

    /// What each rank counts against age within its band, and the shares of the middle of sessions and of bulk, from 0 to 1.
    /// Weights should rise within a band, by more than a segment's fill time in age, or else a session loses an
    /// earlier part before a later one.
    pub fn new(weights: [f64; Rank::COUNT], shares: [f64; 2]) -> Self {
        Self { weights, shares, classes: Vec::new() }
    }

    /// With classes, class 1 first; class 0 is everything else.
    #[must_use]
    pub fn with_classes(mut self, classes: Vec<Terms>) -> Self {
        self.classes = classes;
        self
    }

    /// The weight of each rank against age, within its band.
    pub fn weights(&self) -> &[f64; Rank::COUNT] {
        &self.weights
    }

    /// The shares of the middle of sessions and of bulk, out of `pages`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of pages is no more than these"
    )]
    pub fn share_pages(&self, pages: u32) -> [u32; 2] {
        self.shares.map(|share| (f64::from(pages) * share.clamp(0.0, 1.0)) as u32)
    }

    /// The terms of all classes but 0, class 1 first.
    pub(super) fn classes(&self) -> &[Terms] {
        &self.classes
    }
}

/// The store's own time: it runs with the packets' stamps, but never backwards and never in leaps.
///
/// Ages are measured on it, so that a clock that is set, or a machine that slept, evicts nothing early.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    ticks_ns: u64,
    last: Option<Timestamp>,
}

/// A gap in the packets' stamps counts as at most this much age.
const LEAP_NS_MAX: u64 = 600 * 1_000_000_000;
/// Stamps may be this much out of order without being taken for a clock that was set back.
const DISORDER_NS_MAX: u64 = 10 * 1_000_000_000;

impl Clock {
    pub(super) fn advance(&mut self, to: Timestamp) {
        match self.last {
            Some(last) if to >= last => {
                self.ticks_ns += (to.0 - last.0).min(LEAP_NS_MAX);
                self.last = Some(to);
            }
            Some(last) if last.0 - to.0 <= DISORDER_NS_MAX => {}
            _ => self.last = Some(to),
        }
    }

    /// Goes on from another clock, unless it runs already.
    pub(super) fn take_over(&mut self, ticks_ns: u64, last: Timestamp) {
        if self.last.is_none() {
            (self.ticks_ns, self.last) = (ticks_ns, Some(last));
        }
    }

    /// The packets' time, as far as stamps agree on it.
    pub(super) fn now(&self) -> Timestamp {
        self.last.unwrap_or(Timestamp::MIN)
    }

    pub(super) fn ticks_ns(&self) -> u64 {
        self.ticks_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_with_the_packets_and_ignores_steps() {
        let second = 1_000_000_000;
        let mut clock = Clock::default();
        for (stamp_s, ticks_s) in [
            (1_000_000, 0), // the first packet starts it
            (1_000_001, 1),
            (1_000_000, 1), // a little disorder
            (1_000_002, 2),
            (996_400, 2), // set back by an hour
            (996_401, 3),
            (1_000_003, 603),  // set forth again: a leap counts ten minutes
            (1_086_403, 1203), // a day asleep, too
        ] {
            clock.advance(Timestamp(stamp_s * second));
            assert_eq!(clock.ticks_ns() / second, ticks_s, "at {stamp_s}");
        }
    }
}
