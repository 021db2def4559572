//! Unpacks archives and compressed files within limits: zip, tar, gzip and zstd.
//!
//! The limits hold for an object and all archives within it together: an archive of archives expands no further than one.

use std::io::{Cursor, Read};

use crate::object::ObjectLimits;

/// Output that is allowed whatever the ratio.
const FREE_BYTES: usize = 64 << 10;
/// Names of parts that a note lists.
const NAMED_MAX: usize = 3;
const MORE_PARTS: &str = "the archive has more parts than are unpacked";

/// A part of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ArchivePart {
    /// Untrusted.
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    /// Why it is not all; empty if it is.
    pub(crate) note: String,
}

/// What came out of an archive.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) parts: Vec<ArchivePart>,
    /// Limits that were reached, and parts that cannot be read: what is not unpacked.
    pub(crate) notes: Vec<String>,
}

/// What an object may still expand to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    parts: usize,
    bytes: usize,
}

impl Budget {
    /// For an object of so many bytes.
    pub(crate) fn new(bytes: usize, limits: &ObjectLimits) -> Self {
        let most = bytes.saturating_mul(limits.ratio).saturating_add(FREE_BYTES);
        Self { parts: limits.parts, bytes: most.min(limits.object_bytes) }
    }
}

/// A kind of archive, known by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    Zip,
    Tar,
    Gzip,
    Zstd,
    /// One that is not unpacked: its name.
    Other(&'static str),
}

impl ArchiveKind {
    pub(crate) fn of(content: &[u8]) -> Option<Self> {
        let starts = |magic: &[u8]| content.starts_with(magic);
        Some(match content {
            _ if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") => Self::Zip,
            _ if starts(&[0x1f, 0x8b, 8]) => Self::Gzip,
            _ if starts(&[0x28, 0xb5, 0x2f, 0xfd]) => Self::Zstd,
            _ if content.get(257..262) == Some(b"ustar") => Self::Tar,
            _ if starts(b"7z\xbc\xaf\x27\x1c") => Self::Other("7z"),
            _ if starts(b"Rar!\x1a\x07") => Self::Other("rar"),
            _ if starts(b"\xfd7zXZ\0") => Self::Other("xz"),
            _ if starts(b"BZh") && content.get(4..10) == Some(&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59]) => {
                Self::Other("bzip2")
            }
            _ if starts(b"MSCF\0\0\0\0") => Self::Other("cabinet"),
            _ => return None,
        })
    }
}

/// Unpacks an archive of this name.
pub(crate) fn unpack(kind: ArchiveKind, content: &[u8], name: &str, budget: &mut Budget) -> Unpacked {
    let mut unpacker = Unpacker { budget, unpacked: Unpacked::default(), unread: Vec::new() };
    match kind {
        ArchiveKind::Zip => unpacker.zip(content),
        ArchiveKind::Tar => unpacker.tar(content),
        ArchiveKind::Gzip => unpacker.single(name, &[".gz", ".tgz"], flate2::read::MultiGzDecoder::new(content)),
        ArchiveKind::Zstd => {
            let decoder = zstd::stream::read::Decoder::new(content).and_then(|mut decoder| {
                decoder.window_log_max(26)?;
                Ok(decoder)
            });
            match decoder {
                Ok(decoder) => unpacker.single(name, &[".zst"], decoder),
                Err(_) => unpacker.unread.push(name.to_owned()),
            }
        }
        ArchiveKind::Other(kind) => {
            unpacker.unpacked.notes.push(format!("archives of the kind {kind} are not unpacked"));
        }
    }
    unpacker.end()
}

struct Unpacker<'a> {
    budget: &'a mut Budget,
    unpacked: Unpacked,
    /// Parts that cannot be read: encrypted, damaged, or packed in an unknown way.
    unread: Vec<String>,
}

