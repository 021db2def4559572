//! The outermost layer of packets of a link type.

use super::decoded::Stop;
use super::layer::{Layer, Layout, Next, Step};
use base::packet::LinkType;

/// PPP, with or without the HDLC address and control bytes.
pub(super) const PPP: LinkType = LinkType(9);

/// Returns the outermost layer of packets of a link type.
#[inline]
pub(super) fn outermost(link_type: LinkType) -> Step {
    Step::Continue(match link_type {
        LinkType::ETHERNET => Layer::Ethernet,
        LinkType::LINUX_SLL => Layer::LinuxSll,
        LinkType::LINUX_SLL2 => Layer::LinuxSll2,
        LinkType::RAW | LinkType::RAW_DLT | LinkType::RAW_DLT_OPENBSD => Layer::Ip,
        LinkType::IPV4 => Layer::Ipv4,
        LinkType::IPV6 => Layer::Ipv6,
        LinkType::NULL | LinkType::LOOP => Layer::Loopback,
        PPP => Layer::Ppp,
        LinkType(number) => return by_rare_number(number),
    })
}

/// Returns the outermost layer for rare link types of the tcpdump.org registry.
#[cold]
fn by_rare_number(number: u16) -> Step {
    Step::Continue(match number {
        6 => Layer::TokenRing,
        8 => Layer::RawIpBehind(16),
        10 => Layer::Fddi,
        50 => Layer::Serial,
        51 => Layer::Pppoe,
        100 | 106 => Layer::Atm,
        // SLIP and PPP of BSD/OS.
        102 | 103 => Layer::RawIpBehind(24),
        104 => Layer::CiscoHdlc,
        105 => Layer::Ieee80211(Layout::PLAIN),
        107 => Layer::FrameRelay,
        109 => Layer::Enc,
        117 => Layer::Pflog,
        119 | 163 => Layer::PrismOrAvs,
        122 => Layer::FibreChannel,
        123 => Layer::SunAtm,
        127 => Layer::Radiotap,
        138 => Layer::Firewire,
        143 => Layer::Docsis,
        166 => Layer::PppPppd,
        192 => Layer::Ppi,
        197 => Layer::Erf,
        // A direction byte precedes these.
        204 => Layer::Behind(1, Next::Ppp),
        205 => Layer::Behind(1, Next::CiscoHdlc),
        206 => Layer::Behind(1, Next::FrameRelay),
        219 => Layer::Mpls,
        226 => Layer::Ipnet,
        239 => Layer::Nflog,
        // netANALYZER; the second one includes the preamble.
        240 => Layer::Behind(4, Next::Ethernet),
        241 => Layer::Behind(12, Next::Ethernet),
        242 => Layer::Infiniband,
        252 => Layer::ExportedPdu,
        258 => Layer::Pktap,
        274 => Layer::Mpacket,
        // The tags of Broadcom, after and before the addresses, and of Marvell, in two sizes.
        281 | 284 => Layer::SwitchTagged(4),
        282 => Layer::Behind(4, Next::Ethernet),
        285 => Layer::SwitchTagged(8),
        _ => return Step::Break(Stop::Unknown),
    })
}
