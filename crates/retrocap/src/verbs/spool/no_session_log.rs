//! A program that was built without the feature `session-log` cannot read the log of sessions, and says so.

use std::path::Path;

use jiff::tz::TimeZone;

use base::time::Timestamp;
use spool::directory::Directory;

const UNREAD: &str = "the log of sessions was not looked at: this program was built without it";

pub(super) struct FileOfSessions;

pub(super) fn list(_: &Directory) -> anyhow::Result<Vec<FileOfSessions>> {
    Ok(Vec::new())
}

impl FileOfSessions {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    pub(super) fn line(&self, _: &TimeZone) -> String {
        String::new()
    }
}

#[derive(Default)]
pub(super) struct LogReport {
    pub(super) damaged: Vec<(String, String)>,
}

pub(super) fn check(_: &Directory) -> anyhow::Result<LogReport> {
    Ok(LogReport::default())
}

impl LogReport {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    pub(super) fn text(&self) -> String {
        format!("{UNREAD}\n")
    }
}

/// Nothing is decrypted, and the answer says so.
pub(super) fn decrypt(_: &Directory, _: &Path) -> anyhow::Result<(u64, Vec<(String, String)>)> {
    Ok((0, vec![("sessions".to_owned(), UNREAD.to_owned())]))
}

pub(super) struct LogRemoval;

pub(super) fn remove(_: &Directory, _: &str, _: Timestamp, _: Timestamp) -> anyhow::Result<LogRemoval> {
    Ok(LogRemoval)
}

impl LogRemoval {
    pub(super) fn rows(&self) -> u64 {
        0
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    pub(super) fn changed(&self) -> &[String] {
        &[]
    }

    pub(super) fn failed(&self) -> &[(String, String)] {
        &[]
    }

    pub(super) fn undecided_text(&self) -> String {
        format!("; {UNREAD}")
    }

    pub(super) fn text(&self) -> String {
        format!("{UNREAD}\n")
    }
}
