//! Tests with captures that are truncated, inconsistent, or in another format.

use proptest::prelude::*;

use super::build::{Capture, read};
use super::{UNKNOWN, small_pcap, small_pcapng};
use crate::reader::CAPTURED_BYTES_MAX;
use crate::reader::byte_order::ByteOrder;

/// Checks the damage of a capture, and the number of packets before it.
#[track_caller]
fn check(bytes: &[u8], packets: usize, offset: u64, message: &str) {
    let outcome = read(bytes);
    let (at, said) = outcome.damage.unwrap_or_else(|| panic!("expected: {message}"));
    assert!(said.contains(message), "{said:?} does not contain {message:?}");
    assert_eq!((at, outcome.packets.len()), (offset, packets), "{said}");
}

#[test]
fn a_truncated_capture_gives_what_is_whole_and_says_where_it_ends() {
    for (capture, header) in [(small_pcap(), 24), (small_pcapng(), 0)] {
        let whole = read(&capture.bytes).packets;
        let (mut ends, mut packets) = (capture.starts.clone(), 0);
        ends.push(capture.bytes.len());
        for length in 0..=capture.bytes.len() {
            let outcome = read(&capture.bytes[..length]);
            assert!(outcome.packets.len() >= packets, "{length} bytes");
            packets = outcome.packets.len();
            assert_eq!(outcome.packets, whole[..packets], "{length} bytes");
            let is_end = length > 0 && ends.contains(&length);
            let last_start = ends.iter().rev().find(|&&start| start < length && start >= header);
            let expected = (!is_end).then(|| last_start.map_or(0, |&start| start as u64));
            let damage = outcome.damage;
            assert_eq!(damage.as_ref().map(|(offset, _)| *offset), expected, "{length} bytes: {damage:?}");
        }
        assert_eq!(packets, whole.len());
    }
}

#[test]
fn truncated_captures_say_what_is_missing() {
    let (classic, modern) = (small_pcap(), small_pcapng());
    let starts = &modern.starts;
    let table: &[(&[u8], usize, usize, &str)] = &[
        (b"", 0, 0, "the input is empty"),
        (b"\xa1\xb2", 0, 0, "begins with a1 b2; expected pcap or pcapng"),
        (&classic.bytes[..10], 0, 0, "file header cut short: 10 of 24 bytes"),
        (&classic.bytes[..31], 0, 24, "record header cut short: 7 of 16 bytes"),
        (&classic.bytes[..45], 0, 24, "record cut short: 5 of 20 captured bytes"),
        (&modern.bytes[..8], 0, 0, "block header cut short: 8 of 12 bytes"),
        (&modern.bytes[..20], 0, 0, "section header block cut short: 20 of 40 bytes"),
        (&modern.bytes[..30], 0, 0, "section header block cut short: 30 of 40 bytes"),
        (&modern.bytes[..starts[2] + 3], 0, starts[2], "block header cut short: 3 of 12 bytes"),
        (&modern.bytes[..starts[2] + 33], 0, starts[2], "enhanced packet block cut short: 33 of 40 bytes"),
        (&modern.bytes[..starts[3] + 14], 1, starts[3], "block of type 0x00000004 cut short: 14 of 24 bytes"),
        (&modern.bytes[..starts[4] + 13], 1, starts[4], "simple packet block cut short: 13 of 20 bytes"),
    ];
    for &(bytes, packets, offset, message) in table {
        check(bytes, packets, offset as u64, message);
    }
}

