//! IPv4 (RFC 791) and IPv6 (RFC 8200) with extension headers and fragments.

use super::decoded::{Fragment, Network, Stop};
use super::layer::{IpVersion, Layer, Step};
use super::walk::Walk;

const PROTOCOL_NONE: u8 = 59;
const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_MOBILITY: u8 = 135;

/// Decodes an IP packet of either version.
pub(super) fn ip(walk: &mut Walk<'_>) -> Step {
    let [first] = *walk.peek()?;
    match first >> 4 {
        4 => Step::Continue(Layer::Ipv4),
        6 => Step::Continue(Layer::Ipv6),
        _ => Step::Break(Stop::Malformed),
    }
}

/// Decodes an IPv4 header with options.
#[inline]
pub(super) fn ipv4(walk: &mut Walk<'_>) -> Step {
    let header: &[u8; 20] = walk.peek()?;
    let [version, _, l0, l1, i0, i1, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_len = usize::from(version & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([l0, l1]));
    if version >> 4 != 4 || header_len < 20 {
        return Step::Break(Stop::Malformed);
    }
    // The total length is 0 in packets that the network card segments, and in coalesced packets above 65,535 bytes.
    if total_len != 0 {
        if total_len < header_len {
            return Step::Break(Stop::Malformed);
        }
        walk.limit(total_len);
    }
    walk.skip(header_len)?;
    let source = u128::from(u32::from_be_bytes([s0, s1, s2, s3]));
    let destination = u128::from(u32::from_be_bytes([d0, d1, d2, d3]));
    walk.understood(Network::Ipv4, protocol, source, destination);

    // More fragments (0x2000), or a fragment offset.
    let fragment = u16::from_be_bytes([f0, f1]) & 0x3fff;
    if fragment != 0 {
        let id = u32::from(u16::from_be_bytes([i0, i1]));
        let first = fragment & 0x1fff == 0;
        // RFC 791: the identification is unique for source, destination and protocol.
        note_fragment(walk, id, first, protocol);
        if !first {
            return Step::Break(Stop::Complete);
        }
    }
    by_protocol(walk, protocol)
}

/// Decodes an IPv6 header.
#[inline]
pub(super) fn ipv6(walk: &mut Walk<'_>) -> Step {
    let header: &[u8; 40] = walk.peek()?;
    let [version, _, _, _, l0, l1, protocol, _, addresses @ ..] = header;
    if version >> 4 != 6 {
        return Step::Break(Stop::Malformed);
    }
    walk.skip(40)?;
    let payload_len = usize::from(u16::from_be_bytes([*l0, *l1]));
    // The payload length is 0 in jumbograms, whose hop-by-hop header holds the length. It is also 0 in packets that the
    // network card segments or has coalesced, which state no length.
    if payload_len != 0 || *protocol == PROTOCOL_NONE {
        walk.limit(payload_len);
    } else if *protocol == PROTOCOL_HOP_BY_HOP
        && let Some(len) = jumbo_len(walk.rest)
    {
        walk.limit(len);
    }
    let [source, destination] = halves(addresses);
    walk.understood(Network::Ipv6, *protocol, source, destination);
    by_protocol(walk, *protocol)
}

#[inline]
pub(super) fn halves(addresses: &[u8; 32]) -> [u128; 2] {
    let (source, destination) = addresses.split_at(16);
    [source, destination].map(|half| half.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes)))
}

/// Returns the jumbo payload length (RFC 2675) of a hop-by-hop header. Lengths up to 65,535 are invalid and ignored.
fn jumbo_len(hop_by_hop: &[u8]) -> Option<usize> {
    let (header, _) = hop_by_hop.split_first_chunk::<2>()?;
    let mut options = hop_by_hop.get(2..(usize::from(header[1]) + 1) * 8)?;
    loop {
        options = match options {
            [0, rest @ ..] => rest,
            [0xc2, 4, a, b, c, d, ..] => {
                let len = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?;
                return (len > usize::from(u16::MAX)).then_some(len);
            }
            [_, len, rest @ ..] => rest.get(usize::from(*len)..)?,
            _ => return None,
        };
    }
}

