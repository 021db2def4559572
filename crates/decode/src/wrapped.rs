//! Packets after a header that the capturing system or device wrote: NFLOG, PPI, PKTAP, ERF, PFLOG and others.

use super::decoded::{Network, Stop};
use super::ethertype::{by_ethertype, ethertype_or_length, mac};
use super::layer::{Layer, Step};
use super::walk::{Walk, saturate};
use super::{link_type, network};
use base::packet::LinkType;

/// Returns the layer for an address family: AF_INET is the same everywhere; AF_INET6 has different numbers on Linux,
/// NetBSD and OpenBSD, FreeBSD, and Darwin.
pub(super) fn by_family(family: u32) -> Step {
    match family {
        2 => Step::Continue(Layer::Ipv4),
        10 | 23 | 24 | 26 | 28 | 30 => Step::Continue(Layer::Ipv6),
        _ => Step::Break(Stop::Unknown),
    }
}

/// Returns the layer of a frame whose header names its link type. It counts as a layer, because such headers can be
/// nested.
fn by_link_type(walk: &mut Walk<'_>, link_type: u32) -> Step {
    walk.count_layer()?;
    match u16::try_from(link_type) {
        Ok(link_type) => link_type::outermost(LinkType(link_type)),
        Err(_) => Step::Break(Stop::Unknown),
    }
}

/// Decodes `LINKTYPE_NFLOG`: family, version, resource, then attributes of length, type and value in the byte order of
/// the capturing host.
pub(super) fn nflog(walk: &mut Walk<'_>) -> Step {
    const PACKET_HEADER: u16 = 1;
    const HARDWARE_ADDRESS: u16 = 8;
    const PAYLOAD: u16 = 9;
    /// The maximum attribute type. A larger value means the other byte order.
    const TYPE_MAX: u16 = 0xff;

    let [family, version, _, _] = *walk.take()?;
    if version != 0 {
        return Step::Break(Stop::Unknown);
    }
    let mut next = by_family(family.into());
    let (mut source, mut ethertype) = (0, 0);
    loop {
        walk.understood(Network::Link, 0, source, 0);
        walk.decoded.ethertype = ethertype;
        let [l0, l1, t0, t1] = *walk.take()?;
        let little = u16::from_le_bytes([t0, t1]) & 0x7fff <= TYPE_MAX;
        let number = |bytes| if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) };
        let Some(len) = usize::from(number([l0, l1])).checked_sub(4) else { return Step::Break(Stop::Malformed) };
        match (number([t0, t1]) & 0x7fff, walk.rest) {
            (PAYLOAD, _) => {
                walk.limit(len);
                walk.mark_payload();
                return next;
            }
            (PACKET_HEADER, [p0, p1, ..]) => {
                ethertype = u16::from_be_bytes([*p0, *p1]);
                if next.is_break() {
                    next = by_ethertype(ethertype);
                }
            }
            (HARDWARE_ADDRESS, [0, 6, _, _, a, b, c, d, e, f, ..]) => source = mac([*a, *b, *c, *d, *e, *f]),
            _ => {}
        }
        walk.skip(len.next_multiple_of(4))?;
    }
}

/// Decodes `LINKTYPE_PPI`: version, flags, length, link type, then fields.
pub(super) fn ppi(walk: &mut Walk<'_>) -> Step {
    let [_, _, l0, l1, t0, t1, t2, t3] = *walk.peek()?;
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    if len < 8 {
        return Step::Break(Stop::Malformed);
    }
    walk.skip(len)?;
    by_link_type(walk, u32::from_le_bytes([t0, t1, t2, t3]))
}

/// Decodes `LINKTYPE_PKTAP` (Darwin): length, record type, link type, then fields about the interface and process.
pub(super) fn pktap(walk: &mut Walk<'_>) -> Step {
    const RECORD_PACKET: u32 = 1;

    let [l0, l1, l2, l3, k0, k1, k2, k3, t0, t1, t2, t3] = *walk.peek()?;
    let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    if len < 12 {
        return Step::Break(Stop::Malformed);
    }
    if u32::from_le_bytes([k0, k1, k2, k3]) != RECORD_PACKET {
        return Step::Break(Stop::Unknown);
    }
    walk.skip(len)?;
    by_link_type(walk, u32::from_le_bytes([t0, t1, t2, t3]))
}

