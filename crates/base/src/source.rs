//! Where packets come from.

pub use crate::burst::{BURST_PACKETS, Burst};

use crate::counters::Volume;
use crate::packet::Packet;

/// What a call of [`Source::batch`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Packets were handed over, more may be waiting.
    More,
    /// Nothing came within the source's waiting time.
    Idle,
    /// There will be no more packets.
    End,
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The capture file is damaged; everything before the damage was handed over.
    #[error("{message}{}", place(*.offset))]
    Damaged {
        /// Bytes from the start of the input to the block or record that cannot be read.
        offset: u64,
        /// What is wrong there.
        message: String,
    },
    /// The operating system refused.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// What it said.
        source: std::io::Error,
    },
}

/// Where the damage is; of a file that is none from its first byte on, no packet was read.
fn place(offset: u64) -> String {
    match offset {
        0 => String::new(),
        _ => format!(", at byte {offset} of the capture; every packet before that was read"),
    }
}

/// A source of packets, live or recorded.
pub trait Source {
    /// Hands the next packets to `each`, in order, waiting a bounded time (200 ms at most) for the first.
    ///
    /// They come in bursts: as many as are there together, [`BURST_PACKETS`] at most. A source that reports
    /// [`Batch::End`] or an error has nothing more to give.
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError>;

    /// The same, packet by packet.
    fn batch(&mut self, each: &mut impl FnMut(&Packet<'_>)) -> Result<Batch, SourceError> {
        self.bursts(&mut |burst| burst.iter().for_each(&mut *each))
    }

    /// Whether more packets wait already, so that other work should.
    fn is_behind(&self) -> bool {
        false
    }

    /// What became so far of the packets that were not handed over, and of those that were cut.
    fn counts(&self) -> SourceCounts {
        SourceCounts::default()
    }
}

/// What a source counts beside the packets it hands over, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Dropped by the kernel because nobody took them from the ring in time.
    pub kernel_dropped: u64,
    /// Of interfaces for which the interface table had no slot left.
    pub refused: Volume,
    /// Of interfaces that were not asked for.
    pub unselected: Volume,
    /// Handed over, but cut because they were larger than a block of the ring.
    pub truncated: u64,
}
