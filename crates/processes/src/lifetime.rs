//! The time during which a session lived, for which its socket is looked up.

/// Time after the last sight of a socket during which its packets can still arrive, such as those that close it.
const LINGER_NS: u64 = 1_000_000_000;

/// The lifetime of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLifetime {
    /// The time of its first packet, in nanoseconds since 1970.
    pub first_ns: u64,
    /// The time of its last packet.
    pub last_ns: u64,
    /// Whether it was closed, so that a socket that appears later is another one.
    pub closed: bool,
}

impl SessionLifetime {
    /// The latest possible time of the first sight of its socket.
    pub(crate) fn seen_until_ns(self) -> u64 {
        if self.closed { self.last_ns } else { self.last_ns.saturating_add(LINGER_NS) }
    }
}
