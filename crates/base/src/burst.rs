//! Bursts: packets that are handed over together, so that memory accesses of some overlap with work on others.

use crate::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use crate::time::Timestamp;

/// The most packets of a burst: more than memory can fetch at a time, few enough for the first-level cache.
pub const BURST_PACKETS: usize = 32;

/// Collects up to [`BURST_PACKETS`] packets.
pub struct Burst<'a> {
    packets: [Packet<'a>; BURST_PACKETS],
    len: usize,
}

/// A placeholder for the unused places of a burst.
const NOTHING: Packet<'static> = Packet {
    time: Timestamp::MIN,
    interface: InterfaceId(0),
    link_type: LinkType::NULL,
    direction: Direction::Unknown,
    flags: PacketFlags { checksum_not_ready: false, segmentation_offload: false },
    original_len: 0,
    drops_before: 0,
    data: &[],
};

impl<'a> Burst<'a> {
    /// Makes an empty burst.
    pub fn empty() -> Self {
        Self { packets: [NOTHING; BURST_PACKETS], len: 0 }
    }

    /// Adds a packet, and passes the burst to `each` when it is full.
    #[inline]
    pub fn push(&mut self, packet: Packet<'a>, each: &mut impl FnMut(&[Packet<'_>])) {
        if self.is_full_with(packet) {
            self.hand_over(each);
        }
    }

    /// Adds a packet, and returns whether the burst is now full. Then call [`hand_over`](Self::hand_over) before the
    /// next packet.
    #[inline]
    pub fn is_full_with(&mut self, packet: Packet<'a>) -> bool {
        self.packets[self.len] = packet;
        self.len += 1;
        self.len == BURST_PACKETS
    }

    /// Passes the collected packets to `each`, if there are any, and empties the burst.
    pub fn hand_over(&mut self, each: &mut impl FnMut(&[Packet<'_>])) {
        if self.len > 0 {
            each(&self.packets[..self.len]);
            self.len = 0;
        }
    }
}
