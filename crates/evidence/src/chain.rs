//! Logs whose lines are chained: each line ends with the digest of itself and of the line before it.
//!
//! ```text
//! {"time":…,"event":…,"link":{"number":7,"previous":"<64 digits>"},"hash":"<64 digits>"}
//! └──────────────── hashed, with the closing brace of the object ──┘
//! ```
//!
//! `hash` is the SHA-256 of the line without the member `hash`, that is with `}` in place of `,"hash":"…"}`. `previous`
//! is the `hash` of the line before. A changed line therefore has a wrong hash, and a line after a removed, inserted or
//! reordered one has a wrong `previous`. An attacker who can rewrite the rest of a log can make a valid chain again,
//! but cannot make it agree with signed heads and with heads that were sent elsewhere. `sha256sum` suffices to check a
//! line.

use std::io::{BufRead, Read as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::signature::{self, Signer};

/// The end of a chain, to which the next line is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The number of the last line.
    pub number: u64,
    /// Its hash.
    pub hash: Digest,
}

/// The longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
const HASH_BYTES: usize = ",\"hash\":\"\"}".len() + 64;

/// Appends the links to a line that is a JSON object, and returns the line with its new head.
///
/// # Panics
///
/// Never: a line that is no object is stored as a string in an object.
pub fn link(line: &str, head: Option<Head>) -> (String, Head) {
    let line = line.trim_end();
    let object = match line.strip_suffix('}') {
        Some(object) if line.starts_with('{') && line.len() > 2 => object.to_owned(),
        _ => format!("{{\"text\":{}", Value::from(line)),
    };
    let number = head.map_or(0, |head| head.number + 1);
    let previous = head.map_or_else(Digest::default, |head| head.hash);
    let mut linked = format!("{object},\"link\":{{\"number\":{number},\"previous\":\"{previous}\"}}}}");
    let hash = Digest::of(linked.as_bytes());
    linked.pop();
    linked.push_str(&format!(",\"hash\":\"{hash}\"}}\n"));
    (linked, Head { number, hash })
}

/// The position of a line in its chain, if its hash is correct.
pub fn read_link(line: &[u8]) -> Result<(Head, Digest), ChainBreak> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let at = line.len().checked_sub(HASH_BYTES).ok_or(ChainBreak::NotLinked)?;
    let (hashed, suffix) = line.split_at(at);
    let suffix = std::str::from_utf8(suffix).map_err(|_| ChainBreak::NotLinked)?;
    let digits = suffix.strip_prefix(",\"hash\":\"").and_then(|rest| rest.strip_suffix("\"}"));
    let hash: Digest = digits.ok_or(ChainBreak::NotLinked)?.parse().map_err(|_| ChainBreak::NotLinked)?;
    if Digest::of_parts(&[hashed, b"}"]) != hash {
        return Err(ChainBreak::Changed);
    }
    let value: Value = serde_json::from_slice(line).map_err(|_| ChainBreak::NotLinked)?;
    let number = value.pointer("/link/number").and_then(Value::as_u64).ok_or(ChainBreak::NotLinked)?;
    let previous = value.pointer("/link/previous").and_then(Value::as_str).ok_or(ChainBreak::NotLinked)?;
    let previous = previous.parse().map_err(|_| ChainBreak::NotLinked)?;
    Ok((Head { number, hash }, previous))
}

/// The reason why a line breaks the chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainBreak {
    /// The line has no links.
    #[error("it is not linked to a line before it: it was written by another program, by an older version, or cut")]
    NotLinked,
    /// The content does not match the hash.
    #[error("it was changed: its hash does not match its content")]
    Changed,
    /// The line before it is missing, or has other content.
    #[error(
        "the line before it is not the one that it was linked to: lines {expected} to {found} were removed or changed"
    )]
    Gap {
        /// The number of the line that was expected.
        expected: u64,
        /// The number of the line before the one found.
        found: u64,
    },
    /// The line is at the wrong position.
    #[error("it has the number {found} where {expected} follows: lines were reordered, repeated or inserted")]
    Order {
        /// The number that was expected.
        expected: u64,
        /// The number that the line has.
        found: u64,
    },
    /// A signed head does not match this log.
    #[error("the signed head in it does not match this log: {0}")]
    Head(String),
}

