//! Which sessions a request means: an expression matches packets, and a session matches when a packet of it does.
//!
//! The packets that are kept are asked. Of a session that has lost packets, those that are gone are asked by its endpoints,
//! as far as these tell; where they do not tell, the session is counted as undecided. A session all of whose packets are there
//! and do not match is not meant, even if its endpoints would match: its packets are behind something that the expression does
//! not look behind, and [`remainder`](super::remainder) says so.

use super::notes::SessionBits;
use super::selectors::SessionSelectors;
use super::{History, QueryError, Request};
use engine::session::Session;
use filter::{Endpoints, Outcome, SessionProbe};

/// Answers whether sessions are meant by a request.
#[derive(Debug)]
pub(super) struct SessionMatcher {
    selectors: SessionSelectors,
    expression: Option<Expression>,
    /// Sessions that may be meant, but the packets that would tell are gone.
    pub(super) undecided: u64,
    /// Sessions whose endpoints match, though none of their packets does.
    pub(super) unopened: u64,
}

#[derive(Debug)]
struct Expression {
    probe: SessionProbe,
    /// The sessions of which a packet matches.
    by_packets: SessionBits,
}

impl SessionMatcher {
    /// Looks through the kept packets if the request has an expression.
    pub(super) fn new(history: &History, request: &Request) -> Result<Self, QueryError> {
        let selectors = request.selectors(history)?;
        let expression = match probe(request)? {
            None => None,
            Some(probe) => {
                let mut packets = history.packets(&Request { limit: None, ..request.clone() })?.once_per_session();
                while packets.next().is_some() {}
                Some(Expression { probe, by_packets: packets.into_sessions() })
            }
        };
        Ok(Self { selectors, expression, undecided: 0, unopened: 0 })
    }

    /// Whether a session of this worker is meant.
    pub(super) fn matches(&mut self, worker: u16, session: &Session) -> bool {
        if !self.selectors.interface(session.key.interface()) || !self.selectors.session(&session.key) {
            return false;
        }
        let Some(Expression { probe, by_packets }) = &mut self.expression else { return true };
        if !session.is_past() && by_packets.contains(worker.into(), session.slot) {
            return true;
        }
        let endpoints = Endpoints::from(&session.key);
        if session.kept_packets >= session.packets.sum() {
            self.unopened += u64::from(probe.ask(&untagged(&endpoints)) == Outcome::Matches);
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

/// Endpoints without their VLAN tags, as if the expression looked behind them.
pub(super) fn untagged(endpoints: &Endpoints) -> Endpoints {
    Endpoints { vlan: None, inner_vlan: None, ..*endpoints }
}

/// The expression of a request, to be asked of sessions.
pub(super) fn probe(request: &Request) -> Result<Option<SessionProbe>, QueryError> {
    if request.expression.trim().is_empty() {
        return Ok(None);
    }
    match SessionProbe::new(&request.expression) {
        Ok(probe) => Ok(Some(probe)),
        // It may mean something for another link type than Ethernet; then only packets can be asked.
        Err(error) => match request.filter(&[base::packet::LinkType::RAW]) {
            Ok(_) => Ok(Some(SessionProbe::undecided())),
            Err(_) => Err(error.into()),
        },
    }
}
