//! Opens capture files: pcap, pcapng, snoop or Windows' ETL; plain or compressed with gzip, zstd or lz4; from a file, a FIFO or
//! standard input.
//!
//! The magic number decides the format, not the file name. Everything is streamed, so that memory holds only one
//! buffer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::Path;

use anyhow::Context as _;
use lz4_flex::frame::FrameDecoder;

mod snoop;

/// Bytes needed to identify a format.
const MAGIC_BYTES: usize = 8;

/// A decompressed stream of pcap or pcapng.
pub(crate) type Capture = Box<dyn Read + Send>;

/// Opens a capture file; `-` is standard input.
///
/// # Errors
///
/// When the file cannot be opened or its first bytes cannot be read. Reads report errors in the content later.
pub(crate) fn open(path: &Path) -> anyhow::Result<Capture> {
    if path == Path::new("-") {
        return recognise(Box::new(io::stdin()), "FILE").context("cannot read standard input");
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    recognise(Box::new(file), &path.display().to_string()).with_context(|| format!("cannot read {}", path.display()))
}

type Started = Chain<Cursor<Vec<u8>>, BufReader<Box<dyn Read + Send>>>;

/// Reads up to [`MAGIC_BYTES`] bytes. Returns them, and a reader that starts with them again.
fn start(from: Box<dyn Read + Send>) -> io::Result<(Vec<u8>, Started)> {
    let mut from = BufReader::with_capacity(256 << 10, from);
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    from.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic)?;
    Ok((magic.clone(), Cursor::new(magic).chain(from)))
}

fn recognise(from: Box<dyn Read + Send>, name: &str) -> io::Result<Capture> {
    let (magic, from) = start(from)?;
    if let Some((compression, program)) = not_read(&magic) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "it is compressed with {compression}, which retrocap does not read; try: {program} -dc {name} | retrocap get \
                 -r - ..."
            ),
        ));
    }
    let plain: Capture = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(from)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::new(from)?),
        [0x04, 0x22, 0x4d, 0x18, ..] => Box::new(Lz4Frames { frame: Some(FrameDecoder::new(from)) }),
        _ => return Ok(by_format(&magic, from)),
    };
    let (magic, plain) = start(plain)?;
    Ok(by_format(&magic, plain))
}

/// The name of a compression that is not read, and the program that decompresses it.
fn not_read(magic: &[u8]) -> Option<(&'static str, &'static str)> {
    match magic {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(("xz", "xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26] => Some(("bzip2", "bzip2")),
        _ => None,
    }
}

fn by_format(magic: &[u8], from: Started) -> Capture {
    if magic == snoop::MAGIC {
        Box::new(snoop::ToPcap::new(from))
    } else if formats::etl::begins(magic) {
        Box::new(formats::etl::ToPcapng::new(from))
    } else {
        Box::new(from)
    }
}

/// Reads concatenated lz4 frames, as `cat a.lz4 b.lz4` makes them. Each frame gets a new decoder, because the library's
/// decoder panics when a later frame has another block size.
struct Lz4Frames<R: Read> {
    frame: Option<FrameDecoder<R>>,
}

impl<R: BufRead> Read for Lz4Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(frame) = &mut self.frame {
            match frame.read(into)? {
                0 if into.is_empty() => return Ok(0),
                0 => {}
                bytes => return Ok(bytes),
            }
            let mut rest = match self.frame.take() {
                Some(frame) => frame.into_inner(),
                None => break,
            };
            if !rest.fill_buf()?.is_empty() {
                self.frame = Some(FrameDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn all(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        recognise(Box::new(Cursor::new(bytes)), "x.pcap")?.read_to_end(&mut read)?;
        Ok(read)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let (one, two) = (b"first part of a capture".repeat(5000), b"and the second".repeat(3000));
        for compress in [gzip, zstd, lz4] {
            assert_eq!(all(compress(&one)).unwrap(), one);
            assert_eq!(all([compress(&one), compress(&two)].concat()).unwrap(), [&one[..], &two].concat());
            let whole = compress(&one);
            assert!(all(whole[..whole.len() / 2].to_vec()).is_err(), "what is cut is not taken for whole");
        }
        for short in [&b""[..], b"\x1f", b"abc"] {
            assert_eq!(all(short.to_vec()).unwrap(), short);
        }
    }

    #[test]
    fn what_is_not_read_is_named_with_the_program_that_reads_it() {
        for (magic, program) in [(&b"\xfd7zXZ\0\0\x04"[..], "xz"), (b"BZh91AY&SY", "bzip2")] {
            let error = all(magic.to_vec()).unwrap_err().to_string();
            let advice = format!("try: {program} -dc x.pcap | retrocap get -r - ...");
            assert!(error.contains(program) && error.ends_with(&advice), "{error}");
        }
        // Bytes of another format that begin alike.
        assert_eq!(all(b"BZh9 is text".to_vec()).unwrap(), b"BZh9 is text");
    }

    #[test]
    fn etl_becomes_pcapng_or_says_why_not() {
        // The size of the buffer, and how much of it is used. The rest of the header says that it is compressed.
        let mut file = vec![0; 4096];
        file[..8].copy_from_slice(&[0, 16, 0, 0, 80, 0, 0, 0]);
        file[52] = 0x40;
        let error = all(file.clone()).unwrap_err().to_string();
        assert!(error.contains("pktmon etl2pcap"), "{error}");
        file[52] = 0;
        let error = all(gzip(&file)).unwrap_err().to_string();
        assert!(error.contains("no ETL file"), "{error}");
    }

    #[test]
    fn snoop_within_gzip_becomes_pcap() {
        let mut file = snoop::MAGIC.to_vec();
        file.extend([2u32, 4].iter().flat_map(|n| n.to_be_bytes()));
        file.extend([60u32, 3, 28, 0, 1_795_341_600, 7].iter().flat_map(|n| n.to_be_bytes()));
        file.extend(b"abc\0");
        let pcap = all(gzip(&file)).unwrap();
        assert_eq!(pcap[..4], 0xa1b2_c3d4_u32.to_be_bytes());
        assert_eq!(pcap[20..24], 1u32.to_be_bytes());
        assert_eq!(pcap[24..40], [1_795_341_600_u32, 7, 3, 60].map(u32::to_be_bytes).concat());
        assert_eq!(&pcap[40..], b"abc");
    }
}
