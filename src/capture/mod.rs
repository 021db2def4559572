//! Where packets come from: a capture file or standard input, or the interfaces of this host.

pub mod file;
#[cfg(target_os = "linux")]
pub mod interfaces;
#[cfg(target_os = "linux")]
pub mod link_layer;
#[cfg(target_os = "linux")]
pub mod live;
#[cfg(target_os = "linux")]
pub mod selection;

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
    #[error("{message}, at byte {offset} of the capture; every packet before that was read")]
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

/// A source of packets, live or recorded.
pub trait Source {
    /// Hands the next packets to `each`, in order, waiting a bounded time (100 ms at most) for the first.
    ///
    /// A source that reports [`Batch::End`] or an error has nothing more to give.
    fn batch(&mut self, each: &mut impl FnMut(&Packet<'_>)) -> Result<Batch, SourceError>;

    /// Packets that the kernel dropped so far because nobody took them from the ring in time.
    fn kernel_dropped(&self) -> u64 {
        0
    }
}
