//! Encoding of a packet in a segment: a header of about 10 bytes, then the captured bytes.
//!
//! ```text
//! byte 0   bits 0-2  length of the time difference to the previous record, in bytes (0-6)
//!          bit  3    the time difference is negative
//!          bits 4-5  length of the sequence difference minus one, in bytes (0-3)
//!          bits 6-7  length of the captured length, in bytes (0-3)
//! byte 1   bits 0-1  direction
//!          bit  2    checksum not ready
//!          bit  3    segmentation offload
//!          bits 4-5  length of the session slot, in bytes, minus one (length 1-4)
//!          bit  6    the interface differs from the previous record: two bytes follow
//!          bit  7    optional fields follow: original length (4 bytes), drops before (4 bytes)
//! then     time difference, sequence difference minus one, captured length, slot, interface, optional fields;
//!          all little-endian; the first four fields are as short as their values allow
//! ```
//!
//! The first record of a segment is relative to the segment's base time and sequence. A record whose time or sequence
//! is too far from the previous record begins a new segment; see [`fits`].

use crate::session::SessionSlot;
use base::packet::{Direction, InterfaceId, Packet, PacketFlags};
use base::time::Timestamp;

/// Longest header, in bytes.
pub const HEADER_BYTES_MAX: usize = 2 + 6 + 3 + 3 + 4 + 2 + 8;
/// Longest header that is decoded from two words, in bytes. Longer headers are rare.
pub const SHORT_BYTES: usize = 16;
/// Largest number of bytes kept per packet: libpcap's largest snapshot length. Longer packets are truncated and
/// counted.
pub const PACKET_BYTES_MAX: usize = 262_144;

const TIME_BYTES_MAX: usize = 6;
const SEQUENCE_BYTES_MAX: usize = 3;

/// Fields of the previous record, relative to which a header is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Time of the previous record.
    pub time: Timestamp,
    /// Sequence number of the previous record, in order of arrival.
    pub sequence: u64,
    /// Interface of the previous record; `None` at the start of a segment.
    pub interface: Option<InterfaceId>,
}

/// Metadata that is kept for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Capture time.
    pub time: Timestamp,
    /// Sequence number: the packet's place in the order of arrival at this worker.
    pub sequence: u64,
    /// Number of bytes kept.
    pub captured_len: u32,
    /// Number of bytes on the wire.
    pub original_len: u32,
    /// Number of packets that the kernel dropped just before this one.
    pub drops_before: u32,
    /// Slot of the packet's session. It belongs to another session if that session began after `sequence`.
    pub session: SessionSlot,
    /// Capture interface.
    pub interface: InterfaceId,
    /// Direction of the packet.
    pub direction: Direction,
    /// Flags set by the packet source.
    pub flags: PacketFlags,
}

impl RecordHeader {
    /// Placeholder header that belongs to no packet.
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

    /// The header for `packet`.
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

    /// The fields relative to which the next header is encoded.
    pub fn as_previous(&self) -> Previous {
        Previous { time: self.time, sequence: self.sequence, interface: Some(self.interface) }
    }
}

/// Whether a record with this time and sequence can follow `previous` in one segment.
pub fn fits(previous: &Previous, time: Timestamp, sequence: u64) -> bool {
    time.0.abs_diff(previous.time.0) < 1 << (TIME_BYTES_MAX * 8)
        && sequence.wrapping_sub(previous.sequence).wrapping_sub(1) < 1 << (SEQUENCE_BYTES_MAX * 8)
}

/// An encoded header as a series of parts of at most eight bytes. It is never assembled in memory before it reaches the
/// segment.
#[derive(Clone, Copy, Debug)]
pub struct Encoded {
    first: EncodedWord,
    second: EncodedWord,
    rare: Option<[EncodedWord; 2]>,
}

/// A word and its length in bytes. The bytes above the length are zero.
pub type EncodedWord = (u64, usize);

impl Encoded {
    /// Length in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        let rare = self.rare.map_or(0, |rare| rare[0].1 + rare[1].1);
        self.first.1 + self.second.1 + rare
    }

    /// Calls `each` with every part in order.
    #[inline(always)]
    pub fn write(&self, mut each: impl FnMut(EncodedWord)) {
        each(self.first);
        each(self.second);
        if let Some(rare) = self.rare {
            rare.into_iter().for_each(each);
        }
    }
}

