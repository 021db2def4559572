//! The socket of the service, and the lock that belongs to it.
//!
//! What always holds: of all recorders that name one socket, one has the lock, and only that one touches the socket. A file
//! of another kind is never removed. Until the permissions are set, only the owner can connect.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Mode, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::error::Error;

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 128;
const DIRECTORY_MODE: u32 = 0o755;

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketPermissions {
    /// Group whose members may, if it exists.
    pub(super) group: Option<u32>,
    /// User and group that the process will switch to, if it will.
    pub(super) owner: Option<(u32, u32)>,
}

/// A bound socket; it is removed with its lock when this is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    _lock: LockFile,
    /// Whether the group of readers may connect, or the owner alone.
    pub(super) for_group: bool,
    bound: bool,
}

/// The lock file, locked.
#[derive(Debug)]
struct LockFile {
    path: PathBuf,
    _file: File,
}

/// The exclusive right to bind a socket on which nobody listens.
#[derive(Debug)]
pub(super) struct SocketClaim {
    path: PathBuf,
    lock: LockFile,
}

impl SocketClaim {
    /// Claims a socket, and creates its directory if that is missing.
    pub(super) fn new(path: &Path, access: SocketPermissions) -> Result<Self, Error> {
        // Checked before anything is created or locked, because a recorder of another version may use no lock.
        if UnixStream::connect(path).is_ok() {
            return Err(Error::AlreadyRunning(path.to_owned()));
        }
        // Checked before the lock file, so that nothing is created beside a file of another kind.
        if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(Error::NotASocket(path.to_owned()));
        }
        make_directory(path, access)?;
        let lock = LockFile::take(path)?;
        // Another recorder may have ended in between, or listen without a lock.
        if UnixStream::connect(path).is_ok() {
            return Err(Error::AlreadyRunning(path.to_owned()));
        }
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("examine the socket", path)(source)),
            Ok(found) if !found.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
            Ok(_) => {
                tracing::info!("{} was left behind by a recorder that crashed, and is replaced", path.display());
                std::fs::remove_file(path).map_err(failed("remove the old socket", path))?;
            }
        }
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Creates the socket with its permissions.
    pub(super) fn bind(self, access: SocketPermissions) -> Result<(UnixListener, Socket), Error> {
        let path = self.path.clone();
        let address = SocketAddrUnix::new(&path).map_err(|_| {
            let long = io::Error::new(io::ErrorKind::InvalidInput, "the path of a socket may have 107 bytes at most");
            failed("make the socket", &path)(long)
        })?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let step = |step| {
            let failed = failed(step, &path);
            move |error: rustix::io::Errno| failed(error.into())
        };
        let fd: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(step("make the socket"))?;
        // The file that bind(2) creates takes the mode of the socket.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o600)).map_err(step("restrict the socket"))?;
        rustix::net::bind(&fd, &address).map_err(step("make the socket"))?;
        let mut socket = Socket { path: path.clone(), _lock: self.lock, for_group: false, bound: true };
        let chmod = |mode| rustix::fs::chmod(&path, Mode::from_raw_mode(mode));
        chmod(0o600).map_err(step("restrict the socket"))?;
        let owner = access.owner.map(|(uid, _)| Uid::from_raw(uid));
        let chown = |group: Option<u32>| rustix::fs::chown(&path, owner, group.map(Gid::from_raw));
        match access.group.filter(|&group| chown(Some(group)).is_ok()) {
            Some(_) => {
                chmod(0o660).map_err(step("open the socket to its group"))?;
                socket.for_group = true;
            }
            None => chown(None).map_err(step("give the socket to the user"))?,
        }
        rustix::net::listen(&fd, BACKLOG).map_err(step("listen on the socket"))?;
        Ok((UnixListener::from(fd), socket))
    }
}

impl Socket {
    /// Removes the socket's file, so that nobody new connects. The lock stays.
    pub(super) fn unlink(&mut self) {
        if std::mem::take(&mut self.bound) {
            remove(&self.path);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.unlink();
    }
}

impl LockFile {
    fn take(socket: &Path) -> Result<Self, Error> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let step = "lock";
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(failed(step, &path))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::AlreadyRunning(socket.to_owned())),
                Err(error) => return Err(failed(step, &path)(error.into())),
            }
            // The last owner may have removed it before it was locked here, and then it excludes nobody.
            let ours = file.metadata().map_err(failed(step, &path))?;
            if std::fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Creates the directory of the socket. It belongs to the user who will have to remove the socket.
fn make_directory(socket: &Path, access: SocketPermissions) -> Result<(), Error> {
    let Some(directory) = socket.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    if directory.is_dir() {
        return Ok(());
    }
    let step = "make the directory";
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed(step, directory))?;
    if let Some((uid, gid)) = access.owner {
        rustix::fs::chown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|error| failed(step, directory)(error.into()))?;
    }
    Ok(())
}

/// Without its privileges the process may be unable to; the next start replaces the file.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!("{} stays: {error}", path.display());
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Socket { step, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ALONE: SocketPermissions = SocketPermissions { group: None, owner: None };

    #[test]
    fn one_recorder_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/socket");
        let claim = SocketClaim::new(&path, ALONE).unwrap();
        assert!(matches!(SocketClaim::new(&path, ALONE), Err(Error::AlreadyRunning(_))), "claimed, not bound yet");
        let (listener, socket) = claim.bind(ALONE).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!socket.for_group);
        assert!(matches!(SocketClaim::new(&path, ALONE), Err(Error::AlreadyRunning(_))));
        drop((listener, socket));
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 0, "socket and lock are removed");
    }

    #[test]
    fn honest_13_13_what_a_crash_left_is_replaced_and_what_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let stale = directory.path().join("stale");
        drop(UnixListener::bind(&stale).unwrap());
        std::fs::write(directory.path().join("stale.lock"), "").unwrap();
        let (_listener, _socket) = SocketClaim::new(&stale, ALONE).unwrap().bind(ALONE).unwrap();
        assert!(UnixStream::connect(&stale).is_ok());

        let file = directory.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(matches!(SocketClaim::new(&file, ALONE), Err(Error::NotASocket(_))));
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
        assert!(!directory.path().join("file.lock").exists(), "nothing is left beside it");
        let error = SocketClaim::new(directory.path(), ALONE).unwrap_err().to_string();
        assert!(error.contains("exists and is not a socket, so it was left untouched"), "{error}");
    }

    #[test]
    fn a_path_that_is_too_long_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s".repeat(120));
        let error = SocketClaim::new(&path, ALONE).unwrap().bind(ALONE).unwrap_err().to_string();
        assert!(error.contains("107 bytes") && error.contains("--socket"), "{error}");
    }
}
