//! The address of a recorder, and the connection to it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::remote::Remote;
use super::stream::Stream;
use crate::error::Usage;

/// The address of a recorder.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// The Unix socket of a recorder on this machine.
    Socket(PathBuf),
    /// A recorder on another machine, or on a TCP port of this one.
    Remote(Box<Remote>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Remote(remote) => f.write_str(&remote.url),
        }
    }
}

/// Connects. Returns the stream and the value of the `Host` header.
pub(crate) async fn connect(address: &Address) -> anyhow::Result<(Box<dyn Stream>, String)> {
    match address {
        Address::Remote(remote) => remote.connect().await,
        #[cfg(unix)]
        Address::Socket(path) => match tokio::net::UnixStream::connect(path).await {
            Ok(stream) => Ok((Box::new(stream), "retrocap".to_owned())),
            Err(error) => Err(unreachable(path, error)),
        },
        #[cfg(not(unix))]
        Address::Socket(path) => Err(unreachable(path, ErrorKind::Unsupported.into())),
    }
}

/// An error that says who may connect to the socket and how to get permission. The advice depends on whether the group
/// retrocap exists.
fn permission_denied(socket: &Path) -> anyhow::Error {
    let path = socket.display();
    let groups = std::fs::read("/etc/group").unwrap_or_default();
    let exists = String::from_utf8_lossy(&groups).lines().any(|line| line.starts_with("retrocap:"));
    let join = "sudo usermod -aG retrocap $USER";
    if !exists {
        return anyhow!(
            "{path} is for root alone, because there is no group retrocap: run with sudo, or `sudo groupadd --system retrocap \
             && {join}`, restart the recorder, and log in again"
        );
    }
    anyhow!(
        "{path} is for root and the group retrocap: run with sudo, or `{join}` and log in again; if the group is newer than \
         the recorder, restart that too"
    )
}

#[cfg(unix)]
fn is_socket(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

#[cfg(not(unix))]
fn is_socket(_: &std::fs::Metadata) -> bool {
    true
}

/// Explains a failed connection, and says what to do.
fn unreachable(socket: &Path, error: std::io::Error) -> anyhow::Error {
    let path = socket.display();
    match error.kind() {
        ErrorKind::NotFound => {
            anyhow!("no recorder at {path}: start one with `sudo retrocap run`, or say where it listens with --socket")
        }
        // The kernel returns the same error for a file that is no socket and for a socket without a listener.
        _ if std::fs::metadata(socket).is_ok_and(|found| !is_socket(&found)) => {
            Usage::of(format_args!("{path} is not a socket: name the socket of a recorder with --socket"))
        }
        ErrorKind::PermissionDenied => permission_denied(socket),
        ErrorKind::ConnectionRefused => {
            anyhow!("the recorder at {path} has ended and left its socket behind: start one with `sudo retrocap run`")
        }
        ErrorKind::InvalidInput => Usage::of(format_args!(
            "{path} cannot be a socket: {error}; try /run/retrocap/retrocap.sock or ./retrocap.sock"
        )),
        _ => anyhow::Error::new(error).context(format!("cannot reach the recorder at {path}")),
    }
}
