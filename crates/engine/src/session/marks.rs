//! Session marks: the classification of a session, and the pins that protect it.

/// Decisions about a session that determine how its packets are retained.
///
/// They are packed into 24 bits: class 6 bits, flood 3, storm 1, grown 2, pins 12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionMarks {
    /// The class number; 0 for sessions of no class.
    pub class: u8,
    /// The number of the flood with which the session began (see [`judge`](crate::judge)); 0 for most sessions, which
    /// belong to none, and [`LEFT_FLOOD`](Self::LEFT_FLOOD) for sessions that later proved to belong to none.
    pub flood: u8,
    /// Whether the flood alone would fill a large part of the store within minutes.
    pub storm: bool,
    /// Growth steps of the session that flood detection has counted; 3 at most.
    pub grown: u8,
    /// The pins that protect the session, one bit per pin.
    pub pins: u16,
}

impl SessionMarks {
    /// Number of classes, including class 0 for sessions of no class.
    pub const CLASSES: usize = 1 << 6;
    /// Number of flood numbers, including 0 for sessions of no flood.
    pub const FLOODS: usize = 7;
    /// The flood number of sessions that have left their flood.
    pub const LEFT_FLOOD: u8 = 7;
    /// Number of pins at a time.
    pub const PINS: usize = 12;
    /// Number of pins among them that only hunts make. They have the last places.
    pub const HUNT_PINS: usize = 3;

    /// The flood number under which the session's packets are stored now.
    #[inline]
    pub fn kept_with(self) -> u8 {
        if self.flood == Self::LEFT_FLOOD { 0 } else { self.flood }
    }

    pub(super) fn to_bits(self) -> u32 {
        u32::from(self.class) & 0x3f
            | (u32::from(self.flood) & 7) << 6
            | u32::from(self.storm) << 9
            | (u32::from(self.grown) & 3) << 10
            | (u32::from(self.pins) & 0xfff) << 12
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        let [low, high, ..] = (bits >> 12 & 0xfff).to_le_bytes();
        Self {
            class: (bits & 0x3f).to_le_bytes()[0],
            flood: (bits >> 6 & 7).to_le_bytes()[0],
            storm: bits >> 9 & 1 == 1,
            grown: (bits >> 10 & 3).to_le_bytes()[0],
            pins: u16::from_le_bytes([low, high]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_read_back_as_packed() {
        for class in [0, 1, 63] {
            for flood in 0..8 {
                for (grown, pins) in [(0, 0), (2, 0xfff), (3, 0x801)] {
                    let marks = SessionMarks { class, flood, storm: grown == 2, grown, pins };
                    assert_eq!(SessionMarks::from_bits(marks.to_bits()), marks);
                    assert!(marks.to_bits() < 1 << 24, "they share a word with a session's flags");
                }
            }
        }
    }
}
