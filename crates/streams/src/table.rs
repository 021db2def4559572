//! The table of sessions: which packet belongs to which stream, and which session gives way when room is needed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use base::packet::Packet;
use base::time::Timestamp;
use decode::{Decoded, Stop};
use engine::session::is_service;
use engine::session::key::{SessionKey, Side};

use crate::assembler::{Assembler, Segment};
use crate::event::{Cause, Event, Gap, PacketRef, Run, Sink};
use crate::fragments::Fragments;
use crate::header;
use crate::sender::Sender;
use crate::session::{Session, TCP};

/// Bytes counted for a session beside what its streams hold.
const SESSION_BYTES: usize = 1024;
/// How long a closed session waits for late packets, in packet time.
const LINGER: Duration = Duration::from_secs(5);

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Memory limits.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Bytes that may wait in one direction.
    pub direction_bytes: usize,
    /// Bytes of all sessions.
    pub total_bytes: usize,
    /// Sessions at a time.
    pub sessions: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { direction_bytes: 256 << 10, total_bytes: 64 << 20, sessions: 65_536 }
    }
}

/// Counts of the input so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Sessions.
    pub sessions: u64,
    /// Sessions that were ended to make room for others.
    pub ended_early: u64,
    /// Packets whose headers could not be decoded down to a payload.
    pub undecoded: u64,
    /// Fragments of datagrams that were not whole.
    pub incomplete_datagrams: u64,
}

/// A session, and the streams of a TCP session.
#[derive(Debug)]
struct TrackedSession {
    session: Session,
    streams: [Assembler; 2],
    /// Bytes of messages so far.
    message_bytes: [u64; 2],
    /// Order of use.
    used: u64,
    /// The sequence number of each side's SYN.
    syn: [Option<u32>; 2],
    /// A SYN with another sequence number, which the other side has not acknowledged.
    candidate: Option<(Side, u32)>,
    reset: bool,
    closed_at: Option<Timestamp>,
    held_bytes: usize,
    /// [`Streams::drops`] at the latest packet.
    drops: u64,
}

/// Puts the packets of all sessions in order.
pub struct Streams {
    limits: StreamLimits,
    table: HashMap<SessionKey, TrackedSession>,
    /// Sessions by their last use.
    by_use: BTreeMap<u64, SessionKey>,
    /// Closed sessions, the first closed first.
    closed: std::collections::VecDeque<(Timestamp, SessionKey, u64)>,
    used: u64,
    held_bytes: usize,
    fragments: Fragments,
    counts: Counts,
    /// The cause of what is missing, unless a packet says more.
    cause: Cause,
    /// Packets before which the source dropped others, so far.
    drops: u64,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("counts", &self.counts).field("held_bytes", &self.held_bytes).finish()
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self::new(StreamLimits::default())
    }
}

impl Streams {
    /// An empty table.
    pub fn new(limits: StreamLimits) -> Self {
        Self {
            limits,
            table: HashMap::new(),
            by_use: BTreeMap::new(),
            closed: std::collections::VecDeque::new(),
            used: 0,
            held_bytes: 0,
            fragments: Fragments::default(),
            counts: Counts::default(),
            cause: Cause::Missing,
            drops: 0,
        }
    }

    /// States why packets of this input are missing, if nothing else is known: a recorder cuts sessions, a capture file
    /// does not say.
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// What was taken so far.
    pub fn counts(&self) -> Counts {
        Counts { incomplete_datagrams: self.fragments.incomplete, ..self.counts }
    }

    /// Bytes of memory held for streams and sessions, as counted against [`StreamLimits::total_bytes`].
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes one packet. `sequence` is its number in the input, from 1.
    pub fn packet(&mut self, packet: &Packet<'_>, sequence: u64, sink: &mut dyn Sink) {
        self.counts.packets += 1;
        self.drops += u64::from(packet.drops_before > 0);
        let decoded = decode::decode(packet.link_type, packet.data);
        let place = PacketRef { time: packet.time, sequence };
        self.end_closed(packet.time, sink);
        if decoded.fragment.is_some() {
            if let Some((first, payload)) = self.fragments.join(packet.data, &decoded) {
                let len = payload.len() as u64;
                self.payload(packet, &first, (&payload, len), None, place, sink);
            }
            return;
        }
        let start = usize::try_from(decoded.payload_offset).unwrap_or(usize::MAX);
        let usable = matches!(decoded.stop, Stop::Complete) || (decoded.protocol != TCP && start > 0);
        let Some(rest) = packet.data.get(start..).filter(|_| usable) else {
            self.counts.undecoded += 1;
            return;
        };
        let len = u64::from(decoded.payload_len);
        let captured = rest.len().min(usize::try_from(decoded.payload_len).unwrap_or(usize::MAX));
        let acknowledged = header::acknowledgement(packet.data, &decoded);
        self.payload(packet, &decoded, (&rest[..captured], len), acknowledged, place, sink);
    }

