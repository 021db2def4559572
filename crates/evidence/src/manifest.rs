//! The manifest: what was sealed, when, and by whom. It is a JSON file; its signature covers the exact bytes.

use serde::{Deserialize, Serialize};

use crate::capture::Packets;
use crate::clock::ClockReading;
use crate::digest::Digest;
use crate::statement::Statement;

/// The format of [`Manifest`].
pub const FORMAT: u32 = 1;
/// Maximum size of a manifest, in bytes.
pub const BYTES_MAX: u64 = 64 << 20;

/// The list of sealed files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of this document.
    pub retrocap_evidence: u32,
    /// The act of sealing.
    pub sealed: Sealed,
    /// The files.
    pub files: Vec<FileEntry>,
}

/// Who sealed the files, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The time of the machine that sealed them.
    pub time: String,
    /// The name of the user.
    pub user: String,
    /// The number of the user.
    pub uid: u32,
    /// The name of the machine.
    pub host: String,
    /// The program.
    pub program: String,
    /// The state of the machine's clock.
    pub clock: ClockReading,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name, relative to the manifest.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its digest, as `sha256sum` prints it.
    pub sha256: Digest,
    /// Its packets, if it is a capture.
    pub packets: Option<Packets>,
    /// The recorder's statement in the file.
    pub statements: Vec<Statement>,
}

/// The reason why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a manifest.
    #[error("it is not a manifest of `retrocap evidence seal`: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A manifest of another version.
    #[error("its format is {0}, and this program reads format {FORMAT}: use a newer retrocap")]
    Format(u32),
    /// A file name that leads out of the directory.
    #[error("it names the file {0:?}, which is not below its own directory")]
    Name(String),
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// [`ManifestError`].
    pub fn read(text: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(text)?;
        if manifest.retrocap_evidence != FORMAT {
            return Err(ManifestError::Format(manifest.retrocap_evidence));
        }
        match manifest.files.iter().find(|file| !is_below(&file.name)) {
            Some(file) => Err(ManifestError::Name(file.name.clone())),
            None => Ok(manifest),
        }
    }

    /// Its text, which a signature covers.
    pub fn text(&self) -> String {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{}\n", base::foreign::json_document(&text))
    }
}

/// Whether a relative path stays below its directory.
pub fn is_below(name: &str) -> bool {
    use std::path::Component;
    let mut parts = std::path::Path::new(name).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}
