//! The supported layers, and the decoding of rare ones.

use super::{Step, Stop, Walk, tags, transport, tunnel, udp_tunnel, wan, wireless, wrapped};

/// Decodes one layer that is rare in captures.
#[cold]
pub(super) fn enter_rare(layer: Layer, walk: &mut Walk<'_>) -> Step {
    match layer {
        Layer::Serial => wan::serial(walk),
        Layer::CiscoHdlc => wan::cisco_hdlc(walk),
        Layer::PppPppd => wan::ppp_pppd(walk),
        Layer::FrameRelay => wan::frame_relay(walk),
        Layer::Atm => wan::atm(walk),
        Layer::SunAtm => wan::sun_atm(walk),
        Layer::Fddi => wan::fddi(walk),
        Layer::TokenRing => wan::token_ring(walk),
        Layer::FibreChannel => wan::fibre_channel(walk),
        Layer::Firewire => wan::firewire(walk),
        Layer::Infiniband => wan::ip_over_infiniband(walk),
        Layer::Docsis => wan::docsis(walk),
        Layer::Ieee80211(layout) => wireless::ieee_802_11(walk, layout),
        Layer::Ieee80211Swapped => wireless::swapped(walk),
        Layer::Radiotap => wireless::radiotap(walk),
        Layer::PrismOrAvs => wireless::prism_or_avs(walk),
        Layer::Nflog => wrapped::nflog(walk),
        Layer::Ppi => wrapped::ppi(walk),
        Layer::Pktap => wrapped::pktap(walk),
        Layer::Erf => wrapped::erf(walk),
        Layer::Pflog => wrapped::pflog(walk),
        Layer::Enc => wrapped::enc(walk),
        Layer::Ipnet => wrapped::ipnet(walk),
        Layer::Mpacket => wrapped::mpacket(walk),
        Layer::SwitchTagged(bytes) => wrapped::switch_tagged(walk, bytes),
        Layer::ExportedPdu => wrapped::exported_pdu(walk),
        Layer::RawIpBehind(bytes) => wrapped::raw_ip(walk, bytes.into()),
        Layer::Behind(bytes, next) => {
            walk.skip(bytes.into())?;
            Step::Continue(next.layer())
        }
        Layer::MplsInUdp => udp_tunnel::mpls(walk),
        Layer::GreInUdp => udp_tunnel::gre(walk),
        Layer::Tzsp => udp_tunnel::tzsp(walk),
        Layer::Teredo => udp_tunnel::teredo(walk),
        Layer::L2tp => udp_tunnel::l2tp(walk),
        Layer::Capwap => udp_tunnel::capwap(walk),
        Layer::Lisp => udp_tunnel::lisp(walk),
        Layer::BackboneTag => tags::backbone_tag(walk),
        Layer::MacSec => tags::macsec(walk),
        Layer::Trill => tags::trill(walk),
        Layer::Nsh => tags::nsh(walk),
        Layer::FabricPath => tags::fabric_path(walk),
        Layer::FixedTag => tags::fixed_tag(walk),
        Layer::EtherIp => tags::ether_ip(walk),
        Layer::Wccp => tags::wccp(walk),

        Layer::PortsOnly => transport::ports_only(walk),
        Layer::MplsInIp => tunnel::mpls_in_ip(walk),
        // `enter` handles the other layers.
        _ => Step::Break(Stop::Unknown),
    }
}

/// The layer after a header of fixed length that does not name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ethernet,
    Ppp,
    CiscoHdlc,
    FrameRelay,
}

impl Next {
    fn layer(self) -> Layer {
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
    Ieee80211(wireless::Layout),
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

    MplsInIp,
    PortsOnly,
}

/// The IP version inside a tunnel whose header has no field for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}
