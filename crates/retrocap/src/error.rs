//! Errors that decide the exit status.

/// Wrong usage, which exits with status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

impl Usage {
    /// Wraps an error that a user's mistake caused. The message stays the same.
    pub(crate) fn of(error: impl std::fmt::Display) -> anyhow::Error {
        Self(error.to_string()).into()
    }
}

/// Some recorders did not answer; what is missing was printed already. The exit status is 3.
#[derive(Debug, thiserror::Error)]
#[error("not all recorders answered")]
pub(crate) struct Incomplete;

/// An error that was printed already. The exit status is 1.
#[derive(Debug, thiserror::Error)]
#[error("already reported")]
pub(crate) struct AlreadyReported;
