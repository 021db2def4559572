//! The layout of a spool file.
//!
//! A file is one pcapng section. Blocks of the spool itself have a local-use type, which every reader skips. Numbers
//! are in host byte order, as in the rest of the section.
//!
//! ```text
//! section header · spool header · commit                                       ◄ at creation
//! interface descriptions and packets … · commit                                ◄ once a second, or each 256 KiB
//! …
//! interface statistics · commit · index sections … · footer (512 bytes)        ◄ when the file is sealed
//! ```
//!
//! A *commit* confirms the bytes since the commit before it: their number, their CRC-32, their file and their position.
//! So a reader recognises bytes that are torn, lost or of another file, and the commits behind them are still valid. A
//! *chunk* is a run of commits of at least 256 KiB of plain bytes (or the last of its file); the index names chunks.
//!
//! A compressed file holds the same bytes as BGZF: gzip members of at most 64 KiB of plain bytes each (SAM/BAM format
//! specification, section 4.1). A commit, an index section and the footer end with their member. The footer's member is
//! stored, not deflated, so that the footer lies at a fixed distance from the end.

use crate::coding::Coding;
use base::time::Timestamp;

/// Type of all blocks of the spool: local use (the high bit is set), then "RSP".
pub const BLOCK: u32 = 0x8052_5350;
/// Version of this layout.
pub const FORMAT: u32 = 1;
/// Plain bytes after which a chunk ends.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Length of a commit block.
pub const COMMIT_BYTES: usize = 12 + 60;
/// Length of the footer block.
pub const FOOTER_BYTES: usize = 512;
/// The most plain bytes that one commit confirms: a chunk, and one packet of the greatest length.
pub const COMMITTED_BYTES_MAX: usize = CHUNK_BYTES + (512 << 10);
/// Sections that a footer has room for.
pub const SECTIONS: usize = 8;

const KIND_HEADER: u32 = 1;
const KIND_COMMIT: u32 = 2;
const KIND_SECTION: u32 = 3;
const KIND_FOOTER: u32 = 4;
/// Bytes of a section block that are not its payload: the block's own, kind, number, payload length and CRC.
pub const SECTION_OVERHEAD_BYTES: usize = 12 + 16;

/// The file that a block belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Number of the recorder's run: sequence numbers begin anew with each.
    pub epoch: u64,
    /// Number of the file in this directory; it never repeats.
    pub counter: u64,
}

/// The header at the start of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The file.
    pub id: FileId,
    /// Depth of the packets.
    pub band: u8,
    /// How the bytes of the file are coded.
    pub coding: Coding,
    /// The file that this one replaces, after packets were removed from it on purpose.
    pub replaces: Option<u64>,
    /// When the file was created.
    pub created: Timestamp,
}

/// Confirms the bytes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The file.
    pub id: FileId,
    /// Number of the commit in its file; the first is 0.
    pub number: u32,
    /// CommittedRange bytes.
    pub len: u32,
    /// CRC-32 of these bytes.
    pub crc: u32,
    /// Packets among these bytes.
    pub packets: u32,
    /// Interfaces that the file describes before these bytes.
    pub interfaces: u32,
    /// Earliest and latest time of these packets.
    pub times: Option<(Timestamp, Timestamp)>,
}

/// Position of an index section in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Start of its block, or of its first member.
    pub offset: u64,
    /// Bytes in the file.
    pub len: u64,
    /// Bytes of the payload.
    pub payload_len: u64,
    /// CRC-32 of the payload.
    pub crc: u32,
}

/// The end of a sealed file: a summary, and where its index is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// The header, as at the start of the file.
    pub header: Header,
    /// End of the packets; the index begins here.
    pub data_bytes: u64,
    /// Bytes before compression, without the index.
    pub plain_bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Captured bytes of these packets.
    pub captured_bytes: u64,
    /// Distinct sessions.
    pub sessions: u64,
    /// Earliest and latest packet time.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Chunks.
    pub chunks: u32,
    /// Damaged bytes, found when the file was completed after a crash.
    pub damaged_bytes: u64,
    /// The index, by kind of section.
    pub sections: [Section; SECTIONS],
}

/// Appends a block of the spool whose body `body` appends.
fn put_block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&BLOCK.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    put_u32(out, kind);
    body(out);
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    let len = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX);
    out[start + 4..start + 8].copy_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&len.to_ne_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_ne_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_ne_bytes());
}

fn put_times(out: &mut Vec<u8>, times: Option<(Timestamp, Timestamp)>) {
    // Without packets, the earliest time is later than the latest.
    let (oldest, newest) = times.unwrap_or((Timestamp::MAX, Timestamp::MIN));
    put_u64(out, oldest.0);
    put_u64(out, newest.0);
}

/// Reads numbers from the start of a slice.
struct FieldReader<'a>(&'a [u8]);

