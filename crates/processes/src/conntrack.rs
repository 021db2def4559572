//! Which session outside belongs to which inside a NAT: the kernel's connection tracking, over netlink
//! (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Opening needs `CAP_NET_ADMIN`; reading events afterwards needs nothing. Only connections whose addresses or ports are
//! translated are reported.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

const SUBSYSTEM: u16 = 1 << 8;
const MESSAGE_NEW: u16 = SUBSYSTEM;
const MESSAGE_GET: u16 = SUBSYSTEM | 1;
const MESSAGE_DELETE: u16 = SUBSYSTEM | 2;
/// `NFNLGRP_CONNTRACK_NEW` and `NFNLGRP_CONNTRACK_DESTROY`, as bits.
const GROUPS: u32 = 1 | 1 << 2;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
/// `struct nfgenmsg`
const FAMILY_HEADER_BYTES: usize = 4;
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const BUFFER_BYTES: usize = 64 << 10;
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of datagrams that are read at once.
const DATAGRAMS_MAX: usize = 4096;

/// A connection whose ends are translated: the same session, as seen on the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// The number of the IP protocol.
    pub protocol: u8,
    /// Its ends before translation, the originator first.
    pub before: [SocketAddr; 2],
    /// Its ends after translation, the originator first.
    pub after: [SocketAddr; 2],
    /// Whether the connection is over.
    pub is_over: bool,
}

/// A socket that receives the events of connection tracking.
#[derive(Debug)]
pub struct Conntrack {
    socket: OwnedFd,
    /// What was there at the start.
    first: Vec<Translation>,
    lost: u64,
}

impl Conntrack {
    /// Opens it, and reads the connections that are there.
    ///
    /// # Errors
    ///
    /// When the kernel has no connection tracking, or does not permit it.
    pub fn open() -> io::Result<Self> {
        let protocol = Some(rustix::net::netlink::NETFILTER);
        let open = || rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol);
        let events = open()?;
        rustix::net::bind(&events, &SocketAddrNetlink::new(0, GROUPS))?;
        let _ = sockopt::set_socket_recv_buffer_size(&events, RECEIVE_BUFFER_BYTES);
        // Another socket, so that events do not come between the parts of the answer.
        let asking = open()?;
        sockopt::set_socket_timeout(&asking, sockopt::Timeout::Recv, Some(TIMEOUT))?;
        let mut request = [0; HEADER_BYTES + FAMILY_HEADER_BYTES];
        request[..4].copy_from_slice(&20u32.to_ne_bytes());
        request[4..6].copy_from_slice(&MESSAGE_GET.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
        rustix::net::sendto(&asking, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let (mut first, mut buffer) = (Vec::new(), vec![0; BUFFER_BYTES]);
        for _ in 0..DATAGRAMS_MAX {
            let (bytes, _) = rustix::net::recv(&asking, buffer.as_mut_slice(), RecvFlags::empty())?;
            if parse(&buffer[..bytes], &mut first)? {
                break;
            }
        }
        Ok(Self { socket: events, first, lost: 0 })
    }

    /// Appends what has changed since the last call.
    pub fn read(&mut self, into: &mut Vec<Translation>) {
        into.append(&mut self.first);
        let mut buffer = vec![0; BUFFER_BYTES];
        for _ in 0..DATAGRAMS_MAX {
            match rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((bytes, _)) => {
                    let _ = parse(&buffer[..bytes], into);
                }
                // Events did not fit into the buffer of the socket.
                Err(rustix::io::Errno::NOBUFS) => self.lost += 1,
                Err(_) => return,
            }
        }
    }

