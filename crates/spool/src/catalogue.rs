//! The catalogue: the sealed files of a spool, from their footers.
//!
//! The footers are the truth, and no other file describes the spool. Files that the spool did not name are left alone.

use std::io;
use std::sync::Arc;

use crate::bgzf::Inflate;
use crate::file::{Shared, footer_place};
use crate::layout::{self, Footer, parse_name};
use crate::medium::{Medium, read_exact};
use crate::recover::{Rebuilt, Recovered, recover};
use base::time::Timestamp;

/// A sealed file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name of the file.
    pub name: String,
    /// Length of the file.
    pub len: u64,
    /// Its footer.
    pub footer: Footer,
}

impl Entry {
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

    /// Reads the payload of an index section.
    ///
    /// # Errors
    ///
    /// If the medium cannot read it, or it is damaged.
    pub fn section<M: Medium>(&self, medium: &M, file: &M::File, number: usize) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("index section {number} is damaged"));
        let section = self.footer.sections.get(number).ok_or_else(damaged)?;
        let end = section.offset.checked_add(section.len).ok_or_else(damaged)?;
        if end > self.len {
            return Err(damaged());
        }
        let mut bytes = vec![0; usize::try_from(section.len).map_err(|_| damaged())?];
        read_exact(medium, file, section.offset, &mut bytes)?;
        if self.footer.header.compressed {
            let mut plain = Vec::new();
            Inflate::default().members(&bytes, &mut plain).ok_or_else(damaged)?;
            bytes = plain;
        }
        let payload = layout::section(&bytes, number, section).ok_or_else(damaged)?;
        bytes.truncate(payload.end);
        bytes.drain(..payload.start);
        Ok(bytes)
    }
}

/// Sealed files and those that are still written.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Sealed files, by number.
    pub sealed: Vec<Arc<Entry>>,
    /// Files that the recorder is writing.
    pub open: Vec<Arc<Shared>>,
}

/// What was found when a spool was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Unfinished files that were completed.
    pub recovered: u64,
    /// Bytes that no commit confirmed and that were cut off, or lie damaged within recovered files.
    pub unconfirmed_bytes: u64,
    /// Unfinished files without a packet, and files that others have replaced, which were removed.
    pub removed: u64,
    /// Files that could be neither read nor completed, and why.
    pub failed: Vec<(String, String)>,
    /// The greatest epoch and the greatest number of a file so far.
    pub last: (u64, u64),
}

/// Reads the footer of a file; `None` if the file is unfinished.
///
/// # Errors
///
/// If the medium cannot read it.
pub fn footer<M: Medium>(medium: &M, file: &M::File, name: &str, len: u64) -> io::Result<Option<Footer>> {
    let Some((counter, band, compressed)) = parse_name(name) else { return Ok(None) };
    let Some(offset) = len.checked_sub(footer_place(compressed)) else { return Ok(None) };
    let mut block = vec![0; layout::FOOTER_BYTES];
    read_exact(medium, file, offset, &mut block)?;
    let footer = Footer::read(&block);
    Ok(footer.filter(|footer| {
        let header = &footer.header;
        (header.id.counter, header.band, header.compressed) == (counter, band, compressed)
            && footer.data_bytes <= len
            && footer.sections.iter().all(|section| section.offset.saturating_add(section.len) <= len)
    }))
}

impl Catalogue {
    /// Reads the footers of all files, and completes unfinished files if the spool is to be written.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read. A file that cannot be read is reported.
    pub fn open<M: Medium>(medium: &M, write: bool) -> io::Result<(Self, Opening)> {
        let (mut catalogue, mut opening) = (Self::default(), Opening::default());
        let mut names: Vec<(String, u64)> = medium.list()?;
        names.retain(|(name, _)| parse_name(name).is_some());
        names.sort_unstable();
        for (name, len) in names {
            let counter = parse_name(&name).map_or(0, |(counter, ..)| counter);
            opening.last.1 = opening.last.1.max(counter);
            match open_one(medium, &name, len, write) {
                Ok(Opened::Sealed(entry)) => catalogue.sealed.push(Arc::new(entry)),
                Ok(Opened::Recovered(entry)) => {
                    opening.recovered += 1;
                    opening.unconfirmed_bytes +=
                        entry.footer.damaged_bytes + len.saturating_sub(entry.footer.data_bytes);
                    catalogue.sealed.push(Arc::new(entry));
                }
                Ok(Opened::Unfinished(shared, unconfirmed)) => {
                    opening.unconfirmed_bytes += unconfirmed;
                    catalogue.open.push(Arc::new(shared));
                }
                Ok(Opened::Nothing) => opening.removed += 1,
                Err(error) => opening.failed.push((name, error.to_string())),
            }
        }
        let sealed = catalogue.sealed.iter().map(|entry| entry.footer.header.id.epoch);
        let open = catalogue.open.iter().map(|shared| shared.header.id.epoch);
        opening.last.0 = sealed.chain(open).max().unwrap_or(0);
        catalogue.sort();
        catalogue.finish_replacements(medium, write, &mut opening);
        Ok((catalogue, opening))
    }

    fn sort(&mut self) {
        self.sealed.sort_unstable_by_key(|entry| entry.counter());
    }

    /// Forgets files whose remaining packets another file holds: a crash came between that file's end and their
    /// removal.
    fn finish_replacements<M: Medium>(&mut self, medium: &M, write: bool, opening: &mut Opening) {
        let replaced: Vec<u64> = self.sealed.iter().filter_map(|entry| entry.footer.header.replaces).collect();
        self.sealed.retain(|entry| {
            if !replaced.contains(&entry.counter()) {
                return true;
            }
            if write {
                match medium.remove(&entry.name) {
                    Ok(()) => opening.removed += 1,
                    Err(error) => opening.failed.push((entry.name.clone(), error.to_string())),
                }
            }
            false
        });
    }

    /// Bytes of all sealed files.
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed.iter().map(|entry| entry.len).sum()
    }
}

enum Opened {
    Sealed(Entry),
    Recovered(Entry),
    /// And its unconfirmed bytes.
    Unfinished(Shared, u64),
    Nothing,
}

fn open_one<M: Medium>(medium: &M, name: &str, len: u64, write: bool) -> io::Result<Opened> {
    let file = medium.open(name)?;
    if let Some(footer) = footer(medium, &file, name, len)? {
        return Ok(Opened::Sealed(Entry::new(name, footer, len)));
    }
    if write {
        drop(file);
        return Ok(match recover(medium, name, len)? {
            Recovered::Sealed(entry) => Opened::Recovered(*entry),
            Recovered::Removed => Opened::Nothing,
        });
    }
    rebuilt(medium, &file, name, len)
}

/// An unfinished file as readers see it, with the index that its packets give.
fn rebuilt<M: Medium>(medium: &M, file: &M::File, name: &str, len: u64) -> io::Result<Opened> {
    let Some(parsed) = parse_name(name) else { return Ok(Opened::Nothing) };
    let (rebuilt, scanned) = Rebuilt::scan(medium, file, len, (parsed.0, parsed.2))?;
    if rebuilt.index.packets() == 0 {
        return Ok(Opened::Nothing);
    }
    let unconfirmed = scanned.damaged.iter().map(|range| range.end - range.start).sum::<u64>() + (len - scanned.end);
    let end = rebuilt.end(parsed, &scanned);
    Ok(Opened::Unfinished(Shared::complete(end.footer.header, end.index, scanned.end), unconfirmed))
}
