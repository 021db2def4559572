//! Helpers for protocols that consist of lines of text.

/// The longest line in bytes.
const LINE_BYTES_MAX: usize = 16 << 10;

/// The start of the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A line without its line end, and its length with it.
    Whole(&'a [u8], usize),
    /// The end of the line was not received yet.
    More,
    /// The input is not text.
    TooLong,
}

/// The first line.
pub(crate) fn line(data: &[u8]) -> Line<'_> {
    let most = data.len().min(LINE_BYTES_MAX);
    match data[..most].iter().position(|byte| *byte == b'\n') {
        Some(end) => Line::Whole(data[..end].strip_suffix(b"\r").unwrap_or(&data[..end]), end + 1),
        None if data.len() >= LINE_BYTES_MAX => Line::TooLong,
        None => Line::More,
    }
}

/// The first word in capitals, and the rest of the line.
pub(crate) fn command(line: &[u8]) -> (String, &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let word = String::from_utf8_lossy(&line[..end.min(32)]).to_ascii_uppercase();
    (word, line[end..].trim_ascii())
}

/// The reply code of three digits at the start of a line.
pub(crate) fn code(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    if !digits.iter().all(u8::is_ascii_digit) || line.get(3).is_some_and(|next| !matches!(next, b' ' | b'-')) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether the data begins with a word, in any case; `None` while it is too short to tell.
pub(crate) fn starts(data: &[u8], word: &[u8]) -> Option<bool> {
    let len = data.len().min(word.len());
    if !data[..len].eq_ignore_ascii_case(&word[..len]) {
        return Some(false);
    }
    (len == word.len()).then_some(true)
}

/// Finds the end of a body that ends with a line of one dot. Returns the length of the body without and with that
/// line, or the number of bytes that certainly belong to the body.
pub(crate) fn dotted(data: &[u8], at_line_start: bool) -> Result<(usize, usize), usize> {
    if at_line_start {
        if data.starts_with(b".\r\n") {
            return Ok((0, 3));
        }
        if data.starts_with(b".\n") {
            return Ok((0, 2));
        }
        if data == b"." || data == b".\r" {
            return Err(0);
        }
    }
    let mut at = 0;
    while let Some(found) = data[at..].iter().position(|byte| *byte == b'\n') {
        let next = at + found + 1;
        let rest = &data[next..];
        if rest.starts_with(b".\r\n") {
            return Ok((next, next + 3));
        }
        if rest.starts_with(b".\n") {
            return Ok((next, next + 2));
        }
        if rest.is_empty() || rest == b"." || rest == b".\r" {
            return Err(next);
        }
        at = next;
    }
    Err(data.len())
}

/// Removes the dots that were put before lines that begin with one (RFC 5321, 4.5.2).
pub(crate) fn undotted(data: &[u8], mut at_line_start: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    for byte in data {
        if !(at_line_start && *byte == b'.') {
            out.push(*byte);
        }
        at_line_start = *byte == b'\n';
    }
    out
}
