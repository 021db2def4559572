//! Windows' trace files (`.etl`), converted to pcapng while they are read.
//!
//! `netsh trace` and Windows' packet capture write events of the provider Microsoft-Windows-NDIS-PacketCapture, `pktmon`
//! those of Microsoft-Windows-PktMon. `buffer` finds the events in the file's buffers, `packets` makes packets of
//! events, `output` sorts them by time and writes them.
//!
//! Invariants: memory is bounded, whatever lengths the file claims (`buffer::BUFFER_BYTES_MAX`,
//! `packets::PARTIAL_BYTES_MAX`, `output::HELD_BYTES_MAX`). What the trace lost, and what cannot be read as a packet, is
//! counted in the statistics of the first interface. A file that breaks off gives every packet before the break.

mod buffer;
mod bytes;
mod clock;
mod output;
mod packets;
#[cfg(test)]
mod tests;

use std::io::{self, Read};

use buffer::Buffer;
use clock::Clock;
use output::Output;
use packets::Packets;

/// Reads an ETL file as pcapng.
pub struct ToPcapng<R> {
    from: R,
    clock: Option<Clock>,
    packets: Packets,
    output: Output,
    buffer: Buffer,
    ready: Vec<u8>,
    at: usize,
    /// Why reading ended, unless at the end of the file.
    failure: Option<io::Error>,
    ended: bool,
}

impl<R: Read> ToPcapng<R> {
    /// Converts a file from its first byte on.
    pub fn new(from: R) -> Self {
        Self {
            from,
            clock: None,
            packets: Packets::default(),
            output: Output::default(),
            buffer: Buffer::default(),
            ready: Vec::new(),
            at: 0,
            failure: None,
            ended: false,
        }
    }

    /// Converts one buffer of the file.
    fn advance(&mut self) {
        match self.buffer.read(&mut self.from) {
            Ok(true) => {}
            Ok(false) => return self.finish(None),
            Err(error) => return self.finish(Some(error)),
        }
        let clock = match self.clock {
            Some(clock) => clock,
            None => match self.buffer.log_header() {
                Ok(header) => {
                    self.packets.lost = header.lost;
                    *self.clock.insert(header.clock)
                }
                Err(error) => return self.finish(Some(error)),
            },
        };
        self.packets.count_losses(self.buffer.flags());
        let processor = self.buffer.processor();
        for event in self.buffer.events() {
            match event {
                Some(event) => self.packets.take(&event, processor, clock, &mut self.output),
                None => self.packets.count_damaged(),
            }
        }
        self.output.write_old(&mut self.ready);
        if let Some(cut) = self.buffer.cut() {
            self.finish(Some(cut));
        }
    }

    fn finish(&mut self, failure: Option<io::Error>) {
        self.output.write_all(&mut self.ready);
        self.output.write_end(&self.packets.summary(), &mut self.ready);
        self.failure = failure;
        self.ended = true;
    }
}

impl<R: Read> Read for ToPcapng<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() {
            self.ready.clear();
            self.at = 0;
            if self.ended {
                return self.failure.take().map_or(Ok(0), Err);
            }
            self.advance();
        }
        let rest = self.ready.get(self.at..).unwrap_or_default();
        let bytes = rest.len().min(into.len());
        into[..bytes].copy_from_slice(&rest[..bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}

/// Returns whether a file that begins so is an ETL file. The format has no magic number: it begins with the size of its
/// buffers, and how much of the first one is used.
pub fn begins(start: &[u8]) -> bool {
    let (Some(size), Some(used)) = (bytes::u32_at(start, 0), bytes::u32_at(start, 4)) else { return false };
    size % 1024 == 0 && buffer::is_plausible(size) && used > buffer::HEADER_BYTES && used <= size
}
