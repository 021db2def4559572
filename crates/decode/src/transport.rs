//! TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260), ICMP (RFC 792) and ICMPv6 (RFC 4443).
//!
//! Truncated transport headers are decoded as far as they go: the first four bytes suffice for the ports.

use super::decoded::Stop;
use super::layer::Step;
use super::udp_tunnel;
use super::walk::Walk;

/// Decodes a TCP segment.
#[inline]
pub(super) fn tcp(walk: &mut Walk<'_>) -> Step {
    let Some(header) = walk.rest.first_chunk::<20>() else { return tcp_cut(walk) };
    let [s0, s1, d0, d1, q0, q1, q2, q3, _, _, _, _, data_offset, flags, ..] = *header;
    walk.decoded.source_port = u16::from_be_bytes([s0, s1]);
    walk.decoded.destination_port = u16::from_be_bytes([d0, d1]);
    walk.decoded.tcp_sequence = u32::from_be_bytes([q0, q1, q2, q3]);
    walk.decoded.tcp_flags = flags;
    let header_len = usize::from(data_offset >> 4) * 4;
    if header_len < 20 {
        return Step::Break(Stop::Malformed);
    }
    walk.mark_payload_after(header_len)?;
    Step::Break(Stop::Complete)
}

/// Decodes a truncated TCP header.
#[cold]
fn tcp_cut(walk: &mut Walk<'_>) -> Step {
    ports(walk);
    if let Some([_, _, _, _, q0, q1, q2, q3]) = walk.rest.first_chunk() {
        walk.decoded.tcp_sequence = u32::from_be_bytes([*q0, *q1, *q2, *q3]);
    }
    if let Some(flags) = walk.rest.get(13) {
        walk.decoded.tcp_flags = *flags;
    }
    let header_len = walk.rest.get(12).map_or(20, |data_offset| usize::from(data_offset >> 4) * 4);
    walk.mark_payload_after(header_len.max(20))?;
    Step::Break(Stop::Truncated)
}

/// Decodes a UDP datagram, and returns the tunnel layer if its ports are those of a tunnel.
#[inline]
pub(super) fn udp(walk: &mut Walk<'_>) -> Step {
    ports(walk);
    if let Some([_, _, _, _, l0, l1, _, _]) = walk.rest.first_chunk() {
        match usize::from(u16::from_be_bytes([*l0, *l1])) {
            // Jumbograms (RFC 2675), and datagrams that the network card segments: the payload ends with the packet.
            0 => {}
            1..8 => return Step::Break(Stop::Malformed),
            len => walk.limit(len),
        }
    }
    walk.mark_payload_after(8)?;
    match udp_tunnel::by_ports(walk.decoded.source_port, walk.decoded.destination_port) {
        Some(layer) => Step::Continue(layer),
        None => Step::Break(Stop::Complete),
    }
}

/// Decodes an SCTP packet.
pub(super) fn sctp(walk: &mut Walk<'_>) -> Step {
    ports(walk);
    walk.mark_payload_after(12)?;
    Step::Break(Stop::Complete)
}

/// Decodes the ports of UDP-Lite (RFC 3828) and DCCP (RFC 4340).
pub(super) fn ports_only(walk: &mut Walk<'_>) -> Step {
    ports(walk);
    let header_len = if walk.decoded.protocol == 136 { 8 } else { 12 };
    walk.mark_payload_after(header_len)?;
    Step::Break(Stop::Complete)
}

#[inline]
fn ports(walk: &mut Walk<'_>) {
    if let Some([s0, s1, d0, d1]) = walk.rest.first_chunk() {
        walk.decoded.source_port = u16::from_be_bytes([*s0, *s1]);
        walk.decoded.destination_port = u16::from_be_bytes([*d0, *d1]);
    }
}

/// Decodes an ICMP message.
pub(super) fn icmp(walk: &mut Walk<'_>) -> Step {
    icmp_of(walk, 8, |kind| {
        Some(match kind {
            0 => 8,
            8 => 0,
            9 => 10,
            10 => 9,
            13 => 14,
            14 => 13,
            15 => 16,
            16 => 15,
            17 => 18,
            18 => 17,
            _ => return None,
        })
    })
}

/// Decodes an ICMPv6 message.
pub(super) fn icmpv6(walk: &mut Walk<'_>) -> Step {
    icmp_of(walk, 4, |kind| {
        Some(match kind {
            128 => 129,
            129 => 128,
            130 => 131,
            131 => 130,
            133 => 134,
            134 => 133,
            135 => 136,
            136 => 135,
            139 => 140,
            140 => 139,
            144 => 145,
            145 => 144,
            _ => return None,
        })
    })
}

