//! The log of sessions in the directory of a spool: listed, verified, and cleared of sessions.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::error::Usage;
use crate::terminal::human::{counted, size};
use crate::terminal::printable::plain;
use base::time::{self, Timestamp};
use filter::{Endpoints, Outcome, SessionProbe};
use sessionlog::decode::Decoder;
use sessionlog::rewrite::{RowRemoval, remove_rows};
use sessionlog::tree::{LogFile, LogTree};
use spool::directory::Directory;
use spool::encryption::Keys;
use spool::medium::Medium as _;

fn tree(directory: &Directory) -> anyhow::Result<Arc<LogTree>> {
    Ok(Arc::new(LogTree::new(directory.descriptor().try_clone()?, directory.keys().clone())))
}

fn files(tree: &LogTree) -> anyhow::Result<Vec<Arc<LogFile>>> {
    tree.list().context("cannot read the log of sessions")
}

/// A file of the list.
pub(super) struct FileOfSessions {
    file: Arc<LogFile>,
    rows: Option<u64>,
}

/// The files of the log, by hour.
pub(super) fn list(directory: &Directory) -> anyhow::Result<Vec<FileOfSessions>> {
    let tree = tree(directory)?;
    let rows = |file: &LogFile| Some(Decoder::open(tree.read(file).ok()?).ok()?.rows());
    Ok(files(&tree)?.into_iter().map(|file| FileOfSessions { rows: rows(&file), file }).collect())
}

impl FileOfSessions {
    pub(super) fn json(&self) -> serde_json::Value {
        let (first, last) = self.file.times();
        json!({
            "file": self.file.path, "band": null, "sealed": true, "first": first.to_rfc3339(), "last": last.to_rfc3339(),
            "packets": null, "sessions": self.rows, "bytes": self.file.len,
        })
    }

    pub(super) fn line(&self, tz: &TimeZone) -> String {
        let (first, last) = self.file.times();
        let (first, last) = (time::local(first, tz), time::local(last, tz));
        let rows = self.rows.map_or("damaged".to_owned(), |rows| rows.to_string());
        let name = plain(&self.file.path);
        format!("{name:<32} {:>4}  {first:<19}  {last:<19} {:>10} {rows:>9} {:>10}\n", "log", "-", size(self.file.len))
    }
}

/// The result of a check.
#[derive(Default)]
pub(super) struct LogReport {
    files: u64,
    rows: u64,
    missed: u64,
    pub(super) damaged: Vec<(String, String)>,
}

/// Reads all rows of all files.
pub(super) fn check(directory: &Directory) -> anyhow::Result<LogReport> {
    let tree = tree(directory)?;
    let mut report = LogReport::default();
    for file in files(&tree)? {
        report.files += 1;
        let mut rows = 0;
        let opened = tree.read(&file).map_err(Into::into).and_then(Decoder::open);
        let read = opened.and_then(|decoder| {
            decoder.read((i64::MIN, i64::MAX), &mut |_| {
                rows += 1;
                true
            })?;
            Ok(decoder.missed())
        });
        match read {
            Ok(missed) => {
                report.rows += rows;
                report.missed += missed;
            }
            Err(error) => report.damaged.push((file.path.clone(), error.to_string())),
        }
    }
    Ok(report)
}

impl LogReport {
    pub(super) fn json(&self) -> serde_json::Value {
        let damage: Vec<_> = self.damaged.iter().map(|(file, error)| json!({"file": file, "error": error})).collect();
        json!({"files": self.files, "rows": self.rows, "missed_sessions": self.missed, "damaged": damage})
    }

    pub(super) fn text(&self) -> String {
        if self.files == 0 {
            return String::new();
        }
        let (rows, files) = (counted(self.rows, "row"), counted(self.files, "file"));
        let mut out = match self.damaged.len() {
            0 => format!("the log of sessions is whole: {rows} in {files}\n"),
            damaged => format!("{damaged} of {files} of the log of sessions are damaged; {rows} are whole\n"),
        };
        for (file, error) in &self.damaged {
            out += &format!("{}: {}\n", plain(file), plain(error));
        }
        out
    }
}

/// Decrypts the log into another directory. Returns the number of files, and those that could not be decrypted.
pub(super) fn decrypt(directory: &Directory, out: &Path) -> anyhow::Result<(u64, Vec<(String, String)>)> {
    let from = tree(directory)?;
    let to = std::fs::File::open(out).with_context(|| format!("cannot open {}", out.display()))?;
    let to = Arc::new(LogTree::new(to.into(), Keys::none()));
    let (mut done, mut failed) = (0, Vec::new());
    for file in files(&from)?.iter().filter(|file| file.encrypted) {
        match from.decrypt(file, &to) {
            Ok(_) => done += 1,
            Err(error) => failed.push((file.path.clone(), error.to_string())),
        }
    }
    Ok((done, failed))
}

/// The result of a removal.
pub(super) struct LogRemoval {
    removal: RowRemoval,
    /// Sessions that may match, but only their packets could tell.
    undecided: u64,
}

/// Removes the sessions that ended before a time and whose endpoints match.
pub(super) fn remove(
    directory: &Directory,
    expression: &str,
    before: Timestamp,
    now: Timestamp,
) -> anyhow::Result<LogRemoval> {
    let mut probe = SessionProbe::new(expression).map_err(Usage::of)?;
    let mut undecided = 0;
    let removed = remove_rows(&tree(directory)?, now, &mut |logged| {
        if logged.session.last >= before {
            return false;
        }
        let outcome = probe.ask(&Endpoints::from(&logged.session.key));
        undecided += u64::from(outcome == Outcome::Unknown);
        outcome == Outcome::Matches
    });
    let removal = removed.context("cannot remove sessions from the log")?;
    Ok(LogRemoval { removal, undecided })
}

impl LogRemoval {
    pub(super) fn rows(&self) -> u64 {
        self.removal.rows
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let RowRemoval { rows, rewritten, removed, failed, .. } = &self.removal;
        let failed: Vec<_> = failed.iter().map(|(file, error)| json!({"file": file, "error": error})).collect();
        json!({
            "rows": rows, "rewritten_files": rewritten, "removed_files": removed, "undecided_rows": self.undecided,
            "failed": failed,
        })
    }

    /// Files whose rows could not be removed.
    pub(super) fn failed(&self) -> &[(String, String)] {
        &self.removal.failed
    }

    /// Paths of the files that are there no more, or were written anew.
    pub(super) fn changed(&self) -> &[String] {
        &self.removal.changed
    }

    pub(super) fn undecided_text(&self) -> String {
        match self.undecided {
            0 => String::new(),
            undecided => format!(
                "; {} of the log stay, because only their packets could tell whether they match",
                counted(undecided, "row")
            ),
        }
    }

    pub(super) fn text(&self) -> String {
        let RowRemoval { rows, rewritten, removed, .. } = &self.removal;
        let rows = counted(*rows, "row");
        format!(
            "removed {rows} of the log of sessions: {rewritten} files were rewritten, {removed} were deleted{}\n",
            self.undecided_text()
        )
    }
}