/// Returns the layer after an IP header or extension header whose next protocol is `protocol`.
#[inline]
pub(super) fn by_protocol(walk: &mut Walk<'_>, protocol: u8) -> Step {
    walk.decoded.protocol = protocol;
    let v6 = walk.decoded.network == Network::Ipv6;
    Step::Continue(match protocol {
        6 => Layer::Tcp,
        17 => Layer::Udp,
        1 => Layer::Icmp,
        58 => Layer::Icmpv6,
        132 => Layer::Sctp,
        4 => Layer::IpInIp(IpVersion::V4),
        41 => Layer::IpInIp(IpVersion::V6),
        47 => Layer::Gre,
        51 => Layer::Authentication,
        // Hop-by-hop, routing, destination options, mobility.
        PROTOCOL_HOP_BY_HOP | 43 | 60 | PROTOCOL_MOBILITY if v6 => Layer::Extension,
        44 if v6 => Layer::Ipv6Fragment,
        97 => Layer::EtherIp,
        103 => Layer::Pim,
        115 => Layer::L2tpV3,
        137 => Layer::MplsInIp,
        143 => Layer::EthernetInIp,
        136 | 33 => Layer::PortsOnly,
        PROTOCOL_NONE if v6 => return Step::Break(Stop::Complete),
        _ => return Step::Break(Stop::Unknown),
    })
}

/// Decodes an extension header of the common form: next header, length in units of 8 bytes without the first unit.
pub(super) fn extension(walk: &mut Walk<'_>) -> Step {
    walk.count_layer()?;
    let [next, len] = *walk.peek()?;
    walk.skip((usize::from(len) + 1) * 8)?;
    walk.mark_payload();
    // A mobility message (RFC 6275) has no next header: it is the transport.
    if walk.decoded.protocol == PROTOCOL_MOBILITY && next == PROTOCOL_NONE {
        return Step::Break(Stop::Complete);
    }
    by_protocol(walk, next)
}

/// Decodes the fragment header. An atomic fragment (RFC 6946: offset 0, no more fragments) counts as unfragmented.
pub(super) fn ipv6_fragment(walk: &mut Walk<'_>) -> Step {
    walk.count_layer()?;
    let [next, _, f0, f1, i0, i1, i2, i3] = *walk.take()?;
    walk.mark_payload();
    // 13 bits of offset, 2 reserved bits, and the more-fragments bit.
    let offset_and_more = u16::from_be_bytes([f0, f1]) & 0xfff9;
    if offset_and_more != 0 {
        let first = offset_and_more & 0xfff8 == 0;
        // RFC 8200: the identification is unique for source and destination. The next header may differ between
        // fragments.
        note_fragment(walk, u32::from_be_bytes([i0, i1, i2, i3]), first, 0);
        if !first {
            walk.decoded.protocol = next;
            return Step::Break(Stop::Complete);
        }
    }
    by_protocol(walk, next)
}

/// Decodes the authentication header (RFC 4302): length in units of 4 bytes without the first two units.
pub(super) fn authentication(walk: &mut Walk<'_>) -> Step {
    walk.count_layer()?;
    let [next, len] = *walk.peek()?;
    walk.skip((usize::from(len) + 2) * 4)?;
    walk.mark_payload();
    by_protocol(walk, next)
}

#[cold]
fn note_fragment(walk: &mut Walk<'_>, id: u32, first: bool, protocol: u8) {
    let decoded = &mut *walk.decoded;
    decoded.fragment = Some(Fragment { id, first });
    // A multiplicative hash of all fields that make the identification unique.
    let mut mix = u64::from(id) << 32 | u64::from(decoded.tunnel);
    for part in [decoded.source >> 64, decoded.source, decoded.destination >> 64, decoded.destination, protocol.into()]
    {
        let [.., a, b, c, d, e, f, g, h] = part.to_be_bytes();
        mix = (mix ^ u64::from_be_bytes([a, b, c, d, e, f, g, h])).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mix ^= mix >> 32;
    }
    decoded.datagram = mix.max(1);
}

#[cfg(test)]
mod tests {
    use super::super::frames::{check, cut, ethernet, extension, ipv4, ipv4_with, ipv6, join, tcp, udp, with};
    use super::super::{Decoded, decode};
    use super::*;
    use base::packet::LinkType;

    const MACS: &str = "0800 020000000001 > 020000000002";

