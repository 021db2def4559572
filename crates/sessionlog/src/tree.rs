//! The directories and files of the log.
//!
//! ```text
//! DIR/sessions/date=2026-11-27/hour=13/sessions-1764250000123-9f8e7d6c.parquet
//!                                               │             └ CRC-32 of the file
//!                                               └ creation, in milliseconds since the epoch
//! ```
//!
//! Databases read the date and the hour (UTC) out of the path. A file is written under a name that ends with `.tmp`. It gets
//! its own name once it is durable, so that a crash leaves no part of a file. The next start removes the rest. A file from which
//! rows were removed on purpose is followed by another, whose name ends with `-replaces-` and the numbers of the old one.
//!
//! With a key, files are encrypted as those of the spool are, and their names end with `.parquet.enc`.

use std::collections::HashSet;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::open_file::{OpenFile, RawFile, plain_len};
use crate::row::HOUR_NS;
use base::time::Timestamp;
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader as _;
use spool::encryption::{self, Keys, Opener, Sealer};

/// Directory of the log, in that of the spool.
pub const ROOT: &str = "sessions";
const SUFFIX: &str = ".parquet";
/// End of the names of encrypted files.
const ENCRYPTED_SUFFIX: &str = ".parquet.enc";
const PREFIX: &str = "sessions-";
const TEMPORARY: &str = ".tmp";
const REPLACES: &str = "-replaces-";

/// A file of the log.
#[derive(Debug)]
pub struct LogFile {
    /// Path in the directory of the spool.
    pub path: String,
    /// Hour of its rows, since the epoch.
    pub hour: u64,
    /// When it was created, in milliseconds since the epoch.
    pub created_ms: u64,
    /// Bytes.
    pub len: u64,
    crc: u32,
    /// Creation and checksum of the file whose other rows this one has, after rows were removed on purpose.
    replaces: Option<(u64, u32)>,
    /// Whether the file is encrypted.
    pub encrypted: bool,
    is_verified: AtomicBool,
    /// The earliest hour of which this file has the only row of a session, once it was read.
    reaches: OnceLock<u64>,
}

impl LogFile {
    /// The earliest hour of which the file has the only row of a session: a session that waited for its end has one row, in
    /// its last hour. `read` looks it up in the file.
    ///
    /// # Errors
    ///
    /// If it could not be looked up. The next call tries again.
    pub(crate) fn reaches<E>(&self, read: impl FnOnce() -> Result<Option<u64>, E>) -> Result<u64, E> {
        if let Some(&hour) = self.reaches.get() {
            return Ok(hour);
        }
        let hour = read()?.unwrap_or(self.hour).min(self.hour);
        Ok(*self.reaches.get_or_init(|| hour))
    }

    /// Start and end of its hour.
    pub fn times(&self) -> (Timestamp, Timestamp) {
        let start = self.hour.saturating_mul(HOUR_NS);
        (Timestamp(start), Timestamp(start.saturating_add(HOUR_NS - 1)))
    }
}

/// Hour, creation and checksum of a file, which no other one has.
type Place = (u64, u64, u32);

/// The directory of a spool, which has the log in it.
#[derive(Debug)]
pub struct LogTree {
    directory: OwnedFd,
    keys: Keys,
}

impl LogTree {
    /// The log in the directory of a spool, whose files are encrypted if there are keys.
    pub fn new(directory: OwnedFd, keys: Keys) -> Self {
        Self { directory, keys }
    }

    /// Creates the directory of the log, and gives it and all in it to the user that will write it.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn prepare(&self, owner: Option<(u32, u32)>) -> io::Result<()> {
        self.make(ROOT)?;
        let Some((uid, gid)) = owner else { return Ok(()) };
        let (uid, gid) = (fs::Uid::from_raw(uid), fs::Gid::from_raw(gid));
        let give = |path: &str| fs::chownat(&self.directory, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        give(ROOT)?;
        self.each(&mut |path, _| Ok(give(path)?))
    }

