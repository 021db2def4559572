//! What the sessions of an answer hold beyond the answer, and why the expression left it out.
//!
//! An expression matches packets. Fragments after the first have no ports, and headers such as VLAN tags or tunnels hide
//! them: the packets found can then be a part of what somebody asked for. The answer says how many packets their sessions
//! hold beyond them, what hides these, and which flag returns them.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::matching::{probe, untagged};
use super::notes::SearchNotes;
use super::search::{Search, SearchLimits};
use super::{History, QueryError, Request};
use decode::Encapsulations;
use engine::session::Session;
use filter::{Endpoints, Outcome};

/// Packets that are looked at to tell why they did not match (about half a second); if there are more, only their number is
/// told.
const RECORDS_MAX: u64 = 4_000_000;
/// Sessions whose packets are looked at.
const SESSIONS_MAX: usize = 16_384;
/// Kinds of reasons that a sentence names.
const REASONS_MAX: usize = 4;

/// Packets that an answer left out of the sessions it has to do with.
#[derive(Clone, Debug, Default)]
pub struct Remainder {
    /// Sessions of which packets were found.
    found: Part,
    /// Sessions whose addresses and ports match, of which no packet was found.
    hidden: Part,
}

#[derive(Clone, Debug, Default)]
struct Part {
    sessions: u64,
    packets: u64,
    /// Whether this is not all.
    at_least: bool,
    /// Why packets did not match, as far as they were looked at.
    reasons: HashMap<Reason, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reason {
    LaterFragment,
    Behind(Encapsulations),
    /// The expression asks for something that they do not have.
    Other,
}

/// A session whose packets are looked at.
struct Candidate {
    first_sequence: u64,
    found: bool,
    /// Whether its endpoints match, so that headers around them are what hides its packets.
    by_endpoints: bool,
}

impl History {
    /// What the sessions of an answer hold beyond it. Nothing without an expression.
    ///
    /// # Errors
    ///
    /// As for the request itself.
    pub fn remainder(&self, request: &Request, notes: &SearchNotes) -> Result<Remainder, QueryError> {
        let (since, until) = request.window()?;
        let mut remainder = Remainder::default();
        let Some(mut probe) = probe(request)? else { return Ok(remainder) };
        let selectors = request.selectors(self)?;
        let mut candidates: HashMap<(usize, u32), Candidate> = HashMap::new();
        let mut sessions: Vec<(usize, Session)> = Vec::new();
        for (worker, reader) in self.workers.iter().enumerate() {
            for session in reader.sessions.overlapping(since, until).filter(|session| session.kept_packets > 0) {
                let found = notes.found_of(worker, &session);
                if found.is_none() && !notes.counts_all() {
                    continue;
                }
                let by_endpoints = probe.ask(&untagged(&Endpoints::from(&session.key))) == Outcome::Matches;
                let wanted = selectors.interface(session.key.interface()) && selectors.session(&session.key);
                let left = session.kept_packets.saturating_sub(found.unwrap_or(0));
                if left == 0 || !(found.is_some() || (by_endpoints && wanted)) {
                    continue;
                }
                let part = if found.is_some() { &mut remainder.found } else { &mut remainder.hidden };
                part.sessions += 1;
                part.packets += left;
                if candidates.len() < SESSIONS_MAX {
                    let first_sequence = session.first_sequence;
                    let candidate = Candidate { first_sequence, found: found.is_some(), by_endpoints };
                    candidates.insert((worker, session.slot.0), candidate);
                    sessions.push((worker, session));
                }
            }
        }
        remainder.found.at_least = !notes.counts_all();
        if !candidates.is_empty() {
            self.find_reasons(request, &candidates, &sessions, &mut remainder)?;
        }
        Ok(remainder)
    }

