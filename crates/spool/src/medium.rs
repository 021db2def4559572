//! The storage under a spool: one directory of files.
//!
//! The spool knows the operating system through this trait alone. `directory` implements it with files; the simulator
//! in `tests/` implements it with a disk that tears, reorders and loses writes.
//!
//! The spool assumes only this of a medium:
//!
//! - Bytes that were written before a successful [`Medium::sync`] of their file survive a crash.
//! - A name survives a crash once [`Medium::sync_names`] has succeeded.
//! - Bytes that were written since the last sync can survive in full, in part, in any order, or not at all.
//! - After a failed sync, the bytes written since the last successful sync are in an unknown state.

use std::io;

use crate::encryption::Keys;
use crate::timings::Timings;

/// Size and free space of the file system that holds the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size of the file system, in bytes.
    pub size_bytes: u64,
    /// Bytes that this process may still allocate.
    pub free_bytes: u64,
    /// Files that may still be created; `u64::MAX` if the file system has no limit.
    pub free_files: u64,
}

/// A directory of files. Names contain no separators.
pub trait Medium: std::fmt::Debug {
    /// An open file.
    type File: std::fmt::Debug;

    /// The names and lengths of all files, in no particular order.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Creates a file for writing and reading.
    ///
    /// # Errors
    ///
    /// If a file of this name exists, or cannot be created.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file for writing and reading, to complete it after a crash.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    fn reopen(&self, name: &str) -> io::Result<Self::File>;

    /// Writes all `bytes` at `offset`, which is the end of the file.
    ///
    /// # Errors
    ///
    /// If not all bytes were written. Any part of them may have been.
    fn append(&self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads up to `out.len()` bytes at `offset`; fewer at the end of the file, and possibly elsewhere.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be read.
    fn read(&self, file: &Self::File, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// The length of an open file, in bytes.
    ///
    /// # Errors
    ///
    /// If the length cannot be read.
    fn len(&self, file: &Self::File) -> io::Result<u64>;

    /// Makes the written bytes and the length of the file durable.
    ///
    /// # Errors
    ///
    /// If that is not certain.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Makes created and removed names durable.
    ///
    /// # Errors
    ///
    /// If that is not certain.
    fn sync_names(&self) -> io::Result<()>;

    /// Shortens a file.
    ///
    /// # Errors
    ///
    /// If the length was not changed.
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// If the file was not removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Removes a file of this length to make room, now or soon. Its bytes count as free at once.
    ///
    /// # Errors
    ///
    /// If the file was not removed, or one before it could not be removed.
    fn remove_soon(&self, name: &str, _len: u64) -> io::Result<()> {
        self.remove(name)
    }

    /// The keys of encrypted files.
    fn keys(&self) -> &Keys {
        const NONE: &Keys = &Keys::none();
        NONE
    }

    /// Size and free space of the file system.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn room(&self) -> io::Result<DiskSpace>;

    /// How long writes and syncs took so far.
    fn timings(&self) -> Timings {
        Timings::default()
    }
}

/// Whether a write failed for lack of room: on the disk, or in a quota.
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Fills `out` from `offset`, over as many reads as the medium needs.
///
/// # Errors
///
/// If the file ends before, or cannot be read.
pub fn read_exact<M: Medium>(medium: &M, file: &M::File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match medium.read(file, offset, out) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                offset += read as u64;
                out = out.get_mut(read..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `out` is full or the file ends.
pub(crate) fn read_up_to<M: Medium>(medium: &M, file: &M::File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match medium.read(file, offset + filled as u64, &mut out[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl<M: Medium> Medium for std::sync::Arc<M> {
    type File = M::File;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        (**self).list()
    }
    fn create(&self, name: &str) -> io::Result<Self::File> {
        (**self).create(name)
    }
    fn open(&self, name: &str) -> io::Result<Self::File> {
        (**self).open(name)
    }
    fn reopen(&self, name: &str) -> io::Result<Self::File> {
        (**self).reopen(name)
    }
    fn append(&self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).append(file, offset, bytes)
    }
    fn read(&self, file: &Self::File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        (**self).read(file, offset, out)
    }
    fn len(&self, file: &Self::File) -> io::Result<u64> {
        (**self).len(file)
    }
    fn sync(&self, file: &Self::File) -> io::Result<()> {
        (**self).sync(file)
    }
    fn sync_names(&self) -> io::Result<()> {
        (**self).sync_names()
    }
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()> {
        (**self).truncate(file, len)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        (**self).remove(name)
    }
    fn remove_soon(&self, name: &str, len: u64) -> io::Result<()> {
        (**self).remove_soon(name, len)
    }
    fn room(&self) -> io::Result<DiskSpace> {
        (**self).room()
    }
    fn keys(&self) -> &Keys {
        (**self).keys()
    }
    fn timings(&self) -> Timings {
        (**self).timings()
    }
}
