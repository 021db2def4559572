//! Property tests of the decoder: no input panics, and the result agrees with etherparse where etherparse decodes a
//! packet.

use etherparse::{Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId};
use proptest::prelude::*;

use super::frames::{ethernet, ipv4, ipv6, samples, tcp, udp};
use super::layers::walk;
use super::{Decoded, MAX_DEPTH, Network, Openness, Stop, decode, openness, plain, unopened};
use base::packet::LinkType;

const LINK_TYPES: [u16; 46] = [
    0, 1, 6, 8, 9, 10, 12, 14, 50, 51, 100, 101, 102, 104, 105, 106, 107, 108, 109, 113, 117, 119, 122, 123, 127, 138,
    143, 147, 163, 166, 192, 197, 204, 205, 206, 219, 226, 228, 229, 239, 240, 252, 258, 276, 285, 65535,
];

/// Decodes an Ethernet frame with the fast path.
fn read_plain(data: &[u8]) -> Option<Decoded> {
    let mut decoded = Decoded::default();
    plain::read(data, &mut decoded).map(|()| decoded)
}

/// Decodes an Ethernet frame layer by layer.
fn walked(data: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    walk(LinkType::ETHERNET, data, &mut decoded);
    decoded
}

/// Asserts the invariants of every result.
fn assert_sane(decoded: &Decoded, data: &[u8]) {
    assert!(usize::try_from(decoded.payload_offset).expect("32 bits") <= data.len());
    assert!(decoded.depth <= MAX_DEPTH);
    assert_eq!(decoded.fragment.is_some(), decoded.datagram != 0);
    assert!(decoded.vlan.is_some() || decoded.inner_vlan.is_none());
    if let Some(plain) = read_plain(data) {
        assert_eq!(plain, walked(data), "{data:02x?}");
    }
    match decoded.network {
        Network::Link => {
            assert!(decoded.source >> 48 == 0 && decoded.destination >> 48 == 0);
            assert_eq!((decoded.protocol, decoded.source_port, decoded.destination_port), (0, 0, 0));
            assert_ne!(decoded.stop, Stop::Complete);
        }
        Network::Ipv4 => assert!(decoded.source >> 32 == 0 && decoded.destination >> 32 == 0),
        Network::Ipv6 => {}
    }
}

#[test]
fn samples_are_understood_to_the_end() {
    for (link_type, frame) in samples() {
        let decoded = decode(link_type, &frame);
        assert_sane(&decoded, &frame);
        let arp_or_ppp_alone = decoded.network == Network::Link || decoded.protocol == 47;
        assert!(decoded.stop == Stop::Complete || arp_or_ppp_alone, "{frame:02x?}\n{decoded:#?}");
    }
}

#[test]
fn what_is_plain_is_read_at_once() {
    for transport in [(6, tcp(b"hello")), (17, udp(53, b"hello")), (17, udp(53, b""))] {
        for frame in
            [ethernet(0x0800, &ipv4(transport.0, &transport.1)), ethernet(0x86dd, &ipv6(transport.0, &transport.1))]
        {
            assert_eq!(read_plain(&frame), Some(walked(&frame)));
            let padded = [&frame[..], &[0; 9]].concat();
            assert_eq!(read_plain(&padded), Some(walked(&padded)), "padded");
            assert_eq!(read_plain(&frame[..frame.len() - 1]), None, "cut");
        }
    }
    assert_eq!(read_plain(&ethernet(0x0800, &ipv4(17, &udp(4789, &[0; 60])))), None, "a tunnel");
}

