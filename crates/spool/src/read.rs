//! Answers a query from the files of a spool: reads only chunks that can match, in time order.
//!
//! The answer opens a file when it reaches the file's earliest packet, and selects the chunks that can match by the
//! index. It reads a chunk when it reaches the chunk's earliest packet. So memory does not grow with the spool, and the
//! first packet comes after a few reads.

mod loaded;
mod selection;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use crate::blocks::{self, Block, SpooledInterface, SpooledPacket};
use crate::catalogue::Catalogue;
use crate::coding::{Coding, Decoder, next_unit};
use crate::file::UnsealedFile;
use crate::index::{self, AnyOf, Chunk, ChunkSet, ClosedPackets, Condition};
use crate::layout::FileId;
use crate::medium::{Medium, read_up_to};
use crate::sealed_file::SealedFile;
use base::time::Timestamp;
use loaded::{LoadedChunk, keep, packets_of};
pub use selection::Selection;
use selection::{add, intersect, overlaps};

/// Limit of chunks in memory. If more chunks overlap in time, packets come out of time order, and are counted.
const LOADED_MAX: usize = 64;
/// Number of files that stay open between reads of two of their chunks.
const HANDLES_MAX: usize = 64;
/// The longest chunk that is read, before and after decompression.
const CHUNK_BYTES_MAX: u64 = 16 << 20;

/// Costs of reading, and the number of files and chunks that could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Files whose index was read.
    pub files: u64,
    /// Chunks that were read.
    pub chunks: u64,
    /// Bytes that were read from chunks.
    pub bytes: u64,
    /// Files, or parts of them, that were removed before they were read.
    pub gone: u64,
    /// Commits that are damaged or could not be read; their packets are missing from the answer.
    pub damaged: u64,
    /// Files or chunks that the medium failed to read.
    pub failed: u64,
    /// Files of the spool that could not be opened at all; nothing is known of their times.
    pub unopened: u64,
    /// Packets returned out of time order.
    pub unsorted: u64,
}

/// A packet from a spool.
#[derive(Clone, Copy, Debug)]
pub struct FoundPacket<'a> {
    /// The packet.
    pub packet: SpooledPacket<'a>,
    /// Its interface.
    pub interface: &'a Arc<SpooledInterface>,
    /// The file.
    pub file: FileId,
    /// The band of that file.
    pub band: u8,
}

/// The packets of a spool that may match a selection, in time order.
#[derive(Debug)]
pub struct Packets<M: Medium> {
    medium: M,
    window: (Timestamp, Timestamp),
    conditions: Vec<Condition>,
    any: Option<AnyOf>,
    closed: Option<ClosedPackets>,
    /// Files that were not opened yet, the one with the latest packets first.
    waiting: Vec<Source>,
    files: Vec<Option<OpenFile<M>>>,
    handles: usize,
    chunks: BinaryHeap<Reverse<WaitingChunk>>,
    loaded: BinaryHeap<Reverse<LoadedChunk>>,
    decoder: Decoder,
    spare: Vec<Vec<u8>>,
    latest: Timestamp,
    summary: ReadSummary,
    current: Option<LoadedChunk>,
}

#[derive(Debug)]
enum Source {
    Sealed(Arc<SealedFile>),
    Open(Arc<UnsealedFile>, Option<(Timestamp, Timestamp)>),
}

impl Source {
    fn times(&self) -> (Timestamp, Timestamp) {
        match self {
            Self::Sealed(entry) => entry.times(),
            Self::Open(_, times) => times.unwrap_or((Timestamp::MAX, Timestamp::MIN)),
        }
    }
}

