//! Lists the host's interfaces, and parses the kernel's reports about their changes.
//!
//! Both use rtnetlink (rtnetlink(7), `include/uapi/linux/rtnetlink.h`). The parser is written by hand, reads only the
//! attributes it needs, and never panics, so that a message which a newer kernel extends does not hide an interface.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::link_layer::link_type;
use super::selection::Link;
use base::packet::LinkType;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
pub(super) const RTMGRP_LINK: u32 = 1;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;

/// The size in bytes of the read buffer. The kernel sends dumps in parts of at most 32 KiB.
pub(super) const BUFFER_BYTES: usize = 64 << 10;
/// The requested size in bytes of the socket's receive buffer, so that bursts of changes fit.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// The maximum number of attempts at a dump that interface changes interrupt.
const DUMP_TRIES: usize = 5;
/// The timeout for one part of a dump.
const DUMP_TIMEOUT: Duration = Duration::from_secs(5);

/// An interface of this host, as `retrocap interfaces` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// The name.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// The link type of its packets.
    pub link_type: LinkType,
    /// The `ARPHRD_*` type.
    pub hatype: u16,
    /// Whether the interface is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether the interface is operational, as with a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// Whether the interface is the loopback interface (`IFF_LOOPBACK`).
    pub loopback: bool,
    /// The link-layer address, if it has six bytes.
    pub mac: Option<[u8; 6]>,
    /// The IP addresses, each with its prefix length in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The MTU: the largest packet in bytes, without the link-layer header.
    pub mtu: u32,
    /// The alias that the administrator set (`ip link set alias`).
    pub description: Option<String>,
}

/// Lists the interfaces of the calling thread's network namespace, ordered by interface index. This needs no
/// privileges.
///
/// # Errors
///
/// Errors of the netlink socket.
pub fn list() -> io::Result<Vec<HostInterface>> {
    let socket = netlink_socket(0)?;
    let mut found = BTreeMap::new();
    dump(&socket, RTM_GETLINK, &mut found, |found, message| {
        if let Some(interface) = message.link() {
            found.insert(interface.index, interface);
        }
    })?;
    let mut addresses: Vec<(u32, IpAddr, u8)> = Vec::new();
    dump(&socket, RTM_GETADDR, &mut addresses, |addresses, message| addresses.extend(message.address()))?;
    for (index, address, prefix_len) in addresses {
        if let Some(interface) = found.get_mut(&index) {
            interface.addresses.push((address, prefix_len));
        }
    }
    Ok(found.into_values().collect())
}

/// Lists the interfaces with only the fields that an `InterfaceSelection` needs.
///
/// # Errors
///
/// Errors of the netlink socket.
pub fn links() -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    dump(&netlink_socket(0)?, RTM_GETLINK, &mut links, |links, message| links.extend(message.link().map(Link::from)))?;
    Ok(links)
}

/// Parses a netlink datagram into interfaces, each with whether it was removed.
pub fn reports(datagram: &[u8]) -> impl Iterator<Item = (HostInterface, bool)> {
    Messages(datagram).filter_map(|message| Some((message.link()?, message.kind == RTM_DELLINK)))
}

/// Parses a netlink datagram into addresses: interface index, address, prefix length in bits.
pub fn addresses(datagram: &[u8]) -> impl Iterator<Item = (u32, IpAddr, u8)> {
    Messages(datagram).filter_map(|message| message.address())
}

impl From<HostInterface> for Link {
    fn from(of: HostInterface) -> Self {
        Self { index: of.index, name: of.name, hatype: of.hatype, up: of.up, loopback: of.loopback }
    }
}

/// Opens a netlink socket that is subscribed to `groups`.
pub(super) fn netlink_socket(groups: u32) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    // Best effort: a smaller buffer may lose reports, and the next read then returns ENOBUFS and causes a new dump.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES);
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(DUMP_TIMEOUT))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Requests a dump and passes its messages to `each`. Starts again if interfaces changed during the dump.
fn dump<T: Default>(
    socket: impl AsFd,
    request: u16,
    into: &mut T,
    mut each: impl FnMut(&mut T, &Message<'_>),
) -> io::Result<()> {
    // struct nlmsghdr (length, type, flags, sequence, port), then a zeroed struct ifinfomsg, which selects every
    // family.
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&32u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&request.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    let mut buffer = vec![0; BUFFER_BYTES];
    for _ in 0..DUMP_TRIES {
        *into = T::default();
        rustix::net::send(&socket, &bytes, SendFlags::empty())?;
        let mut interrupted = false;
        'parts: loop {
            let (length, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            for message in Messages(&buffer[..length]) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => break 'parts,
                    NLMSG_ERROR => {
                        let errno = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
                    }
                    _ => each(into, &message),
                }
            }
        }
        if !interrupted {
            return Ok(());
        }
    }
    // Interfaces change continuously, so the last dump is as good as any.
    Ok(())
}

