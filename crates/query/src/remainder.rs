//! What the sessions of an answer hold beyond the answer, and why the expression left it out.
//!
//! An expression matches packets. Later fragments have no ports, and headers such as VLAN tags or tunnels can hide
//! ports from an expression. The packets found can therefore be only a part of what the user asked for. The answer
//! states how many further packets their sessions hold, what hides these, and which flag returns them.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::counted::counted;
use super::matching::{probe, untagged};
use super::notes::SearchNotes;
use super::search::{Search, SearchLimits};
use super::session_selectors::SessionSelectors;
use super::{History, QueryError, Request};
use decode::Encapsulations;
use engine::session::Session;
use filter::{Endpoints, Outcome};

/// Maximum number of records read to find the reasons (about half a second). Beyond it, an answer gives only the number
/// of packets.
const RECORDS_MAX: u64 = 4_000_000;
/// Maximum number of sessions whose packets are read.
const SESSIONS_MAX: usize = 16_384;
/// Maximum number of reasons in a sentence.
const REASONS_MAX: usize = 4;

/// Packets that an answer left out of the sessions related to it.
#[derive(Clone, Debug, Default)]
pub struct Remainder {
    /// Sessions with packets in the answer.
    found: RemainderPart,
    /// Sessions whose addresses and ports match, but without packets in the answer.
    hidden: RemainderPart,
}

#[derive(Clone, Debug, Default)]
struct RemainderPart {
    sessions: u64,
    packets: u64,
    /// Whether the counts are lower bounds.
    at_least: bool,
    /// Reasons why packets did not match, for the packets that were read.
    reasons: HashMap<Reason, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reason {
    LaterFragment,
    Behind(Encapsulations),
    /// Neither fragmentation nor a surrounding header explains why the packet does not match.
    Other,
}

/// A session whose packets are read.
struct Candidate {
    first_sequence: u64,
    found: bool,
    /// Whether its endpoints match, so that surrounding headers must hide its packets.
    by_endpoints: bool,
}

impl History {
    /// Finds what the sessions of an answer hold beyond it. Returns nothing if the request has no expression.
    ///
    /// # Errors
    ///
    /// The same as for the request itself.
    pub fn remainder(&self, request: &Request, notes: &SearchNotes) -> Result<Remainder, QueryError> {
        let (since, until) = request.window()?;
        let mut remainder = Remainder::default();
        let Some(mut probe) = probe(request)? else { return Ok(remainder) };
        let selectors = SessionSelectors::new(request, self)?;
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

    /// Reads the packets of the candidates and counts why the expression does not match them.
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
    /// Whether the answer left out nothing.
    pub fn is_empty(&self) -> bool {
        self.found.packets == 0 && self.hidden.packets == 0
    }

    /// The code and the sentence that explain why nothing was found; `None` if no session with retained packets has the
    /// addresses and ports of the expression.
    pub fn cause(&self) -> Option<(&'static str, String)> {
        if self.hidden.packets == 0 {
            return None;
        }
        let only_fragments = !self.hidden.reasons.is_empty()
            && self.hidden.reasons.keys().all(|reason| *reason == Reason::LaterFragment);
        Some((if only_fragments { "fragment" } else { "encapsulated" }, self.hidden_sentence()))
    }

    /// Describes what the answer left out; `None` if that is nothing.
    pub fn sentence(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.found.packets > 0 {
            let RemainderPart { sessions, packets, at_least, .. } = &self.found;
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
        let RemainderPart { sessions, packets, .. } = &self.hidden;
        let sessions = if *sessions == 1 {
            "1 session with these addresses and ports holds".to_owned()
        } else {
            format!("{sessions} sessions with these addresses and ports hold")
        };
        format!(
            "{sessions} {} that the expression does not look into{}: --address, --port or --flow finds {}{}",
            counted(*packets, "packet", "packets"),
            self.hidden.reasons(),
            if *packets == 1 { "it" } else { "them" },
            self.hidden.keyword(),
        )
    }
}

impl RemainderPart {
    /// The reasons in parentheses, most frequent first; empty if there are none.
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

    /// A hint to the keyword that looks behind the header that hides all of the packets; empty if there is no such
    /// keyword.
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
