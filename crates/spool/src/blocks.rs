//! Reads the blocks that the spool writes.

use crate::layout::{self, BLOCK, Commit, Header};
use base::packet::{Direction, LinkType, PacketFlags};
use base::time::Timestamp;

const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_OS: u16 = 12;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
/// The shortest block: type, length, length.
const BLOCK_BYTES_MIN: usize = 12;
/// Name of an interface whose description was lost.
const LOST: &str = "(lost)";
/// A link type without meaning (LINKTYPE_USER0), for such an interface.
const LOST_LINK_TYPE: LinkType = LinkType(147);

/// A block of a spool file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block<'a> {
    /// Description of the next interface, as the file has it.
    Interface(&'a [u8]),
    /// A packet.
    Packet(SpooledPacket<'a>),
    /// A commit, which confirms the bytes before it.
    Commit(Commit),
    /// The header that describes the file.
    Header(Header),
    /// Any other block.
    Other,
}

/// A packet in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpooledPacket<'a> {
    /// Number of the packet's interface in the file.
    pub interface: u32,
    /// Capture time.
    pub time: Timestamp,
    /// Bytes on the wire.
    pub original_len: u32,
    /// Packets that the kernel dropped before this packet.
    pub drops_before: u32,
    /// Direction of the packet.
    pub direction: Direction,
    /// Offload flags.
    pub flags: PacketFlags,
    /// The captured bytes.
    pub data: &'a [u8],
}

/// An interface as a file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpooledInterface {
    /// Name; empty if the file has none.
    pub name: String,
    /// Link type of its packets.
    pub link_type: LinkType,
    /// Description, if the file has one.
    pub description: Option<String>,
    /// Operating system of the host, if the file states it.
    pub os: Option<String>,
}

/// The block at the start of `bytes`, and its length. `None` if the block is incomplete or inconsistent.
pub fn next(bytes: &[u8]) -> Option<(Block<'_>, usize)> {
    let len = usize::try_from(u32_at(bytes, 4)?).ok()?;
    if len < BLOCK_BYTES_MIN || !len.is_multiple_of(4) {
        return None;
    }
    let block = bytes.get(..len)?;
    if block[len - 4..] != block[4..8] {
        return None;
    }
    let parsed = match u32_at(block, 0)? {
        INTERFACE_DESCRIPTION => Block::Interface(block),
        ENHANCED_PACKET => Block::Packet(packet(&block[8..len - 4])?),
        BLOCK => match (Commit::read(block), Header::read(block)) {
            (Some(commit), _) => Block::Commit(commit),
            (None, Some(Ok(header))) => Block::Header(header),
            _ => Block::Other,
        },
        _ => Block::Other,
    };
    Some((parsed, len))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn packet(body: &[u8]) -> Option<SpooledPacket<'_>> {
    let time = u64::from(u32_at(body, 4)?) << 32 | u64::from(u32_at(body, 8)?);
    let captured = usize::try_from(u32_at(body, 12)?).ok()?;
    let padded = captured.checked_next_multiple_of(4)?;
    let mut packet = SpooledPacket {
        interface: u32_at(body, 0)?,
        time: Timestamp(time),
        original_len: u32_at(body, 16)?,
        drops_before: 0,
        direction: Direction::Unknown,
        flags: PacketFlags::default(),
        data: body.get(20..)?.get(..captured)?,
    };
    for (code, value) in options(body.get(20 + padded..)?) {
        match (code, value) {
            (EPB_FLAGS, _) => {
                let flags = u32_at(value, 0)?;
                packet.direction = match flags & 3 {
                    1 => Direction::In,
                    2 => Direction::Out,
                    _ => Direction::Unknown,
                };
                packet.flags.checksum_not_ready = flags >> 9 & 1 == 1;
                packet.flags.segmentation_offload = flags >> 11 & 1 == 1;
            }
            (EPB_DROPCOUNT, _) => {
                let drops = u64::from_ne_bytes(*value.first_chunk()?);
                packet.drops_before = u32::try_from(drops).unwrap_or(u32::MAX);
            }
            _ => {}
        }
    }
    Some(packet)
}

/// Codes and values of options, up to the first inconsistent option.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let code = u16::from_ne_bytes(*bytes.first_chunk()?);
        let len = usize::from(u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?));
        let value = bytes.get(4..)?.get(..len)?;
        bytes = bytes.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        (code != 0).then_some((code, value))
    })
}

