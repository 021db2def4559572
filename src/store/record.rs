//! A packet as it lies in a segment: a header of about ten bytes, then the captured bytes.
//!
//! ```text
//! byte 0   bits 0-2  bytes of the time difference to the record before (0-7)
//!          bit  3    that difference is backwards
//!          bits 4-5  bytes of the sequence difference, less one (0-3)
//!          bits 6-7  bytes of the captured length (0-3)
//! byte 1   bits 0-1  direction
//!          bit  2    checksum not ready
//!          bit  3    segmentation offload
//!          bits 4-5  bytes of the session's slot, less one (1-4)
//!          bit  6    another interface than the record before: two bytes follow
//!          bit  7    rare things follow: original length (4), drops before (4)
//! then     time difference, sequence difference less one, captured length, slot, interface, rare things;
//!          all little-endian, all as short as they can be
//! ```
//!
//! The first record of a segment counts from the segment's base time and sequence. Times and sequences that are too
//! far from the record before ([`fits`]) begin a new segment.

use crate::packet::{Direction, InterfaceId, Packet, PacketFlags};
use crate::session::SessionSlot;
use crate::time::Timestamp;

/// Longest header, in bytes.
pub const HEADER_BYTES_MAX: usize = 2 + 7 + 3 + 3 + 4 + 2 + 8;
/// Bytes of a packet that are kept at most, libpcap's largest snapshot length; the rest of a longer one is cut off and
/// counted.
pub const PACKET_BYTES_MAX: usize = 262_144;

const TIME_BYTES_MAX: usize = 7;
const SEQUENCE_BYTES_MAX: usize = 3;

/// What a header is written against: the record before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Time of the record before.
    pub time: Timestamp,
    /// Its place in the order of arrival.
    pub sequence: u64,
    /// Its interface; `None` at the start of a segment.
    pub interface: Option<InterfaceId>,
}

/// What is kept of a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// When it was captured.
    pub time: Timestamp,
    /// Its place in the order of arrival at this worker.
    pub sequence: u64,
    /// Bytes kept.
    pub captured_len: u32,
    /// Bytes on the wire.
    pub original_len: u32,
    /// Packets the kernel dropped just before.
    pub drops_before: u32,
    /// The slot of its session; another session's by now if that one began after `sequence`.
    pub session: SessionSlot,
    /// Where it was captured.
    pub interface: InterfaceId,
    /// Which way it went.
    pub direction: Direction,
    /// What the source said of it.
    pub flags: PacketFlags,
}

impl RecordHeader {
    /// Of no packet.
    pub const EMPTY: Self = Self {
        time: Timestamp::MIN,
        sequence: 0,
        captured_len: 0,
        original_len: 0,
        drops_before: 0,
        session: SessionSlot(0),
        interface: InterfaceId(0),
        direction: Direction::Unknown,
        flags: PacketFlags { checksum_not_ready: false, segmentation_offload: false },
    };

    /// What is kept of `packet`.
    pub fn new(packet: &Packet<'_>, sequence: u64, session: SessionSlot) -> Self {
        Self {
            time: packet.time,
            sequence,
            captured_len: u32::try_from(packet.data.len()).unwrap_or(u32::MAX),
            original_len: packet.original_len,
            drops_before: packet.drops_before,
            session,
            interface: packet.interface,
            direction: packet.direction,
            flags: packet.flags,
        }
    }

    /// What the next header is written against.
    pub fn as_previous(&self) -> Previous {
        Previous { time: self.time, sequence: self.sequence, interface: Some(self.interface) }
    }
}

/// Whether a record can follow `previous` in one segment.
pub fn fits(previous: &Previous, time: Timestamp, sequence: u64) -> bool {
    bytes_of(time.0.abs_diff(previous.time.0)) <= TIME_BYTES_MAX
        && sequence > previous.sequence
        && bytes_of(sequence - previous.sequence - 1) <= SEQUENCE_BYTES_MAX
}

/// Bytes in which any header has room. Values are written and read as eight bytes, of which fewer count, so there is some
/// behind.
pub const ROOM_BYTES: usize = (HEADER_BYTES_MAX + 8).next_multiple_of(8);

/// A written header.
#[derive(Clone, Copy, Debug)]
pub struct Encoded {
    bytes: [u8; ROOM_BYTES],
    len: usize,
}

impl Encoded {
    /// The header's bytes, and zeros behind them.
    #[inline]
    pub fn padded(&self) -> &[u8; ROOM_BYTES] {
        &self.bytes
    }

    /// The header's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    fn put(&mut self, value: u64, bytes: usize) {
        self.bytes[self.len..self.len + 8].copy_from_slice(&value.to_le_bytes());
        self.len += bytes;
    }
}

