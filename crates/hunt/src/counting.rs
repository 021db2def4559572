//! Counts events for rules that require several within a time window, such as with distinct values from one source.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use base::time::Timestamp;

/// Maximum number of keys. The oldest key is dropped to make room.
const KEYS_MAX: usize = 65_536;
/// Maximum number of remembered events per key.
pub(crate) const EVENTS_MAX: usize = 4096;

/// What is counted.
pub(crate) type Key = (usize, String);

/// Recent events, by key.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    keys: HashMap<Key, VecDeque<(Timestamp, u64)>>,
    order: VecDeque<Key>,
    /// Number of keys dropped to make room.
    pub(crate) forgotten: u64,
}

impl Counting {
    /// Counts an event. Returns whether there are now `least` different values within the time. Then counting begins
    /// anew.
    pub(crate) fn add(&mut self, key: Key, now: Timestamp, value: u64, within: Duration, least: usize) -> bool {
        if !self.keys.contains_key(&key) {
            if self.keys.len() >= KEYS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.keys.remove(&oldest);
                self.forgotten += 1;
            }
            self.order.push_back(key.clone());
        }
        let events = self.keys.entry(key).or_default();
        while events.front().is_some_and(|(at, _)| now.since(*at) > within) {
            events.pop_front();
        }
        if events.len() < EVENTS_MAX && !events.iter().any(|(_, there)| *there == value) {
            events.push_back((now, value));
        }
        let reached = events.len() >= least;
        if reached {
            events.clear();
        }
        reached
    }
}
