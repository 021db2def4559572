//! What the log of sealed minutes says beside the minutes: when the recorder ran, and which files of its spool it had.
//!
//! A file of the spool is sealed by its hash when it is complete. When it is removed, a line says so with the same hash, so that
//! a removed file can still be identified.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::record;

/// An event in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RecordEvent {
    /// The recorder begins to seal.
    Started {
        /// The time.
        time: String,
    },
    /// The recorder ends in order.
    Stopped {
        /// The time.
        time: String,
        /// Packets that were in memory and could not be sealed in time.
        #[serde(default)]
        unsealed: u64,
        /// Complete files of the spool that were not sealed in time, or could not be read. The next start seals them.
        #[serde(default)]
        unsealed_files: u64,
    },
    /// A file of the spool is complete.
    SpoolFile {
        /// The time.
        time: String,
        /// The file.
        #[serde(flatten)]
        file: SpoolFile,
    },
    /// Each file of the spool that was complete is sealed, for the first time since the start.
    SpoolSealed {
        /// The time.
        time: String,
    },
    /// A file of the spool is complete, and cannot be read.
    SpoolUnreadable {
        /// The time.
        time: String,
        /// Its name in the directory of the spool.
        name: String,
        /// The length that it should have.
        bytes: u64,
    },
    /// A file of the spool was removed.
    SpoolRemoved {
        /// The time at which this was noticed.
        time: String,
        /// The file as it was.
        #[serde(flatten)]
        file: SpoolFile,
    },
}

/// A file of a spool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpoolFile {
    /// Its name in the directory of the spool.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash, as `sha256sum` prints it.
    pub sha256: Digest,
}

/// What a log says of runs and files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordHistory {
    /// Times of starts.
    pub starts: u64,
    /// Restarts without a stop before: the time of the last line, and of the start.
    pub breaks: Vec<(String, String)>,
    /// Files that are there, as far as the log says, each with the time of its line.
    pub files: BTreeMap<String, (SpoolFile, String)>,
    /// Files that were removed, each with the time.
    pub removed: Vec<(SpoolFile, String)>,
    /// Files that were removed while no recorder ran. The time is that at which the next one had looked at all files.
    pub gone: Vec<(SpoolFile, String)>,
    /// Files that had other bytes at a later start, as they were sealed first, each with the time at which that was seen.
    pub changed: Vec<(SpoolFile, String)>,
    /// Files that could not be read, by name, each with the time.
    pub unreadable: BTreeMap<String, String>,
    /// Packets that were in memory at stops in order, and were not sealed.
    pub left_packets: u64,
    /// Files of the spool that were not sealed at the last stop in order.
    pub left_files: u64,
    last_time: Option<String>,
    is_stopped: bool,
    /// Files of the run before, which the present one has not confirmed.
    earlier: BTreeMap<String, (SpoolFile, String)>,
}

#[derive(Deserialize)]
struct Stamped {
    time: String,
    event: String,
}

impl RecordHistory {
    /// Adds a line of the log. The chain is checked separately.
    pub fn add_line(&mut self, line: &[u8]) {
        let Ok(Stamped { time, event }) = serde_json::from_slice::<Stamped>(line) else { return };
        match serde_json::from_slice::<RecordEvent>(line) {
            Ok(RecordEvent::Started { .. }) => {
                if let Some(last) = self.last_time.clone().filter(|_| !self.is_stopped) {
                    self.breaks.push((last, time.clone()));
                }
                self.starts += 1;
                self.is_stopped = false;
                self.earlier.append(&mut self.files);
            }
            Ok(RecordEvent::Stopped { unsealed, unsealed_files, .. }) => {
                self.is_stopped = true;
                self.left_packets = self.left_packets.saturating_add(unsealed);
                self.left_files = unsealed_files;
            }
            Ok(RecordEvent::SpoolUnreadable { name, .. }) => {
                // It is there, so that it does not count as removed.
                if let Some(before) = self.earlier.remove(&name) {
                    self.files.insert(name.clone(), before);
                }
                self.unreadable.insert(name, time.clone());
            }
            Ok(RecordEvent::SpoolFile { file, .. }) => {
                self.unreadable.remove(&file.name);
                let before = self.earlier.remove(&file.name).or_else(|| self.files.remove(&file.name));
                let sealed = match before {
                    // What was sealed first counts: the file was changed since.
                    Some(before) if before.0 != file => {
                        self.changed.push((before.0.clone(), time.clone()));
                        before
                    }
                    _ => (file, time.clone()),
                };
                self.files.insert(sealed.0.name.clone(), sealed);
            }
            Ok(RecordEvent::SpoolSealed { .. }) => {
                self.gone.extend(std::mem::take(&mut self.earlier).into_values().map(|(file, _)| (file, time.clone())));
            }
            Ok(RecordEvent::SpoolRemoved { file, .. }) => {
                self.files.remove(&file.name);
                self.earlier.remove(&file.name);
                self.unreadable.remove(&file.name);
                self.removed.push((file, time.clone()));
            }
            Err(_) if event == record::EVENT => self.is_stopped = false,
            Err(_) => return,
        }
        self.last_time = Some(time);
    }

