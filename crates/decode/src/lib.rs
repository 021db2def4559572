//! From the bytes of a packet to the endpoints of its innermost session.
//!
//! [`decode`] never fails and never panics: it returns what it understood and, in [`Decoded::stop`], why it went no
//! further. It reads headers only, allocates nothing, and goes back to no byte.
//!
//! One layer a function: `link`, `network`, `transport`, `tunnel`. A function checks that its header is there and
//! makes sense, and only then writes to [`Decoded`] what the header says; so when a layer cannot be read, the result
//! still holds the endpoints of the one around it. A loop goes from layer to layer, and a counter bounds it; the headers
//! that most packets have are read without it, in `plain`. No function indexes a slice: headers are taken as arrays whose
//! length was checked once.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;

use base::packet::LinkType;
pub use encapsulation::{Encapsulations, encapsulations, network_offset};
use layer::{IpVersion, Layer, Next};

mod encapsulation;
mod layer;
mod link;
pub mod names;
mod network;
mod plain;
mod tags;
pub mod text;
mod transport;
mod tunnel;
mod udp_tunnel;
mod wan;
mod wireless;
mod wrapped;

#[cfg(test)]
mod frames;
#[cfg(test)]
mod tests;

/// What kind of endpoints a session has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Network {
    /// Link-layer addresses (48 bit, or 0 where the link has none); `ethertype` tells the protocol.
    #[default]
    Link = 0,
    /// IPv4 addresses, in the low 32 bits.
    Ipv4 = 4,
    /// IPv6 addresses.
    Ipv6 = 6,
}

/// Why decoding ended where it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stop {
    /// All headers up to the transport were understood.
    #[default]
    Complete = 0,
    /// The captured bytes end within a header.
    Truncated,
    /// A header contradicts itself or the packet's length.
    Malformed,
    /// More nested headers than [`MAX_DEPTH`].
    TooDeep,
    /// A link type or protocol this decoder does not read; what encloses it was understood.
    Unknown,
}

/// Part of a fragmented IP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// The datagram's identification (16 bit in IPv4, 32 in IPv6).
    pub id: u32,
    /// Whether this is the fragment at offset zero, the only one with the transport header.
    pub first: bool,
}

/// What the headers of a packet say, sender first.
///
/// Addresses, ports and protocol are those of the innermost session that could be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// What the addresses are.
    pub network: Network,
    /// IP protocol number of the transport (0 for [`Network::Link`]).
    pub protocol: u8,
    /// TCP flags byte (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32), 0 where there is no TCP header.
    pub tcp_flags: u8,
    /// VLAN tags, tunnels and labels that were opened on the way.
    pub depth: u8,
    /// Why decoding ended.
    pub stop: Stop,
    /// Ethertype of the innermost link-layer payload (0 where the link has none).
    pub ethertype: u16,
    /// Sender's address.
    pub source: u128,
    /// Receiver's address.
    pub destination: u128,
    /// Sender's port. For ICMP as Community ID v1 has it: the type.
    pub source_port: u16,
    /// Receiver's port. For ICMP as Community ID v1 has it: the answering type where there is one, else the code.
    pub destination_port: u16,
    /// Set where sender and receiver must not be swapped to find the session: ICMP without an answering type.
    pub one_way: bool,
    /// The outermost VLAN id (12 bit), of the outermost frame; `None` without a tag.
    pub vlan: Option<u16>,
    /// The VLAN id below it (QinQ).
    pub inner_vlan: Option<u16>,
    /// 0 outside tunnels; inside, a mix of kind and id (VNI, key, session id) of every tunnel opened, so that equal
    /// addresses of two tenants stay two sessions. Ids that each direction chooses for itself (the TEID of GTP-U, the
    /// call id of PPTP) are left out: they would tear a session in two.
    pub tunnel: u32,
    /// Set for fragments of IP datagrams: the innermost datagram that is fragmented.
    pub fragment: Option<Fragment>,
    /// The same number for all fragments of one datagram: a mix of the addresses, protocol and identification of the IP
    /// header that [`fragment`](Self::fragment) speaks of; 0 without fragments. The first fragment can reach into a tunnel,
    /// so that its addresses are not those of the later ones; this number joins them.
    pub datagram: u64,
    /// TCP sequence number, where there is a TCP header.
    pub tcp_sequence: u32,
    /// Where the transport's payload begins in the captured bytes; where nothing was understood, 0.
    pub payload_offset: u32,
    /// Bytes of transport payload on the wire, as the headers say.
    pub payload_len: u32,
}

