//! What a session of the page asks again and again: the audit log has it once in a while instead of every second.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an entry of the audit log stands for the same question.
const STANDS_FOR: Duration = Duration::from_secs(600);
/// Questions that are told apart.
const QUESTIONS_MAX: usize = 64;
/// What differs between two polls.
const MOVING: [&str; 2] = ["since", "until"];

/// The questions of a session, and when the audit log had them.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    hasher: RandomState,
    audited: Mutex<HashMap<u64, Instant>>,
}

impl Polls {
    /// Whether the audit log has this question, but for its window; if not, it is about to.
    pub(crate) fn repeats(&self, question: &Value, now: Instant) -> bool {
        let mut question = question.clone();
        if let Some(members) = question.as_object_mut() {
            members.retain(|key, _| !MOVING.contains(&key.as_str()));
        }
        let hash = self.hasher.hash_one(question.to_string());
        let mut audited = self.audited.lock().unwrap_or_else(PoisonError::into_inner);
        audited.retain(|_, at| now.saturating_duration_since(*at) < STANDS_FOR);
        if audited.contains_key(&hash) {
            return true;
        }
        if audited.len() < QUESTIONS_MAX {
            audited.insert(hash, now);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_question_repeats_whatever_its_window_until_its_entry_is_old() {
        let (polls, now) = (Polls::default(), Instant::now());
        assert!(!polls.repeats(&json!({ "columns": true, "since": 1 }), now));
        assert!(polls.repeats(&json!({ "columns": true, "since": 2 }), now));
        assert!(!polls.repeats(&json!({ "columns": true, "expression": "udp" }), now));
        assert!(!polls.repeats(&json!({ "columns": true, "since": 3 }), now + STANDS_FOR));
        for n in 0..1000 {
            polls.repeats(&json!({ "expression": n }), now + STANDS_FOR);
        }
        assert!(polls.audited.lock().unwrap().len() <= QUESTIONS_MAX);
    }
}
