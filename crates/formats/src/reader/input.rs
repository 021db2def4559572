//! The bytes of a capture on their way in: one buffer, reused, and the offset of its first byte in the input.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use base::source::SourceError;

/// Bytes that one read asks for, and the size of the buffer unless a record is larger: it stays in a core's own cache until
/// its packets were looked at.
const BUFFER_BYTES: usize = 256 << 10;
/// How long to wait before asking a reader again that has nothing and does not block.
const NOTHING_THERE_WAIT: Duration = Duration::from_millis(10);

pub(super) struct Input {
    reader: Box<dyn Read + Send>,
    /// What to call the input in an error.
    name: String,
    buffer: Vec<u8>,
    /// First byte of the buffer that was not consumed.
    start: usize,
    /// End of what was read.
    end: usize,
    /// Bytes of the input before `start`.
    offset: u64,
    /// Bytes still to throw away as they come.
    to_skip: u64,
}

/// What a read came to.
pub(super) enum ReadOutcome {
    Bytes,
    Nothing,
    End,
}

impl Input {
    pub(super) fn new(reader: Box<dyn Read + Send>, name: String) -> Self {
        Self { reader, name, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, offset: 0, to_skip: 0 }
    }

    /// What has come and was neither consumed nor skipped.
    pub(super) fn available(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Bytes of the input before the first available one.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes the buffer takes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Is done with the first `bytes` of the available ones.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Throws away the next `bytes`, which need not have come: nothing is available until they have.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.to_skip = bytes;
        self.skip_available();
    }

    /// Reads once, on the way to `wanted` bytes in one piece.
    ///
    /// The buffer grows only when it is full of one record, so a false length costs no memory.
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
