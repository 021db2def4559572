//! Destinations of an export: stdout, a file that appears only when it is complete, or a FIFO or device.
//!
//! The extension of the file name decides whether a file is compressed (see [`Encoder`]).
//!
//! Invariants: only the owner can read a new file unless a mode is given, whatever the umask is; and a link that
//! another user placed in a shared directory is not followed (see [`destination`](super::destination)).

use std::fs::{File, Metadata};
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::compression::Encoder;
use super::destination;
use crate::error::Usage;

/// Bytes that are buffered before a write.
const CHUNK_BYTES: usize = 256 << 10;

/// The reader closed the pipe, because it has seen enough.
#[derive(Debug, thiserror::Error)]
#[error("the pipe was closed")]
pub(crate) struct ClosedPipe;

/// Maps a write error to [`ClosedPipe`], or adds the name of the output.
pub(crate) fn failed(name: &str, error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => ClosedPipe.into(),
        _ => anyhow::Error::new(error).context(format!("writing {name}")),
    }
}

/// An open export. [`write_some`](Self::write_some) writes the [`buffer`](Self::buffer) once it is large enough.
#[derive(Debug)]
pub(crate) struct Output {
    target: Target,
    name: String,
    buffer: Vec<u8>,
    encoder: Option<Encoder>,
    /// Bytes that left the buffer, before compression.
    taken_bytes: u64,
    /// Bytes of the file so far.
    written_bytes: u64,
}

/// Permission bits of new files, as for chmod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileMode(pub(crate) u32);

impl FileMode {
    /// Readable only by the owner, because exports contain secrets.
    pub(crate) const PRIVATE: Self = Self(0o600);
}

impl Default for FileMode {
    fn default() -> Self {
        Self::PRIVATE
    }
}

impl std::str::FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode & !0o666 == 0 && mode & 0o600 == 0o600 => Ok(Self(mode)),
            Ok(_) => Err(format!("{text} is not between 600 and 666, or makes a capture executable: try 640 or 644")),
            Err(_) => Err(format!("{text:?} is not an octal number: try 640 or 644")),
        }
    }
}

#[derive(Debug)]
enum Target {
    Stdout(std::io::Stdout),
    /// A FIFO or device, which is written in place because a rename would replace it.
    Direct(File),
    /// A temporary file and the path that it is renamed to when it is whole.
    Hidden(NamedTempFile, PathBuf),
}

impl Output {
    /// Opens `path`, where `-` is stdout.
    ///
    /// # Errors
    ///
    /// When the path cannot be written, or stdout is a terminal, which packets would garble.
    pub(crate) fn open(path: &Path, mode: FileMode) -> anyhow::Result<Self> {
        let output = Self::open_to_follow(path, mode)?;
        if let Target::Hidden(file, _) = &output.target {
            remove_when_interrupted(file.path());
        }
        Ok(output)
    }

