//! Undoes content codings, within limits.

use std::io::Read;

use crate::object::ObjectLimits;

/// Output that is allowed whatever the ratio.
const FREE_BYTES: usize = 64 << 10;

/// What came out of a decoder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) content: Vec<u8>,
    /// Why it is not all; empty if it is.
    pub(crate) note: String,
}

/// Undoes one coding; `None` if its name is unknown, or `identity`.
pub(crate) fn undo(coding: &str, data: &[u8], limits: &ObjectLimits) -> Option<Decoded> {
    let most = limits.object_bytes.min(data.len().saturating_mul(limits.ratio).saturating_add(FREE_BYTES));
    Some(match coding {
        "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(data), most, coding),
        "deflate" => {
            let zlib = read(flate2::read::ZlibDecoder::new(data), most, coding);
            // Some servers send the bare stream, without the header of zlib.
            if zlib.content.is_empty() && !data.is_empty() {
                read(flate2::read::DeflateDecoder::new(data), most, coding)
            } else {
                zlib
            }
        }
        "br" => read(brotli_decompressor::Decompressor::new(data, 16 << 10), most, coding),
        "zstd" => match zstd::stream::read::Decoder::new(data) {
            Ok(mut decoder) => match decoder.window_log_max(26) {
                Ok(()) => read(decoder, most, coding),
                Err(error) => Decoded { content: Vec::new(), note: format!("{coding}: {error}") },
            },
            Err(error) => Decoded { content: Vec::new(), note: format!("{coding}: {error}") },
        },
        _ => return None,
    })
}

/// Reads at most `most` bytes. What was read before an error is kept.
fn read(mut from: impl Read, most: usize, coding: &str) -> Decoded {
    let mut content = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Decoded { content, note: String::new() },
            Ok(bytes) => {
                let bytes = bytes.min(most - content.len());
                content.extend_from_slice(&buffer[..bytes]);
                if content.len() == most {
                    return Decoded {
                        content,
                        note: format!("{coding}: expands beyond the limit; the rest is left out"),
                    };
                }
            }
            Err(error) => return Decoded { content, note: format!("{coding}: cannot be undone to the end: {error}") },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_stops_at_the_ratio() {
        let bomb = gzip(&vec![0; 200 << 20]);
        let limits = ObjectLimits::default();
        let decoded = undo("gzip", &bomb, &limits).unwrap();
        assert_eq!(decoded.content.len(), bomb.len() * 100 + FREE_BYTES);
        assert!(decoded.note.contains("beyond the limit"), "{}", decoded.note);
        let zstd = zstd::encode_all(&vec![0; 200 << 20][..], 3).unwrap();
        assert!(undo("zstd", &zstd, &limits).unwrap().content.len() <= zstd.len() * 100 + FREE_BYTES);
    }

    #[test]
    fn all_codings_come_back() {
        let limits = ObjectLimits::default();
        let plain = b"some text, and some more of the same text".repeat(20);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&plain).unwrap();
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        bare.write_all(&plain).unwrap();
        for (coding, data) in [
            ("gzip", gzip(&plain)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
            ("zstd", zstd::encode_all(&plain[..], 1).unwrap()),
        ] {
            assert_eq!(undo(coding, &data, &limits).unwrap(), Decoded { content: plain.clone(), note: String::new() });
            let cut = undo(coding, &data[..data.len() - 5], &limits).unwrap();
            assert!(!cut.note.is_empty() || cut.content != plain, "{coding}: what is cut is not taken for whole");
        }
        // "hello world" in brotli.
        let brotli = [0x0b, 0x05, 0x80, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x20, 0x77, 0x6f, 0x72, 0x6c, 0x64, 0x03];
        assert_eq!(undo("br", &brotli, &limits).unwrap().content, b"hello world");
        assert_eq!(undo("identity", b"x", &limits), None);
    }
}
