//! Tests that the reader reads exports back unchanged.

use std::io::Cursor;
use std::sync::Arc;

use proptest::prelude::*;

use super::{CAPTURED_BYTES_MAX, ExportError, Exporter, Format, Options, Precision};
use crate::reader::FileSource;
use base::interface::Interfaces;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::source::{Batch, Source};
use base::time::Timestamp;

/// Name, description, operating system and link type of an interface.
type InterfaceFields = (String, Option<String>, Option<String>, LinkType);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ExportedPacket {
    place: InterfaceFields,
    time: u64,
    direction: Direction,
    flags: PacketFlags,
    original_len: u32,
    drops_before: u32,
    data: Vec<u8>,
}

impl ExportedPacket {
    fn of(packet: &Packet<'_>, interfaces: &Interfaces) -> Self {
        let interface = interfaces.interface(packet.interface).expect("packets have known interfaces");
        Self {
            place: (interface.name.clone(), interface.description.clone(), interface.os.clone(), packet.link_type),
            time: packet.time.0,
            direction: packet.direction,
            flags: packet.flags,
            original_len: packet.original_len,
            drops_before: packet.drops_before,
            data: packet.data.to_vec(),
        }
    }

    /// Returns the packet, and adds its interface to the table.
    fn packet<'a>(&'a self, interfaces: &Interfaces) -> Packet<'a> {
        let (name, description, os, link_type) = &self.place;
        let interface = interfaces.intern_with(name, 0, *link_type, |interface| {
            interface.description.clone_from(description);
            interface.os.clone_from(os);
        });
        Packet {
            time: Timestamp(self.time),
            interface: interface.expect("few interfaces"),
            link_type: *link_type,
            direction: self.direction,
            flags: self.flags,
            original_len: self.original_len,
            drops_before: self.drops_before,
            data: &self.data,
        }
    }
}

fn place() -> impl Strategy<Value = InterfaceFields> {
    let text = || prop::option::of("\\PC{1,40}");
    ("\\PC{0,20}", text(), text(), any::<u16>().prop_map(LinkType))
}

/// Packets of a few interfaces, with times in the range of the format.
fn packets(interfaces: usize, time_max: u64) -> impl Strategy<Value = Vec<ExportedPacket>> {
    let places = prop::collection::vec(place(), interfaces).prop_filter("names tell interfaces apart", |places| {
        let mut keys: Vec<_> = places.iter().map(|place| (&place.0, place.3)).collect();
        keys.sort();
        keys.windows(2).all(|pair| pair[0] != pair[1])
    });
    let direction = prop::sample::select(vec![Direction::Unknown, Direction::In, Direction::Out]);
    let seen = (any::<prop::sample::Index>(), 0..=time_max, direction, any::<(bool, bool, u32, u32)>());
    let all = prop::collection::vec((seen, prop::collection::vec(any::<u8>(), 0..100)), 0..40);
    (places, all).prop_map(|(places, all)| {
        let keep = |((place, time, direction, (csum, gso, original_len, drops_before)), data)| {
            let place: prop::sample::Index = place;
            let flags = PacketFlags { checksum_not_ready: csum, segmentation_offload: gso };
            ExportedPacket {
                place: places[place.index(places.len())].clone(),
                time,
                direction,
                flags,
                original_len,
                drops_before,
                data,
            }
        };
        all.into_iter().map(keep).collect()
    })
}

fn export(kept: &[ExportedPacket], format: Format, precision: Precision) -> Vec<u8> {
    let interfaces = Interfaces::default();
    let options = Options { precision, filter: Some("tcp or udp".to_owned()), ..Options::default() };
    let mut exporter = Exporter::new(format, options);
    let mut out = Vec::new();
    exporter.begin(&mut out, &["a comment".to_owned()]);
    for kept in kept {
        let packet = kept.packet(&interfaces);
        let interface = interfaces.interface(packet.interface).unwrap();
        exporter.packet(&mut out, &interface, &packet).unwrap();
    }
    exporter.end(&mut out, &[], &["another".to_owned()]);
    assert_eq!(exporter.cut(), kept.iter().filter(|kept| kept.data.len() > CAPTURED_BYTES_MAX as usize).count() as u64);
    out
}

fn read_back(bytes: Vec<u8>) -> Vec<ExportedPacket> {
    let interfaces = Arc::new(Interfaces::default());
    let mut source = FileSource::from_reader(Box::new(Cursor::new(bytes)), interfaces.clone());
    let mut kept = Vec::new();
    while source.batch(&mut |packet| kept.push(ExportedPacket::of(packet, &interfaces))).unwrap() != Batch::End {}
    kept
}

fn rounded(time: u64, precision: Precision) -> u64 {
    match precision {
        Precision::Nano => time,
        Precision::Micro => time / 1000 * 1000,
    }
}

