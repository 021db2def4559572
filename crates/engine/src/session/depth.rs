//! Tracks whether a session still has its first packet, its first kilobyte and its first ten kilobytes.
//!
//! A session's entry stores the sequence number of its first packet beyond each depth. When a packet is evicted, its
//! sequence number shows whether it lay within a depth. A bit per depth records the loss.

/// Depths in bytes on the wire. A session has its first kilobyte if every packet that begins in it is stored.
pub const DEPTHS_BYTES: [u64; 2] = [1024, 10 * 1024];

/// The time in which the count of recent bytes decays to 0 without further packets. 20 seconds.
pub(super) const RECENT_NS: u64 = 20_000_000_000;
/// Bytes of a session that count as its start, at any data rate.
pub(super) const START_BYTES: u64 = 3584;

/// Bits that record which parts of a session's start were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostParts(u8);

impl LostParts {
    /// No part lost.
    pub(super) const NONE: Self = Self(0);
    /// All parts lost, as for a session that has no stored packet.
    pub(super) const ALL: Self = Self(0b111);
    /// The bits in use.
    pub(super) const MASK: u64 = 0b111;

    /// The loss of one packet. `within[i]` says whether the packet lay within depth `i`.
    pub(super) fn of(is_first: bool, within: [bool; 2]) -> Self {
        Self(u8::from(is_first) | u8::from(within[0]) << 1 | u8::from(within[1]) << 2)
    }

    /// The loss of a packet that follows `offset` bytes of its session.
    pub(super) fn at(offset: u64) -> Self {
        Self::of(offset == 0, DEPTHS_BYTES.map(|depth| offset < depth))
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self((bits & Self::MASK).to_le_bytes()[0])
    }

    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.0)
    }

    /// Whether the first packet was lost.
    pub fn first_packet(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether a packet of the first kilobyte was lost.
    pub fn first_kb(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether a packet of the first ten kilobytes was lost.
    pub fn first_10kb(self) -> bool {
        self.0 & 4 != 0
    }
}

/// A distance between sequence numbers as a 16-bit floating-point number: 5 bits exponent, 11 bits mantissa. It is
/// exact below 2048 and rounded up by at most 1/1024 above. Because of the rounding, a packet slightly beyond a depth
/// may count as within it, but never the reverse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Distance(pub(super) u16);

impl Distance {
    const MANTISSA_BITS: u32 = 11;

    pub(super) fn new(distance: u64) -> Self {
        let bits = u64::BITS - distance.leading_zeros();
        let mut exponent = bits.saturating_sub(Self::MANTISSA_BITS);
        let mut mantissa = distance.div_ceil(1 << exponent);
        if mantissa >> Self::MANTISSA_BITS != 0 {
            exponent += 1;
            mantissa = mantissa.div_ceil(2);
        }
        if exponent > 31 {
            return Self(u16::MAX);
        }
        Self(u16::try_from(u64::from(exponent) << Self::MANTISSA_BITS | mantissa).unwrap_or(u16::MAX))
    }

    pub(super) fn get(self) -> u64 {
        let mantissa = u64::from(self.0) & ((1 << Self::MANTISSA_BITS) - 1);
        mantissa << (self.0 >> Self::MANTISSA_BITS)
    }

    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_rounded_up_by_little() {
        let near = |at: u64| [at.saturating_sub(1), at, at + 1];
        for distance in (0..2100).chain((11..40).flat_map(|bits| near(1 << bits))).chain([123_456_789]) {
            let read = Distance::new(distance).get();
            assert!(read >= distance && read - distance <= distance / 1024, "{distance}: {read}");
            assert!(distance >= 2048 || read == distance);
        }
        assert_eq!(Distance::new(0), Distance::default());
        assert!(Distance::new(u64::MAX).get() > 1 << 40);
    }
}
