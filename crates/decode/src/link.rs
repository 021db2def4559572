//! Link layers: Ethernet with VLAN tags, LLC and SNAP, cooked and loopback headers, PPP.
//!
//! A decoded link header gives a [`Network::Link`] session. An IP header inside replaces that session.

use super::decoded::{Network, Stop};
use super::ethertype::{by_ethertype, ethertype_or_length, mac};
use super::layer::{Layer, Step};
use super::walk::Walk;
use super::{wan, wrapped};

/// The Linux protocol number of a frame with an 802.2 header (`ETH_P_802_2`), where cooked headers hold an ethertype.
const PROTOCOL_LLC: u16 = 4;

/// The Linux `ARPHRD_NETLINK` type of netlink messages, whose protocol field is not an ethertype.
const HARDWARE_NETLINK: u16 = 824;

/// Decodes Ethernet II or IEEE 802.3, without preamble and FCS.
#[inline]
pub(super) fn ethernet(walk: &mut Walk<'_>) -> Step {
    let header: &[u8; 14] = walk.take()?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
    walk.understood(Network::Link, 0, mac([s0, s1, s2, s3, s4, s5]), mac([d0, d1, d2, d3, d4, d5]));
    ethertype_or_length(walk, u16::from_be_bytes([t0, t1]))
}

/// Decodes one VLAN tag (IEEE 802.1Q) and the ethertype after it.
pub(super) fn vlan(walk: &mut Walk<'_>) -> Step {
    let [c0, c1, t0, t1] = *walk.take()?;
    walk.open_label()?;
    if walk.tunnel == 0 {
        let id = u16::from_be_bytes([c0, c1]) & 0x0fff;
        let decoded = &mut *walk.decoded;
        match (decoded.vlan, decoded.inner_vlan) {
            (None, _) => decoded.vlan = Some(id),
            (_, None) => decoded.inner_vlan = Some(id),
            _ => {}
        }
    }
    walk.mark_payload();
    ethertype_or_length(walk, u16::from_be_bytes([t0, t1]))
}

/// Decodes IEEE 802.2 LLC. With SNAP (RFC 1042), an ethertype follows.
pub(super) fn llc(walk: &mut Walk<'_>) -> Step {
    match *walk.take()? {
        [0xaa, 0xaa, 0x03] => wan::snap(walk),
        // The access point of IP.
        [0x06, 0x06, 0x03] => Step::Continue(Layer::Ipv4),
        _ => Step::Break(Stop::Unknown),
    }
}

/// Decodes `LINKTYPE_LINUX_SLL`: packet type, hardware type, address length, address, protocol.
pub(super) fn linux_sll(walk: &mut Walk<'_>) -> Step {
    let header: &[u8; 16] = walk.take()?;
    let [_, _, h0, h1, l0, l1, a0, a1, a2, a3, a4, a5, _, _, p0, p1] = *header;
    let source = if [l0, l1] == [0, 6] { mac([a0, a1, a2, a3, a4, a5]) } else { 0 };
    cooked(walk, u16::from_be_bytes([h0, h1]), source, u16::from_be_bytes([p0, p1]))
}

/// Decodes `LINKTYPE_LINUX_SLL2`: protocol, reserved, interface index, hardware type, packet type, address length,
/// address.
pub(super) fn linux_sll2(walk: &mut Walk<'_>) -> Step {
    let header: &[u8; 20] = walk.take()?;
    let [p0, p1, _, _, _, _, _, _, h0, h1, _, len, a0, a1, a2, a3, a4, a5, _, _] = *header;
    let source = if len == 6 { mac([a0, a1, a2, a3, a4, a5]) } else { 0 };
    cooked(walk, u16::from_be_bytes([h0, h1]), source, u16::from_be_bytes([p0, p1]))
}

/// Decodes the common part of cooked headers, which hold the sender's address only.
fn cooked(walk: &mut Walk<'_>, hardware: u16, source: u128, protocol: u16) -> Step {
    walk.understood(Network::Link, 0, source, 0);
    match (hardware, protocol) {
        (HARDWARE_NETLINK, _) => Step::Break(Stop::Unknown),
        (_, PROTOCOL_LLC) => Step::Continue(Layer::Llc),
        _ => {
            walk.decoded.ethertype = protocol;
            by_ethertype(protocol)
        }
    }
}

