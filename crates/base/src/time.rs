//! Packet time: nanoseconds since 1970 in UTC.
//!
//! The packet path computes with [`Timestamp`] and reads no clock. [`parse`] and [`parse_duration`] read user input;
//! [`local`] and [`human_age`] format times for terminals.

mod parse;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use parse::{TimeError, parse, parse_ahead, parse_duration};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds since 1970-01-01T00:00:00Z, without leap seconds. The range ends in the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The epoch.
    pub const MIN: Self = Self(0);
    /// The latest representable time, in the year 2554.
    pub const MAX: Self = Self(u64::MAX);

    /// `secs` seconds and `nanos` nanoseconds after the epoch, at most [`Timestamp::MAX`]. `nanos` may exceed a second.
    pub const fn from_unix(secs: u64, nanos: u32) -> Self {
        Self(secs.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos as u64))
    }

    /// Whole seconds since the epoch.
    pub const fn unix_seconds(self) -> u64 {
        self.0 / NANOS_PER_SECOND
    }

    /// Nanoseconds since the last whole second; less than 10⁹.
    pub const fn subsec_nanos(self) -> u32 {
        (self.0 % NANOS_PER_SECOND) as u32
    }

    /// The time `duration` later, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// The time `duration` earlier, at least [`Timestamp::MIN`].
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// The time elapsed since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 in UTC, always with nine digits: `2026-11-22T10:00:00.123456789Z`.
    pub fn to_rfc3339(self) -> String {
        self.to_string()
    }
}

/// RFC 3339 in UTC, always with nine digits: `2026-11-22T10:00:00.123456789Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.9}"),
            // This cannot happen, as jiff's range ends in the year 9999.
            Err(_) => write!(f, "{}.{:09}", self.unix_seconds(), self.subsec_nanos()),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Times before 1970 become [`Timestamp::MIN`], those after 2554 [`Timestamp::MAX`].
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, nanos))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The offset from UTC that a time zone has at this time: `UTC` or `+01:00`.
pub fn zone(time: Timestamp, tz: &jiff::tz::TimeZone) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(instant) if tz.to_offset(instant).seconds() == 0 => "UTC".to_owned(),
        Ok(instant) => instant.to_zoned(tz.clone()).strftime("%:z").to_string(),
        Err(_) => "UTC".to_owned(),
    }
}

/// Formats date and time to the second in a time zone, for terminals: `2026-11-22 10:00:05`.
pub fn local(time: Timestamp, tz: &jiff::tz::TimeZone) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(instant) => tz.to_datetime(instant).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => time.to_string(),
    }
}

/// Formats a duration in its two largest units, rounded down, for terminals: `5 d 3 h`, `3 h 12 m`, `42 s`, `850 ms`.
pub fn human_age(span: Duration) -> String {
    let seconds = span.as_secs();
    let (large, small) = match seconds {
        0 => return format!("{} ms", span.as_millis()),
        1..60 => return format!("{seconds} s"),
        60..3600 => ((seconds / 60, "m"), (seconds % 60, "s")),
        3600..86400 => ((seconds / 3600, "h"), (seconds % 3600 / 60, "m")),
        _ => ((seconds / 86400, "d"), (seconds % 86400 / 3600, "h")),
    };
    match small.0 {
        0 => format!("{} {}", large.0, large.1),
        _ => format!("{} {} {} {}", large.0, large.1, small.0, small.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_as_rfc_3339_with_nine_digits() {
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (1_795_341_600_123_456_789, "2026-11-22T10:00:00.123456789Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(Timestamp(nanos).to_rfc3339(), expected);
            assert_eq!(serde_json::to_string(&Timestamp(nanos)).unwrap(), format!("\"{expected}\""));
        }
    }

    #[test]
    fn arithmetic_stays_within_time() {
        let second = Duration::from_secs(1);
        assert_eq!(Timestamp::MIN.saturating_sub(second), Timestamp::MIN);
        assert_eq!(Timestamp::MAX.saturating_add(second), Timestamp::MAX);
        assert_eq!(Timestamp(5).saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_unix(3, 7).saturating_sub(second), Timestamp(2_000_000_007));
        assert_eq!(Timestamp::from_unix(u64::MAX, 0), Timestamp::MAX);
        assert_eq!(Timestamp(9).since(Timestamp(4)), Duration::from_nanos(5));
        assert_eq!(Timestamp(4).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp::from(UNIX_EPOCH - second), Timestamp::MIN);
        assert_eq!(Timestamp::from(UNIX_EPOCH + second), Timestamp(1_000_000_000));
    }

    #[test]
    fn ages_read_well() {
        for (millis, expected) in [
            (0, "0 ms"),
            (850, "850 ms"),
            (42_999, "42 s"),
            (60_000, "1 m"),
            (725_000, "12 m 5 s"),
            (3 * 3_600_000 + 12 * 60_000 + 59_000, "3 h 12 m"),
            (5 * 86_400_000 + 3 * 3_600_000, "5 d 3 h"),
            (86_400_000, "1 d"),
        ] {
            assert_eq!(human_age(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn local_times_read_well() {
        let berlin = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(local(Timestamp::from_unix(1_795_341_605, 999_999_999), &berlin), "2026-11-22 11:00:05");
        assert_eq!(zone(Timestamp::from_unix(1_795_341_605, 0), &berlin), "+01:00");
        assert_eq!(zone(Timestamp::from_unix(1_780_000_000, 0), &berlin), "+02:00");
        assert_eq!(zone(Timestamp::MAX, &jiff::tz::TimeZone::UTC), "UTC");
    }
}
