//! Names the headers between the start of a packet and its innermost session.
//!
//! Filter expressions in tcpdump syntax test the outermost headers of a packet. A message can name an encapsulation as
//! the reason why a packet does not match although its session has the requested addresses and ports.

use std::ops::ControlFlow;

use super::decoded::Decoded;
use super::layer::Layer;
use super::layers::enter;
use super::link_type;
use super::walk::Walk;
use base::packet::LinkType;

/// A set of kinds of headers whose payload filter expressions do not test by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Encapsulations(u32);

/// The names of the kinds, in the order of their bits.
const NAMES: [&str; 30] = [
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
];

/// The bit for fragments after the first, which have no ports.
const LATER_FRAGMENT: u32 = 1 << 31;

impl Encapsulations {
    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
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
        const ERSPAN: [[u8; 2]; 2] = [[0x88, 0xbe], [0x22, 0xeb]];
        let bit = match layer {
            Layer::Vlan => 0,
            Layer::Mpls | Layer::MplsInUdp | Layer::MplsInIp => 1,
            Layer::Pppoe => 2,
            Layer::Gre if matches!(walk.rest, [_, _, a, b, ..] if ERSPAN.contains(&[*a, *b])) => 4,
            Layer::Gre | Layer::GreInUdp => 3,
            Layer::Vxlan => 5,
            Layer::Geneve => 6,
            Layer::GtpU => 7,
            Layer::IpInIp(_) => 8,
            Layer::Teredo => 9,
            Layer::L2tp => 10,
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
            _ => return,
        };
        self.0 |= 1 << bit;
    }
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

/// Calls `each` for each layer before it is decoded, until `each` breaks. Returns the decoded headers.
fn each_layer(link_type: LinkType, data: &[u8], mut each: impl FnMut(Layer, &Walk<'_>) -> ControlFlow<()>) -> Decoded {
    let mut decoded = Decoded::default();
    let mut walk = Walk::new(data, &mut decoded);
    let mut step = link_type::outermost(link_type);
    while let ControlFlow::Continue(layer) = step {
        if each(layer, &walk).is_break() {
            break;
        }
        step = enter(layer, &mut walk);
    }
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
        for (frame, names, later, offset) in table {
            let found = encapsulations(LinkType::ETHERNET, frame);
            assert_eq!(found.names().collect::<Vec<_>>(), *names, "{frame:02x?}");
            assert_eq!(found.is_later_fragment(), *later, "{frame:02x?}");
            assert_eq!(network_offset(LinkType::ETHERNET, frame), *offset, "{frame:02x?}");
        }
    }
}
