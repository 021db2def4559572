//! What an answer says of the disk: that it was not searched, and what of it could not be read or opened.

use query::explain::Cause;
use query::{History, Request, Tier, counted};
use spool::index::ClosedPackets;
use spool::read::ReadSummary;

/// Adds to the cause of an empty answer that the disk was searched, and what could not be opened there.
pub(super) fn nothing_on_disk(
    history: &History,
    request: &Request,
    mut cause: Cause,
    (on_disk, closed): (ReadSummary, &ClosedPackets),
) -> Cause {
    if history.disk.is_none() || request.tier == Some(Tier::Memory) {
        return cause;
    }
    if let Some(unsearched) = unsearched(history, request) {
        return Cause { code: "undecided", sentence: format!("{unsearched}; in memory: {}", cause.sentence), ..cause };
    }
    cause.sentence = match unread(on_disk) {
        None => format!("no packet on disk matches; in memory: {}", cause.sentence),
        Some(unread) => {
            cause.code = "undecided";
            format!("{unread}; no other packet on disk matches; in memory: {}", cause.sentence)
        }
    };
    if let Some(words) = not_opened_on_disk(closed) {
        cause.sentence = format!("{}; {words}", cause.sentence);
        cause.code = if matches!(cause.code, "never_seen" | "before_horizon") { "not_opened" } else { cause.code };
    }
    cause
}

/// The packets on disk that could not be opened, so that what they carry was not searched.
pub(super) fn not_opened_on_disk(closed: &ClosedPackets) -> Option<String> {
    const KINDS_MAX: usize = 6;
    let mut kinds: Vec<(&String, u64)> = closed.iter().map(|(kind, packets)| (kind, *packets)).collect();
    kinds.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
    let all: u64 = kinds.iter().map(|(_, packets)| packets).sum();
    let named = kinds.iter().take(KINDS_MAX);
    let mut parts: Vec<String> =
        named.map(|(kind, packets)| format!("{} {kind}", counted(*packets, "packet", "packets"))).collect();
    let others: u64 = kinds.iter().skip(KINDS_MAX).map(|(_, packets)| packets).sum();
    parts.extend((others > 0).then(|| format!("{} of other kinds", counted(others, "packet", "packets"))));
    let was = if all == 1 { "was" } else { "were" };
    (all > 0).then(|| format!("on disk, at these times, {} {was} not opened", parts.join(", ")))
}

/// Why the disk was not searched for an answer that should come from it; `None` if it was.
fn unsearched(history: &History, request: &Request) -> Option<String> {
    let disk = history.disk.as_ref().filter(|_| request.tier != Some(Tier::Memory))?;
    match (disk.problem(), disk.view()) {
        (Some(problem), _) => {
            Some(format!("incomplete: the disk was not searched, because the spool cannot be used: {problem}"))
        }
        (None, None) => {
            Some("incomplete: the disk was not searched, because the spool is still being opened: ask again".to_owned())
        }
        (None, Some(_)) => None,
    }
}

/// What of the disk an answer lacks.
pub(super) fn disk_problem(history: &History, request: &Request, summary: ReadSummary) -> Option<String> {
    unsearched(history, request).or_else(|| unread(summary))
}

/// What could not be read on disk.
fn unread(summary: ReadSummary) -> Option<String> {
    let ReadSummary { gone, damaged, failed, unopened, .. } = summary;
    let mut parts = Vec::new();
    if gone > 0 {
        let files = counted(gone, "file of the spool was", "files of the spool were");
        parts.push(format!("{files} removed before the answer came to {}", if gone == 1 { "it" } else { "them" }));
    }
    if damaged + failed > 0 {
        let stretches = counted(damaged + failed, "stretch", "stretches");
        parts.push(format!("{stretches} of the spool cannot be read (`retrocap spool check` says which)"));
    }
    if unopened > 0 {
        let files = counted(unopened, "file of the spool", "files of the spool");
        parts.push(format!("{files} could not be opened (`retrocap spool check` says why)"));
    }
    (!parts.is_empty()).then(|| format!("incomplete: {}", parts.join(", and ")))
}
