//! Restricts which files, ports and processes can be reached (landlock(7)).

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

/// The newest kernel interface whose restrictions are requested.
const NEWEST: ABI = ABI::V6;
/// The version of the kernel's interface that enforces all of it.
pub const VERSION_WANTED: u32 = NEWEST as u32;

/// The paths that may still be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// Files, and directories with everything in them, that may be read.
    pub readable: Vec<PathBuf>,
    /// Directories in which files may be read, written, created and removed: the audit log's and the spool's.
    pub writable: Vec<PathBuf>,
    /// Directories from which files may be removed at the end.
    pub removable: Vec<PathBuf>,
}

/// What the kernel enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Landlock {
    /// Version of its interface; 0 for none.
    pub(super) abi: u32,
    /// Whether it enforces everything that was requested.
    pub(super) whole: bool,
    /// Whether it enforces anything.
    pub(super) enforced: bool,
}

/// Version of the kernel's interface; 0 where there is none. A thread that then ends finds it out, because that restricts
/// the thread.
pub fn version() -> u32 {
    let restricted = std::thread::spawn(|| restrict(&PathRules::default()));
    restricted.join().ok().and_then(Result::ok).map_or(0, |landlock| landlock.abi)
}

/// Restricts the calling thread, and those it starts, to `files`. No TCP port can be bound or connected to, and no other
/// process can be sent a signal. A path that does not exist now cannot be reached later either.
pub(super) fn restrict(files: &PathRules) -> io::Result<Landlock> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // A log consists of plain files and directories, never of programs, sockets or devices.
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    let mut rules: Vec<(&Path, BitFlags<AccessFs>)> = Vec::new();
    rules.extend(files.readable.iter().map(|path| (path.as_path(), read)));
    rules.extend(files.writable.iter().map(|path| (path.as_path(), write)));
    rules.extend(files.removable.iter().map(|path| (path.as_path(), AccessFs::RemoveFile.into())));

    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST) & !scope_kept()))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let ruleset = rules.into_iter().try_fold(ruleset, |ruleset, (path, access)| {
        let Ok(fd) = PathFd::new(path) else {
            tracing::debug!("{} does not exist, so it cannot be reached later", path.display());
            return Ok(ruleset);
        };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        ruleset.add_rule(PathBeneath::new(fd, access)).map_err(io::Error::other)
    })?;
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(Landlock {
        abi: match status.landlock {
            LandlockStatus::Available { effective_abi, kernel_abi } => {
                kernel_abi.and_then(|abi| u32::try_from(abi).ok()).unwrap_or(effective_abi as u32)
            }
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
        },
        whole: status.ruleset == RulesetStatus::FullyEnforced,
        enforced: status.ruleset != RulesetStatus::NotEnforced,
    })
}

/// The supervisor may listen on an abstract socket, which must stay reachable.
fn scope_kept() -> BitFlags<Scope> {
    let notify = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    if notify.as_encoded_bytes().starts_with(b"@") { Scope::AbstractUnixSocket.into() } else { BitFlags::EMPTY }
}