#[derive(Debug)]
struct OpenFile<M: Medium> {
    name: String,
    file: Option<M::File>,
    id: FileId,
    band: u8,
    coding: Coding,
    /// End of the readable part.
    end: u64,
    /// Whether the file is still being written, so that its end may be incomplete.
    is_growing: bool,
    interfaces: Vec<Arc<SpooledInterface>>,
    chunks_left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WaitingChunk {
    oldest: Timestamp,
    file: usize,
    offset: u64,
    len: u64,
    plain_len: u64,
}

impl<M: Medium> Packets<M> {
    /// Prepares the query. Reads nothing yet.
    pub fn new(medium: M, catalogue: &Catalogue, selection: &Selection) -> Self {
        let window = selection.window();
        let sealed = catalogue.sealed.iter().map(|entry| Source::Sealed(Arc::clone(entry)));
        let open = catalogue.open.iter().map(|shared| Source::Open(Arc::clone(shared), shared.lock().index.times()));
        let mut waiting: Vec<Source> = sealed
            .chain(open)
            .filter(|source| {
                let (oldest, newest) = source.times();
                oldest <= window.1 && newest >= window.0
            })
            .collect();
        waiting.sort_by_key(|source| Reverse(source.times().0));
        let decoder = Decoder::new(medium.keys());
        Self {
            medium,
            window,
            conditions: selection.conditions.clone(),
            any: (!selection.any.is_empty()).then(|| AnyOf::new(&selection.any)),
            closed: selection.counts_closed.then(ClosedPackets::new),
            waiting,
            files: Vec::new(),
            handles: 0,
            chunks: BinaryHeap::new(),
            loaded: BinaryHeap::new(),
            decoder,
            spare: Vec::new(),
            latest: Timestamp::MIN,
            summary: ReadSummary { unopened: catalogue.unreadable.len() as u64, ..ReadSummary::default() },
            current: None,
        }
    }

    /// Costs so far, and the number of files and chunks that could not be read.
    pub fn summary(&self) -> ReadSummary {
        self.summary
    }

    /// Packets of the window that the decoder could not open, by kind, in the files that were looked at so far. Empty if the
    /// selection does not ask for it.
    pub fn closed(&self) -> ClosedPackets {
        self.closed.clone().unwrap_or_default()
    }

    /// The time of the next packet, without taking it. Packets before it are not on disk, or were returned.
    pub fn peek_time(&mut self) -> Option<Timestamp> {
        self.put_back();
        self.advance();
        self.loaded.peek().map(|Reverse(head)| head.order().0)
    }

    /// The next packet.
    #[expect(clippy::should_implement_trait, reason = "the result borrows from the reader")]
    pub fn next(&mut self) -> Option<FoundPacket<'_>> {
        self.put_back();
        self.advance();
        let Reverse(mut head) = self.loaded.pop()?;
        let (time, at) = head.packets.pop()?;
        self.summary.unsorted += u64::from(time < self.latest);
        self.latest = self.latest.max(time);
        let head = self.current.insert(head);
        let file = self.files.get(head.file)?.as_ref()?;
        match blocks::next(head.plain.get(at..)?) {
            Some((Block::Packet(packet), _)) => {
                let interface = file.interfaces.get(packet.interface as usize)?;
                Some(FoundPacket { packet, interface, file: file.id, band: file.band })
            }
            _ => None,
        }
    }

    /// Puts the chunk of the packet that was returned last back among the others.
    fn put_back(&mut self) {
        let Some(head) = self.current.take() else { return };
        if head.packets.is_empty() {
            self.finish_chunk(head);
        } else {
            self.loaded.push(Reverse(head));
        }
    }

    fn finish_chunk(&mut self, mut chunk: LoadedChunk) {
        if self.spare.len() < 4 {
            chunk.plain.clear();
            self.spare.push(chunk.plain);
        }
        self.chunk_done(chunk.file);
    }

    fn chunk_done(&mut self, file: usize) {
        let Some(slot) = self.files.get_mut(file) else { return };
        if let Some(open) = slot {
            open.chunks_left = open.chunks_left.saturating_sub(1);
            if open.chunks_left == 0 {
                self.handles -= usize::from(open.file.is_some());
                *slot = None;
            }
        }
    }

    /// Opens files and reads chunks until the earliest packet is in memory.
    fn advance(&mut self) {
        loop {
            let head = self.loaded.peek().map_or(Timestamp::MAX, |Reverse(head)| head.order().0);
            let chunk = self.chunks.peek().map_or(Timestamp::MAX, |Reverse(chunk)| chunk.oldest);
            let has_head = !self.loaded.is_empty();
            let file = self.waiting.last().map(|source| source.times().0);
            if let Some(oldest) = file
                && (oldest <= head.min(chunk) || (!has_head && self.chunks.is_empty()))
            {
                if let Some(source) = self.waiting.pop() {
                    self.look_at(&source);
                }
            } else if !self.chunks.is_empty()
                && (chunk <= head || !has_head)
                && (self.loaded.len() < LOADED_MAX || !has_head)
            {
                if let Some(Reverse(chunk)) = self.chunks.pop() {
                    self.load(chunk);
                }
            } else {
                return;
            }
        }
    }

