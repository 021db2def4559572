//! Link types: where their headers and the type of their payload lie.

use super::refusal::{Refusal, refuse};

/// An offset of a header that the link type does not have.
pub(super) const NONE: u32 = u32::MAX;

/// Link types as libpcap numbers them at run time (`DLT_*` on Linux).
pub(super) mod number {
    pub(in crate::compiler) const NULL: u16 = 0;
    pub(in crate::compiler) const ETHERNET: u16 = 1;
    pub(in crate::compiler) const TOKEN_RING: u16 = 6;
    pub(in crate::compiler) const ARCNET: u16 = 7;
    pub(in crate::compiler) const SLIP: u16 = 8;
    pub(in crate::compiler) const PPP: u16 = 9;
    pub(in crate::compiler) const FDDI: u16 = 10;
    pub(in crate::compiler) const ATM_RFC1483: u16 = 11;
    pub(in crate::compiler) const RAW: u16 = 12;
    pub(in crate::compiler) const SLIP_BSDOS: u16 = 15;
    pub(in crate::compiler) const PPP_BSDOS: u16 = 16;
    pub(in crate::compiler) const ATM_CLIP: u16 = 19;
    pub(in crate::compiler) const PPP_SERIAL: u16 = 50;
    pub(in crate::compiler) const PPP_ETHER: u16 = 51;
    pub(in crate::compiler) const SYMANTEC_FIREWALL: u16 = 99;
    pub(in crate::compiler) const CISCO_HDLC: u16 = 104;
    pub(in crate::compiler) const IEEE802_11: u16 = 105;
    pub(in crate::compiler) const FRAME_RELAY: u16 = 107;
    pub(in crate::compiler) const LOOP: u16 = 108;
    pub(in crate::compiler) const ENC: u16 = 109;
    pub(in crate::compiler) const HDLC: u16 = 112;
    pub(in crate::compiler) const LINUX_SLL: u16 = 113;
    pub(in crate::compiler) const LOCAL_TALK: u16 = 114;
    pub(in crate::compiler) const PFLOG: u16 = 117;
    pub(in crate::compiler) const PRISM: u16 = 119;
    pub(in crate::compiler) const IP_OVER_FC: u16 = 122;
    pub(in crate::compiler) const SUNATM: u16 = 123;
    pub(in crate::compiler) const RADIOTAP: u16 = 127;
    pub(in crate::compiler) const ARCNET_LINUX: u16 = 129;
    pub(in crate::compiler) const FIREWIRE: u16 = 138;
    pub(in crate::compiler) const MTP2_WITH_PHDR: u16 = 139;
    pub(in crate::compiler) const MTP2: u16 = 140;
    pub(in crate::compiler) const AVS: u16 = 163;
    pub(in crate::compiler) const BACNET_MS_TP: u16 = 165;
    pub(in crate::compiler) const PPP_PPPD: u16 = 166;
    pub(in crate::compiler) const MULTILINK_FRAME_RELAY: u16 = 182;
    pub(in crate::compiler) const PPI: u16 = 192;
    pub(in crate::compiler) const ERF: u16 = 197;
    pub(in crate::compiler) const IPNET: u16 = 226;
    pub(in crate::compiler) const IPV4: u16 = 228;
    pub(in crate::compiler) const IPV6: u16 = 229;
    pub(in crate::compiler) const NETANALYZER: u16 = 240;
    pub(in crate::compiler) const NETANALYZER_TRANSPARENT: u16 = 241;
    pub(in crate::compiler) const PFSYNC: u16 = 246;
    pub(in crate::compiler) const LINUX_SLL2: u16 = 276;

    /// The first number above which every number is known.
    pub(super) const MATCHING_MIN: u16 = 104;
    /// Juniper's link types, whose payload libpcap does not look into.
    pub(in crate::compiler) const JUNIPER: [u16; 22] =
        [130, 131, 132, 133, 134, 135, 136, 137, 164, 167, 168, 178, 179, 180, 181, 183, 194, 200, 232, 233, 234, 238];
}

/// Whether packets have an Ethernet header.
pub(super) fn is_ethernet(link: u16) -> bool {
    matches!(link, number::ETHERNET | number::NETANALYZER | number::NETANALYZER_TRANSPARENT)
}

/// Whether packets have an 802.11 header.
pub(super) fn is_802_11(link: u16) -> bool {
    matches!(link, number::IEEE802_11 | number::PRISM | number::AVS | number::RADIOTAP | number::PPI)
}