/// Decodes `LINKTYPE_ERF` (Endace): time, type, flags, lengths, loss counter, then extension headers while the top bit
/// of the type is set.
pub(super) fn erf(walk: &mut Walk<'_>) -> Step {
    const EXTENDED: u8 = 0x80;

    let [_, _, _, _, _, _, _, _, kind, _, _, _, _, _, w0, w1] = *walk.take()?;
    let mut extended = kind & EXTENDED != 0;
    while extended {
        walk.count_layer()?;
        let [kind, ..] = *walk.take::<8>()?;
        extended = kind & EXTENDED != 0;
    }
    walk.limit(usize::from(u16::from_be_bytes([w0, w1])).saturating_add(2));
    match kind & !EXTENDED {
        // Four record types of HDLC.
        1 | 5 | 9 | 17 => Step::Continue(Layer::Serial),
        // Five record types of Ethernet, with two bytes of padding.
        2 | 11 | 16 | 20 | 26 => {
            walk.skip(2)?;
            Step::Continue(Layer::Ethernet)
        }
        22 => Step::Continue(Layer::Ipv4),
        23 => Step::Continue(Layer::Ipv6),
        _ => Step::Break(Stop::Unknown),
    }
}

/// Decodes `LINKTYPE_PFLOG`: the length of the header without its padding, the address family, then fields about the
/// packet filter's action.
pub(super) fn pflog(walk: &mut Walk<'_>) -> Step {
    let [len, family] = *walk.peek()?;
    if len < 4 {
        return Step::Break(Stop::Malformed);
    }
    walk.skip(usize::from(len).next_multiple_of(4))?;
    walk.understood(Network::Link, 0, 0, 0);
    by_family(family.into())
}

/// Decodes `LINKTYPE_ENC` (OpenBSD's IPsec interface): address family, SPI, flags.
pub(super) fn enc(walk: &mut Walk<'_>) -> Step {
    let [f0, f1, f2, f3, _, _, _, _, _, _, _, _] = *walk.take()?;
    walk.understood(Network::Link, 0, 0, 0);
    let family = u32::from_le_bytes([f0, f1, f2, f3]);
    by_family(if family > 0xffff { family.swap_bytes() } else { family })
}

/// Decodes `LINKTYPE_IPNET` (Solaris): version, address family, then fields about interfaces and zones.
pub(super) fn ipnet(walk: &mut Walk<'_>) -> Step {
    let [_, family, ..] = *walk.take::<24>()?;
    walk.understood(Network::Link, 0, 0, 0);
    by_family(family.into())
}

/// Decodes `LINKTYPE_ETHERNET_MPACKET` (IEEE 802.3br): a preamble of eight bytes whose last byte is the packet type.
pub(super) fn mpacket(walk: &mut Walk<'_>) -> Step {
    const EXPRESS: u8 = 0xd5;
    /// The delimiters of first fragments of preemptable packets.
    const STARTS: [u8; 4] = [0xe6, 0x4c, 0x7f, 0xb3];

    let [.., delimiter] = *walk.take::<8>()?;
    if delimiter == EXPRESS || STARTS.contains(&delimiter) {
        return Step::Continue(Layer::Ethernet);
    }
    Step::Break(Stop::Unknown)
}

/// Decodes Ethernet with a switch tag between addresses and ethertype (Marvell DSA and EDSA, Broadcom).
pub(super) fn switch_tagged(walk: &mut Walk<'_>, tag_bytes: u8) -> Step {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = *walk.take()?;
    walk.understood(Network::Link, 0, mac([s0, s1, s2, s3, s4, s5]), mac([d0, d1, d2, d3, d4, d5]));
    walk.skip(tag_bytes.into())?;
    let [t0, t1] = *walk.take()?;
    ethertype_or_length(walk, u16::from_be_bytes([t0, t1]))
}

