//! The catalogue: the sealed files of a spool, read from their footers.
//!
//! No other file describes the spool, so that nothing can contradict the footers. The spool leaves files alone whose
//! names are not its own.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crate::band::Band;
use crate::file::UnsealedFile;
use crate::layout::{Header, parse_name};
use crate::medium::Medium;
use crate::recover::{RebuiltIndex, RecoveryOutcome, recover};
use crate::retain::Candidate;
use crate::sealed_file::{SealedFile, footer};
use base::time::Timestamp;

/// Files, bytes and packets of a band.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandView {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets in sealed files.
    pub packets: u64,
    /// The earliest packet.
    pub oldest: Option<Timestamp>,
}

/// Sealed files, and files that are still being written.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Sealed files, by number.
    pub sealed: Vec<Arc<SealedFile>>,
    /// Files that the recorder is writing.
    pub open: Vec<Arc<UnsealedFile>>,
    /// Names and lengths of files that cannot be opened, such as those whose key is missing. No answer has their packets.
    pub unreadable: Arc<[(String, u64)]>,
}

/// The result of opening a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Number of unfinished files that were completed.
    pub recovered: u64,
    /// Bytes that no commit confirmed: cut off at the ends of recovered files, or damaged within them.
    pub unconfirmed_bytes: u64,
    /// Unfinished files without a packet, and files that others have replaced, which were removed.
    pub removed: u64,
    /// Files that could be neither read nor completed, each with the reason.
    pub failed: Vec<(String, String)>,
    /// The greatest epoch and the greatest number of a file so far.
    pub last: (u64, u64),
}

impl Catalogue {
    /// Reads the footers of all files, and completes unfinished files if the spool is to be written.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read. A file that cannot be read is reported.
    pub fn open<M: Medium>(medium: &M, write: bool) -> io::Result<(Self, OpenReport)> {
        let (mut catalogue, mut opening) = (Self::default(), OpenReport::default());
        let mut unreadable = Vec::new();
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
                Err(error) => {
                    opening.failed.push((name.clone(), error.to_string()));
                    unreadable.push((name, len));
                }
            }
        }
        catalogue.unreadable = unreadable.into();
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

    /// Removes files from the catalogue whose remaining packets another file holds. A crash between the end of that
    /// file and the removal of the old ones leaves both.
    fn finish_replacements<M: Medium>(&mut self, medium: &M, write: bool, opening: &mut OpenReport) {
        // A file replaces one of its own depth and run: numbers alone can repeat in files of several spools.
        let place = |header: &Header, counter: u64| (header.id.epoch, header.band, counter);
        let replaces = |entry: &Arc<SealedFile>| {
            let header = entry.footer.header;
            header.replaces.map(|counter| place(&header, counter))
        };
        let replaced: HashSet<_> = self.sealed.iter().filter_map(replaces).collect();
        self.sealed.retain(|entry| {
            if !replaced.contains(&place(&entry.footer.header, entry.counter())) {
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

    /// The oldest file of each band: the candidates for removal when room is needed.
    pub fn candidates(&self) -> (Vec<Candidate>, Vec<Arc<SealedFile>>) {
        let mut oldest: [Option<&Arc<SealedFile>>; Band::COUNT] = [None; Band::COUNT];
        let mut band_bytes = [0; Band::COUNT];
        for entry in &self.sealed {
            let band = Band(entry.footer.header.band).index();
            // A file that was written anew has a high number and old packets.
            if oldest[band].is_none_or(|oldest| entry.times().1 < oldest.times().1) {
                oldest[band] = Some(entry);
            }
            band_bytes[band] += entry.len;
        }
        let oldest = oldest.into_iter().flatten();
        let candidate = |entry: &Arc<SealedFile>| {
            let band = Band(entry.footer.header.band);
            Candidate { band, newest: entry.times().1, band_bytes: band_bytes[band.index()] }
        };
        oldest.map(|entry| (candidate(entry), Arc::clone(entry))).unzip()
    }

    /// Counts of the sealed files of each band.
    pub fn bands(&self) -> [BandView; Band::COUNT] {
        let mut bands = [BandView::default(); Band::COUNT];
        for entry in &self.sealed {
            let band = &mut bands[Band(entry.footer.header.band).index()];
            band.files += 1;
            band.bytes += entry.len;
            band.packets += entry.footer.packets;
            let oldest = entry.footer.times.map(|(oldest, _)| oldest);
            band.oldest = band.oldest.into_iter().chain(oldest).min();
        }
        bands
    }

    /// Bytes of all sealed files.
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed.iter().map(|entry| entry.len).sum()
    }
}

enum Opened {
    Sealed(SealedFile),
    Recovered(SealedFile),
    /// And its unconfirmed bytes.
    Unfinished(UnsealedFile, u64),
    Nothing,
}

fn open_one<M: Medium>(medium: &M, name: &str, len: u64, write: bool) -> io::Result<Opened> {
    let file = medium.open(name)?;
    if let Some(footer) = footer(medium, &file, name, len)? {
        return Ok(Opened::Sealed(SealedFile::new(name, footer, len)));
    }
    if write {
        drop(file);
        return Ok(match recover(medium, name, len)? {
            RecoveryOutcome::Sealed(entry) => Opened::Recovered(*entry),
            RecoveryOutcome::Removed => Opened::Nothing,
        });
    }
    rebuilt(medium, &file, name, len)
}

/// An unfinished file for readers, with an index built from its packets.
fn rebuilt<M: Medium>(medium: &M, file: &M::File, name: &str, len: u64) -> io::Result<Opened> {
    let Some(parsed) = parse_name(name) else { return Ok(Opened::Nothing) };
    let (rebuilt, scanned) = RebuiltIndex::scan(medium, file, len, (parsed.0, parsed.2))?;
    let replaces = rebuilt.header.is_some_and(|header| header.replaces.is_some());
    if rebuilt.index.packets() == 0 || replaces {
        return Ok(Opened::Nothing);
    }
    let unconfirmed = scanned.damaged.iter().map(|range| range.end - range.start).sum::<u64>() + (len - scanned.end);
    let end = rebuilt.end(parsed, &scanned);
    Ok(Opened::Unfinished(UnsealedFile::complete(end.footer.header, end.index, scanned.end), unconfirmed))
}
