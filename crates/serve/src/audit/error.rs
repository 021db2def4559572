//! Why the audit log cannot be opened.

use std::path::PathBuf;

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} the audit log {}: {source}; name another with --audit-log, or go without: --audit best-effort or off", .path.display())]
pub struct AuditError {
    pub(super) step: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: std::io::Error,
}
