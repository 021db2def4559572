//! Parses pcapng (draft-ietf-opsawg-pcapng): sections of blocks.
//!
//! The parser reads section headers (any number, each with its own byte order), interface descriptions, and enhanced,
//! simple and obsolete packet blocks. It ignores the section length. It keeps other blocks with known contents as
//! [`annotations`](crate::annotations) while there is room, and skips every other block by its length without buffering
//! it.
//!
//! A simple packet block has no time and gets the last time in the input, or 0. Invalid options of a packet end the
//! option list without an error, because the packet bytes are valid without them. Invalid options of an interface
//! description are damage, because every time depends on them.

use super::byte_order::ByteOrder;
use super::extras;
use super::options::{Options, padding, text};
use super::outcome::{CAPTURED_BYTES_MAX, Damage, InterfaceTable, Progress};
use super::resolution::Resolution;
use crate::annotations::{Annotations, PacketAnnotation};
use crate::constants::*;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::time::Timestamp;

/// The first bytes of a pcapng file, the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// The size in bytes of the smallest block: type, length, length again. In a section header, the last four of these
/// bytes are the byte-order magic.
pub(super) const BLOCK_START_BYTES: usize = 12;

/// The size in bytes of a section header before its options.
const SECTION_START_BYTES: usize = 24;
/// The size in bytes of a block's type and length fields.
const HEADER_BYTES: usize = 8;
/// The size in bytes of the length field that ends a block.
const TRAILER_BYTES: usize = 4;

/// The maximum size in bytes of the options of a block that is read in one piece.
const OPTIONS_BYTES_MAX: u32 = 1 << 20;
/// The maximum number of interfaces of one section. Packets of further interfaces are refused.
const SECTION_INTERFACES_MAX: u32 = 1 << 16;
/// The maximum length of an interface's name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The maximum length of an interface's description, and of its operating system, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// The drop count of an obsolete packet block that means "unknown".
const DROPS_UNKNOWN: u16 = u16::MAX;

/// Parses blocks. Byte order and interfaces belong to the current section.
#[derive(Default)]
pub(super) struct Parser {
    order: ByteOrder,
    interfaces: Vec<SectionInterface>,
    /// The number of interface descriptions in this section, including those beyond [`SECTION_INTERFACES_MAX`].
    described: u32,
    last_time: Timestamp,
    skipped: Option<Skipped>,
}

struct SectionInterface {
    /// `None` if the interface table is full.
    id: Option<InterfaceId>,
    link_type: LinkType,
    snap_len: u32,
    resolution: Resolution,
}

/// A block that is being skipped. Only its trailer remains to be checked.
struct Skipped {
    block: Block,
    offset: u64,
}

#[derive(Clone, Copy)]
struct Block {
    kind: u32,
    /// The length field. Some writers do not include the padding.
    claimed: u32,
}

/// The fields that packet blocks have in common.
struct Captured<'a> {
    interface: u32,
    /// `None` in a simple packet block.
    units: Option<u64>,
    original_len: u32,
    drops_before: u32,
    data: &'a [u8],
    options: &'a [u8],
}

impl Parser {
    /// Hands over all packets of complete blocks in `bytes`, which start at a block or at the trailer of a skipped
    /// block.
    pub(super) fn parse<'a>(
        &mut self,
        bytes: &'a [u8],
        offset: u64,
        table: &mut InterfaceTable,
        each: &mut impl FnMut(Packet<'a>),
    ) -> Result<Progress, Damage> {
        let mut consumed = 0;
        if let Some(Skipped { block, offset }) = self.skipped.take() {
            block.check_trailer(self.order, bytes).map_err(|message| Damage { offset, message })?;
            consumed = TRAILER_BYTES;
        }
        loop {
            let rest = &bytes[consumed..];
            let offset = offset + consumed as u64;
            let damage = |message| Damage { offset, message };
            if rest.len() < BLOCK_START_BYTES {
                return Ok(Progress { consumed, skip: 0, wanted: BLOCK_START_BYTES });
            }
            if rest.starts_with(&MAGIC) {
                if rest.len() < SECTION_START_BYTES {
                    return Ok(Progress { consumed, skip: 0, wanted: SECTION_START_BYTES });
                }
                self.begin_section(rest).map_err(damage)?;
            }
            let block = Block::of(self.order, rest).map_err(damage)?;
            let kept = extras::is_kept(block.kind) && table.annotations.may_keep(block.length());
            if extras::is_kept(block.kind) && !kept {
                table.annotations.skip_block(extras::name_of_kind(block.kind));
            }
            if !block.is_read_whole() && !kept {
                if !extras::is_kept(block.kind) {
                    table.annotations.skip_block("blocks of other types");
                }
                match rest.get(..block.length()) {
                    Some(whole) => block.check_trailer(self.order, trailer(whole)).map_err(damage)?,
                    None => {
                        self.skipped = Some(Skipped { block, offset });
                        let skip = (block.length() - TRAILER_BYTES) as u64;
                        return Ok(Progress { consumed, skip, wanted: TRAILER_BYTES });
                    }
                }
            } else if let Some(whole) = rest.get(..block.length()) {
                block.check_trailer(self.order, trailer(whole)).map_err(damage)?;
                let body = &whole[HEADER_BYTES..whole.len() - TRAILER_BYTES];
                if kept {
                    let interfaces: Vec<_> = self.interfaces.iter().map(|i| (i.id, i.resolution)).collect();
                    extras::keep(block.kind, self.order, body, &interfaces, &mut table.annotations);
                } else if block.kind == INTERFACE_DESCRIPTION {
                    self.add_interface(body, table).map_err(damage)?;
                } else {
                    let captured = self.packet_block(block.kind, body).map_err(damage)?;
                    self.hand_over(&captured, table, each).map_err(damage)?;
                }
            } else {
                return Ok(Progress { consumed, skip: 0, wanted: block.length() });
            }
            consumed += block.length();
        }
    }

