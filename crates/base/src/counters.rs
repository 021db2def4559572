//! Packet and byte counts, published so that readers always see a consistent state.
//!
//! Invariants, in packets and bytes: `received = stored + filtered + dropped` and `stored = retained + evicted`. The
//! pipeline counts in plain numbers and publishes all of them after each batch. A reader retries while a publication is
//! in progress.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::generation::GenerationLock;
use crate::interface::Interfaces;
use crate::memory::add;
use crate::packet::InterfaceId;
use crate::time::Timestamp;

/// A number of packets and their captured bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Number of packets.
    pub packets: u64,
    /// Captured bytes of the packets.
    pub bytes: u64,
}

impl Volume {
    /// Adds one packet of `bytes` captured bytes.
    pub fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }

    /// The difference from an earlier value, which must not be larger.
    pub fn since(self, earlier: Self) -> Self {
        Self { packets: self.packets - earlier.packets, bytes: self.bytes - earlier.bytes }
    }
}

impl std::ops::AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl std::iter::Sum for Volume {
    fn sum<I: Iterator<Item = Self>>(volumes: I) -> Self {
        volumes.fold(Self::default(), |mut sum, volume| {
            sum += volume;
            sum
        })
    }
}

/// Why a received packet was not stored, other than because of the user's filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The interface table had no entry left for the packet's interface.
    InterfacesFull,
    /// The packet lies beyond the number of bytes that its class stores per session.
    ClassCutoff,
}

impl DropReason {
    /// All reasons, in the order of [`Totals::dropped`].
    pub const ALL: [Self; 2] = [Self::InterfacesFull, Self::ClassCutoff];

    /// The reason's key in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InterfacesFull => "interfaces_full",
            Self::ClassCutoff => "class_cutoff",
        }
    }
}

/// Counts of unusual packets. They are not part of the invariants of this module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Packets that were truncated although no snapshot length was set: frames larger than a block of the kernel's
    /// ring, or than the largest record.
    pub truncated: u64,
    /// Packets that end within a header.
    pub cut_headers: u64,
    /// Packets with a self-contradictory header.
    pub malformed: u64,
    /// Packets with more nested headers than the decoder follows.
    pub too_deep: u64,
    /// Packets with an earlier timestamp than the packet before.
    pub out_of_order: u64,
}

/// Counts of packets that were carried forward: copied to a newer segment instead of being evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarriedTotals {
    /// Packets carried forward, counted each time; not part of `stored` or `evicted`.
    pub volume: Volume,
    /// Packets that should have been carried forward but found no room. Their sessions have lost their start.
    pub lost: u64,
    /// Sessions that lost their first packet while others of their packets stayed. Counted since this recorder started.
    pub headless: u64,
    /// Sessions whose entry was reused while several of their packets were stored, and of which nothing could be noted
    /// any more. Some of them may have lost their first packet before others. Counted since this recorder started.
    pub untracked: u64,
}

/// Counts of segment compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressionTotals {
    /// Segments compressed.
    pub segments: u64,
    /// Bytes of these segments before compression.
    pub raw_bytes: u64,
    /// Bytes of these segments after compression.
    pub packed_bytes: u64,
    /// Segments that were left uncompressed because compression would hardly have made them smaller.
    pub incompressible: u64,
    /// CPU time of compression in nanoseconds; 0 in a replay, so that replays are reproducible.
    pub cpu_ns: u64,
}

impl std::ops::AddAssign for CompressionTotals {
    fn add_assign(&mut self, other: Self) {
        self.segments += other.segments;
        self.raw_bytes += other.raw_bytes;
        self.packed_bytes += other.packed_bytes;
        self.incompressible += other.incompressible;
        self.cpu_ns += other.cpu_ns;
    }
}

