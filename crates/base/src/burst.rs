//! A few packets handed over together, so that what one of them waits for in memory is fetched while others are worked on.

use crate::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use crate::time::Timestamp;

/// The most packets handed over together: more than memory can fetch at once, few enough to stay in the nearest cache.
pub const BURST_PACKETS: usize = 32;

/// Collects packets until there are [`BURST_PACKETS`].
pub struct Burst<'a> {
    packets: [Packet<'a>; BURST_PACKETS],
    len: usize,
}

/// Fills the places of a burst that have no packet.
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
    /// An empty burst.
    pub fn empty() -> Self {
        Self { packets: [NOTHING; BURST_PACKETS], len: 0 }
    }

    /// Adds a packet, and hands over a full burst.
    #[inline]
    pub fn push(&mut self, packet: Packet<'a>, each: &mut impl FnMut(&[Packet<'_>])) {
        if self.is_full_with(packet) {
            self.hand_over(each);
        }
    }

    /// Adds a packet, and says whether a further one would be one too many.
    #[inline]
    pub fn is_full_with(&mut self, packet: Packet<'a>) -> bool {
        self.packets[self.len] = packet;
        self.len += 1;
        self.len == BURST_PACKETS
    }

    /// Hands over what there is.
    pub fn hand_over(&mut self, each: &mut impl FnMut(&[Packet<'_>])) {
        if self.len > 0 {
            each(&self.packets[..self.len]);
            self.len = 0;
        }
    }
}
