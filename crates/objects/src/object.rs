//! An object as it is reported.

use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::Sha256;
use streams::{PacketRef, Sender, Session};

/// Bounds of what hostile content may take.
#[derive(Clone, Copy, Debug)]
pub struct ObjectLimits {
    /// Bytes of one object.
    pub object_bytes: usize,
    /// Bytes of all objects that are being put together.
    pub total_bytes: usize,
    /// A decoder may make so many bytes out of one.
    pub ratio: usize,
    /// Mails within mails, archives within archives, and codings upon codings.
    pub depth: usize,
    /// Parts of one mail or archive.
    pub parts: usize,
    /// Objects in all.
    pub objects: u64,
}

impl Default for ObjectLimits {
    fn default() -> Self {
        Self { object_bytes: 64 << 20, total_bytes: 256 << 20, ratio: 100, depth: 3, parts: 1000, objects: 10_000 }
    }
}

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its number, from 1.
    pub number: u64,
    /// The object that it is a part of.
    pub part_of: Option<u64>,
    /// `http`, `smtp` and so on.
    pub protocol: &'static str,
    /// The claimed name: untrusted.
    pub name: String,
    /// The type that the content shows.
    pub mime: &'static str,
    /// The claimed type: untrusted.
    pub mime_declared: String,
    /// The claimed size.
    pub size_declared: Option<u64>,
    /// Where it came from: untrusted.
    pub source: String,
    /// Who sent it.
    pub sender: Sender,
    /// The packet in which it begins.
    pub packet: PacketRef,
    /// The offset in its stream at which it begins.
    pub offset: u64,
    /// Whether all of it is there.
    pub complete: bool,
    /// Of an archive: whether all of its parts were unpacked.
    pub unpacked: Option<bool>,
    /// Bytes that are known to be missing.
    pub missing_bytes: u64,
    /// Places and lengths of holes, which are zeros in `content`.
    pub holes: Vec<(u64, u64)>,
    /// Limits that were reached, and what could not be undone.
    pub notes: Vec<String>,
    /// The content.
    pub content: Vec<u8>,
    /// MD5, SHA-1 and SHA-256 of the content, in hexadecimal; empty until they are computed.
    pub hashes: [String; 3],
}

impl Object {
    /// A name for a file: its number, and the beginning of its hash.
    pub fn file_name(&self) -> String {
        let suffix = if self.complete { "bin" } else { "partial" };
        format!("{:05}-{}.{suffix}", self.number, self.hashes[2].get(..12).unwrap_or_default())
    }

    /// Whether all of its bytes are there, and all of its parts.
    pub fn is_whole(&self) -> bool {
        self.complete && self.unpacked != Some(false)
    }

    /// The same object without its content.
    pub(crate) fn without_content(&self) -> Self {
        Self {
            number: self.number,
            part_of: self.part_of,
            protocol: self.protocol,
            name: self.name.clone(),
            mime: self.mime,
            mime_declared: self.mime_declared.clone(),
            size_declared: self.size_declared,
            source: self.source.clone(),
            sender: self.sender,
            packet: self.packet,
            offset: self.offset,
            complete: self.complete,
            unpacked: self.unpacked,
            missing_bytes: self.missing_bytes,
            holes: self.holes.clone(),
            notes: self.notes.clone(),
            content: Vec::new(),
            hashes: Default::default(),
        }
    }

    /// Determines the type from the content.
    pub(crate) fn recognise(&mut self) {
        self.mime = mime(&self.content);
    }

    /// Computes the hashes, unless that was done.
    pub fn hash(&mut self) {
        if !self.hashes[0].is_empty() {
            return;
        }
        self.hashes =
            [hex(&Md5::digest(&self.content)), hex(&Sha1::digest(&self.content)), hex(&Sha256::digest(&self.content))];
    }
}

/// The receiver of objects.
pub trait ObjectSink {
    /// Whether objects come with their hashes. Otherwise, the receiver computes those that it needs.
    const HASHED: bool = true;

    /// Takes an object.
    fn object(&mut self, session: &Session, object: Object);
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The type that the content shows.
fn mime(content: &[u8]) -> &'static str {
    if content.is_empty() {
        return "application/x-empty";
    }
    if let Some(kind) = infer::get(content) {
        return kind.mime_type();
    }
    let start = &content[..content.len().min(1024)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The cut may have gone through a character.
        Err(error) if error.valid_up_to() + 4 > start.len() && error.valid_up_to() > 0 => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return "application/octet-stream",
    };
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}')) {
        return "application/octet-stream";
    }
    let trimmed = text.trim_start();
    if trimmed.starts_with('{') || trimmed.starts_with('[') {
        return "application/json";
    }
    "text/plain"
}
