//! What carries packets in packets: MPLS, PPPoE, GRE, IP in IP, VXLAN, Geneve, GTP-U.
//!
//! A tunnel is opened here, and its inside counts once a header in it was understood; until then, and when that fails,
//! the packet belongs to the tunnel's own session.

use super::{IpVersion, Layer, Step, Stop, Walk};

/// Kinds of tunnels, for [`mix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Ipv4 = 1,
    Ipv6,
    Gre,
    Pptp,
    Erspan,
    Pseudowire,
    Pppoe,
    Vxlan,
    Geneve,
    GtpU,
}

/// The identity of a tunnel within another (0: within none); never 0.
pub(super) fn mix(outer: u32, kind: Kind, id: u32) -> u32 {
    // The finalising steps of MurmurHash3: different ids of one kind stay different.
    let mut mix = outer ^ id ^ u32::from(kind as u8).wrapping_mul(0x9e37_79b9);
    mix = (mix ^ mix >> 16).wrapping_mul(0x85eb_ca6b);
    mix = (mix ^ mix >> 13).wrapping_mul(0xc2b2_ae35);
    (mix ^ mix >> 16).max(1)
}

/// What tunnels call an ethertype (GRE's and Geneve's protocol field).
fn by_protocol_type(protocol_type: u16) -> Step {
    Step::Continue(match protocol_type {
        0x0800 => Layer::Ipv4,
        0x86dd => Layer::Ipv6,
        // Transparent Ethernet bridging.
        0x6558 => Layer::Ethernet,
        0x8847 | 0x8848 => Layer::Mpls,
        0x880b => Layer::Ppp,
        _ => return Step::Break(Stop::Unknown),
    })
}

/// An MPLS label stack (RFC 3032). Labels say nothing of what they carry, so the first nibble has to: an IP version, or 0
/// for the control word of a pseudowire (RFC 4385), taken for Ethernet. Labels differ by direction and are no part of
/// [`Decoded::tunnel`](super::Decoded::tunnel).
pub(super) fn mpls(walk: &mut Walk<'_>) -> Step {
    loop {
        let [_, _, bottom, _] = *walk.take()?;
        walk.open_label()?;
        if bottom & 1 == 1 {
            break;
        }
    }
    let [first] = *walk.peek()?;
    match first >> 4 {
        4 => Step::Continue(Layer::Ipv4),
        6 => Step::Continue(Layer::Ipv6),
        0 => {
            walk.skip(4)?;
            walk.open_tunnel(Kind::Pseudowire, 0)?;
            Step::Continue(Layer::Ethernet)
        }
        _ => Step::Break(Stop::Unknown),
    }
}

/// A PPPoE session packet (RFC 2516): version and type 1, code 0, session id, length.
pub(super) fn pppoe(walk: &mut Walk<'_>) -> Step {
    let [version_type, code, i0, i1, l0, l1] = *walk.take()?;
    if version_type != 0x11 {
        return Step::Break(Stop::Malformed);
    }
    if code != 0 {
        return Step::Break(Stop::Unknown);
    }
    walk.limit(usize::from(u16::from_be_bytes([l0, l1])));
    walk.open_tunnel(Kind::Pppoe, u16::from_be_bytes([i0, i1]).into())?;
    Step::Continue(Layer::Ppp)
}

/// IP right behind IP (RFC 2003, RFC 2473, RFC 4213).
pub(super) fn ip_in_ip(walk: &mut Walk<'_>, inner: IpVersion) -> Step {
    let (kind, layer) = match inner {
        IpVersion::V4 => (Kind::Ipv4, Layer::Ipv4),
        IpVersion::V6 => (Kind::Ipv6, Layer::Ipv6),
    };
    walk.open_tunnel(kind, 0)?;
    Step::Continue(layer)
}

