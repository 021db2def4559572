//! Numbers as people read them.

use std::borrow::Cow;
use std::time::Duration;

use base::time::Timestamp;
use engine::budget::ByteSize;

/// With a comma between the thousands: `1,234,567`.
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

/// `1 packet`, `1,234 packets`.
pub(crate) fn counted(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `5.6 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// A time as JSON has it.
pub(crate) fn time(rfc3339: &str) -> Option<Timestamp> {
    let nanos = rfc3339.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
    u64::try_from(nanos).ok().map(Timestamp)
}

/// Seconds as a span; what is no span is none.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Text that others chose, fit for a terminal: it stays on its line, moves no cursor, and reads in the order it has.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let moves = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.contains(moves) { Cow::Owned(text.replace(moves, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// The same for text of several lines.
pub(crate) fn plain_lines(text: &str) -> Cow<'_, str> {
    if text.contains(|c: char| c != '\n') && plain(text) != text {
        Cow::Owned(text.split('\n').map(plain).collect::<Vec<_>>().join("\n"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(plain("eth0 \u{e4}"), "eth0 \u{e4}");
        assert_eq!(plain("a\x1b[2Jb\n\u{202e}c\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}");
        assert_eq!(plain_lines("one\ntwo\n"), "one\ntwo\n");
        assert_eq!(plain_lines("one\n\x07two"), "one\n\u{fffd}two");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), expected);
        }
        assert_eq!((counted(1, "packet"), counted(2, "packet")), ("1 packet".to_owned(), "2 packets".to_owned()));
    }
}