/// Writes `header`; [`fits`] was true of it.
#[inline]
pub fn encode(header: &RecordHeader, previous: &Previous) -> Encoded {
    let backwards = header.time < previous.time;
    let time = header.time.0.abs_diff(previous.time.0);
    let sequence = header.sequence.wrapping_sub(previous.sequence).wrapping_sub(1);
    let captured = u64::from(header.captured_len);
    let slot = u64::from(header.session.0);
    let other_interface = previous.interface != Some(header.interface);
    let rare = header.original_len != header.captured_len || header.drops_before != 0;

    let (time_bytes, sequence_bytes, captured_bytes, slot_bytes) =
        (bytes_of(time), bytes_of(sequence), bytes_of(captured), bytes_of(slot).max(1));
    let control = time_bytes
        | usize::from(backwards) << 3
        | sequence_bytes << 4
        | captured_bytes << 6
        | (header.direction as usize) << 8
        | usize::from(header.flags.checksum_not_ready) << 10
        | usize::from(header.flags.segmentation_offload) << 11
        | (slot_bytes - 1) << 12
        | usize::from(other_interface) << 14
        | usize::from(rare) << 15;

    let mut out = Encoded { bytes: [0; ROOM_BYTES], len: 0 };
    out.put(control as u64, 2);
    out.put(time, time_bytes);
    out.put(sequence, sequence_bytes);
    out.put(captured, captured_bytes);
    out.put(slot, slot_bytes);
    if other_interface {
        out.put(u64::from(header.interface.0), 2);
    }
    if rare {
        out.put(u64::from(header.original_len) | u64::from(header.drops_before) << 32, 8);
    }
    out
}

/// Reads the header at the start of `bytes`, and says how long it is.
///
/// `bytes` may go on beyond the header, and may be nonsense: then so is the answer, or there is none.
#[inline]
pub fn decode(bytes: &[u8; ROOM_BYTES], previous: &Previous) -> Option<(RecordHeader, usize)> {
    let control = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let mut at = 2;
    let mut take = |n: usize| {
        let value = u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
        at += n;
        Some(if n < 8 { value & ((1 << (n * 8)) - 1) } else { value })
    };
    let time = take(control & 7)?;
    let sequence = take(control >> 4 & 3)?;
    let captured = take(control >> 6 & 3)?;
    let slot = take((control >> 12 & 3) + 1)?;
    let interface =
        if control >> 14 & 1 == 1 { InterfaceId(u16::try_from(take(2)?).ok()?) } else { previous.interface? };
    let captured_len = u32::try_from(captured).ok()?;
    let rare = if control >> 15 & 1 == 1 { take(8)? } else { u64::from(captured_len) };
    let header = RecordHeader {
        time: Timestamp(if control >> 3 & 1 == 1 {
            previous.time.0.wrapping_sub(time)
        } else {
            previous.time.0.wrapping_add(time)
        }),
        sequence: previous.sequence.wrapping_add(sequence).wrapping_add(1),
        captured_len,
        original_len: u32::try_from(rare & u64::from(u32::MAX)).ok()?,
        drops_before: u32::try_from(rare >> 32).ok()?,
        session: SessionSlot(u32::try_from(slot).ok()?),
        interface,
        direction: match control >> 8 & 3 {
            1 => Direction::In,
            2 => Direction::Out,
            _ => Direction::Unknown,
        },
        flags: PacketFlags { checksum_not_ready: control >> 10 & 1 == 1, segmentation_offload: control >> 11 & 1 == 1 },
    };
    Some((header, at))
}

/// Bytes that `value` needs.
#[inline]
fn bytes_of(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()).div_ceil(8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers() -> impl Strategy<Value = RecordHeader> {
        let direction = prop_oneof![Just(Direction::Unknown), Just(Direction::In), Just(Direction::Out)];
        let lengths = (0u32..=262_144, any::<bool>(), any::<u32>(), prop_oneof![Just(0), any::<u32>()]);
        let place = (any::<u64>(), 1u64..=1 << 40, any::<u32>(), any::<u16>());
        (place, lengths, direction, any::<(bool, bool)>()).prop_map(
            |((time, sequence, slot, interface), (captured_len, same, len, drops_before), direction, flags)| {
                RecordHeader {
                    time: Timestamp(time),
                    sequence,
                    captured_len,
                    original_len: if same { captured_len } else { len },
                    drops_before,
                    session: SessionSlot(slot),
                    interface: InterfaceId(interface),
                    direction,
                    flags: PacketFlags { checksum_not_ready: flags.0, segmentation_offload: flags.1 },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_header_reads_back_as_written(header in headers(), back in -(1i64 << 50)..1 << 50, gap in 1u64..1 << 24, same: bool) {
            let previous = Previous {
                time: Timestamp(header.time.0.saturating_add_signed(back)),
                sequence: header.sequence.wrapping_sub(gap),
                interface: same.then_some(header.interface),
            };
            prop_assume!(fits(&previous, header.time, header.sequence));
            let written = encode(&header, &previous);
            prop_assert!(written.bytes().len() <= HEADER_BYTES_MAX);
            let mut bytes = [0xff; ROOM_BYTES];
            bytes[..written.bytes().len()].copy_from_slice(written.bytes());
            prop_assert_eq!(decode(&bytes, &previous), Some((header, written.bytes().len())));
        }

        #[test]
        fn nonsense_is_read_without_panic(bytes in prop::array::uniform::<_, ROOM_BYTES>(any::<u8>())) {
            let previous = Previous { time: Timestamp(1), sequence: 1, interface: Some(InterfaceId(0)) };
            let _ = decode(&bytes, &previous);
        }
    }

    #[test]
    fn an_ordinary_packet_costs_eleven_bytes() {
        let previous = Previous { time: Timestamp(0), sequence: 10, interface: Some(InterfaceId(3)) };
        let header = RecordHeader {
            time: Timestamp(250_000_000), // a quarter of a second later
            sequence: 60,
            captured_len: 1514,
            original_len: 1514,
            drops_before: 0,
            session: SessionSlot(30_000),
            interface: InterfaceId(3),
            direction: Direction::In,
            flags: PacketFlags::default(),
        };
        assert_eq!(encode(&header, &previous).bytes().len(), 11);
    }
}