/// GRE: version 0 (RFC 2784, RFC 2890) with what it carries, or version 1 (PPTP, RFC 2637) with PPP.
pub(super) fn gre(walk: &mut Walk<'_>) -> Step {
    const CHECKSUM: u8 = 0x80;
    const ROUTING: u8 = 0x40;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    const ACKNOWLEDGMENT: u8 = 0x80;

    let [flags, version, p0, p1] = *walk.take()?;
    let protocol_type = u16::from_be_bytes([p0, p1]);
    match (version & 7, protocol_type) {
        (0, _) if flags & ROUTING == 0 => {
            if flags & CHECKSUM != 0 {
                walk.skip(4)?;
            }
            let key = if flags & KEY != 0 { u32::from_be_bytes(*walk.take()?) } else { 0 };
            if flags & SEQUENCE != 0 {
                walk.skip(4)?;
            }
            match protocol_type {
                0x88be => return erspan_2(walk, flags & SEQUENCE != 0),
                0x22eb => return erspan_3(walk),
                _ => {}
            }
            let next = by_protocol_type(protocol_type)?;
            walk.open_tunnel(Kind::Gre, key)?;
            Step::Continue(next)
        }
        (1, 0x880b) if flags & KEY != 0 => {
            let [l0, l1, _, _] = *walk.take()?;
            if flags & SEQUENCE == 0 {
                // An acknowledgment alone.
                return Step::Break(Stop::Complete);
            }
            walk.skip(4)?;
            if version & ACKNOWLEDGMENT != 0 {
                walk.skip(4)?;
            }
            walk.limit(usize::from(u16::from_be_bytes([l0, l1])));
            walk.open_tunnel(Kind::Pptp, 0)?;
            Step::Continue(Layer::Ppp)
        }
        _ => Step::Break(Stop::Unknown),
    }
}

/// ERSPAN type II (draft-foschiano-erspan); without a sequence number it is type I, which has no header of its own.
fn erspan_2(walk: &mut Walk<'_>, has_header: bool) -> Step {
    let id = if has_header {
        let [version, _, i0, i1, ..] = *walk.take::<8>()?;
        if version >> 4 != 1 {
            return Step::Break(Stop::Unknown);
        }
        u16::from_be_bytes([i0, i1]) & 0x03ff
    } else {
        0
    };
    walk.open_tunnel(Kind::Erspan, id.into())?;
    Step::Continue(Layer::Ethernet)
}

/// ERSPAN type III, with its platform subheader where there is one; frames of Ethernet alone.
fn erspan_3(walk: &mut Walk<'_>) -> Step {
    let [version, _, i0, i1, _, _, _, _, _, _, frame_type, subheader] = *walk.take::<12>()?;
    if version >> 4 != 2 || frame_type >> 3 & 0x0f != 0 {
        return Step::Break(Stop::Unknown);
    }
    if subheader & 1 == 1 {
        walk.skip(8)?;
    }
    walk.open_tunnel(Kind::Erspan, (u16::from_be_bytes([i0, i1]) & 0x03ff).into())?;
    Step::Continue(Layer::Ethernet)
}

/// VXLAN (RFC 7348), and VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe), which can say that it carries something else than
/// Ethernet. The port is only a hint; the flags have to say that the network id is valid.
pub(super) fn vxlan(walk: &mut Walk<'_>) -> Step {
    const ID_VALID: u8 = 0x08;
    const NEXT_PROTOCOL: u8 = 0x04;

    let [flags, _, _, protocol, v0, v1, v2, _] = *walk.take()?;
    if flags & ID_VALID == 0 {
        return Step::Break(Stop::Complete);
    }
    let next = match (flags & NEXT_PROTOCOL, protocol) {
        (0, _) | (_, 0 | 3) => Layer::Ethernet,
        (_, 1) => Layer::Ipv4,
        (_, 2) => Layer::Ipv6,
        _ => return Step::Break(Stop::Unknown),
    };
    walk.open_tunnel(Kind::Vxlan, u32::from_be_bytes([0, v0, v1, v2]))?;
    Step::Continue(next)
}

