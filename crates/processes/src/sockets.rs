//! The sockets of this network namespace, from the kernel (sock_diag(7), `include/uapi/linux/inet_diag.h`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::netlink;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2`
const REQUEST_BYTES: usize = 56;
/// `struct inet_diag_msg`
const MESSAGE_BYTES: usize = 72;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP_LISTEN: u8 = 10;
/// Maximum number of sockets read in one scan; a host with more is scanned in part.
pub const SOCKETS_MAX: usize = 1 << 18;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The number of the IP protocol.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    /// Its protocol.
    pub protocol: Protocol,
    /// The local end; an address of zeros stands for all.
    pub local: SocketAddr,
    /// The remote end; zeros without one.
    pub remote: SocketAddr,
    /// Whether it accepts connections.
    pub listens: bool,
    /// The user that created it.
    pub uid: u32,
    /// The inode, which identifies it in `/proc/PID/fd`; 0 if no process has it open.
    pub inode: u32,
}

/// A netlink socket for sock_diag requests.
#[derive(Debug)]
pub struct SocketDiagnostics(OwnedFd);

impl SocketDiagnostics {
    /// Opens it. This needs no privilege.
    ///
    /// # Errors
    ///
    /// When the kernel has no sock_diag.
    pub fn open() -> io::Result<Self> {
        netlink::open(rustix::net::netlink::SOCK_DIAG).map(Self)
    }

    /// All sockets of TCP and UDP.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or ends a dump early.
    pub fn sockets(&self, into: &mut Vec<Socket>) -> io::Result<()> {
        into.clear();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for family in [AF_INET, AF_INET6] {
                match self.dump(protocol, family, into) {
                    // The kernel has no IPv6, or no module for the protocol.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    fn dump(&self, protocol: Protocol, family: u8, into: &mut Vec<Socket>) -> io::Result<()> {
        netlink::dump(&self.0, SOCK_DIAG_BY_FAMILY, &request(protocol, family), |kind, message| {
            if kind == SOCK_DIAG_BY_FAMILY && into.len() < SOCKETS_MAX {
                into.extend(socket(message, protocol));
            }
            // The answer is read to its end, so that the next one does not begin with the rest.
            true
        })
    }
}

/// A request for all states.
fn request(protocol: Protocol, family: u8) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    (request[0], request[1]) = (family, protocol.number());
    request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    request
}

fn socket(message: &[u8], protocol: Protocol) -> Option<Socket> {
    let message = message.first_chunk::<MESSAGE_BYTES>()?;
    let port = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = message[at..at + 16].try_into().ok()?;
        match message[0] {
            AF_INET => octets.first_chunk::<4>().map(|four| Ipv4Addr::from(*four).into()),
            // An IPv6 socket with IPv4-mapped addresses.
            AF_INET6 => Some(Ipv6Addr::from(octets).to_canonical()),
            _ => None,
        }
    };
    let u32_at = |at: usize| u32::from_ne_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]]);
    Some(Socket {
        protocol,
        local: SocketAddr::new(address(8)?, port(4)),
        remote: SocketAddr::new(address(24)?, port(6)),
        listens: protocol == Protocol::Tcp && message[1] == TCP_LISTEN,
        uid: u32_at(64),
        inode: u32_at(68),
    })
}

/// The time, in nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
