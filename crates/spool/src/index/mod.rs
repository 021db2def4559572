//! The index of a file: which chunks hold which addresses, ports and sessions.
//!
//! The index rules chunks out; a query then checks the packets of the others. A file without a readable index is read
//! as a whole.
//!
//! ```text
//! section 0  chunks       place, length, packets and times of each
//! section 1  interfaces   their pcapng blocks, as the file has them
//! section 2  IPv4         address → chunks
//! section 3  IPv6         address → chunks
//! section 4  ports        port → chunks; 0 where a chunk holds packets whose ports are not known
//! section 5  sessions     first 32 bits of the Community ID (seed 0) → chunks; 0 as for ports
//! section 6  not opened   counts of packets that could not be decoded, by chunk and kind
//! ```
//!
//! A table from keys to chunks is sorted by key. Each entry is the difference to the key before it, then either twice
//! the only chunk, or one more than twice the number of chunks and the differences between them. All numbers are
//! LEB128.

mod any;
mod build;
mod closed;
mod lookup;
mod varint;

use base::time::Timestamp;

pub use any::AnyOf;
pub use build::Builder;
pub use closed::{ClosedPackets, read_closed};
pub use lookup::{read_chunks, select};

/// Numbers of the sections.
pub const CHUNKS: usize = 0;
/// Numbers of the sections.
pub const INTERFACES: usize = 1;
const IPV4: usize = 2;
const IPV6: usize = 3;
const PORTS: usize = 4;
const SESSIONS: usize = 5;
/// Numbers of the sections.
pub const CLOSED: usize = 6;
/// Number of sections.
pub const COUNT: usize = 7;

/// The key of packets whose ports or session are unknown, such as later fragments.
const UNKNOWN: u64 = 0;

/// A run of packets that is read at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Start in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub len: u64,
    /// Bytes before compression.
    pub plain_len: u64,
    /// Packets.
    pub packets: u64,
    /// Earliest and latest packet time; `None` without packets.
    pub times: Option<(Timestamp, Timestamp)>,
}

/// A condition that a packet of the chunk must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// An IPv4 address from this range.
    Ipv4(u32, u32),
    /// An IPv6 address from this range.
    Ipv6(u128, u128),
    /// A port from this range.
    Port(u16, u16),
    /// A session whose Community ID (seed 0) begins with these 32 bits.
    Session(u32),
}

impl Condition {
    /// The section that has the keys of the condition.
    pub fn section(&self) -> usize {
        match self {
            Self::Ipv4(..) => IPV4,
            Self::Ipv6(..) => IPV6,
            Self::Port(..) => PORTS,
            Self::Session(_) => SESSIONS,
        }
    }

    /// Whether packets with this key can meet the condition.
    fn admits(&self, key: u128) -> bool {
        let unknown = key == u128::from(UNKNOWN);
        match *self {
            Self::Ipv4(from, to) => (u128::from(from)..=u128::from(to)).contains(&key),
            Self::Ipv6(from, to) => (from..=to).contains(&key),
            Self::Port(from, to) => unknown || (u128::from(from)..=u128::from(to)).contains(&key),
            Self::Session(hash) => unknown || key == u128::from(hash.max(1)),
        }
    }

    /// The greatest key that meets the condition.
    fn last(&self) -> u128 {
        match *self {
            Self::Ipv4(_, to) => to.into(),
            Self::Ipv6(_, to) => to,
            Self::Port(_, to) => to.into(),
            Self::Session(hash) => hash.max(1).into(),
        }
    }
}

/// A set of chunks of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkSet(Vec<u64>);

impl ChunkSet {
    /// Adds a chunk.
    pub fn insert(&mut self, chunk: u32) {
        let word = chunk as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (chunk % 64);
    }

    /// Whether the chunk is in the set.
    pub fn contains(&self, chunk: u32) -> bool {
        self.0.get(chunk as usize / 64).is_some_and(|word| word >> (chunk % 64) & 1 == 1)
    }

    /// Keeps the chunks that are also in `other`.
    pub fn intersect(&mut self, other: &Self) {
        for (i, word) in self.0.iter_mut().enumerate() {
            *word &= other.0.get(i).copied().unwrap_or(0);
        }
    }

    /// Adds the chunks of `other`.
    pub fn union(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}
