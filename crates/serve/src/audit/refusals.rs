//! How many refusals are written one by one: a few for each client, and beyond them a count.
//!
//! A refusal costs its client nothing, so that it can cause thousands a second. What always holds: a client causes no more
//! than [`LINES_MAX`] lines and one summary within [`WINDOW`], the table of clients is bounded, and every refusal is in a
//! line or in the count of a summary.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::super::peer::QuotaHolder;

/// Refusals of one client that are written one by one within [`WINDOW`].
const LINES_MAX: u64 = 5;
/// The time after which refusals are counted anew.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Clients that are told apart; refusals of others are counted together.
const CLIENTS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Refusals {
    clients: HashMap<QuotaHolder, Count>,
    others: Option<Count>,
}

#[derive(Debug)]
struct Count {
    began: Instant,
    seen: u64,
    /// What the first refusal that was not written says.
    first: Option<Map<String, Value>>,
}

/// Refusals that were not written one by one.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) refused: u64,
    /// What the first of them says; `None` if they are of several clients.
    pub(super) first: Option<Map<String, Value>>,
}

impl Count {
    fn new(now: Instant) -> Self {
        Self { began: now, seen: 0, first: None }
    }

    fn summary(&mut self, lines_max: u64) -> Option<Summary> {
        let refused = self.seen.saturating_sub(lines_max);
        (refused > 0).then(|| Summary { refused, first: self.first.take() })
    }
}

impl Refusals {
    /// Counts a refusal; whether it may be written.
    pub(super) fn admit(
        &mut self,
        client: &QuotaHolder,
        now: Instant,
        facts: impl FnOnce() -> Map<String, Value>,
    ) -> bool {
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(client) {
            self.others.get_or_insert_with(|| Count::new(now)).seen += 1;
            return false;
        }
        let count = self.clients.entry(client.clone()).or_insert_with(|| Count::new(now));
        count.seen += 1;
        if count.seen <= LINES_MAX {
            return true;
        }
        count.first.get_or_insert_with(facts);
        false
    }

    /// Ends the windows that are over; all of them when the recorder stops. Gives what was not written within them.
    pub(super) fn summarize(&mut self, now: Instant, stopping: bool) -> Vec<Summary> {
        let is_over = |count: &Count| stopping || now.saturating_duration_since(count.began) >= WINDOW;
        let mut summaries = Vec::new();
        self.clients.retain(|_, count| {
            let over = is_over(count);
            if over {
                summaries.extend(count.summary(LINES_MAX));
            }
            !over
        });
        if self.others.as_ref().is_some_and(is_over) {
            summaries.extend(self.others.take().and_then(|mut count| count.summary(0)));
        }
        summaries
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::peer::{HolderId, QuotaClass};
    use super::*;

    #[test]
    fn every_refusal_is_in_a_line_or_in_a_count() {
        let client = |uid| QuotaHolder { standing: QuotaClass::Remote, id: HolderId::User(uid) };
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let facts = |n: u64| Map::from_iter([("n".to_owned(), n.into())]);
        let written = (0..1000).filter(|&n| refusals.admit(&client(1), start, || facts(n))).count();
        assert_eq!(written, 5);
        assert!(refusals.admit(&client(2), start, Map::new), "others are not affected");
        assert!(refusals.summarize(start + WINDOW / 2, false).is_empty());
        let summaries = refusals.summarize(start + WINDOW, false);
        assert_eq!((summaries.len(), summaries[0].refused), (1, 995));
        assert_eq!(summaries[0].first.as_ref().unwrap()["n"], 5);
        assert!(refusals.admit(&client(1), start + WINDOW, Map::new), "a new window");

        let mut refusals = Refusals::default();
        let written = (0..2000).filter(|&uid| refusals.admit(&client(uid), start, Map::new)).count();
        let counted: u64 = refusals.summarize(start, true).iter().map(|summary| summary.refused).sum();
        assert_eq!((written, counted), (CLIENTS_MAX, 2000 - CLIENTS_MAX as u64));
    }
}