    /// Takes the payload of a packet or of a joined datagram.
    fn payload(
        &mut self,
        packet: &Packet<'_>,
        decoded: &Decoded,
        (data, len): (&[u8], u64),
        acknowledged: Option<u32>,
        place: PacketRef,
        sink: &mut dyn Sink,
    ) {
        let (key, side) = SessionKey::new(decoded, packet.interface);
        let tcp = key.protocol() == TCP && decoded.network != decode::Network::Link;
        let mut accepted = None;
        if tcp && self.begins_anew(&key, side, decoded, acknowledged) {
            accepted = self.table.get(&key).and_then(|entry| entry.candidate);
            self.end(&key, sink);
        }
        if !self.table.contains_key(&key) {
            // Packets without payload of an unknown session say nothing: a late acknowledgement, a reset.
            if tcp && len == 0 && decoded.tcp_flags & SYN == 0 {
                return;
            }
            self.begin(key, side, decoded, place.time, sink);
            if let (Some((opener, sequence)), Some(entry)) = (accepted, self.table.get_mut(&key)) {
                entry.accept(opener, sequence);
            }
        }
        let limits = self.limits;
        let Some(entry) = self.table.get_mut(&key) else { return };
        self.by_use.remove(&entry.used);
        self.used += 1;
        entry.used = self.used;
        self.by_use.insert(self.used, key);
        let sender = entry.session.sender(side);
        let session = &mut entry.session;
        session.last = session.last.max(place.time);
        session.packets[sender.index()] += 1;
        session.wire_bytes[sender.index()] += u64::from(packet.original_len);
        if tcp {
            if entry.drops != self.drops {
                entry.drops = self.drops;
                entry.streams.iter_mut().for_each(|stream| stream.expect(Cause::Dropped));
            }
            let segment = Segment { sequence: decoded.tcp_sequence, data, len, packet: place };
            entry.take(side, segment, decoded.tcp_flags, acknowledged, limits.direction_bytes, sink);
            if entry.closed_at.is_none() && entry.is_closed() {
                entry.closed_at = Some(place.time);
                self.closed.push_back((place.time, key, entry.session.number));
            }
        } else {
            entry.message(sender, data, len, place, sink);
        }
        let held = SESSION_BYTES + entry.streams.iter().map(Assembler::held_bytes).sum::<usize>();
        self.held_bytes = self.held_bytes + held - entry.held_bytes;
        entry.held_bytes = held;
        self.make_room(sink);
    }

    /// Whether a packet opens another session between the same endpoints.
    fn begins_anew(&mut self, key: &SessionKey, side: Side, decoded: &Decoded, acknowledged: Option<u32>) -> bool {
        let Some(entry) = self.table.get_mut(key) else { return false };
        let at = index(side);
        let flags = decoded.tcp_flags;
        if flags & SYN != 0 && flags & ACK == 0 {
            if entry.syn[at] == Some(decoded.tcp_sequence) {
                return false;
            }
            let idle = !entry.streams.iter().any(Assembler::has_bytes);
            if entry.is_closed() || (idle && entry.syn[at].is_some()) {
                return true;
            }
            // Whoever forges a SYN must not end a session: the other side has to agree.
            entry.candidate = Some((side, decoded.tcp_sequence));
            return false;
        }
        let Some((opener, sequence)) = entry.candidate else { return false };
        let expected = sequence.wrapping_add(1);
        let agrees = flags & (SYN | ACK) == SYN | ACK && side != opener && acknowledged == Some(expected);
        agrees || (side == opener && decoded.payload_len > 0 && decoded.tcp_sequence == expected)
    }

    fn begin(&mut self, key: SessionKey, side: Side, decoded: &Decoded, time: Timestamp, sink: &mut dyn Sink) {
        let tcp = key.protocol() == TCP;
        let flags = decoded.tcp_flags;
        let opens = flags & SYN != 0;
        let originator_is = match (tcp, opens) {
            (true, true) if flags & ACK != 0 => side.other(),
            (true, true) => side,
            _ if is_from_server(tcp, decoded) => side.other(),
            _ => side,
        };
        let session = Session::new(self.counts.sessions, key, originator_is, !tcp || opens, time);
        self.counts.sessions += 1;
        self.used += 1;
        self.by_use.insert(self.used, key);
        self.held_bytes += SESSION_BYTES;
        sink.event(&session, Event::Begin);
        let mut streams = Sender::BOTH.map(Assembler::new);
        streams.iter_mut().for_each(|stream| stream.expect(self.cause));
        let entry = TrackedSession {
            session,
            streams,
            message_bytes: [0; 2],
            used: self.used,
            syn: [None; 2],
            candidate: None,
            reset: false,
            closed_at: None,
            held_bytes: SESSION_BYTES,
            drops: self.drops,
        };
        self.table.insert(key, entry);
    }

    /// Ends sessions that closed some seconds ago.
    fn end_closed(&mut self, now: Timestamp, sink: &mut dyn Sink) {
        while let Some((at, key, number)) = self.closed.front().copied()
            && now.since(at) > LINGER
        {
            self.closed.pop_front();
            if self.table.get(&key).is_some_and(|entry| entry.session.number == number) {
                self.end(&key, sink);
            }
        }
    }

