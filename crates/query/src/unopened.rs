//! Packets that were not opened: their addresses and ports are not known, so no search can deny what they carry.
//!
//! The endpoints of a session mostly tell whether its packets were opened. Only the packets of the other sessions are
//! read, up to a limit. Of these sessions, packets that were evicted are not counted here.

use std::collections::{BTreeMap, HashMap};

use super::matching::probe;
use super::notes::SearchNotes;
use super::search::{Search, SearchLimits};
use super::session_selectors::SessionSelectors;
use super::{History, QueryError, Request};
use base::counted::counted;
use base::packet::{InterfaceId, LinkType, Packet};
use decode::{Decoded, Header, Network, Openness, Reason, Unopened};
use engine::session::key::Side;
use engine::session::{Session, SessionKey};
use filter::{Endpoints, FilterSet, Outcome, SessionProbe};

/// Maximum number of records read (about half a second).
const RECORDS_MAX: u64 = 4_000_000;
/// Maximum number of sessions whose packets are read.
const SESSIONS_MAX: usize = 16_384;
/// Maximum number of kinds that a sentence names.
const KINDS_NAMED: usize = 6;

/// Counts of packets that were not opened, by what stopped the decoder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnopenedPackets {
    kinds: BTreeMap<Unopened, u64>,
    /// Packets that may not have been opened: they were not read, because that would take too long.
    unread: u64,
    /// ICMP errors that quote a packet that matches.
    quoting: u64,
    /// Packets that match neither by their outermost nor by their innermost addresses, but by those of a header between.
    between: u64,
}

impl UnopenedPackets {
    /// Counts packets.
    pub fn add(&mut self, kind: Unopened, packets: u64) {
        if packets > 0 {
            *self.kinds.entry(kind).or_default() += packets;
        }
    }

    /// Counts a packet, if it was not opened. Fragments do not count: whoever reads all packets joins them.
    pub fn look_at(&mut self, link_type: LinkType, data: &[u8]) {
        if let Some(kind) = decode::unopened(link_type, data).filter(|kind| kind.reason != Reason::Fragment) {
            self.add(kind, 1);
        }
    }

    /// The counts: what was not opened, why, and how many packets.
    pub fn kinds(&self) -> impl Iterator<Item = (Header, Reason, u64)> + '_ {
        self.kinds.iter().map(|(kind, packets)| (kind.header, kind.reason, *packets))
    }

    /// The code of the cause: the reason if all packets share it, `not_opened` otherwise.
    pub fn code(&self) -> &'static str {
        let mut reasons = self.kinds.keys().map(|kind| kind.reason);
        let first = reasons.next();
        match first.filter(|first| self.unread == 0 && reasons.all(|reason| reason == *first)) {
            Some(Reason::Encrypted) => "encrypted",
            Some(Reason::Cut) => "cut_headers",
            Some(Reason::Fragment) => "fragment",
            None if self.between > 0 => "encapsulated",
            None if self.quoting > 0 => "quoted",
            _ => "not_opened",
        }
    }

    /// Describes the packets; `None` if there are none.
    pub fn sentence(&self) -> Option<String> {
        let mut kinds: Vec<_> = self.kinds().collect();
        kinds.sort_by_key(|(.., packets)| std::cmp::Reverse(*packets));
        let others: u64 = kinds.iter().skip(KINDS_NAMED).map(|(.., packets)| packets).sum();
        let all: u64 = kinds.iter().map(|(.., packets)| packets).sum();
        let mut parts: Vec<String> = kinds
            .iter()
            .take(KINDS_NAMED)
            .map(|(header, reason, packets)| {
                let kind = Unopened { header: *header, reason: *reason };
                format!("{} {kind}", counted(*packets, "packet", "packets"))
            })
            .collect();
        parts.extend((others > 0).then(|| format!("{} of other kinds", counted(others, "packet", "packets"))));
        let mut sentences = Vec::new();
        if let Some(last) = parts.pop() {
            let before = if parts.is_empty() { String::new() } else { format!("{} and ", parts.join(", ")) };
            sentences.push(format!("{before}{last} {} not opened", if all == 1 { "was" } else { "were" }));
        }
        if self.unread > 0 {
            sentences.push(format!(
                "{} of tunnels not looked at, because that would take too long",
                counted(self.unread, "packet was", "packets were")
            ));
        }
        if self.quoting > 0 {
            sentences.push(format!(
                "{} such a packet: 'icmp or icmp6' finds them",
                counted(self.quoting, "ICMP error quotes", "ICMP errors quote")
            ));
        }
        if self.between > 0 {
            sentences.push(format!(
                "{} it between the outermost and the innermost addresses: ask for one of these",
                counted(self.between, "packet has", "packets have")
            ));
        }
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }
}

