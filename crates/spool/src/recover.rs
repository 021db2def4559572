//! Completes files that a crash left unfinished: verifies their content, cuts off bytes that no commit confirms, and
//! writes the index and the footer.

use std::io;

use crate::blocks::{self, Block, SpooledInterface};
use crate::coding::{Coding, Encoder};
use crate::encryption::Opener;
use crate::file::End;
use crate::index::Builder;
use crate::layout::{self, CHUNK_BYTES, FileId, Footer, Header, parse_name};
use crate::medium::{Medium, read_up_to};
use crate::scan::{self, CommittedRange, ScanReport};
use crate::sealed_file::SealedFile;

/// The index of a file, rebuilt by a scan.
#[derive(Debug, Default)]
pub struct RebuiltIndex {
    /// The index.
    pub index: Builder,
    /// The header of the file, if a commit confirms it.
    pub header: Option<Header>,
    /// Bytes before compression.
    pub plain_bytes: u64,
    interfaces: Vec<SpooledInterface>,
}

impl RebuiltIndex {
    /// Adds confirmed bytes.
    pub fn add(&mut self, confirmed: &CommittedRange<'_>) {
        // Descriptions of interfaces may be lost with damaged bytes. The later ones must keep their numbers.
        let described = (confirmed.commit.interfaces as usize).min(base::interface::Interfaces::CAPACITY * 16);
        while self.interfaces.len() < described {
            self.interfaces.push(SpooledInterface::lost());
            self.index.interface(&blocks::lost_interface());
        }
        let mut rest = confirmed.plain;
        while let Some((block, len)) = blocks::next(rest) {
            rest = &rest[len..];
            match block {
                Block::Interface(block) => {
                    self.interfaces.push(SpooledInterface::read(block).unwrap_or_else(SpooledInterface::lost));
                    self.index.interface(block);
                }
                Block::Packet(packet) => {
                    let interface = self.interfaces.get(packet.interface as usize);
                    let link_type = interface.map_or(SpooledInterface::lost().link_type, |known| known.link_type);
                    self.index.packet(packet.time, link_type, packet.data);
                }
                Block::Header(header) => self.header = self.header.or(Some(header)),
                Block::Commit(_) | Block::Other => {}
            }
        }
        let plain_len = (confirmed.plain.len() + layout::COMMIT_BYTES) as u64;
        self.plain_bytes += plain_len;
        self.index.commit(confirmed.offset, confirmed.len, plain_len);
        if self.index.open_bytes() >= CHUNK_BYTES as u64 {
            self.index.close_chunk();
        }
    }

    /// Scans a file.
    ///
    /// # Errors
    ///
    /// If the medium cannot read it.
    pub fn scan<M: Medium>(
        medium: &M,
        file: &M::File,
        len: u64,
        (counter, coding): (u64, Coding),
    ) -> io::Result<(Self, ScanReport)> {
        let mut rebuilt = Self::default();
        let scanned = scan::scan(medium, file, len, (counter, coding), &mut |confirmed| rebuilt.add(&confirmed))?;
        Ok((rebuilt, scanned))
    }

    /// The end of the file: the index, and the header (derived from the file's name if it was lost).
    pub fn end(self, (counter, band, coding): (u64, u8, Coding), scanned: &ScanReport) -> End {
        let id = scanned.id.unwrap_or(FileId { epoch: 0, counter });
        let header = self.header.unwrap_or(Header { id, band, ..Header::default() });
        // The name says how the file is read, also after somebody has changed its coding.
        let header = Header { coding, ..header };
        let damaged_bytes = scanned.damaged.iter().map(|range| range.end - range.start).sum();
        let footer = Footer {
            header,
            data_bytes: scanned.end,
            plain_bytes: self.plain_bytes,
            damaged_bytes,
            ..Footer::default()
        };
        End { footer, index: self.index }
    }
}

/// No file of the spool is longer, except for its index.
const FILE_BYTES_MAX: usize = 128 << 20;

/// The result of recovering an unfinished file.
#[derive(Debug)]
pub enum RecoveryOutcome {
    /// The file is complete now.
    Sealed(Box<SealedFile>),
    /// The file had no packet and was removed.
    Removed,
}

/// Completes an unfinished file.
///
/// # Errors
///
/// If the medium cannot read or write it. The file then stays as it is.
pub fn recover<M: Medium>(medium: &M, name: &str, len: u64) -> io::Result<RecoveryOutcome> {
    let parsed = parse_name(name).ok_or(io::ErrorKind::InvalidInput)?;
    let (counter, _, coding) = parsed;
    let mut file = medium.reopen(name)?;
    let (rebuilt, scanned) = RebuiltIndex::scan(medium, &file, len, (counter, coding))?;
    // A file that replaces another counts only once it is sealed; until then, the other file still exists.
    let replaces = rebuilt.header.is_some_and(|header| header.replaces.is_some());
    if rebuilt.index.packets() == 0 && coding.encrypted {
        // Damage of its start can hide that its key is missing.
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(FILE_BYTES_MAX)];
        let read = read_up_to(medium, &file, 0, &mut bytes)?;
        Opener::check_all(medium.keys(), &bytes[..read])?;
    }
    if rebuilt.index.packets() == 0 || replaces {
        drop(file);
        medium.remove(name)?;
        medium.sync_names()?;
        return Ok(RecoveryOutcome::Removed);
    }
    if scanned.end < len {
        medium.truncate(&file, scanned.end)?;
    }
    let mut out = Vec::new();
    let mut encoder = Encoder::new(coding, 1, medium.keys())?;
    let footer = rebuilt.end(parsed, &scanned).put(&mut out, scanned.end, &mut encoder);
    medium.append(&mut file, scanned.end, &out)?;
    medium.sync(&file)?;
    Ok(RecoveryOutcome::Sealed(Box::new(SealedFile::new(name, footer, scanned.end + out.len() as u64))))
}
