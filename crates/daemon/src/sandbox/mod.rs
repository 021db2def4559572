//! The sandbox: limits what an attacker who has taken the process over could do.
//!
//! ```text
//! rings, locked memory, sockets, files opened ─ user and capabilities dropped ─ Landlock ─ seccomp, all threads ─┐
//!                                                             ┌─────────── threads start ◄──────────────────────┘
//!              seccomp by role: capture │ interfaces │ query │ serve │ audit │ spool
//! ```
//!
//! What always holds: nothing is reported as enforced that the kernel did not accept. A thread keeps every restriction, and
//! so do the threads that it starts. With [`SandboxMode::Required`], either all of it holds or nothing is recorded.

pub mod decoder;
pub mod files;
mod role;
pub mod scanner;
mod syscalls;

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::DumpableBehavior;
use seccompiler::BpfProgram;

pub use files::PathRules;
pub use role::Role;

use super::privileges::PrivilegeReport;
use base::foreign::Foreign;
use base::log_limit::LogLimit;
use query::status::{LandlockStatus, SandboxStatus, SeccompStatus};

/// What to do where the system lacks a part of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// The recorder does not start.
    Required,
    /// It records with what is available, and reports what is missing.
    #[default]
    BestEffort,
    /// Nothing is enforced.
    Off,
}

impl SandboxMode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::BestEffort => "best-effort",
            Self::Off => "off",
        }
    }
}

impl FromStr for SandboxMode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let mode = [Self::Required, Self::BestEffort, Self::Off].into_iter().find(|mode| mode.as_str() == word);
        mode.ok_or_else(|| format!("there is no sandbox mode {word:?}: use required, best-effort or off"))
    }
}

/// Why a required sandbox cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part is missing.
    #[error("the sandbox is required, but {0}; --sandbox=best-effort records without it")]
    Missing(String),
}

/// The sandbox of a process; clones are the same one.
#[derive(Clone, Debug)]
pub struct Sandbox {
    mode: SandboxMode,
    /// One for each of [`Role::OF_THREADS`]; empty where nothing is enforced.
    roles: Arc<Vec<(Role, BpfProgram)>>,
    status: Arc<SandboxStatus>,
    /// Threads that could not take on their role.
    unrestricted: Arc<AtomicU64>,
}

impl Sandbox {
    /// Restricts the calling thread and all it will start. Call it when everything is open, and before threads start.
    ///
    /// # Errors
    ///
    /// With [`SandboxMode::Required`], what is missing.
    pub fn enforce(mode: SandboxMode, files: &PathRules, dropped: &PrivilegeReport) -> Result<Self, Error> {
        if mode == SandboxMode::Off {
            return Ok(Self::none(dropped));
        }
        let mut missing = dropped.kept.clone();
        // Other processes of the same user cannot read the memory, and no core dump holds packets.
        if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            missing.push(format!("core dumps cannot be forbidden: {error}"));
        }
        let landlock = enforce_landlock(files, &mut missing);
        let roles = enforce_seccomp().unwrap_or_else(|error| {
            missing.push(format!("system calls are not filtered (seccomp): {error}"));
            Vec::new()
        });
        if mode == SandboxMode::Required && !dropped.capabilities {
            missing.push("privileges are kept (--no-drop-privileges)".to_owned());
        }
        if mode == SandboxMode::Required && !missing.is_empty() {
            return Err(Error::Missing(missing.join(", and ")));
        }
        for what in &missing {
            tracing::warn!("the sandbox has a gap: {what}");
        }
        let kept_privileges = foreign(&dropped.kept);
        let (mode_name, missing) = (mode.as_str().into(), foreign(&missing));
        let status = SandboxStatus { mode: mode_name, landlock, missing, kept_privileges, ..kernel_status(&roles) };
        Ok(Self { mode, roles: Arc::new(roles), status: Arc::new(status), unrestricted: Arc::default() })
    }

    /// One that restricts nothing.
    fn none(dropped: &PrivilegeReport) -> Self {
        for kept in &dropped.kept {
            tracing::warn!("a privilege could not be dropped: {kept}");
        }
        let (mode, kept_privileges) = (SandboxMode::Off.as_str().into(), foreign(&dropped.kept));
        let status = SandboxStatus { mode, kept_privileges, ..kernel_status(&[]) };
        Self { mode: SandboxMode::Off, roles: Arc::default(), status: Arc::new(status), unrestricted: Arc::default() }
    }

    /// Takes on a role, for good. Each thread calls it first of all.
    ///
    /// If the kernel refuses, the process ends with [`SandboxMode::Required`]; otherwise the thread is counted
    /// ([`unrestricted_threads`](Self::unrestricted_threads)).
    pub fn enter(&self, role: Role) {
        let Some((_, program)) = self.roles.iter().find(|(of, _)| *of == role) else { return };
        match seccompiler::apply_filter(program) {
            Ok(()) => {}
            Err(error) if self.mode == SandboxMode::Required => {
                tracing::error!("a thread of role {} cannot be restricted: {error}", role.as_str());
                std::process::exit(1);
            }
            Err(error) => {
                static LIMIT: LogLimit = LogLimit::new();
                self.unrestricted.fetch_add(1, Ordering::Relaxed);
                // Threads of queries come and go, so this could be logged often.
                if let Some(left_out) = LIMIT.admit() {
                    tracing::warn!("a thread of role {} is not restricted to it: {error}{left_out}", role.as_str());
                }
            }
        }
    }

    /// How many threads since the start could not take on their role.
    pub fn unrestricted_threads(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unrestricted)
    }

    /// What is enforced.
    pub fn status(&self) -> &SandboxStatus {
        &self.status
    }
}

