//! Giving up what only the start needs: the user, the groups, every capability.
//!
//! What always holds: [`drop`] leaves the process with less than before or says what it could not give up; it never
//! reports as dropped what the kernel, asked again, still grants.

use std::io;

use caps::CapSet;
use rustix::process::{DumpableBehavior, Gid, Uid, getgid, getuid};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

pub use capture::live::capture_rights;

/// The user that is switched to when none is named, and the group whose members may read.
pub const DEFAULT_NAME: &str = "retrocap";

/// What was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivilegeReport {
    /// The user switched to, with its number; `None` when the process stayed who it was.
    pub user: Option<(String, u32)>,
    /// The primary group now.
    pub gid: u32,
    /// The supplementary groups now.
    pub groups: Vec<u32>,
    /// Whether the effective, permitted, inheritable and ambient sets are empty.
    pub capabilities: bool,
    /// Whether the bounding set is empty too; that takes `CAP_SETPCAP`, which a plain user with file capabilities
    /// does not have. `no_new_privs` makes up for it.
    pub bounding: bool,
}

impl std::fmt::Display for PrivilegeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.user {
            Some((name, uid)) => write!(f, "runs as {name} (uid {uid}, gid {}, groups {:?})", self.gid, self.groups)?,
            None => write!(f, "stays uid {}", getuid())?,
        }
        f.write_str(match (self.capabilities, self.bounding) {
            (true, true) => ", without capabilities",
            (true, false) => ", without capabilities (the bounding set could not be emptied)",
            (false, _) => ", privileges kept as asked",
        })
    }
}

/// Why privileges could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Other threads would keep what this one gives up.
    #[error("privileges must be dropped before threads are started: there are {0}")]
    Threads(u32),
    /// The user asked for does not exist.
    #[error("there is no user {0} in /etc/passwd; create it, or name another with --user")]
    UnknownUser(String),
    /// Somebody else than root asked for another user.
    #[error("only root can switch to the user {0}: run with sudo, or leave --user out")]
    NotRoot(String),
    /// The system refused a step.
    #[error("cannot {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// Afterwards the kernel still granted something.
    #[error("privileges are still there after dropping them: {0}")]
    StillThere(&'static str),
}

/// Gives up all privileges, for good. Call it when sockets are open and before threads are started.
///
/// Switches to `user`; without one to the user `retrocap` if there is one and the process is root's, otherwise the
/// user stays. Supplementary groups become the group `retrocap` alone if there is one, else none. Then every
/// capability set is emptied, nothing executed later gains privileges (`no_new_privs`), and the process can be neither
/// traced nor dumped by others of its user. With `keep_root` nothing of this is done.
pub fn drop(user: Option<&str>, keep_root: bool) -> Result<PrivilegeReport, Error> {
    if keep_root {
        return Ok(PrivilegeReport { gid: getgid().as_raw(), ..PrivilegeReport::default() });
    }
    match threads()? {
        1 => {}
        more => return Err(Error::Threads(more)),
    }
    let target = target_user(user)?;
    // Emptying the bounding set takes a capability, so it comes first.
    let bounding = caps::clear(None, CapSet::Bounding).is_ok() && is_empty(CapSet::Bounding);
    let groups: Vec<u32> = group_id(&read("/etc/group")?, DEFAULT_NAME).into_iter().collect();
    let mut dropped = PrivilegeReport { gid: getgid().as_raw(), bounding, ..PrivilegeReport::default() };
    if getuid().is_root() {
        set_thread_groups(&groups.iter().map(|gid| Gid::from_raw(*gid)).collect::<Vec<_>>())
            .map_err(system("set the supplementary groups"))?;
        dropped.groups = groups;
    }
    if let Some(target) = target {
        let (uid, gid) = (Uid::from_raw(target.uid), Gid::from_raw(target.gid));
        set_thread_res_gid(gid, gid, gid).map_err(system("switch the group"))?;
        set_thread_res_uid(uid, uid, uid).map_err(system("switch the user"))?;
        dropped.gid = target.gid;
        dropped.user = Some((target.name, target.uid));
    }
    // Ambient before permitted: a kernel without ambient capabilities (before 4.3) has none to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        caps::clear(None, set)
            .map_err(|error| system("clear the capabilities")(io::Error::other(error.to_string())))?;
    }
    set_no_new_privs(true).map_err(system("set no_new_privs"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(system("forbid core dumps"))?;
    dropped.capabilities = true;
    verify(&dropped)?;
    Ok(dropped)
}

/// The user and group numbers that [`drop`] would switch to; `None` where it would stay who it is.
pub fn target(user: Option<&str>) -> Result<Option<(u32, u32)>, Error> {
    Ok(target_user(user)?.map(|user| (user.uid, user.gid)))
}

/// The number of the group whose members may read, if there is one.
pub fn readers() -> Result<Option<u32>, Error> {
    Ok(group_id(&read("/etc/group")?, DEFAULT_NAME))
}

/// Asks the kernel whether it is really gone.
fn verify(dropped: &PrivilegeReport) -> Result<(), Error> {
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        if !is_empty(set) {
            return Err(Error::StillThere("capabilities"));
        }
    }
    if let Some((_, uid)) = &dropped.user
        && *uid != 0
        && (getuid().as_raw() != *uid || set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok())
    {
        return Err(Error::StillThere("root"));
    }
    Ok(())
}

