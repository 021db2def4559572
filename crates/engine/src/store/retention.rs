//! The retention policy, and the clock of the store.
//!
//! The policy defines the weight of each rank, and the shares of the middle of sessions and of bulk. `store::eviction`
//! applies it.

use super::rank::Rank;
use base::time::Timestamp;

/// The weights, shares and classes by which memory is distributed.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    weights: [f64; Rank::COUNT],
    shares: [f64; 2],
    classes: Vec<RetentionTerms>,
}

/// The retention terms of a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetentionTerms {
    /// Retention time relative to other sessions; 1 is the default.
    pub weight: f64,
    /// Bytes of memory that other classes cannot take.
    pub reserve_bytes: u64,
}

/// Default weight of each rank within its band.
const WEIGHTS: [f64; Rank::COUNT] = [1.0, 1.64, 1.0, 1.2, 1.4, 3.5, 1.0];
/// Default shares of the middle of sessions and of bulk.
const SHARES: [f64; 2] = [0.195, 0.085];

impl Default for Policy {
    fn default() -> Self {
        Self::steepness(1.0)
    }
}

impl Policy {
    /// Raises the default weights and shares to the power of `alpha`. 1 gives the measured defaults. Towards 0, only
    /// age counts: whole sessions stay longer, and starts shorter. With 2, hardly anything but starts stays.
    pub fn steepness(alpha: f64) -> Self {
        Self::new(WEIGHTS.map(|weight| weight.powf(alpha)), SHARES.map(|share| share.powf(alpha)))
    }

    /// A policy of a weight for each rank, by which age is multiplied within its band, and of the shares of the middle
    /// of sessions and of bulk, from 0 to 1.
    ///
    /// Weights should rise within a band. The step should exceed the fill time of a segment relative to its age, or
    /// else a session loses an earlier part before a later one.
    pub fn new(weights: [f64; Rank::COUNT], shares: [f64; 2]) -> Self {
        Self { weights, shares, classes: Vec::new() }
    }

    /// Sets the classes, class 1 first. Class 0 holds all other sessions.
    #[must_use]
    pub fn with_classes(mut self, classes: Vec<RetentionTerms>) -> Self {
        self.classes = classes;
        self
    }

    /// The weight of each rank within its band.
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

    /// The terms of all classes except 0, class 1 first.
    pub(super) fn classes(&self) -> &[RetentionTerms] {
        &self.classes
    }
}

/// The clock of the store: it follows packet timestamps, never runs backwards, and limits each jump.
///
/// Ages are measured on it, so that a clock change or a suspended machine does not cause early eviction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    ticks_ns: u64,
    last: Option<Timestamp>,
}

/// A gap between packet timestamps adds at most this much age.
const LEAP_NS_MAX: u64 = 600 * 1_000_000_000;
/// A timestamp that is older than the latest by more than this is taken for a clock that was set back.
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

    /// Continues from the values of another clock, unless this one already runs.
    pub(super) fn take_over(&mut self, ticks_ns: u64, last: Timestamp) {
        if self.last.is_none() {
            (self.ticks_ns, self.last) = (ticks_ns, Some(last));
        }
    }

    /// The latest timestamp, where small disorder is ignored.
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
            (1_000_000, 0), // the first packet starts the clock
            (1_000_001, 1),
            (1_000_000, 1), // packets slightly out of order
            (1_000_002, 2),
            (996_400, 2), // the clock was set back by an hour
            (996_401, 3),
            (1_000_003, 603),  // the clock was set forward: a leap counts as ten minutes
            (1_086_403, 1203), // the machine slept for a day: ten minutes, too
        ] {
            clock.advance(Timestamp(stamp_s * second));
            assert_eq!(clock.ticks_ns() / second, ticks_s, "at {stamp_s}");
        }
    }
}
