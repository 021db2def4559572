//! Seals files: reads them, and lists their digests and packets.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::capture::Capture;
use crate::clock::ClockReading;
use crate::digest::{Digest, Hasher};
use crate::manifest::{FORMAT, FileEntry, Manifest, Sealed, is_below};
use crate::statement::Statement;
use base::time::Timestamp;

/// The user and program that seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealer {
    /// The name of the user.
    pub user: String,
    /// The number of the user.
    pub uid: u32,
    /// The name of the machine.
    pub host: String,
    /// The program and its version.
    pub program: String,
}

/// The reason why files cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file that is not below the directory of the manifest.
    #[error("{} is not below {}, the directory of the manifest: write the manifest beside the files", path.display(), directory.display())]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// The directory.
        directory: PathBuf,
    },
    /// A file that is named twice.
    #[error("{} is named twice", .0.display())]
    Twice(PathBuf),
}

/// Lists files for a manifest that will be in `directory`.
///
/// # Errors
///
/// [`SealError`].
pub fn seal(files: &[PathBuf], directory: &Path, by: Sealer) -> Result<Manifest, SealError> {
    let mut entries: Vec<FileEntry> = Vec::with_capacity(files.len());
    for path in files {
        let entry = entry(path, name_below(path, directory)?)?;
        if entries.iter().any(|known| known.name == entry.name) {
            return Err(SealError::Twice(path.clone()));
        }
        entries.push(entry);
    }
    let Sealer { user, uid, host, program } = by;
    let time = Timestamp::from(SystemTime::now()).to_rfc3339();
    let sealed = Sealed { time, user, uid, host, program, clock: ClockReading::now() };
    Ok(Manifest { retrocap_evidence: FORMAT, sealed, files: entries })
}

/// The name of a file relative to the directory of the manifest.
fn name_below(path: &Path, directory: &Path) -> Result<String, SealError> {
    let failed = |source| SealError::Io { path: path.to_owned(), source };
    let (whole, base) = (path.canonicalize().map_err(failed)?, directory.canonicalize().map_err(failed)?);
    let elsewhere = || SealError::Elsewhere { path: path.to_owned(), directory: directory.to_owned() };
    let name = whole.strip_prefix(&base).map_err(|_| elsewhere())?.to_str().ok_or_else(elsewhere)?;
    if is_below(name) { Ok(name.to_owned()) } else { Err(elsewhere()) }
}

/// Reads a file once, for its digest and its packets.
pub(crate) fn entry(path: &Path, name: String) -> Result<FileEntry, SealError> {
    let failed = |source| SealError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no regular file")));
    }
    let (capture, sha256, bytes) = read_once(file).map_err(failed)?;
    let statements = capture.iter().flat_map(|capture| Statement::among(&capture.comments)).collect();
    Ok(FileEntry { name, bytes, sha256, packets: capture.map(|capture| capture.packets), statements })
}

/// Reads a capture and computes its digest on the way.
fn read_once(file: File) -> std::io::Result<(Option<Capture>, Digest, u64)> {
    let state = Arc::new(Mutex::new((Hasher::default(), 0)));
    let reader = HashingReader { file: file.try_clone()?, state: Arc::clone(&state) };
    let capture = Capture::read(Box::new(reader))?;
    // The capture reader stops at damage; the digest covers the whole file.
    let mut rest = HashingReader { file, state: Arc::clone(&state) };
    std::io::copy(&mut rest, &mut std::io::sink())?;
    let (hasher, bytes) = state.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Damage at the first byte means that the file is not a capture.
    let is_capture = capture.packets.count > 0 || capture.packets.damage.is_none() || !capture.comments.is_empty();
    Ok((is_capture.then_some(capture), hasher.finish(), bytes))
}

struct HashingReader {
    file: File,
    state: Arc<Mutex<(Hasher, u64)>>,
}

impl Read for HashingReader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.file.read(into)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.update(&into[..bytes]);
        state.1 += bytes as u64;
        Ok(bytes)
    }
}
