//! What a [`Streams`](crate::Streams) tells about its sessions.

use base::time::Timestamp;

use crate::sender::Sender;
use crate::session::Session;

/// A packet of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketRef {
    /// Capture time.
    pub time: Timestamp,
    /// The number of the packet in the input, from 1.
    pub sequence: u64,
}

/// Bytes of one direction that follow each other, from one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// The sender of the bytes.
    pub sender: Sender,
    /// Bytes of this direction before this run, gaps included.
    pub offset: u64,
    /// The bytes; of a session of messages, one whole message.
    pub data: &'a [u8],
    /// The packet that carried the bytes.
    pub packet: PacketRef,
}

/// Why bytes of a stream are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The session began before its first packet here. How many bytes precede is unknown.
    NoSyn,
    /// The packet was captured up to a snap length.
    Snaplen,
    /// The source reported packets that it dropped at this time.
    Dropped,
    /// The recorder cut the session: it evicted the packets deeper in the session.
    Cut,
    /// The recorder evicted packets at the start or within the session.
    Evicted,
    /// The stream waited too long for the bytes, or its memory was needed.
    Overtaken,
    /// The input has no packet with these bytes, and nothing says why.
    Missing,
}

impl Cause {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSyn => "no_syn",
            Self::Snaplen => "snaplen",
            Self::Dropped => "dropped",
            Self::Cut => "cut",
            Self::Evicted => "evicted",
            Self::Overtaken => "overtaken",
            Self::Missing => "missing",
        }
    }
}

/// Missing bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Who sent the missing bytes.
    pub sender: Sender,
    /// Bytes of this direction before the gap.
    pub offset: u64,
    /// The number of missing bytes; 0 if it is unknown.
    pub len: u64,
    /// Why they are missing.
    pub cause: Cause,
}

/// A packet whose bytes differ from those that came first. The bytes that came first are in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who sent the bytes.
    pub sender: Sender,
    /// Offset of the overlap in the stream.
    pub offset: u64,
    /// Length of the overlap in bytes.
    pub len: u64,
    /// The packet with the other bytes.
    pub packet: PacketRef,
}

/// Something that happened in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The session begins.
    Begin,
    /// The next bytes of a direction, or a message.
    Run(Run<'a>),
    /// Bytes are missing.
    Gap(Gap),
    /// A packet contradicts the stream.
    Conflict(Conflict),
    /// The session ends; no event of it follows.
    End,
}

/// The receiver of events.
pub trait Sink {
    /// Takes one event of a session.
    fn event(&mut self, session: &Session, event: Event<'_>);
}

impl<F: FnMut(&Session, Event<'_>)> Sink for F {
    fn event(&mut self, session: &Session, event: Event<'_>) {
        self(session, event);
    }
}
