//! The input and output of a parser.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use streams::{PacketRef, Sender, Session};

use crate::event::{Event, ProtocolSink};
use crate::object::{ObjectHead, ObjectPart};
use crate::waiting::CarryingPackets;

/// Maximum number of stored announcements of data connections.
const EXPECTED_MAX: usize = 4096;

/// The result of a parser's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has used this many bytes, at least one, and may be called again.
    Used(usize),
    /// It has used no bytes, because another protocol begins here; see [`ParserOutput::switch`].
    Switch,
    /// A message is not complete.
    More,
    /// The input is not, or no longer, of its protocol.
    Stop,
}

/// The bytes that a parser has not used.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Who sent them.
    pub sender: Sender,
    /// The bytes; in a session of messages, one message.
    pub data: &'a [u8],
    /// Offset of the first byte in the stream.
    pub offset: u64,
}

/// Reads one session.
pub trait Parser {
    /// Reads from the start of the input.
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step;

    /// Bytes are missing where the next input would begin. Returns whether the parser can continue behind them. If not,
    /// it continues at the next packet that can begin a message of the protocol.
    fn gap(&mut self, _sender: Sender, _len: u64, _out: &mut ParserOutput<'_>) -> bool {
        false
    }

    /// The session ends.
    fn end(&mut self, _out: &mut ParserOutput<'_>) {}
}

/// A data connection that a session has announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedConnection {
    /// The name of the protocol that will read it.
    pub protocol: &'static str,
    /// The object's name.
    pub name: String,
    /// The URL or path of the object.
    pub source: String,
}

/// Announced connections, by the endpoint that will accept them.
#[derive(Debug, Default)]
pub(crate) struct ExpectedConnections {
    by_endpoint: HashMap<(IpAddr, u16), ExpectedConnection>,
    order: VecDeque<(IpAddr, u16)>,
}

impl ExpectedConnections {
    fn add(&mut self, at: (IpAddr, u16), expected: ExpectedConnection) {
        if self.by_endpoint.insert(at, expected).is_none() {
            self.order.push_back(at);
        }
        while self.order.len() > EXPECTED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_endpoint.remove(&oldest);
            }
        }
    }
}

/// Receives the output of a parser.
pub struct ParserOutput<'a> {
    pub(crate) sink: &'a mut dyn ProtocolSink,
    pub(crate) session: &'a Session,
    pub(crate) app: &'static str,
    pub(crate) places: [&'a CarryingPackets; 2],
    pub(crate) objects: &'a mut u64,
    pub(crate) expected: &'a mut ExpectedConnections,
    /// The packet of the newest bytes.
    pub(crate) now: PacketRef,
    pub(crate) next: Option<&'static str>,
}

impl std::fmt::Debug for ParserOutput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out").field("app", &self.app).finish_non_exhaustive()
    }
}

impl ParserOutput<'_> {
    /// Passes a message on.
    pub fn emit(&mut self, mut event: Event) {
        event.app = self.app;
        event.packets = self.places[event.sender.index()].of(event.offset, event.len);
        if event.packets.is_empty() {
            event.packets.push(self.now);
        }
        self.sink.event(self.session, &event);
    }

    /// The current session.
    pub fn session(&self) -> &Session {
        self.session
    }

    /// Begins an object. Returns its number.
    pub fn begin(&mut self, head: ObjectHead, sender: Sender, offset: u64) -> u64 {
        *self.objects += 1;
        let id = *self.objects;
        let packet = self.places[sender.index()].of(offset, 1).first().copied().unwrap_or(self.now);
        let head = ObjectHead { id, protocol: if head.protocol.is_empty() { self.app } else { head.protocol }, ..head };
        self.sink.object(self.session, ObjectPart::Begin { head, sender, packet, offset });
        id
    }

    /// Passes bytes of an object on.
    pub fn content(&mut self, id: u64, at: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.sink.object(self.session, ObjectPart::Data { id, at, bytes });
        }
    }

    /// Ends an object.
    pub fn finish(&mut self, id: u64, size: Option<u64>) {
        self.sink.object(self.session, ObjectPart::End { id, size });
    }

    /// Announces a data connection.
    pub fn expect(&mut self, ip: IpAddr, port: u16, expected: ExpectedConnection) {
        self.expected.add((ip, port), expected);
    }

    /// Switches to another protocol: its name, or `""` to detect it by content.
    pub fn switch(&mut self, to: &'static str) {
        self.next = Some(to);
    }
}

impl ExpectedConnections {
    /// The announcement for a session.
    pub(crate) fn find(&self, session: &Session) -> Option<ExpectedConnection> {
        if self.by_endpoint.is_empty() {
            return None;
        }
        [session.responder(), session.originator()].into_iter().find_map(|end| {
            let at = (end.ip?, end.port);
            self.by_endpoint.get(&at).cloned()
        })
    }
}