impl std::fmt::Display for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.mode == SandboxMode::Off {
            return f.write_str("no sandbox, as asked");
        }
        let SandboxStatus { seccomp, landlock, .. } = self.status();
        let calls = if seccomp.enforced { "filtered by role" } else { "NOT filtered" };
        match landlock.enforced.untrusted() {
            "none" => write!(f, "sandbox: system calls {calls}, files NOT restricted"),
            how => write!(f, "sandbox: system calls {calls}, Landlock {} ({how})", landlock.abi),
        }
    }
}

fn foreign(texts: &[String]) -> Vec<Foreign> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

fn enforce_landlock(files: &PathRules, missing: &mut Vec<String>) -> LandlockStatus {
    let paths = |paths: &[std::path::PathBuf]| paths.iter().map(|path| path.display().to_string().into()).collect();
    let mut status =
        LandlockStatus { readable: paths(&files.readable), writable: paths(&files.writable), ..no_landlock() };
    let restricted = files::restrict(files);
    status.abi = restricted.as_ref().map_or(0, |landlock| landlock.abi);
    match restricted {
        // The kernel says that it enforces the rules, but the root directory can still be read.
        Ok(landlock) if landlock.enforced && std::fs::read_dir("/").is_ok() => {
            missing.push(
                "files are not restricted (Landlock): the kernel accepted the rules but does not enforce them".into(),
            );
        }
        Ok(landlock) if landlock.whole => status.enforced = "full".into(),
        Ok(landlock) if landlock.enforced => {
            status.enforced = "partial".into();
            missing.push(format!("this kernel's Landlock (version {}) restricts less than asked for", landlock.abi));
        }
        Ok(_) => {
            missing.push("files are not restricted: this kernel has no Landlock (from 5.13 on, if built in)".into())
        }
        Err(error) => missing.push(format!("files are not restricted (Landlock): {error}")),
    }
    status
}

fn no_landlock() -> LandlockStatus {
    LandlockStatus { enforced: "none".into(), ..LandlockStatus::default() }
}

fn enforce_seccomp() -> io::Result<Vec<(Role, BpfProgram)>> {
    let programs: Vec<_> =
        Role::OF_THREADS.into_iter().map(|role| Ok((role, syscalls::role(role)?))).collect::<io::Result<_>>()?;
    for program in syscalls::all_threads()? {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(programs)
}

/// Whether the kernel accepts the filters of system calls. A thread that then ends tries it.
///
/// # Errors
///
/// Why it does not.
pub fn try_seccomp() -> io::Result<()> {
    let tried = std::thread::spawn(|| enforce_seccomp().map(drop)).join();
    tried.unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))
}

/// The status of the calling thread, as the kernel reports it.
fn kernel_status(roles: &[(Role, BpfProgram)]) -> SandboxStatus {
    let text = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    let number = |key| field(key).and_then(|value| value.parse().ok());
    let first = |key| field(key).and_then(|value| value.split_ascii_whitespace().next()?.parse().ok());
    SandboxStatus {
        mode: Foreign::default(),
        uid: first("Uid").unwrap_or_else(|| rustix::process::getuid().as_raw()),
        gid: first("Gid").unwrap_or_else(|| rustix::process::getgid().as_raw()),
        capabilities: field("CapPrm").unwrap_or("unknown").into(),
        no_new_privs: field("NoNewPrivs") == Some("1"),
        dumpable: rustix::process::dumpable_behavior().is_ok_and(|is| is != DumpableBehavior::NotDumpable),
        seccomp: SeccompStatus {
            // The filters could also be those of the process that started this one.
            enforced: field("Seccomp") == Some("2") && !roles.is_empty(),
            filters: number("Seccomp_filters").unwrap_or(0),
            roles: roles.iter().map(|(role, _)| role.as_str().into()).collect(),
            unrestricted_threads: 0,
        },
        landlock: no_landlock(),
        missing: Vec::new(),
        kept_privileges: Vec::new(),
    }
}