    #[test]
    fn ipv4_headers() {
        let frame = |ip: &[u8]| ethernet(0x0800, ip);
        let syn = ipv4(6, &tcp(b"hello"));
        check(
            LinkType::ETHERNET,
            &[
                ("options", frame(&ipv4_with(6, 0, &[1; 12], &tcp(b"hello"))), "6 10.0.0.1:1000 > 10.0.0.2:80 5@66"),
                ("padding is no payload", frame(&join(&[&syn, &[0; 9]])), "6 10.0.0.1:1000 > 10.0.0.2:80 5@54"),
                ("TSO: no length", frame(&with(3, 0, syn.clone())), "6 10.0.0.1:1000 > 10.0.0.2:80 5@54"),
                ("snaplen", cut(56, &frame(&syn)), "6 10.0.0.1:1000 > 10.0.0.2:80 5@54"),
                (
                    "do not fragment",
                    frame(&ipv4_with(17, 0x4000, &[], &udp(53, b""))),
                    "17 10.0.0.1:1000 > 10.0.0.2:53 0@42",
                ),
                ("RSVP", frame(&ipv4(46, &[1; 8])), "46 10.0.0.1:0 > 10.0.0.2:0 8@34 Unknown"),
                ("nothing inside", frame(&ipv4(6, &[])), "6 10.0.0.1:0 > 10.0.0.2:0 0@34 Malformed"),
                ("version 5", frame(&with(0, 0x55, syn.clone())), &format!("{MACS} 45@14 Malformed")),
                ("header of 16", frame(&with(0, 0x44, syn.clone())), &format!("{MACS} 45@14 Malformed")),
                ("total below header", frame(&with(3, 19, syn.clone())), &format!("{MACS} 45@14 Malformed")),
                ("cut in the header", cut(33, &frame(&syn)), &format!("{MACS} 19@14 Truncated")),
                ("cut in options", cut(35, &frame(&ipv4_with(6, 0, &[1; 8], &[]))), &format!("{MACS} 21@14 Truncated")),
                (
                    "authentication header",
                    frame(&ipv4(51, &join(&[&[6, 4], &[0; 22], &tcp(b"hello")]))),
                    "6 10.0.0.1:1000 > 10.0.0.2:80 5@78",
                ),
                ("ESP", frame(&ipv4(50, &[0; 24])), "50 10.0.0.1:0 > 10.0.0.2:0 24@34 Unknown"),
            ],
        );
    }

    #[test]
    fn ipv4_fragments() {
        let frame = |fragment, payload: &[u8]| ethernet(0x0800, &ipv4_with(17, fragment, &[], payload));
        let start = cut(20, &udp(53, &[0; 100]));
        check(
            LinkType::ETHERNET,
            &[
                ("first", frame(0x2000, &start), "17 10.0.0.1:1000 > 10.0.0.2:53 12@42 first fragment of abcd"),
                ("middle", frame(0x2003, &[0; 16]), "17 10.0.0.1:0 > 10.0.0.2:0 16@34 later fragment of abcd"),
                ("last", frame(0x0005, &[0; 9]), "17 10.0.0.1:0 > 10.0.0.2:0 9@34 later fragment of abcd"),
                (
                    "tiny",
                    frame(0x2000, &[3, 232, 0, 53]),
                    "17 10.0.0.1:1000 > 10.0.0.2:53 0@38 first fragment of abcd Truncated",
                ),
            ],
        );
    }

