//! Decides which sessions a request matches. An expression matches packets; a session matches if one of its packets
//! does.
//!
//! The expression runs on the retained packets. For evicted packets, the endpoints of the session stand in, as far as
//! they decide the expression. If they do not, the session counts as undecided.
//!
//! A session whose packets are all retained and do not match is no match, even if its endpoints would match. Its
//! packets lie behind headers that the expression does not look into, and [`remainder`](super::remainder) reports them.

use super::notes::{SearchNotes, SessionBits};
use super::session_selectors::SessionSelectors;
use super::{History, QueryError, Request};
use engine::judge::pins::{FoundInWorker, FoundSessions};
use engine::session::Session;
use filter::{Endpoints, Outcome, SessionProbe};

/// Decides whether a request matches a session.
#[derive(Debug)]
pub(super) struct SessionMatcher {
    selectors: SessionSelectors,
    expression: Option<Expression>,
    /// Sessions that may match, but the packets that would decide were evicted.
    pub(super) undecided: u64,
    /// Sessions whose endpoints match, although none of their packets does.
    pub(super) hidden: u64,
}

#[derive(Debug)]
struct Expression {
    probe: SessionProbe,
    /// Sessions with a packet that matches.
    by_packets: SessionBits,
    /// What the search for these packets met besides.
    notes: SearchNotes,
}

impl SessionMatcher {
    /// Prepares the request. If it has an expression, this searches the retained packets.
    pub(super) fn new(history: &History, request: &Request) -> Result<Self, QueryError> {
        let selectors = SessionSelectors::new(request, history)?;
        let expression = match probe(request)? {
            None => None,
            Some(probe) => {
                let mut packets = history.packets(&Request { limit: None, ..request.clone() })?.once_per_session();
                while packets.next().is_some() {}
                let notes = packets.notes().of_packets();
                Some(Expression { probe, by_packets: packets.into_sessions(), notes })
            }
        };
        Ok(Self { selectors, expression, undecided: 0, hidden: 0 })
    }

    /// What the search for packets that match the expression met besides them.
    pub(super) fn notes(&self) -> Option<&SearchNotes> {
        self.expression.as_ref().map(|expression| &expression.notes)
    }

    /// Whether the request matches a session of this worker.
    pub(super) fn matches(&mut self, worker: u16, session: &Session) -> bool {
        if !self.selectors.interface(session.key.interface()) || !self.selectors.session(&session.key) {
            return false;
        }
        let Some(Expression { probe, by_packets, .. }) = &mut self.expression else { return true };
        if !session.is_past() && by_packets.contains(worker.into(), session.slot) {
            return true;
        }
        let endpoints = Endpoints::from(&session.key);
        if session.kept_packets >= session.packets.sum() {
            self.hidden += u64::from(probe.ask(&untagged(&endpoints)) == Outcome::Matches);
            return false;
        }
        match probe.ask(&endpoints) {
            Outcome::Matches => true,
            Outcome::Rejects => false,
            Outcome::Unknown => {
                self.undecided += 1;
                false
            }
        }
    }
}

impl SessionMatcher {
    /// Whether the request matches a session of the log, leaving its interface aside. Its packets are not looked into.
    pub(super) fn matches_logged(&mut self, session: &Session) -> bool {
        if !self.selectors.session(&session.key) {
            return false;
        }
        let Some(Expression { probe, .. }) = &mut self.expression else { return true };
        match probe.ask(&Endpoints::from(&session.key)) {
            Outcome::Matches => true,
            Outcome::Rejects => false,
            Outcome::Unknown => {
                self.undecided += 1;
                false
            }
        }
    }
}

impl History {
    /// The sessions in memory with a stored packet that matches.
    ///
    /// # Errors
    ///
    /// If the window, the interface or the expression is invalid.
    pub fn found_sessions(&self, request: &Request) -> Result<FoundSessions, QueryError> {
        let stored: Vec<u64> = self.workers.iter().map(|worker| worker.published.totals().stored.packets).collect();
        let mut packets = self.packets(&Request { limit: None, ..request.clone() })?.once_per_session();
        while packets.next().is_some() {}
        let found = self.workers.iter().zip(stored).zip(packets.into_sessions().into_words());
        let found = found.map(|((worker, stored), slots)| FoundInWorker {
            sessions: std::sync::Arc::clone(&worker.sessions),
            stored,
            slots,
        });
        Ok(found.collect::<Vec<_>>().into())
    }
}

/// Endpoints without their VLAN tags, as if the expression looked behind the tags.
pub(super) fn untagged(endpoints: &Endpoints) -> Endpoints {
    Endpoints { vlan: None, inner_vlan: None, ..*endpoints }
}

/// The expression of a request as a probe for sessions; `None` if it is empty.
pub(super) fn probe(request: &Request) -> Result<Option<SessionProbe>, QueryError> {
    if request.expression.trim().is_empty() {
        return Ok(None);
    }
    match SessionProbe::new(&request.expression) {
        Ok(probe) => Ok(Some(probe)),
        // The expression may be valid for another link type than Ethernet. In this case it can only be applied to
        // packets.
        Err(error) => match request.filter(&[base::packet::LinkType::RAW]) {
            Ok(_) => Ok(Some(SessionProbe::undecided())),
            Err(_) => Err(error.into()),
        },
    }
}
