//! The only functions that write text to stdout and stderr. Each passes the characters that its kind of output may
//! contain, and replaces all others.
//!
//! Tables, messages and lines replace deceptive characters of foreign text where they are built. This module is the
//! second barrier: a field that was forgotten there still cannot move the cursor or reorder text.

use std::borrow::Cow;
use std::io::Write as _;

use base::foreign::{Terminal, is_deceptive, json_document};

use super::output;
use super::screen::is_style;

/// Prints lines for people. Only the styles of [`screen`](super::screen) pass; other control sequences are replaced.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write(&styled(text))
}

/// Prints a JSON document or lines of JSON. Deceptive characters are escaped, which leaves the values unchanged.
pub(crate) fn print_json(document: &str) -> anyhow::Result<()> {
    write(&json_document(document))
}

/// Prints rows of [`csv`](super::csv).
pub(crate) fn print_csv(rows: &str) -> anyhow::Result<()> {
    let replaced = |c: char| is_deceptive(c) && !matches!(c, '\r' | '\n');
    if rows.contains(replaced) { write(&rows.replace(replaced, "\u{fffd}")) } else { write(rows) }
}

/// Prints text of this program unchanged: shell completions, or the sequence that clears the screen.
pub(crate) fn print_own(text: &str) -> anyhow::Result<()> {
    write(text)
}

/// Writes a message and a line feed to stderr, and ignores errors, because stderr may be closed. It uses one write,
/// because programs that show the message may read only once.
pub(crate) fn note(text: &str) {
    let _ = std::io::stderr().write_all(format!("{}\n", plain_lines(text)).as_bytes());
}

/// Replaces deceptive characters of foreign text within a line.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains(is_deceptive) { Cow::Owned(Terminal(text).to_string()) } else { Cow::Borrowed(text) }
}

/// Replaces deceptive characters of foreign text with several lines, except line feeds.
pub(crate) fn plain_lines(text: &str) -> Cow<'_, str> {
    if text.contains(|c| c != '\n' && is_deceptive(c)) {
        Cow::Owned(text.split('\n').map(plain).collect::<Vec<_>>().join("\n"))
    } else {
        Cow::Borrowed(text)
    }
}

fn styled(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c != '\n' && is_deceptive(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let bytes = match c {
            '\x1b' => is_style(rest),
            '\n' => Some(1),
            c if is_deceptive(c) => None,
            c => Some(c.len_utf8()),
        };
        match bytes {
            Some(bytes) => safe.push_str(&rest[..bytes]),
            None => safe.push(char::REPLACEMENT_CHARACTER),
        }
        rest = &rest[bytes.unwrap_or(c.len_utf8())..];
    }
    Cow::Owned(safe)
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| output::failed("stdout", error))
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
    fn only_our_colours_pass() {
        assert_eq!(styled("\x1b[1mbold\x1b[0m\n"), "\x1b[1mbold\x1b[0m\n");
        assert_eq!(styled("\x1b[1;31mred"), "\x1b[1;31mred");
        for (text, printed) in [
            ("\x1b[2J", "\u{fffd}[2J"),
            ("\x1b]0;title\x07", "\u{fffd}]0;title\u{fffd}"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("a\u{202e}b\u{200b}c\u{e0041}", "a\u{fffd}b\u{fffd}c\u{fffd}"),
            ("tab\there\r", "tab\u{fffd}here\u{fffd}"),
        ] {
            assert_eq!(styled(text), printed, "{text:?}");
        }
    }
}
