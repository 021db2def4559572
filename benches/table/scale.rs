//! How much to measure.

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) long: bool,
}

impl Scale {
    /// Rounds from which the median is taken.
    pub(crate) fn rounds(self) -> usize {
        if self.long { 15 } else { 5 }
    }

    /// `short` in a short run, five times as much in a long one.
    pub(crate) fn times(self, short: u32) -> u32 {
        if self.long { short * 5 } else { short }
    }
}
