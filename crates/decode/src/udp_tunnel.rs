//! Tunnels in UDP. The port is only a hint: if the payload is not valid for the tunnel, the packet belongs to the UDP
//! session.

use super::decoded::Stop;
use super::ethertype::looks_like_ethernet;
use super::layer::{Layer, Layout, Step};
use super::tunnel;
use super::tunnel_id::TunnelKind;
use super::walk::Walk;

/// Registered ports of tunnels. If the second value is true, replies are sent *from* the port to any other port.
const PORTS: [(u16, bool, Layer); 13] = [
    // VXLAN (RFC 7348), VXLAN-GPE, and the default of Linux.
    (4789, false, Layer::Vxlan),
    (4790, false, Layer::Vxlan),
    (8472, false, Layer::Vxlan),
    // Geneve (RFC 8926).
    (6081, false, Layer::Geneve),
    // GTP-U (3GPP TS 29.281).
    (2152, false, Layer::GtpU),
    // MPLS in UDP (RFC 7510). The source port is entropy and does not identify the tunnel.
    (6635, false, Layer::MplsInUdp),
    // TaZmen Sniffer Protocol: Mikrotik, Aruba, Kismet.
    (37_008, false, Layer::Tzsp),
    // Teredo (RFC 4380).
    (3544, true, Layer::Teredo),
    // L2TP versions 2 (RFC 2661) and 3 (RFC 3931).
    (1701, true, Layer::L2tp),
    // Generic UDP encapsulation (draft-ietf-intarea-gue).
    (6080, false, Layer::Gue),
    // CAPWAP data (RFC 5415).
    (5247, true, Layer::Capwap),
    // LISP data (RFC 9300).
    (4341, false, Layer::Lisp),
    // GRE in UDP (RFC 8086).
    (4754, false, Layer::GreInUdp),
];

/// A perfect hash of the ports, so that any port costs one lookup.
const SLOTS: usize = 64;
const MULTIPLIER: u32 = multiplier();
static BY_SLOT: [(u16, bool, Layer); SLOTS] = by_slot();

const fn slot(port: u16, multiplier: u32) -> usize {
    // The six most significant bits of the product.
    ((port as u32).wrapping_mul(multiplier) >> 26) as usize
}

const fn multiplier() -> u32 {
    let mut multiplier = 0x9e37_79b1_u32;
    loop {
        let mut taken = [false; SLOTS];
        let mut at = 0;
        let mut clash = false;
        while at < PORTS.len() {
            let port = PORTS[at].0;
            clash |= taken[slot(port, multiplier)];
            taken[slot(port, multiplier)] = true;
            at += 1;
        }
        if !clash {
            return multiplier;
        }
        multiplier = multiplier.wrapping_add(2);
    }
}

const fn by_slot() -> [(u16, bool, Layer); SLOTS] {
    let mut slots = [(0, false, Layer::Udp); SLOTS];
    let mut at = 0;
    while at < PORTS.len() {
        slots[slot(PORTS[at].0, MULTIPLIER)] = PORTS[at];
        at += 1;
    }
    slots
}

#[inline]
fn lookup(port: u16) -> Option<&'static (u16, bool, Layer)> {
    BY_SLOT.get(slot(port, MULTIPLIER)).filter(|entry| entry.0 == port && port != 0)
}

/// Returns the tunnel layer of a datagram between these ports, if one of them belongs to a tunnel.
#[inline]
pub(super) fn by_ports(source: u16, destination: u16) -> Option<Layer> {
    if let Some((_, _, layer)) = lookup(destination) {
        return Some(*layer);
    }
    lookup(source).filter(|(_, answers, _)| *answers).map(|(_, _, layer)| *layer)
}

/// Enters MPLS in UDP (RFC 7510).
pub(super) fn mpls(walk: &mut Walk<'_>) -> Step {
    walk.open_tunnel(TunnelKind::MplsInUdp, 0)?;
    Step::Continue(Layer::Mpls)
}

/// Enters GRE in UDP (RFC 8086).
pub(super) fn gre(walk: &mut Walk<'_>) -> Step {
    walk.open_tunnel(TunnelKind::GreInUdp, 0)?;
    Step::Continue(Layer::Gre)
}

