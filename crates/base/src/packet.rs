//! A captured packet and its metadata, before decoding.

use crate::time::Timestamp;

/// A link type of the tcpdump.org registry (`LINKTYPE_*`), as written in capture files.
///
/// Packets of unknown link types are recorded and exported unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: a four-byte address family in the writer's byte order, then the packet.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// Raw IP, as numbered by writers that use the platform's DLT value.
    pub const RAW_DLT: Self = Self(12);
    /// Raw IP, with OpenBSD's DLT value.
    pub const RAW_DLT_OPENBSD: Self = Self(14);
    /// Raw IPv4 or IPv6; the version nibble tells which.
    pub const RAW: Self = Self(101);
    /// OpenBSD loopback: a four-byte address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux "cooked" capture, 16-byte header.
    pub const LINUX_SLL: Self = Self(113);
    /// Raw IPv4.
    pub const IPV4: Self = Self(228);
    /// Raw IPv6.
    pub const IPV6: Self = Self(229);
    /// Linux "cooked" capture, 20-byte header with the interface index.
    pub const LINUX_SLL2: Self = Self(276);

    /// The name that libpcap prints for the link type (`tcpdump -L`). `None` if this table lacks it.
    pub fn known_name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "NULL",
            1 => "EN10MB",
            6 => "IEEE802",
            8 => "SLIP",
            9 => "PPP",
            10 => "FDDI",
            12 | 14 | 101 => "RAW",
            50 => "PPP_SERIAL",
            51 => "PPP_ETHER",
            104 => "C_HDLC",
            105 => "IEEE802_11",
            107 => "FRELAY",
            108 => "LOOP",
            113 => "LINUX_SLL",
            119 => "PRISM_HEADER",
            122 => "IP_OVER_FC",
            127 => "IEEE802_11_RADIO",
            138 => "APPLE_IP_OVER_IEEE1394",
            187 => "BLUETOOTH_HCI_H4",
            189 => "USB_LINUX",
            190 => "CAN20B",
            192 => "PPI",
            195 => "IEEE802_15_4_WITHFCS",
            220 => "USB_LINUX_MMAPPED",
            227 => "CAN_SOCKETCAN",
            228 => "IPV4",
            229 => "IPV6",
            239 => "NFLOG",
            247 => "INFINIBAND",
            253 => "NETLINK",
            276 => "LINUX_SLL2",
            _ => return None,
        })
    }
}

impl std::fmt::Display for LinkType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.known_name() {
            Some(name) => f.write_str(name),
            None => write!(f, "LINKTYPE_{}", self.0),
        }
    }
}

/// The direction in which a packet crossed its interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// The source does not state the direction.
    #[default]
    Unknown = 0,
    /// Received by this host.
    In = 1,
    /// Sent by this host.
    Out = 2,
}

/// Offload flags of a packet, as the source states them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PacketFlags {
    /// The network card still had to compute a checksum of this packet.
    pub checksum_not_ready: bool,
    /// The packet represents several on the wire, which the network card has merged or will split (TSO, GRO).
    pub segmentation_offload: bool,
}

/// The index of an entry in the [`Interfaces`](crate::interface::Interfaces) table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u16);

/// One captured packet, which borrows its bytes from the source.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Capture time.
    pub time: Timestamp,
    /// Interface on which the packet was captured.
    pub interface: InterfaceId,
    /// Link type, which determines the first header.
    pub link_type: LinkType,
    /// Direction of the packet.
    pub direction: Direction,
    /// Offload flags from the source.
    pub flags: PacketFlags,
    /// Bytes on the wire; at least `data.len()`, unless a capture file is wrong.
    pub original_len: u32,
    /// Packets that the kernel dropped between the previous packet and this one.
    pub drops_before: u32,
    /// The captured bytes.
    pub data: &'a [u8],
}
