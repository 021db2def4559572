//! State of the oracle: one list of segments, and what decides about them.

use retrocap::store::retention::Policy;

use super::fifo::Fifo;
use super::segments::{Queue, Record, Segment};
use super::sessions::Sessions;

/// Maximum number of pins.
pub(crate) const PINS: usize = 12;

/// Settings of a class.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) port: u16,
    pub(crate) weight: f64,
    pub(crate) cutoff: Option<u64>,
    pub(crate) reserve: u64,
}

/// Model of one worker.
pub(crate) struct Oracle {
    pub(crate) sessions: Sessions,
    pub(crate) policy: Policy,
    pub(crate) classes: Vec<Terms>,
    /// Port that each pin matches.
    pub(crate) pins: [Option<u16>; PINS],
    pub(crate) refused: [u64; PINS],
    pub(crate) pages: usize,
    pub(crate) pinned_pages_max: usize,
    pub(crate) segments: Vec<Segment>,
    pub(crate) ticks: u64,
    pub(crate) clock: Option<u64>,
    pub(crate) fifo: Fifo,
    pub(crate) plenty: bool,
    pub(crate) sequence: u64,
    pub(crate) dropped: (u64, u64),
    pub(crate) lost_until: Option<u64>,
    pub(crate) carried: u64,
    pub(crate) lost: u64,
}

impl Oracle {
    pub(crate) fn pages_where(&self, wanted: impl Fn(Queue) -> bool) -> usize {
        self.segments.iter().filter(|segment| wanted(segment.queue)).map(Segment::pages).sum()
    }

    /// When a record of a segment arrived, by its timestamp.
    pub(crate) fn ticks_of(&self, at: usize, record: &Record) -> u64 {
        let age = self.clock.unwrap_or(0).saturating_sub(record.time);
        self.segments[at].opened_ticks.max(self.ticks - age.min(self.ticks))
    }

    pub(crate) fn weight(&self, queue: Queue) -> f64 {
        let weights = self.policy.weights();
        match queue {
            Queue::Ranked { class, line, .. } => {
                let stays = class.checked_sub(1).map_or(1.0, |at| self.classes[usize::from(at)].weight);
                // Closing packets have the weight of rank 1.
                weights[line.checked_sub(2).map_or(1, usize::from)] / stays
            }
            Queue::Heads { .. } => weights[0],
            Queue::Pinned(_) => 0.0,
            Queue::Released => weights[weights.len() - 1],
        }
    }
}
