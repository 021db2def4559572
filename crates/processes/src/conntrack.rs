//! Which session outside belongs to which inside a NAT: the kernel's connection tracking, over netlink
//! (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Opening needs `CAP_NET_ADMIN`; reading events afterwards needs nothing. Only connections whose addresses or ports are
//! translated are reported.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, sockopt};
use serde::{Deserialize, Serialize};

use crate::netlink;

const SUBSYSTEM: u16 = 1 << 8;
const MESSAGE_NEW: u16 = SUBSYSTEM;
const MESSAGE_GET: u16 = SUBSYSTEM | 1;
const MESSAGE_DELETE: u16 = SUBSYSTEM | 2;
/// `NFNLGRP_CONNTRACK_NEW` and `NFNLGRP_CONNTRACK_DESTROY`, as bits.
const GROUPS: u32 = 1 | 1 << 2;
/// `struct nfgenmsg`
const FAMILY_HEADER_BYTES: usize = 4;
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// Size of the kernel's buffer of events: about 10,000 of them.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Maximum number of datagrams that are read at once.
const DATAGRAMS_MAX: usize = 4096;
/// Maximum number of translations that are taken over from the time before the start.
const FIRST_MAX: usize = 1 << 16;
/// Number of them that one call returns.
const FIRST_AT_ONCE: usize = 4096;
/// Maximum number of translations that wait for a call.
const WAITING_MAX: usize = 1 << 16;

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
    /// Where the kernel counts the events that this socket lost: `/proc/net/netlink`, with the socket's inode.
    counted: (PathBuf, u64),
    /// What was there at the start, and was not returned yet.
    first: Vec<Translation>,
    /// What was read and not returned yet.
    waiting: Vec<Translation>,
    /// Translations that found no room here, or at the start.
    left_out: u64,
    /// Events that the kernel could not deliver.
    undelivered: u64,
    /// Whether something was lost since the last call of [`take_missed`](Self::take_missed).
    has_missed: bool,
}

impl Conntrack {
    /// Opens it, and reads the connections that are there. `proc` is where proc(5) is mounted.
    ///
    /// # Errors
    ///
    /// When the kernel has no connection tracking, or does not permit it.
    pub fn open(proc: &Path) -> io::Result<Self> {
        let protocol = rustix::net::netlink::NETFILTER;
        let socket = netlink::open(protocol)?;
        // With the privilege, the limit of the system does not apply.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES);
        }
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        let (mut first, mut left_out) = (Vec::new(), 0);
        // Another socket, so that events do not come between the parts of the answer.
        netlink::dump(netlink::open(protocol)?, MESSAGE_GET, &[0; FAMILY_HEADER_BYTES], |kind, message| {
            if let Some(translation) = of_message(kind, message) {
                if first.len() < FIRST_MAX {
                    first.push(translation);
                } else {
                    left_out += 1;
                }
            }
            true
        })?;
        let counted = (proc.join("net/netlink"), inode);
        Ok(Self { socket, counted, first, waiting: Vec::new(), left_out, undelivered: 0, has_missed: false })
    }

    /// Reads what the kernel has, so that its buffer has room. Call it often.
    pub fn fetch(&mut self) {
        let mut buffer = vec![0; netlink::BUFFER_BYTES];
        for _ in 0..DATAGRAMS_MAX {
            match rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((bytes, _)) => {
                    let _ = netlink::read(&buffer[..bytes], |kind, message| {
                        let Some(translation) = of_message(kind, message) else { return };
                        if self.waiting.len() < WAITING_MAX {
                            self.waiting.push(translation);
                        } else {
                            (self.left_out, self.has_missed) = (self.left_out + 1, true);
                        }
                    });
                }
                // Events did not fit into the buffer of the socket. The kernel says so once, and counts each.
                Err(rustix::io::Errno::NOBUFS) => {
                    let counted = std::fs::read_to_string(&self.counted.0).ok();
                    let undelivered = counted.and_then(|text| undelivered(&text, self.counted.1));
                    self.undelivered = undelivered.unwrap_or(0).max(self.undelivered + 1);
                    self.has_missed = true;
                }
                Err(_) => return,
            }
        }
    }

    /// Appends what has changed since the last call. The connections from before the start come in parts, and events after them.
    pub fn read(&mut self, into: &mut Vec<Translation>) {
        self.fetch();
        if self.first.is_empty() {
            return into.append(&mut self.waiting);
        }
        into.extend(self.first.drain(self.first.len().saturating_sub(FIRST_AT_ONCE)..));
    }

    /// Whether events were lost since the last call, so that translations may be over whose end was not seen.
    pub fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.has_missed)
    }

    /// Number of translations and events that were lost, because too many came at once.
    pub fn lost(&self) -> u64 {
        self.left_out + self.undelivered
    }
}

/// The events that a netlink socket lost, in a text of `/proc/net/netlink`.
fn undelivered(text: &str, inode: u64) -> Option<u64> {
    let mut lines = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.get(9).and_then(|field| field.parse().ok()) == Some(inode))?;
    fields.get(8)?.parse().ok()
}

/// The translation that a message reports.
fn of_message(kind: u16, message: &[u8]) -> Option<Translation> {
    let is_over = match kind {
        MESSAGE_NEW => false,
        MESSAGE_DELETE => true,
        _ => return None,
    };
    translation(message.get(FAMILY_HEADER_BYTES..)?, is_over)
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
        let headers = netlink::HEADER_BYTES + FAMILY_HEADER_BYTES;
        let length = u32::try_from(headers + attributes.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(headers, 0);
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
        let found = parse(&datagram);
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
    }

    fn parse(datagram: &[u8]) -> Vec<Translation> {
        let mut found = Vec::new();
        let _ = netlink::read(datagram, |kind, message| found.extend(of_message(kind, message)));
        found
    }

    #[test]
    fn each_event_that_the_kernel_could_not_deliver_is_counted() {
        let text = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                    00000000cb5bdd42 12  4242       00000005 0        0        0     2        17       71513\n\
                    broken\n";
        assert_eq!(undelivered(text, 71513), Some(17));
        assert_eq!(undelivered(text, 9), None);
    }

    #[test]
    fn what_was_there_before_comes_in_parts_and_before_what_ended_since() {
        let ends = [SocketAddr::from(([10, 0, 0, 2], 1)), SocketAddr::from(([10, 0, 0, 3], 2))];
        let one = Translation { protocol: 6, before: ends, after: [ends[1], ends[0]], is_over: false };
        let Ok(socket) = netlink::open(rustix::net::netlink::NETFILTER) else {
            return eprintln!("SKIPPED: no netfilter");
        };
        let mut conntrack = Conntrack {
            socket,
            counted: (PathBuf::new(), 0),
            first: vec![one; FIRST_AT_ONCE + 1],
            waiting: vec![Translation { is_over: true, ..one }],
            left_out: 0,
            undelivered: 0,
            has_missed: false,
        };
        let mut parts = Vec::new();
        for _ in 0..3 {
            let mut part = Vec::new();
            conntrack.read(&mut part);
            parts.push((part.len(), part.iter().any(|one| one.is_over)));
        }
        assert_eq!(parts, [(FIRST_AT_ONCE, false), (1, false), (1, true)]);
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
            let _ = parse(&whole[..at]);
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = parse(&damaged);
            }
        }
    }
}
