//! The rank of a packet: its depth in its session, on a logarithmic scale.

/// Number of bytes of a session that have rank 0.
pub const FIRST_OFFSET_BYTES: u64 = 512;

/// The logarithm of the offset of a packet in its session: rank 0 is the first 512 bytes of a session, and each rank
/// spans twice as many bytes as the one before it. The last rank is unbounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u8);

impl Rank {
    /// The start of a session.
    pub const START: Self = Self(0);
    /// The rank of bulk.
    pub const LAST: Self = Self(LAST);
    /// Number of ranks. Everything from 31.5 KiB on has the last rank, because bulk is ordered by age alone.
    pub const COUNT: usize = 7;

    /// The rank of a packet that follows `offset` bytes of its session: log2(1 + offset / 512), limited to the last
    /// rank.
    pub fn of(offset: u64) -> Self {
        let rank = (1 + offset / FIRST_OFFSET_BYTES).ilog2();
        Self(u8::try_from(rank).unwrap_or(u8::MAX).min(LAST))
    }

    /// The rank of a packet of `len` bytes that follows `offset` bytes of its session.
    ///
    /// The first byte determines the rank, unless it is in the first 1.5 KiB. There the last byte counts, so that a
    /// packet of many kilobytes (GSO, jumbo frames) does not take the room of a hundred requests. Packets that end
    /// within 512 bytes have rank 0, other packets that end within 3.5 KiB have rank 1, and longer ones have rank 3.
    #[inline]
    pub fn of_packet(offset: u64, len: u64) -> Self {
        let begin = Self::of(offset);
        if begin.0 > 1 {
            return begin;
        }
        match Self::of((offset + len).saturating_sub(1)).0 {
            0 => Self(0),
            1 | 2 => Self(1),
            _ => Self(3),
        }
    }

    /// The smallest offset of this rank, in bytes.
    pub fn offset_from(self) -> u64 {
        ((1u64 << self.0.min(LAST)) - 1) * FIRST_OFFSET_BYTES
    }

    /// The rank as an array index.
    pub fn index(self) -> usize {
        usize::from(self.0.min(LAST))
    }

    /// All ranks, the start of sessions first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..=LAST).map(Self)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "7 fits")]
const LAST: u8 = Rank::COUNT as u8 - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_spans_twice_as_much_as_the_one_before() {
        for (offset, rank) in
            [(0, 0), (511, 0), (512, 1), (1535, 1), (1536, 2), (20_000, 5), (1 << 30, 6), (u64::MAX, 6)]
        {
            assert_eq!(Rank::of(offset), Rank(rank), "offset {offset}");
        }
    }

    #[test]
    fn a_rank_begins_where_the_one_before_ends() {
        for rank in Rank::all() {
            assert_eq!(Rank::of(rank.offset_from()), rank);
            if rank > Rank::START {
                assert_eq!(Rank::of(rank.offset_from() - 1).0, rank.0 - 1);
            }
        }
    }
}