impl Unpacker<'_> {
    fn zip(&mut self, content: &[u8]) {
        let Ok(mut archive) = zip::ZipArchive::new(Cursor::new(content)) else {
            self.unpacked.notes.push("the archive has no directory that can be read, and is not unpacked".to_owned());
            return;
        };
        for number in 0..archive.len() {
            let name: String = archive.name_for_index(number).and_then(Result::ok).map(Into::into).unwrap_or_default();
            let Ok(part) = archive.by_index(number) else {
                self.unread.push(name);
                if self.unread.len() > self.budget.parts {
                    self.unpacked.notes.push(MORE_PARTS.to_owned());
                    return;
                }
                continue;
            };
            if part.is_file() && !self.add(name, part) {
                return;
            }
        }
    }

    fn tar(&mut self, content: &[u8]) {
        let mut archive = tar::Archive::new(Cursor::new(content));
        let Ok(entries) = archive.entries() else {
            self.unread.push("the first header".to_owned());
            return;
        };
        for entry in entries {
            let Ok(entry) = entry else {
                self.unread.push("what follows a damaged header".to_owned());
                return;
            };
            let kind = entry.header().entry_type();
            let name = || String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            // A sparse member comes out with its holes, which are zeros.
            if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
                if !self.add(name(), entry) {
                    return;
                }
            } else if !has_no_content(kind) {
                self.unread.push(name());
            }
        }
    }

    /// The one part of a compressed file.
    fn single(&mut self, name: &str, endings: &[&str], from: impl Read) {
        let stem = endings.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned();
        self.add(stem, from);
    }

    /// Reads a part. Returns whether further ones may be read.
    fn add(&mut self, name: String, mut from: impl Read) -> bool {
        if self.budget.parts == 0 {
            self.unpacked.notes.push(MORE_PARTS.to_owned());
            return false;
        }
        self.budget.parts -= 1;
        let mut content = Vec::new();
        // One byte more shows that there is more.
        let read = from.by_ref().take(self.budget.bytes as u64 + 1).read_to_end(&mut content);
        let is_beyond = content.len() > self.budget.bytes;
        content.truncate(self.budget.bytes);
        self.budget.bytes -= content.len();
        if let (true, Err(error)) = (content.is_empty(), &read) {
            self.unread.push(format!("{name} ({error})"));
            return true;
        }
        let note = match read {
            _ if is_beyond => "expands beyond the limit; the rest is left out".to_owned(),
            Ok(_) => String::new(),
            Err(error) => format!("cannot be unpacked to the end: {error}"),
        };
        if is_beyond {
            self.unpacked.notes.push("the archive expands beyond the limit; the rest is not unpacked".to_owned());
        }
        if content.is_empty() && is_beyond {
            // Nothing of it can be listed.
            return false;
        }
        if !note.is_empty() && !is_beyond {
            self.unpacked.notes.push(format!("{}: {note}", short(&name)));
        }
        self.unpacked.parts.push(ArchivePart { name, content, note });
        !is_beyond
    }

    fn end(mut self) -> Unpacked {
        if !self.unread.is_empty() {
            let named = self.unread.iter().take(NAMED_MAX).map(|name| short(name));
            let (named, count) = (named.collect::<Vec<_>>().join(", "), self.unread.len());
            self.unpacked.notes.push(format!(
                "parts that cannot be unpacked (encrypted, damaged, or of an unknown kind): {count}: {named}"
            ));
        }
        self.unpacked
    }
}

