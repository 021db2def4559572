//! The medium that is a directory of a Linux file system.
//!
//! Whole blocks bypass the page cache (`O_DIRECT`). This takes a tenth of the processor time and does not evict pages
//! that the host needs. The rest of a sync goes through the page cache. The two never touch the same page: a
//! page is written directly only if it lies whole within one write.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rustix::fs::{self, Access, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::encryption::Keys;
use crate::file::ALIGNMENT;
use crate::medium::{DiskSpace, Medium};
use crate::timings::{Stopwatch, Timings};
pub use crate::unlink::UnlinkQueue;
use crate::unlink::Unlinks;

/// Bytes of one direct write.
const DIRECT_BYTES: usize = 1 << 20;
/// Name of the lock file, which keeps a second recorder out.
const LOCK: &str = "lock";
/// Name of the file that says what was removed on purpose.
pub const REMOVALS: &str = "removals.jsonl";

/// Magic numbers of network file systems (from `linux/magic.h` or from the source of the file system).
const NETWORK: [(u64, &str); 9] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x0bd0_0bd0, "Lustre"),
];
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// The reason why a directory cannot hold a spool.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory cannot be opened.
    #[error("cannot open the spool's directory {}: {source}", .path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Another recorder has locked it.
    #[error("another recorder writes to the spool {}: stop it, or give this one a directory of its own", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It is on a network file system.
    #[error(
        "{} is on {name}, where a write can hang and locks are unreliable: choose a directory on a local disk",
        .path.display()
    )]
    Network {
        /// The directory.
        path: PathBuf,
        /// The kind of file system.
        name: &'static str,
    },
}

/// What a directory lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// A disk of this machine.
    Local,
    /// Memory, which a reboot clears.
    Memory,
    /// Another machine, by this protocol.
    Network(&'static str),
}