/// All counts of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets and bytes received by the pipeline.
    pub received: Volume,
    /// Packets and bytes stored, including those evicted since.
    pub stored: Volume,
    /// Packets and bytes rejected by the user's filter or choice of interfaces.
    pub filtered: Volume,
    /// Packets and bytes dropped, by [`DropReason`].
    pub dropped: [Volume; DropReason::ALL.len()],
    /// Packets and bytes in the store.
    pub retained: Volume,
    /// Packets and captured bytes evicted so far.
    pub evicted: Volume,
    /// Counts of carrying forward.
    pub carried: CarriedTotals,
    /// Counts of compression.
    pub packed: CompressionTotals,
    /// Packets that the kernel dropped because its ring was full; not part of `received`.
    pub kernel_dropped: u64,
    /// Counts of unusual packets.
    pub oddities: Oddities,
    /// Time of the newest evicted packet.
    pub lost_until: Option<Timestamp>,
    /// Latest packet time seen.
    pub newest: Option<Timestamp>,
}

const WORDS: usize = 32;
/// The first words are left to the next recorder.
const WORDS_HANDED_OVER: usize = 30;

impl Totals {
    /// Combines the counts of two workers: the later of each time, the sum of everything else.
    pub fn and(mut self, other: Self) -> Self {
        self.received += other.received;
        self.stored += other.stored;
        self.filtered += other.filtered;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
        self.retained += other.retained;
        self.evicted += other.evicted;
        self.carried.volume += other.carried.volume;
        self.carried.lost += other.carried.lost;
        self.carried.headless += other.carried.headless;
        self.carried.untracked += other.carried.untracked;
        self.packed += other.packed;
        self.kernel_dropped += other.kernel_dropped;
        self.oddities.truncated += other.oddities.truncated;
        self.oddities.cut_headers += other.oddities.cut_headers;
        self.oddities.malformed += other.oddities.malformed;
        self.oddities.too_deep += other.oddities.too_deep;
        self.oddities.out_of_order += other.oddities.out_of_order;
        self.lost_until = self.lost_until.max(other.lost_until);
        self.newest = self.newest.max(other.newest);
        self
    }

    /// The counts as words, for the next recorder.
    pub fn to_list(self) -> Vec<u64> {
        self.to_words()[..WORDS_HANDED_OVER].to_vec()
    }

    /// Reads the counts of a previous recorder. `None` if the number of words is wrong or a count is 2^56 or more. The
    /// caller recomputes `received` and `evicted`, so that the invariants hold.
    pub fn from_list(words: &[u64]) -> Option<Self> {
        let handed_over: [u64; WORDS_HANDED_OVER] = words.try_into().ok()?;
        let mut words = [0; WORDS];
        words[..WORDS_HANDED_OVER].copy_from_slice(&handed_over);
        Some(Self::from_words(words)).filter(|totals| totals.are_below(1 << 56))
    }

    /// Whether all counts are below `limit`, so that sums of a few do not overflow.
    pub fn are_below(&self, limit: u64) -> bool {
        let counts = Self { lost_until: None, newest: None, ..*self };
        counts.to_words().iter().all(|&count| count < limit)
    }

    fn to_words(self) -> [u64; WORDS] {
        let o = self.oddities;
        let [interfaces_full, class_cutoff] = self.dropped;
        [
            self.received.packets,
            self.received.bytes,
            self.stored.packets,
            self.stored.bytes,
            self.filtered.packets,
            self.filtered.bytes,
            interfaces_full.packets,
            interfaces_full.bytes,
            self.retained.packets,
            self.retained.bytes,
            self.evicted.packets,
            self.evicted.bytes,
            self.kernel_dropped,
            o.truncated,
            o.cut_headers,
            o.malformed,
            o.too_deep,
            o.out_of_order,
            self.lost_until.map_or(0, |t| t.0),
            self.newest.map_or(0, |t| t.0),
            self.carried.volume.packets,
            self.carried.volume.bytes,
            self.carried.lost,
            class_cutoff.packets,
            class_cutoff.bytes,
            self.packed.segments,
            self.packed.raw_bytes,
            self.packed.packed_bytes,
            self.packed.incompressible,
            self.packed.cpu_ns,
            self.carried.headless,
            self.carried.untracked,
        ]
    }