proptest! {
    #[test]
    fn pcapng_keeps_everything(kept in (1usize..5).prop_flat_map(|n| packets(n, u64::MAX)), micro: bool) {
        let precision = if micro { Precision::Micro } else { Precision::Nano };
        let mut expected = kept.clone();
        expected.iter_mut().for_each(|kept| kept.time = rounded(kept.time, precision));
        prop_assert_eq!(read_back(export(&kept, Format::Pcapng, precision)), expected);
    }

    #[test]
    fn pcap_keeps_times_and_bytes(kept in packets(1, 4_294_967_295_999_999_999), micro: bool) {
        let precision = if micro { Precision::Micro } else { Precision::Nano };
        let mut expected = kept.clone();
        for kept in &mut expected {
            let link_type = kept.place.3;
            *kept = ExportedPacket {
                place: (String::new(), None, None, link_type),
                time: rounded(kept.time, precision),
                direction: Direction::Unknown,
                flags: PacketFlags::default(),
                drops_before: 0,
                ..kept.clone()
            };
        }
        prop_assert_eq!(read_back(export(&kept, Format::Pcap, precision)), expected);
    }
}

fn plain(data: Vec<u8>, link_type: LinkType) -> ExportedPacket {
    ExportedPacket {
        place: (String::new(), None, None, link_type),
        time: 0,
        direction: Direction::Unknown,
        flags: PacketFlags::default(),
        original_len: u32::try_from(data.len()).unwrap(),
        drops_before: 0,
        data,
    }
}

#[test]
fn packets_that_wireshark_cannot_read_are_cut_and_counted() {
    let limit = CAPTURED_BYTES_MAX as usize;
    let sizes = [limit - 1, limit, limit + 1, 2 * limit];
    let kept = sizes.map(|size| plain(vec![1; size], LinkType::ETHERNET));
    for format in [Format::Pcapng, Format::Pcap] {
        let back = read_back(export(&kept, format, Precision::Nano));
        let captured: Vec<_> = back.iter().map(|kept| kept.data.len()).collect();
        assert_eq!(captured, [limit - 1, limit, limit, limit]);
        let original: Vec<_> = back.iter().map(|kept| kept.original_len as usize).collect();
        assert_eq!(original, sizes);
    }
}

#[test]
fn an_export_without_packets_is_a_good_capture() {
    for format in [Format::Pcapng, Format::Pcap] {
        assert_eq!(read_back(export(&[], format, Precision::Nano)), []);
    }
}

#[test]
fn classic_pcap_refuses_a_second_link_type_and_goes_on() {
    let interfaces = Interfaces::default();
    let mut exporter = Exporter::new(Format::Pcap, Options::default());
    let mut out = Vec::new();
    exporter.begin(&mut out, &[]);
    assert!(out.is_empty(), "the link type is not known yet");
    let mut export = |link_type, out: &mut Vec<u8>| {
        let kept = plain(vec![1, 2, 3], link_type);
        let packet = kept.packet(&interfaces);
        exporter.packet(out, &interfaces.interface(packet.interface).unwrap(), &packet)
    };
    export(LinkType::ETHERNET, &mut out).unwrap();
    let before = out.clone();
    let error = export(LinkType::LINUX_SLL, &mut out).unwrap_err();
    let expected = ExportError::SeveralLinkTypes { first: LinkType::ETHERNET, other: LinkType::LINUX_SLL };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "classic pcap holds one link type, this export has EN10MB and LINUX_SLL: use --format pcapng, or choose one \
         interface with --interface"
    );
    assert_eq!(out, before);
    export(LinkType::ETHERNET, &mut out).unwrap();
    assert_eq!(read_back(out).len(), 2);
}

#[test]
fn an_announced_link_type_begins_classic_pcap_at_once() {
    let options = Options { link_type: Some(LinkType::RAW), ..Options::default() };
    let mut exporter = Exporter::new(Format::Pcap, options);
    let mut out = Vec::new();
    exporter.begin(&mut out, &[]);
    assert_eq!(out.len(), 24);
    exporter.end(&mut out, &[], &[]);
    assert_eq!(out.len(), 24);
    assert_eq!(out[20..], 101u32.to_ne_bytes());
}

#[test]
fn slots_far_apart_get_consecutive_interfaces() {
    let interfaces = Interfaces::default();
    for n in 0..100 {
        interfaces.intern(&format!("if{n}"), 0, LinkType::ETHERNET).unwrap();
    }
    let mut exporter = Exporter::new(Format::Pcapng, Options::default());
    let mut out = Vec::new();
    exporter.begin(&mut out, &[]);
    for slot in [99, 3, 99, 50, 3] {
        let kept = plain(vec![0; 60], LinkType::ETHERNET);
        let packet = Packet { interface: InterfaceId(slot), ..kept.packet(&interfaces) };
        exporter.packet(&mut out, &interfaces.interface(InterfaceId(slot)).unwrap(), &packet).unwrap();
    }
    exporter.end(&mut out, &[], &[]);
    let names: Vec<_> = read_back(out).into_iter().map(|kept| kept.place.0).collect();
    assert_eq!(names, ["if99", "if3", "if99", "if50", "if3"]);
}
