//! Names the headers between the start of a packet and its innermost session.
//!
//! Filter expressions in tcpdump syntax test the outermost headers of a packet. A message can name an encapsulation as
//! the reason why a packet does not match although its session has the requested addresses and ports.

use std::ops::ControlFlow;

use super::decoded::{Decoded, Stop};
use super::layer::Layer;
use super::layers::enter;
use super::link_type;
use super::walk::Walk;
use base::packet::LinkType;

/// A set of kinds of headers whose payload filter expressions do not test by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Encapsulations(u64);

/// The names of the kinds, in the order of their bits.
const NAMES: [&str; 34] = [
    "a VLAN tag",
    "MPLS",
    "PPPoE",
    "GRE",
    "ERSPAN",
    "VXLAN",
    "Geneve",
    "GTP-U",
    "IP in IP",
    "Teredo",
    "L2TP",
    "CAPWAP",
    "LISP",
    "TZSP",
    "EtherIP",
    "802.1ah",
    "MACsec",
    "TRILL",
    "NSH",
    "FabricPath",
    "another tag",
    "WCCP",
    "802.11",
    "an authentication header",
    "IPv6 extension headers",
    "a fragment header",
    "PPP",
    "Frame Relay",
    "NFLOG",
    "LLC",
    "GUE",
    "batman-adv",
    "PIM",
    "Ethernet in IP",
];

/// The bit for fragments after the first, which have no ports.
const LATER_FRAGMENT: u64 = 1 << 63;

impl Encapsulations {
    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether the set has nothing but VLAN tags.
    pub fn are_only_tags(self) -> bool {
        self.0 & !1 == 0
    }

    /// Returns whether the packet is a fragment after the first.
    pub fn is_later_fragment(self) -> bool {
        self.0 & LATER_FRAGMENT != 0
    }

    /// Returns the names in bit order, which mostly is the order from the outside in.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 != 0).map(|(_, name)| name)
    }

    fn add(&mut self, layer: Layer, walk: &Walk<'_>) {
        if let Some(bit) = bit(layer, walk.rest) {
            self.0 |= 1 << bit;
        }
    }
}

/// Returns the name of the kind of a layer that begins with `bytes`; `None` for layers that are no encapsulation.
pub(super) fn name(layer: Layer, bytes: &[u8]) -> Option<&'static str> {
    bit(layer, bytes).and_then(|bit| NAMES.get(bit)).copied()
}

fn bit(layer: Layer, bytes: &[u8]) -> Option<usize> {
    const ERSPAN: [[u8; 2]; 2] = [[0x88, 0xbe], [0x22, 0xeb]];
    Some(match layer {
        Layer::Vlan => 0,
        Layer::Mpls | Layer::MplsInUdp | Layer::MplsInIp => 1,
        Layer::Pppoe => 2,
        Layer::Gre if matches!(bytes, [_, _, a, b, ..] if ERSPAN.contains(&[*a, *b])) => 4,
        Layer::Gre | Layer::GreInUdp => 3,
        Layer::Vxlan => 5,
        Layer::Geneve => 6,
        Layer::GtpU => 7,
        Layer::IpInIp(_) => 8,
        Layer::Teredo => 9,
        Layer::L2tp | Layer::L2tpV3 => 10,
        Layer::Capwap => 11,
        Layer::Lisp => 12,
        Layer::Tzsp => 13,
        Layer::EtherIp => 14,
        Layer::BackboneTag => 15,
        Layer::MacSec => 16,
        Layer::Trill => 17,
        Layer::Nsh => 18,
        Layer::FabricPath => 19,
        Layer::FixedTag | Layer::SwitchTagged(_) => 20,
        Layer::Wccp => 21,
        Layer::Ieee80211(_) | Layer::Ieee80211Swapped => 22,
        Layer::Authentication => 23,
        Layer::Extension => 24,
        Layer::Ipv6Fragment => 25,
        Layer::Ppp => 26,
        Layer::FrameRelay => 27,
        Layer::Nflog => 28,
        Layer::Llc => 29,
        Layer::Gue => 30,
        Layer::Batman => 31,
        Layer::Pim => 32,
        Layer::EthernetInIp => 33,
        _ => return None,
    })
}

/// Returns the kinds of headers around a packet's innermost session.
pub fn encapsulations(link_type: LinkType, data: &[u8]) -> Encapsulations {
    let mut found = Encapsulations::default();
    let decoded = each_layer(link_type, data, |layer, walk| {
        found.add(layer, walk);
        ControlFlow::Continue(())
    });
    if decoded.fragment.is_some_and(|fragment| !fragment.first) {
        found.0 |= LATER_FRAGMENT;
    }
    found
}

