//! Reads the sections of an index.

use super::varint::VarintReader;
use super::{Chunk, ChunkSet, Condition};
use base::time::Timestamp;

/// The chunks of a file from its first section. `None` if the section is damaged.
pub fn read_chunks(payload: &[u8]) -> Option<Vec<Chunk>> {
    let mut numbers = VarintReader(payload);
    let mut chunks = Vec::new();
    let mut end = 0u64;
    while !numbers.0.is_empty() {
        let mut next = || numbers.next_u64();
        let (offset, len, plain_len, packets) = (end.checked_add(next()?)?, next()?, next()?, next()?);
        let (oldest, span) = (next()?, next()?);
        let newest = oldest.wrapping_add(span);
        end = offset.checked_add(len)?;
        let times = (oldest <= newest).then_some((Timestamp(oldest), Timestamp(newest)));
        chunks.push(Chunk { offset, len, plain_len, packets, times });
    }
    Some(chunks)
}

/// The chunks that may meet a condition, from the section that answers it. `None` if the section is damaged.
pub fn select(payload: &[u8], condition: &Condition) -> Option<ChunkSet> {
    select_keys(payload, condition.last(), |key| condition.admits(key))
}

/// The chunks with a key of a section, up to the key `last`, that `admits` accepts. `None` if the section is damaged.
pub(super) fn select_keys(payload: &[u8], last: u128, admits: impl Fn(u128) -> bool) -> Option<ChunkSet> {
    let mut numbers = VarintReader(payload);
    let mut set = ChunkSet::default();
    let mut key = 0u128;
    while !numbers.0.is_empty() {
        key = key.checked_add(numbers.next()?)?;
        if key > last {
            break;
        }
        let admitted = admits(key);
        let head = numbers.next_u64()?;
        if head & 1 == 0 {
            let chunk = u16::try_from(head >> 1).ok()?;
            if admitted {
                set.insert(chunk.into());
            }
            continue;
        }
        let mut chunk = 0u64;
        for _ in 0..head >> 1 {
            chunk = chunk.checked_add(numbers.next_u64()?)?;
            if admitted {
                set.insert(u16::try_from(chunk).ok()?.into());
            }
        }
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, CHUNKS, IPV4, PORTS, SESSIONS};
    use super::*;
    use base::packet::LinkType;
    use proptest::prelude::*;

    /// An Ethernet frame with a UDP datagram.
    fn udp(source: u32, destination: u32, ports: (u16, u16)) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend_from_slice(&source.to_be_bytes());
        frame.extend_from_slice(&destination.to_be_bytes());
        frame.extend_from_slice(&ports.0.to_be_bytes());
        frame.extend_from_slice(&ports.1.to_be_bytes());
        frame.extend_from_slice(&[0, 8, 0, 0]);
        frame
    }

    proptest! {
        #[test]
        fn the_index_finds_every_packet_and_excludes_most_others(
            chunks in prop::collection::vec(prop::collection::vec((0u32..40, 0u32..40, 1u16..30), 1..20), 1..8),
            wanted in 0u32..40, port in 1u16..30,
        ) {
            let mut builder = Builder::default();
            for (number, packets) in chunks.iter().enumerate() {
                for (source, destination, port) in packets {
                    let data = udp(0x0a00_0000 + source, 0x0a00_0000 + destination, (*port, 53));
                    builder.packet(Timestamp(number as u64), LinkType::ETHERNET, &data);
                }
                builder.commit(100 * number as u64, 100, 300);
                builder.close_chunk();
            }
            let address = Condition::Ipv4(0x0a00_0000 + wanted, 0x0a00_0000 + wanted);
            let port_wanted = Condition::Port(port, port);
            let open = [builder.select(&address), builder.select(&port_wanted)];
            let (sections, _) = builder.finish();
            let sealed = [
                select(&sections[IPV4], &address).unwrap(),
                select(&sections[PORTS], &port_wanted).unwrap(),
            ];
            let has = [
                |packet: &(u32, u32, u16), wanted, _| packet.0 == wanted || packet.1 == wanted,
                |packet: &(u32, u32, u16), _, port| packet.2 == port,
            ];
            for (number, packets) in (0u32..).zip(&chunks) {
                for kind in 0..2 {
                    let there = packets.iter().any(|packet| has[kind](packet, wanted, port));
                    prop_assert_eq!(sealed[kind].contains(number), there);
                    prop_assert_eq!(open[kind].contains(number), there);
                }
            }
            let read = read_chunks(&sections[CHUNKS]).unwrap();
            prop_assert_eq!(read.len(), chunks.len());
            for (chunk, packets) in read.iter().zip(&chunks) {
                prop_assert_eq!(chunk.packets, packets.len() as u64);
            }
        }

        #[test]
        fn nonsense_is_read_without_panic(bytes: Vec<u8>) {
            let _ = read_chunks(&bytes);
            let _ = select(&bytes, &Condition::Ipv6(0, u128::MAX));
            let _ = select(&bytes, &Condition::Session(7));
        }
    }

    #[test]
    fn later_fragments_are_found_by_every_port_and_session() {
        let mut builder = Builder::default();
        let mut fragment = udp(1, 2, (3, 4));
        fragment[20] = 0x00;
        fragment[21] = 0x10; // offset 128
        builder.packet(Timestamp(1), LinkType::ETHERNET, &fragment);
        builder.commit(0, 1, 1);
        let (sections, _) = builder.finish();
        assert!(select(&sections[PORTS], &Condition::Port(999, 999)).unwrap().contains(0));
        assert!(select(&sections[SESSIONS], &Condition::Session(0x1234_5678)).unwrap().contains(0));
        assert!(!select(&sections[IPV4], &Condition::Ipv4(9, 9)).unwrap().contains(0));
    }
}
