//! Resolves the path of an output file without following links that other users planted.
//!
//! In a directory that several users may write to, such as `/tmp`, any of them can place a link where a file is
//! expected. Linux refuses to follow such links if `fs.protected_symlinks` is set. This module refuses them everywhere,
//! also for root.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, anyhow};

/// Maximum number of symbolic links in a path, as on Linux.
const LINKS_MAX: u32 = 40;

/// Resolves all symbolic links of `path`. Its last component need not exist.
///
/// # Errors
///
/// When a directory of the path is missing, links form a loop, or a link in a shared directory belongs to another user.
pub(crate) fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let cannot = || format!("cannot write {}", path.display());
    let mut rest: VecDeque<OsString> = names(&std::path::absolute(path).with_context(cannot)?);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = if name == "/" { PathBuf::from("/") } else { at.join(&name) };
        let metadata = match next.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound && rest.is_empty() => return Ok(next),
            Err(error) => return Err(anyhow::Error::new(error).context(cannot())),
        };
        if !metadata.is_symlink() {
            at = next;
            continue;
        }
        refuse_foreign(&next, &metadata)?;
        links += 1;
        if links > LINKS_MAX {
            return Err(anyhow!("{}: too many symbolic links", cannot()));
        }
        if next.starts_with("/proc") {
            // The kernel resolves links in /proc itself, also to files without a path, such as pipes of a shell.
            at = next.canonicalize().unwrap_or(next);
            continue;
        }
        let target = next.read_link().with_context(cannot)?;
        for name in names(&target).into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(at)
}

fn names(path: &Path) -> VecDeque<OsString> {
    let components = path.components().filter(|component| !matches!(component, Component::CurDir));
    components.map(|component| component.as_os_str().to_owned()).collect()
}

/// Refuses a link or special file that another user placed in a shared directory.
///
/// # Errors
///
/// When the directory is shared (sticky and writable by others) and the file belongs to neither this user nor root.
#[cfg(unix)]
pub(crate) fn refuse_foreign(path: &Path, metadata: &Metadata) -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    const STICKY: u32 = 0o1000;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let Some(parent) = path.parent() else { return Ok(()) };
    let parent = parent.metadata().with_context(|| format!("cannot look at {}", parent.display()))?;
    let is_shared = parent.mode() & STICKY != 0 && parent.mode() & WRITABLE_BY_OTHERS != 0;
    if !is_shared || metadata.uid() == 0 || is_ours(metadata) {
        return Ok(());
    }
    let what = if metadata.is_symlink() { "a symbolic link" } else { "not a regular file" };
    Err(anyhow!(
        "{} is {what} of uid {} in a directory that users share, so it is not written to: choose another path, or \
         remove it",
        path.display(),
        metadata.uid()
    ))
}

/// Whether the file's owner is the effective user.
#[cfg(unix)]
pub(crate) fn is_ours(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    metadata.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
pub(crate) fn refuse_foreign(_: &Path, _: &Metadata) -> anyhow::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn is_ours(_: &Metadata) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn links_are_followed_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().canonicalize().unwrap();
        std::fs::create_dir(at.join("sub")).unwrap();
        symlink("sub/../missing", at.join("relative")).unwrap();
        symlink(at.join("relative"), at.join("absolute")).unwrap();
        symlink("sub", at.join("folder")).unwrap();
        for (path, behind) in [
            ("plain", "plain"),
            ("relative", "missing"),
            ("absolute", "missing"),
            ("folder/file", "sub/file"),
            ("./folder/../file", "file"),
        ] {
            assert_eq!(resolve(&at.join(path)).unwrap(), at.join(behind), "{path}");
        }
        assert!(resolve(&at.join("nowhere/file")).is_err());
    }

    #[test]
    fn a_link_of_another_user_in_a_shared_directory_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make a link that belongs to somebody else");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let (link, behind) = (at.join("link"), at.join("behind"));
        symlink(&behind, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(1), Some(1)).unwrap();
        assert_eq!(resolve(&link).unwrap(), behind.parent().unwrap().canonicalize().unwrap().join("behind"));
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o1777)).unwrap();
        let error = resolve(&link).unwrap_err().to_string();
        assert!(error.contains("symbolic link of uid 1"), "{error}");
        assert!(resolve(&link.join("deeper")).is_err());
        std::os::unix::fs::lchown(&link, Some(0), Some(0)).unwrap();
        assert!(resolve(&link).is_ok());
    }
}