/// What a directory lies on.
///
/// # Errors
///
/// If it cannot be opened.
pub fn file_system(path: &Path) -> io::Result<FileSystem> {
    kind_of(&fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn kind_of(directory: &OwnedFd) -> io::Result<FileSystem> {
    let kind = u64::try_from(fs::fstatfs(directory)?.f_type).unwrap_or(0) & 0xffff_ffff;
    let network = NETWORK.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| FileSystem::Network(name));
    Ok(network.unwrap_or(if MEMORY.contains(&kind) { FileSystem::Memory } else { FileSystem::Local }))
}

/// A directory that holds a spool.
#[derive(Debug)]
pub struct Directory {
    directory: OwnedFd,
    path: PathBuf,
    /// Keeps the directory locked while it is open for writing.
    lock: Option<OwnedFd>,
    in_memory: bool,
    uses_direct: AtomicBool,
    /// Aligned buffer for direct writes.
    bounce: Mutex<Vec<u8>>,
    writes: Stopwatch,
    syncs: Stopwatch,
    unlinks: Unlinks,
    keys: Keys,
}

/// An open file of a directory.
#[derive(Debug)]
pub struct SpoolFile {
    buffered: OwnedFd,
    direct: Option<OwnedFd>,
}

impl Directory {
    /// Opens a directory to write a spool, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, another recorder has locked it, or it is on a network file system.
    pub fn open_to_write(path: &Path) -> Result<Self, DirectoryError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let open = |source: io::Error| DirectoryError::Open { path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(open)?;
        let mut directory = Self::open_to_read(path)?;
        directory.in_memory = match kind_of(&directory.directory).map_err(open)? {
            FileSystem::Network(name) => return Err(DirectoryError::Network { path: path.to_owned(), name }),
            kind => kind == FileSystem::Memory,
        };
        directory.uses_direct = AtomicBool::new(!directory.in_memory);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = fs::openat(&directory.directory, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| open(error.into()))?;
        match fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => directory.lock = Some(lock),
            Err(Errno::WOULDBLOCK) => return Err(DirectoryError::Locked { path: path.to_owned() }),
            Err(error) => return Err(open(error.into())),
        }
        Ok(directory)
    }

    /// Opens a directory to read a spool. It may be on a read-only file system, and a recorder may be writing to it.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn open_to_read(path: &Path) -> Result<Self, DirectoryError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::open(path, flags, Mode::empty())
            .map_err(|error| DirectoryError::Open { path: path.to_owned(), source: error.into() })?;
        Ok(Self {
            directory,
            path: path.to_owned(),
            lock: None,
            in_memory: false,
            uses_direct: AtomicBool::new(false),
            bounce: Mutex::default(),
            writes: Stopwatch::default(),
            syncs: Stopwatch::default(),
            unlinks: Unlinks::default(),
            keys: Keys::none(),
        })
    }

    /// Encrypts new files, and decrypts what is encrypted, with these keys.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// Writes whole blocks directly from now on, as a spool does.
    pub(crate) fn write_directly(&self) {
        self.uses_direct.store(true, Ordering::Relaxed);
    }

    /// Whether the files are in memory (tmpfs), so that a reboot loses them.
    pub fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor of the directory.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.directory
    }

    /// Appends a line to the list of what was removed on purpose, and makes it durable.
    ///
    /// # Errors
    ///
    /// If that is not certain.
    pub fn note_removal(&self, line: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
        let file = self.open_with(REMOVALS, flags)?;
        let line = format!("{line}\n");
        if rustix::io::write(&file, line.as_bytes())? < line.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        fs::fsync(&file)?;
        Ok(fs::fsync(&self.directory)?)
    }

    /// Work for a thread that removes files from now on; it calls [`run_unlinks`](Self::run_unlinks).
    pub fn unlink_in_background(&self) -> UnlinkQueue {
        self.unlinks.in_background()
    }

    /// Removes files until `stop` is set, one at a time.
    pub fn run_unlinks(&self, queue: &UnlinkQueue, stop: &AtomicBool) {
        self.unlinks.run(queue, &self.directory, stop);
    }

    /// Changes the owner of the directory and of the spool's files in it to the user that will write them.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (fs::Uid::from_raw(uid), fs::Gid::from_raw(gid));
        fs::fchown(&self.directory, Some(uid), Some(gid))?;
        if let Some(lock) = &self.lock {
            fs::fchown(lock, Some(uid), Some(gid))?;
        }
        for (name, _) in self.list()?.into_iter().filter(|(name, _)| crate::layout::parse_name(name).is_some()) {
            fs::chownat(&self.directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?)
    }

    fn open_to_append(&self, name: &str, flags: OFlags) -> io::Result<SpoolFile> {
        let buffered = self.open_with(name, flags | OFlags::RDWR)?;
        let uses_direct = self.uses_direct.load(Ordering::Relaxed);
        let direct = uses_direct.then(|| self.open_with(name, OFlags::WRONLY | OFlags::DIRECT));
        Ok(SpoolFile { buffered, direct: direct.and_then(Result::ok) })
    }

    fn write_at(&self, file: &SpoolFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        if let Some(direct) = file.direct.as_ref().filter(|_| self.uses_direct.load(Ordering::Relaxed)) {
            let head = usize::try_from(offset.next_multiple_of(ALIGNMENT) - offset).unwrap_or(0).min(bytes.len());
            write_all(&file.buffered, offset, &bytes[..head])?;
            (offset, bytes) = (offset + head as u64, &bytes[head..]);
            let whole = bytes.len() / usize::try_from(ALIGNMENT).unwrap_or(1) * usize::try_from(ALIGNMENT).unwrap_or(1);
            let written = self.write_direct(direct, offset, &bytes[..whole])?;
            (offset, bytes) = (offset + written as u64, &bytes[written..]);
        }
        write_all(&file.buffered, offset, bytes)
    }

    /// Writes whole aligned blocks, bypassing the page cache. Returns the number of bytes written.
    fn write_direct(&self, file: &OwnedFd, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut bounce = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        let alignment = usize::try_from(ALIGNMENT).unwrap_or(usize::MAX);
        if bounce.is_empty() {
            bounce.resize(DIRECT_BYTES + alignment, 0);
        }
        let start = bounce.as_ptr().align_offset(alignment);
        let mut written = 0;
        for part in bytes.chunks(DIRECT_BYTES) {
            let aligned = &mut bounce[start..start + part.len()];
            aligned.copy_from_slice(part);
            let done = match rustix::io::pwrite(file, aligned, offset + written as u64) {
                Ok(done) => done,
                Err(Errno::INVAL) => {
                    // The file system does not permit direct writes, or not in its current state.
                    self.uses_direct.store(false, Ordering::Relaxed);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            written += done;
            if done < part.len() {
                break;
            }
        }
        Ok(written)
    }
}

fn write_all(file: &OwnedFd, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                bytes = &bytes[written..];
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Medium for Directory {
    type File = SpoolFile;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown) {
                continue;
            }
            let stat = match fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                files.push((name.to_owned(), u64::try_from(stat.st_size).unwrap_or(0)));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> io::Result<SpoolFile> {
        self.open_to_append(name, OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, name: &str) -> io::Result<SpoolFile> {
        Ok(SpoolFile { buffered: self.open_with(name, OFlags::RDONLY)?, direct: None })
    }

    fn reopen(&self, name: &str) -> io::Result<SpoolFile> {
        self.open_to_append(name, OFlags::empty())
    }

    fn append(&self, file: &mut SpoolFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        let written = self.write_at(file, offset, bytes);
        self.writes.note(began.elapsed());
        written
    }

    fn read(&self, file: &SpoolFile, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::pread(&file.buffered, out, offset)?)
    }

    fn len(&self, file: &SpoolFile) -> io::Result<u64> {
        Ok(u64::try_from(fs::fstat(&file.buffered)?.st_size).unwrap_or(0))
    }

    fn sync(&self, file: &SpoolFile) -> io::Result<()> {
        let began = Instant::now();
        let synced = fs::fdatasync(&file.buffered);
        self.syncs.note(began.elapsed());
        Ok(synced?)
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.directory)?)
    }

    fn truncate(&self, file: &SpoolFile, len: u64) -> io::Result<()> {
        Ok(fs::ftruncate(&file.buffered, len)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn remove_soon(&self, name: &str, len: u64) -> io::Result<()> {
        if self.unlinks.queue(name, len)? { Ok(()) } else { self.remove(name) }
    }

    fn keys(&self) -> &Keys {
        &self.keys
    }

    fn timings(&self) -> Timings {
        Timings { writes: self.writes.read(), syncs: self.syncs.read() }
    }

    fn room(&self) -> io::Result<DiskSpace> {
        // The file system is asked first: what is removed meanwhile must not count twice.
        let stat = fs::fstatvfs(&self.directory)?;
        let going = self.unlinks.pending_bytes();
        // Blocks reserved for root count as used, as in the output of df.
        let size = (stat.f_blocks - stat.f_bfree + stat.f_bavail).saturating_mul(stat.f_frsize);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize).saturating_add(going);
        let free_files = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
        Ok(DiskSpace { size_bytes: size, free_bytes: free.min(size), free_files })
    }
}

/// Whether this process may write in a directory.
pub fn is_writable(path: &Path) -> bool {
    fs::access(path, Access::WRITE_OK).is_ok()
}
