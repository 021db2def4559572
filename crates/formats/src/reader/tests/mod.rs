//! Tests of the reader with valid and with damaged captures.

mod build;
mod damage;

use std::io::Read as _;
use std::sync::Arc;

use self::build::{Capture, ExportedPacket, Pieces, read, read_from};
use super::FileSource;
use super::byte_order::ByteOrder;
use base::interface::Interfaces;
use base::packet::{Direction, LinkType, PacketFlags};
use base::source::{Batch, Source};

const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];
/// The section length that means "unspecified".
const UNKNOWN: [u32; 2] = [u32::MAX; 2];

fn kept(time: u64, interface: &str, link_type: LinkType, data: &[u8]) -> ExportedPacket {
    ExportedPacket {
        time,
        interface: interface.to_owned(),
        link_type,
        direction: Direction::Unknown,
        flags: PacketFlags::default(),
        original_len: u32::try_from(data.len()).unwrap(),
        drops_before: 0,
        data: data.to_vec(),
    }
}

#[test]
fn classic_captures_of_every_kind() {
    // magic, link type field, bytes after the record header, nanoseconds of 7 units, link type, direction
    let sent = &[0, 0, 0, 2, 8, 0, 4, 0];
    let received = &[0, 0, 0, 2, 8, 0, 0, 0];
    type Case = (u32, u32, &'static [u8], u64, LinkType, Direction);
    let table: &[Case] = &[
        (0xa1b2_c3d4, 1, &[], 7000, LinkType::ETHERNET, Direction::Unknown),
        (0xa1b2_3c4d, 276, &[], 7, LinkType::LINUX_SLL2, Direction::Unknown),
        (0xa1b2_c3d4, 0x2400_0001, &[], 7000, LinkType::ETHERNET, Direction::Unknown),
        (0xa1b2_cd34, 101, sent, 7000, LinkType::RAW, Direction::Out),
        (0xa1b2_cd34, 101, received, 7000, LinkType::RAW, Direction::In),
    ];
    for &(magic, field, extra, nanos, link_type, direction) in table {
        for order in ORDERS {
            let mut capture = Capture::pcap(order, magic, field);
            capture.record([1, 7], 3, extra, b"abc").record([2, 0], 0, extra, b"").record([3, 0], 1, extra, b"lying");
            let outcome = read(&capture.bytes);
            let first = ExportedPacket { direction, ..kept(1_000_000_000 + nanos, "", link_type, b"abc") };
            let second = ExportedPacket { direction, ..kept(2_000_000_000, "", link_type, b"") };
            let third = ExportedPacket { direction, original_len: 1, ..kept(3_000_000_000, "", link_type, b"lying") };
            assert_eq!(outcome.packets, [first, second, third], "{magic:x} {order:?}");
            assert_eq!(outcome.damage, None);
        }
    }
}

#[test]
fn times_of_classic_captures_do_not_overflow() {
    let mut capture = Capture::pcap(ByteOrder::Little, 0xa1b2_c3d4, 1);
    capture.record([u32::MAX, u32::MAX], 0, &[], b"");
    assert_eq!(read(&capture.bytes).packets[0].time, 4_294_967_295_000_000_000 + 4_294_967_295_000);
}

#[test]
fn sections_change_the_byte_order_and_forget_interfaces() {
    let mut capture = Capture::pcapng();
    for (order, length) in [(ByteOrder::Little, UNKNOWN), (ByteOrder::Big, [0, 4]), (ByteOrder::Little, [9, 9])] {
        capture.section(order, length);
        let name = format!("{order:?}");
        let options = [capture.option(2, name.as_bytes()), capture.option(9, &[9]), capture.option(0, &[])];
        capture.interface(1, 0, &options).enhanced(0, 1 << 33 | 5, 4, b"data", &[]);
    }
    let outcome = read(&capture.bytes);
    assert_eq!(outcome.damage, None);
    let names: Vec<_> = outcome.packets.iter().map(|p| p.interface.as_str()).collect();
    assert_eq!(names, ["Little", "Big", "Little"]);
    assert!(outcome.packets.iter().all(|p| p.time == 1 << 33 | 5 && p.data == b"data"));
}

#[test]
fn interfaces_have_their_own_clocks_and_names() {
    for order in ORDERS {
        let mut capture = Capture::pcapng();
        capture.section(order, UNKNOWN);
        let offset = match order {
            ByteOrder::Little => (-1i64).to_le_bytes(),
            ByteOrder::Big => (-1i64).to_be_bytes(),
        };
        let options = [
            capture.option(1, b"a comment"),
            capture.option(2, b"eth0\0"),
            capture.option(3, "caf\u{e9}".as_bytes()),
            capture.option(12, b"Linux"),
            capture.option(9, &[0x80 | 10]),
            capture.option(14, &offset),
        ];
        let picoseconds = [capture.option(9, &[12])];
        capture.interface(1, 96, &options).interface(0, 0, &[]).interface(101, 0, &picoseconds);
        capture.enhanced(0, 1536, 2, b"e0", &[]).enhanced(2, 1_234_567, 2, b"e2", &[]).enhanced(1, 3, 2, b"e1", &[]);
        let interfaces = Arc::new(Interfaces::default());
        let outcome = read_from(Box::new(Pieces::new(&capture.bytes, usize::MAX)), &interfaces);
        assert_eq!(
            outcome.packets,
            [
                kept(500_000_000, "eth0", LinkType::ETHERNET, b"e0"),
                kept(1234, "", LinkType::RAW, b"e2"),
                kept(3000, "", LinkType::NULL, b"e1"),
            ]
        );
        let first = &interfaces.snapshot()[0];
        assert_eq!((first.description.as_deref(), first.os.as_deref()), (Some("café"), Some("Linux")));
    }
}

#[test]
fn packet_options_say_direction_offload_and_drops() {
    // flags, drop count, direction, checksum not ready, segmentation offload, drops before
    let table: &[(u32, u64, Direction, bool, bool, u32)] = &[
        (0, 0, Direction::Unknown, false, false, 0),
        (1, 3, Direction::In, false, false, 3),
        (2 | 1 << 9, 1, Direction::Out, true, false, 1),
        (3 | 1 << 11 | 0xffff_0000, u64::MAX, Direction::Unknown, false, true, u32::MAX),
    ];
    for &(bits, drops, direction, checksum_not_ready, segmentation_offload, drops_before) in table {
        for order in ORDERS {
            let mut capture = Capture::pcapng();
            capture.section(order, UNKNOWN).interface(1, 0, &[]);
            let (bits, drops) = match order {
                ByteOrder::Little => (bits.to_le_bytes(), drops.to_le_bytes()),
                ByteOrder::Big => (bits.to_be_bytes(), drops.to_be_bytes()),
            };
            let options = [capture.option(1, b"why"), capture.option(2, &bits), capture.option(4, &drops)];
            capture.enhanced(0, 1, 1, b"x", &options);
            let expected = ExportedPacket {
                direction,
                flags: PacketFlags { checksum_not_ready, segmentation_offload },
                drops_before,
                ..kept(1000, "", LinkType::ETHERNET, b"x")
            };
            assert_eq!(read(&capture.bytes).packets, [expected]);
        }
    }
}

#[test]
fn broken_packet_options_do_not_cost_the_packet() {
    let mut capture = Capture::pcapng();
    capture.section(ByteOrder::Little, UNKNOWN).interface(1, 0, &[]);
    let direction = capture.option(2, &[1, 0, 0, 0]);
    for broken in [[1, 0, 0xff, 0xff], [2, 0, 0, 0], [4, 0, 4, 0]] {
        capture.enhanced(0, 1, 1, b"x", &[direction.clone(), broken.to_vec()]);
    }
    let outcome = read(&capture.bytes);
    assert_eq!(outcome.damage, None);
    assert_eq!(outcome.packets.iter().filter(|p| p.direction == Direction::In).count(), 3);
}

#[test]
fn simple_and_obsolete_packet_blocks() {
    for order in ORDERS {
        let mut capture = Capture::pcapng();
        capture.section(order, UNKNOWN).interface(1, 5, &[]);
        let simple = |capture: &mut Capture, original_len: u32, data: &[u8]| {
            capture.block(3, |body| body.u32(original_len).padded(data));
        };
        simple(&mut capture, 3, b"abc");
        let out = capture.option(2, if order == ByteOrder::Big { &[0, 0, 0, 2] } else { &[2, 0, 0, 0] });
        for drops in [7, u16::MAX] {
            capture.block(2, |body| body.u16(0).u16(drops).time(9).words(&[3, 60]).padded(b"old").raw(&out));
        }
        simple(&mut capture, 1500, b"snapp");
        simple(&mut capture, 1500, b"more than the snap length");
        let ethernet = LinkType::ETHERNET;
        let old = ExportedPacket { direction: Direction::Out, original_len: 60, ..kept(9000, "", ethernet, b"old") };
        let whole = b"more than the snap length\xee\xee\xee";
        let outcome = read(&capture.bytes);
        assert_eq!(outcome.damage, None);
        assert_eq!(
            outcome.packets,
            [
                kept(0, "", ethernet, b"abc"),
                ExportedPacket { drops_before: 7, ..old.clone() },
                old,
                ExportedPacket { original_len: 1500, ..kept(9000, "", ethernet, b"snapp") },
                ExportedPacket { original_len: 1500, ..kept(9000, "", ethernet, whole) },
            ]
        );
    }
}

#[test]
fn other_blocks_are_passed_over_however_large_they_are() {
    let mut before = Capture::pcapng();
    before.section(ByteOrder::Little, UNKNOWN).interface(1, 0, &[]).enhanced(0, 1, 1, b"a", &[]);
    before.block(0x0bad, |body| body).block(4, |body| body.padded(b"names"));
    let huge: u32 = 40 << 20;
    before.words(&[5, huge]);
    let mut after = Capture::default();
    after.u32(huge).enhanced(0, 2, 1, b"b", &[]);
    let reader = std::io::Cursor::new(before.bytes)
        .chain(std::io::repeat(0x0a).take(u64::from(huge) - 12))
        .chain(std::io::Cursor::new(after.bytes));
    let outcome = read_from(Box::new(reader), &Arc::default());
    assert_eq!(outcome.damage, None);
    assert_eq!(outcome.packets.iter().map(|p| p.time).collect::<Vec<_>>(), [1000, 2000]);
    assert_eq!(outcome.capacity, 256 << 10);
}

#[test]
fn a_record_larger_than_the_buffer_makes_it_grow_as_far_as_needed() {
    let large = vec![0x55; 3 << 20];
    let mut classic = Capture::pcap(ByteOrder::Big, 0xa1b2_3c4d, 1);
    classic.record([0, 1], 1, &[], b"x").record([0, 2], 3 << 20, &[], &large).record([0, 3], 1, &[], b"x");
    let mut modern = Capture::pcapng();
    modern.section(ByteOrder::Big, UNKNOWN).interface(1, 0, &[]);
    modern.enhanced(0, 1, 1, b"x", &[]).enhanced(0, 2, 3 << 20, &large, &[]).enhanced(0, 3, 1, b"x", &[]);
    for capture in [classic, modern] {
        let outcome = read(&capture.bytes);
        assert_eq!(outcome.damage, None);
        assert_eq!(outcome.packets.iter().map(|p| p.data.len()).collect::<Vec<_>>(), [1, 3 << 20, 1]);
        assert!((3 << 20..=(3 << 20) + 32).contains(&outcome.capacity), "{}", outcome.capacity);
    }
}

#[test]
fn how_a_pipe_cuts_the_bytes_changes_nothing() {
    for capture in [small_pcap(), small_pcapng()] {
        let whole = read(&capture.bytes).packets;
        for size in 1..capture.bytes.len() {
            for reluctant in [false, true] {
                let reader = Pieces { reluctant, ..Pieces::new(&capture.bytes, size) };
                let outcome = read_from(Box::new(reader), &Arc::default());
                assert_eq!((outcome.packets, outcome.damage), (whole.clone(), None), "{size} bytes a read");
            }
        }
    }
}

#[test]
fn a_slow_pipe_gives_each_packet_when_it_has_come() {
    let mut capture = Capture::pcap(ByteOrder::Little, 0xa1b2_c3d4, 1);
    for n in 0..10 {
        capture.record([n, 0], 84, &[], &[7; 84]);
    }
    // 24 of the first 100 bytes are the file header. Each further read completes one record and starts the next.
    let mut source = FileSource::from_reader(Box::new(Pieces::new(&capture.bytes, 100)), Arc::default());
    let mut counts = Vec::new();
    loop {
        let mut count = 0;
        let batch = source.batch(&mut |_| count += 1).unwrap();
        counts.push(count);
        if batch == Batch::End {
            break;
        }
    }
    counts.retain(|&count| count > 0);
    assert_eq!(counts, [1; 10]);
}

#[test]
fn packets_of_interfaces_without_a_slot_are_counted() {
    let interfaces = Arc::new(Interfaces::default());
    for n in 1..Interfaces::CAPACITY {
        interfaces.intern(&format!("taken{n}"), 0, LinkType::ETHERNET).unwrap();
    }
    let mut capture = Capture::pcapng();
    capture.section(ByteOrder::Little, UNKNOWN);
    for name in ["last", "none", "taken1"] {
        let options = [capture.option(2, name.as_bytes())];
        capture.interface(1, 0, &options);
    }
    capture.enhanced(1, 1, 1, b"x", &[]).enhanced(0, 2, 1, b"y", &[]).enhanced(1, 3, 1, b"x", &[]);
    capture.enhanced(2, 4, 1, b"z", &[]);
    let outcome = read_from(Box::new(Pieces::new(&capture.bytes, usize::MAX)), &interfaces);
    assert_eq!((outcome.refused, outcome.damage), (2, None));
    assert_eq!(outcome.packets.iter().map(|p| p.interface.as_str()).collect::<Vec<_>>(), ["last", "taken1"]);
    let mut classic = Capture::pcap(ByteOrder::Little, 0xa1b2_c3d4, 147);
    classic.record([0, 0], 1, &[], b"x");
    let mut source = FileSource::from_reader(Box::new(Pieces::new(&classic.bytes, usize::MAX)), interfaces);
    while source.batch(&mut |_| panic!("has no slot")).unwrap() != Batch::End {}
    assert_eq!((source.refused(), source.refused_bytes()), (1, 1));
}

/// Returns a classic capture of three packets, one of them empty.
fn small_pcap() -> Capture {
    let mut capture = Capture::pcap(ByteOrder::Big, 0xa1b2_c3d4, 1);
    capture.record([1, 0], 20, &[], b"twenty bytes in all.").record([2, 0], 0, &[], b"").record([3, 0], 1, &[], b"x");
    capture
}

/// Returns a pcapng capture with each kind of block, and two sections.
fn small_pcapng() -> Capture {
    let mut capture = Capture::pcapng();
    capture.section(ByteOrder::Big, UNKNOWN);
    let name = [capture.option(2, b"lo")];
    capture.interface(1, 0, &name).enhanced(0, 1, 5, b"hello", &[]).block(4, |body| body.padded(b"localhost"));
    capture.block(3, |body| body.u32(2).padded(b"yo"));
    capture.section(ByteOrder::Little, UNKNOWN).interface(101, 0, &[]);
    let options = [capture.option(2, &[1, 0, 0, 0]), capture.option(0, &[])];
    capture.enhanced(0, 3, 9, b"again", &options);
    capture.block(2, |body| body.u16(0).u16(0).time(4).words(&[1, 1]).padded(b"z"));
    capture
}
