//! Reads the key file of a spool.

use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::encryption::{KEY_FILE_BYTES_MAX, KeyError, Keys};

/// Start of the name of a credential that systemd passes (`LoadCredential=`, systemd.exec(5)).
const CREDENTIAL: &str = "credential:";

/// The reason why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the spool's key file {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Everybody may access it.
    #[error("everybody on this host may access the spool's key file {}: chmod o-rwx it", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// It contains something else.
    #[error("the spool's key file {}: {source}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// systemd passed no credentials.
    #[error("there is no credential {name}, because systemd passed none: add LoadCredential={name}:FILE to the unit")]
    NoCredentials {
        /// The name.
        name: String,
    },
}

/// Reads the keys. `credential:NAME` stands for a credential that systemd passes.
///
/// # Errors
///
/// If the file cannot be read, everybody may read it, or it contains something else.
pub fn read(path: &Path) -> Result<Keys, KeyFileError> {
    let path = match path.to_str().and_then(|path| path.strip_prefix(CREDENTIAL)) {
        Some(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(directory) => Path::new(&directory).join(name),
            None => return Err(KeyFileError::NoCredentials { name: name.to_owned() }),
        },
        None => path.to_owned(),
    };
    let failed = |source| KeyFileError::Read { path: path.clone(), source };
    let file = std::fs::File::open(&path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && metadata.permissions().mode() & 0o007 != 0 {
        return Err(KeyFileError::Open { path });
    }
    // Allocated at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX + 1));
    file.take(KEY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() > KEY_FILE_BYTES_MAX {
        // A part of the keys would make files look as if their key were missing.
        return Err(failed(io::Error::other(format!("it has more than {KEY_FILE_BYTES_MAX} bytes"))));
    }
    Keys::parse(&text).map_err(|source| KeyFileError::Content { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, [b'a'; 64]).unwrap();
        for (mode, works) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), works, "{mode:o}");
        }
        let error = read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none") && error.contains("No such file"), "{error}");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "secret").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("openssl rand -hex 32") && !error.contains("secret"), "{error}");
    }
}
