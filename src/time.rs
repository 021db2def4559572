//! Time as packets carry it: nanoseconds since 1970 in UTC.

/// Nanoseconds since 1970-01-01T00:00:00Z, without leap seconds; reaches the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The epoch.
    pub const MIN: Self = Self(0);
    /// The end of time.
    pub const MAX: Self = Self(u64::MAX);
}