/// Decodes TZSP: version 1, type (received or sent), encapsulation, tagged fields, then the frame that a sensor
/// forwarded.
pub(super) fn tzsp(walk: &mut Walk<'_>) -> Step {
    const PADDING: u8 = 0;
    const END: u8 = 1;

    let [version, kind, e0, e1] = *walk.take()?;
    if version != 1 || kind > 1 {
        return Step::Break(Stop::Complete);
    }
    loop {
        let [tag] = *walk.take()?;
        match tag {
            PADDING => {}
            END => break,
            _ => {
                let [len] = *walk.take()?;
                walk.skip(len.into())?;
            }
        }
    }
    let next = match u16::from_be_bytes([e0, e1]) {
        1 => Layer::Ethernet,
        18 => Layer::Ieee80211(Layout::PLAIN),
        119 | 127 => Layer::PrismOrAvs,
        _ => return Step::Break(Stop::Unknown),
    };
    walk.open_tunnel(TunnelKind::Tzsp, 0)?;
    Step::Continue(next)
}

/// Decodes Teredo (RFC 4380, 5.1.1): IPv6 in UDP after optional authentication data and an optional origin indication.
pub(super) fn teredo(walk: &mut Walk<'_>) -> Step {
    const ORIGIN_BYTES: usize = 8;

    if let [0, 1, client, authentication, ..] = walk.rest {
        // Client identifier, authentication value, a nonce of eight bytes, a confirmation byte.
        walk.skip(4 + usize::from(*client) + usize::from(*authentication) + 9)?;
    }
    if let [0, 0, ..] = walk.rest {
        walk.skip(ORIGIN_BYTES)?;
    }
    let [first] = *walk.peek()?;
    if first >> 4 != 6 {
        return Step::Break(Stop::Complete);
    }
    walk.open_tunnel(TunnelKind::Teredo, 0)?;
    Step::Continue(Layer::Ipv6)
}

/// Decodes L2TP version 2 (RFC 2661): data messages carry PPP. Tunnel and session ids differ by direction.
pub(super) fn l2tp(walk: &mut Walk<'_>) -> Step {
    const CONTROL: u8 = 0x80;
    const LENGTH: u8 = 0x40;
    const SEQUENCE: u8 = 0x08;
    const OFFSET: u8 = 0x02;

    let [flags, version] = *walk.take()?;
    if flags & CONTROL != 0 {
        return Step::Break(Stop::Complete);
    }
    match version & 0x0f {
        2 => {}
        3 => {
            walk.skip(2)?;
            return Step::Continue(Layer::L2tpV3);
        }
        _ => return Step::Break(Stop::Complete),
    }
    if flags & LENGTH != 0 {
        let [l0, l1] = *walk.take()?;
        walk.limit(usize::from(u16::from_be_bytes([l0, l1])).saturating_sub(4));
    }
    walk.skip(4)?;
    if flags & SEQUENCE != 0 {
        walk.skip(4)?;
    }
    if flags & OFFSET != 0 {
        let [o0, o1] = *walk.take()?;
        walk.skip(u16::from_be_bytes([o0, o1]).into())?;
    }
    walk.open_tunnel(TunnelKind::L2tp, 0)?;
    Step::Continue(Layer::Ppp)
}

/// Decodes an L2TP version 3 data message (RFC 3931, 4.1): a session identifier, then a cookie and a sublayer, whose sizes
/// only the control connection tells. So the first size for which an Ethernet frame follows is taken.
pub(super) fn l2tp_v3(walk: &mut Walk<'_>) -> Step {
    /// No cookie, one of four and one of eight bytes, each with and without the sublayer of four bytes.
    const SIZES: [usize; 4] = [0, 4, 8, 12];

    let session = u32::from_be_bytes(*walk.take()?);
    if session == 0 {
        // A control message.
        return Step::Break(Stop::Complete);
    }
    let fits = |size: &usize| walk.rest.get(*size..).is_some_and(looks_like_ethernet);
    let Some(size) = SIZES.into_iter().find(fits) else {
        return Step::Break(if walk.missing > 0 { Stop::Truncated } else { Stop::Unknown });
    };
    walk.skip(size)?;
    walk.open_tunnel(TunnelKind::L2tpV3, 0)?;
    Step::Continue(Layer::Ethernet)
}

