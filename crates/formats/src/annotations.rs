//! Annotations of a capture: comments, name resolution, secrets, custom blocks, and options of packets and interfaces.
//!
//! The recorder stores packets only. A replay keeps the annotations here, limited in bytes, in host byte order and in
//! the form in which pcapng stores them. Annotations that are not kept are counted by kind, so that an export can
//! report their loss.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use super::constants::OPTION_COMMENT;
use super::statistics::InterfaceStatistics;
use base::counted::counted;
use base::packet::{InterfaceId, Packet};
use base::time::Timestamp;

/// The maximum size in bytes of the annotations of one capture.
pub const BYTES_MAX: usize = 32 << 20;
/// The number of leading packet bytes that identify a packet, beside its time, interface and length.
const RECOGNISED_BY_BYTES: usize = 32;

/// Approximate size in bytes of a packet's annotation beside its options.
const PACKET_OVERHEAD_BYTES: usize = 96;

/// The maximum size in bytes of a block that is read only to count what is in it.
const COUNTED_BYTES_MAX: usize = 1 << 20;

/// What a capture contains beside packets, and what of it is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureReport {
    /// Number of packets with a time outside the supported range, which was set to the nearest end.
    pub times_changed: u64,
    /// Number of packets without a time, which have that of the packet before.
    pub times_missing: u64,
    /// Number of annotations found, by kind.
    pub found: BTreeMap<&'static str, u64>,
    /// Number of annotations that are not kept, by kind.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// A report that the reader of a capture updates and others read.
#[derive(Clone, Debug, Default)]
pub struct SharedReport(Arc<Mutex<CaptureReport>>);

impl SharedReport {
    /// The report so far.
    pub fn get(&self) -> CaptureReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, report: CaptureReport) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }
}

impl CaptureReport {
    /// Describes what was changed and what was left out, one sentence each.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if self.times_changed > 0 {
            sentences.push(format!(
                "{} outside 1970-01-01 to {}, the range that is recorded; {} set to its nearest end",
                counted(self.times_changed, "packet has a time", "packets have times"),
                Timestamp::MAX,
                if self.times_changed == 1 { "it was" } else { "these were" }
            ));
        }
        if self.times_missing > 0 {
            sentences.push(format!(
                "{} no time (simple packet blocks): the time of the packet before was taken",
                counted(self.times_missing, "packet has", "packets have")
            ));
        }
        if !self.left_out.is_empty() {
            let kinds: Vec<String> = self.left_out.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            sentences.push(format!("left out of the capture: {}", kinds.join(", ")));
        }
        sentences
    }
}

/// The annotations of one capture.
#[derive(Debug, Default)]
pub struct Annotations {
    /// Comments of sections and of interface statistics, and the names of the programs that wrote the sections.
    pub comments: Vec<String>,
    /// The hardware, from the first section that states it (`shb_hardware`).
    pub hardware: Option<String>,
    /// The operating system, from the first section that states it (`shb_os`).
    pub os: Option<String>,
    /// Whole blocks in host byte order: name resolution, decryption secrets, custom.
    pub blocks: Vec<u8>,
    /// Options of interface descriptions that the interface table does not store, in host byte order.
    pub interfaces: HashMap<InterfaceId, Vec<u8>>,
    /// The last statistics of each interface.
    pub statistics: HashMap<InterfaceId, InterfaceStatistics>,
    packets: HashMap<u64, VecDeque<PacketAnnotation>>,
    bytes: usize,
    /// Whether annotations are only counted.
    counting: bool,
    found: BTreeMap<&'static str, u64>,
    left_out: BTreeMap<&'static str, u64>,
    /// Grows with every count.
    changes: u64,
}

/// The annotation of one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketAnnotation {
    /// Bits of `epb_flags` that a stored packet has no field for.
    pub flags: u32,
    /// Options in host byte order, without the end option.
    pub options: Vec<u8>,
}

impl PacketAnnotation {
    /// The comments.
    pub fn comments(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.options.as_slice();
        std::iter::from_fn(move || {
            let (header, after) = rest.split_first_chunk::<4>()?;
            let code = u16::from_ne_bytes([header[0], header[1]]);
            let length = usize::from(u16::from_ne_bytes([header[2], header[3]]));
            let value = after.get(..length)?;
            rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((code, value))
        })
        .filter_map(|(code, value)| (code == OPTION_COMMENT).then(|| std::str::from_utf8(value).ok())?)
    }
}

