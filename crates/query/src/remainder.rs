//! What the sessions of an answer hold beyond the answer, and why the expression left it out.
//!
//! An expression matches packets. Later fragments have no ports, and headers such as VLAN tags or tunnels can hide
//! ports from an expression. The packets found can therefore be only a part of what the user asked for. The answer
//! states how many further packets their sessions hold, what hides these, and which flag returns them.

use std::collections::HashMap;

use super::matching::{probe, untagged};
use super::notes::SearchNotes;
use super::search::{Search, SearchLimits};
use super::session_selectors::SessionSelectors;
use super::{History, QueryError, Request};
use base::counted::counted;
use base::packet::Packet;
use decode::Encapsulations;
use engine::session::Session;
use filter::{Endpoints, FilterSet, Outcome};

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
    /// Expressions that together match all packets, if there are such.
    offers: Vec<String>,
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
        let mut offers = Offers::new(&request.expression);
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
            if !candidate.found {
                offers.look_at(&packet);
            }
            let part = if candidate.found { &mut remainder.found } else { &mut remainder.hidden };
            *part.reasons.entry(reason).or_default() += 1;
        }
        remainder.hidden.offers = offers.into_expressions();
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

    /// As [`sentence`](Self::sentence), for an answer with the whole sessions of the packets found.
    pub fn beside_whole_sessions(&self) -> Option<String> {
        (self.hidden.packets > 0).then(|| self.hidden_sentence())
    }

    /// Describes the sessions that the addresses and ports of the expression name, and that no packet of it belongs to;
    /// `None` if there are none. A pin does not protect them.
    pub fn not_pinned(&self) -> Option<String> {
        let offers = quoted(&self.hidden.offers, "pin ");
        let offers = offers.map(|offers| format!(": {offers} for {}", self.hidden.them()));
        (self.hidden.packets > 0)
            .then(|| format!("not pinned: {}{}", self.hidden_packets(), offers.unwrap_or_default()))
    }

    fn hidden_sentence(&self) -> String {
        let offers = quoted(&self.hidden.offers, "").map(|offers| format!(", or {offers}"));
        format!(
            "{}: --address, --port or --flow finds {}{}",
            self.hidden_packets(),
            self.hidden.them(),
            offers.unwrap_or_default()
        )
    }

    fn hidden_packets(&self) -> String {
        let RemainderPart { sessions, packets, .. } = &self.hidden;
        let sessions = if *sessions == 1 {
            "1 session with these addresses and ports holds".to_owned()
        } else {
            format!("{sessions} sessions with these addresses and ports hold")
        };
        format!(
            "{sessions} {} that the expression does not look into{}",
            counted(*packets, "packet", "packets"),
            self.hidden.reasons(),
        )
    }
}

impl RemainderPart {
    fn them(&self) -> &'static str {
        if self.packets == 1 { "it" } else { "them" }
    }

    /// The reasons in parentheses, most frequent first; empty if there are none.
    fn reasons(&self) -> String {
        let mut counts: HashMap<String, u64> = HashMap::new();
        let mut fragments = 0;
        for (reason, packets) in &self.reasons {
            let name = match reason {
                Reason::LaterFragment => {
                    fragments += packets;
                    continue;
                }
                Reason::Behind(around) => {
                    let names: Vec<_> = around.names().filter(|name| !matches!(*name, "PPP" | "LLC")).collect();
                    if names.is_empty() { "another header".to_owned() } else { names.join(" and ") }
                }
                Reason::Other => continue,
            };
            *counts.entry(name).or_default() += packets;
        }
        let mut counts: Vec<(u64, String)> =
            counts.into_iter().map(|(name, packets)| (packets, format!("{packets} behind {name}"))).collect();
        counts.extend(
            (fragments > 0)
                .then(|| (fragments, counted(fragments, "fragment after the first", "fragments after the first"))),
        );
        counts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let texts: Vec<String> = counts.into_iter().take(REASONS_MAX).map(|(_, text)| text).collect();
        if texts.is_empty() { String::new() } else { format!(" ({})", texts.join(", ")) }
    }
}

/// The expressions in quotes, as one phrase.
fn quoted(offers: &[String], before: &str) -> Option<String> {
    let quoted: Vec<String> = offers.iter().map(|offer| format!("{before}'{offer}'")).collect();
    (!quoted.is_empty()).then(|| quoted.join(" and "))
}

/// Expressions that look behind the headers that hide packets. Each is tried on the packets before it is offered.
#[derive(Debug)]
struct Offers {
    /// The expressions that can be compiled, simplest first, and whether one of them was the first to match a packet.
    expressions: Vec<(String, FilterSet, bool)>,
    /// Whether no expression matches some packet.
    is_missing: bool,
}

impl Offers {
    /// What to write in front of an expression. The words of libpcap look behind one header each.
    const FRONTS: [&'static str; 13] = [
        "vlan",
        "mpls",
        "pppoes",
        "geneve",
        "vlan and vlan",
        "mpls and mpls",
        "vlan and mpls",
        "vlan and pppoes",
        "vlan and vlan and vlan",
        "mpls and mpls and mpls",
        "vlan and vlan and mpls",
        "vlan and mpls and mpls",
        "vlan and vlan and pppoes",
    ];
    /// Maximum length of an expression that is repeated in a message.
    const CHARS_MAX: usize = 200;
    /// Maximum number of expressions that are offered together.
    const TOGETHER_MAX: usize = 3;

    fn new(expression: &str) -> Self {
        let expression = expression.trim();
        let is_short = expression.len() <= Self::CHARS_MAX && !expression.contains('\'');
        let compiled = |front: &&str| {
            let offer = format!("{front} and ({expression})");
            let filter = FilterSet::new(&offer).ok()?;
            Some((offer, filter, false))
        };
        let fronts = Self::FRONTS.iter().filter(|_| is_short && !expression.is_empty());
        Self { expressions: fronts.filter_map(compiled).collect(), is_missing: false }
    }

    fn look_at(&mut self, packet: &Packet<'_>) {
        let matches = |filter: &mut FilterSet| filter.matches(packet.link_type, packet.data, packet.original_len);
        match self.expressions.iter_mut().find_map(|(_, filter, is_used)| matches(filter).then_some(is_used)) {
            Some(is_used) => *is_used = true,
            None => self.is_missing = true,
        }
    }

    /// The expressions to offer, if they match all packets.
    fn into_expressions(self) -> Vec<String> {
        let used: Vec<String> =
            self.expressions.into_iter().filter(|(.., is_used)| *is_used).map(|(offer, ..)| offer).collect();
        if self.is_missing || used.len() > Self::TOGETHER_MAX { Vec::new() } else { used }
    }
}