/// Decodes `LINKTYPE_WIRESHARK_UPPER_PDU`. Tags name the endpoints. The headers around the exported data are absent.
pub(super) fn exported_pdu(walk: &mut Walk<'_>) -> Step {
    const END: u16 = 0;
    const PORT_KINDS: [(u32, u8); 3] = [(1, 132), (2, 6), (3, 17)];

    let (mut network, mut protocol, mut addresses, mut ports) = (Network::Link, 0, [0; 2], [0u16; 2]);
    loop {
        let [t0, t1, l0, l1] = *walk.take()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let tag = u16::from_be_bytes([t0, t1]);
        if tag == END {
            break;
        }
        let value = walk.rest;
        walk.skip(len)?;
        let number = || value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        match (tag, len) {
            (20 | 21, 4) => {
                network = Network::Ipv4;
                addresses[usize::from(tag - 20)] = number().into();
            }
            (22 | 23, 16) => {
                network = Network::Ipv6;
                addresses[usize::from(tag - 22)] = value.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes));
            }
            (24, 4) => protocol = PORT_KINDS.iter().find(|kind| kind.0 == number()).map_or(0, |kind| kind.1),
            (25 | 26, 4) => ports[usize::from(tag - 25)] = u16::try_from(number()).unwrap_or(0),
            _ => {}
        }
    }
    if network == Network::Link {
        return Step::Break(Stop::Unknown);
    }
    walk.understood(network, protocol, addresses[0], addresses[1]);
    let decoded = &mut *walk.decoded;
    decoded.ethertype = if network == Network::Ipv4 { 0x0800 } else { 0x86dd };
    if protocol != 0 {
        [decoded.source_port, decoded.destination_port] = ports;
    }
    decoded.payload_offset = saturate(walk.offset);
    Step::Break(if protocol == 0 { Stop::Unknown } else { Stop::Complete })
}

/// Decodes IP of either version after a header of `header_bytes` bytes.
pub(super) fn raw_ip(walk: &mut Walk<'_>, header_bytes: usize) -> Step {
    walk.skip(header_bytes)?;
    network::ip(walk)
}

#[cfg(test)]
mod tests {
    use super::super::frames::{check, cut, ethernet, ipv4, ipv6, join, tcp};
    use base::packet::LinkType;

    const V4: &str = "6 10.0.0.1:1000 > 10.0.0.2:80";
    const V6: &str = "6 [fd00::1]:1000 > [fd00::2]:80";

    fn v4() -> Vec<u8> {
        ipv4(6, &tcp(b"x"))
    }

    #[test]
    fn nflog_in_either_byte_order() {
        let attribute = |kind: u8, value: &[u8], little: bool| {
            let len = u8::try_from(4 + value.len()).expect("short");
            let header = if little { [len, 0, kind, 0] } else { [0, len, 0, kind] };
            join(&[&header, value, &vec![0; value.len().wrapping_neg() & 3]])
        };
        let frame = |family, little| {
            let packet_header = attribute(1, &[8, 0, 3, 0], little);
            let prefix = attribute(10, b"in:\0\0", little);
            let address = attribute(8, &[0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0], little);
            join(&[&[family, 0, 0, 5], &packet_header, &prefix, &address, &attribute(9, &v4(), little)])
        };
        check(
            LinkType(239),
            &[
                ("little-endian", frame(2, true), &format!("{V4} 1@84")),
                ("big-endian", frame(2, false), &format!("{V4} 1@84")),
                ("a bridge's, by its ethertype", frame(7, true), &format!("{V4} 1@84")),
                ("no payload", cut(40, &frame(2, true)), "0800 020000000001 > 000000000000 0@40 Truncated"),
                ("attribute too short", vec![2, 0, 0, 0, 3, 0, 1, 0], "0000 000000000000 > 000000000000 4@4 Malformed"),
            ],
        );
    }

