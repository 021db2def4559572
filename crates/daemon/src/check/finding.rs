//! The result of a check.

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing to do.
    Good,
    /// It records, but something could be better.
    Warning,
    /// It does not record.
    Error,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the check, for scripts.
    pub check: &'static str,
    /// Its severity.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What to do about it, if something can be done.
    pub advice: Option<String>,
}

impl Finding {
    /// Nothing to do.
    pub fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, severity: Severity::Good, found: found.into(), advice: None }
    }

    /// Something that prevents recording.
    pub fn error(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, severity: Severity::Error, found: found.into(), advice: Some(advice.into()) }
    }

    /// Something that could be better.
    pub fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, found: found.into(), advice: Some(advice.into()) }
    }
}
