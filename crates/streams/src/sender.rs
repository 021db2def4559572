//! Who sent a byte.

/// The endpoint that sent a packet or a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sender {
    /// The endpoint that opened the session.
    Originator,
    /// The other endpoint.
    Responder,
}

impl Sender {
    /// Both senders, the originator first.
    pub const BOTH: [Self; 2] = [Self::Originator, Self::Responder];

    /// The other endpoint.
    pub fn other(self) -> Self {
        match self {
            Self::Originator => Self::Responder,
            Self::Responder => Self::Originator,
        }
    }

    /// The index of this sender in a pair.
    pub fn index(self) -> usize {
        match self {
            Self::Originator => 0,
            Self::Responder => 1,
        }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Originator => "originator",
            Self::Responder => "responder",
        }
    }
}
