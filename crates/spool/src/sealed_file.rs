//! A sealed file, described by its footer.

use std::io;

use crate::coding::Decoder;
use crate::encryption::{self, Opener};
use crate::layout::{self, Footer, parse_name};
use crate::medium::{Medium, read_exact, read_up_to};
use base::time::Timestamp;

/// A sealed file.
#[derive(Clone, Debug)]
pub struct SealedFile {
    /// Name of the file.
    pub name: String,
    /// Length of the file.
    pub len: u64,
    /// Its footer.
    pub footer: Footer,
}

impl SealedFile {
    /// An entry.
    pub fn new(name: &str, footer: Footer, len: u64) -> Self {
        Self { name: name.to_owned(), len, footer }
    }

    /// Earliest and latest packet time; the time of creation for a file without packets.
    pub fn times(&self) -> (Timestamp, Timestamp) {
        let created = self.footer.header.created;
        self.footer.times.unwrap_or((created, created))
    }

    /// Number of the file.
    pub fn counter(&self) -> u64 {
        self.footer.header.id.counter
    }

    /// The checksum of the footer, which differs between files even if a spool was emptied and its numbers began anew.
    pub fn fingerprint(&self) -> u32 {
        let mut block = Vec::with_capacity(layout::FOOTER_BYTES);
        self.footer.put(&mut block);
        // The checksum itself: one over a block that ends with its checksum is the same for all blocks.
        let at = layout::FOOTER_BYTES - 8;
        block.get(at..at + 4).and_then(|crc| Some(u32::from_ne_bytes(*crc.first_chunk()?))).unwrap_or(0)
    }

    /// Reads the payload of an index section.
    ///
    /// # Errors
    ///
    /// If the medium cannot read the section, or the section is damaged.
    pub fn section<M: Medium>(&self, medium: &M, file: &M::File, number: usize) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("index section {number} is damaged"));
        let section = self.footer.sections.get(number).ok_or_else(damaged)?;
        let end = section.offset.checked_add(section.len).ok_or_else(damaged)?;
        if end > self.len {
            return Err(damaged());
        }
        let mut bytes = vec![0; usize::try_from(section.len).map_err(|_| damaged())?];
        read_exact(medium, file, section.offset, &mut bytes)?;
        if !self.footer.header.coding.is_plain() {
            let mut plain = Vec::new();
            Decoder::new(medium.keys()).units(self.footer.header.coding, &bytes, &mut plain).ok_or_else(damaged)?;
            bytes = plain;
        }
        let payload = layout::section(&bytes, number, section).ok_or_else(damaged)?;
        bytes.truncate(payload.end);
        bytes.drain(..payload.start);
        Ok(bytes)
    }
}

/// Reads the footer of a file; `None` if the file is unfinished.
///
/// # Errors
///
/// If the medium cannot read it, or it is encrypted and its key is missing.
pub fn footer<M: Medium>(medium: &M, file: &M::File, name: &str, len: u64) -> io::Result<Option<Footer>> {
    let Some((counter, band, coding)) = parse_name(name) else { return Ok(None) };
    let end = coding.end_len(layout::FOOTER_BYTES);
    let mut block = Vec::new();
    if let Some(offset) = len.checked_sub(end as u64) {
        let mut coded = vec![0; end];
        read_exact(medium, file, offset, &mut coded)?;
        if Decoder::new(medium.keys()).units(coding, &coded, &mut block).is_none() {
            block.clear();
        }
    }
    if block.is_empty() && coding.encrypted {
        // Unfinished, or of another key?
        let mut start = [0; encryption::OVERHEAD_BYTES];
        let there = read_up_to(medium, file, 0, &mut start)?;
        Opener::check(medium.keys(), &start[..there])?;
    }
    let footer = Footer::read(&block);
    Ok(footer.filter(|footer| {
        let header = &footer.header;
        (header.id.counter, header.band, header.coding) == (counter, band, coding)
            && footer.data_bytes <= len
            && footer.sections.iter().all(|section| section.offset.saturating_add(section.len) <= len)
    }))
}
