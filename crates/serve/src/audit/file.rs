//! A file of the audit log: opened, appended to, chained, and rotated by size. Rotation, restarts and files moved by others
//! continue the chain.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};

use super::error::AuditError;
use super::removed;
use evidence::chain::{self, Head};

/// What is added to the name of the log for the files of refusals.
pub(super) const REFUSALS: &str = ".refusals";
/// What is added for the files of sealed minutes.
pub(super) const RECORD: &str = ".record";
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    size_max: u64,
    keep: u32,
    file: Option<std::fs::File>,
    /// Whether the last line was cut short and could not be taken back.
    torn: bool,
    /// Bytes at which the file is rotated; more than `size_max` after rotation has failed.
    rotate_at: u64,
    /// The last line that was written, to which the next one is linked.
    head: Option<Head>,
}

impl File {
    pub(super) fn new(path: PathBuf, size_max: u64, keep: u32) -> Self {
        Self { path, size_max, keep, file: None, torn: false, rotate_at: size_max, head: None }
    }

    /// Opens the file, and creates it and its directory where they are missing. Both belong to `owner` afterwards, the user
    /// and group that the process will switch to, or to the process's own user.
    ///
    /// An earlier recorder may have run as another user: before the user `retrocap` existed, or after it was removed. A
    /// directory that holds nothing but this log then changes its owner, because the process loses root's rights over it.
    pub(super) fn open_for(&mut self, owner: Option<(u32, u32)>) -> Result<(), AuditError> {
        let path = self.path.clone();
        let failed = |step| {
            let path = path.clone();
            move |source| AuditError { step, path, source }
        };
        let writer =
            owner.unwrap_or_else(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
        let directory = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        if !directory.is_dir() {
            let create = "create the directory of";
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&directory).map_err(failed(create))?;
            give(owner, |uid, gid| rustix::fs::chown(&directory, uid, gid)).map_err(failed(create))?;
        }
        self.adopt(&directory, writer);
        let file = open(&self.path).map_err(|error| failed("open")(with_remedy(error, &directory, writer)))?;
        // The directory may belong to the service: whoever took that over must not be given a file of another user.
        let found = file.metadata().map_err(failed("look at"))?;
        let around = std::fs::metadata(&directory).ok();
        let ours = [
            Some(rustix::process::geteuid().as_raw()),
            owner.map(|(uid, _)| uid),
            around.as_ref().map(|around| around.uid()),
        ];
        if !found.is_file() || found.nlink() != 1 || !ours.contains(&Some(found.uid())) {
            let reason = format!("it is not a file of this service (owner {}, {} links)", found.uid(), found.nlink());
            return Err(failed("trust")(io::Error::other(reason)));
        }
        file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE)).map_err(failed("restrict"))?;
        give(owner, |uid, gid| rustix::fs::fchown(&file, uid, gid)).map_err(failed("give away"))?;
        // Root's rights go with its capabilities, so this is asked for the user who will write.
        if around.is_some_and(|around| !may(&around, writer, SEARCH)) {
            let refused = io::Error::from(io::ErrorKind::PermissionDenied);
            return Err(failed("write")(with_remedy(refused, &directory, writer)));
        }
        self.file = Some(file);
        self.head = last_head(&self.path).or_else(|| last_head(&self.numbered(1)));
        Ok(())
    }

    /// Gives the directory and the files in it to the writer, if it is root's to give, private, and holds only this log.
    fn adopt(&self, directory: &Path, (uid, gid): (u32, u32)) {
        let Ok(found) = std::fs::symlink_metadata(directory) else { return };
        let private = found.is_dir() && found.mode() & 0o077 == 0;
        if found.uid() == uid || !private || !rustix::process::geteuid().is_root() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut files = Vec::new();
        for entry in entries {
            let Ok(entry) = entry else { return };
            let of_log = entry.file_name().to_str().is_some_and(|found| {
                let Some(rest) = found.strip_prefix(&name) else { return false };
                let number = rest.strip_prefix(REFUSALS).or(rest.strip_prefix(RECORD)).unwrap_or(rest);
                let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                number.is_empty() || number.strip_prefix('.').is_some_and(is_number)
            });
            let alone = entry.metadata().is_ok_and(|file| file.is_file() && file.nlink() == 1);
            if !of_log || !alone {
                return;
            }
            files.push(entry.path());
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let given = files.iter().map(PathBuf::as_path).chain([directory]).try_for_each(|path| {
            rustix::fs::chownat(rustix::fs::CWD, path, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        });
        match given {
            Ok(()) => tracing::info!(
                "{} belonged to uid {}, and is given to uid {} with the audit log in it",
                directory.display(),
                found.uid(),
                uid.as_raw()
            ),
            Err(error) => tracing::debug!("{} keeps its owner: {error}", directory.display()),
        }
    }

    /// Appends a line, all of it or nothing, and links it to the line before.
    pub(super) fn append(&mut self, line: &str) -> io::Result<()> {
        let length = self.reopen_if_moved()?;
        if length > 0 && length.saturating_add(line.len() as u64 + LINK_BYTES_MAX) > self.rotate_at {
            self.rotate(length);
        }
        self.append_linked(line)
    }

    /// Appends a line that `compose` makes of the last one's place; nothing if it makes none.
    pub(super) fn append_composed(&mut self, compose: impl FnOnce(Head) -> Option<String>) -> io::Result<()> {
        let Some(line) = self.head.and_then(compose) else { return Ok(()) };
        self.reopen_if_moved()?;
        self.append_linked(&line)
    }

    fn append_linked(&mut self, line: &str) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let before = file.metadata()?.len();
        let (line, head) = chain::link(line, self.head);
        let written =
            if self.torn { file.write_all(b"\n") } else { Ok(()) }.and_then(|()| file.write_all(line.as_bytes()));
        if written.is_ok() {
            self.head = Some(head);
        }
        self.torn = match &written {
            Ok(()) => false,
            // Half a line on a full disk.
            Err(_) => file.set_len(before).is_err(),
        };
        written
    }

    /// Opens the file anew if it was moved or removed; gives its length.
    fn reopen_if_moved(&mut self) -> io::Result<u64> {
        let id = |file: &std::fs::Metadata| (file.dev(), file.ino());
        let named = std::fs::symlink_metadata(&self.path).ok();
        if let (Some(file), Some(named)) = (&self.file, &named) {
            let held = file.metadata()?;
            if id(&held) == id(named) {
                return Ok(held.len());
            }
        }
        let file = open(&self.path)?;
        let length = file.metadata()?.len();
        (self.file, self.torn) = (Some(file), false);
        Ok(length)
    }

    /// Renames the old files, removes the oldest, and begins another, which says what was removed. Where that fails the
    /// file grows on.
    fn rotate(&mut self, length: u64) {
        let oldest = self.numbered(self.keep);
        let removed = removed::describe(&oldest);
        let rename_files = || {
            for number in (1..self.keep).rev() {
                match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            std::fs::rename(&self.path, self.numbered(1))?;
            open(&self.path)
        };
        match rename_files() {
            Ok(file) => {
                (self.file, self.torn, self.rotate_at) = (Some(file), false, self.size_max);
                if let Some(line) = removed
                    && let Err(error) = self.append_linked(&line)
                {
                    tracing::warn!("the audit log cannot say that {} was removed: {error}", oldest.display());
                }
            }
            Err(error) => {
                let path = self.path.display();
                tracing::warn!("the audit log {path} grows beyond its size, because it cannot be rotated: {error}");
                self.rotate_at = length.saturating_add(self.size_max);
            }
        }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(format!(".{number}"));
        path.into()
    }
}

/// Bytes that linking adds to a line at most.
const LINK_BYTES_MAX: u64 = 224;
/// Bytes at the end of a file in which its last line is looked for.
const LAST_LINE_BYTES_MAX: u64 = 1 << 20;

/// The place of a file's last line in its chain.
fn last_head(path: &Path) -> Option<Head> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut file = std::fs::File::options().read(true).custom_flags(no_follow).open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(LAST_LINE_BYTES_MAX))).ok()?;
    let mut end = Vec::new();
    file.take(LAST_LINE_BYTES_MAX).read_to_end(&mut end).ok()?;
    // A line that was cut when the machine lost power is not the last one of the chain.
    end.split(|&byte| byte == b'\n').rev().find_map(|line| Some(chain::read_link(line).ok()?.0))
}

