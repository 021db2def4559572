//! Decodes a packet, layer by layer.

use std::ops::ControlFlow;

use super::decoded::{Decoded, Stop};
use super::layer::{Layer, Step};
use super::walk::{Walk, saturate};
use super::{link, link_type, network, plain, tags, transport, tunnel, udp_tunnel, wan, wireless, wrapped};
use base::packet::LinkType;

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
    link_type::outermost(link_type).is_continue()
}

/// Decodes any packet, layer by layer.
pub(super) fn walk(link_type: LinkType, data: &[u8], decoded: &mut Decoded) {
    *decoded = Decoded { payload_len: saturate(data.len()), ..Decoded::default() };
    decoded.stop = walk_over(link_type, Walk::new(data, decoded));
}

#[inline]
fn walk_over(link_type: LinkType, mut walk: Walk<'_>) -> Stop {
    let mut step = link_type::outermost(link_type);
    loop {
        step = match step {
            ControlFlow::Continue(layer) => enter(layer, &mut walk),
            ControlFlow::Break(stop) => return stop,
        };
    }
}

/// Decodes one layer.
#[inline(always)]
pub(super) fn enter(layer: Layer, walk: &mut Walk<'_>) -> Step {
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
        layer => enter_rare(layer, walk),
    }
}

/// Decodes one layer that is rare in captures.
#[cold]
fn enter_rare(layer: Layer, walk: &mut Walk<'_>) -> Step {
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
        Layer::L2tpV3 => udp_tunnel::l2tp_v3(walk),
        Layer::Gue => udp_tunnel::gue(walk),
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
        Layer::Batman => tags::batman(walk),
        Layer::Pim => tunnel::pim(walk),
        Layer::PortsOnly => transport::ports_only(walk),
        Layer::MplsInIp => tunnel::mpls_in_ip(walk),
        Layer::EthernetInIp => tunnel::ethernet_in_ip(walk),
        // `enter` handles the other layers.
        _ => Step::Break(Stop::Unknown),
    }
}