impl SpooledInterface {
    /// Reads an interface description block.
    pub fn read(block: &[u8]) -> Option<Self> {
        let link_type = LinkType(u16::from_ne_bytes(*block.get(8..)?.first_chunk()?));
        let mut interface = Self { name: String::new(), link_type, description: None, os: None };
        for (code, value) in options(block.get(16..block.len().checked_sub(4)?)?) {
            let text = || String::from_utf8_lossy(value).into_owned();
            match code {
                IF_NAME => interface.name = text(),
                IF_DESCRIPTION => interface.description = Some(text()),
                IF_OS => interface.os = Some(text()),
                _ => {}
            }
        }
        Some(interface)
    }

    /// A substitute for an interface whose description was lost.
    pub fn lost() -> Self {
        Self { name: LOST.to_owned(), link_type: LOST_LINK_TYPE, description: None, os: None }
    }
}

/// The interfaces of an index section. Fewer if the section is damaged.
pub fn interfaces(mut section: &[u8]) -> Vec<SpooledInterface> {
    let mut interfaces = Vec::new();
    while let Some((block, len)) = next(section) {
        if let Block::Interface(block) = block {
            interfaces.push(SpooledInterface::read(block).unwrap_or_else(SpooledInterface::lost));
        }
        section = &section[len..];
    }
    interfaces
}

/// A block that replaces a lost interface description, so that later interfaces keep their numbers.
pub fn lost_interface() -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&INTERFACE_DESCRIPTION.to_ne_bytes());
    let name = LOST.as_bytes();
    let body = 8 + 4 + name.len().next_multiple_of(4) + 4;
    let len = u32::try_from(BLOCK_BYTES_MIN + body).unwrap_or(0);
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&LOST_LINK_TYPE.0.to_ne_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&262_144u32.to_ne_bytes());
    out.extend_from_slice(&IF_NAME.to_ne_bytes());
    out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(0).to_ne_bytes());
    out.extend_from_slice(name);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&len.to_ne_bytes());
    out
}

/// Splits plain bytes into commits: for each, the confirmed bytes and the commit. Ends at the first incomplete commit.
pub fn commits(bytes: &[u8]) -> impl Iterator<Item = (&[u8], Commit)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let mut at = 0;
        loop {
            let (block, len) = next(&rest[at..])?;
            if let Block::Commit(commit) = block {
                let data = &rest[..at];
                rest = &rest[at + len..];
                return Some((data, commit));
            }
            at += len;
            if at > layout::COMMITTED_BYTES_MAX {
                return None;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::interface::Interface;
    use base::packet::{InterfaceId, Packet};
    use formats::writer::Options;
    use formats::writer::pcapng::Writer;
    use proptest::prelude::*;

    #[test]
    fn packets_and_interfaces_are_read_as_written() {
        let interface = Interface {
            id: InterfaceId(0),
            name: "eth0".to_owned(),
            index: 2,
            link_type: LinkType::ETHERNET,
            description: Some("uplink".to_owned()),
            os: None,
            up: true,
            gone: None,
            since: Timestamp::MIN,
        };
        let packet = Packet {
            time: Timestamp(1_234_567_890_123_456_789),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::Out,
            flags: PacketFlags { checksum_not_ready: true, segmentation_offload: true },
            original_len: 99,
            drops_before: 7,
            data: b"hello",
        };
        let mut out = Vec::new();
        Writer::new(Options::default()).packet(&mut out, &interface, &packet);
        let (Block::Interface(block), len) = next(&out).unwrap() else { panic!("no interface") };
        let read = SpooledInterface::read(block).unwrap();
        assert_eq!((read.name.as_str(), read.link_type), ("eth0", LinkType::ETHERNET));
        assert_eq!(read.description.as_deref(), Some("uplink"));
        let (Block::Packet(read), _) = next(&out[len..]).unwrap() else { panic!("no packet") };
        assert_eq!((read.time, read.original_len, read.drops_before), (packet.time, 99, 7));
        assert_eq!((read.direction, read.flags, read.data), (packet.direction, packet.flags, packet.data));
        assert_eq!(interfaces(&lost_interface()), [SpooledInterface::lost()]);
    }

    proptest! {
        #[test]
        fn nonsense_is_read_without_panic(bytes: Vec<u8>, kind in 0u32..8, len in 0usize..64) {
            let mut block = vec![0; len];
            block.extend_from_slice(&bytes);
            let total = u32::try_from((block.len() + 12).next_multiple_of(4)).unwrap();
            let mut framed = [kind.to_ne_bytes(), total.to_ne_bytes()].concat();
            framed.extend_from_slice(&block);
            framed.resize(total as usize - 4, 0);
            framed.extend_from_slice(&total.to_ne_bytes());
            let _ = next(&framed);
            let _ = interfaces(&framed);
            let _ = commits(&bytes).count();
        }
    }
}
