//! The sockets of this network namespace, from the kernel (sock_diag(7), `include/uapi/linux/inet_diag.h`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
/// `struct inet_diag_msg`
const MESSAGE_BYTES: usize = 72;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP_LISTEN: u8 = 10;
const BUFFER_BYTES: usize = 64 << 10;
const TIMEOUT: Duration = Duration::from_secs(2);
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
        let protocol = rustix::net::netlink::SOCK_DIAG;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self(socket))
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
        let request = request(protocol, family);
        rustix::net::sendto(&self.0, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let (bytes, _) = rustix::net::recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty())?;
            if parse(&buffer[..bytes], protocol, into)? {
                return Ok(());
            }
        }
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`, for all states.
fn request(protocol: Protocol, family: u8) -> [u8; HEADER_BYTES + 56] {
    let mut request = [0; HEADER_BYTES + 56];
    request[..4].copy_from_slice(&72u32.to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request[HEADER_BYTES] = family;
    request[HEADER_BYTES + 1] = protocol.number();
    request[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&u32::MAX.to_ne_bytes());
    request
}

/// Reads a datagram; true at the end of the dump.
fn parse(datagram: &[u8], protocol: Protocol, into: &mut Vec<Socket>) -> io::Result<bool> {
    let mut rest = datagram;
    while rest.len() >= HEADER_BYTES {
        let u32_at = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let length = usize::try_from(u32_at(0)).unwrap_or(usize::MAX);
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        if length < HEADER_BYTES || length > rest.len() {
            return Err(io::Error::other("a message from the kernel is damaged"));
        }
        let payload = &rest[HEADER_BYTES..length];
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY if into.len() < SOCKETS_MAX => into.extend(socket(payload, protocol)),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
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
