//! The result of decoding.

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
