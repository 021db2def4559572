//! Segments of the oracle: their queues, sizes and ranks.

pub(crate) const PAGE: usize = 4096;

/// Depth bands: the first 1.5 kB of a session, the following bytes up to 31.5 kB, and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Band {
    Starts,
    Middle,
    Bulk,
}

/// Queues, in the order in which equal candidates are evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Queue {
    /// Line 0 holds packets that close sessions, line 1 important packets, line 2 rank 0, line 3 rank 1, and so on.
    Ranked {
        class: u8,
        line: u8,
        flood: u8,
    },
    Heads {
        flood: u8,
    },
    Pinned(usize),
    Released,
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) time: u64,
    pub(crate) captured: usize,
    pub(crate) session: usize,
    pub(crate) interface: u16,
    pub(crate) rare: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) queue: Queue,
    pub(crate) records: Vec<Record>,
    pub(crate) bytes: usize,
    pub(crate) opened_ticks: u64,
    pub(crate) open: bool,
}

pub(crate) fn bytes_of(value: u64) -> usize {
    (0..8).rev().find(|at| value >> (8 * at) != 0).map_or(0, |at| at + 1)
}

impl Segment {
    pub(crate) fn pages(&self) -> usize {
        self.bytes.div_ceil(PAGE).max(1)
    }

    pub(crate) fn push(&mut self, record: Record) {
        let (time, sequence, interface) = self.records.last().map_or((record.time, 0, true), |last| {
            (last.time, record.sequence - last.sequence - 1, last.interface != record.interface)
        });
        let header = 2
            + bytes_of(time.abs_diff(record.time))
            + bytes_of(sequence)
            + bytes_of(record.captured as u64)
            + bytes_of(record.session as u64).max(1)
            + if interface { 2 } else { 0 }
            + if record.rare { 8 } else { 0 };
        self.bytes += header + record.captured;
        self.records.push(record);
    }

    pub(crate) fn room(&self) -> usize {
        self.pages() * PAGE - self.bytes
    }
}

impl Queue {
    pub(crate) fn has_starts(self) -> bool {
        matches!(self, Self::Heads { .. } | Self::Ranked { line: 2, .. })
    }

    pub(crate) fn band(self) -> Band {
        match self {
            Self::Ranked { line: 0..=3, .. } | Self::Heads { .. } | Self::Pinned(_) => Band::Starts,
            Self::Ranked { line: 4..=7, .. } => Band::Middle,
            Self::Ranked { .. } | Self::Released => Band::Bulk,
        }
    }

    pub(crate) fn flood(self) -> u8 {
        match self {
            Self::Ranked { flood, .. } | Self::Heads { flood } => flood,
            Self::Pinned(_) | Self::Released => 0,
        }
    }
}

/// Rank of an offset. Rank 0 spans 512 bytes, each rank spans twice as much as the one before, and rank 6 is unbounded.
pub(crate) fn rank_of(offset: u64) -> u8 {
    let (mut rank, mut end, mut span) = (0, 512, 512);
    while offset >= end && rank < 6 {
        rank += 1;
        span *= 2;
        end += span;
    }
    rank
}

/// Rank of a packet. For packets that begin in ranks 0 and 1 the end decides: within 512 bytes, within 3.5 kB, or
/// beyond.
pub(crate) fn rank_of_packet(offset: u64, len: u64) -> u8 {
    match (rank_of(offset), rank_of(offset + len - 1)) {
        (0, 0) => 0,
        (0 | 1, 0..=2) => 1,
        (0 | 1, _) => 3,
        (begin, _) => begin,
    }
}