impl Annotations {
    /// Annotations that are counted and not kept, so that they take no memory.
    pub(crate) fn counting() -> Self {
        Self { counting: true, ..Self::default() }
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns the number of annotations found, by kind.
    pub fn found(&self) -> &BTreeMap<&'static str, u64> {
        &self.found
    }

    /// Returns the number of annotations found but not kept, by kind.
    pub fn left_out(&self) -> &BTreeMap<&'static str, u64> {
        if self.counting { &self.found } else { &self.left_out }
    }

    /// Removes and returns the annotation of a packet. Packets with the same fingerprint get their annotations in file
    /// order.
    pub fn take(&mut self, packet: &Packet<'_>) -> Option<PacketAnnotation> {
        if self.packets.is_empty() { None } else { self.take_by(fingerprint(packet)) }
    }

    /// As [`take`](Self::take), for a packet that is gone.
    pub fn take_by(&mut self, fingerprint: u64) -> Option<PacketAnnotation> {
        let Entry::Occupied(mut queue) = self.packets.entry(fingerprint) else { return None };
        let annotation = queue.get_mut().pop_front()?;
        self.bytes = self.bytes.saturating_sub(annotation.options.len() + PACKET_OVERHEAD_BYTES);
        if queue.get().is_empty() {
            queue.remove();
        }
        Some(annotation)
    }

    /// Returns the number of packet annotations that were not taken.
    pub fn of_other_packets(&self) -> u64 {
        self.packets.values().map(|queue| queue.len() as u64).sum()
    }

    pub(crate) fn found_one(&mut self, kind: &'static str) {
        *self.found.entry(kind).or_default() += 1;
        self.changes += 1;
    }

    pub(crate) fn leave_out(&mut self, kind: &'static str) {
        *self.left_out.entry(kind).or_default() += 1;
        self.changes += 1;
    }

    /// Reserves `bytes` bytes and returns whether they fit. Annotations that do not fit are counted.
    pub(crate) fn room_for(&mut self, kind: &'static str, bytes: usize) -> bool {
        let fits = !self.counting && self.bytes.saturating_add(bytes) <= BYTES_MAX;
        if fits {
            self.bytes += bytes;
        } else {
            self.leave_out(kind);
        }
        fits
    }

    /// Counts a block that is too large to be read into memory.
    pub(crate) fn skip_block(&mut self, kind: &'static str) {
        self.found_one(kind);
        self.leave_out(kind);
    }

    /// Returns whether a block of this size fits, before it is read into memory.
    pub(crate) fn may_keep(&self, bytes: usize) -> bool {
        if self.counting { bytes <= COUNTED_BYTES_MAX } else { self.bytes.saturating_add(bytes) <= BYTES_MAX }
    }

    /// Keeps the options of an interface. Of interfaces that share an entry, those of the first are kept.
    pub(crate) fn describe_interface(&mut self, id: InterfaceId, options: Vec<u8>) {
        const NAME: &str = "interface options";

        let first = self.interfaces.get(&id);
        if options.is_empty() || first == Some(&options) {
            return;
        }
        if first.is_some() {
            self.leave_out(NAME);
        } else if self.room_for(NAME, options.len()) {
            self.interfaces.insert(id, options);
        }
    }

    pub(crate) fn comment(&mut self, text: String) {
        self.found_one("comments");
        if self.room_for("comments", text.len()) {
            self.comments.push(text);
        }
    }

    pub(crate) fn add_packet(&mut self, packet: &Packet<'_>, annotation: PacketAnnotation) {
        self.found_one("packet options");
        if self.room_for("packet options", annotation.options.len() + PACKET_OVERHEAD_BYTES) {
            self.packets.entry(fingerprint(packet)).or_default().push_back(annotation);
        }
    }
}

/// Returns a hash that identifies a packet when it is read from the store.
pub fn fingerprint(packet: &Packet<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (packet.time.0, packet.interface.0, packet.original_len).hash(&mut hasher);
    packet.data.get(..RECOGNISED_BY_BYTES).unwrap_or(packet.data).hash(&mut hasher);
    hasher.finish()
}
