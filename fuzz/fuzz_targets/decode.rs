//! Any bytes as a packet of any link type: no panic, and a result within its own limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use retrocap::decode::{MAX_DEPTH, Network, Openness, Stop, decode, openness, unopened};
use retrocap::packet::LinkType;

fuzz_target!(|data: &[u8]| {
    let Some(([high, low], packet)) = data.split_first_chunk() else { return };
    let decoded = decode(LinkType(u16::from_be_bytes([*high, *low])), packet);
    assert!(usize::try_from(decoded.payload_offset).is_ok_and(|offset| offset <= packet.len()));
    assert!(decoded.depth <= MAX_DEPTH);
    assert_eq!(decoded.fragment.is_some(), decoded.datagram != 0);
    // What the endpoints tell of a session holds for its packets.
    let link_type = LinkType(u16::from_be_bytes([*high, *low]));
    let ports = [decoded.source_port, decoded.destination_port];
    let found = unopened(link_type, packet);
    if retrocap::decode::opens(link_type)
        && openness(decoded.network, decoded.ethertype, decoded.protocol, ports) == Openness::Opened
    {
        assert_eq!(found, None);
    }
    match decoded.network {
        Network::Link => {
            assert!(decoded.source >> 48 == 0 && decoded.destination >> 48 == 0);
            assert_ne!(decoded.stop, Stop::Complete);
        }
        Network::Ipv4 => assert!(decoded.source >> 32 == 0 && decoded.destination >> 32 == 0),
        Network::Ipv6 => {}
    }
});
