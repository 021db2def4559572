//! Formats numbers and times for people.

use std::time::Duration;

use base::foreign::Foreign;
use base::time::Timestamp;
use engine::budget::ByteSize;

/// A number with thousands separators: `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 packet`, `1,234 packets`.
pub(crate) fn counted(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A size with a binary unit: `5.6 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// Parses a time of an answer.
pub(crate) fn printed_time(text: &Foreign) -> Option<Timestamp> {
    time(text.untrusted())
}

/// Parses an RFC 3339 time, the format of times in JSON.
pub(crate) fn time(rfc3339: &str) -> Option<Timestamp> {
    let nanos = rfc3339.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
    u64::try_from(nanos).ok().map(Timestamp)
}

/// Seconds as a duration; zero for a negative, infinite or NaN value.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), expected);
        }
        assert_eq!((counted(1, "packet"), counted(2, "packet")), ("1 packet".to_owned(), "2 packets".to_owned()));
    }
}