impl FieldReader<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*first))
    }

    fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*first))
    }

    fn id(&mut self) -> Option<FileId> {
        Some(FileId { epoch: self.u64()?, counter: self.u64()? })
    }

    fn times(&mut self) -> Option<Option<(Timestamp, Timestamp)>> {
        let (oldest, newest) = (Timestamp(self.u64()?), Timestamp(self.u64()?));
        Some((oldest <= newest).then_some((oldest, newest)))
    }
}

/// The body of a block of this kind at the start of `bytes`, without the kind.
fn body(bytes: &[u8], kind: u32) -> Option<FieldReader<'_>> {
    let mut fields = FieldReader(bytes);
    let (block, len) = (fields.u32()?, usize::try_from(fields.u32()?).ok()?);
    let closing = bytes.get(len.checked_sub(4)?..len)?;
    let is_it = block == BLOCK && closing == bytes.get(4..8)? && fields.u32()? == kind;
    let body = bytes.get(12..len - 4)?;
    is_it.then_some(FieldReader(body))
}

fn put_header(out: &mut Vec<u8>, header: &Header) {
    put_u64(out, header.id.epoch);
    put_u64(out, header.id.counter);
    put_u32(out, u32::from(header.band));
    put_u32(out, u32::from(header.coding.compressed) | u32::from(header.coding.encrypted) << 1);
    put_u64(out, header.replaces.map_or(0, |counter| counter.saturating_add(1)));
    put_u64(out, header.created.0);
}

fn header(fields: &mut FieldReader<'_>) -> Option<Header> {
    let id = fields.id()?;
    let band = u8::try_from(fields.u32()?).ok()?;
    let coding = match fields.u32()? {
        bits @ 0..=3 => Coding { compressed: bits & 1 == 1, encrypted: bits & 2 == 2 },
        _ => return None,
    };
    let replaces = fields.u64()?.checked_sub(1);
    Some(Header { id, band, coding, replaces, created: Timestamp(fields.u64()?) })
}

impl Header {
    /// Appends the block.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_block(out, KIND_HEADER, |out| {
            put_u32(out, FORMAT);
            put_header(out, self);
        });
    }

    /// Reads the block at the start of `bytes`. `Err` has the version if this program does not know it.
    pub fn read(bytes: &[u8]) -> Option<Result<Self, u32>> {
        let mut fields = body(bytes, KIND_HEADER)?;
        match fields.u32()? {
            FORMAT => header(&mut fields).map(Ok),
            other => Some(Err(other)),
        }
    }
}

impl Commit {
    /// Appends the block.
    pub fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        put_block(out, KIND_COMMIT, |out| {
            put_u32(out, self.number);
            put_u32(out, self.len);
            put_u32(out, self.crc);
            put_u32(out, self.packets);
            put_u32(out, self.interfaces);
            put_u64(out, self.id.epoch);
            put_u64(out, self.id.counter);
            put_times(out, self.times);
            put_u32(out, 0);
        });
        // The CRC covers the block up to itself.
        let at = out.len() - 8;
        let crc = crc32fast::hash(&out[start..at]);
        out[at..at + 4].copy_from_slice(&crc.to_ne_bytes());
        debug_assert_eq!(out.len() - start, COMMIT_BYTES);
    }

    /// Reads the block at the start of `bytes`; `None` if there is none or it is damaged.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let block = bytes.get(..COMMIT_BYTES)?;
        let mut fields = body(block, KIND_COMMIT)?;
        let crc = u32::from_ne_bytes(*block[COMMIT_BYTES - 8..].first_chunk()?);
        if crc != crc32fast::hash(&block[..COMMIT_BYTES - 8]) {
            return None;
        }
        let (number, len, data_crc, packets) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let interfaces = fields.u32()?;
        Some(Self { number, len, crc: data_crc, packets, interfaces, id: fields.id()?, times: fields.times()? })
    }

    /// Whether the commit is of this file and confirms exactly `data`.
    pub fn confirms(&self, id: FileId, data: &[u8]) -> bool {
        self.id == id && self.len as usize == data.len() && self.crc == crc32fast::hash(data)
    }
}

/// Appends an index section and returns the CRC of its payload.
pub fn put_section(out: &mut Vec<u8>, number: usize, payload: &[u8]) -> u32 {
    let crc = crc32fast::hash(payload);
    put_block(out, KIND_SECTION, |out| {
        put_u32(out, u32::try_from(number).unwrap_or(u32::MAX));
        put_u32(out, u32::try_from(payload.len()).unwrap_or(u32::MAX));
        put_u32(out, crc);
        out.extend_from_slice(payload);
    });
    crc
}

/// The payload of the index section at the start of `bytes`; `None` if it is another section or damaged.
pub fn section(bytes: &[u8], number: usize, expected: &Section) -> Option<std::ops::Range<usize>> {
    let mut fields = body(bytes, KIND_SECTION)?;
    let (found, len, crc) = (fields.u32()?, usize::try_from(fields.u32()?).ok()?, fields.u32()?);
    let payload = fields.0.get(..len)?;
    let is_it = usize::try_from(found).ok()? == number && crc == expected.crc && crc == crc32fast::hash(payload);
    is_it.then_some(24..24 + len)
}

