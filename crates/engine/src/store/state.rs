//! The writer of a store, and what it counts.

use std::sync::Arc;

use super::arena::Arena;
use super::compress::CompressionState;
use super::heads::CarriedPackets;
use super::list::SegmentLists;
use super::pages::{PAGE_BYTES, PAGE_COST_BYTES};
use super::policy::AppliedPolicy;
use super::queues::Queues;
use super::rank::Rank;
use super::record::PACKET_BYTES_MAX;
use super::retention::Policy;
use super::segment::segment_bytes;
use super::segments::Segments;
use super::tally::Tally;
use super::unpack::Unpacked;
use base::counters::{CarriedTotals, CompressionTotals, Volume};
use base::memory::Lock;
use base::time::Timestamp;

/// Number of pages for each slot in the table of segments.
const PAGES_PER_SEGMENT_SLOT: u32 = 4;
/// The part of a store that carried starts may take, as a divisor.
const HEADS_SHARE: u64 = 8;

/// The writer of a store.
#[derive(Debug)]
pub struct Store {
    pub(super) shared: Arc<Segments>,
    pub(super) arena: Arena,
    pub(super) lists: SegmentLists,
    pub(super) policy: AppliedPolicy,
    pub(super) heads: CarriedPackets,
    pub(super) segment_bytes: usize,
    /// The state of compression; `None` when packets are not compressed.
    pub(super) packing: Option<Box<CompressionState>>,
    /// Counts of earlier compression.
    pub(super) packed_before: CompressionTotals,
    pub(super) retained: Volume,
    pub(super) evicted: Volume,
    pub(super) lost_until: Option<Timestamp>,
}

impl Store {
    /// The smallest memory in which a store works: one page for each rank, and pages for two packets of maximum length.
    pub const BYTES_MIN: u64 = ((Rank::COUNT + 2 * PACKET_BYTES_MAX / PAGE_BYTES) * PAGE_COST_BYTES) as u64;

    /// Allocates `bytes` of memory, at least [`BYTES_MIN`](Self::BYTES_MIN). Pins may take `pinned_bytes` of it, and
    /// never more than half.
    ///
    /// # Errors
    ///
    /// When the system cannot provide the memory.
    pub fn new(bytes: u64, policy: &Policy, pinned_bytes: u64, lock: Lock) -> std::io::Result<Self> {
        let slot_cost = SegmentLists::SLOT_COST_BYTES / PAGES_PER_SEGMENT_SLOT as usize;
        let per_page = (PAGE_COST_BYTES + slot_cost) as u64;
        let bytes = bytes.saturating_sub(Queues::bytes(policy)).max(Self::BYTES_MIN);
        let pages = u32::try_from(bytes / per_page).unwrap_or(u32::MAX - 1);
        let arena = Arena::new(pages, lock)?;
        let lists = SegmentLists::new(pages / PAGES_PER_SEGMENT_SLOT);
        let (shared_pages, slots) = (Arc::clone(arena.pages()), Arc::clone(lists.slots()));
        Ok(Self {
            shared: Arc::new(Segments { pages: shared_pages, slots, unpacked: Unpacked::default() }),
            arena,
            lists,
            policy: AppliedPolicy::new(policy, pages, pinned_bytes),
            heads: CarriedPackets::new(u64::from(pages) * PAGE_BYTES as u64 / HEADS_SHARE, segment_bytes(bytes)),
            segment_bytes: segment_bytes(bytes),
            packing: None,
            packed_before: CompressionTotals::default(),
            retained: Volume::default(),
            evicted: Volume::default(),
            lost_until: None,
        })
    }

    /// Applies the weights and shares of another policy. The classes stay as they are.
    pub fn set_policy(&mut self, policy: &Policy) {
        self.policy.set(policy);
    }

    /// Sets the `active` pins, one bit each. Pins that have `ended` release their segments, which then age like bulk.
    pub fn set_pins(&mut self, ended: u16, active: u16) {
        self.policy.set_pins(ended, active, &mut self.lists);
    }

    /// The part of the store that readers use.
    pub fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.shared)
    }

    /// The rank of a packet of `len` bytes at a depth in its session.
    #[inline]
    pub fn rank(&self, depth: u64, len: u64) -> Rank {
        self.policy.rank(depth, len)
    }

    /// Bytes from which on a session is an elephant, whose bulk has a share of its own.
    #[inline]
    pub fn elephant_bytes(&self) -> u64 {
        self.policy.elephant_bytes()
    }

    /// The clock of the store in nanoseconds: it follows packet timestamps, never runs backwards, and limits each jump.
    pub fn ticks_ns(&self) -> u64 {
        self.policy.clock.ticks_ns()
    }

    /// Packets and captured bytes that are stored now.
    pub fn retained(&self) -> Volume {
        self.retained
    }

    /// Packets and captured bytes evicted so far.
    pub fn evicted(&self) -> Volume {
        self.evicted
    }

    /// Counts of packets that were carried forward.
    pub fn carried(&self) -> CarriedTotals {
        self.heads.carried()
    }

    /// The time of the newest packet that was evicted; all packets stored with a later time are still present.
    pub fn lost_until(&self) -> Option<Timestamp> {
        self.lost_until
    }

    /// Memory of classes and pins, as published for readers.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(self.policy.tally())
    }

    /// Publishes the memory of classes and pins for readers.
    pub fn publish_tally(&self) {
        self.policy.publish_tally();
    }
}
