//! Which segment goes when room is needed.
//!
//! The one with the highest `age × weight of its rank`, age being that of its first packet. So the deeper a packet lies
//! in its session, the younger it is when it goes: recent traffic stays whole and old sessions shrink from their end.

use super::rank::Rank;
use base::time::Timestamp;

/// How steeply old sessions are shortened, and which are treated otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    weights: [f64; Rank::COUNT],
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

/// What each rank counts against age by default.
///
/// Found by search on the campus workload (`make retention ARGS=--model`), then measured on the real pipeline. The first
/// kilobyte costs hardly more than the very start and stays nearly as long; from 512 KiB on, where a few elephants have most
/// of the bytes, the curve is flat, so that they go together and leave what is recent whole.
const CURVE: [f64; Rank::COUNT] = [
    1.15, 1.4, 11.5, 12.1, 12.4, 71.3, 282.0, 1806.0, 2408.0, 2606.0, 2684.0, 2764.0, 4012.0, 4298.0, 4426.0, 4559.0,
    4696.0, 4837.0, 4982.0, 5131.0, 5285.0, 5444.0, 5607.0, 5776.0, 5949.0, 6127.0, 6311.0,
];

impl Default for Policy {
    fn default() -> Self {
        Self::steepness(1.0)
    }
}

impl Policy {
    /// The default curve to the power of `alpha`: with 1 as measured; towards 0, where only age counts, whole sessions
    /// stay longer and starts shorter; with 2 hardly anything but starts stays.
    pub fn steepness(alpha: f64) -> Self {
        Self::from_weights(CURVE.map(|weight| weight.powf(alpha)))
    }

    /// A rank counts `2^alpha` times as much against age as the one before it: with 1, a packet twice as deep in its
    /// session stays half as long. 0 keeps the most recent packets, whatever their rank; 4 keeps hardly anything but
    /// starts.
    pub fn geometric(alpha: f64) -> Self {
        Self::from_weights(std::array::from_fn(|rank| (alpha * f64::from(u32::try_from(rank).unwrap_or(0))).exp2()))
    }

    /// What each rank counts against age. Only ratios matter: a rank with twice the weight of another goes at half its
    /// age. They should rise with the rank, by more than a segment's fill time in age, or else a session loses an
    /// earlier part before a later one.
    pub fn from_weights(weights: [f64; Rank::COUNT]) -> Self {
        Self { weights, classes: Vec::new() }
    }

    /// With classes, class 1 first; class 0 is everything else.
    #[must_use]
    pub fn with_classes(mut self, classes: Vec<Terms>) -> Self {
        self.classes = classes;
        self
    }

    /// The weight of each rank against age.
    pub fn weights(&self) -> &[f64; Rank::COUNT] {
        &self.weights
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