    fn make(&self, path: &str) -> io::Result<bool> {
        match fs::mkdirat(&self.directory, path, Mode::RWXU) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(fs::openat(&self.directory, path, flags, Mode::RUSR | Mode::WUSR)?)
    }

    fn open_directory(&self, path: &str) -> io::Result<OwnedFd> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Calls `each` with the path of every directory of the log and of every file in them, and whether it is a file.
    fn each(&self, each: &mut dyn FnMut(&str, bool) -> io::Result<()>) -> io::Result<()> {
        for date in self.names(ROOT, FileType::Directory, "date=")? {
            let date = format!("{ROOT}/{date}");
            each(&date, false)?;
            for hour in self.names(&date, FileType::Directory, "hour=")? {
                let hour = format!("{date}/{hour}");
                each(&hour, false)?;
                for file in self.names(&hour, FileType::RegularFile, PREFIX)? {
                    each(&format!("{hour}/{file}"), true)?;
                }
            }
        }
        Ok(())
    }

    fn names(&self, path: &str, kind: FileType, prefix: &str) -> io::Result<Vec<String>> {
        let directory = match self.open_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !name.starts_with(prefix) {
                continue;
            }
            let stat = fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == kind {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The files, by hour and creation. A file that another one replaces is left out: a crash can leave both.
    ///
    /// # Errors
    ///
    /// If a directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<Arc<LogFile>>> {
        let (mut files, replaced) = self.list_all()?;
        files.retain(|file| !replaced.contains(&(file.hour, file.created_ms, file.crc)));
        Ok(files.into_iter().map(Arc::new).collect())
    }

    /// Removes files that others replace. Returns their number.
    ///
    /// # Errors
    ///
    /// If a directory cannot be read, or a file not be removed.
    pub fn remove_replaced(&self) -> io::Result<u64> {
        let (files, replaced) = self.list_all()?;
        let mut removed = 0;
        for file in files.iter().filter(|file| replaced.contains(&(file.hour, file.created_ms, file.crc))) {
            self.remove(file)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// All files, and which of them are replaced.
    fn list_all(&self) -> io::Result<(Vec<LogFile>, HashSet<Place>)> {
        let mut files = Vec::new();
        self.each(&mut |path, is_file| {
            if let Some(file) = is_file.then(|| parse(path)).flatten() {
                let stat = fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW)?;
                files.push(LogFile { len: u64::try_from(stat.st_size).unwrap_or(0), ..file });
            }
            Ok(())
        })?;
        files.sort_by_key(|file| (file.hour, file.created_ms));
        let replaced = files.iter().filter_map(|file| file.replaces.map(|(created, crc)| (file.hour, created, crc)));
        let replaced = replaced.collect();
        Ok((files, replaced))
    }

    /// Removes what a crash left of unfinished files. Returns their number.
    ///
    /// # Errors
    ///
    /// If a directory cannot be read, or a file not be removed.
    pub fn remove_unfinished(&self) -> io::Result<u64> {
        let mut removed = 0;
        self.each(&mut |path, is_file| {
            if is_file && path.ends_with(TEMPORARY) {
                fs::unlinkat(&self.directory, path, AtFlags::empty())?;
                removed += 1;
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// Removes a file, and its directories if nothing else is in them.
    ///
    /// # Errors
    ///
    /// If the file cannot be removed.
    pub fn remove(&self, file: &LogFile) -> io::Result<()> {
        match fs::unlinkat(&self.directory, &*file.path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let mut path = &*file.path;
        while let Some((directory, _)) = path.rsplit_once('/').filter(|(directory, _)| *directory != ROOT) {
            // A directory with other files stays.
            if fs::unlinkat(&self.directory, directory, AtFlags::REMOVEDIR).is_err() {
                break;
            }
            path = directory;
        }
        Ok(())
    }

    /// Creates a file for rows of an hour.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn create(self: &Arc<Self>, hour: u64, created_ms: u64) -> io::Result<UnfinishedFile> {
        self.create_in_place_of(None, hour, created_ms)
    }

    /// As [`create`](Self::create), for the rows of another file that stay.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn create_in_place_of(
        self: &Arc<Self>,
        replaces: Option<&LogFile>,
        hour: u64,
        created_ms: u64,
    ) -> io::Result<UnfinishedFile> {
        let replaces = replaces.map(|file| (file.created_ms, file.crc));
        let (date, directory) = directories(hour);
        let made = [self.make(ROOT)?, self.make(&date)?, self.make(&directory)?];
        if made.contains(&true) {
            fs::fsync(self.open_directory(ROOT)?)?;
            fs::fsync(self.open_directory(&date)?)?;
            fs::fsync(&self.directory)?;
        }
        let stem = format!("{directory}/{PREFIX}{created_ms}");
        let file = self.open(&format!("{stem}{TEMPORARY}"), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        let tree = Arc::clone(self);
        let crc = crc32fast::Hasher::new();
        let sealer = self.keys.writing().map(Sealer::new).transpose()?;
        let plain = Vec::new();
        Ok(UnfinishedFile { tree, file, directory, stem, hour, created_ms, replaces, len: 0, crc, sealer, plain })
    }

    /// Writes the content of an encrypted file to the log in another directory.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is damaged, its key is missing, or the other file cannot be written.
    pub fn decrypt(&self, file: &LogFile, to: &Arc<Self>) -> Result<LogFile, ParquetError> {
        let mut content = self.read(file)?.get_read(0)?;
        let mut out = to.create(file.hour, file.created_ms)?;
        if let Err(error) = io::copy(&mut content, &mut out) {
            out.discard();
            return Err(error.into());
        }
        Ok(out.finish()?)
    }

    /// Opens a file whose checksum is right.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is damaged.
    pub fn read(&self, file: &LogFile) -> io::Result<OpenFile> {
        let open = Arc::new(self.open(&file.path, OFlags::RDONLY)?);
        let raw = RawFile { file: open, at: 0 };
        if file.encrypted {
            let mut start = Vec::new();
            raw.clone().take(encryption::OVERHEAD_BYTES as u64).read_to_end(&mut start)?;
            Opener::check(&self.keys, &start)?;
        }
        if !file.is_verified.load(Ordering::Relaxed) {
            if raw.crc()? != file.crc {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"));
            }
            file.is_verified.store(true, Ordering::Relaxed);
        }
        let keys = file.encrypted.then(|| self.keys.clone());
        let len = if file.encrypted { plain_len(file.len) } else { file.len };
        Ok(OpenFile { raw, len, keys })
    }
}

/// The directory of a date, and that of an hour in it.
fn directories(hour: u64) -> (String, String) {
    let seconds = i64::try_from(hour.saturating_mul(3600)).unwrap_or(0);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    (format!("{ROOT}/{}", time.strftime("date=%Y-%m-%d")), format!("{ROOT}/{}", time.strftime("date=%Y-%m-%d/hour=%H")))
}

/// A file from its path; `None` for a path of another program.
fn parse(path: &str) -> Option<LogFile> {
    let (directory, name) = path.rsplit_once('/')?;
    let (date, hour) = directory.strip_prefix(ROOT)?.strip_prefix("/date=")?.split_once("/hour=")?;
    let time: jiff::Timestamp = format!("{date}T{hour}:00:00Z").parse().ok()?;
    let name = name.strip_prefix(PREFIX)?;
    let encrypted = name.ends_with(ENCRYPTED_SUFFIX);
    let name = name.strip_suffix(if encrypted { ENCRYPTED_SUFFIX } else { SUFFIX })?;
    let (name, replaces) = match name.split_once(REPLACES) {
        Some((name, replaced)) => (name, Some(identity(replaced)?)),
        None => (name, None),
    };
    let (created_ms, crc) = identity(name)?;
    Some(LogFile {
        path: path.to_owned(),
        hour: u64::try_from(time.as_second()).ok()? / 3600,
        created_ms,
        len: 0,
        crc,
        replaces,
        encrypted,
        is_verified: AtomicBool::new(false),
        reaches: OnceLock::new(),
    })
}

/// Creation and checksum of a file, from its name.
fn identity(name: &str) -> Option<(u64, u32)> {
    let (created, crc) = name.split_once('-')?;
    Some((created.parse().ok()?, u32::from_str_radix(crc, 16).ok()?))
}

/// A file that is being written.
#[derive(Debug)]
pub struct UnfinishedFile {
    tree: Arc<LogTree>,
    file: OwnedFd,
    directory: String,
    stem: String,
    hour: u64,
    created_ms: u64,
    replaces: Option<(u64, u32)>,
    len: u64,
    crc: crc32fast::Hasher,
    sealer: Option<Sealer>,
    /// Bytes that are not encrypted yet: less than a record holds.
    plain: Vec<u8>,
}

impl UnfinishedFile {
    /// Makes the file durable, and gives it its name.
    ///
    /// # Errors
    ///
    /// If that is not certain. The file is then removed.
    pub fn finish(mut self) -> io::Result<LogFile> {
        self.put_record()?;
        let crc = self.crc.clone().finalize();
        let replaces = self.replaces.map_or(String::new(), |(created, crc)| format!("{REPLACES}{created}-{crc:08x}"));
        let temporary = format!("{}{TEMPORARY}", self.stem);
        let encrypted = self.sealer.is_some();
        let suffix = if encrypted { ENCRYPTED_SUFFIX } else { SUFFIX };
        let path = format!("{}-{crc:08x}{replaces}{suffix}", self.stem);
        let root = &self.tree.directory;
        let finished = fs::fsync(&self.file)
            .and_then(|()| fs::renameat(root, &*temporary, root, &*path))
            .map_err(io::Error::from)
            .and_then(|()| Ok(fs::fsync(self.tree.open_directory(&self.directory)?)?));
        if let Err(error) = finished {
            for name in [&temporary, &path] {
                let _ = fs::unlinkat(root, &**name, AtFlags::empty());
            }
            return Err(error);
        }
        let Self { hour, created_ms, replaces, len, .. } = self;
        let is_verified = AtomicBool::new(true);
        Ok(LogFile { path, hour, created_ms, len, crc, replaces, encrypted, is_verified, reaches: OnceLock::new() })
    }

    /// Removes the file.
    pub fn discard(self) {
        let _ = fs::unlinkat(&self.tree.directory, format!("{}{TEMPORARY}", self.stem), AtFlags::empty());
    }
}

impl UnfinishedFile {
    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = rustix::io::pwrite(&self.file, bytes, self.len)?;
        self.crc.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    /// Encrypts and writes what waits.
    fn put_record(&mut self) -> io::Result<()> {
        let Some(sealer) = self.sealer.as_mut().filter(|_| !self.plain.is_empty()) else { return Ok(()) };
        let mut record = Vec::with_capacity(self.plain.len() + encryption::OVERHEAD_BYTES);
        sealer.put(&mut record, &self.plain);
        self.plain.clear();
        let mut rest = &record[..];
        while !rest.is_empty() {
            match self.put(rest)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => rest = &rest[written..],
            }
        }
        Ok(())
    }
}

impl Write for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.sealer.is_none() {
            return self.put(bytes);
        }
        let taken = bytes.len().min(encryption::PLAIN_BYTES_MAX - self.plain.len());
        self.plain.extend_from_slice(&bytes[..taken]);
        if self.plain.len() == encryption::PLAIN_BYTES_MAX {
            self.put_record()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