/// How thoroughly to look for packets that were not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thoroughness {
    /// In sessions that may have packets in memory: beside an answer that has some.
    Kept,
    /// In all known sessions.
    Known,
    /// In all known sessions, and for packets that match inside others: nothing else was found.
    Inside,
}

impl History {
    /// Counts the packets that a request could not be asked of, in sessions that overlap its window on its interface.
    ///
    /// # Errors
    ///
    /// The same as for the request itself.
    pub fn unopened(&self, request: &Request) -> Result<UnopenedPackets, QueryError> {
        self.unopened_beside(request, &SearchNotes::default(), Thoroughness::Known)
    }

    /// As [`unopened`](Self::unopened), without sessions of which every packet was found.
    pub(super) fn unopened_beside(
        &self,
        request: &Request,
        found: &SearchNotes,
        thoroughness: Thoroughness,
    ) -> Result<UnopenedPackets, QueryError> {
        let (since, until) = request.window()?;
        let interfaces = self.interfaces.snapshot();
        let mut filter = request.filter(&self.link_types())?;
        // For each interface that is asked for, why none of its packets can be asked.
        let closed: Vec<Option<Option<Reason>>> = interfaces
            .iter()
            .map(|interface| {
                let wanted = request.interface.as_ref().is_none_or(|name| *name == interface.name);
                let can_ask = filter.as_mut().is_none_or(|filter| filter.can_ask(interface.link_type));
                wanted.then_some(match (decode::opens(interface.link_type), can_ask) {
                    (false, _) => Some(Reason::Unsupported),
                    (true, false) => Some(Reason::NotApplicable),
                    (true, true) => None,
                })
            })
            .collect();
        let selectors = SessionSelectors::new(request, self)?;
        let is_selected = |session: &Session| selectors.needs_session() && selectors.session(&session.key);
        let mut unopened = UnopenedPackets::default();
        let mut inside = match thoroughness {
            Thoroughness::Inside => PacketsInside::of(request, self)?,
            Thoroughness::Kept | Thoroughness::Known => None,
        };
        let mut unsure: Vec<(usize, Session)> = Vec::new();
        for (number, worker) in self.workers.iter().enumerate() {
            // The end of the archive is fixed before the table is read, so that no session comes twice.
            let past = (thoroughness > Thoroughness::Kept).then(|| worker.sessions.past_overlapping(since, until));
            let past = past.into_iter().flatten().map(|(_, session)| session);
            for session in worker.sessions.overlapping(since, until).chain(past) {
                let at = usize::from(session.key.interface().0);
                let (Some(Some(closed)), Some(interface)) = (closed.get(at), interfaces.get(at)) else { continue };
                let packets = session.packets.sum();
                let is_found = !session.is_past() && found.found_of(number, &session) == Some(packets);
                if is_found || (filter.is_none() && is_selected(&session)) {
                    continue;
                }
                match (*closed, openness(&session.key)) {
                    (Some(reason), _) => {
                        unopened.add(Unopened { header: Header::LinkType(interface.link_type), reason }, packets);
                    }
                    (None, Openness::Closed(kind)) => unopened.add(kind, packets),
                    (None, Openness::Opened) if inside.is_none() || !holds_packets(&session.key) => {}
                    _ if session.is_past() || session.kept_packets == 0 => {}
                    _ if unsure.len() < SESSIONS_MAX => unsure.push((number, session)),
                    _ => unopened.unread += session.kept_packets,
                }
            }
        }
        for (link_type, packets) in found.not_captured() {
            unopened.add(Unopened { header: Header::LinkType(link_type), reason: Reason::NotCaptured }, packets);
        }
        if !unsure.is_empty() {
            self.read_unsure(request, &unsure, &mut filter, &mut inside, &mut unopened)?;
        }
        Ok(unopened)
    }

