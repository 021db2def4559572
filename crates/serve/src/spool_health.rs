//! What `/v1/health` and answers say of the spool.

use super::clock::now;
use base::time::Timestamp;
use base::time::human_age;
use query::logged_rows::LogNotes;
use query::{History, Request, Tier, counted};
use spool::writer::SpoolState;

/// What an answer about `request` says of packets that memory has evicted, of which `in_memory` is a statement.
pub(super) fn with_disk(history: &History, request: &Request, in_memory: String) -> String {
    if in_memory.is_empty() || history.disk.is_none() || request.tier == Some(Tier::Memory) {
        return in_memory;
    }
    if is_on_disk(history, request) { String::new() } else { format!("in memory: {in_memory}") }
}

/// Whether the disk has every packet of the window of `request`, as far as is known, and is searched.
pub(super) fn is_on_disk(history: &History, request: &Request) -> bool {
    let Some(disk) = history.disk.as_ref().filter(|_| request.tier != Some(Tier::Memory)) else { return false };
    let Some(view) = disk.view() else { return false };
    let gone = view.removed_until.max(disk.progress().and_then(|progress| progress.lost_until));
    // Packets that were taken over from an earlier recorder are not written again.
    history.restart.since.is_none() && gone.is_none_or(|gone| request.since.is_some_and(|since| since > gone))
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

/// Adds to a sentence about sessions what was read of the log on disk, or that there are older sessions in it.
pub(super) fn of_log(history: &History, request: &Request, in_memory: String, notes: Option<&LogNotes>) -> String {
    let Some(log) = &history.log else { return of_memory(history, request, in_memory) };
    let mut parts: Vec<String> = Some(in_memory).filter(|words| !words.is_empty()).into_iter().collect();
    match notes {
        Some(notes) => parts.extend(read_of_log(notes, log.span())),
        None => {
            let older = log.span().filter(|(oldest, _)| request.until.is_none_or(|until| until >= *oldest));
            let is_older = |oldest: Timestamp| !history.knows_sessions_since(oldest);
            if let Some((oldest, _)) = older.filter(|(oldest, _)| request.tier.is_none() && is_older(*oldest)) {
                parts.push(format!("older sessions are in the log on disk, from {oldest} on: ask with --since"));
            }
        }
    }
    parts.extend(before_the_log(history, request, log.span()));
    parts.join("; ")
}

/// That there are packets on disk from before all sessions that memory and log know, if so.
fn before_the_log(history: &History, request: &Request, span: Option<(Timestamp, Timestamp)>) -> Option<String> {
    let disk = history.disk.as_ref().filter(|_| request.tier != Some(Tier::Memory))?;
    let oldest = disk.view()?.bands.iter().filter_map(|band| band.oldest).min()?;
    let known = span.map(|(oldest, _)| oldest).into_iter().chain(history.sessions_since()).min();
    let is_older = known.is_none_or(|known| oldest < known && request.since.is_none_or(|since| since < known));
    let directory = disk.directory();
    is_older.then(|| {
        format!("packets on disk, from {oldest} on, were not searched for sessions: ask with --spool {directory}")
    })
}

/// What an answer has of the log, and what it lacks.
fn read_of_log(notes: &LogNotes, span: Option<(Timestamp, Timestamp)>) -> Vec<String> {
    let mut parts = Vec::new();
    match span {
        Some((oldest, newest)) if notes.sessions > 0 => parts.push(format!(
            "{} from the log on disk ({oldest} to {newest})",
            counted(notes.sessions, "session is", "sessions are")
        )),
        Some((oldest, newest))
            if notes.undecided
                + notes.read.failed
                + notes.read.unread_rows
                + notes.read.missed
                + notes.read.pending
                == 0 =>
        {
            parts.push(format!("none is in the log on disk ({oldest} to {newest})"));
        }
        Some((oldest, newest)) => {
            parts.push(format!("none was found in what could be read of the log on disk ({oldest} to {newest})"));
        }
        None => parts.push("the log on disk is empty: it gets its first file at the end of the hour".to_owned()),
    }
    if notes.undecided > 0 {
        parts.push(format!(
            "{} of the log cannot be decided: the expression needs packets, which the log does not have",
            counted(notes.undecided, "row", "rows")
        ));
    }
    if notes.dropped > 0 {
        parts.push(format!(
            "the totals leave out {} of the log, which come later in this order",
            counted(notes.dropped, "session", "sessions")
        ));
    }
    if notes.left_out > 0 {
        parts.push(format!(
            "incomplete: {} of the log did not fit into memory; narrow it down with --since, --until, --limit or an \
             expression",
            counted(notes.left_out, "row", "rows")
        ));
    }
    if notes.read.failed > 0 {
        parts.push(format!(
            "incomplete: {} of the log cannot be read: `retrocap spool check` says why",
            counted(notes.read.failed, "file", "files")
        ));
    }
    if notes.read.unread_rows > 0 {
        parts.push(format!(
            "incomplete: {} of the log {} not understood, of a newer version perhaps",
            counted(notes.read.unread_rows, "row", "rows"),
            if notes.read.unread_rows == 1 { "is" } else { "are" }
        ));
    }
    if notes.read.missed > 0 {
        parts.push(format!(
            "the log lacks up to {} of these hours, which were floods, left memory before they were written, or could not be \
             written",
            counted(notes.read.missed, "session", "sessions")
        ));
    }
    if notes.read.pending > 0 {
        parts.push(format!(
            "up to {} of the log can be read in a minute, when their file is finished",
            counted(notes.read.pending, "row", "rows")
        ));
    }
    if notes.may_repeat {
        parts.push("some sessions may come twice, because memory knows too many to compare".to_owned());
    }
    parts
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
        SpoolState::Ok if disk.log().is_some_and(|log| log.problem.is_some()) => {
            let problem = disk.log().and_then(|log| log.problem).unwrap_or_default();
            Some(format!("the log of sessions in {directory} cannot be written: {problem}"))
        }
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