/// The start of a name.
fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Whether a member of a tar archive stands for no bytes: a folder, a link, a device, or a header for others.
fn has_no_content(kind: tar::EntryType) -> bool {
    kind.is_dir()
        || kind.is_symlink()
        || kind.is_hard_link()
        || kind.is_character_special()
        || kind.is_block_special()
        || kind.is_fifo()
        || kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_global_extensions()
        || kind.is_pax_local_extensions()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn zip_of(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in parts {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn unpacked(content: &[u8], name: &str) -> Unpacked {
        let mut budget = Budget::new(content.len(), &ObjectLimits::default());
        unpack(ArchiveKind::of(content).unwrap(), content, name, &mut budget)
    }

    #[test]
    fn parts_come_out_of_each_kind() {
        let zip = zip_of(&[("../evil", b"one"), ("b/c.txt", b"two")]);
        let names = |unpacked: &Unpacked| -> Vec<(String, Vec<u8>)> {
            unpacked.parts.iter().map(|part| (part.name.clone(), part.content.clone())).collect()
        };
        let expected = [("../evil".to_owned(), b"one".to_vec()), ("b/c.txt".to_owned(), b"two".to_vec())];
        assert_eq!(names(&unpacked(&zip, "x.zip")), expected);
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in [("a", &b"one"[..]), ("b/c.txt", b"two")] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append_data(&mut header, name, content).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        assert_eq!(names(&unpacked(&tar, "x.tar"))[1], expected[1]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"plain").unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(names(&unpacked(&gzip, "x.gz")), [("x".to_owned(), b"plain".to_vec())]);
        let zstd = zstd::encode_all(&b"plain"[..], 1).unwrap();
        assert_eq!(names(&unpacked(&zstd, "x.zst")), [("x".to_owned(), b"plain".to_vec())]);
        let cut = unpacked(&gzip[..gzip.len() - 4], "x.gz");
        assert!(!cut.parts[0].note.is_empty(), "what is cut is not taken for whole");
        assert!(unpacked(b"7z\xbc\xaf\x27\x1c....", "x.7z").notes[0].contains("7z"));
        assert!(unpacked(&zip[..zip.len() - 30], "x.zip").notes[0].contains("directory"));
    }

    #[test]
    fn what_is_not_unpacked_is_named() {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, kind) in [("plain", b'0'), ("contiguous", b'7'), ("folder/", b'5'), ("odd", b'Q')] {
            let content = if kind == b'5' { &b""[..] } else { b"content" };
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_cksum();
            tar.append_data(&mut header, name, content).unwrap();
        }
        let out = unpacked(&tar.into_inner().unwrap(), "x.tar");
        let names: Vec<&str> = out.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["plain", "contiguous"]);
        assert!(out.notes.len() == 1 && out.notes[0].ends_with(": 1: odd"), "{:?}", out.notes);
        // A part that cannot be read from its first byte on.
        let mut zip = zip_of(&[("first", b"one"), ("second", &b"two and more".repeat(9))]);
        let at = zip.windows(6).position(|bytes| bytes == b"second").unwrap() + 6;
        zip[at..at + 8].fill(0xff);
        let out = unpacked(&zip, "x.zip");
        let named = out.parts.len() == 1 || !out.parts[1].note.is_empty();
        assert!(named && out.notes.iter().any(|note| note.contains("second")), "{:?} {:?}", out.parts.len(), out.notes);
    }

    #[test]
    fn a_sparse_member_comes_out_with_its_holes() {
        let folder = std::env::temp_dir().join(format!("retrocap-sparse-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = std::fs::File::create(folder.join("sparse")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"needle", 1 << 20).unwrap();
        let made = std::process::Command::new("tar")
            .args(["--format=gnu", "-S", "-cf", "-", "-C"])
            .arg(&folder)
            .arg("sparse")
            .output();
        std::fs::remove_dir_all(&folder).unwrap();
        let Ok(made) = made else {
            eprintln!("SKIPPED: a_sparse_member_comes_out_with_its_holes: tar is not installed");
            return;
        };
        let out = unpacked(&made.stdout, "x.tar");
        // The ratio bounds what an archive of ten blocks expands to.
        let content = &out.parts[0].content;
        assert!(content.ends_with(b"needle") || !out.parts[0].note.is_empty(), "{} {:?}", content.len(), out.notes);
        assert!(content.len() > 64 << 10 && content[..1 << 10].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_bomb_stops_at_the_limit_and_says_so() {
        let zeros = vec![0; 100 << 20];
        let bomb = zip_of(&[("a", &zeros), ("b", &zeros)]);
        let out = unpacked(&bomb, "x.zip");
        let bytes: usize = out.parts.iter().map(|part| part.content.len()).sum();
        assert!(bytes <= 64 << 20 && bytes <= bomb.len() * 100 + FREE_BYTES, "{bytes}");
        assert!(out.notes[0].contains("beyond the limit") && !out.parts[0].note.is_empty(), "{:?}", out.notes);
        let names: Vec<String> = (0..1500).map(|number| number.to_string()).collect();
        let many = zip_of(&names.iter().map(|name| (name.as_str(), &b"x"[..])).collect::<Vec<_>>());
        let out = unpacked(&many, "x.zip");
        assert_eq!(out.parts.len(), 1000);
        assert!(out.notes[0].contains("more parts"), "{:?}", out.notes);
    }
}
