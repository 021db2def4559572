//! A file of the log that is read, encrypted or not.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use spool::encryption::{Keys, OVERHEAD_BYTES, Opener, PLAIN_BYTES_MAX};

/// Bytes that are read at once to verify a checksum.
const CHECKED_BYTES: usize = 64 << 10;
/// All records of an encrypted file have this length, except for the last one.
const RECORD_BYTES: u64 = (PLAIN_BYTES_MAX + OVERHEAD_BYTES) as u64;

/// Length of the content of an encrypted file.
pub(crate) fn plain_len(len: u64) -> u64 {
    let rest = (len % RECORD_BYTES).saturating_sub(OVERHEAD_BYTES as u64);
    len / RECORD_BYTES * PLAIN_BYTES_MAX as u64 + rest
}

/// The bytes of a file as they are on disk, from a position on.
#[derive(Clone, Debug)]
pub struct RawFile {
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) at: u64,
}

impl RawFile {
    /// The CRC-32 of all bytes.
    pub(crate) fn crc(&self) -> io::Result<u32> {
        let mut crc = crc32fast::Hasher::new();
        let mut reader = Self { at: 0, ..self.clone() };
        let mut bytes = vec![0; CHECKED_BYTES];
        loop {
            match reader.read(&mut bytes)? {
                0 => return Ok(crc.finalize()),
                read => crc.update(&bytes[..read]),
            }
        }
    }
}

impl Read for RawFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = rustix::io::pread(&self.file, out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A file that is read.
#[derive(Clone, Debug)]
pub struct OpenFile {
    pub(crate) raw: RawFile,
    /// Length of the content.
    pub(crate) len: u64,
    /// The keys, if the file is encrypted.
    pub(crate) keys: Option<Keys>,
}

impl Length for OpenFile {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for OpenFile {
    type T = ContentReader;

    fn get_read(&self, start: u64) -> Result<ContentReader, ParquetError> {
        Ok(match &self.keys {
            None => ContentReader::Plain(RawFile { at: start, ..self.raw.clone() }),
            Some(keys) => ContentReader::Encrypted(Box::new(RecordReader {
                raw: self.raw.clone(),
                opener: Opener::new(keys),
                at: start,
                record: None,
                plain: Vec::new(),
            })),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.saturating_add(length as u64) > self.len {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} lie behind the end")));
        }
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// Reads the content of a file from a position on.
#[derive(Debug)]
pub enum ContentReader {
    /// The content is what the file has.
    Plain(RawFile),
    /// The content is decrypted.
    Encrypted(Box<RecordReader>),
}

impl Read for ContentReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(out),
            Self::Encrypted(reader) => reader.read(out),
        }
    }
}

/// Decrypts the records of a file, one at a time.
#[derive(Debug)]
pub struct RecordReader {
    raw: RawFile,
    opener: Opener,
    /// Position in the content.
    at: u64,
    /// Number of the record whose content is in `plain`.
    record: Option<u64>,
    plain: Vec<u8>,
}

impl Read for RecordReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let number = self.at / PLAIN_BYTES_MAX as u64;
        if self.record != Some(number) {
            self.raw.at = number.saturating_mul(RECORD_BYTES);
            let mut sealed = Vec::new();
            self.raw.clone().take(RECORD_BYTES).read_to_end(&mut sealed)?;
            (self.record, self.plain) = (None, Vec::new());
            if sealed.is_empty() {
                return Ok(0);
            }
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("record {number} is damaged"));
            self.opener.record(&sealed, &mut self.plain).ok_or_else(damaged)?;
            self.record = Some(number);
        }
        let from = usize::try_from(self.at % PLAIN_BYTES_MAX as u64).unwrap_or(usize::MAX);
        let rest = self.plain.get(from..).unwrap_or_default();
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.at += len as u64;
        Ok(len)
    }
}