    /// Checks that the input may end here. `left` holds the bytes of an incomplete block.
    pub(super) fn end(&self, left: &[u8], offset: u64) -> Result<(), Damage> {
        if let Some(Skipped { block, offset: start }) = &self.skipped {
            let message = block.cut_short(offset - start + left.len() as u64);
            return Err(Damage { offset: *start, message });
        }
        let message = match left.len() {
            0 => return Ok(()),
            length if length < BLOCK_START_BYTES => {
                format!("block header cut short: {length} of {BLOCK_START_BYTES} bytes")
            }
            length => {
                let order = if left.starts_with(&MAGIC) { section_order(left) } else { Some(self.order) };
                match order.map(|order| Block::of(order, left)) {
                    Some(Ok(block)) => block.cut_short(length as u64),
                    _ => format!("section header block cut short: {length} of {SECTION_START_BYTES} bytes or more"),
                }
            }
        };
        Err(Damage { offset, message })
    }

    /// Parses a "Section Header Block" of at least [`SECTION_START_BYTES`] bytes.
    fn begin_section(&mut self, block: &[u8]) -> Result<(), String> {
        let Some(order) = section_order(block) else {
            let [a, b, c, d] = [block[8], block[9], block[10], block[11]];
            return Err(format!(
                "section header block with byte-order magic {a:02x} {b:02x} {c:02x} {d:02x}, expected 1a 2b 3c 4d in \
                 either direction"
            ));
        };
        let (major, minor) = (order.u16(block, 12), order.u16(block, 14));
        if major != VERSION_MAJOR {
            return Err(format!("pcapng section of version {major}.{minor}, expected {VERSION_MAJOR}.x"));
        }
        self.order = order;
        self.interfaces.clear();
        self.described = 0;
        Ok(())
    }

    /// Parses an "Interface Description Block".
    fn add_interface(&mut self, body: &[u8], table: &mut InterfaceTable) -> Result<(), String> {
        let link_type = LinkType(self.order.u16(body, 0));
        let snap_len = self.order.u32(body, 4);
        let mut resolution = Resolution::DEFAULT;
        let (mut name, mut description, mut os) = (String::new(), None, None);
        let mut more = Vec::new();
        for option in (Options { order: self.order, rest: &body[8..] }) {
            let (code, value) = option.map_err(|what| format!("interface description block {what}"))?;
            let too_short = || format!("interface description block has option {code} of only {} bytes", value.len());
            match code {
                IF_NAME => name = text(value, NAME_BYTES_MAX),
                IF_DESCRIPTION => description = Some(text(value, DESCRIPTION_BYTES_MAX)),
                IF_OS => os = Some(text(value, DESCRIPTION_BYTES_MAX)),
                IF_TSRESOL => resolution = resolution.with_tsresol(*value.first().ok_or_else(too_short)?),
                IF_TSOFFSET if value.len() < 8 => return Err(too_short()),
                IF_TSOFFSET => resolution = resolution.with_tsoffset(self.order.u64(value, 0).cast_signed()),
                _ => extras::interface_option(code, self.order, value, &mut more, &mut table.annotations),
            }
        }
        self.described = self.described.saturating_add(1);
        if self.described <= SECTION_INTERFACES_MAX {
            let id = table.intern(&name, link_type, |interface| {
                interface.description = description;
                interface.os = os;
            });
            if let Some(id) = id {
                // Interfaces with the same name and link type share one entry, which keeps the options of the first.
                if self.interfaces.iter().any(|other| other.id == Some(id)) {
                    table.annotations.skip_block("interfaces with the name and link type of another");
                }
                table.annotations.describe_interface(id, more);
            }
            self.interfaces.push(SectionInterface { id, link_type, snap_len, resolution });
        }
        Ok(())
    }

