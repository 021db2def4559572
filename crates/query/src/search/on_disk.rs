//! Sessions on disk that are wanted whole.
//!
//! Files know no sessions. Packets belong together if they have the same endpoints and no pause between them is longer than a
//! session's timeout. So a span of time is grown around each packet that was found, until there is a pause on both sides.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
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
    /// Whether there is a pause before it, and after it, as far as is known.
    has_pause: [bool; 2],
    /// During a look: the run of packets before the span that came last.
    before: Option<(Timestamp, Timestamp)>,
    /// During a look: its end before the look.
    looked_from: Timestamp,
}

impl Span {
    fn new(first: Timestamp, last: Timestamp, selections: &[u32]) -> Self {
        let selections = selections.to_vec();
        Self { first, last, selections, has_pause: [false; 2], before: None, looked_from: last }
    }

    fn select(&mut self, selections: &[u32]) {
        self.selections.extend_from_slice(selections);
        self.selections.sort_unstable();
        self.selections.dedup();
    }

    fn is_settled(&self) -> bool {
        self.has_pause == [true; 2]
    }
}

/// The sessions of one key, in order. Between two of them is a pause.
#[derive(Debug, Default)]
struct Spans(BTreeMap<Timestamp, Span>);

impl Spans {
    /// Adds a span, and joins it with those from which no pause separates it. Returns by how much the number of spans grew.
    fn put(&mut self, mut span: Span, pause: Duration) -> isize {
        let mut grown = 1;
        while let Some(near) = self.near(span.first, span.last, pause) {
            let Some(other) = self.0.remove(&near) else { break };
            if other.first < span.first {
                (span.first, span.has_pause[0]) = (other.first, other.has_pause[0]);
            }
            if other.last > span.last {
                (span.last, span.has_pause[1]) = (other.last, other.has_pause[1]);
            }
            span.select(&other.selections);
            grown -= 1;
        }
        self.0.insert(span.first, span);
        grown
    }

    /// The start of a span that is less than a pause away from these times.
    fn near(&self, first: Timestamp, last: Timestamp, pause: Duration) -> Option<Timestamp> {
        let (start, span) = self.0.range(..=last.saturating_add(pause)).next_back()?;
        (span.last.saturating_add(pause) >= first).then_some(*start)
    }
}