#[test]
fn lies_are_damage_where_they_stand() {
    let modern = || {
        let mut capture = Capture::pcapng();
        capture.section(ByteOrder::Little, UNKNOWN).interface(1, 0, &[]).enhanced(0, 1, 1, b"x", &[]);
        capture
    };
    let offset = modern().bytes.len() as u64;
    let lie = |kind: u32, words: &[u32]| {
        let mut capture = modern();
        capture.block(kind, |body| body.words(words));
        capture.bytes
    };
    check(&lie(6, &[7, 0, 0, 0, 0]), 1, offset, "packet of interface 7, but its section has described only 1");
    check(&lie(6, &[0, 0, 0, 5, 5, 0]), 1, offset, "enhanced packet block claims 5 captured bytes but has room for 4");
    check(&lie(2, &[0, 0, 0, u32::MAX, 5, 0]), 1, offset, "packet block claims 4294967295 captured bytes");
    check(&lie(6, &[0]), 1, offset, "enhanced packet block claims to have 16 bytes, at least 32");
    check(&lie(1, &[]), 1, offset, "interface description block claims to have 12 bytes, at least 20");
    check(&lie(1, &[1, 0, 5 << 16 | 2]), 1, offset, "has option 2 of 5 bytes where 0 are left");
    check(&lie(1, &[1, 0, 9]), 1, offset, "has option 9 of only 0 bytes");
    check(&lie(1, &[1, 0, 4 << 16 | 14, 0]), 1, offset, "has option 14 of only 4 bytes");

    let claim = |kind: u32, length: u32, rest: &[u8]| {
        let mut capture = modern();
        capture.words(&[kind, length]).raw(rest);
        capture.bytes
    };
    check(&claim(6, u32::MAX, &[0; 64]), 1, offset, "enhanced packet block claims to have 4294967295 bytes");
    check(&claim(1, 2 << 20, &[0; 64]), 1, offset, "interface description block claims to have 2097152 bytes");
    check(&claim(9, u32::MAX, &[0; 64]), 1, offset, "block of type 0x00000009 claims to have 4294967295 bytes");
    check(&claim(9, 8, &[0; 64]), 1, offset, "block of type 0x00000009 claims to have 8 bytes");
    check(&claim(9, 16, &[0; 8]), 1, offset, "block of type 0x00000009 has length 16 at its start but 0 at its end");
    check(&claim(5, 64 << 20, &[0; 64]), 1, offset, "block of type 0x00000005 cut short: 72 of 67108864 bytes");
    check(&claim(0x0a0d_0d0a, 28, &[0; 20]), 1, offset, "section header block with byte-order magic 00 00 00 00");

    let mut second = Capture::default();
    second.words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d]).u16(2).u16(0).words(&[0, 0, 28]);
    check(&second.bytes, 0, 0, "pcapng section of version 2.0, expected 1.x");
    let mut orphan = Capture::pcapng();
    orphan.section(ByteOrder::Big, UNKNOWN).block(3, |body| body.words(&[1, 1]));
    check(&orphan.bytes, 0, orphan.starts[1] as u64, "packet of interface 0, but its section has described only 0");

    let mut classic = small_pcap();
    let end = classic.bytes.len() as u64;
    classic.words(&[4, 0, CAPTURED_BYTES_MAX + 1, 60]).raw(&[0; 60]);
    check(&classic.bytes, 3, end, "record claims 16777217 captured bytes, at most 16777216 are possible");
    let mut version = Capture::pcap(ByteOrder::Little, 0xa1b2_c3d4, 1);
    version.bytes[4] = 7;
    check(&version.bytes, 0, 0, "pcap file of version 7.4, expected 2.x");
    check(b"\x1f\x8b\x08\0\0\0\0\0\0\x03", 0, 0, "zcat FILE | retrocap replay -");
}

#[test]
fn a_false_length_takes_no_memory() {
    let mut classic = Capture::pcap(ByteOrder::Little, 0xa1b2_c3d4, 1);
    classic.words(&[0, 0, CAPTURED_BYTES_MAX, 60]).raw(&[0; 60]);
    let outcome = read(&classic.bytes);
    assert_eq!(outcome.damage.unwrap().1, "record cut short: 60 of 16777216 captured bytes");
    assert_eq!(outcome.capacity, 256 << 10);
}

#[test]
fn blocks_without_their_padding_are_understood() {
    let mut capture = Capture::pcapng();
    capture.section(ByteOrder::Little, UNKNOWN).interface(1, 0, &[]);
    // Some writers leave the padding at the end of the packet out of both lengths.
    capture.words(&[6, 33, 0, 0, 1, 1, 1]).padded(b"x").u32(33).enhanced(0, 2, 1, b"y", &[]);
    let outcome = read(&capture.bytes);
    assert_eq!(outcome.damage, None);
    assert_eq!(outcome.packets.iter().map(|p| p.data.as_slice()).collect::<Vec<_>>(), [b"x", b"y"]);
}

proptest! {
    #[test]
    fn random_changes_never_panic_loop_or_take_memory(
        modern: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        length: prop::sample::Index,
    ) {
        let mut bytes = if modern { small_pcapng() } else { small_pcap() }.bytes;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - length.index(bytes.len()) / 4);
        let outcome = read(&bytes);
        prop_assert!(outcome.packets.iter().all(|packet| packet.data.len() <= bytes.len()));
        prop_assert!(outcome.damage.is_none_or(|(offset, _)| offset <= bytes.len() as u64));
        prop_assert_eq!(outcome.capacity, 256 << 10);
    }

    #[test]
    fn random_bytes_after_a_good_start_never_panic(
        modern: bool,
        tail in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..256),
    ) {
        let mut bytes = if modern { small_pcapng() } else { small_pcap() }.bytes;
        let good = read(&bytes).packets;
        bytes.extend(tail);
        prop_assert_eq!(&read(&bytes).packets[..good.len()], good);
    }
}