/// One netlink message.
struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

/// Iterates over the messages of a datagram, up to the first incomplete one.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header: &[u8; 16] = self.0.first_chunk()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = self.0.get(16..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind: u16::from_ne_bytes([k0, k1]), flags: u16::from_ne_bytes([f0, f1]), body })
    }
}

impl Message<'_> {
    /// Parses RTM_NEWLINK and RTM_DELLINK.
    ///
    /// Messages of an address family other than 0 (for example an interface that leaves a bridge) do not describe the
    /// interface itself.
    fn link(&self) -> Option<HostInterface> {
        if !matches!(self.kind, RTM_NEWLINK | RTM_DELLINK) {
            return None;
        }
        // struct ifinfomsg: family, padding, type, index, flags, change mask
        let [0, _, t0, t1, i0, i1, i2, i3, f0, f1, f2, f3, _, _, _, _] = *self.body.first_chunk()? else {
            return None;
        };
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let hatype = u16::from_ne_bytes([t0, t1]);
        let mut interface = HostInterface {
            name: String::new(),
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            link_type: link_type(hatype),
            hatype,
            up: flags & IFF_UP != 0,
            running: flags & IFF_RUNNING != 0,
            loopback: flags & IFF_LOOPBACK != 0,
            mac: None,
            addresses: Vec::new(),
            mtu: 0,
            description: None,
        };
        for (attribute, value) in Attributes(&self.body[16..]) {
            match attribute {
                // IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_IFALIAS
                1 => interface.mac = value.try_into().ok(),
                3 => interface.name = text(value),
                4 => interface.mtu = value.try_into().map_or(0, u32::from_ne_bytes),
                20 => interface.description = Some(text(value)).filter(|text| !text.is_empty()),
                _ => {}
            }
        }
        (!interface.name.is_empty()).then_some(interface)
    }

    /// Parses RTM_NEWADDR: interface index, address, prefix length in bits.
    fn address(&self) -> Option<(u32, IpAddr, u8)> {
        if self.kind != RTM_NEWADDR {
            return None;
        }
        // struct ifaddrmsg: family, prefix length, flags, scope, index
        let [_, prefix_len, _, _, i0, i1, i2, i3] = *self.body.first_chunk()?;
        // On point-to-point links, IFA_ADDRESS is the peer's address and IFA_LOCAL is the interface's own.
        let (mut address, mut local) = (None, None);
        for (attribute, value) in Attributes(&self.body[8..]) {
            match attribute {
                1 => address = ip(value),
                2 => local = ip(value),
                _ => {}
            }
        }
        Some((u32::from_ne_bytes([i0, i1, i2, i3]), local.or(address)?, prefix_len))
    }
}

/// Iterates over the type and value of attributes, up to the first incomplete one.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = *self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_listed() {
        let all = list().unwrap();
        let lo = all.iter().find(|interface| interface.loopback).expect("every namespace has one");
        assert_eq!((lo.name.as_str(), lo.index, lo.hatype), ("lo", 1, 772));
        assert_eq!(lo.link_type, LinkType::ETHERNET);
        assert_eq!(lo.mac, Some([0; 6]));
        assert!(lo.mtu > 0);
        assert_eq!(links().unwrap().len(), all.len());
    }

    #[test]
    fn nonsense_is_read_without_panic() {
        let mut message = Vec::new();
        message.extend_from_slice(&48u32.to_ne_bytes());
        message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
        message.extend_from_slice(&[0; 10]);
        message.extend_from_slice(&[0, 0, 1, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(&[9, 0, 3, 0]);
        message.extend_from_slice(b"eth0\0\0\0\0\0\0\0\0");
        let good = Messages(&message).next().and_then(|message| message.link()).unwrap();
        assert_eq!((good.name.as_str(), good.index, good.up), ("eth0", 5, true));
        for at in 0..message.len() {
            for value in [0, 1, 3, 15, 17, 0x7f, 0xff] {
                let mut bad = message.clone();
                bad[at] = value;
                for message in Messages(&bad).take(100) {
                    let _ = (message.link(), message.address());
                }
            }
            for message in Messages(&message[..at]) {
                let _ = (message.link(), message.address());
            }
        }
    }
}
