//! Which files of the spool are sealed, and which cannot be read.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use evidence::record_events::SpoolFile;

/// How long a file that could not be read is left alone; twice as long after each further attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// Maximum number of doublings of that.
const RETRY_DOUBLINGS_MAX: u32 = 10;

/// What is known of the files of a spool.
#[derive(Debug, Default)]
pub(crate) struct SpoolSeals {
    /// The sealed files, by name.
    sealed: HashMap<String, SpoolFile>,
    /// Files that could not be read, by name.
    pub(crate) unreadable: HashMap<String, Unreadable>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreadable {
    attempts: u32,
    next: Instant,
}

impl SpoolSeals {
    /// The files that are to be hashed now, of those that are complete.
    pub(crate) fn due(&self, files: Vec<(String, u64)>, at: Instant) -> Vec<(String, u64)> {
        let waits = |name: &String| self.unreadable.get(name).is_some_and(|file| file.next > at);
        files.into_iter().filter(|(name, _)| !self.sealed.contains_key(name) && !waits(name)).collect()
    }

    /// Notes that a file could not be read; true for the first time.
    pub(crate) fn failed(&mut self, name: &str, at: Instant) -> bool {
        let attempts = self.unreadable.get(name).map_or(0, |file| file.attempts);
        let pause = RETRY_PAUSE * 2u32.pow(attempts.min(RETRY_DOUBLINGS_MAX));
        self.unreadable.insert(name.to_owned(), Unreadable { attempts: attempts + 1, next: at + pause });
        attempts == 0
    }

    pub(crate) fn sealed(&mut self, file: SpoolFile) {
        self.unreadable.remove(&file.name);
        self.sealed.insert(file.name.clone(), file);
    }

    /// Forgets the files that are not there any more. Returns those that were sealed, by name.
    pub(crate) fn forget(&mut self, there: &HashSet<&str>) -> Vec<SpoolFile> {
        self.unreadable.retain(|name, _| there.contains(name.as_str()));
        let mut gone: Vec<SpoolFile> =
            self.sealed.extract_if(|name, _| !there.contains(name.as_str())).map(|(_, file)| file).collect();
        gone.sort();
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_left_alone_longer_and_longer_and_told_once() {
        let mut seals = SpoolSeals::default();
        let (start, files) = (Instant::now(), || vec![("a".to_owned(), 7), ("b".to_owned(), 7)]);
        assert!(seals.failed("a", start), "told");
        assert_eq!(seals.due(files(), start), [("b".to_owned(), 7)], "it is not hashed on each pass");
        assert_eq!(seals.due(files(), start + RETRY_PAUSE).len(), 2, "it may be readable again");
        let later = start + RETRY_PAUSE;
        assert!(!seals.failed("a", later), "not told again");
        assert_eq!(seals.due(files(), later + RETRY_PAUSE).len(), 1);
        (0..100).for_each(|_| assert!(!seals.failed("a", later)));
        seals.sealed(SpoolFile { name: "a".to_owned(), bytes: 7, sha256: evidence::digest::Digest::of(b"x") });
        assert!(seals.unreadable.is_empty());
        assert_eq!(seals.forget(&HashSet::from(["b"])).len(), 1);
        assert!(seals.sealed.is_empty());
    }
}
