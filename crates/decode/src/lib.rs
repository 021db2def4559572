//! Decodes a packet to the endpoints of its innermost session.
//!
//! [`decode`] never fails and never panics. It returns the fields that it decoded and, in [`Decoded::stop`], the reason
//! why it stopped. It reads headers only and allocates nothing.
//!
//! Each layer has one function, in `link`, `network`, `transport`, `tunnel` and so on. A function validates its header
//! before it writes to [`Decoded`], so that the result keeps the endpoints of the enclosing layer when a layer cannot
//! be decoded. A loop goes from layer to layer, bounded by a counter. The module `plain` decodes the most frequent
//! headers without the loop. No function indexes a slice: headers are read as arrays after one length
//! check.
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

/// The kind of a session's endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Network {
    /// Link-layer addresses (48 bits, or 0 if the link has none). `ethertype` is the protocol.
    #[default]
    Link = 0,
    /// IPv4 addresses, in the low 32 bits.
    Ipv4 = 4,
    /// IPv6 addresses.
    Ipv6 = 6,
}

/// The reason why decoding stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stop {
    /// All headers up to the transport header were decoded.
    #[default]
    Complete = 0,
    /// The captured bytes end inside a header.
    Truncated,
    /// A header is inconsistent with itself or with the packet's length.
    Malformed,
    /// The packet has more nested headers than [`MAX_DEPTH`].
    TooDeep,
    /// The link type or protocol is not supported. The enclosing layers were decoded.
    Unknown,
}

/// A fragment of an IP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// The identification of the datagram (16 bits in IPv4, 32 in IPv6).
    pub id: u32,
    /// Whether this is the fragment at offset 0, the only one with the start of the transport header.
    pub first: bool,
}

/// The decoded headers of a packet, in the direction of the packet.
///
/// Addresses, ports and protocol are those of the innermost session that was decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The kind of the addresses.
    pub network: Network,
    /// IP protocol number of the transport; 0 for [`Network::Link`].
    pub protocol: u8,
    /// TCP flags (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32); 0 without a TCP header.
    pub tcp_flags: u8,
    /// The number of VLAN tags, tunnels and labels that were entered.
    pub depth: u8,
    /// The reason why decoding stopped.
    pub stop: Stop,
    /// Ethertype of the innermost link-layer payload; 0 if the link layer has none.
    pub ethertype: u16,
    /// The sender's address.
    pub source: u128,
    /// The receiver's address.
    pub destination: u128,
    /// The sender's port. For ICMP, the message type, as in Community ID v1.
    pub source_port: u16,
    /// The receiver's port. For ICMP, the type of the reply, or the code if there is no reply type, as in Community ID
    /// v1.
    pub destination_port: u16,
    /// True if a session lookup must not swap sender and receiver: ICMP without a reply type.
    pub one_way: bool,
    /// The outermost VLAN id (12 bits) of the outermost frame; `None` without a tag.
    pub vlan: Option<u16>,
    /// The second VLAN id (QinQ).
    pub inner_vlan: Option<u16>,
    /// A hash of kind and id (VNI, key, session id) of every enclosing tunnel; 0 outside tunnels. The hash keeps the
    /// sessions of two tenants with equal addresses apart. Ids that differ by direction (the TEID of GTP-U, the call id
    /// of PPTP) are not part of the hash, because they would split a session in two.
    pub tunnel: u32,
    /// The fragment, for fragments of IP datagrams. In nested IP headers, the innermost fragmented datagram counts.
    pub fragment: Option<Fragment>,
    /// An identifier that all fragments of one datagram share; 0 without fragments. It is a hash of the addresses,
    /// protocol and identification in the IP header of [`fragment`](Self::fragment). The first fragment may contain a
    /// tunnel's inner headers, so its decoded addresses may differ from those of later fragments. This identifier joins
    /// them.
    pub datagram: u64,
    /// TCP sequence number; 0 without a TCP header.
    pub tcp_sequence: u32,
    /// The offset of the transport payload in the captured bytes; 0 if nothing was decoded.
    pub payload_offset: u32,
    /// The length of the transport payload on the wire in bytes, according to the headers.
    pub payload_len: u32,
}

