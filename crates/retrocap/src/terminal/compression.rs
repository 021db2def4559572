//! Compression of exports, chosen by the extension of the file name.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::Usage;

/// An encoder. Each writes one gzip member, or one zstd or lz4 frame, because Wireshark reads only the first frame of a
/// file.
pub(super) enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
}

/// Whether the name asks for compression.
pub(crate) fn is_compressed(path: &Path) -> bool {
    extension(path).is_some_and(|extension| matches!(&*extension, "gz" | "zst" | "zstd" | "lz4"))
}

/// The name without the extension of a compression.
pub(crate) fn without_compression(path: &Path) -> PathBuf {
    if is_compressed(path) { path.with_extension("") } else { path.to_owned() }
}

fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

impl Encoder {
    /// The encoder for a file name that ends in `.gz`, `.zst` or `.lz4`; `None` for other names.
    ///
    /// # Errors
    ///
    /// [`Usage`] for an extension of a compression that is not written.
    pub(super) fn of(path: &Path) -> anyhow::Result<Option<Self>> {
        let extension = extension(path).unwrap_or_default();
        Ok(Some(match &*extension {
            "gz" => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast())),
            "zst" | "zstd" => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
            "lz4" => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(Vec::new()))),
            "xz" | "bz2" | "br" | "lzma" | "zip" | "7z" | "z" => {
                return Err(Usage::of(format_args!(
                    "{}: retrocap does not write .{extension}; try a name that ends in .gz, .zst or .lz4",
                    path.display()
                )));
            }
            _ => return Ok(None),
        }))
    }

    /// Compresses `bytes`, and returns what is ready to be written.
    pub(super) fn encode(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes).map(|()| std::mem::take(encoder.get_mut())),
            Self::Zstd(encoder) => encoder.write_all(bytes).map(|()| std::mem::take(encoder.get_mut())),
            Self::Lz4(encoder) => encoder.write_all(bytes).map(|()| std::mem::take(encoder.get_mut())),
        }
    }

    /// Ends the file, and returns its last bytes.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
            Self::Lz4(_) => "Lz4",
        })
    }
}
