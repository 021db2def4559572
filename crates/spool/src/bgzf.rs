//! BGZF: gzip members of at most 64 KiB, each of which records its own length (SAM/BAM format specification, 4.1).
//!
//! Every gzip decoder can read such a file as a whole, and each member can be read on its own. Tools read a zstd or
//! lz4 file only up to the end of its first frame, which rules these formats out.

use libdeflater::{CompressionLvl, Compressor, Decompressor};

/// The most plain bytes of one member. With 5 bytes per stored block, a member is never longer than 64 KiB.
pub const PLAIN_BYTES_MAX: usize = 0xff00;
/// Length of a member's header, whose last two bytes are the length of the member, less one.
const HEADER_BYTES: usize = 18;
/// CRC-32 and length of the plain bytes.
const TRAILER_BYTES: usize = 8;
/// Header of a stored deflate block.
const STORED_BYTES: usize = 5;
/// Overhead of a stored member.
pub const STORED_OVERHEAD_BYTES: usize = HEADER_BYTES + STORED_BYTES + TRAILER_BYTES;
/// The empty member that must end a BGZF file.
pub const END: [u8; 28] =
    [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0, 0x1b, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The start of each member, up to its length.
const MAGIC: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0];

/// Compresses members.
pub struct Deflate {
    compressor: Compressor,
    out: Vec<u8>,
}

impl std::fmt::Debug for Deflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deflate")
    }
}

impl Deflate {
    /// A compressor of this level, 1 to 12.
    pub fn new(level: u8) -> Self {
        let level = CompressionLvl::new(i32::from(level)).unwrap_or_else(|_| CompressionLvl::fastest());
        let mut compressor = Compressor::new(level);
        let bound = compressor.deflate_compress_bound(PLAIN_BYTES_MAX);
        Self { compressor, out: vec![0; bound] }
    }

    /// Appends `plain` as members.
    pub fn put(&mut self, out: &mut Vec<u8>, plain: &[u8]) {
        for part in plain.chunks(PLAIN_BYTES_MAX) {
            match self.compressor.deflate_compress(part, &mut self.out) {
                Ok(len) if len < part.len() => put_member(out, &self.out[..len], part),
                _ => put_stored(out, part),
            }
        }
    }
}

/// Appends at most [`PLAIN_BYTES_MAX`] bytes as a member that is not compressed.
pub fn put_stored(out: &mut Vec<u8>, plain: &[u8]) {
    let Ok(len) = u16::try_from(plain.len()) else { unreachable!("a member of {} bytes", plain.len()) };
    let mut stored = Vec::with_capacity(STORED_BYTES + plain.len());
    stored.push(1);
    stored.extend_from_slice(&len.to_le_bytes());
    stored.extend_from_slice(&(!len).to_le_bytes());
    stored.extend_from_slice(plain);
    put_member(out, &stored, plain);
}

fn put_member(out: &mut Vec<u8>, deflated: &[u8], plain: &[u8]) {
    let len = HEADER_BYTES + deflated.len() + TRAILER_BYTES;
    let Ok(len) = u16::try_from(len - 1) else { unreachable!("a member of {len} bytes") };
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(deflated);
    out.extend_from_slice(&crc32fast::hash(plain).to_le_bytes());
    out.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(0).to_le_bytes());
}

/// The length of the member that begins `bytes`; `None` if none begins there.
pub fn member_len(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..HEADER_BYTES)?;
    let len = usize::from(u16::from_le_bytes(*header[16..].first_chunk()?)) + 1;
    (header[..16] == MAGIC && len >= HEADER_BYTES + TRAILER_BYTES).then_some(len)
}

/// Decompresses members.
pub struct Inflate(Decompressor);

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflate")
    }
}

impl Default for Inflate {
    fn default() -> Self {
        Self(Decompressor::new())
    }
}

impl Inflate {
    /// Appends the content of the member that begins `bytes` and returns the member's length. `None` if the member is
    /// incomplete or damaged; `out` is then unchanged.
    pub fn member(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let member = bytes.get(..member_len(bytes)?)?;
        let (deflated, trailer) = member[HEADER_BYTES..].split_at(member.len() - HEADER_BYTES - TRAILER_BYTES);
        let crc = u32::from_le_bytes(*trailer.first_chunk()?);
        let len = usize::try_from(u32::from_le_bytes(*trailer[4..].first_chunk()?)).ok()?;
        if len > 1 << 16 {
            return None;
        }
        let start = out.len();
        out.resize(start + len, 0);
        let inflated = self.0.deflate_decompress(deflated, &mut out[start..]);
        if inflated != Ok(len) || crc32fast::hash(&out[start..]) != crc {
            out.truncate(start);
            return None;
        }
        Some(member.len())
    }

    /// Appends the content of all members of `bytes`. `None` if one of them is incomplete or damaged.
    pub fn members(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
        while !bytes.is_empty() {
            let len = self.member(bytes, out)?;
            bytes = &bytes[len..];
        }
        Some(())
    }
}

/// Where the next member may begin after damage: the distance from the start of `bytes`, which is at least 1.
pub fn next_member(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len().saturating_sub(MAGIC.len() - 1)).find(|&at| bytes[at..].starts_with(&MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn members_give_back_what_went_in(len in 0usize..200_000, repeat in 1usize..50_000, level in 1u8..4) {
            let plain: Vec<u8> = (0..len).map(|i| u8::try_from((i % repeat * 31) & 0xff).unwrap()).collect();
            let mut members = Vec::new();
            Deflate::new(level).put(&mut members, &plain);
            let mut back = Vec::new();
            Inflate::default().members(&members, &mut back).unwrap();
            prop_assert_eq!(back, plain);
        }

        #[test]
        fn nonsense_is_refused_without_panic(bytes: Vec<u8>, at in 0usize..200, bit in 0u8..8) {
            let mut out = Vec::new();
            let _ = Inflate::default().members(&bytes, &mut out);
            let mut member = Vec::new();
            put_stored(&mut member, &[7; 150]);
            if let Some(byte) = member.get_mut(at) {
                *byte ^= 1 << bit;
                out.clear();
                prop_assert!(Inflate::default().members(&member, &mut out).is_none() || out == [7; 150]);
            }
            let _ = next_member(&bytes);
        }
    }

    #[test]
    fn the_end_is_an_empty_member() {
        let mut out = Vec::new();
        assert_eq!(Inflate::default().member(&END, &mut out), Some(28));
        assert!(out.is_empty());
        let mut stored = Vec::new();
        put_stored(&mut stored, b"hello");
        assert_eq!(stored.len(), STORED_OVERHEAD_BYTES + 5);
        assert_eq!(next_member(&[&b"xx"[..], &stored].concat()), Some(2));
    }
}