/// Returns the offset of the outermost IP header, if there is one.
pub fn network_offset(link_type: LinkType, data: &[u8]) -> Option<usize> {
    let mut offset = None;
    each_layer(link_type, data, |layer, walk| match layer {
        Layer::Ipv4 | Layer::Ipv6 => {
            offset = Some(walk.offset);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    offset
}

/// Calls `each` with each IP packet that the bytes hold, from the outside in: its version as a link type, and its bytes up
/// to the end of the captured ones.
pub fn each_ip_packet(link_type: LinkType, data: &[u8], mut each: impl FnMut(LinkType, &[u8])) {
    each_layer(link_type, data, |layer, walk| {
        let version = match layer {
            Layer::Ipv4 => LinkType::IPV4,
            Layer::Ipv6 => LinkType::IPV6,
            _ => return ControlFlow::Continue(()),
        };
        each(version, data.get(walk.offset..).unwrap_or_default());
        ControlFlow::Continue(())
    });
}

/// Calls `each` for each layer before it is decoded, until `each` breaks. Returns the decoded headers.
pub(super) fn each_layer(
    link_type: LinkType,
    data: &[u8],
    mut each: impl FnMut(Layer, &Walk<'_>) -> ControlFlow<()>,
) -> Decoded {
    let mut decoded = Decoded::default();
    let mut walk = Walk::new(data, &mut decoded);
    let mut step = link_type::outermost(link_type);
    let stop = loop {
        match step {
            ControlFlow::Continue(layer) if each(layer, &walk).is_continue() => step = enter(layer, &mut walk),
            ControlFlow::Continue(_) => break Stop::Complete,
            ControlFlow::Break(stop) => break stop,
        }
    };
    decoded.stop = stop;
    decoded
}

#[cfg(test)]
mod tests {
    use super::super::frames::{ethernet, geneve, gre, ipv4, ipv4_with, ipv6, join, label, pppoe, tag, tcp, udp};
    use super::*;

    /// Frame, names of its encapsulations, whether it is a later fragment, offset of the IP header.
    type Case = (Vec<u8>, &'static [&'static str], bool, Option<usize>);

    #[test]
    fn headers_are_named() {
        let v4 = ipv4(6, &tcp(b"x"));
        let frame = ethernet(0x800, &v4);
        let table: &[Case] = &[
            (frame.clone(), &[], false, Some(14)),
            (ethernet(0x8100, &tag(5, 0x800, &v4)), &["a VLAN tag"], false, Some(18)),
            (ethernet(0x8847, &label(true, &v4)), &["MPLS"], false, Some(18)),
            (ethernet(0x8864, &pppoe(1, 0x21, &v4)), &["PPPoE", "PPP"], false, Some(22)),
            (ethernet(0x800, &ipv4(17, &udp(6081, &geneve(5, 0x6558, &[], &frame)))), &["Geneve"], false, Some(14)),
            (
                ethernet(
                    0x800,
                    &ipv4(47, &gre(0x1000, 0x88be, &[0; 4], &join(&[&[0x10, 0, 0, 1, 0, 0, 0, 0], &frame]))),
                ),
                &["ERSPAN"],
                false,
                Some(14),
            ),
            (ethernet(0x800, &ipv4_with(17, 0x0010, &[], b"rest")), &[], true, Some(14)),
            (
                ethernet(0x86dd, &ipv6(44, &[17, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0])),
                &["a fragment header"],
                true,
                Some(14),
            ),
            (ethernet(0x0806, &[0; 28]), &[], false, None),
            (vec![], &[], false, None),
        ];
        let mut packets = Vec::new();
        let nested = ethernet(0x800, &ipv4(41, &ipv6(4, &v4)));
        each_ip_packet(LinkType::ETHERNET, &nested, |version, bytes| packets.push((version, bytes.len())));
        let lens = [20 + 40 + v4.len(), 40 + v4.len(), v4.len()];
        assert_eq!(packets, [LinkType::IPV4, LinkType::IPV6, LinkType::IPV4].into_iter().zip(lens).collect::<Vec<_>>());
        for (frame, names, later, offset) in table {
            let found = encapsulations(LinkType::ETHERNET, frame);
            assert_eq!(found.names().collect::<Vec<_>>(), *names, "{frame:02x?}");
            assert_eq!(found.is_later_fragment(), *later, "{frame:02x?}");
            assert_eq!(network_offset(LinkType::ETHERNET, frame), *offset, "{frame:02x?}");
        }
    }
}
