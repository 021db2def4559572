//! The interface of packet sources, live or from capture files.

pub use crate::burst::{BURST_PACKETS, Burst};

use crate::counters::Volume;
use crate::packet::Packet;

/// The result of a call of [`Source::batch`] or [`Source::bursts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Packets were handed over, and more may be waiting.
    More,
    /// No packet arrived within the source's waiting time.
    Idle,
    /// There will be no more packets.
    End,
}

/// Why a source cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The capture file is damaged. Everything before the damage was handed over.
    #[error("{message}{}", place(*.offset))]
    Damaged {
        /// Offset in the input of the block or record that cannot be read.
        offset: u64,
        /// Description of the damage.
        message: String,
    },
    /// The operating system reported an error.
    #[error("{context}: {source}")]
    Io {
        /// The operation that failed.
        context: String,
        /// The error from the operating system.
        source: std::io::Error,
    },
}

/// The suffix that states the position of the damage; empty at offset 0, where no packet has been read.
fn place(offset: u64) -> String {
    match offset {
        0 => String::new(),
        _ => format!(", at byte {offset} of the capture; every packet before that was read"),
    }
}

/// A source of packets, live or recorded.
pub trait Source {
    /// Passes the next packets to `each` in order, and waits a bounded time (at most 200 ms) for the first.
    ///
    /// Packets come in bursts of those that are available, at most [`BURST_PACKETS`]. After [`Batch::End`] or an error
    /// the source has no more packets.
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError>;

    /// As [`bursts`](Self::bursts), but passes single packets to `each`.
    fn batch(&mut self, each: &mut impl FnMut(&Packet<'_>)) -> Result<Batch, SourceError> {
        self.bursts(&mut |burst| burst.iter().for_each(&mut *each))
    }

    /// Whether more packets are already waiting, so that the caller should postpone other work.
    fn is_behind(&self) -> bool {
        false
    }

    /// Counts of packets that were not handed over, and of truncated ones.
    fn counts(&self) -> SourceCounts {
        SourceCounts::default()
    }
}

/// Counts of a source since its start, in addition to the packets that it hands over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Packets that the kernel dropped because the ring was full.
    pub kernel_dropped: u64,
    /// Packets of interfaces for which the interface table had no entry left.
    pub refused: Volume,
    /// Packets of interfaces that were not selected.
    pub unselected: Volume,
    /// Packets that were handed over truncated, as they were larger than a block of the ring.
    pub truncated: u64,
}
