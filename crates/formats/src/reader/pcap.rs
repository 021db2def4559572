//! Parses classic pcap (draft-ietf-opsawg-pcap): a file header, then records of one link type.
//!
//! Supported variants: microseconds, nanoseconds, and Kuznetzov's variant, whose record headers are eight bytes longer.
//! The snap length of the file header is ignored, because a file may state a false one.

use super::byte_order::ByteOrder;
use super::outcome::{CAPTURED_BYTES_MAX, Damage, InterfaceTable, Progress};
use crate::constants::*;
use crate::writer::pcapng::put_option;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::time::Timestamp;

/// The size of the file header, in bytes.
pub(super) const FILE_HEADER_BYTES: usize = 24;
/// The size of a record header, in bytes.
pub(super) const RECORD_HEADER_BYTES: usize = 16;
/// The size of a record header in Kuznetzov's variant. It adds interface index, protocol, packet type and padding.
const MODIFIED_RECORD_HEADER_BYTES: usize = 24;
/// Offset of the kernel's packet type (`PACKET_HOST` and so on) in a record header of that variant.
const MODIFIED_PACKET_TYPE_AT: usize = 22;
/// The kernel's packet type of packets sent by this host.
const PACKET_OUTGOING: u8 = 4;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The format that the magic number of a classic pcap file stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Magic {
    order: ByteOrder,
    nanos_per_unit: u64,
    record_header_bytes: usize,
}

impl Magic {
    /// Returns `None` if the bytes do not begin with a magic number of classic pcap.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let first = bytes.first_chunk::<4>()?;
        [ByteOrder::Little, ByteOrder::Big].into_iter().find_map(|order| {
            let (nanos_per_unit, record_header_bytes) = match order.u32(first, 0) {
                PCAP_MICROS => (1000, RECORD_HEADER_BYTES),
                PCAP_NANOS => (1, RECORD_HEADER_BYTES),
                PCAP_MODIFIED => (1000, MODIFIED_RECORD_HEADER_BYTES),
                _ => return None,
            };
            Some(Self { order, nanos_per_unit, record_header_bytes })
        })
    }
}

/// Parses records after the file header.
pub(super) struct Parser {
    magic: Magic,
    link_type: LinkType,
    /// `None` if the interface table is full.
    interface: Option<InterfaceId>,
}

impl Parser {
    pub(super) fn new(
        magic: Magic,
        header: &[u8; FILE_HEADER_BYTES],
        table: &mut InterfaceTable,
    ) -> Result<Self, Damage> {
        let (major, minor) = (magic.order.u16(header, 4), magic.order.u16(header, 6));
        if major != PCAP_VERSION_MAJOR {
            let message = format!("pcap file of version {major}.{minor}, expected {PCAP_VERSION_MAJOR}.x");
            return Err(Damage { offset: 0, message });
        }
        // The mask leaves 16 bits, so the conversion does not fail.
        let link_type =
            u16::try_from(magic.order.u32(header, 20) & PCAP_LINK_TYPE_MASK).map_or(LinkType::NULL, LinkType);
        let interface = table.intern("", link_type, |_| {});
        let field = magic.order.u32(header, 20);
        if field & PCAP_FCS_PRESENT != 0
            && let Some(id) = interface
        {
            table.annotations.found_one("frame check sequence lengths");
            // pcapng states the length in bits.
            let bits = u8::try_from((field >> PCAP_FCS_SHIFT) * 16).unwrap_or(0);
            put_option(table.annotations.interfaces.entry(id).or_default(), IF_FCSLEN, &[bits]);
        }
        Ok(Self { magic, link_type, interface })
    }

    /// Hands over all complete records in `bytes`, which start at a record boundary.
    pub(super) fn parse<'a>(
        &mut self,
        bytes: &'a [u8],
        offset: u64,
        table: &mut InterfaceTable,
        each: &mut impl FnMut(Packet<'a>),
    ) -> Result<Progress, Damage> {
        let Magic { order, nanos_per_unit, record_header_bytes } = self.magic;
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            let Some(header) = rest.first_chunk::<RECORD_HEADER_BYTES>() else {
                return Ok(Progress { consumed, skip: 0, wanted: record_header_bytes });
            };
            let captured = order.u32(header, 8);
            if captured > CAPTURED_BYTES_MAX {
                let message =
                    format!("record claims {captured} captured bytes, at most {CAPTURED_BYTES_MAX} are possible");
                return Err(Damage { offset: offset + consumed as u64, message });
            }
            let length = record_header_bytes + captured as usize;
            let Some(data) = rest.get(record_header_bytes..length) else {
                return Ok(Progress { consumed, skip: 0, wanted: length });
            };
            if let Some(interface) = self.interface {
                let (seconds, units) = (u64::from(order.u32(header, 0)), u64::from(order.u32(header, 4)));
                each(Packet {
                    // Both factors have 32 bits: the sum is at most 4.3e18 + 4.3e12, below 2^64.
                    time: Timestamp(seconds * NANOS_PER_SECOND + units * nanos_per_unit),
                    interface,
                    link_type: self.link_type,
                    direction: self.direction(rest),
                    flags: PacketFlags::default(),
                    original_len: order.u32(header, 12),
                    drops_before: 0,
                    data,
                });
            } else {
                table.refuse(data.len());
            }
            consumed += length;
        }
    }

    /// Checks that the input may end here. `left` holds the bytes of an incomplete record.
    pub(super) fn end(&self, left: &[u8], offset: u64) -> Result<(), Damage> {
        let header = self.magic.record_header_bytes;
        let message = match left.len() {
            0 => return Ok(()),
            length if length < header => format!("record header cut short: {length} of {header} bytes"),
            length => {
                let captured = self.magic.order.u32(left, 8);
                format!("record cut short: {} of {captured} captured bytes", length - header)
            }
        };
        Err(Damage { offset, message })
    }

    fn direction(&self, record: &[u8]) -> Direction {
        if self.magic.record_header_bytes < MODIFIED_RECORD_HEADER_BYTES {
            return Direction::Unknown;
        }
        match record[MODIFIED_PACKET_TYPE_AT] {
            PACKET_OUTGOING => Direction::Out,
            0..PACKET_OUTGOING => Direction::In,
            _ => Direction::Unknown,
        }
    }
}
