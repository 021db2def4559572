//! Writes one file: packets and commits, then the index.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::coding::Encoder;
use crate::index::Builder;
use crate::layout::{self, CHUNK_BYTES, Commit, Footer, Header, Section};
use crate::medium::Medium;
use base::interface::Interface;
use base::packet::Packet;
use formats::writer::pcapng::Writer;
use formats::writer::{InterfaceStatistics, Options};

/// Alignment of writes, except at a sync, so that the medium can bypass the page cache.
pub const ALIGNMENT: u64 = 4096;

/// The part of an unsealed file that readers see.
#[derive(Debug, Default)]
pub struct UnsealedContent {
    /// Chunks, interfaces and keys so far.
    pub index: Builder,
    /// Bytes that the medium has written; chunks may reach beyond them.
    pub written: u64,
}

/// An unsealed file, shared between its writer and readers.
#[derive(Debug, Default)]
pub struct UnsealedFile {
    /// What the file says of itself.
    pub header: Header,
    growing: Mutex<UnsealedContent>,
}

impl UnsealedFile {
    /// A file to which nothing more is written.
    pub fn complete(header: Header, index: Builder, written: u64) -> Self {
        Self { header, growing: Mutex::new(UnsealedContent { index, written }) }
    }

    /// Name of the file.
    pub fn name(&self) -> String {
        layout::file_name(self.header.id.counter, self.header.band, self.header.coding)
    }

    /// Locks the state; the writer waits while the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, UnsealedContent> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer of one file.
#[derive(Debug)]
pub struct FileWriter<M: Medium> {
    file: M::File,
    shared: Arc<UnsealedFile>,
    pcapng: Writer,
    encoder: Encoder,
    /// Plain bytes since the last commit.
    plain: Vec<u8>,
    /// Bytes that the medium has not written yet.
    out: Vec<u8>,
    /// Bytes that the medium has taken.
    written: u64,
    /// Bytes before compression.
    plain_bytes: u64,
    commit: Commit,
    /// Interfaces described so far.
    interfaces: u32,
    /// Packets that are durable.
    synced_packets: u64,
    synced_bytes: u64,
    packets: u64,
    statistics: Vec<(InterfaceStatistics, u64)>,
    /// Set once the end of the file is in `out`.
    footer: Option<Footer>,
}

impl<M: Medium> FileWriter<M> {
    /// Creates the file. Nothing is durable before [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// If the medium cannot create it.
    pub fn create(medium: &M, header: Header, level: u8, comments: &[String]) -> io::Result<Self> {
        // Before the file exists: without a key there must be none.
        let encoder = Encoder::new(header.coding, level, medium.keys())?;
        let name = layout::file_name(header.id.counter, header.band, header.coding);
        let file = medium.create(&name)?;
        let mut writer = Self {
            file,
            shared: Arc::new(UnsealedFile { header, growing: Mutex::default() }),
            pcapng: Writer::new(Options::default()),
            encoder,
            plain: Vec::with_capacity(CHUNK_BYTES + (8 << 10)),
            out: Vec::new(),
            written: 0,
            plain_bytes: 0,
            commit: Commit { id: header.id, ..Commit::default() },
            interfaces: 0,
            synced_packets: 0,
            synced_bytes: 0,
            packets: 0,
            statistics: Vec::new(),
            footer: None,
        };
        writer.pcapng.begin(&mut writer.plain, comments);
        header.put(&mut writer.plain);
        writer.commit();
        Ok(writer)
    }

    /// The state that readers share.
    pub fn shared(&self) -> &Arc<UnsealedFile> {
        &self.shared
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.shared.header
    }

    /// Bytes of the file, once all are written.
    pub fn len(&self) -> u64 {
        self.written + self.out.len() as u64
    }

    /// Bytes that the medium has taken.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether the file has no packets.
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Packets that are not durable yet.
    pub fn unsynced_packets(&self) -> u64 {
        self.packets - self.synced_packets
    }

    /// Bytes that the last sync made durable.
    pub fn synced_bytes(&self) -> u64 {
        self.synced_bytes
    }

    /// Whether the index is full, so that the file must be sealed.
    pub fn is_full(&self, keys_max: usize) -> bool {
        self.shared.lock().index.is_full(keys_max)
    }

    /// Adds a packet.
    pub fn put(&mut self, interface: &Interface, packet: &Packet<'_>) {
        let described = self.plain.len();
        self.pcapng.interface(&mut self.plain, interface);
        let mut growing = self.shared.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.plain.len() > described {
            growing.index.interface(&self.plain[described..]);
            self.interfaces += 1;
        }
        growing.index.packet(packet.time, packet.link_type, packet.data);
        drop(growing);
        self.pcapng.packet(&mut self.plain, interface, packet);
        self.packets += 1;
        self.commit.packets += 1;
        let (oldest, newest) = self.commit.times.unwrap_or((packet.time, packet.time));
        self.commit.times = Some((oldest.min(packet.time), newest.max(packet.time)));
        self.count(packet);
        if self.plain.len() >= CHUNK_BYTES {
            self.commit();
        }
    }

    fn count(&mut self, packet: &Packet<'_>) {
        let found = self.statistics.iter_mut().find(|(statistics, _)| statistics.interface == packet.interface);
        let (statistics, packets) = match found {
            Some(found) => found,
            None => {
                self.statistics.push((InterfaceStatistics::of(packet.interface), 0));
                let Some(last) = self.statistics.last_mut() else { return };
                last
            }
        };
        *packets += 1;
        statistics.delivered = Some(*packets);
        statistics.start = Some(statistics.start.map_or(packet.time, |start| start.min(packet.time)));
        statistics.end = Some(statistics.end.map_or(packet.time, |end| end.max(packet.time)));
    }