    #[test]
    fn headers_that_name_a_link_type() {
        let inner = ethernet(0x800, &v4());
        let ppi = |link_type: u8, inner: &[u8]| join(&[&[0, 0, 12, 0, link_type, 0, 0, 0, 1, 2, 3, 4], inner]);
        let nested = (0..40).fold(inner.clone(), |frame, _| ppi(192, &frame));
        check(
            LinkType(192),
            &[
                ("Ethernet", ppi(1, &inner), &format!("{V4} 1@66")),
                ("itself", ppi(192, &ppi(1, &inner)), &format!("{V4} 1@78")),
                ("too often", nested, "0000 000000000000 > 000000000000 535@0 TooDeep"),
                ("too short", vec![0, 0, 7, 0, 1, 0, 0, 0], "0000 000000000000 > 000000000000 8@0 Malformed"),
            ],
        );
        let pktap = |kind| join(&[&[16, 0, 0, 0, kind, 0, 0, 0, 12, 0, 0, 0, 9, 9, 9, 9], &v4()]);
        check(
            LinkType(258),
            &[
                ("raw IP", pktap(1), &format!("{V4} 1@56")),
                ("no packet", pktap(2), "0000 000000000000 > 000000000000 57@0 Unknown"),
            ],
        );
    }

    #[test]
    fn headers_of_devices() {
        let inner = ethernet(0x800, &v4());
        let erf =
            |kind: u8, between: &[u8], inner: &[u8]| join(&[&[0; 8], &[kind, 0, 0, 0, 0, 0, 0, 99], between, inner]);
        check(
            LinkType(197),
            &[
                ("Ethernet", erf(2, &[0, 0], &inner), &format!("{V4} 1@72")),
                ("extended", erf(0x82, &[0; 10], &inner), &format!("{V4} 1@80")),
                ("IPv4", erf(22, &[], &v4()), &format!("{V4} 1@56")),
                ("HDLC", erf(1, &[0xff, 3, 0, 0x21], &v4()), &format!("{V4} 1@60")),
            ],
        );
        let v6 = ipv6(6, &tcp(b"x"));
        check(LinkType(117), &[("pf", join(&[&[61, 2], &[0; 62], &v4()]), &format!("{V4} 1@104"))]);
        check(LinkType(109), &[("enc", join(&[&[0, 0, 0, 24], &[0; 8], &v6]), &format!("{V6} 1@72"))]);
        check(LinkType(226), &[("ipnet", join(&[&[1, 26], &[0; 22], &v6]), &format!("{V6} 1@84"))]);
        check(LinkType(8), &[("SLIP", join(&[&[0; 16], &v4()]), &format!("{V4} 1@56"))]);
        check(LinkType(240), &[("netANALYZER", join(&[&[0; 4], &inner]), &format!("{V4} 1@58"))]);
        check(LinkType(241), &[("transparent", join(&[&[0; 12], &inner]), &format!("{V4} 1@66"))]);
        let preamble = [0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0xd5];
        check(LinkType(274), &[("mPacket", join(&[&preamble, &inner]), &format!("{V4} 1@62"))]);
        let (addresses, rest) = inner.split_at(12);
        for (link_type, tag) in [(281, 4), (284, 4), (285, 8)] {
            let tagged = join(&[addresses, &vec![0; tag], rest]);
            check(LinkType(link_type), &[("tagged", tagged, &format!("{V4} 1@{}", 54 + tag))]);
        }
        check(LinkType(282), &[("tag in front", join(&[&[0; 4], &inner]), &format!("{V4} 1@58"))]);
        check(LinkType(219), &[("MPLS", super::super::frames::label(true, &v4()), &format!("{V4} 1@44 depth 1"))]);
    }

    #[test]
    fn exported_pdus_name_their_endpoints() {
        let pdu = join(&[
            &[0, 12, 0, 4, b'h', b't', b't', b'p', 0, 20, 0, 4, 10, 0, 0, 1, 0, 21, 0, 4, 10, 0, 0, 2],
            &[0, 24, 0, 4, 0, 0, 0, 2, 0, 25, 0, 4, 0, 0, 0x03, 0xe8, 0, 26, 0, 4, 0, 0, 0, 80, 0, 0, 0, 0],
            b"GET /",
        ]);
        check(
            LinkType(252),
            &[
                ("HTTP", pdu.clone(), &format!("{V4} 5@52")),
                ("no addresses", pdu[48..].to_vec(), "0000 000000000000 > 000000000000 9@0 Unknown"),
                ("cut", cut(30, &pdu), "0000 000000000000 > 000000000000 30@0 Truncated"),
            ],
        );
    }
}
