//! Sessions on disk that are wanted whole.
//!
//! Files know no sessions. Packets belong together if they have the same endpoints and no pause between them is longer than a
//! session's timeout. So a span of time is grown around each packet that was found, until there is a pause on both sides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::target::{SearchTarget, Selector};
use crate::conditions::condition_of;
use crate::history::History;
use crate::selectors::Flow;
use base::packet::{InterfaceId, LinkType};
use base::time::Timestamp;
use decode::{Decoded, Network};
use engine::session::SessionKey;
use engine::session::community_id::CommunityId;
use spool::archive::Archive;
use spool::index::Condition;
use spool::read::{FoundPacket, ReadSummary, Selection};

const TCP: u8 = 6;
/// Protocols whose Community ID needs ports.
const WITH_PORTS: [u8; 3] = [TCP, 17, 132];
/// Pause after which packets with the same endpoints are another session, as in memory.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(60));
/// How far a span looks for further packets at first. It doubles until there is a pause.
const STEP: Duration = Duration::from_secs(600);
/// Looks after which a span ends: 28 days on each side.
const LOOKS_MAX: u32 = 12;
/// Selectors by address beyond which the packets on disk are read without an index.
const SELECTORS_WITH_CONDITION_MAX: usize = 1024;
/// Packets between two checks for an interrupt.
const PACKETS_BETWEEN_LOOKS: u64 = 1024;

/// What a search asks of the packets on disk.
#[derive(Debug, Default)]
pub(super) struct DiskSearch {
    /// The sessions that are wanted whole; `None` if each packet is matched on its own.
    pub(super) sessions: Option<DiskSessions>,
    /// The times that can hold selected packets, where each packet is matched on its own.
    pub(super) window: (Timestamp, Timestamp),
    /// One of these is met by every selected packet; empty if nothing is known of them.
    pub(super) any: Vec<Condition>,
    /// What could not be read while sessions were looked for.
    pub(super) unread: ReadSummary,
}

impl DiskSearch {
    /// What has to be read for the answer.
    pub(super) fn selection(&self) -> Selection {
        let (since, until) = self.sessions.as_ref().map_or(self.window, DiskSessions::window);
        let any = self.sessions.as_ref().map_or_else(|| self.any.clone(), DiskSessions::conditions);
        Selection { since: Some(since), until: Some(until), any, ..Selection::default() }
    }
}

/// A run of packets with the same endpoints.
#[derive(Clone, Debug)]
struct Span {
    first: Timestamp,
    last: Timestamp,
    selections: Vec<u32>,
    /// Whether there is a pause before it and after it, as far as is known.
    is_settled: bool,
    /// During a look: the run of packets before the span that came last.
    before: Option<(Timestamp, Timestamp)>,
}

impl Span {
    fn select(&mut self, selections: &[u32]) {
        self.selections.extend_from_slice(selections);
        self.selections.sort_unstable();
        self.selections.dedup();
    }
}

/// Sessions, by their keys with the number of the interface's name here.
#[derive(Debug, Default)]
pub(super) struct DiskSessions {
    interfaces: Vec<Arc<str>>,
    spans: HashMap<SessionKey, Vec<Span>, foldhash::quality::RandomState>,
    count: usize,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// It belongs to a session that is known.
    Known,
    /// It is the first one of its session.
    New,
    /// There is no room for its session.
    LeftOut,
}

fn timeout(key: &SessionKey) -> Duration {
    if key.protocol() == TCP { TIMEOUTS.0 } else { TIMEOUTS.1 }
}

impl DiskSessions {
    /// The key of a packet.
    pub(super) fn key(&mut self, interface: &str, link_type: LinkType, data: &[u8]) -> SessionKey {
        self.at(interface, &SessionKey::new(&decode::decode(link_type, data), InterfaceId(0)).0)
    }

    /// A key of memory, as it is here.
    pub(super) fn at(&mut self, interface: &str, key: &SessionKey) -> SessionKey {
        let number = self.interfaces.iter().position(|name| **name == *interface).unwrap_or_else(|| {
            self.interfaces.push(interface.into());
            self.interfaces.len() - 1
        });
        SessionKey::from_words(key.words(), InterfaceId(u16::try_from(number).unwrap_or(u16::MAX)))
    }

