//! Seals the files of the spool by their hashes, and says which were removed.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clock::now;
use super::service::Service;
use evidence::digest::Hasher;
use evidence::record_events::{RecordEvent, SpoolFile};

/// How long the thread works before it rests.
const WORK: Duration = Duration::from_millis(20);
/// How long it rests for each unit of time that it works.
const REST: u32 = 9;

/// How fast a file is hashed.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// Beside recording, until the recorder stops.
    Slow,
    /// At once, until this moment.
    Until(Instant),
}

impl Service {
    /// Writes into the log that the recorder begins to seal.
    pub fn begin_record(&self) {
        if self.seals_record() {
            self.audit.record_event(&RecordEvent::Started { time: now().to_rfc3339() });
        }
    }

    /// Seals what is not sealed yet, until `deadline`, and writes into the log that the recorder ends. Call it when nothing more
    /// is recorded and the spool is closed, and do not seal afterwards.
    pub fn end_record(&self, deadline: Instant) {
        if !self.seals_record() {
            return;
        }
        let unsealed = self.seal_all(deadline);
        self.note_removed();
        let due = self.due_files();
        let mut unsealed_files = due.len() as u64;
        for (name, bytes) in due {
            if Instant::now() >= deadline {
                break;
            }
            unsealed_files -= u64::from(self.seal_file(name, bytes, Pace::Until(deadline)));
        }
        unsealed_files += self.spool_seals.lock().unreadable.len() as u64;
        self.audit.record_event(&RecordEvent::Stopped { time: now().to_rfc3339(), unsealed, unsealed_files });
        self.audit.sign_head(self.attestation.as_ref(), true);
    }

    /// Seals one file of the spool that is complete and was not sealed before, and writes down which were removed. One at a time:
    /// a file takes about a second, and minutes of packets are sealed in between.
    pub fn seal_spool(&self) {
        if !self.seals_record() || self.history().disk.is_none() {
            return;
        }
        self.note_removed();
        let due = self.due_files();
        if due.is_empty() && self.spool_is_open() && !self.spool_was_sealed.swap(true, Ordering::Relaxed) {
            self.audit.record_event(&RecordEvent::SpoolSealed { time: now().to_rfc3339() });
        }
        for (name, bytes) in due {
            if self.is_stopping() || self.seal_file(name, bytes, Pace::Slow) {
                return;
            }
        }
    }

    fn spool_is_open(&self) -> bool {
        self.history().disk.as_ref().is_some_and(|disk| disk.complete_files().is_some())
    }

    fn due_files(&self) -> Vec<(String, u64)> {
        let files = self.history().disk.as_ref().and_then(|disk| disk.complete_files()).unwrap_or_default();
        self.spool_seals.lock().due(files, Instant::now())
    }

    /// Seals a file; false if it was not sealed, because it cannot be read, was removed, or the time is over.
    fn seal_file(&self, name: String, bytes: u64, pace: Pace) -> bool {
        let file = match self.hash_file(&name, bytes, pace) {
            Ok(Some(file)) => file,
            Ok(None) => return false,
            Err(error) => {
                // A file that was removed meanwhile is not listed any more.
                if error.kind() != std::io::ErrorKind::NotFound && self.spool_seals.lock().failed(&name, Instant::now())
                {
                    tracing::warn!("the file {name} of the spool cannot be sealed: {error}");
                    self.audit.record_event(&RecordEvent::SpoolUnreadable { time: now().to_rfc3339(), name, bytes });
                }
                return false;
            }
        };
        self.audit.record_event(&RecordEvent::SpoolFile { time: now().to_rfc3339(), file: file.clone() });
        self.spool_seals.lock().sealed(file);
        true
    }

    /// Hashes a file; `None` if the time is over, or the file is not there.
    fn hash_file(&self, name: &str, bytes: u64, pace: Pace) -> std::io::Result<Option<SpoolFile>> {
        let (mut hasher, mut worked, mut whole) = (Hasher::default(), Instant::now(), 0);
        let Some(disk) = self.history().disk.as_ref() else { return Ok(None) };
        let mut is_over = false;
        disk.read_file(name, &mut |part| {
            hasher.update(part);
            whole += part.len() as u64;
            is_over = match pace {
                Pace::Slow => {
                    if worked.elapsed() >= WORK {
                        std::thread::sleep(worked.elapsed() * REST);
                        worked = Instant::now();
                    }
                    self.is_stopping()
                }
                Pace::Until(deadline) => Instant::now() >= deadline,
            };
            !is_over
        })?;
        if whole == bytes {
            return Ok(Some(SpoolFile { name: name.to_owned(), bytes, sha256: hasher.finish() }));
        }
        let words = format!("it has {whole} bytes and should have {bytes}");
        if is_over { Ok(None) } else { Err(std::io::Error::other(words)) }
    }

    fn note_removed(&self) {
        let Some(files) = self.history().disk.as_ref().and_then(|disk| disk.complete_files()) else { return };
        let there: HashSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let gone = self.spool_seals.lock().forget(&there);
        for file in gone {
            self.audit.record_event(&RecordEvent::SpoolRemoved { time: now().to_rfc3339(), file });
        }
    }
}
