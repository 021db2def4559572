//! Drops what only the start needs: the user, the groups, every capability.
//!
//! What always holds: afterwards the process has less than before, or the report says what it could not drop and why. The
//! kernel is asked again, so that nothing is reported as dropped that it still grants.

use std::io;

use caps::CapSet;
use rustix::process::{DumpableBehavior, Gid, Uid, getgid, getgroups, getuid};
use rustix::thread::{
    CapabilitySet, capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

pub use capture::live::capture_rights;

/// The user that is switched to when none is named, and the group whose members may read.
pub const DEFAULT_NAME: &str = "retrocap";

/// What was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivilegeReport {
    /// The user switched to, with its number; `None` when the user stayed.
    pub user: Option<(String, u32)>,
    /// The primary group now.
    pub gid: u32,
    /// The supplementary groups now.
    pub groups: Vec<u32>,
    /// Whether the effective, permitted, inheritable and ambient sets are empty.
    pub capabilities: bool,
    /// Whether the bounding set is empty too. That needs `CAP_SETPCAP`; without it, `no_new_privs` has the same effect.
    pub bounding: bool,
    /// What could not be dropped here, each with its reason. It is empty if privileges are kept on request.
    pub kept: Vec<String>,
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
            (false, _) if self.kept.is_empty() => ", privileges kept as asked",
            (false, _) => ", with capabilities that could not be dropped",
        })
    }
}

/// Why privileges could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Other threads would keep what this one drops.
    #[error("privileges must be dropped before threads are started: there are {0}")]
    Threads(u32),
    /// The user asked for does not exist.
    #[error("there is no user {0} in /etc/passwd; create it, or name another with --user")]
    UnknownUser(String),
    /// Somebody else than root asked for another user.
    #[error("only root can switch to the user {0}: run with sudo, or leave --user out")]
    NotRoot(String),
    /// Root asked for a user that it cannot switch to here.
    #[error("cannot switch to the user {name}: {reason}; leave --user out to stay uid 0")]
    CannotSwitch {
        /// The user.
        name: String,
        /// What is missing.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
    },
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

/// What will be dropped. It is made early, because files are given to the later user while that is permitted.
#[derive(Clone, Debug, Default)]
pub struct PrivilegePlan {
    /// The user to switch to.
    user: Option<User>,
    /// The supplementary groups to have.
    groups: Vec<u32>,
    /// Nothing is dropped, on request.
    keep_all: bool,
    /// What is known to be impossible here.
    kept: Vec<String>,
    /// What to do about it.
    remedy: Option<&'static str>,
}

impl PrivilegePlan {
    /// Finds out what can be dropped.
    ///
    /// Root switches to `user`, or to the user `retrocap` if there is one. Where that is impossible (a container without
    /// `CAP_SETUID`, a user namespace without that user), root stays and the report says so.
    ///
    /// # Errors
    ///
    /// When a user is named that cannot be switched to.
    pub fn new(user: Option<&str>, keep_all: bool) -> Result<Self, Error> {
        if keep_all {
            return Ok(Self { keep_all, ..Self::default() });
        }
        let groups = group_id(&read("/etc/group")?, DEFAULT_NAME).into_iter().collect();
        let mut plan = Self { user: target_user(user)?, groups, ..Self::default() };
        if !getuid().is_root() {
            return Ok(plan);
        }
        let Some(Obstacle { reason, remedy }) = obstacle(plan.user.as_ref()) else { return Ok(plan) };
        if let (Some(target), true) = (&plan.user, user.is_some()) {
            return Err(Error::CannotSwitch { name: target.name.clone(), reason, remedy });
        }
        let target =
            plan.user.take().map_or_else(|| "another user".to_owned(), |user| format!("the user {}", user.name));
        plan.kept.push(format!("it stays uid 0, because it cannot switch to {target}: {reason}"));
        plan.remedy = Some(remedy);
        Ok(plan)
    }

    /// What to do about privileges that cannot be dropped here, if that is known.
    pub fn remedy(&self) -> Option<&'static str> {
        self.remedy
    }

    /// The user and group that the process will have, if it switches.
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.user.as_ref().map(|user| (user.uid, user.gid))
    }

    /// Drops all privileges of the process, for good. Call it when everything is open and before threads are started.
    ///
    /// Then every capability set is empty, nothing executed later gains privileges (`no_new_privs`), and the process can be
    /// neither traced nor dumped by others of its user.
    ///
    /// # Errors
    ///
    /// When there are threads, or the system refuses a step that should be possible.
    pub fn drop(&self) -> Result<PrivilegeReport, Error> {
        if self.keep_all {
            return Ok(PrivilegeReport { gid: getgid().as_raw(), ..PrivilegeReport::default() });
        }
        match threads()? {
            1 => {}
            more => return Err(Error::Threads(more)),
        }
        let report = self.drop_of_this_thread()?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(system("forbid core dumps"))?;
        Ok(report)
    }

    /// Tries the same steps on a thread that then ends; the process keeps its privileges.
    ///
    /// # Errors
    ///
    /// As [`PrivilegePlan::drop`].
    pub fn rehearse(&self) -> Result<PrivilegeReport, Error> {
        if self.keep_all {
            return self.drop();
        }
        let failed = || system("try it on a thread")(io::Error::other("the thread has panicked"));
        std::thread::scope(|scope| scope.spawn(|| self.drop_of_this_thread()).join()).unwrap_or_else(|_| Err(failed()))
    }

    fn drop_of_this_thread(&self) -> Result<PrivilegeReport, Error> {
        // Emptying the bounding set needs a capability, so it comes first.
        let bounding = caps::clear(None, CapSet::Bounding).is_ok() && is_empty(CapSet::Bounding);
        let mut report = PrivilegeReport { bounding, kept: self.kept.clone(), ..PrivilegeReport::default() };
        if getuid().is_root() {
            let wanted: Vec<_> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            if let Err(error) = set_thread_groups(&wanted) {
                report.kept.extend(kept_groups(error.into()));
            }
        }
        if let Some(target) = &self.user {
            let (uid, gid) = (Uid::from_raw(target.uid), Gid::from_raw(target.gid));
            set_thread_res_gid(gid, gid, gid).map_err(system("switch the group"))?;
            set_thread_res_uid(uid, uid, uid).map_err(system("switch the user"))?;
            report.user = Some((target.name.clone(), target.uid));
        }
        // Ambient before permitted: a kernel without ambient capabilities (before 4.3) has none to clear.
        let _ = caps::clear(None, CapSet::Ambient);
        for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
            if let Err(error) = caps::clear(None, set) {
                report.kept.push(format!("its {set:?} capabilities stay: {error}"));
            }
        }
        set_no_new_privs(true).map_err(system("set no_new_privs"))?;
        report.gid = getgid().as_raw();
        report.groups = getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
        self.verify(&mut report)?;
        Ok(report)
    }

    /// Asks the kernel whether it is really gone.
    fn verify(&self, report: &mut PrivilegeReport) -> Result<(), Error> {
        let sets = [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted];
        report.capabilities = sets.into_iter().all(is_empty);
        if !report.capabilities && report.kept.is_empty() {
            return Err(Error::StillThere("capabilities"));
        }
        if let Some(target) = &self.user
            && target.uid != 0
            && (getuid().as_raw() != target.uid || set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok())
        {
            return Err(Error::StillThere("root"));
        }
        Ok(())
    }
}