impl Footer {
    /// Appends the block.
    pub fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        put_block(out, KIND_FOOTER, |out| {
            put_u32(out, FORMAT);
            put_header(out, &self.header);
            for value in [
                self.data_bytes,
                self.plain_bytes,
                self.packets,
                self.captured_bytes,
                self.sessions,
                u64::from(self.chunks),
                self.damaged_bytes,
            ] {
                put_u64(out, value);
            }
            put_times(out, self.times);
            for section in &self.sections {
                put_u64(out, section.offset);
                put_u64(out, section.len);
                put_u64(out, section.payload_len);
                put_u32(out, section.crc);
            }
            out.resize(start + FOOTER_BYTES - 4, 0);
        });
        let at = out.len() - 8;
        let crc = crc32fast::hash(&out[start..at]);
        out[at..at + 4].copy_from_slice(&crc.to_ne_bytes());
        debug_assert_eq!(out.len() - start, FOOTER_BYTES);
    }

    /// Reads the block at the start of `bytes`; `None` if there is none or it is damaged.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let block = bytes.get(..FOOTER_BYTES)?;
        let mut fields = body(block, KIND_FOOTER)?;
        let crc = u32::from_ne_bytes(*block[FOOTER_BYTES - 8..].first_chunk()?);
        if crc != crc32fast::hash(&block[..FOOTER_BYTES - 8]) || fields.u32()? != FORMAT {
            return None;
        }
        let mut footer = Self {
            header: header(&mut fields)?,
            data_bytes: fields.u64()?,
            plain_bytes: fields.u64()?,
            packets: fields.u64()?,
            captured_bytes: fields.u64()?,
            sessions: fields.u64()?,
            chunks: u32::try_from(fields.u64()?).ok()?,
            damaged_bytes: fields.u64()?,
            times: fields.times()?,
            sections: Default::default(),
        };
        for section in &mut footer.sections {
            *section =
                Section { offset: fields.u64()?, len: fields.u64()?, payload_len: fields.u64()?, crc: fields.u32()? };
        }
        Some(footer)
    }
}

/// The name of a file: its number, its depth, and an extension that tools know.
pub fn file_name(counter: u64, band: u8, coding: Coding) -> String {
    format!("{counter:012}-band{band}{}", coding.extension())
}

/// The number, the depth and the coding, from the name of a file of the spool.
pub fn parse_name(name: &str) -> Option<(u64, u8, Coding)> {
    let (counter, rest) = name.split_once("-band")?;
    let (band, _) = rest.split_once('.')?;
    let coding = Coding::ALL.into_iter().find(|coding| rest[band.len()..] == *coding.extension())?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if counter.len() < 12 || !digits(counter) || band.len() != 1 || !digits(band) {
        return None;
    }
    Some((counter.parse().ok()?, band.parse().ok()?, coding))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            id: FileId { epoch: 3, counter: 77 },
            band: 5,
            coding: Coding { compressed: true, encrypted: true },
            replaces: Some(0),
            created: Timestamp(9),
        }
    }

    #[test]
    fn blocks_are_read_as_written_and_a_changed_bit_is_noticed() {
        let mut out = Vec::new();
        header().put(&mut out);
        assert_eq!(Header::read(&out), Some(Ok(header())));

        let commit = Commit {
            id: header().id,
            number: 4,
            len: 5,
            crc: crc32fast::hash(b"hello"),
            packets: 6,
            interfaces: 2,
            times: Some((Timestamp(1), Timestamp(2))),
        };
        let mut out = Vec::new();
        commit.put(&mut out);
        assert_eq!(Commit::read(&out), Some(commit));
        assert!(commit.confirms(header().id, b"hello"));
        assert!(!commit.confirms(FileId::default(), b"hello"), "another file");
        let sections = [Section { offset: 1, len: 2, payload_len: 3, crc: 4 }; SECTIONS];
        let footer = Footer { header: header(), chunks: 8, sections, ..Footer::default() };
        let mut end = Vec::new();
        footer.put(&mut end);
        assert_eq!(Footer::read(&end), Some(footer));
        for block in [out, end] {
            for bit in 0..block.len() * 8 {
                let mut changed = block.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(Commit::read(&changed).is_none() && Footer::read(&changed).is_none(), "bit {bit}");
            }
        }
    }

    #[test]
    fn names_are_read_as_written() {
        for (counter, band) in [(0, 0), (7, 5), (1_234_567_890_123, 2)] {
            for coding in Coding::ALL {
                let name = file_name(counter, band, coding);
                assert_eq!(parse_name(&name), Some((counter, band, coding)), "{name}");
            }
        }
        for name in [
            "",
            "lock",
            "x-band0.pcapng",
            "1-band0.pcapng",
            "000000000001-band0.pcap",
            "000000000001-band.pcapng",
            "000000000001-band0.pcapng.enc.gz",
            "000000000001-band0.pcapng.x",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