    /// How often events were lost, because too many came at once.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// Reads a datagram; true at the end of a dump.
fn parse(datagram: &[u8], into: &mut Vec<Translation>) -> io::Result<bool> {
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(payload) = rest.get(HEADER_BYTES..length) else {
            return Err(io::Error::other("a message from the kernel is damaged"));
        };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            MESSAGE_NEW | MESSAGE_DELETE => {
                let attributes = payload.get(FAMILY_HEADER_BYTES..).unwrap_or_default();
                into.extend(translation(attributes, kind == MESSAGE_DELETE));
            }
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The translation of a connection; `None` if its ends are not translated, or its protocol has no ports.
fn translation(attributes: &[u8], is_over: bool) -> Option<Translation> {
    let (protocol, before) = tuple(find(attributes, TUPLE_ORIGINAL)?)?;
    // The reply goes from the translated responder to the translated originator.
    let (_, [responder, originator]) = tuple(find(attributes, TUPLE_REPLY)?)?;
    let after = [originator, responder];
    (before != after).then_some(Translation { protocol, before, after, is_over })
}

/// Protocol, source and destination of a tuple.
fn tuple(attributes: &[u8]) -> Option<(u8, [SocketAddr; 2])> {
    let (addresses, protocol) = (find(attributes, TUPLE_IP)?, find(attributes, TUPLE_PROTOCOL)?);
    let address = |v4: u16, v6: u16| -> Option<IpAddr> {
        if let Some(four) = find(addresses, v4).and_then(|value| value.first_chunk::<4>()) {
            return Some(Ipv4Addr::from(*four).into());
        }
        find(addresses, v6).and_then(|value| value.first_chunk::<16>()).map(|all| Ipv6Addr::from(*all).into())
    };
    let port = |kind: u16| {
        find(protocol, kind).and_then(|value| value.first_chunk::<2>()).map(|port| u16::from_be_bytes(*port))
    };
    let number = *find(protocol, 1)?.first()?;
    Some((number, [SocketAddr::new(address(1, 3)?, port(2)?), SocketAddr::new(address(2, 4)?, port(3)?)]))
}

/// The value of an attribute (`struct nlattr`).
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(header) = attributes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) & ATTRIBUTE_TYPE_MASK == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple_bytes(kind: u16, source: &str, destination: &str) -> Vec<u8> {
        let (source, destination): (SocketAddr, SocketAddr) = (source.parse().unwrap(), destination.parse().unwrap());
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let first = if source.is_ipv4() { 1 } else { 3 };
        let ip = [attribute(first, &octets(source.ip())), attribute(first + 1, &octets(destination.ip()))].concat();
        let protocol = [
            attribute(1, &[6]),
            attribute(2, &source.port().to_be_bytes()),
            attribute(3, &destination.port().to_be_bytes()),
        ]
        .concat();
        attribute(kind | 0x8000, &[attribute(1 | 0x8000, &ip), attribute(2 | 0x8000, &protocol)].concat())
    }

    fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + FAMILY_HEADER_BYTES + attributes.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES + FAMILY_HEADER_BYTES, 0);
        bytes.extend_from_slice(attributes);
        bytes
    }

    #[test]
    fn translations_are_read_and_connections_without_one_are_left_out() {
        let status = attribute(3, &[0; 4]);
        let masqueraded = [
            tuple_bytes(TUPLE_ORIGINAL, "10.0.0.2:4000", "192.0.2.7:443"),
            tuple_bytes(TUPLE_REPLY, "192.0.2.7:443", "198.51.100.1:61000"),
            status.clone(),
        ]
        .concat();
        let plain = [
            tuple_bytes(TUPLE_ORIGINAL, "[2001:db8::1]:5", "[2001:db8::2]:6"),
            tuple_bytes(TUPLE_REPLY, "[2001:db8::2]:6", "[2001:db8::1]:5"),
        ]
        .concat();
        let published = [
            status,
            tuple_bytes(TUPLE_ORIGINAL, "[2001:db8::9]:5", "[2001:db8::1]:8080"),
            tuple_bytes(TUPLE_REPLY, "[fd00::2]:80", "[2001:db8::9]:5"),
        ]
        .concat();
        let datagram =
            [message(MESSAGE_NEW, &masqueraded), message(MESSAGE_NEW, &plain), message(MESSAGE_DELETE, &published)]
                .concat();
        let mut found = Vec::new();
        assert!(!parse(&datagram, &mut found).unwrap());
        let ends = |a: &str, b: &str| [a.parse().unwrap(), b.parse().unwrap()];
        let outgoing = Translation {
            protocol: 6,
            before: ends("10.0.0.2:4000", "192.0.2.7:443"),
            after: ends("198.51.100.1:61000", "192.0.2.7:443"),
            is_over: false,
        };
        let incoming = Translation {
            protocol: 6,
            before: ends("[2001:db8::9]:5", "[2001:db8::1]:8080"),
            after: ends("[2001:db8::9]:5", "[fd00::2]:80"),
            is_over: true,
        };
        assert_eq!(found, [outgoing, incoming]);
        assert!(parse(&message(NLMSG_DONE, &[]), &mut found).unwrap());
        let refused = parse(&message(NLMSG_ERROR, &[]), &mut found);
        assert!(refused.is_err());
    }

    #[test]
    fn no_bytes_of_any_kind_are_taken_for_more_than_they_are() {
        let whole = message(
            MESSAGE_NEW,
            &[
                tuple_bytes(TUPLE_ORIGINAL, "10.0.0.2:4000", "192.0.2.7:443"),
                tuple_bytes(TUPLE_REPLY, "192.0.2.7:443", "198.51.100.1:61000"),
            ]
            .concat(),
        );
        for at in 0..whole.len() {
            let _ = parse(&whole[..at], &mut Vec::new());
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = parse(&damaged, &mut Vec::new());
            }
        }
    }
}
