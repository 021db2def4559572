//! How a pcapng interface counts time (draft-ietf-opsawg-pcapng, "Interface Description Block": `if_tsresol`,
//! `if_tsoffset`).

use base::time::Timestamp;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Decimal digits of a second that a [`Timestamp`] holds.
const TIMESTAMP_DIGITS: u32 = 9;

/// Turns an interface's units into nanoseconds since 1970; what lies outside [`Timestamp`] becomes its nearest end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resolution {
    unit: Unit,
    offset_s: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// So many nanoseconds.
    Nanos(u64),
    /// So many of them make a nanosecond.
    PerNano(u64),
    /// 2 to the power of so much of them make a second.
    PerSecondLog2(u32),
}

impl Resolution {
    /// Microseconds since 1970: what holds where a file says nothing.
    pub(super) const DEFAULT: Self = Self { unit: Unit::Nanos(1000), offset_s: 0 };

    /// The meaning of an `if_tsresol` octet: the top bit chooses 2 or 10 as base, the rest is the negative exponent.
    pub(super) fn with_tsresol(self, octet: u8) -> Self {
        let exponent = u32::from(octet & 0x7f);
        let unit = if octet & 0x80 != 0 {
            Unit::PerSecondLog2(exponent)
        } else if exponent <= TIMESTAMP_DIGITS {
            Unit::Nanos(10u64.pow(TIMESTAMP_DIGITS - exponent))
        } else {
            // From 10^-29 s on, 64 bits of the unit do not reach one nanosecond.
            10u64.checked_pow(exponent - TIMESTAMP_DIGITS).map_or(Unit::Nanos(0), Unit::PerNano)
        };
        Self { unit, ..self }
    }

    /// With an `if_tsoffset`: seconds to add to each time.
    pub(super) fn with_tsoffset(self, offset_s: i64) -> Self {
        Self { offset_s, ..self }
    }

    /// The time of so many units, and whether it lies outside [`Timestamp`] and was set to the nearest end.
    pub(super) fn time(self, units: u64) -> (Timestamp, bool) {
        if self.offset_s == 0
            && let Unit::Nanos(nanos) = self.unit
        {
            let time = units.checked_mul(nanos);
            return (Timestamp(time.unwrap_or(u64::MAX)), time.is_none());
        }
        // 64 bits of units times 30 bits of nanoseconds plus 94 bits of offset: far inside an i128.
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