    /// Looks at the packets of some sessions that the expression does not match.
    fn find_reasons(
        &self,
        request: &Request,
        candidates: &HashMap<(usize, u32), Candidate>,
        sessions: &[(usize, Session)],
        remainder: &mut Remainder,
    ) -> Result<(), QueryError> {
        let search = Search::of_sessions(sessions, SearchLimits { sessions_max: SESSIONS_MAX });
        let mut filter = request.filter(&self.link_types())?;
        let mut packets = self.searched(&Request::default(), search)?;
        if packets.records_ahead() > RECORDS_MAX {
            return Ok(());
        }
        let (since, until) = request.window()?;
        while let Some(found) = packets.next() {
            let (worker, packet) = (found.worker, found.packet);
            let candidate = candidates.get(&(worker, found.header.session.0));
            let Some(candidate) = candidate.filter(|candidate| candidate.first_sequence <= found.header.sequence)
            else {
                continue;
            };
            if packet.time < since || packet.time > until {
                continue;
            }
            if filter.as_mut().is_some_and(|f| f.matches(packet.link_type, packet.data, packet.original_len)) {
                continue;
            }
            let around = decode::encapsulations(packet.link_type, packet.data);
            let reason = match (around.is_later_fragment(), candidate.by_endpoints && !around.is_empty()) {
                (true, _) => Reason::LaterFragment,
                (false, true) => Reason::Behind(around),
                (false, false) => Reason::Other,
            };
            let part = if candidate.found { &mut remainder.found } else { &mut remainder.hidden };
            *part.reasons.entry(reason).or_default() += 1;
        }
        Ok(())
    }
}

impl Remainder {
    /// Whether there is nothing of the kind.
    pub fn is_empty(&self) -> bool {
        self.found.packets == 0 && self.hidden.packets == 0
    }

    /// A word for scripts for why nothing was found, and the sentence; `None` if no session has such addresses and ports.
    pub fn cause(&self) -> Option<(&'static str, String)> {
        if self.hidden.packets == 0 {
            return None;
        }
        let only_fragments = !self.hidden.reasons.is_empty()
            && self.hidden.reasons.keys().all(|reason| *reason == Reason::LaterFragment);
        Some((if only_fragments { "fragment" } else { "encapsulated" }, self.hidden_sentence()))
    }

    /// What to say beside an answer; `None` if nothing was left out.
    pub fn sentence(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.found.packets > 0 {
            let Part { sessions, packets, at_least, .. } = &self.found;
            let at_least = if *at_least { "at least " } else { "" };
            parts.push(format!(
                "the {} of these packets {} {at_least}{packets} more that the expression does not match{}: \
                 --whole-sessions returns them",
                if *sessions == 1 { "session".to_owned() } else { format!("{sessions} sessions") },
                if *sessions == 1 { "holds" } else { "hold" },
                self.found.reasons(),
            ));
        }
        if self.hidden.packets > 0 {
            parts.push(self.hidden_sentence());
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn hidden_sentence(&self) -> String {
        let Part { sessions, packets, .. } = &self.hidden;
        let sessions = if *sessions == 1 {
            "1 session with these addresses and ports holds".to_owned()
        } else {
            format!("{sessions} sessions with these addresses and ports hold")
        };
        format!(
            "{sessions} {packets} packets that the expression does not look into{}: --address, --port or --flow finds \
             them{}",
            self.hidden.reasons(),
            self.hidden.keyword(),
        )
    }
}

impl Part {
    /// The reasons in brackets, the most frequent first.
    fn reasons(&self) -> String {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for (reason, packets) in &self.reasons {
            let name = match reason {
                Reason::LaterFragment => "fragments after the first".to_owned(),
                Reason::Behind(around) => {
                    let names: Vec<_> = around.names().filter(|name| !matches!(*name, "PPP" | "LLC")).collect();
                    format!(
                        "behind {}",
                        if names.is_empty() { "another header".to_owned() } else { names.join(" and ") }
                    )
                }
                Reason::Other => continue,
            };
            *counts.entry(name).or_default() += packets;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut text = String::new();
        for (name, packets) in counts.into_iter().take(REASONS_MAX) {
            let _ = write!(text, "{}{packets} {name}", if text.is_empty() { " (" } else { ", " });
        }
        if !text.is_empty() {
            text.push(')');
        }
        text
    }

    /// The keyword with which an expression looks behind what hides all of the packets, if there is one.
    fn keyword(&self) -> String {
        const KEYWORDS: [(&str, &str); 4] =
            [("a VLAN tag", "vlan"), ("MPLS", "mpls"), ("PPPoE", "pppoes"), ("Geneve", "geneve")];
        let mut words = self.reasons.keys().map(|reason| match reason {
            Reason::Behind(around) => {
                let mut names = around.names().filter(|name| !matches!(*name, "PPP" | "LLC"));
                let first = names.next();
                KEYWORDS.iter().find(|(name, _)| Some(*name) == first && names.next().is_none()).map(|(_, word)| *word)
            }
            _ => None,
        });
        match words.next().flatten() {
            Some(word) if words.all(|other| other == Some(word)) => format!(", or '{word} and (...)'"),
            _ => String::new(),
        }
    }
}