/// Encodes `header`. The caller has checked it with [`fits`].
#[inline(always)]
pub fn encode(header: &RecordHeader, previous: &Previous) -> Encoded {
    let backwards = header.time < previous.time;
    let time = header.time.0.abs_diff(previous.time.0);
    let sequence = header.sequence.wrapping_sub(previous.sequence).wrapping_sub(1);
    let captured = u64::from(header.captured_len);
    let slot = u64::from(header.session.0);
    let other_interface = previous.interface != Some(header.interface);
    let rare = header.original_len != header.captured_len || header.drops_before != 0;

    let (time_bytes, sequence_bytes, captured_bytes, slot_bytes) =
        (bytes_of(time), bytes_of(sequence), bytes_of(captured), bytes_of(slot | 1));
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
    let first = (control as u64 | time << 16, 2 + time_bytes);
    let packet = (sequence | captured << (sequence_bytes * 8), sequence_bytes + captured_bytes);
    if !other_interface && !rare && packet.1 + slot_bytes <= 8 {
        // Fast path for nearly all headers.
        return Encoded { first, second: (packet.0 | slot << (packet.1 * 8), packet.1 + slot_bytes), rare: None };
    }
    let interface = if other_interface { (u64::from(header.interface.0), 2) } else { (0, 0) };
    let place = (slot | interface.0 << (slot_bytes * 8), slot_bytes + interface.1);
    let lens = u64::from(header.original_len) | u64::from(header.drops_before) << 32;
    Encoded { first, second: packet, rare: Some([place, if rare { (lens, 8) } else { (0, 0) }]) }
}

/// Length of the encoded header, in bytes.
pub fn bytes(header: &RecordHeader, previous: &Previous) -> usize {
    encode(header, previous).bytes()
}

/// The fields of a record that are needed to count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordOutline {
    /// Sequence number, in order of arrival.
    pub sequence: u64,
    /// Number of bytes kept of the packet.
    pub captured_len: u32,
    /// Slot of the packet's session.
    pub session: SessionSlot,
    /// Length of the header, in bytes.
    pub header_bytes: usize,
}

/// The masks of numbers of up to four bytes.
const MASKS: [u64; 5] = [0, 0xff, 0xffff, 0xff_ffff, 0xffff_ffff];

/// Decodes only an [`RecordOutline`]. This takes about a quarter of the work of [`decode_short`]. Returns `None` for long
/// headers.
#[inline]
pub fn outline([low, high]: [u64; 2], previous_sequence: u64) -> Option<RecordOutline> {
    let time_end = 2 + (low & 7);
    let (sequence, captured) = (low >> 4 & 3, low >> 6 & 3);
    let (slot_at, slot) = (sequence + captured, (low >> 12 & 3) + 1);
    if time_end > 7 || slot_at + slot > 8 {
        return None;
    }
    let rest = low >> (time_end * 8) | high << (64 - time_end * 8);
    // Only the slot can have four bytes.
    let part = |at: u64, bytes: u64| rest >> (at * 8) & MASKS[usize::try_from(bytes).unwrap_or(0)];
    Some(RecordOutline {
        sequence: previous_sequence.wrapping_add(part(0, sequence)).wrapping_add(1),
        captured_len: u32::try_from(part(sequence, captured)).ok()?,
        session: SessionSlot(u32::try_from(part(slot_at, slot)).ok()?),
        header_bytes: usize::try_from(time_end + slot_at + slot + (low >> 14 & 1) * 2 + (low >> 15 & 1) * 8).ok()?,
    })
}

/// Decodes the header at the start of two words and returns its length in bytes. Returns `None` if the header is longer
/// than two words.
///
/// The words may extend beyond the header. Invalid words give an invalid header or `None`.
#[inline]
pub fn decode_short(words: [u64; 2], previous: &Previous) -> Option<(RecordHeader, usize)> {
    let header_bytes = bytes_by(words[0]);
    if header_bytes > SHORT_BYTES {
        return None;
    }
    Some((read(words, previous)?, header_bytes))
}

/// Decodes the header at the start of `bytes` and returns its length in bytes. Otherwise as [`decode_short`].
#[cold]
pub fn decode(bytes: &[u8; HEADER_BYTES_MAX], previous: &Previous) -> Option<(RecordHeader, usize)> {
    let control = u64::from(bytes[0]) | u64::from(bytes[1]) << 8;
    Some((read(&bytes[..], previous)?, bytes_by(control)))
}

/// Length of a header in bytes. The low two bytes of `control` are the first two bytes of the header.
#[inline]
fn bytes_by(control: u64) -> usize {
    let part = |shift: u32, mask: u64| usize::try_from(control >> shift & mask).unwrap_or(0);
    2 + part(0, 7) + part(4, 3) + part(6, 3) + part(12, 3) + 1 + part(14, 1) * 2 + part(15, 1) * 8
}

