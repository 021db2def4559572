//! What the trailers of an answer say: which packets are gone, and why an answer is not complete.

use anyhow::anyhow;

use crate::client::Trailers;
use crate::options::Common;
use crate::terminal::printable::note;

/// The trailer that says why an answer is not complete.
pub(super) const NOTE: &str = "retrocap-note";

/// The trailer that says which matching packets are gone.
pub(super) const MISSING: &str = "retrocap-missing";

/// Prints which matching packets are gone; see [`complete`] for the rest.
pub(super) fn ended(trailers: &Trailers, common: &Common) -> anyhow::Result<()> {
    if let Some(missing) = trailers.text(MISSING).filter(|_| !common.quiet) {
        note(&format!("retrocap: {}", missing.terminal()));
    }
    complete(trailers)
}

/// `INCOMPLETE: ` above an answer that the recorder broke off, so that its summary does not look like success.
pub(super) fn heading(trailers: &Trailers) -> &'static str {
    if trailers.text(NOTE).is_some_and(|text| is_incomplete(text.untrusted())) { "INCOMPLETE: " } else { "" }
}

fn is_incomplete(note: &str) -> bool {
    note.starts_with("incomplete") || note.contains("stopped")
}

/// Prints why an answer is not complete, if so. Returns an error if the recorder broke off; the packets received are
/// valid.
pub(super) fn complete(trailers: &Trailers) -> anyhow::Result<()> {
    let Some(text) = trailers.text(NOTE) else { return Ok(()) };
    if is_incomplete(text.untrusted()) {
        return Err(anyhow!("{}", text.terminal()));
    }
    note(&format!("retrocap: {}", text.terminal()));
    Ok(())
}
