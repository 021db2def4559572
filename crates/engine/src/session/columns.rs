//! The compressed format of archived sessions: one batch at a time, column by column.
//!
//! Values of one column resemble each other, which helps compression. Start times are stored as differences, in the
//! order in which the sessions were archived, so that a session keeps its ordinal. Addresses and places (interface, VLANs, tunnel, protocol) are indexes into the batch's sorted lists of
//! distinct values. Ports and address indexes are stored byte by byte, and counts as variable-length integers. zstd
//! compresses the result. Times lose precision: the start is rounded down to the millisecond, the end up to the
//! millisecond, and the time of the last eviction up to the second.

use super::depth::LostParts;
use super::key::SessionKey;
use super::key::Side;
use super::marks::SessionMarks;
use super::summary::{PerSide, Session, SessionSlot, flag};
use base::time::Timestamp;

/// Sessions in a full batch.
pub(super) const BATCH: usize = 512;
/// Upper bound of a batch's bytes before compression: all values differ, and every integer has its longest form.
pub(super) const RAW_BYTES_MAX: usize = BATCH * 160;
/// The zstd level. The columns leave little redundancy, so the fastest level is enough.
const LEVEL: i32 = 1;

const MILLI_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// The bits of a session's flags that are archived; session marks are not.
const FLAGS_MASK: u32 = 0xff;

/// The archived fields of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ArchivedSession {
    first_ms: u64,
    duration_ms: u64,
    /// Originator, then responder.
    addresses: [u128; 2],
    ports: [u16; 2],
    /// The words of the key without the endpoints: protocol, network, interface, VLANs and tunnel.
    place: u128,
    packets: [u64; 2],
    bytes: [u64; 2],
    flags: u8,
    /// Time of the last eviction in seconds since the epoch; 0 if no packet was evicted.
    cut_s: u64,
}

impl ArchivedSession {
    pub(super) fn new(session: &Session) -> Self {
        let first_ms = session.first.0 / MILLI_NS;
        let side = session.originator_is();
        let [.., ports_and_more, place] = session.key.0;
        let port = |side| match side {
            Side::Low => low16(ports_and_more),
            Side::High => low16(ports_and_more >> 16),
        };
        Self {
            first_ms,
            duration_ms: session.last.0.div_ceil(MILLI_NS).saturating_sub(first_ms),
            addresses: [session.key.address(side), session.key.address(side.other())],
            ports: [port(side), port(side.other())],
            place: u128::from(ports_and_more >> 32) << 64 | u128::from(place),
            packets: [session.packets.originator, session.packets.responder],
            bytes: [session.bytes.originator, session.bytes.responder],
            flags: (session.flags & FLAGS_MASK).to_le_bytes()[0],
            cut_s: session.cut_at.map_or(0, |at| at.0.div_ceil(SECOND_NS)),
        }
    }

    /// The session with this `ordinal` in the archive, with the sides as they were counted.
    pub(super) fn session(&self, ordinal: u64) -> Session {
        let high = u32::from(self.flags) & flag::ORIGINATOR_IS_HIGH != 0;
        let (low, other) = if high { (1, 0) } else { (0, 1) };
        let (a, b) = (self.addresses[low], self.addresses[other]);
        let ports = u64::from(self.ports[low]) | u64::from(self.ports[other]) << 16;
        let key =
            [half(a), half(a >> 64), half(b), half(b >> 64), ports | half(self.place >> 64) << 32, half(self.place)];
        let last_ms = self.first_ms.saturating_add(self.duration_ms);
        Session {
            slot: SessionSlot::ARCHIVED,
            key: SessionKey(key),
            first_sequence: ordinal,
            first: Timestamp(self.first_ms.saturating_mul(MILLI_NS)),
            last: Timestamp(last_ms.saturating_mul(MILLI_NS)),
            packets: PerSide { originator: self.packets[0], responder: self.packets[1] },
            bytes: PerSide { originator: self.bytes[0], responder: self.bytes[1] },
            kept_packets: 0,
            kept_bytes: 0,
            cut_at: Some(Timestamp(self.cut_s.saturating_mul(SECOND_NS))).filter(|at| at.0 > 0),
            lost: LostParts::ALL,
            distances: Default::default(),
            flags: u32::from(self.flags) | SessionMarks::default().to_bits() << flag::MARKS_SHIFT,
        }
    }

    /// First and last time, and the bytes of both sides.
    pub(super) fn span(&self) -> (Timestamp, Timestamp, u64) {
        let time = |ms: u64| Timestamp(ms.saturating_mul(MILLI_NS));
        (time(self.first_ms), time(self.last_ms()), self.bytes[0].saturating_add(self.bytes[1]))
    }

