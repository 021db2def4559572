//! Files that a writer of the tests makes after the documented layout. No file of a real Windows was available.

use std::io::{Cursor, Read as _};
use std::sync::Arc;

use super::*;
use crate::reader::FileSource;
use base::interface::Interfaces;
use base::packet::Direction;
use base::source::{Batch, Source as _};
use base::time::Timestamp;

const NDIS: &str = "6e00d62e29470946b4233ee7bcd678ef";
const PKTMON: &str = "d9804f4dbdc8734dbb5b19c90402c5ac";
/// 2026-11-28 00:00:00 UTC, since 1601 in units of 100 ns.
const START: i64 = 134_402_976_000_000_000;
const BUFFER: usize = 4096;

fn guid(hex: &str) -> Vec<u8> {
    (0..16).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// An event, aligned, with items between its header and its data.
fn event(provider: &str, id: u16, keyword: u64, ticks: i64, items: &[&[u8]], data: &[u8]) -> Vec<u8> {
    let mut event = vec![0, 0, 19, 0xc0];
    event.extend(u16::from(!items.is_empty()).to_le_bytes());
    event.extend([0; 10]);
    event.extend(ticks.to_le_bytes());
    event.extend(guid(provider));
    event.extend(id.to_le_bytes());
    event.extend([0; 6]);
    event.extend(keyword.to_le_bytes());
    event.resize(80, 0);
    for (at, item) in items.iter().enumerate() {
        event.extend([0, 0, 1, 0]);
        event.extend(u16::from(at + 1 < items.len()).to_le_bytes());
        event.extend(u16::try_from(item.len()).unwrap().to_le_bytes());
        event.extend(*item);
        event.resize(event.len().next_multiple_of(8), 0);
    }
    event.extend(data);
    let len = u16::try_from(event.len()).unwrap();
    event[..2].copy_from_slice(&len.to_le_bytes());
    event.resize(event.len().next_multiple_of(8), 0);
    event
}

fn fragment(miniport: u32, layer: u32, keyword: u64, ticks: i64, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    let data = [&miniport.to_le_bytes()[..], &layer.to_le_bytes(), &len.to_le_bytes(), bytes].concat();
    event(NDIS, 1001, keyword, ticks, &[], &data)
}

struct Frame {
    group: u64,
    direction: u16,
    kind: u16,
    component: u16,
    original: u16,
}

fn frame(frame: &Frame, ticks: i64, bytes: &[u8]) -> Vec<u8> {
    let mut data = frame.group.to_le_bytes().to_vec();
    for half in [1, 1, frame.direction, frame.kind, frame.component, 0, 0] {
        data.extend(half.to_le_bytes());
    }
    data.extend([0; 8]);
    data.extend(frame.original.to_le_bytes());
    data.extend(u16::try_from(bytes.len()).unwrap().to_le_bytes());
    data.extend(bytes);
    event(PKTMON, 160, 0x10, ticks, &[b"an item"], &data)
}

fn buffer(processor: u16, flags: u16, events: &[Vec<u8>]) -> Vec<u8> {
    let used = 72 + events.iter().map(Vec::len).sum::<usize>();
    let size = used.next_multiple_of(BUFFER);
    let mut buffer = vec![0; 72];
    buffer[..4].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
    for at in [4, 48] {
        buffer[at..at + 4].copy_from_slice(&u32::try_from(used).unwrap().to_le_bytes());
    }
    buffer[40..42].copy_from_slice(&processor.to_le_bytes());
    buffer[52..54].copy_from_slice(&flags.to_le_bytes());
    buffer.extend(events.concat());
    buffer.resize(size, 0xff);
    buffer
}

/// The first event of a file. `clock` is 1 for a counter of a million ticks a second, 2 for the time.
fn log(clock: u32, events_lost: u32, buffers_lost: u32) -> Vec<u8> {
    let mut header = vec![2, 0, 2, 0xc0, 0x38, 1, 0, 0];
    header.extend([0; 8]);
    header.extend(5_000_000_i64.to_le_bytes());
    header.resize(32, 0);
    let mut log = vec![0; 280];
    log[44..48].copy_from_slice(&8_u32.to_le_bytes());
    log[48..52].copy_from_slice(&events_lost.to_le_bytes());
    log[256..264].copy_from_slice(&1_000_000_i64.to_le_bytes());
    log[264..272].copy_from_slice(&START.to_le_bytes());
    log[272..276].copy_from_slice(&clock.to_le_bytes());
    log[276..280].copy_from_slice(&buffers_lost.to_le_bytes());
    header.extend(log);
    header
}

#[derive(Debug, PartialEq, Eq)]
struct Read {
    interface: String,
    link_type: u16,
    /// Milliseconds since the start of the trace.
    millis: u64,
    direction: Direction,
    data: Vec<u8>,
    len: u32,
}

fn pcapng(file: &[u8]) -> (Vec<u8>, io::Result<usize>) {
    let mut bytes = Vec::new();
    let result = ToPcapng::new(Cursor::new(file)).read_to_end(&mut bytes);
    (bytes, result)
}

/// The packets, and what the statistics say was dropped.
fn packets(file: &[u8]) -> (Vec<Read>, u64) {
    let (bytes, result) = pcapng(file);
    result.unwrap();
    let interfaces = Arc::new(Interfaces::default());
    let mut source = FileSource::from_reader(Box::new(Cursor::new(bytes)), Arc::clone(&interfaces));
    let mut found = Vec::new();
    loop {
        let end = source
            .batch(&mut |packet: &base::packet::Packet<'_>| {
                let interface = interfaces.interface(packet.interface).unwrap();
                let since = packet.time.since(Timestamp::from_unix(1_795_824_000, 0));
                found.push(Read {
                    interface: interface.name.to_string(),
                    link_type: packet.link_type.0,
                    millis: u64::try_from(since.as_millis()).unwrap(),
                    direction: packet.direction,
                    data: packet.data.to_vec(),
                    len: packet.original_len,
                });
            })
            .unwrap();
        if matches!(end, Batch::End) {
            break;
        }
    }
    let dropped = source.annotations().statistics.values().filter_map(|known| known.os_dropped).sum();
    (found, dropped)
}

