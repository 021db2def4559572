//! What a capture says beside its packets: comments, names, secrets, custom blocks, and options of packets and interfaces.
//!
//! The recorder stores packets. A replay keeps the rest here, bounded in bytes, in the byte order of this host and ready to be
//! written; what is not kept is counted by kind, so that nobody takes its absence for a statement.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::writer::InterfaceStatistics;
use base::packet::{InterfaceId, Packet};

/// Bytes that are kept of one capture.
pub const BYTES_MAX: usize = 32 << 20;
/// Bytes at the start of a packet by which it is recognised, beside its time, interface and length.
const RECOGNISED_BY_BYTES: usize = 32;

/// What a capture says beside its packets.
#[derive(Debug, Default)]
pub struct Annotations {
    /// Comments of sections, and of statistics.
    pub comments: Vec<String>,
    /// Hardware and operating system of the first section that names them, and the programs that wrote sections.
    pub hardware: Option<String>,
    /// As above.
    pub os: Option<String>,
    /// Whole blocks: name resolution, decryption secrets, custom.
    pub blocks: Vec<u8>,
    /// Options of interface descriptions that the table of interfaces has no field for.
    pub interfaces: HashMap<InterfaceId, Vec<u8>>,
    /// The last statistics of each interface.
    pub statistics: HashMap<InterfaceId, InterfaceStatistics>,
    packets: HashMap<u64, VecDeque<PacketAnnotation>>,
    bytes: usize,
    found: BTreeMap<&'static str, u64>,
    left_out: BTreeMap<&'static str, u64>,
}

/// Options of one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketAnnotation {
    /// Bits of `epb_flags` that a stored packet has no field for.
    pub flags: u32,
    /// Options in this host's byte order, without the end option.
    pub options: Vec<u8>,
}

impl Annotations {
    /// What was found, by kind.
    pub fn found(&self) -> &BTreeMap<&'static str, u64> {
        &self.found
    }

    /// What was found and not kept, by kind.
    pub fn left_out(&self) -> &BTreeMap<&'static str, u64> {
        &self.left_out
    }

    /// The annotation of a packet, which is then given away; of packets that are alike in everything the first one's.
    pub fn take(&mut self, packet: &Packet<'_>) -> Option<PacketAnnotation> {
        if self.packets.is_empty() {
            return None;
        }
        self.packets.get_mut(&fingerprint(packet))?.pop_front()
    }

    /// Annotations of packets that nobody has taken.
    pub fn of_other_packets(&self) -> u64 {
        self.packets.values().map(|queue| queue.len() as u64).sum()
    }

    pub(crate) fn found_one(&mut self, kind: &'static str) {
        *self.found.entry(kind).or_default() += 1;
    }

    pub(crate) fn leave_out(&mut self, kind: &'static str) {
        *self.left_out.entry(kind).or_default() += 1;
    }

    /// Whether there is room for more bytes; what does not fit is counted.
    pub(crate) fn room_for(&mut self, kind: &'static str, bytes: usize) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= BYTES_MAX;
        if fits {
            self.bytes += bytes;
        } else {
            self.leave_out(kind);
        }
        fits
    }

    /// Whether a block of that many bytes may be read into memory to be kept.
    pub(crate) fn may_keep(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= BYTES_MAX
    }

    pub(crate) fn comment(&mut self, text: String) {
        self.found_one("comments");
        if self.room_for("comments", text.len()) {
            self.comments.push(text);
        }
    }

    pub(crate) fn add_packet(&mut self, packet: &Packet<'_>, annotation: PacketAnnotation) {
        const OVERHEAD_BYTES: usize = 96;

        self.found_one("packet options");
        if self.room_for("packet options", annotation.options.len() + OVERHEAD_BYTES) {
            self.packets.entry(fingerprint(packet)).or_default().push_back(annotation);
        }
    }
}

/// A number by which a packet is recognised when it comes out of the store.
fn fingerprint(packet: &Packet<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (packet.time.0, packet.interface.0, packet.original_len).hash(&mut hasher);
    packet.data.get(..RECOGNISED_BY_BYTES).unwrap_or(packet.data).hash(&mut hasher);
    hasher.finish()
}