    pub(super) fn first_ms(&self) -> u64 {
        self.first_ms
    }

    pub(super) fn last_ms(&self) -> u64 {
        self.first_ms.saturating_add(self.duration_ms)
    }
}

/// Compresses batches. It allocates nothing after [`new`](Self::new).
pub(super) struct Encoder {
    addresses: Vec<u128>,
    places: Vec<u128>,
    raw: Vec<u8>,
    compressed: Vec<u8>,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Encoder {
    /// Bytes of the buffers, and of zstd's state for inputs of this size at this level.
    pub(super) const BYTES: usize = 4 * BATCH * size_of::<u128>() + 2 * RAW_BYTES_MAX + (384 << 10);

    pub(super) fn new() -> std::io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_contentsize(false)?;
        let mut raw = vec![0; RAW_BYTES_MAX];
        let mut compressed = vec![0; zstd::zstd_safe::compress_bound(RAW_BYTES_MAX)];
        // Compress the largest input once, so that zstd allocates all its memory now.
        compressor.compress_to_buffer(&raw, &mut compressed[..])?;
        raw.clear();
        Ok(Self {
            addresses: Vec::with_capacity(2 * BATCH),
            places: Vec::with_capacity(BATCH),
            raw,
            compressed,
            compressor,
        })
    }

    /// The compressed bytes of `batch`. `None` if zstd fails, which is not expected.
    pub(super) fn encode(&mut self, batch: &[ArchivedSession]) -> Option<&[u8]> {
        self.columns(batch);
        let len = self.compressor.compress_to_buffer(&self.raw, &mut self.compressed[..]).ok()?;
        self.compressed.get(..len)
    }