    /// The time at which the file with this hash was sealed, also if it was removed since.
    pub fn sealed_file(&self, hash: &Digest) -> Option<(&SpoolFile, &str)> {
        let there = self.files.values().chain(self.earlier.values()).map(|(file, time)| (file, time.as_str()));
        let removed = self.removed.iter().chain(&self.gone).map(|(file, time)| (file, time.as_str()));
        there.chain(removed).find(|(file, _)| file.sha256 == *hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u8) -> SpoolFile {
        SpoolFile { name: format!("{number}.pcapng"), bytes: 7, sha256: Digest::of(&[number]) }
    }

    fn line(event: &RecordEvent) -> Vec<u8> {
        serde_json::to_vec(event).unwrap()
    }

    #[test]
    fn what_was_cut_is_known_by_hash_over_restarts_and_breaks_are_told() {
        let time = |minute: u32| format!("2026-11-28T10:{minute:02}:00Z");
        let mut history = RecordHistory::default();
        for event in [
            RecordEvent::Started { time: time(0) },
            RecordEvent::SpoolFile { time: time(1), file: file(1) },
            RecordEvent::SpoolFile { time: time(2), file: file(2) },
            RecordEvent::SpoolFile { time: time(3), file: file(3) },
            RecordEvent::SpoolRemoved { time: time(4), file: file(1) },
            RecordEvent::Stopped { time: time(5), unsealed: 0, unsealed_files: 1 },
            RecordEvent::Started { time: time(6) },
            RecordEvent::SpoolUnreadable { time: time(7), name: file(2).name, bytes: 7 },
            RecordEvent::SpoolSealed { time: time(8) },
        ] {
            history.add_line(&line(&event));
        }
        assert_eq!((history.starts, history.breaks.len()), (2, 0));
        assert_eq!(history.removed, [(file(1), time(4))]);
        assert_eq!(
            history.gone,
            [(file(3), time(8))],
            "it is gone once all files were looked at, unlike one that cannot be read"
        );
        assert_eq!((history.unreadable.get(&file(2).name), history.left_files), (Some(&time(7)), 1));
        // The power fails, and somebody starts it again.
        history.add_line(&line(&RecordEvent::Started { time: time(9) }));
        assert_eq!(history.breaks, [(time(8), time(9))]);
        history.add_line(&line(&RecordEvent::SpoolFile { time: time(10), file: file(2) }));
        assert!(history.unreadable.is_empty());
        // A file of the same name with other bytes is not the one that was sealed.
        let other = SpoolFile { sha256: Digest::of(&[9]), ..file(2) };
        history.add_line(&line(&RecordEvent::Started { time: time(11) }));
        history.add_line(&line(&RecordEvent::SpoolFile { time: time(12), file: other.clone() }));
        assert_eq!(history.changed, [(file(2), time(12))]);
        assert_eq!(history.sealed_file(&other.sha256), None);
        assert_eq!(history.gone.len(), 1);
        for number in 1..=3 {
            assert!(history.sealed_file(&file(number).sha256).is_some(), "{number}");
        }
        assert_eq!(history.sealed_file(&file(4).sha256), None);
    }
}