/// The maximum number of nested VLAN tags, labels, extension headers and tunnels. More of them end with
/// [`Stop::TooDeep`].
pub const MAX_DEPTH: u8 = 32;

/// Decodes the headers of one packet.
///
/// `data` holds the captured bytes. It may be shorter than the headers claim, and it may be empty.
#[inline(always)]
pub fn decode(link_type: LinkType, data: &[u8]) -> Decoded {
    // The decoders write directly to the result. Copying it would stall until all narrow stores before it complete.
    let mut decoded = Decoded::default();
    if link_type != LinkType::ETHERNET || plain::read(data, &mut decoded).is_none() {
        walk(link_type, data, &mut decoded);
    }
    decoded
}

/// Returns whether this link type is supported. Packets of other link types have bytes and times only.
pub fn opens(link_type: LinkType) -> bool {
    link::outermost(link_type).is_continue()
}

/// Decodes any packet, layer by layer.
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

/// Decodes one layer.
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

/// The next layer, or the reason to stop.
type Step<T = Layer> = ControlFlow<Stop, T>;

/// The state of decoding, layer by layer.
struct Walk<'a> {
    /// Captured bytes not decoded yet, at most up to the end of the current layer.
    rest: &'a [u8],
    /// Bytes of that layer that follow `rest` on the wire and were not captured.
    missing: usize,
    /// Whether a header states the end of that layer. Otherwise the layer ends with the captured bytes.
    bounded: bool,
    /// Offset of `rest` in the captured bytes.
    offset: usize,
    /// The number of layers counted against [`MAX_DEPTH`].
    opened: u8,
    /// Like [`Decoded::tunnel`], and includes tunnels whose inner headers are not decoded yet.
    tunnel: u32,
    /// The result so far.
    decoded: &'a mut Decoded,
}

impl<'a> Walk<'a> {
    fn new(data: &'a [u8], decoded: &'a mut Decoded) -> Self {
        Self { rest: data, missing: 0, bounded: false, offset: 0, opened: 0, tunnel: 0, decoded }
    }

    /// Returns the next `N` bytes without consuming them.
    #[inline]
    fn peek<const N: usize>(&self) -> Step<&'a [u8; N]> {
        match self.rest.first_chunk() {
            Some(header) => Step::Continue(header),
            None => Step::Break(self.short_of(N)),
        }
    }

    /// Consumes and returns the next `N` bytes.
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

    /// Skips the next `len` bytes.
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

    /// Returns the reason why a header of `len` bytes is incomplete.
    #[cold]
    fn short_of(&self, len: usize) -> Stop {
        if self.bounded && self.wire_len() < len && self.decoded.fragment.is_none() {
            Stop::Malformed
        } else {
            Stop::Truncated
        }
    }

    /// Returns the number of bytes on the wire from here to the end of the layer.
    #[inline]
    fn wire_len(&self) -> usize {
        self.rest.len() + self.missing
    }

    /// Limits the layer to `len` bytes from here, or to the end of the enclosing layer, whichever is less.
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

    /// Marks the current position as the start of the payload.
    #[inline]
    fn mark_payload(&mut self) {
        self.decoded.payload_offset = saturate(self.offset);
        self.decoded.payload_len = saturate(self.wire_len());
    }

    /// Marks the payload after a transport header of `len` bytes, which may be incomplete.
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

    /// Counts one more header that can be nested without limit.
    fn count_layer(&mut self) -> Step<()> {
        if self.opened >= MAX_DEPTH {
            return Step::Break(Stop::TooDeep);
        }
        self.opened += 1;
        Step::Continue(())
    }

    /// Enters a tag or label.
    fn open_label(&mut self) -> Step<()> {
        self.count_layer()?;
        self.decoded.depth += 1;
        Step::Continue(())
    }

    /// Enters a tunnel. The next decoded endpoints are inside it.
    fn open_tunnel(&mut self, kind: tunnel::Kind, id: u32) -> Step<()> {
        self.open_label()?;
        self.tunnel = tunnel::mix(self.tunnel, kind, id);
        Step::Continue(())
    }

    /// Records the endpoints of a decoded link or network layer as the innermost ones.
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

/// Converts a length to 32 bits. Lengths of packets always fit.
#[inline]
fn saturate(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
