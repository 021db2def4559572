//! Tells of packets, one by one, whether their session can match, so that the others need not be reassembled.
//!
//! A session is a *candidate* if a packet contains a literal, or can hold a part of one that goes on in other packets, or if
//! the order of its segments is not certain. Sessions that are not candidates do not match. The converse does not hold:
//! reassembly decides.

mod edges;
mod folded;
mod literals;
mod order;
mod required;
#[cfg(test)]
mod tests;
mod wrapped;

use std::net::IpAddr;

use base::packet::LinkType;
use decode::{Decoded, Network, Stop};

use crate::content_patterns::ContentPatterns;
use crate::indicators::Indicators;
use crate::patterns::unhex;
use edges::Edges;
use literals::Finder;
use order::{Orders, Piece};
use wrapped::Wrapped;

/// Bytes of all literals at most.
pub const LITERALS_BYTES_MAX: usize = 256 << 10;
/// Shorter literals occur in almost every session.
const LITERAL_BYTES_MIN: usize = 2;

const TCP: u8 = 6;

/// What sessions are searched for: literals of which a match has one, and addresses of which a session has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CandidateQuery {
    /// Every match contains one of them.
    pub literals: Vec<Vec<u8>>,
    /// Addresses and networks.
    pub addresses: Vec<String>,
    /// Whether objects are searched too. Sessions in which an object may not lie in one piece are then candidates.
    pub objects: bool,
}

impl CandidateQuery {
    /// What narrows a search for these patterns, and for others of which every match contains one of `more`; `None` if
    /// nothing does.
    pub fn of(wanted: &ContentPatterns, indicators: &Indicators, more: Vec<Vec<u8>>) -> Option<Self> {
        if !wanted.attacks.is_empty() || !indicators.are_addresses() {
            return None;
        }
        let mut literals: Vec<Vec<u8>> = wanted.texts.iter().map(|text| text.clone().into_bytes()).collect();
        for hex in &wanted.bytes {
            literals.push(unhex(hex)?);
        }
        for regex in &wanted.regexes {
            literals.extend(required::literals(regex)?);
        }
        literals.extend(more);
        literals.sort_unstable();
        literals.dedup();
        let query = Self { literals, addresses: indicators.addresses(), objects: false };
        (query.is_useful() && !query.is_empty()).then_some(query)
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.addresses.is_empty()
    }

    /// Whether no literal is too short, and all together are not too long.
    pub fn is_useful(&self) -> bool {
        self.literals.iter().all(|literal| literal.len() >= LITERAL_BYTES_MIN)
            && self.literals.iter().map(Vec::len).sum::<usize>() <= LITERALS_BYTES_MAX
    }
}

/// The literals of which every match of a regular expression contains one; `None` if there are none that help.
pub fn required_literals(expression: &str) -> Option<Vec<Vec<u8>>> {
    required::literals(expression)
}

/// Counts of what was searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Sessions.
    pub sessions: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Sessions that are encrypted, as far as their first bytes show.
    pub encrypted_sessions: u64,
    /// Their payload bytes.
    pub encrypted_bytes: u64,
    /// Packets whose headers could not be decoded down to a payload.
    pub undecoded: u64,
    /// Directions whose start was not captured.
    pub without_start: u64,
    /// Packets that were truncated at capture, and the bytes that they lack.
    pub truncated: (u64, u64),
}

/// A search for candidates.
#[derive(Debug)]
pub struct Candidates {
    contents: Option<(Finder, Edges)>,
    wrapped: Option<Wrapped>,
    addresses: Indicators,
    orders: Orders,
    /// What was searched so far.
    pub searched: Searched,
}

/// A packet, and where the recorder has it.
#[derive(Clone, Copy, Debug)]
pub struct StoredPacket<'a> {
    /// The worker that stored it.
    pub worker: usize,
    /// The slot of its session at this worker.
    pub slot: u32,
    /// Its place in the order of arrival at the worker.
    pub arrival: u64,
    /// The link type of its interface.
    pub link_type: LinkType,
    /// The captured bytes.
    pub data: &'a [u8],
}

impl Candidates {
    /// A search in a recorder that has so many slots for sessions at each worker.
    pub fn new(query: &CandidateQuery, slots: &[usize]) -> Self {
        let contents = Finder::new(&query.literals).map(|finder| (finder, Edges::new(&query.literals)));
        let mut addresses = Indicators::default();
        for address in &query.addresses {
            addresses.add(address);
        }
        let wrapped = query.objects.then(Wrapped::new);
        Self { contents, wrapped, addresses, orders: Orders::new(slots), searched: Searched::default() }
    }

    /// Whether only addresses are searched for.
    pub fn are_addresses(&self) -> bool {
        self.contents.is_none()
    }