    /// As [`open`](Self::open), for a caller that finishes the file on an interrupt instead of removing it.
    pub(crate) fn open_to_follow(path: &Path, mode: FileMode) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Self::stdout();
        }
        let name = path.display().to_string();
        let cannot = |error: std::io::Error| anyhow::Error::new(error).context(format!("cannot write {name}"));
        let encoder = Encoder::of(path)?;
        // Replace the target of a symbolic link, not the link.
        let resolved = destination::resolve(path)?;
        let existing = match resolved.metadata() {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(cannot(error)),
        };
        let target = match &existing {
            Some(metadata) if metadata.is_dir() => {
                return Err(Usage::of(format_args!(
                    "{name} is a directory: try -w {name}/odd.pcapng, or -w - for stdout"
                )));
            }
            Some(metadata) if !metadata.is_file() => {
                destination::refuse_foreign(&resolved, metadata)?;
                Target::Direct(File::options().write(true).open(&resolved).map_err(cannot)?)
            }
            _ => Target::Hidden(hidden_beside(&resolved, mode, existing.as_ref()).map_err(cannot)?, resolved),
        };
        Ok(Self { encoder, ..Self::to(target, name) })
    }

    fn stdout() -> anyhow::Result<Self> {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Usage::of("packets would garble the terminal: try -w odd.pcapng, or a pipe to tcpdump -r -"));
        }
        Ok(Self::to(Target::Stdout(stdout), "stdout".to_owned()))
    }

    fn to(target: Target, name: String) -> Self {
        let buffer = Vec::with_capacity(2 * CHUNK_BYTES);
        Self { target, name, buffer, encoder: None, taken_bytes: 0, written_bytes: 0 }
    }

    /// Whether the output is stdout.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self.target, Target::Stdout(_))
    }

    /// Whether the output is stdout and the shell redirected it to a file.
    pub(crate) fn is_redirected(&self) -> bool {
        self.is_stdout() && stdout_is_a_file()
    }

    /// Whether the output is a file that appears when it is whole.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.target, Target::Hidden(..))
    }

    /// Writes the buffer up to `bytes` bytes from the start of the export, if that is enough for a write. The rest stays in
    /// the buffer.
    pub(crate) fn write_up_to(&mut self, bytes: u64) -> anyhow::Result<()> {
        let ready =
            usize::try_from(bytes.saturating_sub(self.taken_bytes)).unwrap_or(usize::MAX).min(self.buffer.len());
        if ready < CHUNK_BYTES {
            return Ok(());
        }
        let rest = self.buffer.split_off(ready);
        self.write_all()?;
        self.buffer = rest;
        Ok(())
    }

    /// Removes what the buffer holds beyond `bytes` bytes from the start of the export.
    pub(crate) fn truncate(&mut self, bytes: u64) {
        self.buffer.truncate(usize::try_from(bytes.saturating_sub(self.taken_bytes)).unwrap_or(usize::MAX));
    }

    /// The buffer that exporters append to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes the buffer if it holds at least [`CHUNK_BYTES`].
    pub(crate) fn write_some(&mut self) -> anyhow::Result<()> {
        if self.buffer.len() >= CHUNK_BYTES { self.write_all() } else { Ok(()) }
    }

    /// Writes the buffer.
    pub(crate) fn write_all(&mut self) -> anyhow::Result<()> {
        self.taken_bytes += self.buffer.len() as u64;
        match &mut self.encoder {
            None => {
                let buffer = std::mem::take(&mut self.buffer);
                self.write(&buffer)?;
                self.buffer = buffer;
            }
            Some(encoder) => {
                let encoded = encoder.encode(&self.buffer).map_err(|error| failed(&self.name, error))?;
                self.write(&encoded)?;
            }
        }
        self.buffer.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = match &mut self.target {
            Target::Stdout(stdout) => {
                // Rust's stdout buffers bytes after the last line feed, so flush it.
                let mut stdout = stdout.lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Target::Direct(file) => file.write_all(bytes),
            Target::Hidden(file, _) => file.as_file_mut().write_all(bytes),
        };
        written.map_err(|error| failed(&self.name, error))?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes the buffer and gives the file its name. Returns the size of the file in bytes.
    pub(crate) fn finish(mut self) -> anyhow::Result<u64> {
        self.write_all()?;
        if let Some(encoder) = self.encoder.take() {
            let end = encoder.finish().map_err(|error| failed(&self.name, error))?;
            self.write(&end)?;
        }
        match self.target {
            Target::Stdout(mut stdout) => stdout.flush().map_err(|error| failed(&self.name, error))?,
            Target::Direct(mut file) => file.flush().map_err(|error| failed(&self.name, error))?,
            Target::Hidden(file, path) => {
                file.persist(path).map_err(|error| failed(&self.name, error.error))?;
            }
        }
        Ok(self.written_bytes)
    }
}

/// Whether stdout is a regular file. Then no reader of a pipe prints to the same terminal.
#[cfg(unix)]
pub(crate) fn stdout_is_a_file() -> bool {
    rustix::fs::fstat(std::io::stdout())
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile)
}

#[cfg(not(unix))]
pub(crate) fn stdout_is_a_file() -> bool {
    false
}

/// Exit status of a program that Ctrl-C ended, by the convention of shells (128 + SIGINT).
pub(crate) const INTERRUPTED: i32 = 130;

/// Removes the partial file or directory and exits when the program is interrupted.
pub(crate) fn remove_when_interrupted(path: &Path) {
    let path = path.to_owned();
    when_interrupted(move || {
        let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        std::process::exit(INTERRUPTED);
    });
}

/// Runs `act` on the first Ctrl-C, SIGTERM or SIGHUP after this call, instead of ending the program.
pub(crate) fn when_interrupted(act: impl FnOnce() + Send + 'static) {
    // The handlers are in place when this returns, and remember a signal that comes before the thread waits for it. If they
    // cannot be installed, an interrupt ends the program and leaves a hidden file behind, nothing worse.
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
        let _ = std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
            if signals.forever().next().is_some() {
                act();
            }
        });
    }
    #[cfg(not(unix))]
    let _ = std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok()) {
            act();
        }
    });
}