    /// Notes a packet of a session that is wanted, if there is room for `count_max` sessions.
    pub(super) fn found(&mut self, key: SessionKey, time: Timestamp, selections: &[u32], count_max: usize) -> Noted {
        let pause = timeout(&key);
        let spans = self.spans.entry(key).or_default();
        let near =
            |span: &&mut Span| time <= span.last.saturating_add(pause) && span.first <= time.saturating_add(pause);
        if let Some(span) = spans.iter_mut().rev().find(near) {
            (span.first, span.last) = (span.first.min(time), span.last.max(time));
            span.select(selections);
            return Noted::Known;
        }
        if self.count >= count_max {
            return Noted::LeftOut;
        }
        self.count += 1;
        let selections = selections.to_vec();
        spans.push(Span { first: time, last: time, selections, is_settled: false, before: None });
        Noted::New
    }

    /// Notes a session that memory knows. It may have begun before memory did.
    pub(super) fn known(&mut self, key: SessionKey, first: Timestamp, last: Timestamp, selections: &[u32]) {
        let spans = self.spans.entry(key).or_default();
        if let Some(span) = spans.iter_mut().find(|span| span.first <= last && first <= span.last) {
            (span.first, span.last) = (span.first.min(first), span.last.max(last));
            return span.select(selections);
        }
        self.count += 1;
        spans.push(Span { first, last, selections: selections.to_vec(), is_settled: false, before: None });
    }

    /// The selections of a session with this key that overlaps these times.
    pub(super) fn overlapping(&self, key: &SessionKey, first: Timestamp, last: Timestamp) -> Option<Vec<u32>> {
        let spans = self.spans.get(key)?.iter().filter(|span| span.first <= last && first <= span.last);
        let mut selections: Vec<u32> = spans.flat_map(|span| span.selections.iter().copied()).collect();
        selections.sort_unstable();
        selections.dedup();
        (!selections.is_empty()).then_some(selections)
    }

    /// Calls `each` with the selections of all sessions.
    pub(super) fn each_selection(&self, each: &mut dyn FnMut(usize, u32)) {
        for (number, span) in self.spans.values().flatten().enumerate() {
            span.selections.iter().for_each(|selection| each(number, *selection));
        }
    }

    /// The times of all sessions.
    pub(super) fn window(&self) -> (Timestamp, Timestamp) {
        let spans = self.spans.values().flatten().map(|span| (span.first, span.last));
        spans.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).unwrap_or((Timestamp::MAX, Timestamp::MIN))
    }

    /// One of these is met by every packet of the sessions; empty if there is no such condition.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        self.conditions_of(|_| true)
    }

    fn conditions_of(&self, is_wanted: impl Fn(&Span) -> bool) -> Vec<Condition> {
        let keys = self.spans.iter().filter(|(_, spans)| spans.iter().any(&is_wanted)).map(|(key, _)| key);
        let conditions: Option<Vec<Condition>> =
            keys.map(|key| CommunityId::new(key, 0).map(|id| Condition::Session(id.prefix()))).collect();
        conditions.unwrap_or_default()
    }

    fn has_unsettled(&self) -> bool {
        self.spans.values().flatten().any(|span| !span.is_settled)
    }

    /// Grows the sessions until there is a pause on both sides. Ends early if `stop` says so.
    pub(super) fn grow(&mut self, disk: &dyn Archive, unread: &mut ReadSummary, stop: &dyn Fn() -> bool) {
        let mut step = STEP;
        for _ in 0..LOOKS_MAX {
            if !self.has_unsettled() || stop() {
                return;
            }
            self.look(disk, step, unread, stop);
            step = step.saturating_mul(2);
        }
    }

    /// Looks so far before and after each session for its further packets.
    fn look(&mut self, disk: &dyn Archive, step: Duration, unread: &mut ReadSummary, stop: &dyn Fn() -> bool) {
        let unsettled = self.spans.values().flatten().filter(|span| !span.is_settled);
        let times = unsettled.map(|span| (span.first, span.last));
        let Some(times) = times.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))) else { return };
        let selection = Selection {
            since: Some(times.0.saturating_sub(step)),
            until: Some(times.1.saturating_add(step)),
            any: self.conditions_of(|span| !span.is_settled),
            ..Selection::default()
        };
        // Where each unsettled span began and ended before this look.
        let reach: HashMap<SessionKey, Vec<(Timestamp, Timestamp)>> = self
            .spans
            .iter()
            .filter(|(_, spans)| spans.iter().any(|span| !span.is_settled))
            .map(|(key, spans)| (*key, spans.iter().map(|span| (span.first, span.last)).collect()))
            .collect();
        each_packet(disk, &selection, unread, stop, &mut |found| {
            let key = self.key(&found.interface.name, found.interface.link_type, found.packet.data);
            let Some(reach) = reach.get(&key) else { return };
            let (time, pause) = (found.packet.time, timeout(&key));
            for (span, (first, last)) in self.spans.get_mut(&key).into_iter().flatten().zip(reach) {
                if span.is_settled {
                    continue;
                }
                if time < *first && time >= first.saturating_sub(step) {
                    let run = span.before.filter(|(_, end)| time.since(*end) <= pause);
                    span.before = Some((run.map_or(time, |(start, _)| start), time));
                } else if time > span.last && time <= last.saturating_add(step) && time.since(span.last) <= pause {
                    span.last = time;
                }
            }
        });
        for (key, spans) in &mut self.spans {
            let (Some(reach), pause) = (reach.get(key), timeout(key)) else { continue };
            for (span, (first, last)) in spans.iter_mut().zip(reach).filter(|(span, _)| !span.is_settled) {
                if let Some((start, end)) = span.before.take()
                    && first.since(end) <= pause
                {
                    span.first = start;
                }
                let has_pause_before = span.first.since(first.saturating_sub(step)) > pause;
                span.is_settled = has_pause_before && last.saturating_add(step).since(span.last) > pause;
            }
        }
    }
}