/// Drops all privileges: [`PrivilegePlan::new`] and [`PrivilegePlan::drop`] in one.
///
/// # Errors
///
/// As those.
pub fn drop(user: Option<&str>, keep_all: bool) -> Result<PrivilegeReport, Error> {
    PrivilegePlan::new(user, keep_all)?.drop()
}

/// Why root cannot switch to another user, and what to do about it.
struct Obstacle {
    reason: String,
    remedy: &'static str,
}

/// Why root cannot switch to a user here, or to any user where none is given; `None` if it can.
fn obstacle(user: Option<&User>) -> Option<Obstacle> {
    if user.is_some_and(|user| (user.uid, user.gid) == (getuid().as_raw(), getgid().as_raw())) {
        return None;
    }
    let effective = capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    let missing: Vec<_> = [(CapabilitySet::SETUID, "CAP_SETUID"), (CapabilitySet::SETGID, "CAP_SETGID")]
        .into_iter()
        .filter(|(right, _)| !effective.contains(*right))
        .map(|(_, name)| name)
        .collect();
    if !missing.is_empty() {
        return Some(Obstacle {
            reason: format!("that needs {}, which root does not have here", missing.join(" and ")),
            remedy: "give the container the capabilities SETUID and SETGID, or start it as an ordinary user with NET_RAW",
        });
    }
    let maps = ["/proc/self/uid_map", "/proc/self/gid_map"].map(|map| std::fs::read_to_string(map).unwrap_or_default());
    // Without /proc, the switch is tried.
    let lacks = |map: &str, number: Option<u32>| match number {
        _ if map.is_empty() => false,
        Some(number) => !is_mapped(map, number),
        None => (1..u32::from(u16::MAX)).all(|number| !is_mapped(map, number)),
    };
    let lacks_user = lacks(&maps[0], user.map(|user| user.uid)) || lacks(&maps[1], user.map(|user| user.gid));
    lacks_user.then(|| Obstacle {
        reason: match user {
            Some(User { uid, gid, .. }) => format!("uid {uid} or gid {gid} does not exist in this user namespace"),
            None => "this user namespace has no other user".to_owned(),
        },
        remedy: "map a range of users into the namespace (newuidmap, /etc/subuid; with podman: --uidmap), and have a user \
                 retrocap within it",
    })
}

/// Whether a map of a user namespace (user_namespaces(7)) has a number.
fn is_mapped(map: &str, number: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(|field| field.parse::<u64>().ok());
        let (Some(Some(first)), Some(Some(_)), Some(Some(count))) = (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&u64::from(number))
    })
}

/// What to report where the supplementary groups cannot be set: nothing if there is none to lose.
fn kept_groups(error: io::Error) -> Option<String> {
    let own = getgid();
    let groups: Vec<u32> =
        getgroups().unwrap_or_default().into_iter().filter(|gid| *gid != own).map(|gid| gid.as_raw()).collect();
    (!groups.is_empty()).then(|| format!("its supplementary groups {groups:?} stay: {error}"))
}

/// The number of the group whose members may read, if there is one.
pub fn readers() -> Result<Option<u32>, Error> {
    Ok(group_id(&read("/etc/group")?, DEFAULT_NAME))
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

/// The user to switch to; `None` to stay.
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
    // A minimal container has neither users nor groups.
    let found = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found,
    };
    // Names need not be UTF-8.
    let bytes = found.map_err(system(path_step(path)))?;
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
    fn a_user_namespace_maps_ranges() {
        for (map, number, mapped) in [
            ("         0          0 4294967295\n", 995, true),
            ("         0       1000          1\n", 0, true),
            ("         0       1000          1\n", 995, false),
            ("0 100000 65536\n", 65_535, true),
            ("0 100000 65536\n", 65_536, false),
            ("0 1000 1\n1 100000 10\n", 10, true),
            ("", 0, false),
        ] {
            assert_eq!(is_mapped(map, number), mapped, "{map}: {number}");
        }
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