/// Sessions, by their keys with the number of the interface's name here.
#[derive(Debug, Default)]
pub(super) struct DiskSessions {
    interfaces: Vec<Arc<str>>,
    spans: HashMap<SessionKey, Spans, foldhash::quality::RandomState>,
    count: usize,
    /// Sessions for which there was no room, as many of them as there is room for.
    left_out: HashSet<SessionKey>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// It belongs to a session that is known, or that was left out before.
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
        // A session that is left out must not take room here.
        if let Some(spans) = self.spans.get_mut(&key)
            && let Some(near) = spans.near(time, time, pause)
        {
            // Most packets are within a span or follow it.
            match spans.0.get_mut(&near) {
                Some(span) if span.first <= time && time <= span.last => span.select(selections),
                _ => self.join(key, Span::new(time, time, selections)),
            }
            return Noted::Known;
        }
        if self.count >= count_max {
            let is_new = self.left_out.len() < count_max && self.left_out.insert(key);
            return if is_new { Noted::LeftOut } else { Noted::Known };
        }
        self.join(key, Span::new(time, time, selections));
        Noted::New
    }

    fn join(&mut self, key: SessionKey, span: Span) {
        let grown = self.spans.entry(key).or_default().put(span, timeout(&key));
        self.count = self.count.saturating_add_signed(grown);
    }

    /// Notes a session that memory knows. It may have begun before memory did.
    pub(super) fn known(&mut self, key: SessionKey, first: Timestamp, last: Timestamp, selections: &[u32]) {
        self.join(key, Span::new(first, last, selections));
    }

    /// The selections of a session with this key that overlaps these times.
    pub(super) fn overlapping(&self, key: &SessionKey, first: Timestamp, last: Timestamp) -> Option<Vec<u32>> {
        let until = self.spans.get(key)?.0.range(..=last).rev();
        let spans = until.map(|(_, span)| span).take_while(|span| first <= span.last);
        let mut selections: Vec<u32> = spans.flat_map(|span| span.selections.iter().copied()).collect();
        selections.sort_unstable();
        selections.dedup();
        (!selections.is_empty()).then_some(selections)
    }

    fn all(&self) -> impl Iterator<Item = &Span> {
        self.spans.values().flat_map(|spans| spans.0.values())
    }

    /// Calls `each` with the selections of all sessions.
    pub(super) fn each_selection(&self, each: &mut dyn FnMut(usize, u32)) {
        for (number, span) in self.all().enumerate() {
            span.selections.iter().for_each(|selection| each(number, *selection));
        }
    }

    /// The times of all sessions.
    pub(super) fn window(&self) -> (Timestamp, Timestamp) {
        let spans = self.all().map(|span| (span.first, span.last));
        spans.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).unwrap_or((Timestamp::MAX, Timestamp::MIN))
    }

    /// One of these is met by every packet of the sessions; empty if there is no such condition.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        self.conditions_of(|_| true)
    }

    fn conditions_of(&self, is_wanted: impl Fn(&Span) -> bool) -> Vec<Condition> {
        let keys = self.spans.iter().filter(|(_, spans)| spans.0.values().any(&is_wanted)).map(|(key, _)| key);
        let conditions: Option<Vec<Condition>> =
            keys.map(|key| CommunityId::new(key, 0).map(|id| Condition::Session(id.prefix()))).collect();
        conditions.unwrap_or_default()
    }

    fn has_unsettled(&self) -> bool {
        self.all().any(|span| !span.is_settled())
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
        let unsettled = self.all().filter(|span| !span.is_settled());
        let times = unsettled.map(|span| (span.first, span.last));
        let Some(times) = times.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))) else { return };
        let selection = Selection {
            since: Some(times.0.saturating_sub(step)),
            until: Some(times.1.saturating_add(step)),
            any: self.conditions_of(|span| !span.is_settled()),
            ..Selection::default()
        };
        for span in self.spans.values_mut().flat_map(|spans| spans.0.values_mut()) {
            (span.before, span.looked_from) = (None, span.last);
        }
        each_packet(disk, &selection, unread, stop, &mut |found| {
            let key = self.key(&found.interface.name, found.interface.link_type, found.packet.data);
            let Some(Spans(spans)) = self.spans.get_mut(&key) else { return };
            let (time, pause) = (found.packet.time, timeout(&key));
            // A packet can belong to the end of the span before it, and to what comes before the span after it.
            if let Some((_, span)) = spans.range_mut(..=time).next_back()
                && !span.has_pause[1]
                && time > span.last
                && time <= span.looked_from.saturating_add(step)
                && time.since(span.last) <= pause
            {
                span.last = time;
            }
            if let Some((_, span)) = spans.range_mut((Bound::Excluded(time), Bound::Unbounded)).next()
                && !span.has_pause[0]
                && time >= span.first.saturating_sub(step)
            {
                let run = span.before.filter(|(_, end)| time.since(*end) <= pause);
                span.before = Some((run.map_or(time, |(start, _)| start), time));
            }
        });
        for (key, spans) in &mut self.spans {
            if spans.0.values().all(Span::is_settled) {
                continue;
            }
            let pause = timeout(key);
            for mut span in std::mem::take(&mut spans.0).into_values() {
                let (first, last) = (span.first, span.looked_from);
                if let Some((start, end)) = span.before.take()
                    && first.since(end) <= pause
                {
                    span.first = start;
                }
                span.has_pause[0] |= span.first.since(first.saturating_sub(step)) > pause;
                span.has_pause[1] |= last.saturating_add(step).since(span.last) > pause;
                self.count = self.count.saturating_add_signed(spans.put(span, pause) - 1);
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
    unread.unopened = unread.unopened.max(summary.unopened);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SessionKey {
        let decoded =
            Decoded { network: Network::Ipv4, source: 1, destination: 2, protocol: TCP, ..Decoded::default() };
        SessionKey::new(&decoded, InterfaceId(0)).0
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_790_000_000 + seconds, 0)
    }

    proptest! {
        #[test]
        fn packets_in_any_order_make_the_sessions_that_pauses_separate(
            mut times in proptest::collection::vec(0u64..20_000, 1..200),
        ) {
            let pause = TIMEOUTS.0.as_secs();
            let mut sessions = DiskSessions::default();
            for time in &times {
                sessions.found(key(), at(*time), &[u32::try_from(*time).unwrap()], usize::MAX);
            }
            times.sort_unstable();
            let mut expected: Vec<(u64, u64)> = Vec::new();
            for time in times {
                match expected.last_mut() {
                    Some((_, last)) if time - *last <= pause => *last = time,
                    _ => expected.push((time, time)),
                }
            }
            let found: Vec<_> = sessions.all().map(|span| (span.first, span.last)).collect();
            let times: Vec<_> = expected.iter().map(|(first, last)| (at(*first), at(*last))).collect();
            prop_assert_eq!(found, times);
            prop_assert_eq!(sessions.count, expected.len());
            for (first, last) in expected {
                let selections = sessions.overlapping(&key(), at(first), at(last)).unwrap();
                prop_assert!(selections.iter().all(|time| (first..=last).contains(&u64::from(*time))));
            }
        }
    }

    #[test]
    fn a_session_without_room_is_counted_once() {
        let mut sessions = DiskSessions::default();
        assert_eq!(sessions.found(key(), at(0), &[0], 1), Noted::New);
        assert_eq!(sessions.found(key(), at(1000), &[0], 1), Noted::LeftOut);
        assert_eq!(sessions.found(key(), at(1001), &[0], 1), Noted::Known);
        assert_eq!(sessions.found(key(), at(1), &[0], 1), Noted::Known);
        let other = SessionKey::from_words(key().words(), InterfaceId(7));
        assert_eq!(sessions.found(other, at(5000), &[0], 1), Noted::Known, "one is counted already, for lack of room");
        assert_eq!(sessions.spans.len(), 1, "what is left out takes no room");
    }
}