/// Calls `each` with the packets on disk that may be selected.
pub(super) fn each_packet(
    disk: &dyn Archive,
    selection: &Selection,
    unread: &mut ReadSummary,
    stop: &dyn Fn() -> bool,
    each: &mut dyn FnMut(&FoundPacket<'_>),
) {
    let Some(mut packets) = disk.packets(selection) else { return };
    let mut read = 0u64;
    while let Some(found) = packets.next() {
        each(&found);
        read += 1;
        if read.is_multiple_of(PACKETS_BETWEEN_LOOKS) && stop() {
            break;
        }
    }
    let summary = packets.summary();
    unread.gone += summary.gone;
    unread.damaged += summary.damaged;
    unread.failed += summary.failed;
}

/// Conditions of which every packet that one of the selectors matches meets one; empty if there are none.
pub(super) fn conditions_of(selectors: &[Selector], seed: u16) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for selector in selectors {
        match &selector.target {
            SearchTarget::CommunityId(id) if seed == 0 => conditions.push(Condition::Session(id.prefix())),
            SearchTarget::CommunityId(_) => return Vec::new(),
            SearchTarget::Host(host) => conditions.extend(condition_of((*host, *host))),
            SearchTarget::Flow(flow) => match sessions_of(flow) {
                sessions if sessions.is_empty() => conditions.extend(condition_of((flow.a.0, flow.a.0))),
                sessions => conditions.extend(sessions),
            },
        }
    }
    let with_address = conditions.iter().filter(|condition| !matches!(condition, Condition::Session(_))).count();
    if with_address > SELECTORS_WITH_CONDITION_MAX { Vec::new() } else { conditions }
}

/// The session that a flow means; none if it leaves a port or the protocol open, or has a protocol without ports.
fn sessions_of(flow: &Flow) -> Vec<Condition> {
    let [(a, a_port), (b, b_port)] = flow.ends();
    let (network, source, destination) = match (a, b) {
        (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => {
            (Network::Ipv4, u128::from(a.to_bits()), u128::from(b.to_bits()))
        }
        (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => (Network::Ipv6, a.to_bits(), b.to_bits()),
        _ => return Vec::new(),
    };
    let Some(protocol) = flow.protocol.filter(|protocol| WITH_PORTS.contains(protocol)) else { return Vec::new() };
    if a_port == 0 || b_port == 0 {
        return Vec::new();
    }
    let decoded = Decoded {
        network,
        source,
        destination,
        source_port: a_port,
        destination_port: b_port,
        protocol,
        ..Decoded::default()
    };
    let id = CommunityId::new(&SessionKey::new(&decoded, InterfaceId(0)).0, 0);
    id.map(|id| Condition::Session(id.prefix())).into_iter().collect()
}

impl History {
    /// The spool, if the answer may come from it.
    pub(super) fn disk_of(&self, tier: Option<crate::Tier>) -> Option<&dyn Archive> {
        self.disk.as_deref().filter(|_| tier != Some(crate::Tier::Memory))
    }

    /// The name of an interface of memory.
    pub(super) fn interface_name(&self, id: InterfaceId) -> String {
        let all = self.interfaces.snapshot();
        all.get(usize::from(id.0)).map(|interface| interface.name.clone()).unwrap_or_default()
    }
}
