//! How far back a FIFO would reach, and the shares that depend on it.

/// An elephant has sent this part of the store, and the elephants of one queue may take as much again.
pub(crate) const ELEPHANT_SHARE: usize = 20;
/// Number of queues of elephants.
pub(crate) const ELEPHANTS: usize = 6;
/// While starts reach far, bulk has this part of the store, and begins at this depth.
pub(crate) const PLENTY_BULK_SHARE: usize = 5;
pub(crate) const PLENTY_MIDDLE: u64 = 63 << 10;
/// Starts reach far when they reach this many times as far as a FIFO, whose mean age is taken in 64 steps.
pub(crate) const STARTS_FIFOS: f64 = 30.0;
pub(crate) const STEPS: usize = 64;

/// How far back a FIFO of all bytes except those of elephants would reach.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fifo {
    bytes: usize,
    /// The ticks at which each 64th of the store was full.
    full_at: Vec<u64>,
    pub(crate) mean: f64,
    pub(crate) oldest_start: u64,
}

impl Fifo {
    #[allow(clippy::cast_precision_loss, reason = "as the rule is written")]
    pub(crate) fn count(&mut self, bytes: usize, store: usize, now: u64) {
        self.bytes += bytes;
        if self.bytes < store / STEPS {
            return;
        }
        self.bytes = 0;
        let before = self.full_at.last().copied();
        self.full_at.push(now);
        let steps = self.full_at.len() - 1;
        if steps < STEPS {
            return;
        }
        let reach = (now - self.full_at[steps - STEPS]) as f64;
        if steps == STEPS {
            self.mean = reach;
            return;
        }
        let memory = (now - self.full_at[STEPS]).min(self.oldest_start).max(1);
        let weight = (now - before.unwrap()) as f64 / memory as f64;
        self.mean += (reach - self.mean) * weight.min(1.0);
    }
}
