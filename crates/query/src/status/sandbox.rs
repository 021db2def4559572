//! What the kernel keeps the recorder from doing, as the status reports it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use base::foreign::Foreign;

/// Restrictions that the kernel enforces on the recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxStatus {
    /// The configured mode.
    #[schemars(extend("enum" = ["required", "best-effort", "off"]))]
    pub mode: Foreign,
    /// User ID of the process.
    pub uid: u32,
    /// Group ID of the process.
    pub gid: u32,
    /// Permitted capabilities in hexadecimal; all zeros for none.
    pub capabilities: Foreign,
    /// Whether `no_new_privs` is set: executed programs cannot gain privileges.
    pub no_new_privs: bool,
    /// Whether the memory of the process can be dumped, or read by other processes of its user.
    pub dumpable: bool,
    /// Restriction of system calls.
    pub seccomp: SeccompStatus,
    /// Restriction of file access.
    pub landlock: LandlockStatus,
    /// Requested protections that are missing, as sentences.
    pub missing: Vec<Foreign>,
    /// Privileges that could not be dropped, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_privileges: Vec<Foreign>,
}

/// Restriction of system calls (seccomp).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeccompStatus {
    /// Whether filters are in force.
    pub enforced: bool,
    /// Number of filters that apply to all threads. Each thread adds the filter of its role.
    pub filters: u32,
    /// Roles of threads.
    pub roles: Vec<Foreign>,
    /// Threads since the start that could not install the filter of their role.
    #[serde(default)]
    pub unrestricted_threads: u64,
}

impl SeccompStatus {
    /// Describes the threads without the filter of their role; `None` if there are none.
    pub fn gap(&self) -> Option<String> {
        match self.unrestricted_threads {
            0 => None,
            threads => Some(format!(
                "{threads} threads could not install the filter for the system calls of their role (seccomp), so \
                 that only the filter for all roles applies to them; the log says why"
            )),
        }
    }
}

/// Restriction of file access (Landlock).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LandlockStatus {
    /// Version of the Landlock ABI of the kernel; 0 if it has none.
    pub abi: u32,
    #[schemars(extend("enum" = ["full", "partial", "none"]))]
    /// How far the rules are enforced: `full`, `partial` or `none`.
    pub enforced: Foreign,
    /// Paths that may be read.
    pub readable: Vec<Foreign>,
    /// Paths that may be written.
    pub writable: Vec<Foreign>,
}

impl SandboxStatus {
    /// Sets the number of threads since the start that run without the filter of their role.
    pub fn with_unrestricted_threads(mut self, threads: u64) -> Self {
        self.seccomp.unrestricted_threads = threads;
        self.missing.extend(self.seccomp.gap().map(Into::into));
        self
    }

    /// Each layer of protection, and whether it is in force.
    pub fn layers(&self) -> [(&'static str, bool); 6] {
        [
            ("user", self.uid != 0),
            ("capabilities", self.capabilities.untrusted().bytes().all(|digit| digit == b'0')),
            ("no_new_privs", self.no_new_privs),
            ("core_dumps", !self.dumpable),
            ("seccomp", self.seccomp.enforced),
            ("landlock", matches!(self.landlock.enforced.untrusted(), "full" | "partial")),
        ]
    }
}
