//! How far back the memory would reach as a plain FIFO, and the share of memory that bulk gets by that.
//!
//! A fixed share for bulk is either too small where starts already reach back for days, or too large where they are
//! short of memory. The FIFO is the measure for both: starts are to reach [`STARTS_FIFOS`] times as far back as it
//! would. While they reach further, bulk takes memory from them, up to a fifth of the store.
//!
//! Elephants do not count, so that a single transfer does not change how much others keep.

/// Parts of the memory whose filling is timed.
const STEPS: usize = 64;
/// How far back starts reach, in multiples of the FIFO, before bulk gets more than its share.
const STARTS_FIFOS: f64 = 30.0;

/// The mean age of the oldest packet in a FIFO of the size of the store.
#[derive(Debug)]
pub(super) struct Reach {
    step_bytes: u64,
    /// Bytes since the last step.
    bytes: u64,
    /// When each of the last steps was completed.
    stepped_ns: [u64; STEPS],
    steps: u64,
    /// The mean, as of the last step, and when its first value was taken.
    mean_ns: f64,
    first_ns: u64,
    /// Older values count less in the mean.
    memory_ns: u64,
}

impl Reach {
    pub(super) fn new(store_bytes: u64) -> Self {
        Self {
            step_bytes: (store_bytes / STEPS as u64).max(1),
            bytes: 0,
            stepped_ns: [0; STEPS],
            steps: 0,
            mean_ns: 0.0,
            first_ns: 0,
            memory_ns: 0,
        }
    }

    /// Counts a packet of a session that is no elephant.
    #[inline]
    pub(super) fn count(&mut self, bytes: usize, now_ns: u64) {
        self.bytes += bytes as u64;
        if self.bytes >= self.step_bytes {
            self.bytes = 0;
            self.step(now_ns);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a mean need not be exact")]
    fn step(&mut self, now_ns: u64) {
        let at = usize::try_from(self.steps % STEPS as u64).unwrap_or(0);
        let before = self.stepped_ns[(at + STEPS - 1) % STEPS];
        let reach_ns = (now_ns - self.stepped_ns[at]) as f64;
        self.stepped_ns[at] = now_ns;
        self.steps += 1;
        if self.steps == STEPS as u64 + 1 {
            (self.first_ns, self.mean_ns) = (now_ns, reach_ns);
        } else if self.steps > STEPS as u64 {
            let memory_ns = (now_ns - self.first_ns).min(self.memory_ns).max(1);
            let weight = ((now_ns - before) as f64 / memory_ns as f64).min(1.0);
            self.mean_ns += (reach_ns - self.mean_ns) * weight;
        }
    }

    /// Sets the time over which the mean is taken: the age of the oldest start.
    pub(super) fn remember(&mut self, memory_ns: u64) {
        self.memory_ns = memory_ns;
    }

    /// Whether starts reach far enough, if `starts_ns` is age times weight of the start that would be evicted next.
    pub(super) fn is_plenty(&self, starts_ns: f64) -> bool {
        self.mean_ns > 0.0 && starts_ns > self.mean_ns * STARTS_FIFOS
    }
}
