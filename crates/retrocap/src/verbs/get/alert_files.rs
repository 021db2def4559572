//! Writes the files of `get --alert --split`, which are named after their alerts and appear once all of them are whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::alert::Alert;
use crate::terminal::output::{FileMode, remove_when_interrupted, set_mode};
use query::search::SearchTarget;

/// Maximum number of open files.
const OPEN_FILES_MAX: usize = 128;

/// The files of a split answer. They are written to a hidden directory and moved once all are whole.
pub(crate) struct AlertFiles {
    directory: PathBuf,
    hidden: tempfile::TempDir,
    /// The file name of each alert.
    pub(crate) names: Vec<String>,
    open: HashMap<usize, File>,
    made: Vec<bool>,
    mode: FileMode,
}

impl AlertFiles {
    /// Creates the hidden directory.
    pub(crate) fn new(directory: &Path, alerts: &[Alert], extension: &str, mode: FileMode) -> anyhow::Result<Self> {
        let cannot = || format!("cannot write into {}", directory.display());
        let hidden = tempfile::Builder::new().prefix(".retrocap-").tempdir_in(directory).with_context(cannot)?;
        remove_when_interrupted(hidden.path());
        let names: Vec<String> = alerts.iter().map(|alert| file_name(alert, extension)).collect();
        let made = vec![false; names.len()];
        Ok(Self { directory: directory.to_owned(), hidden, names, open: HashMap::new(), made, mode })
    }

    /// Appends to the file of an alert.
    pub(crate) fn write(&mut self, alert: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.hidden.path().join(&self.names[alert]);
        let cannot = || format!("cannot write {}", self.directory.join(&self.names[alert]).display());
        if !self.open.contains_key(&alert) {
            if self.open.len() == OPEN_FILES_MAX {
                self.open.clear();
            }
            let file = File::options().append(true).create(true).open(&path).with_context(cannot)?;
            set_mode(&file, self.mode).with_context(cannot)?;
            self.open.insert(alert, file);
            self.made[alert] = true;
        }
        if let Some(file) = self.open.get_mut(&alert) {
            file.write_all(bytes).with_context(cannot)?;
        }
        Ok(())
    }

    /// Hard-links the files of alerts with the same sessions, because their packets are the same.
    pub(crate) fn link_equal(&mut self, same_as: impl Iterator<Item = Option<usize>>) -> anyhow::Result<()> {
        self.open.clear();
        for (alert, same_as) in same_as.enumerate() {
            let Some(other) = same_as.filter(|&other| self.made[other] && !self.made[alert]) else { continue };
            let (from, to) = (self.hidden.path().join(&self.names[other]), self.hidden.path().join(&self.names[alert]));
            if std::fs::hard_link(&from, &to).is_ok() {
                self.made[alert] = true;
            } else {
                // Without hard links, the manifest names the one file.
                self.names[alert] = self.names[other].clone();
            }
        }
        Ok(())
    }

    /// Moves the files to their final names.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        for (name, _) in self.names.iter().zip(&self.made).filter(|(_, made)| **made) {
            let to = self.directory.join(name);
            match std::fs::rename(self.hidden.path().join(name), &to) {
                // Alerts with equal names share one file, which is moved already.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && to.exists() => {}
                moved => moved.with_context(|| format!("cannot write {}", to.display()))?,
            }
        }
        Ok(())
    }
}

/// A file name that sorts by time: time, line, tool, text of the alert, endpoints.
pub(crate) fn file_name(alert: &Alert, extension: &str) -> String {
    let time: String = alert.start.to_rfc3339().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    // Keep microseconds, the precision of the logs.
    let time = format!("{}Z", &time[..time.len().saturating_sub(4)]);
    let host = |ip: std::net::IpAddr| ip.to_string().replace(':', ".");
    let names = match &alert.names {
        // A Community ID is base64 and may contain `/`. The manifest has it.
        SearchTarget::CommunityId(_) => "session".to_owned(),
        SearchTarget::Host(ip) => host(*ip),
        SearchTarget::Flow(flow) => {
            let end = |(ip, port): (std::net::IpAddr, u16)| match port {
                0 => host(ip),
                _ => format!("{}_{port}", host(ip)),
            };
            let protocol = match flow.protocol {
                None => String::new(),
                Some(6) => "-tcp".to_owned(),
                Some(17) => "-udp".to_owned(),
                Some(number) => format!("-proto{number}"),
            };
            format!("{}-{}{protocol}", end(flow.a), end(flow.b))
        }
    };
    let plain = |text: &str, chars_max: usize| {
        let mut plain = String::new();
        for c in text.chars() {
            match c {
                c if c.is_ascii_alphanumeric() || c == '.' => plain.push(c),
                _ if plain.ends_with('-') || plain.is_empty() => {}
                _ => plain.push('-'),
            }
            if plain.len() == chars_max {
                break;
            }
        }
        plain.trim_matches(['-', '.']).to_owned()
    };
    let (kind, name, line) = (alert.kind.as_str(), plain(&alert.name, 40), alert.line);
    format!("{time}-{line:06}-{kind}-{name}-{names}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Kind;
    use base::time::Timestamp;

    #[test]
    fn a_file_is_named_after_its_alert() {
        let alert = |name: &str, names: SearchTarget| Alert {
            line: 12,
            kind: Kind::Suricata,
            name: name.to_owned(),
            id: None,
            start: Timestamp::from_unix(1_795_341_600, 123_456_000),
            end: Timestamp::from_unix(1_795_341_600, 123_456_000),
            names,
        };
        let flow = |text: &str| SearchTarget::Flow(text.parse().unwrap());
        for (name, names, expected) in [
            (
                "ET MALWARE Beacon (a/b)",
                flow("10.0.0.5:51234 192.0.2.7:443 tcp"),
                "20261122T100000.123456Z-000012-suricata-ET-MALWARE-Beacon-a-b-10.0.0.5_51234-192.0.2.7_443-tcp.pcapng",
            ),
            (
                "../../etc/passwd",
                SearchTarget::Host("2001:db8::1".parse().unwrap()),
                "20261122T100000.123456Z-000012-suricata-etc-passwd-2001.db8..1.pcapng",
            ),
        ] {
            let named = file_name(&alert(name, names), "pcapng");
            assert!(!named.contains('/') && !named.starts_with('.'), "{named}");
            assert_eq!(named, expected);
        }
    }
}