/// Decodes `LINKTYPE_NULL` and `LINKTYPE_LOOP`: an address family in the writer's or in network byte order.
pub(super) fn loopback(walk: &mut Walk<'_>) -> Step {
    let header: &[u8; 4] = walk.take()?;
    walk.understood(Network::Link, 0, 0, 0);
    let family = u32::from_le_bytes(*header);
    // All address families are small numbers, so the value reveals the byte order.
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    wrapped::by_family(family)
}

/// Decodes PPP (RFC 1661), with or without address and control bytes (RFC 1662). The protocol field may be compressed
/// to one byte.
pub(super) fn ppp(walk: &mut Walk<'_>) -> Step {
    if walk.rest.starts_with(&[0xff, 0x03]) {
        walk.skip(2)?;
    }
    let [first] = *walk.take()?;
    let protocol = if first & 1 == 1 {
        u16::from(first)
    } else {
        let [second] = *walk.take()?;
        u16::from_be_bytes([first, second])
    };
    match protocol {
        0x0021 => Step::Continue(Layer::Ipv4),
        0x0057 => Step::Continue(Layer::Ipv6),
        0x0281 | 0x0283 => Step::Continue(Layer::Mpls),
        _ => Step::Break(Stop::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{check, cut, ethernet, ipv4, ipv6, join, tag, tcp};
    use base::packet::LinkType;

    #[test]
    fn ethernet_frames() {
        let syn = ipv4(6, &tcp(b"hello"));
        let snap = |oui: [u8; 3], ethertype: [u8; 2], payload: &[u8]| {
            let frame = join(&[&[0xaa, 0xaa, 3], &oui, &ethertype, payload]);
            ethernet(u16::try_from(frame.len()).expect("short"), &join(&[&frame, &[0; 9]]))
        };
        check(
            LinkType::ETHERNET,
            &[
                ("empty", vec![], "0000 000000000000 > 000000000000 0@0 Truncated"),
                ("13 bytes", cut(13, &ethernet(0x0800, &syn)), "0000 000000000000 > 000000000000 13@0 Truncated"),
                ("14 bytes", cut(14, &ethernet(0x0800, &syn)), "0800 020000000001 > 020000000002 0@14 Truncated"),
                ("IPv4", ethernet(0x0800, &syn), "6 10.0.0.1:1000 > 10.0.0.2:80 5@54"),
                ("IPv6", ethernet(0x86dd, &ipv6(6, &tcp(b"hello"))), "6 [fd00::1]:1000 > [fd00::2]:80 5@74"),
                ("ARP", ethernet(0x0806, &[0; 28]), "0806 020000000001 > 020000000002 28@14 Unknown"),
                ("PROFINET", ethernet(0x8892, &[0; 46]), "8892 020000000001 > 020000000002 46@14 Unknown"),
                ("type of neither kind", ethernet(0x05ff, &[0; 9]), "05ff 020000000001 > 020000000002 9@14 Unknown"),
                (
                    "STP: LLC alone, padded",
                    ethernet(38, &join(&[&[0x42, 0x42, 3], &[0; 43]])),
                    "0000 020000000001 > 020000000002 38@14 Unknown",
                ),
                ("LLC cut", ethernet(38, &[0x42, 0x42]), "0000 020000000001 > 020000000002 38@14 Truncated"),
                ("LLC too short", ethernet(2, &[0; 46]), "0000 020000000001 > 020000000002 2@14 Malformed"),
                ("IPv4 in LLC", ethernet(48, &join(&[&[6, 6, 3], &syn])), "6 10.0.0.1:1000 > 10.0.0.2:80 5@57"),
                ("SNAP, IPv4", snap([0; 3], [8, 0], &syn), "6 10.0.0.1:1000 > 10.0.0.2:80 5@62"),
                ("SNAP, AARP", snap([0; 3], [0x80, 0xf3], b"a"), "80f3 020000000001 > 020000000002 1@22 Unknown"),
                ("SNAP, CDP", snap([0, 0, 12], [0x20, 0], b"c"), "0000 020000000001 > 020000000002 9@14 Unknown"),
            ],
        );
    }

    #[test]
    fn vlan_tags() {
        let syn = ipv4(6, &tcp(b"hello"));
        let deep = |tags| (1..tags).fold(tag(1, 0x0800, &syn), |inner, id| tag(id + 1, 0x8100, &inner));
        let one = tag(7, 0x0800, &syn);
        check(
            LinkType::ETHERNET,
            &[
                ("802.1Q", ethernet(0x8100, &one), "6 10.0.0.1:1000 > 10.0.0.2:80 5@58 vlan 7 depth 1"),
                ("802.1ad", ethernet(0x88a8, &one), "6 10.0.0.1:1000 > 10.0.0.2:80 5@58 vlan 7 depth 1"),
                ("0x9100", ethernet(0x9100, &one), "6 10.0.0.1:1000 > 10.0.0.2:80 5@58 vlan 7 depth 1"),
                ("0x9200", ethernet(0x9200, &one), "6 10.0.0.1:1000 > 10.0.0.2:80 5@58 vlan 7 depth 1"),
                (
                    "QinQ",
                    ethernet(0x88a8, &tag(100, 0x8100, &one)),
                    "6 10.0.0.1:1000 > 10.0.0.2:80 5@62 vlan 100/7 depth 2",
                ),
                (
                    "the first two of 32",
                    ethernet(0x8100, &deep(32)),
                    "6 10.0.0.1:1000 > 10.0.0.2:80 5@182 vlan 32/31 depth 32",
                ),
                (
                    "33",
                    ethernet(0x8100, &deep(33)),
                    "8100 020000000001 > 020000000002 49@142 vlan 33/32 depth 32 TooDeep",
                ),
                ("tag cut", ethernet(0x8100, &[0, 1, 8]), "8100 020000000001 > 020000000002 3@14 Truncated"),
                (
                    "tagged ARP",
                    ethernet(0x8100, &tag(0, 0x0806, &[0; 28])),
                    "0806 020000000001 > 020000000002 28@18 vlan 0 depth 1 Unknown",
                ),
                (
                    "tagged LLC",
                    ethernet(0x8100, &tag(5, 3, &[0xfe, 0xfe, 3, 0, 0])),
                    "0000 020000000001 > 020000000002 3@18 vlan 5 depth 1 Unknown",
                ),
            ],
        );
    }

    #[test]
    fn cooked_headers() {
        let syn = ipv4(6, &tcp(b"hello"));
        let sll = |hardware, len, protocol: u16, payload: &[u8]| {
            join(&[&[0, 4, 0, hardware, 0, len, 2, 0, 0, 0, 0, 1, 9, 9], &protocol.to_be_bytes(), payload])
        };
        check(
            LinkType::LINUX_SLL,
            &[
                ("IPv4", sll(1, 6, 0x0800, &syn), "6 10.0.0.1:1000 > 10.0.0.2:80 5@56"),
                ("ARP", sll(1, 6, 0x0806, &[0; 28]), "0806 020000000001 > 000000000000 28@16 Unknown"),
                ("no address", sll(1, 0, 0x0806, &[0; 28]), "0806 000000000000 > 000000000000 28@16 Unknown"),
                ("LLC", sll(1, 6, 4, &[0x42, 0x42, 3, 0]), "0000 020000000001 > 000000000000 4@16 Unknown"),
                ("CAN", sll(24, 0, 12, &[0; 16]), "000c 000000000000 > 000000000000 16@16 Unknown"),
                (
                    "tagged",
                    sll(1, 6, 0x8100, &tag(7, 0x800, &syn)),
                    "6 10.0.0.1:1000 > 10.0.0.2:80 5@60 vlan 7 depth 1",
                ),
                ("15 bytes", vec![0; 15], "0000 000000000000 > 000000000000 15@0 Truncated"),
            ],
        );
        let sll2 = |protocol: u16, hardware: u16, len, payload: &[u8]| {
            let hardware = hardware.to_be_bytes();
            let address = [4, len, 2, 0, 0, 0, 0, 1, 9, 9];
            join(&[&protocol.to_be_bytes(), &[0, 0, 0, 0, 0, 3], &hardware, &address, payload])
        };
        check(
            LinkType::LINUX_SLL2,
            &[
                ("IPv4", sll2(0x0800, 1, 6, &syn), "6 10.0.0.1:1000 > 10.0.0.2:80 5@60"),
                ("LLDP", sll2(0x88cc, 1, 6, &[0; 30]), "88cc 020000000001 > 000000000000 30@20 Unknown"),
                ("netlink", sll2(4, 824, 0, &[0xaa; 30]), "0000 000000000000 > 000000000000 30@20 Unknown"),
                ("tun", sll2(0x0800, 65534, 0, &syn), "6 10.0.0.1:1000 > 10.0.0.2:80 5@60"),
                ("19 bytes", vec![0; 19], "0000 000000000000 > 000000000000 19@0 Truncated"),
            ],
        );
    }

    #[test]
    fn loopback_in_either_byte_order() {
        let (v4, v6) = (ipv4(6, &tcp(b"")), ipv6(6, &tcp(b"")));
        let table = [
            ("IPv4, little-endian", join(&[&[2, 0, 0, 0], &v4]), "6 10.0.0.1:1000 > 10.0.0.2:80 0@44"),
            ("IPv4, big-endian", join(&[&[0, 0, 0, 2], &v4]), "6 10.0.0.1:1000 > 10.0.0.2:80 0@44"),
            ("IPv6 of Darwin", join(&[&[30, 0, 0, 0], &v6]), "6 [fd00::1]:1000 > [fd00::2]:80 0@64"),
            ("IPv6 of FreeBSD", join(&[&[0, 0, 0, 28], &v6]), "6 [fd00::1]:1000 > [fd00::2]:80 0@64"),
            ("another family", vec![7, 0, 0, 0, 1], "0000 000000000000 > 000000000000 1@4 Unknown"),
            ("cut", vec![2, 0, 0], "0000 000000000000 > 000000000000 3@0 Truncated"),
        ];
        check(LinkType::NULL, &table);
        check(LinkType::LOOP, &table);
    }

    #[test]
    fn raw_ip_and_ppp() {
        let (v4, v6) = (ipv4(6, &tcp(b"")), ipv6(6, &tcp(b"")));
        let (seen4, seen6) = ("6 10.0.0.1:1000 > 10.0.0.2:80 0@40", "6 [fd00::1]:1000 > [fd00::2]:80 0@60");
        for raw in [LinkType(12), LinkType(14), LinkType(101)] {
            let neither = "0000 000000000000 > 000000000000 1@0 Malformed";
            check(raw, &[("v4", v4.clone(), seen4), ("v6", v6.clone(), seen6), ("neither", vec![0x55], neither)]);
        }
        let wrong_version = "0000 000000000000 > 000000000000 60@0 Malformed";
        check(LinkType::IPV4, &[("v4", v4.clone(), seen4), ("v6", v6.clone(), wrong_version)]);
        check(LinkType::IPV6, &[("v6", v6.clone(), seen6)]);
        check(
            super::super::link_type::PPP,
            &[
                ("HDLC", join(&[&[0xff, 3, 0, 0x21], &v4]), "6 10.0.0.1:1000 > 10.0.0.2:80 0@44"),
                ("no HDLC", join(&[&[0, 0x57], &v6]), "6 [fd00::1]:1000 > [fd00::2]:80 0@62"),
                ("compressed", join(&[&[0x21], &v4]), "6 10.0.0.1:1000 > 10.0.0.2:80 0@41"),
                ("LCP", vec![0xff, 3, 0xc0, 0x21, 1, 0, 0, 4], "0000 000000000000 > 000000000000 8@0 Unknown"),
            ],
        );
        check(LinkType(147), &[("user", vec![1, 2], "0000 000000000000 > 000000000000 2@0 Unknown")]);
    }
}
