//! What a parser returns beside packets.

use std::sync::Arc;

use crate::annotations::Annotations;
use base::interface::{Interface, Interfaces};
use base::packet::{InterfaceId, LinkType};
use base::source::SourceError;

/// The maximum number of captured bytes of one packet. A record that claims more is damaged.
///
/// 16 MiB is ample: the largest frames are segments that Linux has coalesced (512 KiB, `GSO_MAX_SIZE`), and Wireshark
/// and libpcap limit nearly every link type to 256 KiB.
pub const CAPTURED_BYTES_MAX: u32 = 16 << 20;

/// The result of a parser call, and what the parser needs next.
pub(super) struct Progress {
    /// The number of bytes to release.
    pub(super) consumed: usize,
    /// The number of bytes to skip after those, whether they have been read or not.
    pub(super) skip: u64,
    /// The number of contiguous bytes needed next. The input may end before the first of them.
    pub(super) wanted: usize,
}

/// The first record or block of a file that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Offset of the block or record in the input, in bytes.
    pub(super) offset: u64,
    pub(super) message: String,
}

impl From<Damage> for SourceError {
    fn from(Damage { offset, message }: Damage) -> Self {
        Self::Damaged { offset, message }
    }
}

/// The output of parsers beside packets: interfaces, annotations, and counts of anomalies.
pub(super) struct InterfaceTable {
    pub(super) interfaces: Arc<Interfaces>,
    pub(super) refused: u64,
    pub(super) refused_bytes: u64,
    pub(super) times_changed: u64,
    pub(super) times_missing: u64,
    pub(super) annotations: Annotations,
}

impl InterfaceTable {
    pub(super) fn intern(
        &self,
        name: &str,
        link_type: LinkType,
        describe: impl FnOnce(&mut Interface),
    ) -> Option<InterfaceId> {
        self.interfaces.intern_with(name, 0, link_type, describe)
    }

    #[cold]
    pub(super) fn refuse(&mut self, captured: usize) {
        self.refused += 1;
        self.refused_bytes += captured as u64;
    }
}
