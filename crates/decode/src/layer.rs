//! The supported layers.

use std::ops::ControlFlow;

use super::decoded::Stop;

/// The next layer, or the reason to stop.
pub(super) type Step<T = Layer> = ControlFlow<Stop, T>;

/// The layer after a header of fixed length that does not name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ethernet,
    Ppp,
    CiscoHdlc,
    FrameRelay,
}

impl Next {
    pub(super) fn layer(self) -> Layer {
        match self {
            Self::Ethernet => Layer::Ethernet,
            Self::Ppp => Layer::Ppp,
            Self::CiscoHdlc => Layer::CiscoHdlc,
            Self::FrameRelay => Layer::FrameRelay,
        }
    }
}

/// The layer that the next bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Ethernet,
    Vlan,
    LinuxSll,
    LinuxSll2,
    Loopback,
    Llc,
    Ppp,
    /// IPv4 or IPv6, according to the version field.
    Ip,
    Ipv4,
    Ipv6,
    /// An IPv6 extension header of the common form.
    Extension,
    Ipv6Fragment,
    Authentication,
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
    IpInIp(IpVersion),
    Mpls,
    Pppoe,
    Gre,
    Vxlan,
    Geneve,
    GtpU,
    Serial,
    CiscoHdlc,
    PppPppd,
    FrameRelay,
    Atm,
    SunAtm,
    Fddi,
    TokenRing,
    FibreChannel,
    Firewire,
    Infiniband,
    Docsis,
    Ieee80211(Layout),
    Ieee80211Swapped,
    Radiotap,
    PrismOrAvs,
    Nflog,
    Ppi,
    Pktap,
    Erf,
    Pflog,
    Enc,
    Ipnet,
    Mpacket,
    /// Ethernet with a switch tag of this many bytes after the addresses.
    SwitchTagged(u8),
    ExportedPdu,
    /// IPv4 or IPv6 after this many bytes.
    RawIpBehind(u8),
    /// A header of this many bytes that does not name the next layer.
    Behind(u8, Next),
    MplsInUdp,
    GreInUdp,
    Tzsp,
    Teredo,
    L2tp,
    /// L2TP version 3 in IP. In UDP, its header follows the one of version 2.
    L2tpV3,
    Gue,
    Capwap,
    Lisp,
    BackboneTag,
    MacSec,
    Trill,
    Nsh,
    FabricPath,
    FixedTag,
    EtherIp,
    Wccp,
    Batman,
    Pim,
    MplsInIp,
    EthernetInIp,
    PortsOnly,
}

/// The IP version inside a tunnel whose header has no field for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}

/// The layout of an 802.11 frame after its capture header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether the payload starts at a multiple of four bytes from the start of the frame.
    pub(super) padded: bool,
    /// The size of the frame check sequence at the end, in bytes.
    pub(super) fcs_bytes: u8,
}

impl Layout {
    /// A frame without padding or frame check sequence.
    pub(super) const PLAIN: Self = Self { padded: false, fcs_bytes: 0 };
}