    fn make_room(&mut self, sink: &mut dyn Sink) {
        while self.held_bytes > self.limits.total_bytes || self.table.len() > self.limits.sessions {
            let Some((_, key)) = self.by_use.first_key_value().map(|(used, key)| (*used, *key)) else { return };
            self.counts.ended_early += 1;
            self.end(&key, sink);
        }
    }

    fn end(&mut self, key: &SessionKey, sink: &mut dyn Sink) {
        let Some(mut entry) = self.table.remove(key) else { return };
        self.by_use.remove(&entry.used);
        self.held_bytes -= entry.held_bytes;
        for sender in Sender::BOTH {
            entry.with_stream(sender, sink, |stream, emit| stream.close(emit));
        }
        sink.event(&entry.session, Event::End);
    }

    /// Ends all sessions, the one idle longest first.
    pub fn finish(&mut self, sink: &mut dyn Sink) {
        while let Some((_, key)) = self.by_use.pop_first() {
            self.end(&key, sink);
        }
        self.closed.clear();
    }
}

/// Whether the ports show that the sender of a session's first packet is the server.
fn is_from_server(tcp: bool, decoded: &Decoded) -> bool {
    let (from, to) = (decoded.source_port, decoded.destination_port);
    match (is_service(from), is_service(to)) {
        (true, false) => true,
        (false, true) => false,
        _ => tcp && from < to,
    }
}

/// The index of a side in a pair.
fn index(side: Side) -> usize {
    match side {
        Side::Low => 0,
        Side::High => 1,
    }
}

impl TrackedSession {
    fn is_closed(&self) -> bool {
        self.reset || self.streams.iter().all(Assembler::is_finished)
    }

    /// Takes over the SYN that opened the session before anybody agreed to it.
    fn accept(&mut self, opener: Side, sequence: u32) {
        self.session.originator_is = opener;
        self.session.opened = true;
        self.syn[index(opener)] = Some(sequence);
        self.streams[Sender::Originator.index()].open(sequence.wrapping_add(1));
    }

    /// Runs `work` on a stream, passes its events on, and copies its report.
    fn with_stream(
        &mut self,
        sender: Sender,
        sink: &mut dyn Sink,
        work: impl FnOnce(&mut Assembler, &mut dyn FnMut(Event<'_>)),
    ) {
        let session = &self.session;
        let stream = &mut self.streams[sender.index()];
        work(stream, &mut |event| sink.event(session, event));
        self.session.reports[sender.index()] = stream.report;
    }

    /// Takes a TCP segment.
    fn take(
        &mut self,
        side: Side,
        mut segment: Segment<'_>,
        flags: u8,
        acknowledged: Option<u32>,
        bytes_max: usize,
        sink: &mut dyn Sink,
    ) {
        let sender = self.session.sender(side);
        if flags & SYN != 0 {
            let here = &mut self.streams[sender.index()];
            if self.syn[index(side)].is_none() && !here.is_open() {
                self.syn[index(side)] = Some(segment.sequence);
                here.open(segment.sequence.wrapping_add(1));
            }
            segment.sequence = segment.sequence.wrapping_add(1);
        }
        if segment.len > 0 {
            if !self.streams[sender.index()].is_open() {
                let gap = Gap { sender, offset: 0, len: 0, cause: Cause::NoSyn };
                sink.event(&self.session, Event::Gap(gap));
            }
            self.with_stream(sender, sink, |stream, emit| stream.segment(segment, bytes_max, emit));
        }
        if flags & FIN != 0 {
            let after = segment.sequence.wrapping_add(u32::try_from(segment.len).unwrap_or(0));
            self.streams[sender.index()].finish_at(after);
        }
        self.reset |= flags & RST != 0;
        if let Some(acknowledged) = acknowledged {
            self.streams[sender.other().index()].acknowledge(acknowledged);
        }
        for sender in Sender::BOTH {
            self.with_stream(sender, sink, |stream, emit| stream.tick(segment.packet.time, emit));
        }
    }

    /// Takes a message: the payload of a packet that is not TCP.
    fn message(&mut self, sender: Sender, data: &[u8], len: u64, packet: PacketRef, sink: &mut dyn Sink) {
        let at = sender.index();
        let offset = self.message_bytes[at];
        self.message_bytes[at] += len.max(data.len() as u64);
        let report = &mut self.session.reports[at];
        report.bytes += data.len() as u64;
        let missing = len.saturating_sub(data.len() as u64);
        if missing > 0 {
            report.gaps += 1;
            report.gap_bytes += missing;
        }
        if !data.is_empty() {
            sink.event(&self.session, Event::Run(Run { sender, offset, data, packet }));
        }
        if missing > 0 {
            let offset = offset + data.len() as u64;
            sink.event(&self.session, Event::Gap(Gap { sender, offset, len: missing, cause: Cause::Snaplen }));
        }
    }
}
