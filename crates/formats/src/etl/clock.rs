//! The clocks of traces.

/// Times between 1601 and 1970, in units of 100 ns.
const FROM_1601_TO_1970: i128 = 116_444_736_000_000_000;
const UNITS_PER_SECOND: i128 = 10_000_000;

/// What the times of events count.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// Units of 100 ns since 1601.
    System,
    /// Ticks of a counter, which had this value at the start of the trace.
    Counter { ticks_per_second: i64, at_start: i64, start: i64 },
}

impl Clock {
    /// Returns the time of an event since 1970, in units of 100 ns.
    pub(super) fn time(self, ticks: i64) -> u64 {
        let since_1601 = match self {
            Self::System => i128::from(ticks),
            Self::Counter { ticks_per_second, at_start, start } => {
                let passed = i128::from(ticks) - i128::from(at_start);
                let units = (passed * UNITS_PER_SECOND).checked_div(i128::from(ticks_per_second)).unwrap_or(0);
                i128::from(start) + units
            }
        };
        u64::try_from((since_1601 - FROM_1601_TO_1970).max(0)).unwrap_or(u64::MAX)
    }
}
