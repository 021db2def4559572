//! Reads capture files as a [`Source`]: classic pcap and pcapng, from a file or a pipe, in every byte order and
//! timestamp resolution.
//!
//! Invariants: packets are handed over in file order and borrow from one reused buffer. A length field in a file never
//! decides how much memory is allocated (see [`CAPTURED_BYTES_MAX`]). A damaged file yields every packet before the
//! damage, then the offset of the block or record that cannot be read. Packets whose interface gets no slot in the
//! [`Interfaces`] table are counted. The result depends only on the bytes: the sizes of a pipe's reads change nothing
//! but the sizes of the batches.
//!
//! ```text
//! read ─► Input (one buffer, 256 KiB unless a record is larger) ─► pcap::Parser   ─► Packet
//!                                                             └► pcapng::Parser ─►
//! ```

mod byte_order;
mod extras;
mod input;
mod options;
mod outcome;
mod pcap;
mod pcapng;
mod recognise;
mod resolution;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use self::input::{Input, ReadOutcome};
use self::recognise::Recognised;
use crate::annotations::{Annotations, CaptureReport, SharedReport};
use base::counters::Volume;
use base::interface::Interfaces;
use base::packet::Packet;
use base::source::{Batch, Burst, Source, SourceCounts, SourceError};
pub use outcome::CAPTURED_BYTES_MAX;
use outcome::{Damage, InterfaceTable};

/// A capture file, or a pipe that carries one, as a [`Source`].
pub struct FileSource {
    input: Input,
    parser: Parser,
    /// The number of contiguous bytes that the parser needs to continue.
    wanted: usize,
    table: InterfaceTable,
    finished: bool,
    /// A report to update, and the number of changes that it has.
    report: Option<(SharedReport, u64)>,
}

enum Parser {
    /// The format is not recognised yet.
    Unknown,
    Pcap(pcap::Parser),
    Pcapng(pcapng::Parser),
}

