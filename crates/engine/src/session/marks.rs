//! Session marks: the classification of a session, and the pins that protect it.

/// Decisions about a session that determine how its packets are retained.
///
/// They are packed into 24 bits: class 6 bits, climb 3, grown 3, pins 12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionMarks {
    /// The class number; 0 for sessions of no class.
    pub class: u8,
    /// Demotion steps (0 to 5), given because the session's hosts began too many sessions; 0 for most sessions.
    pub climb: u8,
    /// Growth steps of the session that flood detection has counted.
    pub grown: u8,
    /// The pins that protect the session, one bit per pin.
    pub pins: u16,
}

impl SessionMarks {
    /// Number of classes, including class 0 for sessions of no class.
    pub const CLASSES: usize = 1 << 6;
    /// Number of values of `climb`.
    pub const CLIMBS: usize = 6;
    /// Number of pins at a time.
    pub const PINS: usize = 12;
    pub(super) fn to_bits(self) -> u32 {
        u32::from(self.class) & 0x3f
            | (u32::from(self.climb) & 7) << 6
            | (u32::from(self.grown) & 7) << 9
            | (u32::from(self.pins) & 0xfff) << 12
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        let [low, high, ..] = (bits >> 12 & 0xfff).to_le_bytes();
        Self {
            class: (bits & 0x3f).to_le_bytes()[0],
            climb: (bits >> 6 & 7).to_le_bytes()[0],
            grown: (bits >> 9 & 7).to_le_bytes()[0],
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
            for climb in 0..6 {
                for (grown, pins) in [(0, 0), (7, 0xfff), (3, 0x801)] {
                    let marks = SessionMarks { class, climb, grown, pins };
                    assert_eq!(SessionMarks::from_bits(marks.to_bits()), marks);
                    assert!(marks.to_bits() < 1 << 24, "they share a word with a session's flags");
                }
            }
        }
    }
}
