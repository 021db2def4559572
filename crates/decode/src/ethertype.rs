//! The layer after a link-layer header.

use super::decoded::Stop;
use super::layer::{Layer, Step};
use super::walk::Walk;

/// The maximum value of an Ethernet type field that is a length (IEEE 802.3).
const LENGTH_MAX: u16 = 1500;

#[inline]
pub(super) fn ethertype_or_length(walk: &mut Walk<'_>, value: u16) -> Step {
    if value > LENGTH_MAX {
        walk.decoded.ethertype = value;
        return by_ethertype(value);
    }
    // Short frames are padded to 60 bytes. The padding is not payload.
    walk.decoded.ethertype = 0;
    walk.limit(usize::from(value));
    walk.mark_payload();
    Step::Continue(Layer::Llc)
}

#[inline]
pub(super) fn by_ethertype(ethertype: u16) -> Step {
    Step::Continue(match ethertype {
        0x0800 => Layer::Ipv4,
        0x86dd => Layer::Ipv6,
        0x8100 | 0x88a8 | 0x9100 | 0x9200 => Layer::Vlan,
        0x8847 | 0x8848 => Layer::Mpls,
        0x8864 => Layer::Pppoe,
        _ => return by_rare_ethertype(ethertype),
    })
}

/// Returns the layer for a rare ethertype.
#[cold]
fn by_rare_ethertype(ethertype: u16) -> Step {
    Step::Continue(match ethertype {
        0x88e7 => Layer::BackboneTag,
        0x88e5 => Layer::MacSec,
        0x22f3 => Layer::Trill,
        0x894f => Layer::Nsh,
        0x8903 => Layer::FabricPath,
        0x4305 => Layer::Batman,
        0x880b => Layer::Ppp,
        _ if fixed(ethertype).is_some() => Layer::FixedTag,
        _ => return Step::Break(Stop::Unknown),
    })
}

/// Returns the size of a tag of fixed length, in bytes, without the ethertype at its end.
pub(super) fn fixed(ethertype: u16) -> Option<usize> {
    Some(match ethertype {
        // VN-Tag (Cisco), E-Tag (IEEE 802.1BR), HSR (IEC 62439-3), Cisco metadata, congestion notification.
        0x8926 => 4,
        0x893f => 6,
        0x892f => 4,
        0x8909 => 6,
        0x22e9 => 2,
        _ => return None,
    })
}

/// Returns whether `frame` looks like an Ethernet frame with a payload that is supported: a guess where a header does not
/// name its payload.
pub(super) fn looks_like_ethernet(frame: &[u8]) -> bool {
    let Some([.., e0, e1, first]) = frame.first_chunk::<15>() else { return false };
    match u16::from_be_bytes([*e0, *e1]) {
        0x0800 => first >> 4 == 4,
        0x86dd => first >> 4 == 6,
        0x0806 => true,
        ethertype => ethertype > LENGTH_MAX && by_ethertype(ethertype).is_continue(),
    }
}

#[inline]
pub(super) fn mac([a, b, c, d, e, f]: [u8; 6]) -> u128 {
    u128::from(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}