impl FileSource {
    /// Opens a capture file. Damage inside the file is reported by [`batch`](Source::batch).
    ///
    /// # Errors
    ///
    /// [`SourceError::Io`] when the operating system cannot open the file.
    pub fn open(path: &Path, interfaces: Arc<Interfaces>) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| SourceError::Io { context: format!("opening {name}"), source })?;
        Ok(Self::new(Input::new(Box::new(file), name), interfaces))
    }

    /// Reads a capture from any reader, such as standard input.
    ///
    /// Each batch holds the packets of one `read`, so that a slow pipe is followed packet by packet. A `read` that
    /// blocks makes [`batch`](Source::batch) block. A `read` that fails with `WouldBlock`, `TimedOut` or `Interrupted`
    /// makes it return [`Batch::Idle`].
    pub fn from_reader(reader: Box<dyn Read + Send>, interfaces: Arc<Interfaces>) -> Self {
        Self::new(Input::new(reader, "the capture".to_owned()), interfaces)
    }

    /// Returns the offset in bytes after the last complete record or block.
    pub fn whole_bytes(&self) -> u64 {
        self.input.offset()
    }

    /// Returns the number of packets dropped because the interface table had no free slot for their interface.
    pub fn refused(&self) -> u64 {
        self.table.refused
    }

    /// Returns the captured bytes of the packets counted by [`refused`](Self::refused).
    pub fn refused_bytes(&self) -> u64 {
        self.table.refused_bytes
    }

    /// Returns the number of packets whose time is outside the range of [`Timestamp`](base::time::Timestamp) and was
    /// set to the nearest value in it.
    pub fn times_changed(&self) -> u64 {
        self.table.times_changed
    }

    /// Returns the annotations read so far.
    pub fn annotations(&mut self) -> &mut Annotations {
        &mut self.table.annotations
    }

    /// Counts annotations instead of keeping them, and updates `report` while the capture is read. Call it before the
    /// first batch.
    pub fn count_annotations(&mut self, report: SharedReport) {
        self.table.annotations = Annotations::counting();
        self.report = Some((report, 0));
    }

    /// Returns what the capture contains beside packets, and what of it is not kept.
    pub fn report(&self) -> CaptureReport {
        CaptureReport {
            times_changed: self.table.times_changed,
            times_missing: self.table.times_missing,
            found: self.table.annotations.found().clone(),
            left_out: self.table.annotations.left_out().clone(),
        }
    }

    /// Updates the shared report if a count has changed.
    fn publish_report(&mut self) {
        let changes = self.table.annotations.changes() + self.table.times_changed + self.table.times_missing;
        if self.report.as_ref().is_some_and(|(_, published)| *published != changes) {
            let counts = self.report();
            if let Some((report, published)) = &mut self.report {
                report.set(counts);
                *published = changes;
            }
        }
    }

    fn new(input: Input, interfaces: Arc<Interfaces>) -> Self {
        Self {
            input,
            parser: Parser::Unknown,
            wanted: recognise::BYTES,
            table: InterfaceTable {
                interfaces,
                refused: 0,
                refused_bytes: 0,
                times_changed: 0,
                times_missing: 0,
                annotations: Annotations::default(),
            },
            finished: false,
            report: None,
        }
    }

    /// Reads at most once, then hands over every complete packet.
    fn advance(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        if self.input.available().len() < self.wanted {
            match self.input.read(self.wanted)? {
                ReadOutcome::Bytes => {}
                ReadOutcome::Nothing => return Ok(Batch::Idle),
                ReadOutcome::End => return Ok(self.end()?),
            }
            if self.input.available().len() < self.wanted {
                return Ok(Batch::More);
            }
        }
        let (bytes, offset) = (self.input.available(), self.input.offset());
        let mut burst = Burst::empty();
        let progress = match &mut self.parser {
            Parser::Unknown => {
                let wanted = match recognise::recognise(bytes, &mut self.table)? {
                    Recognised::Pcap(parser) => {
                        self.parser = Parser::Pcap(parser);
                        self.input.consume(pcap::FILE_HEADER_BYTES);
                        pcap::RECORD_HEADER_BYTES
                    }
                    Recognised::Pcapng => {
                        self.parser = Parser::Pcapng(pcapng::Parser::default());
                        pcapng::BLOCK_START_BYTES
                    }
                    Recognised::MoreWanted(bytes) => bytes,
                };
                self.wanted = wanted;
                return Ok(Batch::More);
            }
            Parser::Pcap(parser) => {
                parser.parse(bytes, offset, &mut self.table, &mut |packet| burst.push(packet, each))
            }
            Parser::Pcapng(parser) => {
                parser.parse(bytes, offset, &mut self.table, &mut |packet| burst.push(packet, each))
            }
        };
        // Packets before a damaged record are valid, so hand them over before the error is returned.
        burst.hand_over(each);
        let progress = progress?;
        self.input.consume(progress.consumed);
        self.input.skip(progress.skip);
        self.wanted = progress.wanted;
        Ok(Batch::More)
    }

    /// Returns [`Batch::End`] if the input ended at a record boundary, or the damage if it did not.
    fn end(&self) -> Result<Batch, Damage> {
        let (left, offset) = (self.input.available(), self.input.offset());
        match &self.parser {
            Parser::Unknown => Err(recognise::cut_short(left)),
            Parser::Pcap(parser) => parser.end(left, offset),
            Parser::Pcapng(parser) => parser.end(left, offset),
        }
        .map(|()| Batch::End)
    }
}

impl Source for FileSource {
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        if self.finished {
            return Ok(Batch::End);
        }
        let batch = self.advance(each);
        self.finished = matches!(batch, Ok(Batch::End) | Err(_));
        self.publish_report();
        batch
    }

    fn counts(&self) -> SourceCounts {
        let refused = Volume { packets: self.refused(), bytes: self.refused_bytes() };
        SourceCounts { refused, ..SourceCounts::default() }
    }
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource")
            .field("offset", &self.input.offset())
            .field("refused", &self.table.refused)
            .finish_non_exhaustive()
    }
}
