//! Verifies files without a recorder: checks every checksum, and finds which packets are affected by damage.

use std::io;
use std::ops::Range;

use crate::bgzf;
use crate::coding::Decoder;
use crate::index::{self, Chunk};
use crate::layout::{self, parse_name};
use crate::medium::{Medium, read_exact};
use crate::recover::RebuiltIndex;
use crate::sealed_file::{SealedFile, footer};
use base::time::Timestamp;

/// Names of the index sections.
const SECTION_NAMES: [&str; index::COUNT] = ["chunks", "interfaces", "IPv4", "IPv6", "ports", "sessions", "not opened"];

/// The result of checking one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileReport {
    /// Name of the file.
    pub name: String,
    /// Length of the file.
    pub len: u64,
    /// Whether the file has its index and footer. A recorder may still be writing a file without them.
    pub sealed: bool,
    /// Packets with correct checksums.
    pub packets: u64,
    /// Earliest and latest time of these packets.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Damage to packets.
    pub damage: Vec<Damage>,
    /// Bytes at the end that no commit confirms. A crash leaves such bytes in an unfinished file.
    pub unconfirmed_bytes: u64,
    /// Parts of the index and footer that are damaged. All packets can be read without them.
    pub index_damage: Vec<String>,
}

/// A stretch of a file whose checksum is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Range of the file.
    pub bytes: Range<u64>,
    /// Affected packets; `None` if the index does not list them.
    pub packets: Option<u64>,
    /// Earliest and latest time of these packets; `None` if the index does not list them.
    pub times: Option<(Timestamp, Timestamp)>,
}

impl FileReport {
    /// Whether nothing is damaged.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.index_damage.is_empty() && (!self.sealed || self.unconfirmed_bytes == 0)
    }
}

/// Verifies one file.
///
/// # Errors
///
/// If the medium cannot read it.
pub fn check_file<M: Medium>(medium: &M, name: &str, len: u64) -> io::Result<FileReport> {
    let (counter, _, coding) = parse_name(name).ok_or(io::ErrorKind::InvalidInput)?;
    let file = medium.open(name)?;
    let mut report = FileReport { name: name.to_owned(), len, ..FileReport::default() };
    let entry = footer(medium, &file, name, len)?.map(|footer| SealedFile::new(name, footer, len));
    let data_bytes = entry.as_ref().map_or(len, |entry| entry.footer.data_bytes);
    let (rebuilt, scanned) = RebuiltIndex::scan(medium, &file, data_bytes, (counter, coding))?;
    report.packets = rebuilt.index.packets();
    report.times = rebuilt.index.times();
    report.unconfirmed_bytes = data_bytes - scanned.end;
    let mut damaged = scanned.damaged;
    let Some(entry) = entry else {
        let unknown = |bytes| Damage { bytes, packets: None, times: None };
        report.damage = damaged.into_iter().map(unknown).collect();
        return Ok(report);
    };
    report.sealed = true;
    if scanned.end < data_bytes {
        damaged.push(scanned.end..data_bytes);
        report.unconfirmed_bytes = 0;
    }
    let chunks = check_index(medium, &file, &entry, &mut report);
    let found: Vec<Chunk> = rebuilt.index.chunks().copied().collect();
    let missing = entry.footer.packets.saturating_sub(report.packets);
    let only = (damaged.len() == 1).then_some(missing);
    report.damage = damaged.into_iter().map(|bytes| describe(bytes, &chunks, &found, only)).collect();
    Ok(report)
}

/// Looks a damaged stretch up in the index.
fn describe(bytes: Range<u64>, chunks: &[Chunk], found: &[Chunk], only: Option<u64>) -> Damage {
    let overlaps = |chunk: &&Chunk| chunk.offset < bytes.end && chunk.offset + chunk.len > bytes.start;
    let affected: Vec<&Chunk> = chunks.iter().filter(overlaps).collect();
    let times = affected.iter().filter_map(|chunk| chunk.times);
    let times = times.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
    let expected: u64 = affected.iter().map(|chunk| chunk.packets).sum();
    let there: u64 = found
        .iter()
        .filter(|one| affected.iter().any(|chunk| chunk.offset <= one.offset && one.offset < chunk.offset + chunk.len))
        .map(|chunk| chunk.packets)
        .sum();
    let packets = only.or((!affected.is_empty()).then(|| expected.saturating_sub(there)));
    Damage { bytes, packets, times }
}

/// Verifies index and footer, and returns the chunks, if the index can be read.
fn check_index<M: Medium>(medium: &M, file: &M::File, entry: &SealedFile, report: &mut FileReport) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut end = entry.footer.data_bytes;
    for (number, name) in SECTION_NAMES.into_iter().enumerate() {
        let section = &entry.footer.sections[number];
        let payload = entry.section(medium, file, number);
        let is_whole = payload.as_ref().is_ok_and(|payload| {
            section.offset == end && is_as_written(medium, file, entry, number, payload).unwrap_or(false)
        });
        end = section.offset + section.len;
        if !is_whole {
            report.index_damage.push(name.to_owned());
        }
        if let (index::CHUNKS, Ok(payload)) = (number, payload) {
            chunks = index::read_chunks(&payload).unwrap_or_default();
        }
    }
    if !footer_is_as_written(medium, file, entry, end).unwrap_or(false) {
        report.index_damage.push("footer".to_owned());
    }
    chunks
}

/// Whether writing the section's payload again would give the same bytes. This also covers padding.
fn is_as_written<M: Medium>(
    medium: &M,
    file: &M::File,
    entry: &SealedFile,
    number: usize,
    payload: &[u8],
) -> io::Result<bool> {
    let section = &entry.footer.sections[number];
    let mut bytes = vec![0; usize::try_from(section.len).unwrap_or(0)];
    read_exact(medium, file, section.offset, &mut bytes)?;
    let mut written = Vec::new();
    layout::put_section(&mut written, number, payload);
    let mut plain = Vec::new();
    let decoded = Decoder::new(medium.keys()).units(entry.footer.header.coding, &bytes, &mut plain);
    Ok(decoded.is_some() && plain == written)
}

fn footer_is_as_written<M: Medium>(medium: &M, file: &M::File, entry: &SealedFile, offset: u64) -> io::Result<bool> {
    let coding = entry.footer.header.coding;
    if entry.len.checked_sub(coding.end_len(layout::FOOTER_BYTES) as u64) != Some(offset) {
        return Ok(false);
    }
    let mut written = Vec::new();
    entry.footer.put(&mut written);
    let mut bytes = vec![0; coding.end_len(layout::FOOTER_BYTES)];
    read_exact(medium, file, offset, &mut bytes)?;
    // A stored member and the end of BGZF have one form only.
    if coding.compressed && !coding.encrypted {
        let mut members = Vec::new();
        bgzf::put_stored(&mut members, &written);
        members.extend_from_slice(&bgzf::END);
        return Ok(bytes == members);
    }
    let mut plain = Vec::new();
    Ok(Decoder::new(medium.keys()).units(coding, &bytes, &mut plain).is_some() && plain == written)
}

/// Verifies all files of a spool, in order of their numbers.
///
/// # Errors
///
/// If the directory cannot be read. A file that cannot be read is reported with the error.
pub fn check<M: Medium>(medium: &M, mut each: impl FnMut(&str, io::Result<FileReport>)) -> io::Result<()> {
    let mut names = medium.list()?;
    names.retain(|(name, _)| parse_name(name).is_some());
    names.sort_unstable();
    for (name, len) in names {
        let report = check_file(medium, &name, len);
        each(&name, report);
    }
    Ok(())
}