    /// Confirms the packets so far, so that readers see them once they are written.
    pub fn commit(&mut self) {
        if self.plain.is_empty() {
            return;
        }
        self.commit.len = u32::try_from(self.plain.len()).unwrap_or(u32::MAX);
        self.commit.crc = crc32fast::hash(&self.plain);
        self.commit.put(&mut self.plain);
        let number = self.commit.number.wrapping_add(1);
        self.commit = Commit { id: self.commit.id, number, interfaces: self.interfaces, ..Commit::default() };
        let (offset, before) = (self.len(), self.out.len());
        self.encoder.put(&mut self.out, &self.plain);
        let len = (self.out.len() - before) as u64;
        let plain_len = self.plain.len() as u64;
        self.plain_bytes += plain_len;
        self.plain.clear();
        let mut growing = self.shared.lock();
        growing.index.commit(offset, len, plain_len);
        if growing.index.open_bytes() >= CHUNK_BYTES as u64 {
            growing.index.close_chunk();
        }
    }

    /// Whether too many bytes wait for the medium, so that no further packet should be added.
    pub fn is_behind(&self) -> bool {
        self.out.len() >= 2 * CHUNK_BYTES
    }

    /// Writes whole aligned blocks. Bytes that the medium did not write are kept, and can be written again.
    ///
    /// # Errors
    ///
    /// If the medium does not take them.
    pub fn write(&mut self, medium: &M) -> io::Result<()> {
        let end = self.len() / ALIGNMENT * ALIGNMENT;
        let Some(whole) = end.checked_sub(self.written).and_then(|len| usize::try_from(len).ok()) else {
            return Ok(());
        };
        self.write_some(medium, whole)
    }

    fn write_some(&mut self, medium: &M, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        medium.append(&mut self.file, self.written, &self.out[..len])?;
        self.out.drain(..len);
        self.written += len as u64;
        self.shared.lock().written = self.written;
        Ok(())
    }

    /// Commits and writes everything.
    ///
    /// # Errors
    ///
    /// If the medium does not take all bytes. They can be written again.
    pub fn flush(&mut self, medium: &M) -> io::Result<()> {
        self.commit();
        self.write_some(medium, self.out.len())
    }

    /// Makes all flushed bytes durable. After an error the file must be abandoned.
    ///
    /// # Errors
    ///
    /// If it is not certain that the bytes are durable.
    pub fn sync(&mut self, medium: &M) -> io::Result<()> {
        debug_assert!(self.plain.is_empty() && self.out.is_empty(), "not flushed");
        medium.sync(&self.file)?;
        self.synced_packets = self.packets;
        self.synced_bytes = self.written;
        Ok(())
    }

    /// Cuts off bytes that are not durable, so that no packet that is written again is there twice.
    ///
    /// # Errors
    ///
    /// If the medium cannot shorten the file.
    pub fn cut_to_synced(&mut self, medium: &M) -> io::Result<()> {
        medium.truncate(&self.file, self.synced_bytes)
    }

    /// Writes the statistics, the index and the footer. Returns the footer and the length of the file. The caller must
    /// sync the file afterwards.
    ///
    /// # Errors
    ///
    /// If the medium does not write all bytes. The caller may then call this again.
    pub fn seal(&mut self, medium: &M) -> io::Result<(Footer, u64)> {
        let footer = match self.footer {
            Some(footer) => footer,
            None => {
                let statistics: Vec<InterfaceStatistics> = self.statistics.iter().map(|(one, _)| *one).collect();
                self.pcapng.end(&mut self.plain, &statistics, &[]);
                self.statistics.clear();
                self.commit();
                let data_bytes = self.len();
                let (header, plain_bytes) = (self.shared.header, self.plain_bytes);
                let footer = Footer { header, data_bytes, plain_bytes, ..Footer::default() };
                // Readers need the index until the catalogue has the sealed file.
                let index = self.shared.lock().index.clone();
                *self.footer.insert(End { footer, index }.put(&mut self.out, data_bytes, &mut self.encoder))
            }
        };
        self.write_some(medium, self.out.len())?;
        Ok((footer, self.written))
    }
}

/// The end of a file: its index and footer.
#[derive(Debug)]
pub struct End {
    /// The footer, without the fields that depend on the index.
    pub footer: Footer,
    /// The index.
    pub index: Builder,
}

impl End {
    /// Appends index and footer, which begin at `offset` in the file.
    pub fn put(self, out: &mut Vec<u8>, offset: u64, encoder: &mut Encoder) -> Footer {
        let Self { mut footer, index } = self;
        let start = out.len();
        footer.packets = index.packets();
        footer.captured_bytes = index.captured_bytes();
        footer.times = index.times();
        footer.chunks = u32::try_from(index.chunks().count()).unwrap_or(u32::MAX);
        let (sections, sessions) = index.finish();
        footer.sessions = sessions;
        let mut block = Vec::new();
        for (number, payload) in sections.iter().enumerate() {
            block.clear();
            let crc = layout::put_section(&mut block, number, payload);
            let before = out.len();
            encoder.put(out, &block);
            footer.sections[number] = Section {
                offset: offset + (before - start) as u64,
                len: (out.len() - before) as u64,
                payload_len: payload.len() as u64,
                crc,
            };
        }
        block.clear();
        footer.put(&mut block);
        encoder.put_end(out, &block);
        footer
    }
}
