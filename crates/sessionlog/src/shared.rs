//! The files of a log as questions see them.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::decode::Decoder;
use crate::row::{MILLI_NS, hour};
use crate::tree::{LogFile, LogTree};
use base::interface::Interfaces;
use base::packet::InterfaceId;
use base::time::Timestamp;
use query::logged::{LogSummary, LoggedSession, SessionLog};

/// The files of a log. Its writer publishes them here.
#[derive(Debug)]
pub struct SharedLog {
    tree: Arc<LogTree>,
    interfaces: Arc<Interfaces>,
    files: Mutex<Vec<Arc<LogFile>>>,
    /// Sessions that are in no row and that no footer states yet.
    unwritten: AtomicU64,
    /// Rows of unfinished files, of which memory has forgotten some.
    pending: AtomicU64,
}

impl SharedLog {
    /// A log without files so far.
    pub fn new(tree: Arc<LogTree>, interfaces: Arc<Interfaces>) -> Self {
        Self { tree, interfaces, files: Mutex::default(), unwritten: AtomicU64::new(0), pending: AtomicU64::new(0) }
    }

    /// The directory.
    pub fn tree(&self) -> &Arc<LogTree> {
        &self.tree
    }

    /// The files, by hour.
    pub fn files(&self) -> Vec<Arc<LogFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Publishes how many sessions are in no row, and in no footer so far.
    pub fn set_unwritten(&self, sessions: u64) {
        self.unwritten.store(sessions, Ordering::Relaxed);
    }

    /// Publishes how many rows are in unfinished files, if memory has forgotten some of them.
    pub fn set_pending(&self, rows: u64) {
        self.pending.store(rows, Ordering::Relaxed);
    }

    /// Whether a file may have sessions of these hours.
    fn may_have(&self, file: &LogFile, hours: &RangeInclusive<u64>) -> bool {
        if file.hour <= *hours.end() {
            return file.hour >= *hours.start();
        }
        let read = || Ok(self.tree.read(file).map_err(Into::into).and_then(Decoder::open)?.reaches());
        // A file that cannot be read is read for the answer, which then counts it.
        file.reaches(read).map_or_else(|_: parquet::errors::ParquetError| true, |hour| hour <= *hours.end())
    }

    /// Replaces the files.
    pub fn publish(&self, files: Vec<Arc<LogFile>>) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }
}

impl SessionLog for SharedLog {
    fn read(&self, window: (Timestamp, Timestamp), each: &mut dyn FnMut(LoggedSession) -> bool) -> LogSummary {
        let mut summary = LogSummary::default();
        let known = self.interfaces.snapshot();
        // An interface that this recorder does not know gets a number that no interface has.
        let interface =
            |name: &str| known.iter().find(|one| one.name == name).map_or(InterfaceId(u16::MAX), |one| one.id);
        let whole = |time: Timestamp| i64::try_from(time.0 / MILLI_NS).unwrap_or(i64::MAX);
        let window_ms = (whole(window.0), whole(window.1).saturating_add(1));
        // The row of a session lies in the hour in which the session had packets. Later rows have its totals.
        // One whose last packet came while the hour was being closed is in the hour before.
        let hours = hour(window.0).saturating_sub(1)..=hour(window.1).saturating_add(1);
        // What could not be written belongs to the latest hours.
        let files = self.files();
        if files.last().is_none_or(|latest| latest.hour <= *hours.end()) {
            summary.missed += self.unwritten.load(Ordering::Relaxed);
            summary.pending = self.pending.load(Ordering::Relaxed);
        }
        for file in files.into_iter().filter(|file| self.may_have(file, &hours)) {
            let opened = self.tree.read(&file).map_err(Into::into).and_then(Decoder::open);
            let read = opened.and_then(|decoder| {
                summary.missed += decoder.missed();
                decoder.read(window_ms, &mut |parts| {
                    summary.rows += 1;
                    let overlaps = parts.times().is_some_and(|(first, last)| first <= window.1 && last >= window.0);
                    match parts.session(&interface) {
                        Some(session) if overlaps => each(session),
                        Some(_) => true,
                        None => {
                            summary.unread_rows += 1;
                            true
                        }
                    }
                })
            });
            match read {
                Ok(goes_on) => {
                    summary.files += 1;
                    if !goes_on {
                        break;
                    }
                }
                Err(_) => summary.failed += 1,
            }
        }
        summary
    }

    fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let files = self.files();
        Some((files.first()?.times().0, files.last()?.times().1))
    }
}
