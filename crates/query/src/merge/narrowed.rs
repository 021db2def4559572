//! What a query is narrowed by, and the masks that say which segments may have packets of wanted sessions.

use std::collections::HashMap;

use super::super::notes::SessionBits;
use base::packet::{LinkType, Packet};
use engine::session::{SessionKey, SessionSlot};
use engine::store::SegmentView;

/// Bytes of all masks at most.
const MASKS_BYTES_MAX: usize = 8 << 20;
/// Words of a mask, at most and at least.
const MASK_WORDS: (usize, usize) = (64, 1);

/// A packet that matches the query, before the query is narrowed.
#[derive(Clone, Copy, Debug)]
pub struct StoredPacket<'a> {
    /// The worker that stored it.
    pub worker: usize,
    /// The slot of its session.
    pub slot: SessionSlot,
    /// Its place in the order of arrival at the worker.
    pub arrival: u64,
    /// The link type of its interface.
    pub link_type: LinkType,
    /// The captured bytes.
    pub data: &'a [u8],
}

/// What the first pass met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// Packets that match the query.
    pub packets: u64,
    /// Their captured bytes, where the pass did not look at the payload.
    pub bytes: u64,
    /// Sessions, likewise.
    pub sessions: u64,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Sessions of these packets that have lost others.
    pub cut_sessions: u64,
}

/// The slots of sessions with packets in a segment, or of wanted sessions, with one bit for several slots.
pub(super) struct Mask(Vec<u64>);

impl Mask {
    pub(super) fn new(words: usize) -> Self {
        Self(vec![0; words])
    }

    pub(super) fn insert(&mut self, slot: SessionSlot) {
        let bit = slot.0 as usize % (self.0.len() * 64);
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }
}

/// The masks of segments and of wanted sessions.
pub(super) struct Masks {
    pub(super) words: usize,
    segments: HashMap<(usize, u32), Mask>,
    pub(super) wanted: Vec<Mask>,
}

impl Masks {
    pub(super) fn new(segments: usize, workers: usize) -> Self {
        let words = (MASKS_BYTES_MAX / 8 / segments.max(1) + 1).next_power_of_two() / 2;
        let words = words.clamp(MASK_WORDS.1, MASK_WORDS.0);
        Self { words, segments: HashMap::new(), wanted: (0..workers).map(|_| Mask::new(words)).collect() }
    }

    /// Adds the mask of a segment.
    pub(super) fn add(&mut self, worker: usize, view: SegmentView, mask: Mask) {
        self.segments.insert((worker, view.id.0), mask);
    }

    pub(super) fn have_wanted(&self, worker: usize, view: &SegmentView) -> bool {
        let wanted = self.wanted.get(worker);
        self.segments.get(&(worker, view.id.0)).zip(wanted).is_some_and(|(segment, wanted)| segment.meets(wanted))
    }
}

/// The sessions that a query is narrowed to.
#[derive(Clone, Debug)]
pub(super) struct OnlySessions {
    wanted: SessionBits,
    /// Of these, one packet is enough.
    once: SessionBits,
}

impl OnlySessions {
    /// The sessions of `whole`, and one packet each of those of `once`.
    pub(super) fn new(whole: SessionBits, once: SessionBits) -> Self {
        let mut wanted = whole;
        wanted.union(&once);
        Self { wanted, once }
    }

    /// Whether a packet of the session is wanted.
    pub(super) fn has(&self, worker: usize, slot: SessionSlot) -> bool {
        self.wanted.contains(worker, slot)
    }

    /// A packet of the session was found. Where one is enough, no further one is wanted.
    pub(super) fn found(&mut self, worker: usize, slot: SessionSlot, link_type: LinkType, data: &[u8]) {
        const TCP: u8 = 6;
        const SYN: u8 = 2;
        if self.once.contains(worker, slot) {
            // An acknowledgement alone does not show who opened a session.
            let decoded = decode::decode(link_type, data);
            if decoded.protocol != TCP || decoded.payload_len > 0 || decoded.tcp_flags & SYN != 0 {
                self.wanted.remove(worker, slot);
            }
        }
    }
}

/// What is asked of sessions and packets.
pub trait SessionQuestion {
    /// Whether a session is wanted. Its first packet is enough.
    fn is_wanted(&mut self, key: &SessionKey) -> bool;
    /// Whether all packets of a session are wanted, because of this one, of which the start is there.
    fn may_say(&mut self, packet: &StoredPacket<'_>) -> bool;
}

/// Decides which packets are picked.
pub(super) struct Picker<'h>(pub(super) Box<dyn FnMut(&Packet<'_>) -> bool + 'h>);

impl std::fmt::Debug for Picker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Picker")
    }
}