/// Source of header bytes.
trait HeaderBytes {
    /// Takes the next `n` bytes, fewer than eight, as a little-endian number.
    fn take(&mut self, n: u64) -> Option<u64>;
}

impl HeaderBytes for [u64; 2] {
    #[inline]
    fn take(&mut self, n: u64) -> Option<u64> {
        let [low, high] = *self;
        let bits = n * 8;
        // Shift in two steps, because a shift of a `u64` by 64 bits is not allowed.
        *self = [low >> bits | high << 1 << (63 - bits), high >> bits];
        Some(low & !(u64::MAX << bits))
    }
}

impl HeaderBytes for &[u8] {
    fn take(&mut self, n: u64) -> Option<u64> {
        let (bytes, rest) = self.split_at_checked(usize::try_from(n).ok()?)?;
        *self = rest;
        Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
}

#[inline]
fn read(mut from: impl HeaderBytes, previous: &Previous) -> Option<RecordHeader> {
    let control = from.take(2)?;
    let has = |bit: u32| control >> bit & 1 == 1;
    let time = from.take(control & 7)?;
    let sequence = from.take(control >> 4 & 3)?;
    let captured_len = u32::try_from(from.take(control >> 6 & 3)?).ok()?;
    let slot = from.take((control >> 12 & 3) + 1)?;
    let interface = if has(14) { InterfaceId(u16::try_from(from.take(2)?).ok()?) } else { previous.interface? };
    let (original_len, drops_before) = if has(15) {
        (u32::try_from(from.take(4)?).ok()?, u32::try_from(from.take(4)?).ok()?)
    } else {
        (captured_len, 0)
    };
    Some(RecordHeader {
        time: Timestamp(if has(3) { previous.time.0.wrapping_sub(time) } else { previous.time.0.wrapping_add(time) }),
        sequence: previous.sequence.wrapping_add(sequence).wrapping_add(1),
        captured_len,
        original_len,
        drops_before,
        session: SessionSlot(u32::try_from(slot).ok()?),
        interface,
        direction: match control >> 8 & 3 {
            1 => Direction::In,
            2 => Direction::Out,
            _ => Direction::Unknown,
        },
        flags: PacketFlags { checksum_not_ready: has(10), segmentation_offload: has(11) },
    })
}

/// Number of bytes that `value` needs; 0 for 0. The value is below 2^63.
#[inline]
fn bytes_of(value: u64) -> usize {
    // The logarithm of the doubled value is its length in bits.
    (value << 1 | 1).ilog2().div_ceil(8) as usize
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

    fn words(bytes: &[u8; HEADER_BYTES_MAX]) -> [u64; 2] {
        [0, 8].map(|at| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap()))
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
            let (mut bytes, mut clean) = (Vec::new(), true);
            written.write(|(part, len)| {
                bytes.extend_from_slice(&part.to_le_bytes()[..len]);
                clean &= len == 8 || part >> (len * 8) == 0;
            });
            prop_assert!(clean);
            prop_assert_eq!(bytes.len(), written.bytes());
            prop_assert!(bytes.len() <= HEADER_BYTES_MAX);
            let mut long = [0xff; HEADER_BYTES_MAX];
            long[..bytes.len()].copy_from_slice(&bytes);
            let expected = Some((header, bytes.len()));
            prop_assert_eq!(decode(&long, &previous), expected);
            prop_assert_eq!(decode_short(words(&long), &previous), expected.filter(|_| bytes.len() <= SHORT_BYTES));
            prop_assert_eq!(super::bytes(&header, &previous), bytes.len());
            if let Some(outline) = outline(words(&long), previous.sequence) {
                let RecordHeader { sequence, captured_len, session, .. } = header;
                prop_assert_eq!(outline, RecordOutline { sequence, captured_len, session, header_bytes: bytes.len() });
            }
        }

        #[test]
        fn nonsense_is_read_without_panic(bytes in prop::array::uniform::<_, HEADER_BYTES_MAX>(any::<u8>())) {
            let previous = Previous { time: Timestamp(1), sequence: 1, interface: Some(InterfaceId(0)) };
            let short = decode_short(words(&bytes), &previous);
            let long = decode(&bytes, &previous);
            prop_assert!(short.is_none() || short == long);
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
        let mut long = [0; HEADER_BYTES_MAX];
        let mut len = 0;
        encode(&header, &previous).write(|(part, part_bytes)| {
            long[len..len + part_bytes].copy_from_slice(&part.to_le_bytes()[..part_bytes]);
            len += part_bytes;
        });
        assert!(outline(words(&long), previous.sequence).is_some(), "it is read the short way");
        assert_eq!(bytes(&header, &previous), 11);
    }
}