/// Creates a hidden file in the directory of the export. It keeps the permissions of the file that it replaces, if that
/// belongs to this user.
fn hidden_beside(path: &Path, mode: FileMode, existing: Option<&Metadata>) -> std::io::Result<NamedTempFile> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".retrocap-").suffix(".part").tempfile_in(directory)?;
    match existing.filter(|existing| destination::is_ours(existing)) {
        Some(existing) => file.as_file().set_permissions(existing.permissions())?,
        None => set_mode(file.as_file(), mode)?,
    }
    Ok(file)
}

/// Sets the permissions of a new file, independent of the umask.
#[cfg(unix)]
pub(crate) fn set_mode(file: &File, mode: FileMode) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(mode.0))
}

#[cfg(not(unix))]
pub(crate) fn set_mode(_: &File, _: FileMode) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("odd.pcapng");
        let mut given_up = Output::open(&path, FileMode::PRIVATE).unwrap();
        given_up.buffer().extend_from_slice(b"half");
        given_up.write_all().unwrap();
        assert!(!path.exists());
        drop(given_up);
        assert_eq!(files(directory.path()), Vec::<String>::new());

        let mut output = Output::open(&path, FileMode::PRIVATE).unwrap();
        output.buffer().extend_from_slice(b"whole");
        assert_eq!(output.finish().unwrap(), 5);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(files(directory.path()), ["odd.pcapng"]);
    }

    #[test]
    fn only_whole_packets_are_written_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("odd.pcapng");
        let mut output = Output::open(&path, FileMode::PRIVATE).unwrap();
        output.buffer().resize(2 * CHUNK_BYTES + 7, 1);
        output.write_up_to(CHUNK_BYTES as u64 + 3).unwrap();
        assert_eq!((output.written_bytes, output.buffer().len()), (CHUNK_BYTES as u64 + 3, CHUNK_BYTES + 4));
        output.truncate(CHUNK_BYTES as u64 + 5);
        assert_eq!(output.finish().unwrap(), CHUNK_BYTES as u64 + 5);
    }

    #[test]
    fn the_extension_decides_the_compression() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["odd.pcap.gz", "odd.pcapng.ZST", "odd.lz4"] {
            let path = directory.path().join(name);
            let mut output = Output::open(&path, FileMode::PRIVATE).unwrap();
            output.buffer().resize(3 * CHUNK_BYTES, 1);
            output.write_some().unwrap();
            output.buffer().extend_from_slice(b"end");
            let file_bytes = output.finish().unwrap();
            assert_eq!(path.metadata().unwrap().len(), file_bytes);
            assert!(file_bytes < CHUNK_BYTES as u64);
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut crate::capture_input::open(&path).unwrap(), &mut plain).unwrap();
            assert_eq!(plain, [&vec![1; 3 * CHUNK_BYTES][..], b"end"].concat());
        }
        let error = Output::open(&directory.path().join("odd.pcap.xz"), FileMode::PRIVATE).unwrap_err();
        assert!(error.to_string().contains("try a name that ends in .gz"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_a_file_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut output = Output::open(&link, FileMode::PRIVATE).unwrap();
        output.buffer().extend_from_slice(b"new");
        output.finish().unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_private_unless_asked_otherwise() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        for (text, mode) in [("600", 0o600), ("644", 0o644), ("0640", 0o640)] {
            let path = directory.path().join(text);
            let output = Output::open(&path, text.parse().unwrap()).unwrap();
            output.finish().unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
        for wrong in ["", "x", "777", "4644", "044", "-600"] {
            assert!(wrong.parse::<FileMode>().is_err(), "{wrong}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_whose_target_is_missing_is_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::os::unix::fs::symlink("file", &link).unwrap();
        let mut output = Output::open(&link, FileMode::PRIVATE).unwrap();
        output.buffer().extend_from_slice(b"new");
        assert!(!file.exists());
        output.finish().unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        let round = directory.path().join("round");
        std::os::unix::fs::symlink("round", &round).unwrap();
        assert!(Output::open(&round, FileMode::PRIVATE).unwrap_err().to_string().contains("links"));
    }

    #[test]
    fn a_directory_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let error = Output::open(directory.path(), FileMode::PRIVATE).unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
        assert!(Output::open(&directory.path().join("nowhere/odd.pcapng"), FileMode::PRIVATE).is_err());
    }
}
