use super::*;
use crate::frames::{ethernet, extension, ipv4, ipv6, join, tag, udp, with};
use proptest::prelude::*;

/// A TCP segment with ports.
fn tcp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let header = [0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
    join(&[&source.to_be_bytes(), &destination.to_be_bytes(), &header, payload])
}

/// The same segment over IPv4 and IPv6, with and without a tag, and after an extension header.
fn frames(segment: &[u8]) -> [(&'static str, Vec<u8>); 5] {
    [
        ("IPv4", ethernet(0x0800, &ipv4(6, segment))),
        ("IPv6", ethernet(0x86dd, &ipv6(6, segment))),
        ("IPv4 in a VLAN", ethernet(0x8100, &tag(7, 0x0800, &ipv4(6, segment)))),
        ("IPv6 in two VLANs", ethernet(0x88a8, &tag(7, 0x8100, &tag(9, 0x86dd, &ipv6(6, segment))))),
        ("IPv6 with options", ethernet(0x86dd, &ipv6(60, &extension(6, &[1, 4, 0, 0, 0, 0], segment)))),
    ]
}

fn modbus(function: u8, data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(2 + data.len()).unwrap();
    join(&[&[0, 1, 0, 0, 0, len, 1, function], data])
}

fn iec104(kind: u8) -> Vec<u8> {
    vec![0x68, 14, 2, 0, 2, 0, kind, 1, 6, 0, 1, 0, 1, 0, 0, 1]
}

/// A frame of `user` bytes with one function.
fn dnp3(function: u8, user: u8) -> Vec<u8> {
    let mut frame = vec![5, 0x64, 5 + user, 0xc4, 1, 0, 2, 0, 0, 0, 0xc0, 0xc0, function];
    frame.resize(10 + usize::from(user) + usize::from(user).div_ceil(16) * 2, 0x20);
    frame
}

fn s7comm(kind: u8, parameters: &[u8]) -> Vec<u8> {
    let len = u8::try_from(17 + parameters.len()).unwrap();
    let count = u8::try_from(parameters.len()).unwrap();
    join(&[&[3, 0, 0, len, 2, 0xf0, 0x80, 0x32, kind, 0, 0, 0, 1, 0, count, 0, 0], parameters])
}

/// A CIP request for a class.
fn request(service: u8, class: u8, data: &[u8]) -> Vec<u8> {
    join(&[&[service, 2, 0x20, class, 0x24, 1], data])
}

fn unconnected_send(inner: &[u8]) -> Vec<u8> {
    let len = u8::try_from(inner.len()).unwrap();
    request(0x52, 6, &join(&[&[10, 10, len, 0], inner, &[1, 0, 1, 0]]))
}

fn several(requests: &[Vec<u8>]) -> Vec<u8> {
    let mut at = 2 + 2 * u16::try_from(requests.len()).unwrap();
    let mut data = u16::try_from(requests.len()).unwrap().to_le_bytes().to_vec();
    for request in requests {
        data.extend(at.to_le_bytes());
        at += u16::try_from(request.len()).unwrap();
    }
    data.extend(requests.concat());
    request(0x0a, 2, &data)
}

fn enip(command: u8, connected: bool, cip: &[u8]) -> Vec<u8> {
    let cip = if connected { join(&[&[1, 0], cip]) } else { cip.to_vec() };
    let kinds = if connected { [0xa1, 0xb1] } else { [0, 0xb2] };
    let address: &[u8] = if connected { &[4, 0, 1, 2, 3, 4] } else { &[0, 0] };
    let len = u16::try_from(cip.len()).unwrap().to_le_bytes();
    let body = join(&[&[0; 6], &[2, 0], &[kinds[0], 0], address, &[kinds[1], 0], &len, &cip]);
    let len = u16::try_from(body.len()).unwrap().to_le_bytes();
    join(&[&[command, 0], &len, &[0; 20], &body])
}

#[test]
fn messages_that_change_something_are_found_wherever_they_are_in_a_packet() {
    let read = modbus(3, &[0, 0, 0, 2]);
    let get = request(0x0e, 0x6b, &[]);
    let set = request(0x10, 0x6b, &[1, 0]);
    let connections = request(0x4e, 6, &[0; 10]);
    for (name, port, messages, expected) in [
        ("a Modbus read", MODBUS, vec![read.clone()], false),
        ("a Modbus write", MODBUS, vec![modbus(6, &[0, 1, 0, 9])], true),
        ("a write after nine reads", MODBUS, [vec![read.clone(); 9], vec![modbus(16, &[0; 9])]].concat(), true),
        ("force listen only", MODBUS, vec![read.clone(), modbus(8, &[0, 4, 0, 0])], true),
        ("a Modbus echo", MODBUS, vec![modbus(8, &[0, 0, 0, 0])], false),
        ("a write that the next segment completes", MODBUS, vec![read.clone(), modbus(6, &[])], true),
        ("no Modbus", MODBUS, vec![vec![0, 1, 0, 9, 0, 6, 1, 6, 0, 0, 0, 0]], false),
        ("measured values", IEC104, vec![iec104(13), iec104(36)], false),
        ("a command after two values", IEC104, vec![iec104(13), iec104(36), iec104(45)], true),
        (
            "an acknowledgement, then STOPDT",
            IEC104,
            vec![vec![0x68, 4, 1, 0, 2, 0], vec![0x68, 4, 0x13, 0, 0, 0]],
            true,
        ),
        ("a test of the link", IEC104, vec![vec![0x68, 4, 0x43, 0, 0, 0]], false),
        ("a DNP3 read", DNP3, vec![dnp3(1, 20)], false),
        ("an operation in the third frame", DNP3, vec![dnp3(1, 40), dnp3(0, 5), dnp3(5, 17)], true),
        ("an operation after the rest of a frame", DNP3, vec![vec![7; 30], dnp3(4, 17)], true),
        ("an answer", DNP3, vec![dnp3(129, 60), dnp3(129, 20)], false),
        ("an S7 read", S7COMM, vec![s7comm(1, &[4, 1, 0x12, 10])], false),
        ("an S7 write after a read", S7COMM, vec![s7comm(1, &[4, 1]), s7comm(1, &[5, 1])], true),
        ("an S7 stop", S7COMM, vec![s7comm(1, &[0x29, 0, 0])], true),
        ("an answer to an S7 write", S7COMM, vec![s7comm(3, &[0, 0, 5, 1])], false),
        ("a clock that is set", S7COMM, vec![s7comm(7, &[0, 1, 0x12, 4, 0x11, 0x47, 2, 0])], true),
        ("a clock that is read", S7COMM, vec![s7comm(7, &[0, 1, 0x12, 4, 0x11, 0x47, 1, 0])], false),
        ("a CIP read", ENIP, vec![enip(0x6f, false, &get)], false),
        ("a CIP write after a read", ENIP, vec![enip(0x6f, false, &get), enip(0x70, true, &set)], true),
        ("a write in an unconnected send", ENIP, vec![enip(0x6f, false, &unconnected_send(&set))], true),
        ("a read in an unconnected send", ENIP, vec![enip(0x6f, false, &unconnected_send(&get))], false),
        (
            "the last of several requests",
            ENIP,
            vec![enip(0x70, true, &several(&[get.clone(), get, set.clone()]))],
            true,
        ),
        (
            "several requests in an unconnected send",
            ENIP,
            vec![enip(0x6f, false, &unconnected_send(&several(&[set])))],
            true,
        ),
        ("a connection that is closed", ENIP, vec![enip(0x6f, false, &connections)], false),
        ("another service", 80, vec![modbus(6, &[0, 1, 0, 9])], false),
    ] {
        for (network, frame) in frames(&tcp(40_000, port, &messages.concat())) {
            assert_eq!(is_control(LinkType::ETHERNET, &frame), expected, "{name}, {network}");
        }
    }
}

#[test]
fn the_direction_counts_where_responses_repeat_the_request() {
    for (source, destination, payload, expected) in [
        (MODBUS, 40_000, modbus(6, &[0, 1, 0, 9]), false),
        (S7COMM, 40_000, s7comm(1, &[5, 1]), false),
        (IEC104, 40_000, iec104(45), true),
        (DNP3, 40_000, dnp3(3, 9), true),
    ] {
        let frame = ethernet(0x0800, &ipv4(6, &tcp(source, destination, &payload)));
        assert_eq!(is_control(LinkType::ETHERNET, &frame), expected, "from port {source}");
    }
}

#[test]
fn dnp3_and_modbus_are_read_over_udp_too() {
    for (port, payload) in [(DNP3, dnp3(3, 9)), (MODBUS, modbus(5, &[0, 1, 0xff, 0]))] {
        assert!(is_control(LinkType::ETHERNET, &ethernet(0x86dd, &ipv6(17, &udp(port, &payload)))), "{port}");
    }
}

#[test]
fn padding_of_a_frame_is_no_message() {
    let mut frame = ethernet(0x0800, &ipv4(6, &tcp(40_000, MODBUS, &modbus(3, &[0, 0, 0, 2]))));
    frame.extend(modbus(6, &[0, 1, 0, 9]));
    assert!(!is_control(LinkType::ETHERNET, &frame));
}

#[test]
fn requests_that_name_each_other_end() {
    // Every offset of a multiple service packet leads to the packet itself or into it.
    let mut data = 4000u16.to_le_bytes().to_vec();
    data.resize(8002, 0);
    let cip = request(0x0a, 2, &data);
    let frame = ethernet(0x86dd, &ipv6(6, &tcp(40_000, ENIP, &enip(0x6f, false, &cip))));
    assert!(!is_control(LinkType::ETHERNET, &frame));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        port in prop_oneof![Just(MODBUS), Just(S7COMM), Just(IEC104), Just(DNP3), Just(ENIP)],
        payload in prop::collection::vec(prop_oneof![2 => any::<u8>(), 1 => Just(0u8), 1 => Just(0x0au8), 1 => Just(0xb2u8)], 0..200),
        cut in 0..280usize,
        (at, byte) in (0..60usize, any::<u8>()),
    ) {
        for (_, frame) in frames(&tcp(40_000, port, &payload)) {
            is_control(LinkType::ETHERNET, &frame[..cut.min(frame.len())]);
            is_control(LinkType::ETHERNET, &with(at.min(frame.len() - 1), byte, frame));
        }
        for bytes in [&payload[..], &[&enip(0x70, true, &payload)[..]].concat()] {
            let mut left = CIP_SERVICES_MAX;
            any_message(bytes, |rest| super::enip(rest, &mut left));
            any_message(bytes, super::modbus);
            any_message(bytes, super::iec104);
            any_message(bytes, super::dnp3);
            any_message(bytes, super::s7comm);
        }
    }
}