    /// Reads the packets of sessions whose endpoints do not tell whether their packets were opened.
    fn read_unsure(
        &self,
        request: &Request,
        sessions: &[(usize, Session)],
        filter: &mut Option<FilterSet>,
        inside: &mut Option<PacketsInside>,
        unopened: &mut UnopenedPackets,
    ) -> Result<(), QueryError> {
        let begun: HashMap<(usize, u32), u64> =
            sessions.iter().map(|(worker, session)| ((*worker, session.slot.0), session.first_sequence)).collect();
        let search = Search::of_sessions(sessions, SearchLimits { sessions_max: SESSIONS_MAX });
        let mut packets = self.searched(&Request::default(), search)?;
        if packets.records_ahead() > RECORDS_MAX {
            unopened.unread += sessions.iter().map(|(_, session)| session.kept_packets).sum::<u64>();
            return Ok(());
        }
        let (since, until) = request.window()?;
        while let Some(found) = packets.next() {
            let (header, packet) = (found.header, found.packet);
            let begun = begun.get(&(found.worker, header.session.0));
            if begun.is_none_or(|first| header.sequence < *first) || packet.time < since || packet.time > until {
                continue;
            }
            let is_asked = |filter: &mut FilterSet| filter.matches(packet.link_type, packet.data, packet.original_len);
            if filter.as_mut().is_some_and(is_asked) {
                continue;
            }
            match decode::unopened(packet.link_type, packet.data) {
                Some(kind) if !self.joins(&found, kind) => unopened.add(kind, 1),
                _ => {}
            }
            if let Some(inside) = inside {
                let (quoted, between) = inside.look_at(&packet);
                unopened.quoting += u64::from(quoted);
                unopened.between += u64::from(between && !quoted);
            }
        }
        Ok(())
    }

    /// Whether a fragment belongs to a session that is known by its first fragment.
    fn joins(&self, found: &super::Found<'_>, kind: Unopened) -> bool {
        let session = || {
            let worker = self.workers.get(found.worker)?;
            worker.sessions.session_at(found.header.session, found.header.sequence)
        };
        kind.reason == Reason::Fragment && session().is_some_and(|session| has_ports(&session.key))
    }
}

fn has_ports(key: &SessionKey) -> bool {
    [Side::Low, Side::High].map(|side| key.port(side)) != [0, 0]
}

fn openness(key: &SessionKey) -> Openness {
    let ports = [Side::Low, Side::High].map(|side| key.port(side));
    decode::openness(key.network(), key.ethertype(), key.protocol(), ports)
}

/// The types of ICMP and ICMPv6 messages that quote a packet, all of which have no reply.
fn quotes(protocol: u8, kind: u16) -> bool {
    matches!((protocol, kind), (1, 3 | 4 | 5 | 11 | 12) | (58, 1..=4))
}

/// Whether packets of a session may hold other packets that no session stands for.
fn holds_packets(key: &SessionKey) -> bool {
    key.tunnel() != 0 || (key.one_way() && quotes(key.protocol(), key.port(Side::Low)))
}

/// Decides whether a request matches packets inside other packets: between the outermost and the innermost headers, and
/// quoted by ICMP errors.
struct PacketsInside {
    selectors: SessionSelectors,
    /// The expression for packets, and for the endpoints of the innermost one.
    expression: Option<(FilterSet, SessionProbe)>,
}

impl PacketsInside {
    /// `None` if the request has no condition on packets, or one that only the link layer decides.
    fn of(request: &Request, history: &History) -> Result<Option<Self>, QueryError> {
        if !request.names_content() {
            return Ok(None);
        }
        let selectors = SessionSelectors::new(request, history)?;
        let expression = match (request.filter(&[LinkType::IPV4, LinkType::IPV6]), probe(request)?) {
            (Ok(Some(filter)), Some(probe)) => Some((filter, probe)),
            (Err(_), _) => return Ok(None),
            _ => None,
        };
        Ok(Some(Self { selectors, expression }))
    }

