//! The starts of sessions, and the requests in them whose names are parsed.

use std::collections::HashMap;
use std::time::Duration;

use super::super::session_names::Names;
use base::time::Timestamp;
use decode::Decoded;
use decode::names::{self, Parsed};
use engine::session::{Session, SessionSlot};
use engine::store::Rank;
use engine::store::record::RecordHeader;

/// Session age after which an unfinished request can be dropped, if there is no memory for all of them.
const FINISHED_WITHIN: Duration = Duration::from_secs(3);
/// The deepest rank that is read for names.
const RANK_MAX: Rank = Rank(2);
/// Maximum number of packets that are reassembled to one request.
const PIECES_MAX: usize = 8;
/// Maximum number of bytes of one request.
pub(super) const REQUEST_BYTES_MAX: usize = 16 << 10;

/// The sessions whose starts are read, by worker and slot.
#[derive(Debug, Default)]
pub(crate) struct SessionStarts(pub(super) HashMap<(u16, SessionSlot), Start, foldhash::quality::RandomState>);

#[derive(Debug)]
pub(super) struct Start {
    pub(super) row: usize,
    pub(super) first_sequence: u64,
    pub(super) first: Timestamp,
    pub(super) until: Timestamp,
    pub(super) request: Request,
}

impl SessionStarts {
    /// Adds a session whose start is wanted.
    pub(crate) fn want(&mut self, place: (u16, SessionSlot), row: usize, session: &Session, until: Timestamp) {
        let (first_sequence, first) = (session.first_sequence, session.first);
        self.0.insert(place, Start { row, first_sequence, first, until, request: Request::default() });
    }

    /// Removes a session whose start was read. Returns whether it was the last one.
    pub(crate) fn done(&mut self, place: (u16, SessionSlot)) -> bool {
        self.0.remove(&place);
        self.0.is_empty()
    }

    /// Whether starts of sessions lie in this rank.
    pub(crate) fn have(rank: Rank) -> bool {
        rank <= RANK_MAX
    }

    /// Drops unfinished requests that are old or match no known protocol. Returns the bytes still held.
    pub(super) fn give_up(&mut self, now: Timestamp) -> usize {
        self.0.retain(|_, start| {
            let alive = !start.request.doubtful && now <= start.first.saturating_add(FINISHED_WITHIN);
            start.request.pieces.is_empty() || alive
        });
        self.0.values().map(|start| start.request.bytes()).sum()
    }

    /// Whether a packet belongs to the start of one of the sessions.
    pub(crate) fn wanted(&self, worker: usize, header: &RecordHeader) -> bool {
        let key = (u16::try_from(worker).unwrap_or(u16::MAX), header.session);
        self.0.get(&key).is_some_and(|start| start.first_sequence <= header.sequence && header.time <= start.until)
    }
}

/// The captured bytes after the transport header.
pub(super) fn payload<'a>(data: &'a [u8], decoded: &Decoded) -> &'a [u8] {
    let rest = data.get(decoded.payload_offset as usize..).unwrap_or_default();
    rest.get(..decoded.payload_len as usize).unwrap_or(rest)
}

pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS: u16 = 53;
/// DNS, mDNS (RFC 6762) and LLMNR (RFC 4795).
const DNS_PORTS: [u16; 3] = [DNS, 5353, 5355];

/// The first payload bytes of the endpoint that sent payload first.
#[derive(Debug, Default)]
pub(super) struct Request {
    sender: Option<(u128, u16)>,
    /// Sequence number and payload of each packet, in arrival order.
    pieces: Vec<(u32, Vec<u8>)>,
    /// Whether the bytes match no known protocol so far.
    doubtful: bool,
}

impl Request {
    /// Whether sessions with this protocol and these ports can hold a name.
    pub(super) fn possible(protocol: u8, session: &Session) -> bool {
        let ports = [session.originator().port, session.responder().port];
        protocol == TCP || (protocol == UDP && ports.iter().any(|port| DNS_PORTS.contains(port)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(|(_, piece)| piece.len()).sum()
    }

    /// Parses the next packet of the session.
    pub(super) fn packet(&mut self, decoded: &Decoded, payload: Vec<u8>) -> Parsed<Names> {
        if payload.is_empty() {
            return Parsed::More;
        }
        if decoded.protocol == UDP {
            return dns(names::dns_question(&payload));
        }
        let sender = (decoded.source, decoded.source_port);
        if *self.sender.get_or_insert(sender) != sender {
            // This packet is the answer. The request is complete, unless packets of it are captured late.
            return if self.pieces.is_empty() { Parsed::Nothing } else { Parsed::More };
        }
        self.pieces.push((decoded.tcp_sequence, payload));
        let stream = self.stream();
        let has_dns_port = decoded.source_port == DNS || decoded.destination_port == DNS;
        let parsed = parse_names(&stream, has_dns_port);
        self.doubtful = parsed == Parsed::Nothing;
        match parsed {
            // The first packet may arrive second.
            Parsed::Nothing if self.pieces.len() < 2 => Parsed::More,
            Parsed::More if self.pieces.len() >= PIECES_MAX || self.bytes() >= REQUEST_BYTES_MAX => Parsed::Nothing,
            parsed => parsed,
        }
    }

    /// The pieces in sequence order, up to the first gap. Bytes that were sent twice occur once.
    pub(super) fn stream(&self) -> Vec<u8> {
        let Some(&(base, _)) = self.pieces.first() else { return Vec::new() };
        // The order is relative to the first piece, because sequence numbers wrap.
        let mut order: Vec<(i32, &[u8])> = self
            .pieces
            .iter()
            .map(|(sequence, piece)| (sequence.wrapping_sub(base).cast_signed(), &piece[..]))
            .collect();
        order.sort_by_key(|piece| piece.0);
        let begin = i64::from(order.first().map_or(0, |piece| piece.0));
        let mut stream = Vec::new();
        for (at, piece) in order {
            let Ok(at) = usize::try_from(i64::from(at) - begin) else { continue };
            if at > stream.len() {
                break;
            }
            stream.extend_from_slice(piece.get(stream.len() - at..).unwrap_or_default());
        }
        stream
    }
}

fn dns(parsed: Parsed<names::Question>) -> Parsed<Names> {
    match parsed {
        Parsed::Name(question) => Parsed::Name(Names {
            dns_question: Some(question.name.into()),
            dns_type: Some(question.kind.into()),
            ..Names::default()
        }),
        Parsed::More => Parsed::More,
        Parsed::Nothing => Parsed::Nothing,
    }
}

/// Parses the names in the first bytes of a TCP stream.
pub(super) fn parse_names(stream: &[u8], has_dns_port: bool) -> Parsed<Names> {
    if has_dns_port {
        return dns(names::dns_question_in_stream(stream));
    }
    match (names::server_name(stream), names::http_host(stream)) {
        (Parsed::Name(name), _) => Parsed::Name(Names { server_name: Some(name.into()), ..Names::default() }),
        (_, Parsed::Name(host)) => Parsed::Name(Names { http_host: Some(host.into()), ..Names::default() }),
        (Parsed::More, _) | (_, Parsed::More) => Parsed::More,
        (Parsed::Nothing, Parsed::Nothing) => Parsed::Nothing,
    }
}