/// The result of checking a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines read.
    pub lines: u64,
    /// The first line's number in the chain, and its `previous`.
    pub first: Option<(u64, Digest)>,
    /// The position of the last line.
    pub head: Option<Head>,
    /// Each break with the number of its line in the files, from 1; at most [`BREAKS_MAX`].
    pub breaks: Vec<(u64, ChainBreak)>,
    /// Breaks beyond these.
    pub more_breaks: u64,
    /// Signed heads that match the log, at most [`SIGNED_MAX`].
    pub signed: Vec<Signed>,
}

/// A signed head of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The number of the last line that it covers.
    pub number: u64,
    /// Time of the signature.
    pub time: String,
    /// The key that signed it.
    pub signer: Signer,
}

/// Maximum number of listed signed heads: enough for more than ten years.
pub const SIGNED_MAX: usize = 4096;
/// Maximum number of listed breaks.
pub const BREAKS_MAX: usize = 100;

impl Report {
    fn found(&mut self, what: ChainBreak) {
        if self.breaks.len() < BREAKS_MAX {
            self.breaks.push((self.lines, what));
        } else {
            self.more_breaks += 1;
        }
    }

    fn signed(&mut self, number: u64, time: String, signer: Signer) {
        if self.signed.len() < SIGNED_MAX {
            self.signed.push(Signed { number, time, signer });
        }
    }

    /// Whether no line is missing between the first and the last, and no line was changed.
    pub fn holds(&self) -> bool {
        self.breaks.is_empty() && self.lines > 0
    }
}

/// Checks files of one chain, the oldest first.
///
/// # Errors
///
/// When a file cannot be read.
pub fn check(files: impl IntoIterator<Item = impl BufRead>) -> std::io::Result<Report> {
    let (mut report, mut line) = (Report::default(), Vec::new());
    for mut file in files {
        loop {
            line.clear();
            let bytes = (&mut file).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if bytes == 0 {
                break;
            }
            report.lines += 1;
            check_line(&mut report, &line);
        }
    }
    Ok(report)
}

fn check_line(report: &mut Report, line: &[u8]) {
    if !line.ends_with(b"\n") {
        return report.found(ChainBreak::NotLinked);
    }
    let (place, previous) = match read_link(line) {
        Ok(link) => link,
        Err(error) => return report.found(error),
    };
    match report.head {
        None => report.first = Some((place.number, previous)),
        Some(head) if place.number <= head.number => {
            report.found(ChainBreak::Order { expected: head.number + 1, found: place.number });
        }
        Some(head) if place.number > head.number + 1 || previous != head.hash => {
            report.found(ChainBreak::Gap { expected: head.number + 1, found: place.number.saturating_sub(1) });
        }
        Some(_) => {}
    }
    check_signed(report, line);
    report.head = Some(place);
}

/// Checks a head that was signed and written into the log: `{"event":"head","head":{…},"signature":"…"}`.
fn check_signed(report: &mut Report, line: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return };
    let (Some(signed), Some(signature)) =
        (value.get("signed").and_then(Value::as_str), value.get("signature").and_then(Value::as_str))
    else {
        return;
    };
    let signer = match signature::verify(signature, signed.as_bytes()) {
        Ok(signer) => signer,
        Err(error) => return report.found(ChainBreak::Head(error.to_string())),
    };
    let said: Option<SignedHead> = serde_json::from_str(signed).ok();
    match (said, report.head) {
        (Some(said), Some(head)) if said.head == head => {
            report.signed(head.number, said.time, signer);
        }
        // The head before the first line of these files is known only from that line's link.
        (Some(said), None) if report.first.is_some_and(|(_, previous)| previous == said.head.hash) => {
            report.signed(said.head.number, said.time, signer);
        }
        (Some(said), _) => report.found(ChainBreak::Head(format!("line {} had another hash", said.head.number))),
        (None, _) => report.found(ChainBreak::Head("its text cannot be read".to_owned())),
    }
}

/// The text that is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// The kind of the signed text, so that it is not valid for any other purpose.
    pub retrocap_log_head: u32,
    /// The time.
    pub time: String,
    /// The last line before this one.
    #[serde(flatten)]
    pub head: Head,
}

#[cfg(test)]
mod tests;
