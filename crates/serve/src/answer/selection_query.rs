//! Many selections: what they mean, and what is missing of them.

use serde_json::Value;

use super::super::service::Service;
use api::bodies::SelectionList;
use api::parameters::Clock;
use api::{Problem, describe};
use base::time::Timestamp;
use query::explain::{Cause, HistoryExtent, Question};
use query::search::{Search, SearchLimits, Selector, SessionTotals};
use query::{Request, SearchNotes};

/// Selections that the audit log names; it counts those beyond.
const AUDITED_MAX: usize = 1000;

/// The meaning of selections.
#[derive(Debug)]
pub(crate) struct SelectionQuery {
    pub(crate) selectors: Vec<Selector>,
    /// The seed of Community IDs; `None` for the recorder's.
    pub(crate) seed: Option<u16>,
    pub(crate) whole: bool,
    pub(crate) limits: SearchLimits,
    now: Timestamp,
}

impl SelectionQuery {
    pub(crate) fn new(list: &SelectionList, limits: SearchLimits, clock: Clock) -> Result<Self, Problem> {
        Ok(Self {
            selectors: list.selectors(clock)?,
            seed: list.community_id_seed,
            whole: list.whole_sessions,
            limits,
            now: clock.newest.map_or(clock.now, |newest| newest.max(clock.now)),
        })
    }

    /// Looks up the sessions that the selections mean.
    pub(crate) fn search(&self, service: &Service, stop: &dyn Fn() -> bool) -> Search {
        let history = service.history();
        let seed = self.seed.unwrap_or_else(|| history.community_id_seed.get());
        history.search(&self.selectors, seed, self.whole, self.limits, stop)
    }

    /// The selections, for the audit log.
    pub(crate) fn audited(&self, request: &Request) -> Value {
        let mut audited = describe::audit(request);
        let written = self.selectors.iter().take(AUDITED_MAX);
        let texts = written.map(|Selector { target, since, until }| format!("{target}, since {since}, until {until}"));
        audited["selections"] = texts.collect::<Vec<_>>().into();
        audited["selections_count"] = self.selectors.len().into();
        audited["whole_sessions"] = self.whole.into();
        audited
    }

    /// Why a selection finds nothing.
    pub(crate) fn cause(
        &self,
        reach: &mut HistoryExtent,
        number: usize,
        known: SessionTotals,
        drops: &SearchNotes,
    ) -> Cause {
        let selector = &self.selectors[number];
        if selector.since > self.now {
            let sentence = format!(
                "that is in the future: {} is after {}, which is now; check the clock and the time zone of what wrote the alert",
                selector.since, self.now
            );
            return Cause::new("in_future", sentence);
        }
        reach.cause(&Question::of(selector, known, drops))
    }

    /// What explains missing packets, over the times of all selections.
    pub(crate) fn reach(&self, service: &Service) -> HistoryExtent {
        let since = self.selectors.iter().map(|selector| selector.since).min().unwrap_or_default();
        let until = self.selectors.iter().map(|selector| selector.until).max().unwrap_or_default();
        let history = service.history();
        // A window that ends before it begins was refused when the selections were read.
        history.reach_of(since, until).unwrap_or_else(|_| history.reach())
    }

    /// Why no selection finds anything: the cause of the first one.
    pub(crate) fn explain_nothing(&self, service: &Service, known: &[SessionTotals], drops: &SearchNotes) -> Cause {
        let cause = self.cause(&mut self.reach(service), 0, known[0], drops);
        match self.selectors.len() {
            1 => cause,
            count => {
                let sentence = format!("none of {count} selections finds a packet; the first: {}", cause.sentence);
                Cause { sentence, ..cause }
            }
        }
    }

    /// What is missing of all selections together. `is_on_disk` says that the disk has what memory lost.
    pub(crate) fn explain_missing(&self, known: &[SessionTotals], is_on_disk: bool) -> Option<String> {
        let unknown = known.iter().filter(|known| known.sessions == 0 && known.on_disk == 0).count();
        let cut = known.iter().filter(|known| known.is_cut() && !is_on_disk).count();
        let left_out = known.iter().filter(|known| known.left_out > 0).count();
        let parts = [
            (unknown, "mean no session that is known"),
            (cut, "mean sessions that were cut"),
            (left_out, "mean more sessions than fit into the memory for queries"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        (!parts.is_empty()).then(|| format!("of {} selections {}", known.len(), parts.join(", ")))
    }
}
