//! Converts Solaris' snoop format (RFC 1761) to pcap while it is read.

use std::io::{self, ErrorKind, Read};

pub(super) const MAGIC: &[u8] = b"snoop\0\0\0";

const VERSION: u32 = 2;
const FILE_HEADER_BYTES: usize = 16;
const RECORD_HEADER_BYTES: usize = 24;
/// Maximum bytes of a packet with its padding. A record that claims more is damaged.
const RECORD_BYTES_MAX: u32 = 16 << 20;

/// Reads as big-endian pcap with microsecond timestamps.
pub(super) struct ToPcap<R> {
    from: R,
    begun: bool,
    ready: Vec<u8>,
    at: usize,
}

impl<R: Read> ToPcap<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, begun: false, ready: Vec::new(), at: 0 }
    }

    /// Converts the file header or the next record into `ready`. Leaves `ready` empty at the end of the file.
    fn advance(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.at = 0;
        if !self.begun {
            self.begun = true;
            let mut header = [0; FILE_HEADER_BYTES];
            self.from.read_exact(&mut header).map_err(|_| damaged("snoop file ends within its header"))?;
            let [_, _, version, data_link] = words(&header);
            if version != VERSION {
                return Err(damaged(&format!("snoop version {version} is not known; version 2 is read")));
            }
            let link_type = link_type(data_link)?;
            self.put(&[0xa1b2_c3d4, 0x0002_0004, 0, 0, RECORD_BYTES_MAX, link_type]);
            return Ok(());
        }
        let mut header = [0; RECORD_HEADER_BYTES];
        if !read_or_end(&mut self.from, &mut header)? {
            return Ok(());
        }
        let [original, captured, record, _drops, seconds, micros] = words(&header);
        let rest = record.checked_sub(u32::try_from(RECORD_HEADER_BYTES).unwrap_or(u32::MAX));
        let Some(rest) = rest.filter(|rest| captured <= *rest && *rest <= RECORD_BYTES_MAX) else {
            return Err(damaged(&format!("snoop record of {record} bytes claims {captured} captured ones")));
        };
        self.put(&[seconds, micros, captured, original]);
        let begin = self.ready.len();
        let read = self.from.by_ref().take(u64::from(rest)).read_to_end(&mut self.ready)?;
        if (read as u64) < u64::from(captured) {
            return Err(damaged("snoop file ends within a packet"));
        }
        self.ready.truncate(begin + captured as usize);
        Ok(())
    }

    fn put(&mut self, words: &[u32]) {
        self.ready.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    }
}

impl<R: Read> Read for ToPcap<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() {
            self.advance()?;
        }
        let bytes = into.len().min(self.ready.len() - self.at);
        into[..bytes].copy_from_slice(&self.ready[self.at..self.at + bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}

/// Reads `N` big-endian `u32` words.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut chunks = bytes.chunks_exact(4);
    std::array::from_fn(|_| chunks.next().and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes))
}

/// Fills `into`. Returns false if the stream ends before the first byte.
fn read_or_end(from: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(damaged("snoop file ends within the header of a record")),
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The pcap link type (LINKTYPE_) of a snoop data link type, as libpcap maps it.
fn link_type(data_link: u32) -> io::Result<u32> {
    match data_link {
        // IEEE 802.3 and Ethernet.
        0 | 4 => Ok(1),
        // IEEE 802.5 token ring.
        2 => Ok(6),
        // FDDI.
        8 => Ok(10),
        // SunATM.
        18 => Ok(123),
        // IP over InfiniBand.
        26 => Ok(242),
        other => Err(damaged(&format!("snoop data link type {other} is not known; tshark may convert it"))),
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.to_owned())
}
