//! Timestamp resolution of a pcapng interface (draft-ietf-opsawg-pcapng, "Interface Description Block": `if_tsresol`,
//! `if_tsoffset`).

use base::time::Timestamp;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// The number of decimal digits of a second that a [`Timestamp`] holds.
const TIMESTAMP_DIGITS: u32 = 9;

/// Converts an interface's time units to nanoseconds since 1970. A time outside the range of [`Timestamp`] becomes the
/// nearest value in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resolution {
    unit: Unit,
    offset_s: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// The unit is this number of nanoseconds.
    Nanos(u64),
    /// This number of units make a nanosecond.
    PerNano(u64),
    /// 2 to this power of units make a second.
    PerSecondLog2(u32),
}

impl Resolution {
    /// Microseconds since 1970, the default of the specification.
    pub(super) const DEFAULT: Self = Self { unit: Unit::Nanos(1000), offset_s: 0 };

    /// Applies an `if_tsresol` octet: the top bit selects base 2 or 10, the other bits are the negative exponent.
    pub(super) fn with_tsresol(self, octet: u8) -> Self {
        let exponent = u32::from(octet & 0x7f);
        let unit = if octet & 0x80 != 0 {
            Unit::PerSecondLog2(exponent)
        } else if exponent <= TIMESTAMP_DIGITS {
            Unit::Nanos(10u64.pow(TIMESTAMP_DIGITS - exponent))
        } else {
            // From 10^-29 s on, 2^64 units are less than one nanosecond.
            10u64.checked_pow(exponent - TIMESTAMP_DIGITS).map_or(Unit::Nanos(0), Unit::PerNano)
        };
        Self { unit, ..self }
    }

    /// Applies an `if_tsoffset`: the number of seconds to add to each time.
    pub(super) fn with_tsoffset(self, offset_s: i64) -> Self {
        Self { offset_s, ..self }
    }

    /// Converts units to a time. The flag says whether the time is outside the range of [`Timestamp`] and was set to
    /// the nearest value in it.
    pub(super) fn time(self, units: u64) -> (Timestamp, bool) {
        if self.offset_s == 0
            && let Unit::Nanos(nanos) = self.unit
        {
            let time = units.checked_mul(nanos);
            return (Timestamp(time.unwrap_or(u64::MAX)), time.is_none());
        }
        // At most 64 bits of units times 30 bits of nanoseconds, plus 94 bits of offset: this fits an i128.
        let units = i128::from(units);
        let second = i128::from(NANOS_PER_SECOND);
        let nanos = match self.unit {
            Unit::Nanos(nanos) => units * i128::from(nanos),
            Unit::PerNano(count) => units / i128::from(count),
            Unit::PerSecondLog2(log2) => (units * second) >> log2,
        };
        let since_1970 = nanos + i128::from(self.offset_s) * second;
        let time = u64::try_from(since_1970);
        (Timestamp(time.unwrap_or(if since_1970 < 0 { 0 } else { u64::MAX })), time.is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_become_nanoseconds() {
        let table: &[(u8, i64, u64, u64)] = &[
            // tsresol, tsoffset, units, nanoseconds
            (6, 0, 1_600_000_000_123_456, 1_600_000_000_123_456_000),
            (9, 0, 1_600_000_000_123_456_789, 1_600_000_000_123_456_789),
            (3, 0, 1_600_000_000_123, 1_600_000_000_123_000_000),
            (0, 0, 1_600_000_000, 1_600_000_000_000_000_000),
            (12, 0, 1_600_000_123_456_789_999, 1_600_000_123_456_789),
            (12, 1_600_000_000, 123_456_789_999, 1_600_000_000_123_456_789),
            (28, 0, u64::MAX, 1),
            (29, 0, u64::MAX, 0),
            (127, 0, u64::MAX, 0),
            (127, 5, u64::MAX, 5_000_000_000),
            (0x80, 0, 7, 7_000_000_000),
            (0x80 | 1, 0, 7, 3_500_000_000),
            (0x80 | 32, 0, 1 << 31, 500_000_000),
            (0x80 | 63, 0, u64::MAX, 1_999_999_999),
            (0x80 | 127, 0, u64::MAX, 0),
            (6, -1, 1_500_000, 500_000_000),
            (6, -2, 1_500_000, 0),
            (6, i64::MIN, u64::MAX, 0),
            (6, i64::MAX, 0, u64::MAX),
            (0, i64::MAX, u64::MAX, u64::MAX),
            (0, 0, u64::MAX, u64::MAX),
            (0, -20_000_000_000, 20_000_000_001, 1_000_000_000),
        ];
        for &(tsresol, tsoffset, units, nanos) in table {
            let resolution = Resolution::DEFAULT.with_tsresol(tsresol).with_tsoffset(tsoffset);
            assert_eq!(resolution.time(units).0, Timestamp(nanos), "{units} units of {tsresol:#x} from {tsoffset}");
        }
        assert_eq!(Resolution::DEFAULT, Resolution::DEFAULT.with_tsresol(6));
        for (tsresol, tsoffset, units, changed) in [
            (9, 0, u64::MAX, false),
            (6, 0, u64::MAX / 1000, false),
            (6, 0, u64::MAX / 1000 + 1, true),
            (6, -2, 1_500_000, true),
            (6, -1, 1_500_000, false),
            (0, i64::MAX, 0, true),
        ] {
            let resolution = Resolution::DEFAULT.with_tsresol(tsresol).with_tsoffset(tsoffset);
            assert_eq!(resolution.time(units).1, changed, "{units} units of {tsresol:#x} from {tsoffset}");
        }
    }
}