/// VLAN tags, labels, extension headers and tunnels that are opened at most; deeper ones end with [`Stop::TooDeep`].
pub const MAX_DEPTH: u8 = 32;

/// Reads the headers of one packet.
///
/// `data` are its captured bytes; it can be shorter than what its headers claim, and empty.
#[inline(always)]
pub fn decode(link_type: LinkType, data: &[u8]) -> Decoded {
    // Whatever reads headers writes them where the caller wants them: a copy would wait for all the narrow writes before it.
    let mut decoded = Decoded::default();
    if link_type != LinkType::ETHERNET || plain::read(data, &mut decoded).is_none() {
        walk(link_type, data, &mut decoded);
    }
    decoded
}

/// Whether headers of this link type are read. Of the packets of others only bytes and times are known.
pub fn opens(link_type: LinkType) -> bool {
    link::outermost(link_type).is_continue()
}

/// Goes from layer to layer, whatever they are.
fn walk(link_type: LinkType, data: &[u8], decoded: &mut Decoded) {
    *decoded = Decoded { payload_len: saturate(data.len()), ..Decoded::default() };
    decoded.stop = walk_over(link_type, Walk::new(data, decoded));
}

#[inline]
fn walk_over(link_type: LinkType, mut walk: Walk<'_>) -> Stop {
    let mut step = link::outermost(link_type);
    loop {
        step = match step {
            ControlFlow::Continue(layer) => enter(layer, &mut walk),
            ControlFlow::Break(stop) => return stop,
        };
    }
}

/// Reads the headers of one layer.
#[inline(always)]
fn enter(layer: Layer, walk: &mut Walk<'_>) -> Step {
    match layer {
        Layer::Ethernet => link::ethernet(walk),
        Layer::Ipv4 => network::ipv4(walk),
        Layer::Ipv6 => network::ipv6(walk),
        Layer::Tcp => transport::tcp(walk),
        Layer::Udp => transport::udp(walk),
        Layer::Vlan => link::vlan(walk),
        Layer::LinuxSll => link::linux_sll(walk),
        Layer::LinuxSll2 => link::linux_sll2(walk),
        Layer::Loopback => link::loopback(walk),
        Layer::Llc => link::llc(walk),
        Layer::Ppp => link::ppp(walk),
        Layer::Ip => network::ip(walk),
        Layer::Extension => network::extension(walk),
        Layer::Ipv6Fragment => network::ipv6_fragment(walk),
        Layer::Authentication => network::authentication(walk),
        Layer::Sctp => transport::sctp(walk),
        Layer::Icmp => transport::icmp(walk),
        Layer::Icmpv6 => transport::icmpv6(walk),
        Layer::IpInIp(inner) => tunnel::ip_in_ip(walk, inner),
        Layer::Mpls => tunnel::mpls(walk),
        Layer::Pppoe => tunnel::pppoe(walk),
        Layer::Gre => tunnel::gre(walk),
        Layer::Vxlan => tunnel::vxlan(walk),
        Layer::Geneve => tunnel::geneve(walk),
        Layer::GtpU => tunnel::gtp_u(walk),
        layer => layer::enter_rare(layer, walk),
    }
}

/// On to the next layer, or why not.
type Step<T = Layer> = ControlFlow<Stop, T>;

/// Where the walk over the layers is.
struct Walk<'a> {
    /// Captured bytes not yet read, at most up to the end of the layer they lie in.
    rest: &'a [u8],
    /// Bytes of that layer that were on the wire behind `rest`, but not captured.
    missing: usize,
    /// Whether a header has said where that layer ends; else it ends with what was captured.
    bounded: bool,
    /// Where `rest` begins in the captured bytes.
    offset: usize,
    /// Layers counted against [`MAX_DEPTH`].
    opened: u8,
    /// As [`Decoded::tunnel`], including tunnels whose inside is not understood yet.
    tunnel: u32,
    /// What is understood so far.
    decoded: &'a mut Decoded,
}

