//! What is wrong with a query string, in sentences.

use base::time::{TimeError, Timestamp};

/// Characters of a value that a message repeats.
pub(super) const SHOWN_CHARS_MAX: usize = 60;

/// What is wrong with a query string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A key that does not exist.
    #[error("there is no parameter {key:?}; did you mean {nearest:?}? There are: {all}")]
    Unknown {
        /// What was read.
        key: String,
        /// The key most like it.
        nearest: &'static str,
        /// All keys.
        all: String,
    },
    /// A key that was given more than once, or together with another name of it.
    #[error("{0:?} is given twice; give it once")]
    Twice(&'static str),
    /// A search for nothing.
    #[error("what to look for? give text, bytes, regex, ioc or attack, as in /v1/hunt?attack=heartbleed")]
    NothingWanted,
    /// A key that was given too often.
    #[error("{0:?} is given more than {1} times; ask several times, or let retrocap hunt search the packets")]
    TooMany(&'static str, usize),
    /// Keys that exclude each other.
    #[error("{0:?} and {1:?} exclude each other; leave one out")]
    Exclusive(&'static str, &'static str),
    /// `window` alone.
    #[error(
        "\"window\" is how far to look to each side of \"around\"; give \"around\" too, or \"since\" and \"until\""
    )]
    WindowAlone,
    /// A value that its key does not take.
    #[error("{key:?} cannot be {value:?}; it is {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was read.
        value: String,
        /// What the key takes.
        expected: &'static str,
    },
    /// Not a time or span.
    #[error("{key:?}: {source}")]
    Time {
        /// The key.
        key: &'static str,
        /// Why.
        source: TimeError,
    },
    /// A follower whose end is over before it begins.
    #[error(
        "\"until\" is over: {until} is before {now}, which is now; leave \"follow\" out, or say until=5m for five minutes"
    )]
    Over {
        /// The time asked for.
        until: Timestamp,
        /// The time it is.
        now: Timestamp,
    },
    /// A key that has a meaning only together with another.
    #[error("{0:?} is for {1:?}; give both or none")]
    Needs(&'static str, &'static str),
    /// Not a flow.
    #[error("\"flow\": {0}")]
    Flow(String),
    /// Not an address.
    #[error("\"address\": {0}")]
    Address(String),
    /// A beginning in the future.
    #[error("\"{key}\" is in the future: {time} is after {now}, which is now; ask for the past, as in {key}=10m")]
    Future {
        /// The key.
        key: &'static str,
        /// The time asked for.
        time: Timestamp,
        /// The time it is.
        now: Timestamp,
    },
}

/// A value that is not what its key takes.
pub(super) fn wrong(key: &'static str, value: &str, expected: &'static str) -> ParameterError {
    ParameterError::Value { key, value: value.chars().take(SHOWN_CHARS_MAX).collect(), expected }
}
