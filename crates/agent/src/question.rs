//! Questions: what is asked, of which subject, and which role that takes.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The most bytes of a request target.
const TARGET_BYTES_MAX: usize = 64 << 10;
/// The first word of all subjects.
const PREFIX: &str = "retrocap";
/// The site that every agent belongs to, beside its own.
pub(crate) const EVERY_SITE: &str = "all";

/// What a question may read, as the roles of the recorder's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Whether and how far back it records
    Status,
    /// Sessions
    Flows,
    /// Packets, searches of contents, files
    Packets,
}

impl Role {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Flows => "flows",
            Self::Packets => "packets",
        }
    }

    /// The role that a path of the recorder's API takes; `None` for paths that no question may ask.
    fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/status" | "/v1/health" => Self::Status,
            "/v1/flows" => Self::Flows,
            "/v1/packets" | "/v1/hunt" | "/v1/files" => Self::Packets,
            _ => return None,
        })
    }
}

/// A question, as it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Path and query string of the recorder's API.
    pub(crate) target: String,
    /// Who asks, as they say: for the agent's log.
    #[serde(default)]
    pub(crate) asker: String,
    /// The bucket of the object store that packets go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bucket: Option<String>,
}

impl Question {
    /// The role that the question takes.
    ///
    /// # Errors
    ///
    /// A sentence, if the question is none that an agent answers.
    pub(crate) fn role(&self) -> Result<Role, String> {
        if self.target.len() > TARGET_BYTES_MAX || self.target.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
            return Err("the target of the question is too long, or no URL".to_owned());
        }
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let role = Role::of_path(path).ok_or_else(|| format!("agents answer no questions for {path}"))?;
        for (key, _) in form_urlencoded::parse(query.as_bytes()) {
            if matches!(&*key, "follow" | "carried-by") {
                return Err(format!("{key} is for connections of one reader: leave it out"));
            }
        }
        Ok(role)
    }

    /// Whether the answer is a capture file.
    pub(crate) fn wants_packets(&self) -> bool {
        self.target.split('?').next() == Some("/v1/packets")
    }
}

/// A word of a subject: letters, digits, `-` and `_`. Others become `_`, because NATS gives them a meaning.
pub(crate) fn token(name: &str) -> String {
    let token: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' }).collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

/// The subject of a question to a site, or to one recorder of it.
pub(crate) fn subject(site: &str, role: Role, recorder: Option<&str>) -> String {
    let place = format!("{PREFIX}.{}.{}", token(site), role.word());
    recorder.map_or_else(|| place.clone(), |recorder| format!("{place}.{}", token(recorder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(target: &str) -> Result<Role, String> {
        Question { target: target.to_owned(), asker: String::new(), bucket: None }.role()
    }

    #[test]
    fn each_path_takes_its_role_and_others_are_refused() {
        assert_eq!(role("/v1/status"), Ok(Role::Status));
        assert_eq!(role("/v1/flows?address=192.0.2.7"), Ok(Role::Flows));
        assert_eq!(role("/v1/packets?filter=port+53"), Ok(Role::Packets));
        for refused in [
            "/v1/pins",
            "/v1/flows/",
            "/v1/flows/../packets",
            "//v1/flows",
            "http://elsewhere/v1/flows",
            "/v1/packets?follow=true",
            "/v1/packets?x=1&fol%6cow=true",
            "/v1/flows HTTP/1.1\r\nx: y",
            "/v1/flows?name=\u{e4}",
            "",
        ] {
            assert!(role(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn names_are_one_word_of_a_subject() {
        assert_eq!(subject("berlin", Role::Flows, Some("web.example > *")), "retrocap.berlin.flows.web_example____");
        assert_eq!(subject("a.b", Role::Status, None), "retrocap.a_b.status");
    }
}