/// Geneve (RFC 8926) version 0 with its options.
pub(super) fn geneve(walk: &mut Walk<'_>) -> Step {
    let [version_len, _, p0, p1, v0, v1, v2, _] = *walk.take()?;
    if version_len >> 6 != 0 {
        return Step::Break(Stop::Complete);
    }
    walk.skip(usize::from(version_len & 0x3f) * 4)?;
    let next = by_protocol_type(u16::from_be_bytes([p0, p1]))?;
    walk.open_tunnel(Kind::Geneve, u32::from_be_bytes([0, v0, v1, v2]))?;
    Step::Continue(next)
}

/// GTP-U (3GPP TS 29.281) version 1: a user packet (message type 255), behind extension headers.
pub(super) fn gtp_u(walk: &mut Walk<'_>) -> Step {
    const EXTENSION: u8 = 4;

    let [flags, message_type, l0, l1, ..] = *walk.take::<8>()?;
    // Version 1 and protocol type GTP, not GTP'.
    if flags >> 4 != 3 || message_type != 255 {
        return Step::Break(Stop::Complete);
    }
    walk.limit(usize::from(u16::from_be_bytes([l0, l1])));
    if flags & 7 != 0 {
        // Sequence number, N-PDU number and type of the next extension header are there together or not at all.
        let [.., mut next] = *walk.take::<4>()?;
        if flags & EXTENSION == 0 {
            next = 0;
        }
        while next != 0 {
            walk.count_layer()?;
            let [len] = *walk.peek()?;
            let len = usize::from(len) * 4;
            let Some(last) = walk.rest.get(..len).map(<[u8]>::last) else { return Step::Break(walk.short_of(len)) };
            let Some(last) = last else { return Step::Break(Stop::Malformed) };
            next = *last;
            walk.skip(len)?;
        }
    }
    walk.open_tunnel(Kind::GtpU, 0)?;
    let [first] = *walk.peek()?;
    match first >> 4 {
        4 => Step::Continue(Layer::Ipv4),
        6 => Step::Continue(Layer::Ipv6),
        // 5G carries Ethernet too, but the header does not say so.
        _ => Step::Break(Stop::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::super::frames::{
        check, cut, ethernet, geneve, gre, gtp_u, icmp, ipv4, ipv6, join, label, pppoe, tag, tcp, udp, vxlan, with,
    };
    use super::*;
    use base::packet::LinkType;

    /// A frame whose addresses differ from those of the frame around it.
    fn inner() -> Vec<u8> {
        with(26, 192, ethernet(0x0800, &ipv4(6, &tcp(b"inner"))))
    }

    #[test]
    fn mpls_stacks() {
        let frame = |payload: &[u8]| ethernet(0x8847, payload);
        let deep = (0..33).fold(label(true, &inner()), |stack, _| label(false, &stack));
        check(
            LinkType::ETHERNET,
            &[
                ("IPv4", frame(&label(true, &ipv4(6, &tcp(b"")))), "6 10.0.0.1:1000 > 10.0.0.2:80 0@58 depth 1"),
                (
                    "two labels, IPv6",
                    frame(&label(false, &label(true, &ipv6(6, &tcp(b""))))),
                    "6 [fd00::1]:1000 > [fd00::2]:80 0@82 depth 2",
                ),
                (
                    "pseudowire",
                    frame(&label(true, &join(&[&[0; 4], &inner()]))),
                    "6 192.0.0.1:1000 > 10.0.0.2:80 5@76 depth 2 tunnel",
                ),
                (
                    "pseudowire with an ARP, its own tag is not the frame's",
                    frame(&label(true, &join(&[&[0; 4], &ethernet(0x8100, &tag(5, 0x0806, &[0; 28]))]))),
                    "0806 020000000001 > 020000000002 28@40 depth 3 tunnel Unknown",
                ),
                (
                    "pseudowire cut",
                    frame(&label(true, &[0; 10])),
                    "8847 020000000001 > 020000000002 14@14 depth 2 Truncated",
                ),
                ("channel", frame(&label(true, &[0x10; 9])), "8847 020000000001 > 020000000002 13@14 depth 1 Unknown"),
                ("no bottom", frame(&label(false, &[])), "8847 020000000001 > 020000000002 4@14 depth 1 Truncated"),
                ("34 labels", frame(&deep), "8847 020000000001 > 020000000002 195@14 depth 32 TooDeep"),
            ],
        );
    }

    #[test]
    fn pppoe_sessions() {
        let frame = |payload: &[u8]| ethernet(0x8864, payload);
        let session = pppoe(3, 0x0021, &ipv4(6, &tcp(b"hello")));
        check(
            LinkType::ETHERNET,
            &[
                ("IPv4", frame(&session), "6 10.0.0.1:1000 > 10.0.0.2:80 5@62 depth 1 tunnel"),
                (
                    "LCP",
                    frame(&pppoe(3, 0xc021, &[9, 0, 0, 8])),
                    "8864 020000000001 > 020000000002 12@14 depth 1 Unknown",
                ),
                (
                    "discovery",
                    ethernet(0x8863, &[0x11, 9, 0, 0, 0, 0]),
                    "8863 020000000001 > 020000000002 6@14 Unknown",
                ),
                ("code", frame(&with(1, 0xa7, session.clone())), "8864 020000000001 > 020000000002 53@14 Unknown"),
                (
                    "version 2",
                    frame(&with(0, 0x21, session.clone())),
                    "8864 020000000001 > 020000000002 53@14 Malformed",
                ),
                (
                    "over QinQ",
                    ethernet(0x88a8, &tag(100, 0x8100, &tag(200, 0x8864, &session))),
                    "6 10.0.0.1:1000 > 10.0.0.2:80 5@70 vlan 100/200 depth 3 tunnel",
                ),
            ],
        );
    }

    #[test]
    fn gre_of_all_kinds() {
        let packet = |payload: &[u8]| ipv4(47, payload);
        let v4 = with(12, 192, ipv4(6, &tcp(b"inner")));
        let ppp = |protocol: [u8; 2]| join(&[&[0xff, 3], &protocol, &v4]);
        check(
            LinkType::RAW,
            &[
                ("plain", packet(&gre(0, 0x0800, &[], &v4)), "6 192.0.0.1:1000 > 10.0.0.2:80 5@64 depth 1 tunnel"),
                (
                    "checksum, key and sequence",
                    packet(&gre(0xb000, 0x0800, &[0; 12], &v4)),
                    "6 192.0.0.1:1000 > 10.0.0.2:80 5@76 depth 1 tunnel",
                ),
                (
                    "bridging",
                    packet(&gre(0, 0x6558, &[], &inner())),
                    "6 192.0.0.1:1000 > 10.0.0.2:80 5@78 depth 1 tunnel",
                ),
                (
                    "within GRE",
                    packet(&gre(0, 0x0800, &[], &packet(&gre(0, 0x86dd, &[], &ipv6(17, &udp(53, b"")))))),
                    "17 [fd00::1]:1000 > [fd00::2]:53 0@96 depth 2 tunnel",
                ),
                (
                    "MPLS",
                    packet(&gre(0, 0x8847, &[], &label(true, &v4))),
                    "6 192.0.0.1:1000 > 10.0.0.2:80 5@68 depth 2 tunnel",
                ),
                (
                    "ERSPAN I",
                    packet(&gre(0, 0x88be, &[], &inner())),
                    "6 192.0.0.1:1000 > 10.0.0.2:80 5@78 depth 1 tunnel",
                ),
                (
                    "ERSPAN II",
                    packet(&gre(0x1000, 0x88be, &[0, 0, 0, 1, 0x10, 0, 0, 5, 0, 0, 0, 0], &inner())),
                    "6 192.0.0.1:1000 > 10.0.0.2:80 5@90 depth 1 tunnel",
                ),
                (
                    "ERSPAN III with a subheader",
                    packet(&gre(
                        0x1000,
                        0x22eb,
                        &join(&[&[0, 0, 0, 1, 0x20, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1], &[0; 8]]),
                        &inner(),
                    )),
                    "6 192.0.0.1:1000 > 10.0.0.2:80 5@102 depth 1 tunnel",
                ),
                (
                    "PPTP",
                    packet(&gre(0x3081, 0x880b, &[0, 49, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1], &ppp([0, 0x21]))),
                    "6 192.0.0.1:1000 > 10.0.0.2:80 5@80 depth 1 tunnel",
                ),
                (
                    "PPTP, compressed and encrypted",
                    packet(&gre(0x3001, 0x880b, &[0, 49, 0, 7, 0, 0, 0, 1], &ppp([0, 0xfd]))),
                    "47 10.0.0.1:0 > 10.0.0.2:0 61@20 depth 1 Unknown",
                ),
                (
                    "PPTP, acknowledgment",
                    packet(&gre(0x2081, 0x880b, &[0; 8], &[])),
                    "47 10.0.0.1:0 > 10.0.0.2:0 12@20",
                ),
                ("keepalive", packet(&gre(0, 0, &[], &[])), "47 10.0.0.1:0 > 10.0.0.2:0 4@20 Unknown"),
                (
                    "source routes",
                    packet(&gre(0x4000, 0x0800, &[0; 8], &v4)),
                    "47 10.0.0.1:0 > 10.0.0.2:0 57@20 Unknown",
                ),
                (
                    "bad inside",
                    packet(&gre(0, 0x0800, &[], &[0x55; 30])),
                    "47 10.0.0.1:0 > 10.0.0.2:0 34@20 depth 1 Malformed",
                ),
                ("cut", cut(23, &packet(&gre(0, 0x0800, &[], &v4))), "47 10.0.0.1:0 > 10.0.0.2:0 49@20 Truncated"),
            ],
        );
    }

    #[test]
    fn ip_in_ip_in_both() {
        let ping = with(12, 192, ipv4(1, &icmp(8, 0)));
        let deep = (0..40).fold(ping.clone(), |inner, _| ipv4(4, &inner));
        check(
            LinkType::RAW,
            &[
                ("4 in 4", ipv4(4, &ping), "1 192.0.0.1:8 > 10.0.0.2:0 3@48 depth 1 tunnel"),
                ("6 in 4", ipv4(41, &ipv6(58, &icmp(128, 0))), "58 [fd00::1]:128 > [fd00::2]:129 7@64 depth 1 tunnel"),
                ("4 in 6", ipv6(4, &ping), "1 192.0.0.1:8 > 10.0.0.2:0 3@68 depth 1 tunnel"),
                ("6 in 6", ipv6(41, &ipv6(17, &udp(53, b""))), "17 [fd00::1]:1000 > [fd00::2]:53 0@88 depth 1 tunnel"),
                ("the wrong version", ipv4(41, &ping), "41 10.0.0.1:0 > 10.0.0.2:0 31@20 depth 1 Malformed"),
                ("too deep", deep, "4 10.0.0.1:0 > 10.0.0.2:0 171@660 depth 32 tunnel TooDeep"),
            ],
        );
    }

    #[test]
    fn tunnels_in_udp() {
        let packet = |port, payload: &[u8]| ipv4(17, &udp(port, payload));
        let v4 = with(12, 192, ipv4(6, &tcp(b"inner")));
        let opened = |offset| format!("6 192.0.0.1:1000 > 10.0.0.2:80 5@{offset} depth 1 tunnel");
        check(
            LinkType::RAW,
            &[
                ("VXLAN", packet(4789, &vxlan(5, &inner())), &opened(90)),
                ("VXLAN, Linux's port", packet(8472, &vxlan(5, &inner())), &opened(90)),
                ("VXLAN-GPE, Ethernet", packet(4790, &with(0, 12, with(3, 3, vxlan(5, &inner())))), &opened(90)),
                ("VXLAN-GPE, IPv4", packet(4790, &with(0, 12, with(3, 1, vxlan(5, &v4)))), &opened(76)),
                (
                    "VXLAN-GPE, NSH",
                    packet(4790, &with(0, 12, with(3, 4, vxlan(5, &v4)))),
                    "17 10.0.0.1:1000 > 10.0.0.2:4790 53@28 Unknown",
                ),
                ("another port", packet(4788, &vxlan(5, &inner())), "17 10.0.0.1:1000 > 10.0.0.2:4788 67@28"),
                (
                    "VXLAN without a valid id",
                    packet(4789, &with(0, 0, vxlan(5, &inner()))),
                    "17 10.0.0.1:1000 > 10.0.0.2:4789 67@28",
                ),
                (
                    "VXLAN, inside cut",
                    cut(49, &packet(4789, &vxlan(5, &inner()))),
                    "17 10.0.0.1:1000 > 10.0.0.2:4789 67@28 depth 1 Truncated",
                ),
                (
                    "VXLAN, inner IP lies",
                    packet(4789, &vxlan(5, &with(14, 0x22, inner()))),
                    "0800 020000000001 > 020000000002 45@50 depth 1 tunnel Malformed",
                ),
                ("VXLAN, too short", packet(4789, &[8, 0]), "17 10.0.0.1:1000 > 10.0.0.2:4789 2@28 Malformed"),
                ("Geneve", packet(6081, &geneve(5, 0x6558, &[], &inner())), &opened(90)),
                ("Geneve with options, IPv4", packet(6081, &geneve(5, 0x0800, &[0; 8], &v4)), &opened(84)),
                (
                    "Geneve of something else",
                    packet(6081, &geneve(5, 0x1234, &[], &v4)),
                    "17 10.0.0.1:1000 > 10.0.0.2:6081 53@28 Unknown",
                ),
                ("GTP-U", packet(2152, &gtp_u(0, 255, &[], &v4)), &opened(76)),
                ("GTP-U with a sequence number", packet(2152, &gtp_u(2, 255, &[0, 1, 0, 0], &v4)), &opened(80)),
                (
                    "GTP-U with extension headers",
                    packet(2152, &gtp_u(4, 255, &[0, 0, 0, 0x85, 1, 0, 0, 0x40, 1, 0, 0, 0], &v4)),
                    &opened(88),
                ),
                (
                    "GTP-U echo request",
                    packet(2152, &gtp_u(2, 1, &[0, 1, 0, 0], &[])),
                    "17 10.0.0.1:1000 > 10.0.0.2:2152 12@28",
                ),
                (
                    "GTP-U, extension of no length",
                    packet(2152, &gtp_u(4, 255, &[0, 0, 0, 0x85, 0, 0, 0, 0], &v4)),
                    "17 10.0.0.1:1000 > 10.0.0.2:2152 61@28 Malformed",
                ),
                (
                    "GTP-U of no IP",
                    packet(2152, &gtp_u(0, 255, &[], b"\x02thernet")),
                    "17 10.0.0.1:1000 > 10.0.0.2:2152 16@28 depth 1 Unknown",
                ),
            ],
        );
    }

    #[test]
    fn tunnels_keep_tenants_apart_and_sessions_together() {
        let tunnel = |packet: &[u8]| decode(LinkType::RAW, packet).tunnel;
        let vxlan = |id| tunnel(&ipv4(17, &udp(4789, &vxlan(id, &inner()))));
        let geneve = |id| tunnel(&ipv4(17, &udp(6081, &geneve(id, 0x6558, &[], &inner()))));
        assert_ne!(vxlan(1), vxlan(2));
        assert_ne!(vxlan(1), geneve(1));
        let user = |teid| tunnel(&ipv4(17, &udp(2152, &with(7, teid, gtp_u(0, 255, &[], &ipv4(6, &tcp(b"")))))));
        assert_eq!(user(1), user(2), "each direction has its own id");
        let ids: std::collections::HashSet<u32> = (0..100_000).map(|id| mix(0, Kind::Vxlan, id)).collect();
        assert!(ids.len() == 100_000 && !ids.contains(&0));
    }
}