    fn columns(&mut self, batch: &[ArchivedSession]) {
        let Self { addresses, places, raw, .. } = self;
        raw.clear();
        put(raw, batch.len() as u128);
        list(addresses, batch.iter().flat_map(|past| past.addresses), raw);
        list(places, batch.iter().map(|past| past.place), raw);

        let (mut first_ms, mut cut_s) = (0u64, 0);
        for past in batch {
            put(raw, u128::from(zigzag(past.first_ms.wrapping_sub(first_ms).cast_signed())));
            first_ms = past.first_ms;
        }
        for past in batch {
            put(raw, u128::from(zigzag(past.cut_s.wrapping_sub(cut_s).cast_signed())));
            cut_s = past.cut_s;
        }
        batch.iter().for_each(|past| put(raw, u128::from(past.duration_ms)));
        batch.iter().for_each(|past| raw.push(past.flags));
        batch.iter().for_each(|past| put(raw, number_of(places, past.place) as u128));
        for side in 0..2 {
            let number = |past: &ArchivedSession| number_of(addresses, past.addresses[side]).to_le_bytes();
            (0..2).for_each(|byte| raw.extend(batch.iter().map(|past| number(past)[byte])));
            (0..2).for_each(|byte| raw.extend(batch.iter().map(|past| past.ports[side].to_le_bytes()[byte])));
            batch.iter().for_each(|past| put(raw, u128::from(past.packets[side])));
            batch.iter().for_each(|past| put(raw, u128::from(past.bytes[side])));
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

/// Fills `values` with the distinct values of `all` in ascending order, and writes them to `raw` as differences.
fn list(values: &mut Vec<u128>, all: impl Iterator<Item = u128>, raw: &mut Vec<u8>) {
    values.clear();
    values.extend(all);
    values.sort_unstable();
    values.dedup();
    put(raw, values.len() as u128);
    let mut before = 0;
    for &value in &*values {
        put(raw, value - before);
        before = value;
    }
}

fn number_of(values: &[u128], value: u128) -> usize {
    values.partition_point(|&other| other < value)
}

/// Decompresses a batch. `None` if the bytes are not a valid batch.
pub(super) fn decode(compressed: &[u8]) -> Option<Vec<ArchivedSession>> {
    let raw = zstd::bulk::decompress(compressed, RAW_BYTES_MAX).ok()?;
    let mut raw = &raw[..];
    let count = usize::try_from(take(&mut raw)?).ok().filter(|&count| count <= BATCH)?;
    let addresses = read_list(&mut raw, 2 * BATCH)?;
    let places = read_list(&mut raw, BATCH)?;

    let mut batch = vec![ArchivedSession::default(); count];
    let (mut first_ms, mut cut_s) = (0u64, 0u64);
    for past in &mut batch {
        first_ms = first_ms.wrapping_add(unzigzag(take64(&mut raw)?).cast_unsigned());
        past.first_ms = first_ms;
    }
    for past in &mut batch {
        cut_s = cut_s.wrapping_add(unzigzag(take64(&mut raw)?).cast_unsigned());
        past.cut_s = cut_s;
    }
    for past in &mut batch {
        past.duration_ms = take64(&mut raw)?;
    }
    for (past, &flags) in batch.iter_mut().zip(column(&mut raw, count)?) {
        past.flags = flags;
    }
    for past in &mut batch {
        past.place = *places.get(usize::try_from(take(&mut raw)?).ok()?)?;
    }
    for side in 0..2 {
        let (low, high) = (column(&mut raw, count)?, column(&mut raw, count)?);
        for (past, (&low, &high)) in batch.iter_mut().zip(low.iter().zip(high)) {
            past.addresses[side] = *addresses.get(usize::from(u16::from_le_bytes([low, high])))?;
        }
        let (low, high) = (column(&mut raw, count)?, column(&mut raw, count)?);
        for (past, (&low, &high)) in batch.iter_mut().zip(low.iter().zip(high)) {
            past.ports[side] = u16::from_le_bytes([low, high]);
        }
        for past in &mut batch {
            past.packets[side] = take64(&mut raw)?;
        }
        for past in &mut batch {
            past.bytes[side] = take64(&mut raw)?;
        }
    }
    Some(batch)
}

fn read_list(raw: &mut &[u8], most: usize) -> Option<Vec<u128>> {
    let count = usize::try_from(take(raw)?).ok().filter(|&count| count <= most)?;
    let mut value = 0u128;
    (0..count)
        .map(|_| {
            value = value.checked_add(take(raw)?)?;
            Some(value)
        })
        .collect()
}

fn column<'a>(raw: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (column, rest) = raw.split_at_checked(count)?;
    *raw = rest;
    Some(column)
}

/// Appends an integer in LEB128: seven bits per byte, lowest first, with the top bit set on all bytes but the last.
fn put(raw: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        raw.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    raw.push(value.to_le_bytes()[0]);
}

fn take(raw: &mut &[u8]) -> Option<u128> {
    let mut value = 0u128;
    for shift in (0..128).step_by(7) {
        let (&byte, rest) = raw.split_first()?;
        *raw = rest;
        value |= u128::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take64(raw: &mut &[u8]) -> Option<u64> {
    u64::try_from(take(raw)?).ok()
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
fn half(value: u128) -> u64 {
    value as u64
}

#[allow(clippy::cast_possible_truncation, reason = "the low 16 bits are meant")]
fn low16(value: u64) -> u16 {
    value as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Arbitrary sessions, most of which resemble their neighbours.
    fn pasts() -> impl Strategy<Value = Vec<ArchivedSession>> {
        let number = || prop_oneof![4 => 0u64..2000, 1 => any::<u64>()];
        let address = || prop_oneof![4 => 0u128..30, 1 => any::<u128>()];
        let place = prop_oneof![4 => 0u128..3, 1 => any::<u128>().prop_map(|place| place & ((1 << 96) - 1))];
        let past = (
            (number(), number(), number(), any::<u8>()),
            ([address(), address()], any::<[u16; 2]>(), place),
            ([number(), number()], [number(), number()]),
        )
            .prop_map(
                |((first_ms, duration_ms, cut_s, flags), (addresses, ports, place), (packets, bytes))| {
                    ArchivedSession { first_ms, duration_ms, addresses, ports, place, packets, bytes, flags, cut_s }
                },
            );
        prop::collection::vec(past, 0..=BATCH)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_batch_reads_back_as_written(batch in pasts()) {
            let mut encoder = Encoder::new().unwrap();
            // Leftovers of an earlier batch in the buffers must have no effect.
            encoder.encode(&[ArchivedSession { first_ms: 7, ..ArchivedSession::default() }]).unwrap();
            let (raw, compressed) = (encoder.raw.capacity(), encoder.compressed.capacity());
            let bytes = encoder.encode(&batch).unwrap().to_vec();
            prop_assert_eq!(decode(&bytes).unwrap(), batch);
            prop_assert_eq!((encoder.raw.capacity(), encoder.compressed.capacity()), (raw, compressed));
        }

        #[test]
        fn nonsense_is_read_without_panic(bytes: Vec<u8>, cut in 0usize..200) {
            let _ = decode(&bytes);
            let mut encoder = Encoder::new().unwrap();
            let whole = encoder.encode(&[ArchivedSession { first_ms: 7, ..ArchivedSession::default() }; 9]).unwrap();
            let _ = decode(&whole[..cut.min(whole.len())]);
            if let Ok(again) = zstd::bulk::compress(&bytes, 1) {
                let _ = decode(&again);
            }
        }
    }
}
