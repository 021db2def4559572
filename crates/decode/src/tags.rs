//! Tags and headers between an ethertype and the payload: provider backbone bridging, MACsec, TRILL, NSH and others.

use super::decoded::Stop;
use super::ethertype::{ethertype_or_length, fixed};
use super::layer::{Layer, Step};
use super::network;
use super::tunnel_id::TunnelKind;
use super::walk::Walk;

/// Decodes a tag of fixed length.
pub(super) fn fixed_tag(walk: &mut Walk<'_>) -> Step {
    let Some(bytes) = fixed(walk.decoded.ethertype) else { return Step::Break(Stop::Unknown) };
    walk.skip(bytes)?;
    let [t0, t1] = *walk.take()?;
    walk.open_label()?;
    walk.mark_payload();
    ethertype_or_length(walk, u16::from_be_bytes([t0, t1]))
}

/// Decodes provider backbone bridging (IEEE 802.1ah): flags and service identifier, then the customer's frame.
pub(super) fn backbone_tag(walk: &mut Walk<'_>) -> Step {
    let [_, s0, s1, s2] = *walk.take()?;
    walk.open_tunnel(TunnelKind::Backbone, u32::from_be_bytes([0, s0, s1, s2]))?;
    Step::Continue(Layer::Ethernet)
}

/// Decodes MACsec (IEEE 802.1AE). With integrity protection only, the frame's own ethertype follows the tag.
pub(super) fn macsec(walk: &mut Walk<'_>) -> Step {
    const HAS_CHANNEL: u8 = 0x20;
    const ENCRYPTED: u8 = 0x08;
    const CHANGED: u8 = 0x04;
    const CHECK_BYTES: usize = 16;

    let [control, _, _, _, _, _] = *walk.take()?;
    if control & (ENCRYPTED | CHANGED) != 0 {
        return Step::Break(Stop::Unknown);
    }
    if control & HAS_CHANNEL != 0 {
        walk.skip(8)?;
    }
    let [t0, t1] = *walk.take()?;
    walk.open_label()?;
    walk.limit(walk.wire_len().saturating_sub(CHECK_BYTES));
    walk.mark_payload();
    ethertype_or_length(walk, u16::from_be_bytes([t0, t1]))
}

/// Decodes TRILL (RFC 6325): version and length of the options, nicknames, options, then the frame.
pub(super) fn trill(walk: &mut Walk<'_>) -> Step {
    let [v0, v1, _, _, _, _] = *walk.take()?;
    let options = usize::from(u16::from_be_bytes([v0, v1]) >> 6 & 0x1f) * 4;
    walk.skip(options)?;
    walk.open_tunnel(TunnelKind::Trill, 0)?;
    Step::Continue(Layer::Ethernet)
}

/// Decodes the network service header (RFC 8300): length in 4-byte words and next protocol.
pub(super) fn nsh(walk: &mut Walk<'_>) -> Step {
    let [_, length, _, next] = *walk.peek()?;
    walk.skip(usize::from(length & 0x3f) * 4)?;
    let next = match next {
        1 => Layer::Ipv4,
        2 => Layer::Ipv6,
        3 => Layer::Ethernet,
        5 => Layer::Mpls,
        _ => return Step::Break(Stop::Unknown),
    };
    if length & 0x3f < 2 {
        return Step::Break(Stop::Malformed);
    }
    walk.open_tunnel(TunnelKind::Nsh, 0)?;
    Step::Continue(next)
}

/// Decodes Cisco FabricPath: a forwarding tag, then the frame.
pub(super) fn fabric_path(walk: &mut Walk<'_>) -> Step {
    walk.skip(2)?;
    walk.open_tunnel(TunnelKind::FabricPath, 0)?;
    Step::Continue(Layer::Ethernet)
}

/// Decodes EtherIP (RFC 3378): a version, then the frame.
pub(super) fn ether_ip(walk: &mut Walk<'_>) -> Step {
    let [version, _] = *walk.take()?;
    if version >> 4 != 3 {
        return Step::Break(Stop::Unknown);
    }
    walk.open_tunnel(TunnelKind::EtherIp, 0)?;
    Step::Continue(Layer::Ethernet)
}

/// Decodes B.A.T.M.A.N. advanced, the mesh protocol of Linux: packet type, version, then fields whose size the type tells,
/// and the frame of the mesh's client. The types differ between versions 14 and 15 of the protocol.
pub(super) fn batman(walk: &mut Walk<'_>) -> Step {
    let [kind, version] = *walk.peek()?;
    let header_bytes = match (version, kind) {
        // To one node, without and with the sender.
        (15, 0x40) | (14, 3) => 10,
        (15, 0x42) | (14, 9) => 18,
        // To all.
        (15, 0x01) | (14, 4) => 14,
        _ => return Step::Break(Stop::Unknown),
    };
    walk.skip(header_bytes)?;
    walk.open_tunnel(TunnelKind::Batman, 0)?;
    Step::Continue(Layer::Ethernet)
}