    /// Reads the index of a file and queues its chunks that can match.
    fn look_at(&mut self, source: &Source) {
        self.summary.files += 1;
        let looked = match source {
            Source::Sealed(entry) => self.look_at_sealed(entry),
            Source::Open(shared, _) => self.look_at_open(shared),
        };
        let (open, chunks) = match looked {
            Ok(looked) => looked,
            Err(error) => return self.note(&error),
        };
        let file = self.files.len();
        let window = self.window;
        let before = self.chunks.len();
        for chunk in chunks {
            if let Some((oldest, newest)) = chunk.times
                && oldest <= window.1
                && newest >= window.0
                && chunk.offset < open.end
            {
                let len = chunk.len.min(open.end - chunk.offset);
                let Chunk { offset, plain_len, .. } = chunk;
                self.chunks.push(Reverse(WaitingChunk { oldest, file, offset, len, plain_len }));
            }
        }
        let chunks_left = self.chunks.len() - before;
        if chunks_left > 0 {
            self.handles += usize::from(open.file.is_some());
            self.files.push(Some(OpenFile { chunks_left, ..open }));
        }
    }

    fn look_at_sealed(&mut self, entry: &Arc<SealedFile>) -> io::Result<(OpenFile<M>, Vec<Chunk>)> {
        let file = self.medium.open(&entry.name)?;
        let section = |number| entry.section(&self.medium, &file, number);
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the index is damaged");
        let mut set: Option<ChunkSet> = None;
        let mut interfaces = Vec::new();
        let mut chunks = vec![Chunk {
            offset: 0,
            len: entry.footer.data_bytes,
            plain_len: entry.footer.plain_bytes,
            packets: entry.footer.packets,
            times: entry.footer.times,
        }];
        let counts_closed = self.closed.is_some() && entry.footer.sections[index::CLOSED].payload_len > 0;
        let mut closed = ClosedPackets::new();
        let read: io::Result<()> = (|| {
            if counts_closed {
                chunks = index::read_chunks(&section(index::CHUNKS)?).ok_or_else(damaged)?;
                let is_wanted = |number: usize| chunks.get(number).is_some_and(|chunk| overlaps(chunk, self.window));
                index::read_closed(&section(index::CLOSED)?, &is_wanted, &mut closed).ok_or_else(damaged)?;
            }
            for condition in &self.conditions {
                let found = index::select(&section(condition.section())?, condition).ok_or_else(damaged)?;
                intersect(&mut set, found);
                if set.as_ref().is_some_and(ChunkSet::is_empty) {
                    chunks.clear();
                    return Ok(());
                }
            }
            if let Some(any) = &self.any {
                let mut found = ChunkSet::default();
                for number in any.sections() {
                    found.union(&any.select(number, &section(number)?).ok_or_else(damaged)?);
                }
                intersect(&mut set, found);
            }
            if set.as_ref().is_some_and(ChunkSet::is_empty) {
                chunks.clear();
                return Ok(());
            }
            interfaces = blocks::interfaces(&section(index::INTERFACES)?);
            if !counts_closed {
                chunks = index::read_chunks(&section(index::CHUNKS)?).ok_or_else(damaged)?;
            }
            Ok(())
        })();
        match read {
            Ok(()) => add(&mut self.closed, closed),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // Without the index, scan the whole file, as recovery does.
                return self.rebuild(entry, file);
            }
            Err(error) => return Err(error),
        }
        let chunks = keep(chunks, set.as_ref());
        let header = entry.footer.header;
        let open = OpenFile {
            name: entry.name.clone(),
            file: (self.handles < HANDLES_MAX).then_some(file),
            id: header.id,
            band: header.band,
            coding: header.coding,
            end: entry.footer.data_bytes,
            is_growing: false,
            interfaces: interfaces.into_iter().map(Arc::new).collect(),
            chunks_left: 0,
        };
        Ok((open, chunks))
    }

    /// The chunks of a file whose index is damaged.
    fn rebuild(&mut self, entry: &SealedFile, file: M::File) -> io::Result<(OpenFile<M>, Vec<Chunk>)> {
        let header = entry.footer.header;
        let place = (header.id.counter, header.coding);
        let (rebuilt, scanned) =
            crate::recover::RebuiltIndex::scan(&self.medium, &file, entry.footer.data_bytes, place)?;
        self.summary.damaged += scanned.damaged.len() as u64 + u64::from(scanned.end < entry.footer.data_bytes);
        let open = OpenFile {
            name: entry.name.clone(),
            file: (self.handles < HANDLES_MAX).then_some(file),
            id: header.id,
            band: header.band,
            coding: header.coding,
            end: scanned.end,
            is_growing: false,
            interfaces: blocks::interfaces(rebuilt.index.interfaces()).into_iter().map(Arc::new).collect(),
            chunks_left: 0,
        };
        let chunks: Vec<Chunk> = rebuilt.index.chunks().copied().collect();
        self.count_closed(&rebuilt.index, &chunks);
        Ok((open, chunks))
    }

    fn count_closed(&mut self, index: &index::Builder, chunks: &[Chunk]) {
        if self.closed.is_some() {
            let mut closed = ClosedPackets::new();
            let window = self.window;
            let is_wanted = |number: usize| chunks.get(number).is_some_and(|chunk| overlaps(chunk, window));
            index.sum_closed(&is_wanted, &mut closed);
            add(&mut self.closed, closed);
        }
    }

    fn look_at_open(&mut self, shared: &Arc<UnsealedFile>) -> io::Result<(OpenFile<M>, Vec<Chunk>)> {
        let name = shared.name();
        let file = self.medium.open(&name)?;
        let growing = shared.lock();
        let mut set: Option<ChunkSet> = None;
        for condition in &self.conditions {
            intersect(&mut set, growing.index.select(condition));
        }
        if let Some(any) = &self.any {
            intersect(&mut set, growing.index.select_any(any));
        }
        let chunks: Vec<Chunk> = growing.index.chunks().copied().collect();
        self.count_closed(&growing.index, &chunks);
        let chunks = keep(chunks, set.as_ref());
        let open = OpenFile {
            name,
            file: (self.handles < HANDLES_MAX).then_some(file),
            id: shared.header.id,
            band: shared.header.band,
            coding: shared.header.coding,
            end: growing.written,
            is_growing: true,
            interfaces: blocks::interfaces(growing.index.interfaces()).into_iter().map(Arc::new).collect(),
            chunks_left: 0,
        };
        Ok((open, chunks))
    }

    fn note(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::NotFound => self.summary.gone += 1,
            _ => self.summary.failed += 1,
        }
    }

    fn load(&mut self, chunk: WaitingChunk) {
        match self.read_chunk(&chunk) {
            Ok(Some(loaded)) if !loaded.packets.is_empty() => return self.loaded.push(Reverse(loaded)),
            Ok(Some(loaded)) => return self.finish_chunk(loaded),
            Ok(None) => {}
            Err(error) => self.note(&error),
        }
        self.chunk_done(chunk.file);
    }

    fn read_chunk(&mut self, chunk: &WaitingChunk) -> io::Result<Option<LoadedChunk>> {
        let Some(open) = self.files.get(chunk.file).and_then(Option::as_ref) else { return Ok(None) };
        let too_long = || io::Error::new(io::ErrorKind::InvalidData, "a chunk is too long");
        if chunk.len.max(chunk.plain_len) > CHUNK_BYTES_MAX {
            return Err(too_long());
        }
        self.summary.chunks += 1;
        self.summary.bytes += chunk.len;
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(usize::try_from(chunk.len).map_err(|_| too_long())?, 0);
        let read = match &open.file {
            Some(file) => read_up_to(&self.medium, file, chunk.offset, &mut bytes)?,
            None => read_up_to(&self.medium, &self.medium.open(&open.name)?, chunk.offset, &mut bytes)?,
        };
        bytes.truncate(read);
        let mut plain = bytes;
        if !open.coding.is_plain() {
            let (coding, mut decoded) = (open.coding, self.spare.pop().unwrap_or_default());
            let mut rest = &plain[..];
            // A unit may be damaged or still being written. The commits confirm which packets are complete.
            while !rest.is_empty() {
                match self.decoder.unit(coding, rest, &mut decoded).or_else(|| next_unit(coding, rest)) {
                    Some(len) => rest = &rest[len..],
                    None => break,
                }
            }
            plain = decoded;
        }
        let (window, id) = (self.window, open.id);
        let interfaces = open.interfaces.len();
        let (packets, damaged) = packets_of(&plain, id, window, interfaces);
        let incomplete = u64::from((plain.len() as u64) < chunk.plain_len && !self.is_growing(chunk));
        self.summary.damaged += damaged + incomplete;
        Ok(Some(LoadedChunk { file: chunk.file, plain, packets, id }))
    }

    /// Whether the chunk ends where the file's readable part ended, so that its last commit may be incomplete.
    fn is_growing(&self, chunk: &WaitingChunk) -> bool {
        let open = self.files.get(chunk.file).and_then(Option::as_ref);
        open.is_some_and(|open| open.is_growing && chunk.offset + chunk.len == open.end)
    }
}