    fn packet_block<'b>(&self, kind: u32, body: &'b [u8]) -> Result<Captured<'b>, String> {
        match kind {
            ENHANCED_PACKET => {
                let (data, options) = self.data(kind, body, self.order.u32(body, 12))?;
                Ok(Captured {
                    interface: self.order.u32(body, 0),
                    units: Some(self.units(body)),
                    original_len: self.order.u32(body, 16),
                    drops_before: 0,
                    data,
                    options,
                })
            }
            OBSOLETE_PACKET => {
                let (data, options) = self.data(kind, body, self.order.u32(body, 12))?;
                let drops = self.order.u16(body, 2);
                Ok(Captured {
                    interface: u32::from(self.order.u16(body, 0)),
                    units: Some(self.units(body)),
                    original_len: self.order.u32(body, 16),
                    drops_before: if drops == DROPS_UNKNOWN { 0 } else { u32::from(drops) },
                    data,
                    options,
                })
            }
            _ => {
                let original_len = self.order.u32(body, 0);
                let padded = &body[4..];
                let data = &padded[..self.simple_captured(original_len, padded.len())];
                Ok(Captured { interface: 0, units: None, original_len, drops_before: 0, data, options: &[] })
            }
        }
    }

    /// Splits the variable part of an enhanced or obsolete packet block into packet bytes and options.
    fn data<'b>(&self, kind: u32, body: &'b [u8], captured: u32) -> Result<(&'b [u8], &'b [u8]), String> {
        let rest = &body[fixed_bytes(kind)..];
        if captured > CAPTURED_BYTES_MAX {
            let name = name_of(kind);
            return Err(format!("{name} claims {captured} captured bytes, at most {CAPTURED_BYTES_MAX} are possible"));
        }
        match rest.split_at_checked(captured as usize) {
            Some((data, after)) => Ok((data, after.get(padding(data.len())..).unwrap_or_default())),
            None => {
                let (name, room) = (name_of(kind), rest.len());
                Err(format!("{name} claims {captured} captured bytes but has room for {room}"))
            }
        }
    }

    /// Returns the captured length of a simple packet block, which has no field for it. This is the original length,
    /// limited by the snap length of the first interface, if that agrees with the length of the block. Otherwise it is
    /// the length of the packet data in the block, limited by the original length.
    fn simple_captured(&self, original_len: u32, room: usize) -> usize {
        let snap_len = self.interfaces.first().map_or(0, |interface| interface.snap_len);
        let expected = if snap_len == 0 { original_len } else { snap_len.min(original_len) } as usize;
        if expected.checked_next_multiple_of(4) == Some(room) { expected } else { room.min(original_len as usize) }
    }

    /// Returns the time of an enhanced or obsolete packet block, in units of the interface. The upper 32 bits come
    /// first in both byte orders.
    fn units(&self, body: &[u8]) -> u64 {
        u64::from(self.order.u32(body, 4)) << 32 | u64::from(self.order.u32(body, 8))
    }

    fn hand_over<'a>(
        &mut self,
        captured: &Captured<'a>,
        table: &mut InterfaceTable,
        each: &mut impl FnMut(Packet<'a>),
    ) -> Result<(), String> {
        if captured.interface >= self.described {
            let (number, described) = (captured.interface, self.described);
            return Err(format!("packet of interface {number}, but its section has described only {described}"));
        }
        let known = self.interfaces.get(captured.interface as usize);
        let Some((SectionInterface { link_type, resolution, .. }, interface)) = known.and_then(|i| Some((i, i.id?)))
        else {
            table.refuse(captured.data.len());
            return Ok(());
        };
        match captured.units {
            Some(units) => {
                let (time, changed) = resolution.time(units);
                self.last_time = time;
                table.times_changed += u64::from(changed);
            }
            None => table.times_missing += 1,
        }
        let mut packet = Packet {
            time: self.last_time,
            interface,
            link_type: *link_type,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: captured.original_len,
            drops_before: captured.drops_before,
            data: captured.data,
        };
        if !captured.options.is_empty() {
            let options = Options { order: self.order, rest: captured.options };
            if let Some(annotation) = read_packet_options(options, &mut packet, &mut table.annotations) {
                table.annotations.add_packet(&packet, annotation);
            }
        }
        each(packet);
        Ok(())
    }
}

