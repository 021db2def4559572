//! The container format of a handover: a byte stream in files of bounded size. Each file has a header that identifies
//! it and checksums that prove it intact.
//!
//! ```text
//!  0  "retrocap"              48  random number of the stream (8)      72  CRC-32 of the bytes after the header
//!  8  format (4)              56  number of this file (4)              76  zeros
//! 12  bytes of the header (4) 60  1 in the last file (4)              124  CRC-32 of the header so far
//! 16  program version (32)    64  bytes after the header (8)          128  bytes of the stream
//! ```

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crc32fast::Hasher;

use base::codec::{Put, Take};

const MAGIC: [u8; 8] = *b"retrocap";
/// Format version. Increase it with every change to the format, here or in any part of the stream.
pub const FORMAT: u32 = 5;
const HEADER_BYTES: usize = 128;
const VERSION_BYTES: usize = 32;
/// Bytes per read or write.
const BUFFER_BYTES: usize = 256 << 10;
/// The most files of a stream; the reader refuses more.
pub const FILES_MAX: usize = 1024;

/// Provides the files of a stream that is written, and takes them when they are complete.
pub trait PartStore {
    /// The type of the files.
    type File: Write + Seek;

    /// Makes an empty file.
    ///
    /// # Errors
    ///
    /// If the system cannot provide one.
    fn make(&mut self) -> io::Result<Self::File>;

    /// Takes a complete file.
    ///
    /// # Errors
    ///
    /// If the file cannot be kept.
    fn keep(&mut self, file: Self::File) -> io::Result<()>;
}

/// The header of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    whole: u64,
    number: u32,
    last: bool,
    bytes: u64,
    checksum: u32,
}

impl Header {
    fn encode(&self) -> io::Result<Vec<u8>> {
        let mut version = [0; VERSION_BYTES];
        let text = env!("CARGO_PKG_VERSION").as_bytes();
        let len = text.len().min(VERSION_BYTES);
        version[..len].copy_from_slice(&text[..len]);
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.write_all(&MAGIC)?;
        out.put_u32(FORMAT)?;
        out.put_u32(u32::try_from(HEADER_BYTES).unwrap_or(0))?;
        out.write_all(&version)?;
        out.put_u64(self.whole)?;
        out.put_u32(self.number)?;
        out.put_u32(u32::from(self.last))?;
        out.put_u64(self.bytes)?;
        out.put_u32(self.checksum)?;
        out.resize(HEADER_BYTES - 4, 0);
        out.put_u32(crc32fast::hash(&out))?;
        Ok(out)
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HandoverError> {
        let mut rest = &bytes[..];
        let mut read = || -> io::Result<_> {
            let magic: [u8; 8] = rest.take_array()?;
            let format = rest.take_u32()?;
            let _ = rest.take_u32()?;
            let version: [u8; VERSION_BYTES] = rest.take_array()?;
            let (whole, number, last) = (rest.take_u64()?, rest.take_u32()?, rest.take_u32()?);
            Ok((
                magic,
                format,
                version,
                Self { whole, number, last: last == 1, bytes: rest.take_u64()?, checksum: rest.take_u32()? },
            ))
        };
        let Ok((magic, format, version, header)) = read() else { return Err(HandoverError::Damaged("a header")) };
        if magic != MAGIC {
            return Err(HandoverError::Foreign);
        }
        // Only format and version have a fixed place in every format, so check nothing else in the header of another
        // format.
        if format != FORMAT {
            let text = version.iter().take_while(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte));
            return Err(HandoverError::Format { format, version: text.collect() });
        }
        let (rest, checksum) = bytes.split_at(HEADER_BYTES - 4);
        if checksum != crc32fast::hash(rest).to_le_bytes() {
            return Err(HandoverError::Damaged("a header"));
        }
        Ok(header)
    }
}

