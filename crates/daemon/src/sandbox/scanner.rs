//! Confines a process that becomes another program, which searches hostile content: it may read that program and its
//! libraries, and the files of one folder. It writes no file and has no socket.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use super::syscalls;

/// The newest kernel interface whose restrictions are requested.
const NEWEST: ABI = ABI::V6;
/// Where programs and libraries are.
const PROGRAMS: [&str; 8] =
    ["/usr", "/lib", "/lib64", "/bin", "/nix/store", "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ssl/openssl.cnf"];
/// What the C library opens at the start of any program.
const DEVICES: [&str; 2] = ["/dev/null", "/proc/sys/vm/overcommit_memory"];

/// Restricts the calling process for good, and all that it becomes or starts. Returns what the kernel does not enforce;
/// empty if it enforces all.
///
/// # Errors
///
/// If the kernel refuses the filters of system calls.
pub fn confine(folder: &Path, program: &Path) -> io::Result<Option<String>> {
    let missing = match restrict(folder, program) {
        Ok(RulesetStatus::NotEnforced) => {
            Some("this kernel has no Landlock, so that files are not restricted".to_owned())
        }
        Ok(_) => None,
        Err(error) => Some(format!("files are not restricted (Landlock): {error}")),
    };
    for filter in syscalls::scanner()? {
        seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
    }
    Ok(missing)
}

fn restrict(folder: &Path, program: &Path) -> io::Result<RulesetStatus> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = read | AccessFs::Execute;
    let program = std::fs::canonicalize(program)?;
    let mut rules: Vec<(&Path, BitFlags<AccessFs>)> = vec![(folder, read), (&program, run)];
    rules.extend(PROGRAMS.iter().map(|path| (Path::new(path), run)));
    rules.extend(DEVICES.iter().map(|path| (Path::new(path), AccessFs::ReadFile.into())));
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let ruleset = rules.into_iter().try_fold(ruleset, |ruleset, (path, access)| {
        // What does not exist cannot be reached later either.
        let Ok(fd) = PathFd::new(path) else { return Ok(ruleset) };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        ruleset.add_rule(PathBeneath::new(fd, access)).map_err(io::Error::other)
    })?;
    ruleset.restrict_self().map(|status| status.ruleset).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_reads_its_folder_and_opens_no_socket() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (inside, outside) = (folder.path().join("content"), other.path().join("secret"));
        std::fs::write(&inside, "content").unwrap();
        std::fs::write(&outside, "secret").unwrap();
        let path = folder.path().to_owned();
        let confined = std::thread::spawn(move || {
            (
                confine(&path, Path::new("/bin/true")).unwrap(),
                std::fs::read(&inside).map(|read| read.len()).map_err(|error| error.kind()),
                std::fs::read(&outside).map(drop).map_err(|error| error.kind()),
                std::fs::write(&inside, "other").map_err(|error| error.kind()),
                std::net::TcpStream::connect("127.0.0.1:9").map(drop).map_err(|error| error.kind()),
                std::os::unix::net::UnixDatagram::unbound().map(drop).map_err(|error| error.kind()),
            )
        });
        let denied = Err(io::ErrorKind::PermissionDenied);
        let (missing, inside, outside, write, connected, socket) = confined.join().unwrap();
        assert_eq!((inside, connected, socket), (Ok(7), denied, denied));
        match missing {
            None => assert_eq!((outside, write), (denied, denied)),
            Some(why) => eprintln!("SKIPPED: {why}"),
        }
    }
}