pub(super) fn is_hdlc(link: u16) -> bool {
    matches!(link, number::CISCO_HDLC | number::HDLC)
}

pub(super) fn is_arcnet(link: u16) -> bool {
    matches!(link, number::ARCNET | number::ARCNET_LINUX)
}

pub(super) fn is_juniper(link: u16) -> bool {
    number::JUNIPER.contains(&link)
}

/// Where the headers lie in packets of a link type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) link_header: u32,
    pub(super) link_header_varies: bool,
    pub(super) type_field: u32,
    pub(super) payload: u32,
    pub(super) payload_varies: bool,
    pub(super) network: u32,
    pub(super) network_without_snap: u32,
    pub(super) mtp2: Option<u32>,
}

impl Layout {
    pub(super) fn of(link: u16) -> Result<Self, Refusal> {
        // Type field, payload, network header in the payload with SNAP and without.
        let (type_field, payload, network, network_without_snap) = match link {
            number::ARCNET => (2, 6, 0, 0),
            number::ARCNET_LINUX => (4, 8, 0, 0),
            number::ETHERNET => (12, 14, 0, 3),
            number::SLIP => (NONE, 16, 0, 0),
            number::SLIP_BSDOS => (NONE, 24, 0, 0),
            number::NULL | number::LOOP => (0, 4, 0, 0),
            number::ENC => (0, 12, 0, 0),
            number::PPP | number::PPP_PPPD | number::CISCO_HDLC | number::HDLC | number::PPP_SERIAL => (2, 4, 0, 0),
            number::PPP_ETHER => (6, 8, 0, 0),
            number::PPP_BSDOS => (5, 24, 0, 0),
            number::FDDI => (13, 13, 8, 3),
            number::TOKEN_RING => (14, 14, 8, 3),
            _ if is_802_11(link) => (24, 0, 8, 3),
            number::ATM_RFC1483 | number::ATM_CLIP => (0, 0, 8, 3),
            number::SUNATM => (4, 4, 8, 3),
            number::RAW | number::IPV4 | number::IPV6 | number::LOCAL_TALK | number::FRAME_RELAY => (NONE, 0, 0, 0),
            number::LINUX_SLL => (14, 16, 0, 0),
            number::LINUX_SLL2 => (0, 20, 0, 0),
            number::IP_OVER_FC => (16, 16, 8, 3),
            number::MULTILINK_FRAME_RELAY => (NONE, 0, 4, 0),
            number::FIREWIRE => (16, 18, 0, 0),
            number::SYMANTEC_FIREWALL => (6, 44, 0, 0),
            number::PFLOG => (0, 0, 0, 0),
            // Multilink and PPP, then ATM 1, ATM 2, Ethernet, PPPoE over ATM, GGSN, monitor.
            130 | 131 | 134 | 179 | 180 | 181 => (4, 4, 0, NONE),
            137 => (4, 4, 0, 10),
            135 => (8, 8, 0, 10),
            167 | 178 => (16, 14, 18, 21),
            168 => (4, 6, 0, NONE),
            133 => (6, 12, 0, NONE),
            164 => (12, 12, 0, NONE),
            132 => (6, NONE, NONE, NONE),
            136 => (12, NONE, NONE, NONE),
            183 | 200 => (18, NONE, NONE, NONE),
            194 | 232 | 233 | 234 | 238 => (8, NONE, NONE, NONE),
            number::PFSYNC => (NONE, 4, 0, 0),
            number::IPNET => (1, 24, 0, NONE),
            number::NETANALYZER => (4 + 12, 4 + 14, 0, 3),
            number::NETANALYZER_TRANSPARENT => (12 + 12, 12 + 14, 0, 3),
            number::MATCHING_MIN.. => (NONE, NONE, NONE, NONE),
            _ => return refuse(format!("link type {link} is unknown")),
        };
        Ok(Self {
            link_header: match link {
                number::NETANALYZER => 4,
                number::NETANALYZER_TRANSPARENT => 12,
                _ => 0,
            },
            link_header_varies: is_802_11(link) && link != number::IEEE802_11,
            type_field,
            payload,
            payload_varies: is_802_11(link) || link == number::PFLOG,
            network,
            network_without_snap,
            mtp2: match link {
                number::MTP2 => Some(0),
                number::MTP2_WITH_PHDR => Some(4),
                number::ERF => Some(20),
                _ => None,
            },
        })
    }
}