const START_AND_END: u64 = 0xc000_0000;
const RECEIVE: u64 = 0x2_0000_0000;
const SEND: u64 = 0x1_0000_0000;

#[test]
fn packets_of_the_miniport_come_out_once_and_in_order() {
    let file = [
        buffer(0, 0, &[log(1, 0, 0)]),
        buffer(
            1,
            0,
            &[
                fragment(7, 7, START_AND_END | RECEIVE, 5_020_000, b"second"),
                // Filters above the miniport report the packet again.
                fragment(7, 8, START_AND_END | RECEIVE, 5_020_001, b"second"),
                fragment(9, 9, START_AND_END | SEND | 0x200, 5_030_000, b"third, mobile"),
            ],
        ),
        buffer(
            0,
            0,
            &[
                fragment(7, 7, START_AND_END | SEND, 5_010_000, b"first"),
                event(NDIS, 1002, 0, 5_011_000, &[], b"metadata"),
                fragment(5, 5, START_AND_END | 0x1_0000, 5_040_000, b"fourth, wireless"),
            ],
        ),
    ]
    .concat();
    let (found, dropped) = packets(&file);
    let expected = [
        ("ifindex 7", 1, 10, Direction::Out, "first"),
        ("ifindex 7", 1, 20, Direction::In, "second"),
        ("ifindex 9", 101, 30, Direction::Out, "third, mobile"),
        ("ifindex 5", 105, 40, Direction::Unknown, "fourth, wireless"),
    ];
    let expected = expected.map(|(interface, link_type, millis, direction, data)| Read {
        interface: interface.to_owned(),
        link_type,
        millis,
        direction,
        data: data.as_bytes().to_vec(),
        len: u32::try_from(data.len()).unwrap(),
    });
    assert_eq!(found, expected);
    assert_eq!(dropped, 0);
}

#[test]
fn fragments_of_a_packet_are_joined_and_torn_packets_are_counted() {
    const BEGIN: u64 = 0x4000_0000;
    const END: u64 = 0x8000_0000;
    let file = [
        buffer(0, 0, &[log(2, 0, 0), fragment(7, 7, BEGIN | SEND, START, b"one, ")]),
        // Another processor's buffer lies between the parts.
        buffer(1, 0, &[fragment(7, 7, BEGIN, START + 1, b"four "), fragment(7, 7, END, START + 20_000, b"five")]),
        buffer(0, 0, &[fragment(7, 7, SEND, START, b"two, "), fragment(7, 7, END | SEND, START + 10_000, b"three")]),
        buffer(2, 0, &[fragment(7, 7, 0, START, b"no beginning"), fragment(7, 7, BEGIN, START, b"no end")]),
        buffer(3, 0, &[fragment(7, 7, BEGIN, START, b"no end"), fragment(7, 7, BEGIN | END, START + 30_000, b"six")]),
    ]
    .concat();
    let (found, dropped) = packets(&file);
    let texts: Vec<_> =
        found.iter().map(|read| (read.millis, String::from_utf8_lossy(&read.data).into_owned())).collect();
    assert_eq!(texts, [(1, "one, two, three".to_owned()), (2, "four five".to_owned()), (3, "six".to_owned())]);
    assert_eq!(dropped, 3, "without a beginning, and twice without an end");
}