/// Decodes generic UDP encapsulation: variant 0 has a header that names the protocol, variant 1 is IP without a header.
pub(super) fn gue(walk: &mut Walk<'_>) -> Step {
    const CONTROL: u8 = 0x20;

    let [first] = *walk.peek()?;
    if first >> 6 == 1 {
        let next = tunnel::by_version(walk)?;
        walk.open_tunnel(TunnelKind::Gue, 0)?;
        return Step::Continue(next);
    }
    let [flags, protocol, _, _] = *walk.take()?;
    if flags >> 6 != 0 || flags & CONTROL != 0 {
        return Step::Break(Stop::Complete);
    }
    walk.skip(usize::from(flags & 0x1f) * 4)?;
    let next = match protocol {
        4 => Layer::Ipv4,
        41 => Layer::Ipv6,
        47 => Layer::Gre,
        97 => Layer::EtherIp,
        137 => Layer::Mpls,
        _ => return Step::Break(Stop::Unknown),
    };
    walk.open_tunnel(TunnelKind::Gue, 0)?;
    Step::Continue(next)
}

/// Decodes CAPWAP data (RFC 5415, 4.3): Ethernet, or 802.11, whose first two bytes some controllers swap.
pub(super) fn capwap(walk: &mut Walk<'_>) -> Step {
    const NATIVE: u8 = 0x01;
    const FRAGMENT: u8 = 0x80;

    let [preamble, length, binding, flags, ..] = *walk.take::<8>()?;
    let Some(options) = (usize::from(length >> 3) * 4).checked_sub(8) else { return Step::Break(Stop::Complete) };
    // DTLS-encrypted, of a later version, or a fragment: the payload cannot be decoded.
    if preamble != 0 || flags & FRAGMENT != 0 {
        return Step::Break(Stop::Complete);
    }
    walk.skip(options)?;
    walk.open_tunnel(TunnelKind::Capwap, 0)?;
    if binding & NATIVE == 0 {
        return Step::Continue(Layer::Ethernet);
    }
    let [first, second] = *walk.peek()?;
    let swapped = first & 0x0c != 0x08 && second & 0x0f == 0x08;
    Step::Continue(if swapped { Layer::Ieee80211Swapped } else { Layer::Ieee80211(Layout::PLAIN) })
}

/// Decodes LISP data (RFC 9300): a header of eight bytes, then IP.
pub(super) fn lisp(walk: &mut Walk<'_>) -> Step {
    walk.skip(8)?;
    let next = tunnel::by_version(walk)?;
    walk.open_tunnel(TunnelKind::Lisp, 0)?;
    Step::Continue(next)
}

#[cfg(test)]
mod tests {
    use super::super::frames::{check, ethernet, gre, ipv4, ipv6, join, label, tcp, udp, with};
    use super::*;
    use base::packet::LinkType;

    #[test]
    fn ports_are_found_and_others_are_not() {
        for (port, answers, layer) in PORTS {
            assert_eq!(by_ports(1, port), Some(layer), "{port}");
            assert_eq!(by_ports(port, 1), answers.then_some(layer), "{port}");
        }
        let known = |port: u16| PORTS.iter().any(|entry| entry.0 == port);
        for port in (0..=u16::MAX).filter(|port| !known(*port)) {
            assert_eq!(by_ports(port, port), None, "{port}");
        }
    }

