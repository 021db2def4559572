//! What `/v1/health` says of the spool.

use super::clock::now;
use base::time::human_age;
use query::History;
use spool::writer::State;

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
        State::Failed => Some(format!("the spool {directory} cannot be written: {problem}")),
        State::Full => Some(format!("the spool {directory} is full: {problem}; give it more room, or move it")),
        State::Ok => {
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