#[test]
fn packets_of_the_packet_monitor_come_out_once_with_names() {
    let of = |group, direction, kind, component| Frame { group, direction, kind, component, original: 1500 };
    let name: Vec<u8> = "Wi-Fi\0An adapter\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let component = event(PKTMON, 20, 0x1, START, &[], &[&[9, 0, 2, 0][..], &name].concat());
    let file = [
        buffer(0, 0, &[log(2, 0, 0), component]),
        buffer(
            0,
            0,
            &[
                frame(&of(1, 3, 1, 9), START + 10_000, b"a frame"),
                frame(&of(1, 1, 1, 12), START + 10_001, b"a frame"),
                frame(&of(2, 6, 3, 12), START + 20_000, b"an IP packet"),
                // HTTP alone has no link type.
                frame(&of(3, 6, 4, 12), START + 20_000, b"a payload"),
            ],
        ),
    ]
    .concat();
    let (found, dropped) = packets(&file);
    let short = |read: &Read| (read.interface.clone(), read.link_type, read.direction, read.len, read.data.len());
    assert_eq!(
        found.iter().map(short).collect::<Vec<_>>(),
        [("Wi-Fi".to_owned(), 1, Direction::In, 1500, 7), ("component 12".to_owned(), 101, Direction::Out, 1500, 12)]
    );
    assert_eq!(dropped, 1);
}

#[test]
fn losses_are_counted() {
    let packet = || fragment(7, 7, START_AND_END, START, b"packet");
    let closed = [buffer(0, 0, &[log(2, 40, 2)]), buffer(0, 6, &[packet()])].concat();
    assert_eq!(packets(&closed).1, 42);
    // The header of a file that was not closed knows nothing.
    let open = [buffer(0, 0, &[log(2, 0, 0)]), buffer(0, 2, &[packet()]), buffer(0, 4, &[packet()])].concat();
    assert_eq!(packets(&open).1, 2);
    let switch = event(NDIS, 1003, 0, START, &[], &[0; 64]);
    assert_eq!(packets(&buffer(0, 0, &[log(2, 0, 0), switch])).1, 1);
}

#[test]
fn what_cannot_be_read_is_named_after_the_packets_before_it() {
    let good =
        [buffer(0, 0, &[log(2, 0, 0)]), buffer(0, 0, &[fragment(7, 7, START_AND_END, START, b"packet")])].concat();
    let compressed = [good.clone(), buffer(0, 0x40, &[])].concat();
    for (file, expected) in [
        (compressed, "etl2pcapng"),
        ([&good[..], &[0; 100]].concat(), "buffer 3"),
        ([&good[..], &[1, 2]].concat(), "buffer 3"),
        (buffer(0, 0, &[fragment(7, 7, START_AND_END, START, b"packet")]), "no ETL file"),
    ] {
        let (bytes, result) = pcapng(&file);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(expected == "no ETL file" || bytes.windows(6).any(|window| window == b"packet"), "{error}");
    }
    // A file that is still being written, or was cut in transfer, ends within a buffer.
    let (bytes, result) = pcapng(&good[..good.len() - 1000]);
    assert!(bytes.windows(6).any(|window| window == b"packet"));
    let error = result.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("it ends within buffer 2"), "{error}");
    // Of a buffer with a damaged event, the events before it are read, and the rest is counted.
    let event = || fragment(7, 7, START_AND_END, START, b"packet");
    let mut damaged = [buffer(0, 0, &[log(2, 0, 0)]), buffer(0, 0, &[event(), event(), event()])].concat();
    let second = BUFFER + 72 + event().len();
    damaged[second + 3] = 0;
    assert_eq!(packets(&damaged).0.len(), 1);
    let (bytes, _) = pcapng(&damaged);
    assert!(bytes.windows(13).any(|window| window == b"1 events have"), "the damaged event is counted");
}

#[test]
fn etl_files_are_recognized() {
    assert!(begins(&buffer(0, 0, &[log(2, 0, 0)])));
    for other in [
        &b"\xd4\xc3\xb2\xa1\x02\0\x04\0"[..],
        b"\x0a\x0d\x0d\x0a\x1c\0\0\0",
        b"snoop\0\0\0",
        b"text, and more",
        b"",
        &[0; 8],
    ] {
        assert!(!begins(other), "{other:?}");
    }
}

proptest::proptest! {
    /// Any bytes, and good files with wrong bytes: reading ends, and gives little more than it gets.
    #[test]
    fn hostile_files_take_no_more_than_their_size(
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        changes in proptest::collection::vec((0_usize..12_288, proptest::num::u8::ANY), 0..12),
    ) {
        let _ = pcapng(&noise);
        let mut file = [
            buffer(0, 0, &[log(1, 1, 0), fragment(7, 7, 0x4000_0000, 5_000_000, b"begin")]),
            buffer(1, 0, &[fragment(7, 7, START_AND_END, 6_000_000, b"whole"), frame(
                &Frame { group: 1, direction: 1, kind: 1, component: 3, original: 9 }, 7_000_000, b"frame")]),
            buffer(0, 0, &[fragment(7, 7, 0x8000_0000, 5_000_001, b"end")]),
        ].concat();
        for (at, byte) in changes {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        let (bytes, _) = pcapng(&file);
        proptest::prop_assert!(bytes.len() < 2 * file.len(), "{}", bytes.len());
    }
}
