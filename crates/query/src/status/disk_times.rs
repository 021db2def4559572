//! How long operations of a disk take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use spool::timings::{Durations, ENDS_US};

/// How long operations of the disk took since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskTimes {
    /// Operations.
    pub count: u64,
    /// Sum in microseconds.
    pub sum_us: u64,
    /// Operations by duration.
    pub buckets: Vec<DiskTimeBucket>,
}

/// Operations of a range of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskTimeBucket {
    /// Upper end in microseconds; null for all that took longer.
    pub up_to_us: Option<u64>,
    /// Operations.
    pub count: u64,
}

impl From<Durations> for DiskTimes {
    fn from(durations: Durations) -> Self {
        let ends = ENDS_US.into_iter().map(Some).chain([None]);
        let buckets = ends.zip(durations.counts).map(|(up_to_us, count)| DiskTimeBucket { up_to_us, count });
        Self { count: durations.counts.iter().sum(), sum_us: durations.sum_us, buckets: buckets.collect() }
    }
}
