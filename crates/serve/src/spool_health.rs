//! What `/v1/health` and answers say of the spool.

use super::clock::now;
use base::time::human_age;
use query::{History, Request, Tier};
use spool::writer::SpoolState;

/// What an answer about `request` says of packets that memory has evicted, of which `in_memory` is a statement.
pub(super) fn with_disk(history: &History, request: &Request, in_memory: String) -> String {
    let Some(disk) = history.disk.as_ref().filter(|_| request.tier != Some(Tier::Memory)) else { return in_memory };
    let Some(view) = disk.view() else { return in_memory };
    if in_memory.is_empty() {
        return in_memory;
    }
    let gone = view.removed_until.max(disk.progress().and_then(|progress| progress.lost_until));
    let whole = gone.is_none_or(|gone| request.since.is_some_and(|since| since > gone));
    // Packets that were taken over from an earlier recorder are not written again.
    match (whole, history.restart.since) {
        (true, None) => String::new(),
        _ => format!("memory only, the spool was not searched: {in_memory}"),
    }
}

/// What an answer that asks memory alone says of the spool; `None` if there is none, or if memory alone was asked.
pub(super) fn not_searched(history: &History, request: &Request) -> Option<String> {
    let disk = history.disk.as_ref().filter(|_| request.tier != Some(Tier::Memory))?;
    let directory = disk.directory();
    Some(format!("the spool was not searched: ask it with --spool {directory}"))
}

/// Adds to a sentence about memory that the spool was not searched, if there is one.
pub(super) fn of_memory(history: &History, request: &Request, in_memory: String) -> String {
    match not_searched(history, request) {
        Some(words) if in_memory.is_empty() => words,
        Some(words) => format!("{in_memory}; {words}"),
        None => in_memory,
    }
}

/// Why packets do not reach the disk, if so.
pub(super) fn problem(history: &History) -> Option<String> {
    let disk = history.disk.as_ref()?;
    let directory = disk.directory();
    let Some(view) = disk.view() else {
        let problem = disk.problem()?;
        return Some(format!("the spool {directory} cannot be opened: {problem}"));
    };
    let problem = view.problem.unwrap_or_default();
    match view.state {
        SpoolState::Failed => Some(format!("the spool {directory} cannot be written: {problem}")),
        SpoolState::Full => Some(format!("the spool {directory} is full: {problem}; give it more room, or move it")),
        SpoolState::Ok => {
            let keep = view.keep?;
            let gone = view.removed_until.max(disk.progress().and_then(|progress| progress.lost_until))?;
            let reach = now().since(gone);
            (reach < keep).then(|| {
                let (reach, keep) = (human_age(reach), human_age(keep));
                format!("the spool {directory} holds every packet of {reach}, not of {keep}: give it more room (--spool-size)")
            })
        }
    }
}
