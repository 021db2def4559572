//! The only ways to stdout and stderr: each passes on what one kind of output may hold, and replaces all else.
//!
//! Tables, messages and lines replace deceptive characters of foreign text where they are made. This is the second
//! barrier: a field that is forgotten there still moves no cursor and reorders no text.

use std::borrow::Cow;
use std::io::Write as _;

use base::foreign::{Terminal, is_deceptive, json_document};

use super::output;
use super::screen::is_style;

/// Prints lines for people. Colours of [`screen`](super::screen) pass, and nothing else that a terminal obeys.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write(&styled(text))
}

/// Prints a JSON document, or lines of JSON. Deceptive characters are escaped; the values stay the same.
pub(crate) fn print_json(document: &str) -> anyhow::Result<()> {
    write(&json_document(document))
}

/// Prints rows that [`csv`](super::csv) made.
pub(crate) fn print_csv(rows: &str) -> anyhow::Result<()> {
    let replaced = |c: char| is_deceptive(c) && !matches!(c, '\r' | '\n');
    if rows.contains(replaced) { write(&rows.replace(replaced, "\u{fffd}")) } else { write(rows) }
}

/// Prints text of this program alone, as it is: shell completions, the sequence that clears the screen.
pub(crate) fn print_own(text: &str) -> anyhow::Result<()> {
    write(text)
}

/// Writes a message to stderr, which may be closed. It is written at once, because programs that show it may read only
/// once.
pub(crate) fn note(text: &str) {
    let _ = std::io::stderr().write_all(format!("{}\n", plain_lines(text)).as_bytes());
}

/// Foreign text within a line.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains(is_deceptive) { Cow::Owned(Terminal(text).to_string()) } else { Cow::Borrowed(text) }
}

/// Foreign text of several lines.
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