    fn from_words(w: [u64; WORDS]) -> Self {
        let volume = |at: usize| Volume { packets: w[at], bytes: w[at + 1] };
        let time = |word: u64| Some(Timestamp(word)).filter(|t| t.0 != 0);
        Self {
            received: volume(0),
            stored: volume(2),
            filtered: volume(4),
            dropped: [volume(6), volume(23)],
            retained: volume(8),
            evicted: volume(10),
            kernel_dropped: w[12],
            oddities: Oddities {
                truncated: w[13],
                cut_headers: w[14],
                malformed: w[15],
                too_deep: w[16],
                out_of_order: w[17],
            },
            lost_until: time(w[18]),
            newest: time(w[19]),
            carried: CarriedTotals { volume: volume(20), lost: w[22], headless: w[30], untracked: w[31] },
            packed: CompressionTotals {
                segments: w[25],
                raw_bytes: w[26],
                packed_bytes: w[27],
                incompressible: w[28],
                cpu_ns: w[29],
            },
        }
    }
}

/// The published counts of one worker.
#[derive(Debug)]
pub struct Published {
    generation: AtomicU64,
    words: [AtomicU64; WORDS],
    interfaces: Box<[[AtomicU64; 2]]>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            generation: AtomicU64::new(0),
            words: Default::default(),
            interfaces: (0..Interfaces::CAPACITY).map(|_| Default::default()).collect(),
        }
    }
}

impl Published {
    /// Bytes of one `Published`.
    pub const BYTES: usize = size_of::<Self>() + Interfaces::CAPACITY * size_of::<[AtomicU64; 2]>();

    /// Publishes `totals` to readers. Only one thread calls this.
    pub fn publish(&self, totals: &Totals) {
        self.lock().write(|| {
            for (word, value) in self.words.iter().zip(totals.to_words()) {
                word.store(value, Ordering::Relaxed);
            }
        });
    }

    /// The latest published counts.
    pub fn totals(&self) -> Totals {
        loop {
            if let Some(words) = self.lock().read(|| std::array::from_fn(|i| self.words[i].load(Ordering::Relaxed))) {
                return Totals::from_words(words);
            }
            std::hint::spin_loop();
        }
    }

    fn lock(&self) -> GenerationLock<'_> {
        GenerationLock(&self.generation)
    }

    /// Number of publications. A running worker also publishes when no packet arrives, so a number that stands still
    /// shows that the worker is stuck.
    pub fn publications(&self) -> u64 {
        self.lock().generation() / 2
    }

    /// Counts a packet for its interface. Only one thread calls this.
    pub fn count_interface(&self, id: InterfaceId, bytes: u64) {
        if let Some([packets, total]) = self.interfaces.get(usize::from(id.0)) {
            add(packets, 1);
            add(total, bytes);
        }
    }

    /// Adds the counts of another worker for an interface. Only one thread calls this.
    pub fn count_interface_on(&self, id: InterfaceId, volume: Volume) {
        if let Some([packets, total]) = self.interfaces.get(usize::from(id.0)) {
            add(packets, volume.packets);
            add(total, volume.bytes);
        }
    }

    /// Resets the counts of a slot that will be reused for another interface. No packet of the old interface may
    /// follow.
    pub fn reset_interface(&self, id: InterfaceId) {
        if let Some([packets, bytes]) = self.interfaces.get(usize::from(id.0)) {
            packets.store(0, Ordering::Relaxed);
            bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Packets and bytes received from an interface.
    pub fn interface(&self, id: InterfaceId) -> Volume {
        self.interfaces.get(usize::from(id.0)).map_or(Volume::default(), |[packets, bytes]| Volume {
            packets: packets.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        })
    }
}
