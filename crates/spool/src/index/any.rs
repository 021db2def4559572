//! Conditions of which one must be met, such as those of all sessions that a question found.

use super::lookup::select_keys;
use super::{COUNT, ChunkSet, Condition, SESSIONS, UNKNOWN};

/// A packet meets this if it meets one of the conditions. Thousands of sessions cost one pass over a section.
#[derive(Clone, Debug, Default)]
pub struct AnyOf {
    /// Sorted prefixes of Community IDs.
    sessions: Vec<u32>,
    others: Vec<Condition>,
}

impl AnyOf {
    /// Prepares conditions.
    pub fn new(conditions: &[Condition]) -> Self {
        let mut any = Self::default();
        for condition in conditions {
            match condition {
                Condition::Session(hash) => any.sessions.push((*hash).max(1)),
                other => any.others.push(*other),
            }
        }
        any.sessions.sort_unstable();
        any.sessions.dedup();
        any
    }

    /// The sections that have keys of the conditions.
    pub fn sections(&self) -> impl Iterator<Item = usize> + '_ {
        (0..COUNT).filter(|section| {
            (*section == SESSIONS && !self.sessions.is_empty())
                || self.others.iter().any(|condition| condition.section() == *section)
        })
    }

    /// The chunks that may meet a condition of this section. `None` if the section is damaged.
    pub fn select(&self, section: usize, payload: &[u8]) -> Option<ChunkSet> {
        let others = self.others.iter().filter(|condition| condition.section() == section);
        let last = others.map(Condition::last).chain(self.last_session(section)).max()?;
        select_keys(payload, last, |key| self.admits(section, key))
    }

    /// Whether packets with this key of a section can meet a condition.
    pub(super) fn admits(&self, section: usize, key: u128) -> bool {
        if section == SESSIONS {
            let is_wanted = u32::try_from(key).is_ok_and(|key| self.sessions.binary_search(&key).is_ok());
            return !self.sessions.is_empty() && (is_wanted || key == u128::from(UNKNOWN));
        }
        self.others.iter().any(|condition| condition.section() == section && condition.admits(key))
    }

    fn last_session(&self, section: usize) -> Option<u128> {
        self.sessions.last().filter(|_| section == SESSIONS).map(|last| u128::from(*last))
    }
}