#[test]
fn samples_cut_anywhere() {
    for (link_type, frame) in samples() {
        for len in 0..frame.len() {
            assert_sane(&decode(link_type, &frame[..len]), &frame[..len]);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(link_type in any::<u16>(), known in 0..LINK_TYPES.len(), data: Vec<u8>) {
        for link_type in [link_type, LINK_TYPES[known]] {
            assert_sane(&decode(LinkType(link_type), &data), &data);
        }
    }

    #[test]
    fn mutated_samples(
        sample in 0..samples().len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (link_type, mut frame) = samples().swap_remove(sample);
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        for len in [frame.len(), cut.index(frame.len())] {
            frame.truncate(len);
            let decoded = decode(link_type, &frame);
            assert_sane(&decoded, &frame);
            // What the endpoints tell of a session holds for its packets.
            let ports = [decoded.source_port, decoded.destination_port];
            if openness(decoded.network, decoded.ethertype, decoded.protocol, ports) == Openness::Opened {
                prop_assert_eq!(unopened(link_type, &frame), None, "{:02x?}", frame);
            }
        }
    }

    #[test]
    fn etherparse_agrees(packet in packets()) {
        let expected = seen_by_etherparse(&packet);
        let decoded = decode(LinkType::ETHERNET, &packet);
        let seen = Decoded { stop: Stop::Complete, depth: 0, ..decoded };
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(decoded.stop, Stop::Complete);
    }
}

/// Ethernet frames with up to two VLAN tags, IPv4 or IPv6, and TCP, UDP or an ICMP echo.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop::collection::vec(0u16..4096, 0..3);
    let addresses = (any::<[u8; 6]>(), any::<[u8; 6]>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    let payload = prop::collection::vec(any::<u8>(), 0..80);
    (tags, addresses, any::<bool>(), 0..3, any::<[u16; 2]>(), any::<u32>(), payload, 0..20usize).prop_map(
        |(tags, (from, to, source, destination), v4, transport, [sport, dport], number, payload, padding)| {
            // The tunnel modules test tunnels. etherparse supports none.
            let dport = if [4789, 4790, 8472, 6081, 2152].contains(&dport) { 53 } else { dport };
            let builder = PacketBuilder::ethernet2(from, to);
            let id = |id| VlanId::try_new(id).expect("12 bits");
            let quarter = |address: [u8; 16]| [address[0], address[1], address[2], address[3]];
            let step = match (tags.as_slice(), v4) {
                ([], true) => builder.ipv4(quarter(source), quarter(destination), 64),
                ([], false) => builder.ipv6(source, destination, 64),
                ([one], true) => builder.single_vlan(id(*one)).ipv4(quarter(source), quarter(destination), 64),
                ([one], false) => builder.single_vlan(id(*one)).ipv6(source, destination, 64),
                ([a, b, ..], true) => {
                    builder.double_vlan(id(*a), id(*b)).ipv4(quarter(source), quarter(destination), 64)
                }
                ([a, b, ..], false) => builder.double_vlan(id(*a), id(*b)).ipv6(source, destination, 64),
            };
            let mut packet = Vec::new();
            match (transport, v4) {
                (0, _) => step.tcp(sport, dport, number, 1024).syn().write(&mut packet, &payload),
                (1, _) => step.udp(sport, dport).write(&mut packet, &payload),
                (_, true) => step.icmpv4_echo_request(sport, dport).write(&mut packet, &payload),
                (_, false) => step.icmpv6_echo_reply(sport, dport).write(&mut packet, &payload),
            }
            .expect("room for a packet");
            packet.extend(std::iter::repeat_n(0, padding));
            packet
        },
    )
}

/// Decodes a packet with etherparse.
fn seen_by_etherparse(packet: &[u8]) -> Decoded {
    let sliced = SlicedPacket::from_ethernet(packet).expect("a packet that etherparse wrote");
    let mut ids = sliced.vlan_ids().into_iter().map(VlanId::value);
    let mut expected = Decoded { vlan: ids.next(), inner_vlan: ids.next(), ..Decoded::default() };
    match sliced.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(ip) => {
            expected.network = Network::Ipv4;
            expected.ethertype = 0x0800;
            expected.protocol = ip.payload().ip_number.0;
            expected.source = u32::from(ip.header().source_addr()).into();
            expected.destination = u32::from(ip.header().destination_addr()).into();
        }
        NetSlice::Ipv6(ip) => {
            expected.network = Network::Ipv6;
            expected.ethertype = 0x86dd;
            expected.protocol = ip.payload().ip_number.0;
            expected.source = ip.header().source_addr().into();
            expected.destination = ip.header().destination_addr().into();
        }
        NetSlice::Arp(_) => unreachable!("no ARP is built"),
    }
    let payload = match sliced.transport.as_ref().expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            expected.source_port = tcp.source_port();
            expected.destination_port = tcp.destination_port();
            expected.tcp_sequence = tcp.sequence_number();
            expected.tcp_flags = tcp.slice()[13];
            tcp.payload()
        }
        TransportSlice::Udp(udp) => {
            expected.source_port = udp.source_port();
            expected.destination_port = udp.destination_port();
            udp.payload()
        }
        TransportSlice::Icmpv4(icmp) => {
            assert!(matches!(icmp.icmp_type(), Icmpv4Type::EchoRequest(_)));
            expected.source_port = 8;
            icmp.payload()
        }
        TransportSlice::Icmpv6(icmp) => {
            expected.source_port = icmp.type_u8().into();
            expected.destination_port = 128;
            // etherparse counts 8 bytes as the header of an echo; the general header of RFC 4443 has 4.
            &icmp.slice()[4..]
        }
        TransportSlice::Igmp(_) => unreachable!("no IGMP is built"),
    };
    let offset = payload.as_ptr().addr() - packet.as_ptr().addr();
    expected.payload_offset = u32::try_from(offset).expect("a short packet");
    expected.payload_len = u32::try_from(payload.len()).expect("a short packet");
    expected
}