    /// Whether an address is searched for.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.addresses.address(ip).is_some()
    }

    /// Whether a packet, of which the start is there, may be a message of DNS, in whose session answers may say addresses.
    pub fn may_be_dns(link_type: LinkType, data: &[u8]) -> bool {
        let decoded = decode::decode(link_type, data);
        let is_stream = decoded.protocol == TCP && decoded.network != Network::Link;
        let payload = usize::try_from(decoded.payload_offset).ok().and_then(|from| data.get(from..));
        decoded.fragment.is_some() || payload.is_some_and(|payload| looks_like_dns(payload, is_stream, false))
    }

    /// Whether the session of a packet is a candidate.
    pub fn is_candidate(&mut self, packet: &StoredPacket<'_>) -> bool {
        let decoded = decode::decode(packet.link_type, packet.data);
        if decoded.fragment.is_some() {
            return true;
        }
        let start = usize::try_from(decoded.payload_offset).unwrap_or(usize::MAX);
        let usable = matches!(decoded.stop, Stop::Complete) || (decoded.protocol != TCP && start > 0);
        let Some(rest) = packet.data.get(start..).filter(|_| usable) else {
            self.searched.undecoded += 1;
            return false;
        };
        let payload = &rest[..rest.len().min(usize::try_from(decoded.payload_len).unwrap_or(usize::MAX))];
        let is_stream = decoded.protocol == TCP && decoded.network != Network::Link;
        let piece = piece(packet, &decoded, is_stream);
        let Some(taken) = self.orders.take(piece) else { return true };
        let entry = taken.entry;
        self.searched.bytes += payload.len() as u64;
        self.searched.without_start += u64::from(taken.lacks_start);
        let lacking = u64::from(decoded.payload_len).saturating_sub(payload.len() as u64);
        if lacking > 0 {
            self.searched.truncated = (self.searched.truncated.0 + 1, self.searched.truncated.1 + lacking);
        }
        if taken.is_new {
            self.searched.sessions += 1;
            if !self.addresses.is_empty() && has_address(&self.addresses, &decoded) {
                entry.set_candidate();
            }
        }
        if !payload.is_empty() {
            // Addresses also stand in answers of name servers.
            if !self.addresses.is_empty() && looks_like_dns(payload, is_stream, true) {
                entry.set_candidate();
            }
            if !entry.is_encrypted() && is_stream && looks_encrypted(payload) {
                entry.set_encrypted();
                self.searched.encrypted_sessions += 1;
            }
            self.searched.encrypted_bytes += if entry.is_encrypted() { payload.len() as u64 } else { 0 };
        }
        if let Some((finder, edges)) = &self.contents
            && !entry.is_candidate()
            && (!taken.is_certain
                || finder.is_in(payload)
                || (is_stream && !payload.is_empty() && edges.may_cut(payload)))
        {
            entry.set_candidate();
        }
        if let Some(wrapped) = &self.wrapped
            && !entry.is_candidate()
            && match is_stream {
                true => wrapped.may_be_in_stream(payload, piece.side, taken.start, entry),
                false => Wrapped::may_be_in_message(payload),
            }
        {
            entry.set_candidate();
        }
        entry.is_candidate()
    }
}

/// Tells contents apart that can contain one of several literals.
#[derive(Debug)]
pub struct LiteralFilter(Finder);

impl LiteralFilter {
    /// A filter for these literals, none of which is empty; `None` if there is none.
    pub fn new(literals: &[Vec<u8>]) -> Option<Self> {
        Finder::new(literals).map(Self)
    }

    /// Whether one of the literals may be in `content`. If not, none is.
    pub fn may_be_in(&self, content: &[u8]) -> bool {
        self.0.is_in(content)
    }
}

fn piece(packet: &StoredPacket<'_>, decoded: &Decoded, is_stream: bool) -> Piece {
    let (from, to) = ((decoded.source, decoded.source_port), (decoded.destination, decoded.destination_port));
    Piece {
        worker: packet.worker,
        slot: packet.slot,
        arrival: packet.arrival,
        key: endpoints(decoded),
        side: usize::from(from > to),
        tcp: is_stream.then_some((decoded.tcp_sequence, decoded.tcp_flags, decoded.payload_len)),
    }
}

/// A hash of both endpoints, in either order.
fn endpoints(decoded: &Decoded) -> u32 {
    let end = |address: u128, port: u16| {
        let folded = u64::try_from((address ^ address >> 64) & u128::from(u64::MAX)).unwrap_or(0);
        (folded ^ u64::from(port) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let both =
        end(decoded.source, decoded.source_port).wrapping_add(end(decoded.destination, decoded.destination_port));
    u32::try_from(both >> 32).unwrap_or(0)
}

fn has_address(addresses: &Indicators, decoded: &Decoded) -> bool {
    let ip = |address| engine::session::key::ip(decoded.network, address);
    [decoded.source, decoded.destination].into_iter().filter_map(ip).any(|ip| addresses.address(ip).is_some())
}

/// Whether a packet begins as a record of TLS or as the banner of SSH.
fn looks_encrypted(payload: &[u8]) -> bool {
    matches!(payload, [0x14..=0x17, 3, 0..=4, ..]) || payload.starts_with(b"SSH-")
}

/// Whether a message can be one of DNS; an answer with records in it, if `is_answer`. Over TCP, its length comes first.
fn looks_like_dns(payload: &[u8], is_stream: bool, is_answer: bool) -> bool {
    let message = if is_stream { payload.get(2..) } else { Some(payload) };
    let Some([_, _, flags, code, 0, questions, records @ ..]) = message else { return false };
    let counts = records.get(..6).is_some_and(|counts| counts.iter().any(|&count| count > 0));
    let has_content = counts || (!is_answer && *questions > 0);
    has_content && (flags & 0x80 != 0 || !is_answer) && flags >> 3 & 15 <= 5 && code & 0x40 == 0 && *questions <= 16
}
