//! The trailers of an answer: which packets were evicted, and why an answer is not complete.

use anyhow::anyhow;

use crate::client::Trailers;
use crate::options::Common;
use crate::terminal::printable::note;

/// The trailer that says why an answer is not complete.
pub(super) const NOTE: &str = "retrocap-note";

/// The trailer that lists the matching packets that were evicted.
pub(super) const MISSING: &str = "retrocap-missing";

/// Prints which matching packets were evicted; see [`complete`] for the rest.
pub(super) fn ended(trailers: &Trailers, common: &Common) -> anyhow::Result<()> {
    missing(trailers, common);
    complete(trailers)
}

/// Prints which matching packets are gone.
pub(super) fn missing(trailers: &Trailers, common: &Common) {
    if let Some(missing) = trailers.text(MISSING).filter(|_| !common.quiet) {
        note(&format!("retrocap: {}", missing.terminal()));
    }
}

/// `INCOMPLETE: ` before the summary of an answer that ended early, so that it does not look like success.
pub(super) fn heading(trailers: &Trailers) -> &'static str {
    if trailers.text(NOTE).is_some_and(|text| is_incomplete(text.untrusted())) { "INCOMPLETE: " } else { "" }
}

pub(super) fn is_incomplete(note: &str) -> bool {
    note.starts_with("incomplete") || note.contains("stopped")
}

/// Prints why an answer is not complete, if so. Returns an error if it ended early; the packets received are
/// valid.
pub(super) fn complete(trailers: &Trailers) -> anyhow::Result<()> {
    let Some(text) = trailers.text(NOTE) else { return Ok(()) };
    if is_incomplete(text.untrusted()) {
        return Err(anyhow!("{}", text.terminal()));
    }
    note(&format!("retrocap: {}", text.terminal()));
    Ok(())
}
