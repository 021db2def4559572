//! Bands: the depths into which the spool sorts packets.
//!
//! All packets of a file belong to one band, so that the spool shortens old sessions from their end by deleting files.
//! The spool has fewer bands than the store has ranks, because each band needs an open file.

use engine::store::Rank;

/// Depth of the packets of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Band(pub u8);

impl Band {
    /// Number of bands.
    pub const COUNT: usize = 6;

    /// The band of a rank. Ranks 4 and 5 share one: they hold the least bytes.
    pub fn of(rank: Rank) -> Self {
        Self(match rank.0 {
            rank @ 0..=3 => rank,
            4 | 5 => 4,
            _ => 5,
        })
    }

    /// All bands, the starts of sessions first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        [0, 1, 2, 3, 4, 5].into_iter().map(Self)
    }

    /// The band as an array index.
    pub fn index(self) -> usize {
        usize::from(self.0).min(Self::COUNT - 1)
    }

    /// The smallest offset in a session that belongs to the band, in bytes.
    pub fn offset_from(self) -> u64 {
        Rank(match self.0 {
            rank @ 0..=4 => rank,
            _ => 6,
        })
        .offset_from()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_all_ranks_in_order() {
        let bands: Vec<u8> = Rank::all().map(|rank| Band::of(rank).0).collect();
        assert_eq!(bands, [0, 1, 2, 3, 4, 4, 5]);
        for rank in Rank::all() {
            assert!(Band::of(rank).offset_from() <= rank.offset_from());
        }
    }
}
