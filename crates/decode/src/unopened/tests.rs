use super::super::decode;
use super::super::frames::{
    cut, ethernet, geneve, gre, ipv4, ipv4_with, ipv6, join, label, tag, tcp, udp, vxlan, with,
};
use super::*;
use base::packet::LinkType;

/// What was not opened, in words; empty for opened packets. The endpoints must not claim otherwise.
fn said(link_type: LinkType, frame: &[u8]) -> String {
    let found = unopened(link_type, frame);
    let decoded = decode(link_type, frame);
    let ethertype = if decoded.network == Network::Link { decoded.ethertype } else { 0 };
    let by_endpoints =
        openness(decoded.network, ethertype, decoded.protocol, [decoded.source_port, decoded.destination_port]);
    match (by_endpoints, found) {
        (Openness::Opened, Some(_)) if layers::opens(link_type) => panic!("{found:?} although {by_endpoints:?}"),
        (Openness::Closed(closed), found) => assert_eq!(Some(closed), found),
        _ => {}
    }
    found.map_or_else(String::new, |found| format!("{} {}", found.header, found.reason.code()))
}

#[test]
fn what_was_not_opened_is_named() {
    let v4 = ipv4(6, &tcp(b"x"));
    let frame = ethernet(0x0800, &v4);
    let in_udp = |port, payload: &[u8]| ethernet(0x0800, &ipv4(17, &udp(port, payload)));
    let table: &[(Vec<u8>, &str)] = &[
        (frame.clone(), ""),
        (ethernet(0x0806, &[0; 28]), ""),
        (ethernet(38, &join(&[&[0x42, 0x42, 3], &[0; 43]])), ""),
        (ethernet(0x0800, &ipv4(89, &[0; 24])), ""),
        (ethernet(0x0800, &ipv4(1, &[3, 3, 0, 0, 0, 0, 0, 0])), ""),
        (ethernet(0x0800, &ipv4(50, &[0; 24])), "ESP encrypted"),
        (ethernet(0x86dd, &ipv6(108, &[6, 0, 0, 0, 0, 0, 0, 0])), "IPComp compressed"),
        (ethernet(0x0800, &ipv4(200, &[0; 24])), "IP protocol 200 unsupported"),
        (ethernet(0x6558, &frame), "ethertype 0x6558 unsupported"),
        (ethernet(0x4305, &[0, 15, 50, 0, 0, 0]), ""),
        (ethernet(0x4305, &[0x41, 15, 50, 0, 0, 0]), "batman-adv unsupported"),
        (ethernet(0x88e5, &[0x0c, 0, 0, 0, 0, 1, 9, 9]), "MACsec encrypted"),
        (cut(13, &frame), "Ethernet cut"),
        (cut(30, &frame), "IPv4 cut"),
        (cut(36, &frame), "TCP cut"),
        (cut(40, &frame), ""),
        (cut(16, &ethernet(0x8100, &tag(5, 0x0800, &v4))), "a VLAN tag cut"),
        (ethernet(0x0800, &[0x55; 40]), "IPv4 malformed"),
        (cut(60, &in_udp(4789, &vxlan(5, &frame))), "Ethernet cut"),
        (cut(45, &in_udp(4789, &vxlan(5, &frame))), "VXLAN cut"),
        (in_udp(6081, &geneve(5, 0x1234, &[], &frame)), "Geneve unsupported"),
        (in_udp(4500, &[1; 40]), "ESP encrypted"),
        (in_udp(4500, &[0; 40]), ""),
        (in_udp(51_820, &[4, 0, 0, 0, 1, 2, 3, 4]), "WireGuard encrypted"),
        (ethernet(0x0800, &ipv4(6, &with(3, 0xfd, with(2, 0x19, tcp(&[4, 10, 0, 60]))))), "OpenFlow unsupported"),
        (ethernet(0x0800, &ipv4(6, &with(3, 0xfd, with(2, 0x19, tcp(&[4, 2, 0, 8]))))), ""),
        (in_udp(6343, &[0, 0, 0, 5, 0, 0, 0, 1]), "sFlow unsupported"),
        (in_udp(5247, &[1, 0, 0, 0, 22, 0, 0, 0]), "CAPWAP encrypted"),
        (ethernet(0x0800, &ipv4(47, &gre(0, 0x1234, &[], &v4))), "GRE unsupported"),
        (ethernet(0x8847, &label(true, &[0x55; 40])), "MPLS unsupported"),
        (ethernet(0x0800, &ipv4_with(17, 0x0010, &[], b"rest")), "IPv4 fragment"),
        // VRRP has no ports: its later fragments show all endpoints.
        (ethernet(0x0800, &ipv4_with(112, 0x0010, &[], b"rest")), ""),
        (ethernet(0x0800, &ipv4_with(47, 0x0010, &[], b"rest")), "IPv4 fragment"),
        (ethernet(0x880b, &[0xc0, 0x21, 1, 0, 0, 4]), ""),
        (ethernet(0x880b, &[0x00, 0xfd, 9, 9, 9, 9]), "PPP compressed"),
    ];
    for (frame, expected) in table {
        assert_eq!(said(LinkType::ETHERNET, frame), *expected, "{frame:02x?}");
    }
    let deep = (1..33).fold(tag(1, 0x0800, &v4), |inner, id| tag(id + 1, 0x8100, &inner));
    assert_eq!(said(LinkType::ETHERNET, &ethernet(0x8100, &deep)), "a VLAN tag too_deep");
    assert_eq!(said(LinkType(220), &[7; 64]), "link type USB_LINUX_MMAPPED unsupported");
}

#[test]
fn frames_of_802_11() {
    let data =
        |control: u8, flags: u8| join(&[&[control, flags, 0, 0], &[2; 18], &[0, 0], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]]);
    let v4 = ipv4(6, &tcp(b"x"));
    for (frame, expected) in [
        (join(&[&data(8, 1), &v4]), ""),
        (join(&[&data(8, 0x41), &v4]), "802.11 encrypted"),
        (cut(20, &data(8, 0x41)), "802.11 cut"),
        // A null function, a beacon, an acknowledgment.
        (data(0x48, 1), ""),
        (data(0x80, 0), ""),
        (vec![0xd4, 0, 0, 0, 2, 2, 2, 2, 2, 2], ""),
    ] {
        assert_eq!(said(LinkType(105), &frame), expected, "{frame:02x?}");
    }
}
