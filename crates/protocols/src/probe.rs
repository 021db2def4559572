//! The first bytes of a session, by which a protocol is detected.

use streams::{Run, Session};

/// The transport of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// TCP or UDP.
    Both,
    /// Frames of this ethertype.
    Link(u16),
    /// Anything else.
    Other,
}

impl Carrier {
    /// The carrier of a session.
    pub(crate) fn of(session: &Session) -> Self {
        match session.key.protocol() {
            6 => Self::Tcp,
            17 => Self::Udp,
            0 => Self::Link(session.key.ethertype()),
            _ => Self::Other,
        }
    }

    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Both)
    }

    pub(crate) fn is_messages(self) -> bool {
        matches!(self, Self::Udp | Self::Both | Self::Link(_))
    }
}

/// Whether bytes belong to a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They belong to it.
    Yes,
    /// They do not belong to it.
    No,
    /// More bytes are needed.
    More,
}

impl Verdict {
    /// Yes or no.
    pub fn from_bool(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// The first bytes of a session.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// The first bytes of the originator and of the responder.
    pub data: [&'a [u8]; 2],
    /// Their ports.
    pub ports: [u16; 2],
    /// The transport of the session.
    pub carrier: Carrier,
}

impl<'a> Probe<'a> {
    pub(crate) fn of_one(run: &Run<'a>, session: &Session) -> Self {
        let mut data: [&[u8]; 2] = [&[], &[]];
        data[run.sender.index()] = run.data;
        Self { data, ports: [session.originator().port, session.responder().port], carrier: Carrier::of(session) }
    }

    /// The first bytes of the originator, or of the responder if the originator sent none.
    pub(crate) fn first(&self) -> &'a [u8] {
        if self.data[0].is_empty() { self.data[1] } else { self.data[0] }
    }

    /// Whether one of the ports is this one.
    pub(crate) fn has_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }
}
