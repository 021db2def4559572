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

impl Service {
    /// Writes into the log that the recorder begins to seal.
    pub fn begin_record(&self) {
        if self.seals_record() {
            self.audit.record_event(&RecordEvent::Started { time: now().to_rfc3339() });
        }
    }

    /// Seals what is not sealed yet, and writes into the log that the recorder ends. Call it last.
    pub(crate) fn end_record(&self) {
        if self.seals_record() {
            self.seal_record();
            self.note_removed();
            self.audit.record_event(&RecordEvent::Stopped { time: now().to_rfc3339() });
        }
    }

    /// Seals one file of the spool that is complete and was not sealed before, and writes down which were removed. One at a time:
    /// a file takes about a second, and minutes of packets are sealed in between.
    pub fn seal_spool(&self) {
        if !self.seals_record() {
            return;
        }
        self.note_removed();
        let Some(files) = self.history().disk.as_ref().and_then(|disk| disk.complete_files()) else { return };
        let unsealed = {
            let sealed = self.sealed_spool.lock();
            files.into_iter().filter(|(name, _)| !sealed.contains_key(name)).collect::<Vec<_>>()
        };
        if unsealed.is_empty() && !self.spool_was_sealed.swap(true, Ordering::Relaxed) {
            self.audit.record_event(&RecordEvent::SpoolSealed { time: now().to_rfc3339() });
        }
        for (name, bytes) in unsealed {
            if self.is_stopping() {
                return;
            }
            // A file that cannot be read, or is removed meanwhile, does not keep others from being sealed.
            let Some(file) = self.hash_file(name, bytes) else { continue };
            self.audit.record_event(&RecordEvent::SpoolFile { time: now().to_rfc3339(), file: file.clone() });
            self.sealed_spool.lock().insert(file.name.clone(), file);
            return;
        }
    }

    /// Hashes a file, slowly; `None` if it was removed meanwhile, or the recorder stops.
    fn hash_file(&self, name: String, bytes: u64) -> Option<SpoolFile> {
        let (mut hasher, mut worked, mut whole) = (Hasher::default(), Instant::now(), 0);
        let disk = self.history().disk.as_ref()?;
        let read = disk.read_file(&name, &mut |part| {
            hasher.update(part);
            whole += part.len() as u64;
            if worked.elapsed() >= WORK {
                std::thread::sleep(worked.elapsed() * REST);
                worked = Instant::now();
            }
            !self.is_stopping()
        });
        (read.is_ok() && whole == bytes).then(|| SpoolFile { name, bytes, sha256: hasher.finish() })
    }

    fn note_removed(&self) {
        let Some(files) = self.history().disk.as_ref().and_then(|disk| disk.complete_files()) else { return };
        let there: HashSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let mut sealed = self.sealed_spool.lock();
        let mut gone: Vec<SpoolFile> =
            sealed.values().filter(|file| !there.contains(file.name.as_str())).cloned().collect();
        gone.sort();
        for file in gone {
            sealed.remove(&file.name);
            self.audit.record_event(&RecordEvent::SpoolRemoved { time: now().to_rfc3339(), file });
        }
    }
}