/// The permission to reach files in a directory.
const SEARCH: u32 = 0o1;

/// Whether a user and group have a permission by a file's owner and mode alone, without capabilities.
fn may(file: &std::fs::Metadata, (uid, gid): (u32, u32), permission: u32) -> bool {
    let bits = match file {
        _ if file.uid() == uid => file.mode() >> 6,
        _ if file.gid() == gid => file.mode() >> 3,
        _ => file.mode(),
    };
    bits & permission == permission
}

/// A refusal, with what to do about it.
fn with_remedy(error: io::Error, directory: &Path, (uid, gid): (u32, u32)) -> io::Error {
    let (io::ErrorKind::PermissionDenied, Ok(found)) = (error.kind(), std::fs::metadata(directory)) else {
        return error;
    };
    let shown = directory.display();
    let reason = format!(
        "{error}: its directory belongs to uid {} (mode {:o}), and the recorder runs as uid {uid}; as root: chown -R \
         {uid}:{gid} {shown}",
        found.uid(),
        found.mode() & 0o7777
    );
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// Follows no link, and does not wait for the other end of a pipe.
fn open(path: &Path) -> io::Result<std::fs::File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).custom_flags(flags).open(path)
}

fn give(
    owner: Option<(u32, u32)>,
    chown: impl FnOnce(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
) -> io::Result<()> {
    match owner {
        Some((uid, gid)) => Ok(chown(Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?),
        None => Ok(()),
    }
}