    #[test]
    fn ipv6_headers() {
        let frame = |next, payload: &[u8]| ethernet(0x86dd, &ipv6(next, payload));
        let syn = tcp(b"hello");
        let hop_by_hop_first = |last: &[u8]| extension(60, &[0; 6], &extension(43, &[0; 14], last));
        check(
            LinkType::ETHERNET,
            &[
                ("padded", join(&[&frame(6, &syn), &[0; 3]]), "6 [fd00::1]:1000 > [fd00::2]:80 5@74"),
                (
                    "a chain",
                    frame(0, &hop_by_hop_first(&extension(135, &[0; 6], &extension(6, &[0; 6], &syn)))),
                    "6 [fd00::1]:1000 > [fd00::2]:80 5@114",
                ),
                ("mobility alone", frame(135, &extension(59, &[0; 6], &[])), "135 [fd00::1]:0 > [fd00::2]:0 0@62"),
                ("none", join(&[&frame(59, &[]), &[0; 6]]), "59 [fd00::1]:0 > [fd00::2]:0 0@54"),
                ("ESP", frame(60, &extension(50, &[0; 6], &[1; 16])), "50 [fd00::1]:0 > [fd00::2]:0 16@62 Unknown"),
                (
                    "hop-by-hop in IPv4 is none",
                    ethernet(0x0800, &ipv4(0, &[6; 8])),
                    "0 10.0.0.1:0 > 10.0.0.2:0 8@34 Unknown",
                ),
                (
                    "authentication header",
                    frame(51, &join(&[&[6, 4], &[0; 22], &syn])),
                    "6 [fd00::1]:1000 > [fd00::2]:80 5@98",
                ),
                (
                    "extension beyond the packet",
                    frame(0, &[6, 9, 0, 0, 0, 0, 0, 0]),
                    "0 [fd00::1]:0 > [fd00::2]:0 8@54 Malformed",
                ),
                (
                    "extension cut",
                    cut(60, &frame(0, &extension(6, &[0; 6], &syn))),
                    "0 [fd00::1]:0 > [fd00::2]:0 33@54 Truncated",
                ),
                ("header cut", cut(53, &frame(6, &syn)), "86dd 020000000001 > 020000000002 39@14 Truncated"),
                ("version 4", with(14, 0x40, frame(6, &syn)), "86dd 020000000001 > 020000000002 65@14 Malformed"),
            ],
        );
    }

    #[test]
    fn extension_headers_are_bounded() {
        let chain = (0..33).fold(tcp(b""), |inner, n| extension(if n == 0 { 6 } else { 60 }, &[0; 6], &inner));
        let expect = "60 [fd00::1]:0 > [fd00::2]:0 28@296 TooDeep";
        check(LinkType::IPV6, &[("33 headers", ipv6(60, &chain), expect)]);
    }

    #[test]
    fn ipv6_fragments() {
        let frame = |more: u8, payload: &[u8]| {
            ethernet(0x86dd, &ipv6(44, &join(&[&[17, 0, 0, more, 0, 1, 0xab, 0xcd], payload])))
        };
        let start = cut(20, &udp(53, &[0; 100]));
        check(
            LinkType::ETHERNET,
            &[
                ("first", frame(1, &start), "17 [fd00::1]:1000 > [fd00::2]:53 12@70 first fragment of 1abcd"),
                ("last", frame(8, &[0; 9]), "17 [fd00::1]:0 > [fd00::2]:0 9@62 later fragment of 1abcd"),
                ("atomic", frame(0, &udp(53, b"x")), "17 [fd00::1]:1000 > [fd00::2]:53 1@70"),
            ],
        );
    }

    #[test]
    fn jumbograms_and_packets_without_length() {
        let len = 70_000 + 8 + 20;
        let [a, b, c, d] = u32::to_be_bytes(len);
        let options = extension(6, &[0xc2, 4, a, b, c, d], &tcp(b"only the start"));
        let jumbo = with(5, 0, with(4, 0, ipv6(0, &options)));
        let unmarked = with(5, 0, with(4, 0, ipv6(6, &tcp(b"hello"))));
        check(
            LinkType::IPV6,
            &[
                ("RFC 2675", jumbo.clone(), "6 [fd00::1]:1000 > [fd00::2]:80 70000@68"),
                ("a small one", with(45, 0, jumbo), "6 [fd00::1]:1000 > [fd00::2]:80 14@68"),
                ("TSO", unmarked, "6 [fd00::1]:1000 > [fd00::2]:80 5@60"),
            ],
        );
    }

    #[test]
    fn all_fragments_of_a_datagram_share_a_number_even_when_the_first_opens_a_tunnel() {
        let datagram = |protocol, fragment, payload: &[u8]| -> Decoded {
            decode(LinkType::IPV4, &ipv4_with(protocol, fragment, &[], payload))
        };
        let inner = ipv4(6, &tcp(&[0; 100]));
        let (first, last) = (datagram(4, 0x2000, &inner[..80]), datagram(4, 10, &inner[80..]));
        assert_eq!((first.protocol, last.protocol), (6, 4));
        assert_eq!(first.fragment, Some(Fragment { id: 0xabcd, first: true }));
        assert_eq!(first.payload_len, 40, "no more than this fragment holds");
        assert_ne!(first.datagram, 0);
        assert_eq!(first.datagram, last.datagram);
        assert_ne!(first.datagram, datagram(41, 10, &inner[80..]).datagram);
        assert_eq!(datagram(4, 0, &inner).datagram, 0);
    }
}
