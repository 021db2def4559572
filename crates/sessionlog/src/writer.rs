//! Writes the files of a log, and removes old ones.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parquet::errors::ParquetError;

use crate::encode::Encoder;
use crate::row::{MILLI_NS, Observer, Row, hour};
use crate::shared::SharedLog;
use crate::tree::{LogFile, UnfinishedFile};
use base::time::Timestamp;

/// Hours that are written at the same time. A capture that is replayed fast can pass many hours between two looks.
const OPEN_MAX: usize = 3;

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Rows that are durable.
    pub rows: u64,
    /// Files that were written.
    pub files: u64,
    /// Rows that were lost because a file could not be written.
    pub lost_rows: u64,
    /// Files that could not be written.
    pub failures: u64,
    /// Files that were removed for room.
    pub removed_files: u64,
    /// The text of the latest failure; `None` after a success.
    pub problem: Option<String>,
}

/// The writer of a log.
#[derive(Debug)]
pub struct LogWriter {
    log: Arc<SharedLog>,
    observer: Observer,
    open: BTreeMap<u64, Encoder<UnfinishedFile>>,
    /// The earliest end of a session in the open files.
    open_since: Option<Timestamp>,
    counts: LogCounts,
    missed: u64,
    /// The files have all sessions up to this time.
    reached: Timestamp,
}

impl LogWriter {
    /// Opens the log: removes unfinished files and publishes the others.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn open(log: Arc<SharedLog>, observer: Observer) -> io::Result<Self> {
        log.tree().remove_unfinished()?;
        log.tree().remove_replaced()?;
        log.publish(log.tree().list()?);
        Ok(Self {
            log,
            observer,
            open: BTreeMap::new(),
            open_since: None,
            counts: LogCounts::default(),
            missed: 0,
            reached: Timestamp::MIN,
        })
    }

    /// Counts so far.
    pub fn counts(&self) -> &LogCounts {
        &self.counts
    }

    /// Whether the files lack sessions before this time.
    pub fn is_behind(&self, time: Timestamp) -> bool {
        self.reached < time
    }

    /// Notes that the files have all sessions up to this time.
    pub fn reached(&mut self, time: Timestamp) {
        self.reached = time;
    }

    /// Adds to the sessions that no row has; the footer of the next file states them.
    pub fn missed(&mut self, sessions: u64) {
        self.missed += sessions;
        self.log.set_unwritten(self.missed);
    }

    /// Adds a row to the file of an hour.
    pub fn put(&mut self, row: Row, hour: u64, now: Timestamp) {
        if !self.open.contains_key(&hour) {
            if self.open.len() >= OPEN_MAX {
                self.close_first();
            }
            let created = self.log.tree().create(hour, now.0 / MILLI_NS).map_err(ParquetError::from);
            match created.and_then(Encoder::new) {
                Ok(encoder) => drop(self.open.insert(hour, encoder)),
                Err(error) => return self.failed(&error, 1),
            }
        }
        let Some(encoder) = self.open.get_mut(&hour) else { return };
        let (rows, last) = (encoder.rows() + 1, row.session.last);
        self.open_since = Some(self.open_since.map_or(last, |since| since.min(last)));
        if let Err(error) = encoder.put(row, &self.observer) {
            self.open.remove(&hour);
            let _ = self.log.tree().remove_unfinished();
            self.failed(&error, rows);
        }
    }

    /// The hour of a row: that of its latest packet, but not after the hour that ends now.
    pub fn hour_of(row: &Row, ends: Option<u64>) -> u64 {
        let last = hour(row.session.last);
        match ends {
            // The session had packets since the end of the hour, but not for long.
            Some(ends) if last == ends + 1 => ends,
            _ => last,
        }
    }

    /// Counts rows that were lost. The footer of the next file states them, and until then answers do.
    fn failed(&mut self, error: &ParquetError, rows: u64) {
        self.missed += rows;
        self.log.set_unwritten(self.missed);
        self.counts.lost_rows += rows;
        self.counts.failures += 1;
        self.counts.problem = Some(error.to_string());
    }

    /// Finishes all files.
    pub fn close(&mut self) {
        while !self.open.is_empty() {
            self.close_first();
        }
        self.open_since = None;
    }

    /// Whether memory has forgotten sessions of the open files, so that no answer has these. `known_since` is the time since
    /// which memory knows all sessions.
    pub fn is_forgotten(&self, known_since: Option<Timestamp>) -> bool {
        known_since.zip(self.open_since).is_some_and(|(known, open)| open < known)
    }

    /// Rows of the files that are not finished.
    pub fn open_rows(&self) -> u64 {
        self.open.values().map(Encoder::rows).sum()
    }

    fn close_first(&mut self) {
        let Some((_, encoder)) = self.open.pop_first() else { return };
        let (rows, reaches) = (encoder.rows(), encoder.reaches());
        let missed = std::mem::take(&mut self.missed);
        let finished = encoder.finish(&self.observer, missed).and_then(|file| Ok(file.finish()?));
        match finished {
            Ok(file) => {
                // Questions need not read the file for it.
                let _ = file.reaches(|| Ok::<_, ParquetError>(reaches));
                self.log.set_unwritten(self.missed);
                self.counts.rows += rows;
                self.counts.files += 1;
                self.counts.problem = None;
                let mut files = self.log.files();
                files.push(Arc::new(file));
                files.sort_by_key(|file| (file.hour, file.created_ms));
                self.log.publish(files);
            }
            Err(error) => {
                self.missed += missed;
                let _ = self.log.tree().remove_unfinished();
                self.failed(&error, rows);
            }
        }
    }

    /// Bytes of all finished files.
    pub fn bytes(&self) -> u64 {
        self.log.files().iter().map(|file| file.len).sum()
    }

    /// Removes the oldest files until the rest takes at most so many bytes. Returns whether it does.
    pub fn shrink(&mut self, bytes_max: u64) -> bool {
        let mut files = self.log.files();
        let mut bytes: u64 = files.iter().map(|file| file.len).sum();
        let mut removed: Vec<Arc<LogFile>> = Vec::new();
        while bytes > bytes_max && !files.is_empty() {
            let oldest = files.remove(0);
            bytes -= oldest.len;
            removed.push(oldest);
        }
        if removed.is_empty() {
            return bytes <= bytes_max;
        }
        // Questions must not begin to read a file that goes.
        self.log.publish(files);
        for file in removed {
            match self.log.tree().remove(&file) {
                Ok(()) => self.counts.removed_files += 1,
                Err(error) => self.counts.problem = Some(error.to_string()),
            }
        }
        bytes <= bytes_max
    }

    /// Removes the oldest file. Returns whether there was one.
    pub fn remove_oldest(&mut self) -> bool {
        let bytes = self.bytes();
        let oldest = self.log.files().first().map(|file| file.len);
        oldest.is_some_and(|len| self.shrink(bytes.saturating_sub(len)))
    }
}