    /// Returns whether a packet is an ICMP error that quotes a packet that matches, and whether it has such a packet
    /// inside.
    fn look_at(&mut self, packet: &Packet<'_>) -> (bool, bool) {
        let decoded = decode::decode(packet.link_type, packet.data);
        if let Some((link_type, quoted)) = quoted_packet(&decoded, packet.data) {
            let is_quoted = self.matches_innermost(link_type, quoted) || self.matches_any(link_type, quoted, 0);
            return (is_quoted, false);
        }
        (false, self.matches_any(packet.link_type, packet.data, 1))
    }

    fn matches_innermost(&mut self, link_type: LinkType, data: &[u8]) -> bool {
        let (key, _) = SessionKey::new(&decode::decode(link_type, data), InterfaceId(0));
        let is_asked =
            |(_, probe): &mut (FilterSet, SessionProbe)| probe.ask(&Endpoints::from(&key)) == Outcome::Matches;
        self.selectors.session(&key) && self.expression.as_mut().is_none_or(is_asked)
    }

    /// Whether one of the IP packets in `data`, from the number `from` on, matches.
    fn matches_any(&mut self, link_type: LinkType, data: &[u8], from: usize) -> bool {
        let (mut number, mut matches) = (0, false);
        decode::each_ip_packet(link_type, data, |version, bytes| {
            number += 1;
            if number <= from || matches {
                return;
            }
            let original_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let is_asked = |(filter, _): &mut (FilterSet, SessionProbe)| filter.matches(version, bytes, original_len);
            matches =
                self.expression.as_mut().is_none_or(is_asked) && self.selectors.session(&addresses(version, bytes));
        });
        matches
    }
}

/// The key of a session with the addresses of an IP header, whatever it carries.
fn addresses(version: LinkType, bytes: &[u8]) -> SessionKey {
    let number = |range: std::ops::Range<usize>| {
        bytes.get(range).unwrap_or_default().iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte))
    };
    let (network, source, destination) = match version {
        LinkType::IPV4 => (Network::Ipv4, number(12..16), number(16..20)),
        _ => (Network::Ipv6, number(8..24), number(24..40)),
    };
    SessionKey::new(&Decoded { network, source, destination, ..Decoded::default() }, InterfaceId(0)).0
}

/// The packet that an ICMP error quotes.
fn quoted_packet<'d>(error: &Decoded, data: &'d [u8]) -> Option<(LinkType, &'d [u8])> {
    /// ICMPv6 has a field of four bytes before the packet, which decoding counts as payload.
    const FIELD_BYTES: usize = 4;

    let payload = data.get(usize::try_from(error.payload_offset).ok()?..)?;
    match error.protocol {
        _ if !quotes(error.protocol, error.source_port) => None,
        1 => Some((LinkType::IPV4, payload)),
        _ => Some((LinkType::IPV6, payload.get(FIELD_BYTES..)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_opened_is_counted_in_words() {
        let kind = |header, reason| Unopened { header, reason };
        let mut packets = UnopenedPackets::default();
        assert_eq!((packets.sentence(), packets.code()), (None, "not_opened"));
        packets.add(kind(Header::Named("ESP"), Reason::Encrypted), 1);
        assert_eq!(packets.sentence().as_deref(), Some("1 packet with ESP (encrypted) was not opened"));
        assert_eq!(packets.code(), "encrypted");
        packets.add(kind(Header::Named("IPv4"), Reason::Cut), 1200);
        packets.add(kind(Header::LinkType(LinkType(220)), Reason::Unsupported), 2);
        assert_eq!(
            packets.sentence().as_deref(),
            Some(
                "1200 packets with IPv4 (cut within the headers), 2 packets of link type USB_LINUX_MMAPPED and \
                 1 packet with ESP (encrypted) were not opened"
            )
        );
        assert_eq!(packets.code(), "not_opened");
        packets.quoting = 2;
        assert!(
            packets
                .sentence()
                .is_some_and(|text| text.ends_with("; 2 ICMP errors quote such a packet: 'icmp or icmp6' finds them"))
        );
    }
}