    #[test]
    fn what_udp_carries() {
        let v4 = with(12, 192, ipv4(6, &tcp(b"x")));
        let v6 = ipv6(6, &tcp(b"x"));
        let frame = ethernet(0x800, &v4);
        let to = |port, payload: &[u8]| ipv4(17, &udp(port, payload));
        let ppp = join(&[&[0xff, 3, 0, 0x21], &v4]);
        let dot11 = join(&[&[8, 1, 0, 0], &[2; 18], &[0, 0], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &v4]);
        let seen = |at: u32| format!("6 192.0.0.1:1000 > 10.0.0.2:80 1@{at}");
        let v6_at = |at: u32| format!("6 [fd00::1]:1000 > [fd00::2]:80 1@{at} depth 1 tunnel");
        let outer = |port: u16, len: usize| format!("17 10.0.0.1:1000 > 10.0.0.2:{port} {len}@28");
        check(
            LinkType::RAW,
            &[
                ("MPLS", to(6635, &label(true, &v4)), &format!("{} depth 2 tunnel", seen(72))),
                ("GRE", to(4754, &gre(0, 0x0800, &[], &v4)), &format!("{} depth 2 tunnel", seen(72))),
                (
                    "TZSP",
                    to(37008, &join(&[&[1, 0, 0, 1, 0, 10, 1, 9, 1], &frame])),
                    &format!("{} depth 1 tunnel", seen(91)),
                ),
                (
                    "TZSP, 802.11",
                    to(37008, &join(&[&[1, 0, 0, 18, 1], &dot11])),
                    &format!("{} depth 1 tunnel", seen(105)),
                ),
                ("TZSP, keepalive", to(37008, &[1, 4, 0, 0, 1]), &outer(37008, 5)),
                ("Teredo", to(3544, &v6), &v6_at(88)),
                ("Teredo, origin", to(3544, &join(&[&[0; 8], &v6])), &v6_at(96)),
                ("Teredo, authentication", to(3544, &join(&[&[0, 1, 0, 0], &[7; 9], &v6])), &v6_at(101)),
                ("Teredo, nonsense", to(3544, b"\x01ello"), &outer(3544, 5)),
                ("L2TP", to(1701, &join(&[&[0, 2, 0, 1, 0, 2], &ppp])), &format!("{} depth 1 tunnel", seen(78))),
                (
                    "L2TP, all fields",
                    to(1701, &join(&[&[0x4a, 2, 0, 61, 0, 1, 0, 2, 0, 0, 0, 0, 0, 2, 9, 9], &ppp])),
                    &format!("{} depth 1 tunnel", seen(88)),
                ),
                ("L2TP, control", to(1701, &[0xc8, 2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0]), &outer(1701, 12)),
                (
                    "L2TP 3",
                    to(1701, &join(&[&[0, 3, 0, 0, 0, 0, 0, 7], &frame])),
                    &format!("{} depth 1 tunnel", seen(90)),
                ),
                (
                    "L2TP 3, cookie and sublayer, in IP",
                    ipv4(115, &join(&[&[0, 0, 0, 7], &[9; 12], &frame])),
                    &format!("{} depth 1 tunnel", seen(90)),
                ),
                ("L2TP 3, control, in IP", ipv4(115, &[0; 12]), "115 10.0.0.1:0 > 10.0.0.2:0 12@20"),
                (
                    "L2TP 3, no Ethernet",
                    ipv4(115, &join(&[&[0, 0, 0, 7], &[9; 30]])),
                    "115 10.0.0.1:0 > 10.0.0.2:0 34@20 Unknown",
                ),
                ("GUE", to(6080, &join(&[&[1, 4, 0, 0, 0, 0, 0, 0], &v4])), &format!("{} depth 1 tunnel", seen(76))),
                ("GUE, no header", to(6080, &v6), &v6_at(88)),
                ("GUE, control", to(6080, &[0x20, 1, 0, 0]), &outer(6080, 4)),
                (
                    "CAPWAP, Ethernet",
                    to(5247, &join(&[&[0, 0x10, 2, 0, 0, 0, 0, 0], &frame])),
                    &format!("{} depth 1 tunnel", seen(90)),
                ),
                (
                    "CAPWAP, 802.11",
                    to(5247, &join(&[&[0, 0x10, 3, 0, 0, 0, 0, 0], &dot11])),
                    &format!("{} depth 1 tunnel", seen(108)),
                ),
                (
                    "CAPWAP, 802.11 swapped",
                    to(5247, &join(&[&[0, 0x10, 3, 0, 0, 0, 0, 0], &with(0, 1, with(1, 8, dot11.clone()))])),
                    &format!("{} depth 1 tunnel", seen(108)),
                ),
                ("CAPWAP, DTLS", to(5247, &[1, 0, 0, 0, 22, 0, 0, 0]), &outer(5247, 8)),
                ("LISP", to(4341, &join(&[&[0; 8], &v4])), &format!("{} depth 1 tunnel", seen(76))),
            ],
        );
    }
}