impl<'a> Walk<'a> {
    fn new(data: &'a [u8], decoded: &'a mut Decoded) -> Self {
        Self { rest: data, missing: 0, bounded: false, offset: 0, opened: 0, tunnel: 0, decoded }
    }

    /// The next `N` bytes, which stay unread.
    #[inline]
    fn peek<const N: usize>(&self) -> Step<&'a [u8; N]> {
        match self.rest.first_chunk() {
            Some(header) => Step::Continue(header),
            None => Step::Break(self.short_of(N)),
        }
    }

    /// The next `N` bytes.
    #[inline]
    fn take<const N: usize>(&mut self) -> Step<&'a [u8; N]> {
        match self.rest.split_first_chunk() {
            Some((header, rest)) => {
                self.rest = rest;
                self.offset += N;
                Step::Continue(header)
            }
            None => Step::Break(self.short_of(N)),
        }
    }

    /// Passes over the next `len` bytes.
    #[inline]
    fn skip(&mut self, len: usize) -> Step<()> {
        match self.rest.get(len..) {
            Some(rest) => {
                self.rest = rest;
                self.offset += len;
                Step::Continue(())
            }
            None => Step::Break(self.short_of(len)),
        }
    }

    /// Why a header of `len` bytes is not there.
    #[cold]
    fn short_of(&self, len: usize) -> Stop {
        if self.bounded && self.wire_len() < len && self.decoded.fragment.is_none() {
            Stop::Malformed
        } else {
            Stop::Truncated
        }
    }

    /// Bytes on the wire from here to the end of the layer.
    #[inline]
    fn wire_len(&self) -> usize {
        self.rest.len() + self.missing
    }

    /// Ends the layer `len` bytes from here, or where the layer around it ends, whichever comes first.
    #[inline]
    fn limit(&mut self, len: usize) {
        if let Some(rest) = self.rest.get(..len) {
            self.rest = rest;
            self.missing = 0;
        } else {
            let beyond = len - self.rest.len();
            self.missing = if self.bounded { self.missing.min(beyond) } else { beyond };
        }
        self.bounded = true;
    }

    /// Notes that what is understood so far has its payload here.
    #[inline]
    fn mark_payload(&mut self) {
        self.decoded.payload_offset = saturate(self.offset);
        self.decoded.payload_len = saturate(self.wire_len());
    }

    /// Notes that the payload comes after the `len` bytes of a transport header of which only the start may be there.
    #[inline]
    fn mark_payload_after(&mut self, len: usize) -> Step<()> {
        if let Step::Break(stop) = self.skip(len) {
            self.decoded.payload_offset = saturate(self.offset + self.rest.len());
            self.decoded.payload_len = saturate(self.wire_len().saturating_sub(len));
            return Step::Break(stop);
        }
        self.mark_payload();
        Step::Continue(())
    }

    /// Counts one more header of those that can be nested without end.
    fn count_layer(&mut self) -> Step<()> {
        if self.opened >= MAX_DEPTH {
            return Step::Break(Stop::TooDeep);
        }
        self.opened += 1;
        Step::Continue(())
    }

    /// Opens a tag or label.
    fn open_label(&mut self) -> Step<()> {
        self.count_layer()?;
        self.decoded.depth += 1;
        Step::Continue(())
    }

    /// Opens a tunnel: the next endpoints that are understood lie in it.
    fn open_tunnel(&mut self, kind: tunnel::Kind, id: u32) -> Step<()> {
        self.open_label()?;
        self.tunnel = tunnel::mix(self.tunnel, kind, id);
        Step::Continue(())
    }

    /// A network or link layer was understood: its endpoints are the innermost ones now.
    #[inline]
    fn understood(&mut self, network: Network, protocol: u8, source: u128, destination: u128) {
        let decoded = &mut *self.decoded;
        decoded.network = network;
        decoded.protocol = protocol;
        decoded.source = source;
        decoded.destination = destination;
        decoded.source_port = 0;
        decoded.destination_port = 0;
        decoded.tunnel = self.tunnel;
        self.mark_payload();
    }
}

/// Lengths of packets fit 32 bits by far; a longer slice is no packet.
#[inline]
fn saturate(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