/// Counts as `tshark -Y FILTER | wc -l` does: `tcp.dstport==502 && modbus.func_code in {5,6,15,16,21,22,23}`,
/// `dnp3.al.func in {2..21,25..31}`, `iec60870_asdu.typeid in {45..64,105,110..127} || iec60870_104.utype in {1,4}`,
/// and `tcp.dstport==44818 && cip.rr==0 && cip.service in {2,4..9,0x0d,0x10,0x4d,0x53}`.
#[test]
fn real_captures_have_as_many_as_tshark_finds() {
    let beside = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures");
    let captures = std::env::var_os("RETROCAP_CAPTURES").map_or(beside, Into::into);
    for (name, expected) in
        [("ics-modbus.pcap", 1793), ("ics-dnp3.pcap", 24), ("ics-iec104.pcap", 2), ("ics-cip-start.pcap", 1)]
    {
        let Ok(file) = std::fs::read(captures.join(name)) else {
            println!("SKIPPED: {name} is not in {}", captures.display());
            continue;
        };
        // A classic file: a header of 24 bytes, then records of 16 bytes and the packet.
        assert_eq!(file[..4], 0xa1b2_c3d4u32.to_le_bytes(), "{name}");
        let (mut at, mut found) = (24, 0);
        while let Some(len) = file.get(at + 8..at + 12) {
            let end = at + 16 + u32::from_le_bytes(len.try_into().unwrap()) as usize;
            found += u32::from(is_control(LinkType::ETHERNET, &file[at + 16..end]));
            at = end;
        }
        assert_eq!(found, expected, "{name}");
    }
}