fn is_empty(set: CapSet) -> bool {
    caps::read(None, set).is_ok_and(|capabilities| capabilities.is_empty())
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// Whom to become; `None` is to stay.
fn target_user(user: Option<&str>) -> Result<Option<User>, Error> {
    let found = find_user(&read("/etc/passwd")?, user.unwrap_or(DEFAULT_NAME));
    match (user, found) {
        (Some(name), None) => Err(Error::UnknownUser(name.to_owned())),
        (None, None) => Ok(None),
        (_, Some(found)) if getuid().is_root() => Ok(Some(found)),
        (Some(_), Some(found)) if found.uid == getuid().as_raw() => Ok(None),
        (Some(name), Some(_)) => Err(Error::NotRoot(name.to_owned())),
        (None, Some(_)) => Ok(None),
    }
}

/// A line of passwd(5), by name or by number.
fn find_user(passwd: &str, wanted: &str) -> Option<User> {
    let users = || {
        passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            Some(User { name, uid, gid: fields.next()?.parse().ok()? })
        })
    };
    let number = wanted.parse::<u32>().ok();
    users().find(|user| user.name == wanted).or_else(|| users().find(|user| Some(user.uid) == number))
}

/// A line of group(5).
fn group_id(groups: &str, wanted: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? == wanted { fields.nth(1)?.parse().ok() } else { None }
    })
}

fn threads() -> Result<u32, Error> {
    let status = read("/proc/self/status")?;
    let count = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok());
    count.ok_or(Error::System { step: "count threads", source: io::ErrorKind::InvalidData.into() })
}

fn read(path: &'static str) -> Result<String, Error> {
    // Names need not be UTF-8.
    let bytes = std::fs::read(path).map_err(system(path_step(path)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn path_step(path: &str) -> &'static str {
    match path {
        "/etc/passwd" => "read /etc/passwd",
        "/etc/group" => "read /etc/group",
        _ => "read /proc/self/status",
    }
}

fn system<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::System { step, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nbroken:x\nretrocap:x:995:990::/:/usr/sbin/nologin\n7:x:8:9:::\n";
        let user = |name: &str, uid, gid| Some(User { name: name.to_owned(), uid, gid });
        for (wanted, expect) in [
            ("root", user("root", 0, 0)),
            ("retrocap", user("retrocap", 995, 990)),
            ("995", user("retrocap", 995, 990)),
            ("7", user("7", 8, 9)),
            ("broken", None),
            ("", None),
        ] {
            assert_eq!(find_user(passwd, wanted), expect, "{wanted}");
        }
        assert_eq!(group_id("adm:x:4:\nretrocap:x:990:alice,bob\n", "retrocap"), Some(990));
        assert_eq!(group_id("retrocapper:x:1:\n", "retrocap"), None);
    }

    #[test]
    fn with_threads_nothing_is_dropped() {
        std::thread::scope(|threads| {
            let (done, wait) = std::sync::mpsc::channel::<()>();
            threads.spawn(move || wait.recv());
            assert!(matches!(drop(None, false), Err(Error::Threads(2..))));
            done.send(()).unwrap();
        });
        assert_eq!(drop(None, true).unwrap().user, None);
    }
}
