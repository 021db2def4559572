//! Confines a process that decodes hostile content for a client: it may compute, read its standard input, write to its
//! standard output, and create files in one folder.

use std::io;
use std::path::Path;

use rustix::process::DumpableBehavior;

use super::files::{self, PathRules};
use super::syscalls;

/// Restricts the calling thread, and those it starts, for good. Call it in a process of one thread, when everything else is
/// open. Returns what the kernel does not enforce; empty if it enforces all.
///
/// # Errors
///
/// If the kernel refuses the filters of system calls.
pub fn confine(folder: Option<&Path>) -> io::Result<Option<String>> {
    // A core dump would hold packets.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let rules = PathRules { writable: folder.into_iter().map(Path::to_owned).collect(), ..PathRules::default() };
    let missing = match files::restrict(&rules) {
        Ok(landlock) if landlock.enforced => None,
        Ok(_) => Some("this kernel has no Landlock, so that files are not restricted".to_owned()),
        Err(error) => Some(format!("files are not restricted (Landlock): {error}")),
    };
    for program in syscalls::decoder()? {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_writes_into_its_folder_alone_and_opens_no_socket() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (inside, outside) = (folder.path().join("object"), other.path().join("object"));
        let path = folder.path().to_owned();
        let confined = std::thread::spawn(move || {
            let missing = confine(Some(&path)).unwrap();
            (
                missing,
                std::fs::write(&inside, "content").map_err(|error| error.kind()),
                std::fs::write(&outside, "content").map_err(|error| error.kind()),
                std::fs::read("/etc/passwd").map(drop).map_err(|error| error.kind()),
                std::net::TcpStream::connect("127.0.0.1:9").map(drop).map_err(|error| error.kind()),
                std::os::unix::net::UnixDatagram::unbound().map(drop).map_err(|error| error.kind()),
            )
        });
        let denied = Err(io::ErrorKind::PermissionDenied);
        let (missing, inside, outside, read, connected, socket) = confined.join().unwrap();
        assert_eq!((inside, connected, socket), (Ok(()), denied, denied));
        match missing {
            None => assert_eq!((outside, read), (denied, denied)),
            Some(why) => eprintln!("SKIPPED: {why}"),
        }
    }
}
