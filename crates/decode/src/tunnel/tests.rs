//! Tests of tunnels: frames of every kind, and the expected results.

use crate::decode;
use crate::frames::{
    check, cut, ethernet, geneve, gre, gtp_u, icmp, ipv4, ipv6, join, label, pppoe, tag, tcp, udp, vxlan, with,
};
use crate::tunnel_id::{TunnelKind, mix};
use base::packet::LinkType;

/// Builds a frame whose addresses differ from those of the outer frame.
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
                "pseudowire without a control word",
                frame(&label(true, &inner())),
                "6 192.0.0.1:1000 > 10.0.0.2:80 5@72 depth 2 tunnel",
            ),
            (
                "the same, from an address that begins like IPv4",
                frame(&label(true, &with(0, 0x45, inner()))),
                "6 192.0.0.1:1000 > 10.0.0.2:80 5@72 depth 2 tunnel",
            ),
            (
                "the same, to an address that begins with 0",
                frame(&label(true, &with(0, 0, inner()))),
                "6 192.0.0.1:1000 > 10.0.0.2:80 5@72 depth 2 tunnel",
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
            ("LCP", frame(&pppoe(3, 0xc021, &[9, 0, 0, 8])), "8864 020000000001 > 020000000002 12@14 depth 1 Unknown"),
            ("discovery", ethernet(0x8863, &[0x11, 9, 0, 0, 0, 0]), "8863 020000000001 > 020000000002 6@14 Unknown"),
            ("code", frame(&with(1, 0xa7, session.clone())), "8864 020000000001 > 020000000002 53@14 Unknown"),
            ("version 2", frame(&with(0, 0x21, session.clone())), "8864 020000000001 > 020000000002 53@14 Malformed"),
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
            ("bridging", packet(&gre(0, 0x6558, &[], &inner())), "6 192.0.0.1:1000 > 10.0.0.2:80 5@78 depth 1 tunnel"),
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
            ("ERSPAN I", packet(&gre(0, 0x88be, &[], &inner())), "6 192.0.0.1:1000 > 10.0.0.2:80 5@78 depth 1 tunnel"),
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
            ("PPTP, acknowledgment", packet(&gre(0x2081, 0x880b, &[0; 8], &[])), "47 10.0.0.1:0 > 10.0.0.2:0 12@20"),
            ("keepalive", packet(&gre(0, 0, &[], &[])), "47 10.0.0.1:0 > 10.0.0.2:0 4@20 Unknown"),
            ("source routes", packet(&gre(0x4000, 0x0800, &[0; 8], &v4)), "47 10.0.0.1:0 > 10.0.0.2:0 57@20 Unknown"),
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
                packet(4790, &with(0, 12, with(3, 4, vxlan(5, &join(&[&[0, 2, 1, 1, 0, 0, 0, 1], &v4]))))),
                &opened(84).replace("depth 1", "depth 2"),
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
    let ids: std::collections::HashSet<u32> = (0..100_000).map(|id| mix(0, TunnelKind::Vxlan, id)).collect();
    assert!(ids.len() == 100_000 && !ids.contains(&0));
}
