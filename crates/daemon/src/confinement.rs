//! Proof that privileges are dropped and the sandbox holds: whatever starts threads or reads foreign data asks for it.

use super::error::Error;
use super::privileges::{PrivilegePlan, PrivilegeReport};
use super::sandbox::{PathRules, Role, Sandbox, SandboxMode};

/// A confined process. It can only be made by dropping privileges.
#[derive(Clone, Debug)]
pub(super) struct Confinement {
    pub(super) privileges: PrivilegeReport,
    pub(super) sandbox: Sandbox,
}

impl Confinement {
    /// Drops privileges and restricts the process, for good.
    ///
    /// # Errors
    ///
    /// When the process has more than one thread, a step fails that should be possible, or `mode` requires what the kernel
    /// lacks.
    pub(super) fn enforce(plan: &PrivilegePlan, mode: SandboxMode, paths: &PathRules) -> Result<Self, Error> {
        let privileges = plan.drop()?;
        let sandbox = Sandbox::enforce(mode, paths, &privileges)?;
        Ok(Self { privileges, sandbox })
    }

    /// What a new thread calls first.
    pub(super) fn in_role(&self, role: Role) -> impl Fn() + Send + Sync + 'static + use<> {
        let sandbox = self.sandbox.clone();
        move || sandbox.enter(role)
    }
}
