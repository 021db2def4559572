//! Input buffer of a capture: one reused buffer, and the offset of its first byte in the input.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use base::source::SourceError;

/// The size in bytes of the buffer, and so of a read, unless a record is larger. It fits the cache of one core, so that
/// packets stay in that cache until they are processed.
const BUFFER_BYTES: usize = 256 << 10;
/// The delay before the next read after a non-blocking reader had no data.
const NOTHING_THERE_WAIT: Duration = Duration::from_millis(10);

pub(super) struct Input {
    reader: Box<dyn Read + Send>,
    /// The name of the input in error messages.
    name: String,
    buffer: Vec<u8>,
    /// Index of the first byte in the buffer that is not consumed.
    start: usize,
    /// Index after the last byte that was read.
    end: usize,
    /// Offset of `start` in the input, in bytes.
    offset: u64,
    /// The number of bytes still to skip when they arrive.
    to_skip: u64,
}

/// The result of a read.
pub(super) enum ReadOutcome {
    Bytes,
    Nothing,
    End,
}

impl Input {
    pub(super) fn new(reader: Box<dyn Read + Send>, name: String) -> Self {
        Self { reader, name, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, offset: 0, to_skip: 0 }
    }

    /// Returns the bytes that were read and neither consumed nor skipped.
    pub(super) fn available(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Returns the offset in the input of the first available byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the size of the buffer in bytes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Releases the first `bytes` available bytes.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Skips the next `bytes` bytes, including those not read yet. No bytes are available until all are skipped.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.to_skip = bytes;
        self.skip_available();
    }

    /// Reads once. `wanted` is the number of contiguous bytes that the parser needs.
    ///
    /// The buffer grows only when one record fills it, so a false length field allocates no memory.
    pub(super) fn read(&mut self, wanted: usize) -> Result<ReadOutcome, SourceError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            debug_assert!(wanted > self.end, "a parser that has what it wanted goes on");
            self.buffer.resize((self.end * 2).min(wanted.max(self.end + 1)), 0);
        }
        match self.reader.read(&mut self.buffer[self.end..]) {
            Ok(0) => Ok(ReadOutcome::End),
            Ok(bytes) => {
                self.end += bytes;
                self.skip_available();
                Ok(ReadOutcome::Bytes)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => {
                    std::thread::sleep(NOTHING_THERE_WAIT);
                    Ok(ReadOutcome::Nothing)
                }
                ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(ReadOutcome::Nothing),
                _ => {
                    let read = self.offset + self.available().len() as u64;
                    Err(SourceError::Io { context: format!("reading {} after {read} bytes", self.name), source: error })
                }
            },
        }
    }

    fn skip_available(&mut self) {
        let here = self.available().len();
        let bytes = usize::try_from(self.to_skip).map_or(here, |skip| skip.min(here));
        self.consume(bytes);
        self.to_skip -= bytes as u64;
    }
}