/// Sets the ports as Community ID v1 defines them, so that a request and its reply belong to one session.
fn icmp_of(walk: &mut Walk<'_>, header_len: usize, answer: impl Fn(u8) -> Option<u8>) -> Step {
    let [kind, code] = *walk.peek()?;
    let answer = answer(kind);
    walk.decoded.source_port = kind.into();
    walk.decoded.destination_port = answer.unwrap_or(code).into();
    walk.decoded.one_way = answer.is_none();
    walk.mark_payload_after(header_len)?;
    Step::Break(Stop::Complete)
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::super::frames::{check, cut, icmp, ipv4, ipv6, tcp, udp, with};
    use base::packet::LinkType;

    #[test]
    fn tcp_and_what_is_left_of_it() {
        let syn = ipv4(6, &tcp(b"hello"));
        check(
            LinkType::RAW,
            &[
                ("whole", syn.clone(), "6 10.0.0.1:1000 > 10.0.0.2:80 5@40"),
                ("options", with(32, 0x60, syn.clone()), "6 10.0.0.1:1000 > 10.0.0.2:80 1@44"),
                ("options cut", cut(41, &with(32, 0x60, syn.clone())), "6 10.0.0.1:1000 > 10.0.0.2:80 1@41 Truncated"),
                (
                    "options beyond the packet",
                    with(32, 0xf0, syn.clone()),
                    "6 10.0.0.1:1000 > 10.0.0.2:80 0@45 Malformed",
                ),
                ("header of 16", with(32, 0x40, syn.clone()), "6 10.0.0.1:1000 > 10.0.0.2:80 25@20 Malformed"),
                ("19 bytes", cut(39, &syn), "6 10.0.0.1:1000 > 10.0.0.2:80 5@39 Truncated"),
                ("4 bytes", cut(24, &syn), "6 10.0.0.1:1000 > 10.0.0.2:80 5@24 Truncated"),
                ("3 bytes", cut(23, &syn), "6 10.0.0.1:0 > 10.0.0.2:0 5@23 Truncated"),
            ],
        );
        let whole = decode(LinkType::RAW, &syn);
        assert_eq!((whole.tcp_flags, whole.tcp_sequence), (2, 7));
        let cut = decode(LinkType::RAW, &cut(34, &syn));
        assert_eq!((cut.tcp_flags, cut.tcp_sequence), (2, 7));
    }

    #[test]
    fn udp_and_its_length() {
        let packet = ipv4(17, &udp(53, b"hello"));
        check(
            LinkType::RAW,
            &[
                ("whole", packet.clone(), "17 10.0.0.1:1000 > 10.0.0.2:53 5@28"),
                ("0: to the end", with(25, 0, packet.clone()), "17 10.0.0.1:1000 > 10.0.0.2:53 5@28"),
                ("shorter", with(25, 9, packet.clone()), "17 10.0.0.1:1000 > 10.0.0.2:53 1@28"),
                ("longer", with(25, 99, packet.clone()), "17 10.0.0.1:1000 > 10.0.0.2:53 5@28"),
                ("below 8", with(25, 7, packet.clone()), "17 10.0.0.1:1000 > 10.0.0.2:53 13@20 Malformed"),
                ("cut", cut(27, &packet), "17 10.0.0.1:1000 > 10.0.0.2:53 5@27 Truncated"),
            ],
        );
    }

    #[test]
    fn sctp() {
        let packet = ipv4(132, &[0x0b, 0x59, 0x0b, 0x5a, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 4]);
        check(
            LinkType::RAW,
            &[
                ("whole", packet.clone(), "132 10.0.0.1:2905 > 10.0.0.2:2906 4@32"),
                ("cut", cut(30, &packet), "132 10.0.0.1:2905 > 10.0.0.2:2906 4@30 Truncated"),
            ],
        );
    }

    #[test]
    fn icmp_has_the_ports_of_community_id() {
        for (kind, answer) in [(8, 0), (13, 14), (15, 16), (10, 9), (17, 18)] {
            for (kind, answer) in [(kind, answer), (answer, kind)] {
                let expect = format!("1 10.0.0.1:{kind} > 10.0.0.2:{answer} 3@28");
                check(LinkType::RAW, &[("paired", ipv4(1, &icmp(kind, 5)), &expect)]);
            }
        }
        for (kind, answer) in [(128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)] {
            for (kind, answer) in [(kind, answer), (answer, kind)] {
                let expect = format!("58 [fd00::1]:{kind} > [fd00::2]:{answer} 7@44");
                check(LinkType::RAW, &[("paired", ipv6(58, &icmp(kind, 5)), &expect)]);
            }
        }
        check(
            LinkType::RAW,
            &[
                ("unreachable", ipv4(1, &icmp(3, 1)), "1 10.0.0.1:3 > 10.0.0.2:1 3@28 one-way"),
                ("time exceeded", ipv4(1, &icmp(11, 0)), "1 10.0.0.1:11 > 10.0.0.2:0 3@28 one-way"),
                ("packet too big", ipv6(58, &icmp(2, 0)), "58 [fd00::1]:2 > [fd00::2]:0 7@44 one-way"),
                ("redirect", ipv6(58, &icmp(137, 0)), "58 [fd00::1]:137 > [fd00::2]:0 7@44 one-way"),
                ("two bytes", cut(22, &ipv4(1, &icmp(8, 0))), "1 10.0.0.1:8 > 10.0.0.2:0 3@22 Truncated"),
                ("one byte", cut(21, &ipv4(1, &icmp(8, 0))), "1 10.0.0.1:0 > 10.0.0.2:0 11@20 Truncated"),
            ],
        );
    }
}