/// Why a stream is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// The magic bytes are not those of a handover.
    #[error("it is not what a recorder leaves behind")]
    Foreign,
    /// The stream has another format version.
    #[error("it was left by retrocap {version} in format {format}, and this version reads format {FORMAT} alone")]
    Format {
        /// Format version of the stream.
        format: u32,
        /// Version of the program that wrote the stream.
        version: String,
    },
    /// A length or checksum does not match.
    #[error("it is damaged: {0} is not as it was written")]
    Damaged(&'static str),
    /// A file is missing, duplicate or from another stream, or there are too many.
    #[error("it is not whole: {0}")]
    Parts(&'static str),
    /// Another process could change the stream while it is read.
    #[error("it could be changed while it is read: {0}")]
    Unsealed(&'static str),
    /// Reading failed.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

impl From<io::Error> for HandoverError {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// Writes a stream into files.
pub struct Writer<S: PartStore> {
    shelf: S,
    whole: u64,
    file_bytes: u64,
    files: u32,
    bytes: u64,
    open: Option<OpenFile<S::File>>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct OpenFile<F> {
    file: F,
    bytes: u64,
    checksum: Hasher,
}

impl<S: PartStore> Writer<S> {
    /// Makes a writer of files of about `file_bytes` each. `whole` identifies the stream in each file's header.
    pub fn new(shelf: S, whole: u64, file_bytes: u64) -> Self {
        Self { shelf, whole, file_bytes, files: 0, bytes: 0, open: None, buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.bytes >= self.file_bytes) {
            self.close(false)?;
        }
        if self.open.is_none() {
            let mut file = self.shelf.make()?;
            file.write_all(&[0; HEADER_BYTES])?;
            self.open = Some(OpenFile { file, bytes: 0, checksum: Hasher::new() });
        }
        if let Some(open) = &mut self.open {
            open.file.write_all(&self.buffer)?;
            open.checksum.update(&self.buffer);
            open.bytes += self.buffer.len() as u64;
            self.bytes += self.buffer.len() as u64;
        }
        self.buffer.clear();
        Ok(())
    }

    fn close(&mut self, last: bool) -> io::Result<()> {
        let Some(OpenFile { mut file, bytes, checksum }) = self.open.take() else { return Ok(()) };
        let header = Header { whole: self.whole, number: self.files, last, bytes, checksum: checksum.finalize() };
        file.rewind()?;
        file.write_all(&header.encode()?)?;
        self.files += 1;
        self.shelf.keep(file)
    }

    /// Ends the stream. Returns the store, the number of files and the bytes of the stream.
    ///
    /// # Errors
    ///
    /// If the last file cannot be written or kept.
    pub fn finish(mut self) -> io::Result<(S, u32, u64)> {
        self.write_buffer()?;
        self.close(true)?;
        Ok((self.shelf, self.files, self.bytes))
    }
}

impl<S: PartStore> Write for Writer<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == BUFFER_BYTES {
            self.write_buffer()?;
        }
        let n = bytes.len().min(BUFFER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a stream that [`new`](Self::new) has verified. Each file is closed as soon as it has been read.
#[derive(Debug)]
pub struct Reader<F> {
    files: VecDeque<(F, u64)>,
    /// Bytes of the first file that have been read into the buffer.
    at: u64,
    buffer: Vec<u8>,
    taken: usize,
    bytes: u64,
}

impl<F: Read + Seek> Reader<F> {
    /// Verifies that the files, in any order, are one complete and intact stream.
    ///
    /// # Errors
    ///
    /// If they are not, or if reading fails.
    pub fn new(files: Vec<F>) -> Result<Self, HandoverError> {
        if files.len() > FILES_MAX {
            return Err(HandoverError::Parts("there are more parts than any recorder leaves"));
        }
        let mut parts = Vec::with_capacity(files.len());
        for mut file in files {
            let size = file.seek(SeekFrom::End(0))?;
            let mut bytes = [0; HEADER_BYTES];
            if size < HEADER_BYTES as u64 {
                return Err(HandoverError::Damaged("the length of a part"));
            }
            file.rewind()?;
            file.read_exact(&mut bytes)?;
            let header = Header::decode(&bytes)?;
            if header.bytes != size - HEADER_BYTES as u64 {
                return Err(HandoverError::Damaged("the length of a part"));
            }
            parts.push((header, file));
        }
        parts.sort_by_key(|(header, _)| header.number);
        if parts.windows(2).any(|pair| pair[0].0.whole != pair[1].0.whole) {
            return Err(HandoverError::Parts("the parts come from several recorders"));
        }
        if parts.windows(2).any(|pair| pair[0].0.number == pair[1].0.number) {
            return Err(HandoverError::Parts("a part occurs twice"));
        }
        let numbered = (0u32..).zip(&parts).all(|(number, (header, _))| header.number == number);
        let ends = (1..).zip(&parts).all(|(number, (header, _))| header.last == (number == parts.len()));
        if parts.is_empty() || !numbered || !ends {
            return Err(HandoverError::Parts("a part is missing"));
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut files = VecDeque::with_capacity(parts.len());
        let mut sum = 0u64;
        for (header, mut file) in parts {
            if checksum(&mut file, header.bytes, &mut buffer)? != header.checksum {
                return Err(HandoverError::Damaged("the content"));
            }
            file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
            sum = sum.saturating_add(header.bytes);
            files.push_back((file, header.bytes));
        }
        buffer.clear();
        Ok(Self { files, at: 0, buffer, taken: 0, bytes: sum })
    }

    /// Bytes of the stream, without headers.
    pub fn stream_bytes(&self) -> u64 {
        self.bytes
    }

    fn fill(&mut self) -> io::Result<()> {
        self.taken = 0;
        self.buffer.clear();
        while let Some((file, len)) = self.files.front_mut() {
            let n = usize::try_from(*len - self.at).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            if n == 0 {
                self.files.pop_front();
                self.at = 0;
                continue;
            }
            self.buffer.resize(n, 0);
            file.read_exact(&mut self.buffer)?;
            self.at += n as u64;
            break;
        }
        Ok(())
    }
}

/// The CRC-32 of the next `len` bytes of `file`.
fn checksum(file: &mut impl Read, len: u64, buffer: &mut [u8]) -> io::Result<u32> {
    let mut hasher = Hasher::new();
    let mut left = len;
    while left > 0 {
        let n = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact(&mut buffer[..n])?;
        hasher.update(&buffer[..n]);
        left -= n as u64;
    }
    Ok(hasher.finalize())
}

impl<F: Read + Seek> Read for Reader<F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len() {
            self.fill()?;
        }
        let n = out.len().min(self.buffer.len() - self.taken);
        out[..n].copy_from_slice(&self.buffer[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

impl<S: PartStore> std::fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("files", &self.files).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A store of files in memory.
    #[derive(Default)]
    struct FilesInMemory(Vec<Vec<u8>>);

    impl PartStore for FilesInMemory {
        type File = Cursor<Vec<u8>>;

        fn make(&mut self) -> io::Result<Self::File> {
            Ok(Cursor::default())
        }

        fn keep(&mut self, file: Self::File) -> io::Result<()> {
            self.0.push(file.into_inner());
            Ok(())
        }
    }

    fn written(whole: u64, content: &[u8]) -> Vec<Vec<u8>> {
        let mut writer = Writer::new(FilesInMemory::default(), whole, 300_000);
        writer.write_all(content).unwrap();
        writer.finish().unwrap().0.0
    }

    fn read(files: &[Vec<u8>]) -> Result<Vec<u8>, HandoverError> {
        let mut reader = Reader::new(files.iter().map(Cursor::new).collect())?;
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, reader.stream_bytes());
        Ok(content)
    }

    #[test]
    fn what_is_written_is_read_in_whatever_order_it_comes() {
        for len in [0usize, 1, 255 << 10, 256 << 10, 1_000_000, 2_000_003] {
            let content: Vec<u8> = (0..len).map(|i| (i % 251).to_le_bytes()[0]).collect();
            let mut files = written(7, &content);
            assert!(files.len() >= len / 600_000, "{} for {len}", files.len());
            assert!(files.iter().all(|file| file.len() < 900_000));
            files.reverse();
            assert_eq!(read(&files).unwrap(), content);
        }
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let content = vec![5; 1_000_000];
        let files = written(7, &content);
        for at in (0..HEADER_BYTES).chain([HEADER_BYTES, 100_000]) {
            for file in 0..files.len() {
                let mut changed = files.clone();
                changed[file][at] ^= 0x10;
                let refused = read(&changed).unwrap_err();
                match at {
                    0..8 => assert_eq!(refused, HandoverError::Foreign),
                    8..12 => assert!(
                        matches!(&refused, HandoverError::Format { version, .. } if version == env!("CARGO_PKG_VERSION"))
                    ),
                    _ => assert!(matches!(refused, HandoverError::Damaged(_)), "{at}: {refused}"),
                }
            }
        }
        let mut shorter = files.clone();
        shorter[1].pop();
        let mut longer = files.clone();
        longer[0].push(0);
        let mut stump = files.clone();
        stump[0].truncate(HEADER_BYTES - 1);
        for damaged in [shorter, longer, stump] {
            assert!(matches!(read(&damaged).unwrap_err(), HandoverError::Damaged(_)));
        }
    }

    #[test]
    fn parts_of_one_whole_and_all_of_them() {
        let files = written(7, &vec![5; 2_000_000]);
        assert!(files.len() > 2);
        for missing in 0..files.len() {
            let mut fewer = files.clone();
            fewer.remove(missing);
            assert!(matches!(read(&fewer).unwrap_err(), HandoverError::Parts(_)), "{missing}");
        }
        let twice = [&files[..], &files[..1]].concat();
        assert_eq!(read(&twice).unwrap_err(), HandoverError::Parts("a part occurs twice"));
        let others = [&files[..], &written(8, &[1])].concat();
        assert_eq!(read(&others).unwrap_err(), HandoverError::Parts("the parts come from several recorders"));
        assert!(matches!(read(&[]).unwrap_err(), HandoverError::Parts(_)));
    }
}