/// Decodes packets redirected in GRE by Cisco's WCCP: a header of four bytes, or IP without a header in version 1.
pub(super) fn wccp(walk: &mut Walk<'_>) -> Step {
    let [first] = *walk.peek()?;
    if first >> 4 != 4 {
        walk.skip(4)?;
    }
    network::ip(walk)
}

#[cfg(test)]
mod tests {
    use super::super::frames::{check, ethernet, gre, ipv4, join, tcp, with};
    use base::packet::LinkType;

    #[test]
    fn what_stands_before_the_ethertype() {
        let v4 = with(12, 192, ipv4(6, &tcp(b"x")));
        let frame = ethernet(0x800, &v4);
        let seen = |at: u32, depth: u32| format!("6 192.0.0.1:1000 > 10.0.0.2:80 1@{at} depth {depth}");
        let tagged = |ethertype, tag: &[u8]| ethernet(ethertype, &join(&[tag, &[8, 0], &v4]));
        let around = |ethertype, tag: &[u8]| ethernet(ethertype, &join(&[tag, &frame]));
        let macsec = |control: u8, channel: &[u8]| {
            ethernet(0x88e5, &join(&[&[control, 0, 0, 0, 0, 1], channel, &[8, 0], &v4, &[0; 16]]))
        };
        check(
            LinkType::ETHERNET,
            &[
                ("VN-Tag", tagged(0x8926, &[0; 4]), &seen(60, 1)),
                ("E-Tag", tagged(0x893f, &[0; 6]), &seen(62, 1)),
                ("HSR", tagged(0x892f, &[0; 4]), &seen(60, 1)),
                ("Cisco metadata", tagged(0x8909, &[0; 6]), &seen(62, 1)),
                ("MACsec, in clear", macsec(0, &[]), &seen(62, 1)),
                ("MACsec, channel", macsec(0x20, &[7; 8]), &seen(70, 1)),
                ("MACsec, encrypted", macsec(0x0c, &[]), "88e5 020000000001 > 020000000002 65@14 Unknown"),
                ("802.1ah", around(0x88e7, &[0, 0, 0, 5]), &format!("{} tunnel", seen(72, 1))),
                ("TRILL", around(0x22f3, &[0, 0x40, 0, 1, 0, 2, 9, 9, 9, 9]), &format!("{} tunnel", seen(78, 1))),
                ("NSH", around(0x894f, &[0, 2, 1, 3, 0, 0, 0, 1]), &format!("{} tunnel", seen(76, 1))),
                (
                    "batman-adv 15, unicast",
                    around(0x4305, &[0x40, 15, 50, 1, 2, 0, 0, 0, 0, 9]),
                    &format!("{} tunnel", seen(78, 1)),
                ),
                (
                    "batman-adv 14, to all",
                    around(0x4305, &[4, 14, 50, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]),
                    &format!("{} tunnel", seen(82, 1)),
                ),
                ("batman-adv, routes", around(0x4305, &[0, 15]), "4305 020000000001 > 020000000002 57@14 Unknown"),
                ("FabricPath", around(0x8903, &[0, 1]), &format!("{} tunnel", seen(70, 1))),
            ],
        );
        check(
            LinkType::RAW,
            &[
                ("Ethernet in IP", ipv4(143, &frame), &format!("{} tunnel", seen(74, 1))),
                (
                    "PIM register",
                    ipv4(103, &join(&[&[0x21, 0, 0, 0, 0, 0, 0, 0], &v4])),
                    &format!("{} tunnel", seen(68, 1)),
                ),
                ("PIM hello", ipv4(103, &[0x20, 0, 0, 0]), "103 10.0.0.1:0 > 10.0.0.2:0 4@20"),
                ("EtherIP", ipv4(97, &join(&[&[0x30, 0], &frame])), &format!("{} tunnel", seen(76, 1))),
                ("MPLS in IP", ipv4(137, &super::super::frames::label(true, &v4)), &format!("{} tunnel", seen(64, 2))),
                ("WCCP", ipv4(47, &gre(0, 0x883e, &[], &join(&[&[0; 4], &v4]))), &format!("{} tunnel", seen(68, 1))),
                ("WCCP 1", ipv4(47, &gre(0, 0x883e, &[], &v4)), &format!("{} tunnel", seen(64, 1))),
            ],
        );
    }
}