/// Reads the options of an "Enhanced Packet Block" or an obsolete packet block; `epb_flags` and `pack_flags` are the
/// same.
///
/// Returns the flags and options that the packet has no field for.
fn read_packet_options(
    options: Options<'_>,
    packet: &mut Packet<'_>,
    annotations: &mut Annotations,
) -> Option<PacketAnnotation> {
    let order = options.order;
    let mut more = PacketAnnotation::default();
    for (code, value) in options.map_while(Result::ok) {
        match code {
            EPB_FLAGS if value.len() >= 4 => {
                let flags = order.u32(value, 0);
                packet.direction = match flags & FLAG_DIRECTION {
                    1 => Direction::In,
                    2 => Direction::Out,
                    _ => Direction::Unknown,
                };
                packet.flags.checksum_not_ready = flags & FLAG_CHECKSUM_NOT_READY != 0;
                packet.flags.segmentation_offload = flags & FLAG_SEGMENTATION_OFFLOAD != 0;
                more.flags = flags & !(FLAG_DIRECTION | FLAG_CHECKSUM_NOT_READY | FLAG_SEGMENTATION_OFFLOAD);
            }
            EPB_DROPCOUNT if value.len() >= 8 => {
                packet.drops_before = u32::try_from(order.u64(value, 0)).unwrap_or(u32::MAX);
            }
            _ => extras::packet_option(code, order, value, &mut more.options, annotations),
        }
    }
    (more != PacketAnnotation::default()).then_some(more)
}

impl Block {
    /// Reads type and length from the first [`BLOCK_START_BYTES`] bytes of a block.
    fn of(order: ByteOrder, bytes: &[u8]) -> Result<Self, String> {
        let block = Self { kind: order.u32(bytes, 0), claimed: order.u32(bytes, 4) };
        let least = HEADER_BYTES + fixed_bytes(block.kind) + TRAILER_BYTES;
        let most = match block.kind {
            INTERFACE_DESCRIPTION => OPTIONS_BYTES_MAX,
            _ if block.is_read_whole() => CAPTURED_BYTES_MAX + OPTIONS_BYTES_MAX,
            // The padded length must fit 32 bits.
            _ => u32::MAX - 3,
        } as usize;
        let claimed = block.claimed as usize;
        if (least..=most).contains(&claimed) {
            return Ok(block);
        }
        let name = name_of(block.kind);
        Err(format!("{name} claims to have {claimed} bytes, at least {least} and at most {most} are possible"))
    }

    /// Returns the size of the block in the file, in bytes, with padding.
    fn length(self) -> usize {
        self.claimed.next_multiple_of(4) as usize
    }

    /// Returns whether the whole block must be in the buffer.
    fn is_read_whole(self) -> bool {
        matches!(self.kind, INTERFACE_DESCRIPTION | OBSOLETE_PACKET | SIMPLE_PACKET | ENHANCED_PACKET)
    }

    fn check_trailer(self, order: ByteOrder, trailer: &[u8]) -> Result<(), String> {
        let again = order.u32(trailer, 0);
        if again == self.claimed || again as usize == self.length() {
            return Ok(());
        }
        Err(format!("{} has length {} at its start but {again} at its end", name_of(self.kind), self.claimed))
    }

    fn cut_short(self, there: u64) -> String {
        format!("{} cut short: {there} of {} bytes", name_of(self.kind), self.length())
    }
}

/// Returns the size in bytes of the fixed part of a body, before packet bytes or options, for blocks that are parsed.
fn fixed_bytes(kind: u32) -> usize {
    match kind {
        SECTION_HEADER => SECTION_START_BYTES - HEADER_BYTES,
        INTERFACE_DESCRIPTION => 8,
        SIMPLE_PACKET => 4,
        ENHANCED_PACKET | OBSOLETE_PACKET => 20,
        _ => 0,
    }
}

fn name_of(kind: u32) -> std::borrow::Cow<'static, str> {
    match kind {
        SECTION_HEADER => "section header block".into(),
        INTERFACE_DESCRIPTION => "interface description block".into(),
        OBSOLETE_PACKET => "packet block".into(),
        SIMPLE_PACKET => "simple packet block".into(),
        ENHANCED_PACKET => "enhanced packet block".into(),
        _ => format!("block of type {kind:#010x}").into(),
    }
}

/// Returns the byte order of the section that this section header begins.
fn section_order(block: &[u8]) -> Option<ByteOrder> {
    [ByteOrder::Little, ByteOrder::Big].into_iter().find(|order| order.u32(block, 8) == BYTE_ORDER_MAGIC)
}

fn trailer(block: &[u8]) -> &[u8] {
    &block[block.len() - TRAILER_BYTES..]
}
