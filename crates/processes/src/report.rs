//! The events that the watcher sends to the recorder: one line of JSON each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::conntrack::Translation;
use crate::process::{Process, Source};
use crate::sockets::Protocol;

/// Maximum length of a line, in bytes.
pub const LINE_BYTES_MAX: u64 = 8 << 10;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// A socket was seen for the first time.
    Open {
        /// The time, in nanoseconds since 1970.
        time_ns: u64,
        /// The socket.
        socket: SocketName,
        /// Its process.
        process: Box<Process>,
    },
    /// A socket was closed.
    Closed {
        /// The time at which it was last seen, in nanoseconds since 1970.
        time_ns: u64,
        /// The socket.
        socket: SocketName,
    },
    /// A raw or an ICMP socket was opened.
    RawOpened {
        /// The time, in nanoseconds since 1970.
        time_ns: u64,
        /// Its identity.
        id: u64,
        /// The number of its IP protocol.
        protocol: u8,
        /// Whether it is of IPv6.
        is_v6: bool,
        /// Its process.
        process: Box<Process>,
    },
    /// A raw or an ICMP socket was closed.
    RawClosed {
        /// The time, in nanoseconds since 1970.
        time_ns: u64,
        /// Its identity.
        id: u64,
    },
    /// NAT begins or ends to translate a connection.
    Translated {
        /// The time, in nanoseconds since 1970.
        time_ns: u64,
        /// The connection.
        translation: Translation,
    },
    /// Why NAT is not seen; `None` if it is.
    NatUnseen(Option<String>),
    /// Addresses of this host, which replace those reported before.
    Addresses(Vec<std::net::IpAddr>),
    /// The best method in use, and why it is not a better one.
    Method(Source, Option<String>),
    /// Sockets that receive from anybody belong to the processes that were reported, until this time at least, in nanoseconds
    /// since 1970.
    Examined(u64),
    /// Number of sockets that were not examined, since the start.
    Lost(u64),
    /// Events of sockets were lost until this time, in nanoseconds since 1970. Raw sockets that are open are reported again.
    SocketsMissed(u64),
    /// Events of translations were lost until this time, in nanoseconds since 1970.
    TranslationsMissed(u64),
}

/// The identity of a socket among those that exist at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SocketName {
    /// Its protocol.
    pub protocol: Protocol,
    /// The local end.
    pub local: SocketAddr,
    /// The remote end.
    pub remote: SocketAddr,
}
