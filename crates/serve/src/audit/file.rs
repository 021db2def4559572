//! The file of the audit log: opened, appended to, and put aside when it is large.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};

use super::AuditError;

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    size_max: u64,
    keep: u32,
    file: Option<std::fs::File>,
    /// The last line was cut short and could not be taken back.
    torn: bool,
    /// Bytes beyond which it is not tried again to put the file aside, after that has failed.
    rotate_at: u64,
}

impl File {
    pub(super) fn new(path: PathBuf, size_max: u64, keep: u32) -> Self {
        Self { path, size_max, keep, file: None, torn: false, rotate_at: size_max }
    }

    /// Opens the file, making it and its directory where they are missing; what is made is the owner's.
    pub(super) fn open_for(&mut self, owner: Option<(u32, u32)>) -> Result<(), AuditError> {
        let path = self.path.clone();
        let failed = |step| {
            let path = path.clone();
            move |source| AuditError { step, path, source }
        };
        if let Some(directory) = self.path.parent().filter(|directory| !directory.is_dir()) {
            let make = "make the directory of";
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed(make))?;
            give(owner, |uid, gid| rustix::fs::chown(directory, uid, gid)).map_err(failed(make))?;
        }
        let file = open(&self.path).map_err(failed("open"))?;
        // The directory may be the service's, and who took that over must not be given a file of somebody else's.
        let found = file.metadata().map_err(failed("look at"))?;
        let around = self.path.parent().and_then(|directory| std::fs::metadata(directory).ok());
        let ours = [
            Some(rustix::process::geteuid().as_raw()),
            owner.map(|(uid, _)| uid),
            around.map(|directory| directory.uid()),
        ];
        if !found.is_file() || found.nlink() != 1 || !ours.contains(&Some(found.uid())) {
            let reason = format!("it is no file of this service's (owner {}, {} links)", found.uid(), found.nlink());
            return Err(failed("trust")(io::Error::other(reason)));
        }
        file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE)).map_err(failed("restrict"))?;
        give(owner, |uid, gid| rustix::fs::fchown(&file, uid, gid)).map_err(failed("give away"))?;
        self.file = Some(file);
        Ok(())
    }

    /// Appends a line, all of it or nothing.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = self.reopen_if_moved()?;
        if length > 0 && length.saturating_add(line.len() as u64) > self.rotate_at {
            self.rotate(length);
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let before = file.metadata()?.len();
        let written = if self.torn { file.write_all(b"\n") } else { Ok(()) }.and_then(|()| file.write_all(line));
        self.torn = match &written {
            Ok(()) => false,
            // Half a line on a full disk.
            Err(_) => file.set_len(before).is_err(),
        };
        written
    }

    /// Makes sure that the file is the one of that name, which somebody may have moved or removed; gives its length.
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

    /// Numbers the old files anew, the oldest goes, and begins another. Where that fails the file just grows on.
    fn rotate(&mut self, length: u64) {
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
            Ok(file) => (self.file, self.torn, self.rotate_at) = (Some(file), false, self.size_max),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!("the audit log {path} grows on, as it cannot be put aside: {error}");
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

/// Follows no link, and does not wait where the name is a pipe's.
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
