//! A recorder's statement about an export: the recorder, its clock, the query, and the losses. A pcapng file has it as
//! a comment, one line of JSON behind [`PREFIX`]; the manifest repeats it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::ClockStatement;
use crate::digest::Digest;

/// Prefix of a comment that contains a statement.
pub const PREFIX: &str = "retrocap statement: ";
/// Maximum length of a comment in bytes: the limit of an option in pcapng.
const COMMENT_BYTES_MAX: usize = 65_535;

/// A recorder's statement about an export.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The recorder.
    pub recorder: RecorderIdentity,
    /// Its clock.
    pub clock: ClockStatement,
    /// The client, as identified by the recorder.
    pub reader: Value,
    /// The query, in words and as the audit log has it.
    pub question: Question,
    /// The times of the export.
    pub window: Window,
    /// The packets that are missing.
    pub loss: Loss,
}

/// A recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecorderIdentity {
    /// The name of the host.
    pub host: String,
    /// An identifier of the host that survives restarts: a hash of its machine id.
    pub host_id: String,
    /// The version of the program.
    pub version: String,
    /// The arguments of the recorder.
    pub arguments: String,
    /// The configuration file.
    pub configuration_file: Option<String>,
    /// The SHA-256 of that file at its last reading.
    pub configuration_sha256: Option<Digest>,
    /// The source: interfaces, or a replayed capture.
    pub live: bool,
    /// When recording began.
    pub recording_since: String,
    /// The fingerprint of the key that signs the log and the statements.
    pub key: Option<String>,
}

/// A question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// In words.
    pub words: String,
    /// As in the audit log.
    pub query: Value,
    /// The number of the entry in the audit log, if there is a log.
    pub audit_id: Option<String>,
}

/// The times of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The earliest time that was asked for.
    pub since: Option<String>,
    /// The latest time that was asked for.
    pub until: Option<String>,
    /// The time of the earliest packet of the export.
    pub first: Option<String>,
    /// The time of its latest packet.
    pub last: Option<String>,
    /// Packets of the export.
    pub packets: u64,
    /// When the export ended.
    pub exported: String,
}

/// The packets that are missing from an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Packets that the kernel dropped since recording began, of all interfaces.
    pub kernel_dropped: u64,
    /// Packets that the kernel dropped within the export; counted only if the packet after the gap is in the export.
    pub kernel_dropped_within: u64,
    /// Packets evicted since recording began, of all sessions.
    pub evicted: u64,
    /// Every packet newer than this time is retained.
    pub whole_since: Option<String>,
    /// Packets that matched and were evicted while the export was made.
    pub overtaken: u64,
    /// Packets that were cut because they were too long.
    pub cut: u64,
    /// The reason why the export is incomplete; empty if it is complete.
    pub note: String,
    /// Matching packets that were evicted, as far as that is known.
    pub missing: String,
}

impl Statement {
    /// The comment for a pcapng file. A question that is too long for a comment is replaced by its digest.
    pub fn comment(&self) -> String {
        let text = |statement: &Self| {
            let json = serde_json::to_string(statement).unwrap_or_default();
            format!("{PREFIX}{}", base::foreign::json_document(&json))
        };
        let whole = text(self);
        if whole.len() <= COMMENT_BYTES_MAX {
            return whole;
        }
        let digest = Digest::of(self.question.query.to_string().as_bytes());
        let words = self.question.words.chars().take(256).collect();
        let query = serde_json::json!({ "too_long": true, "sha256": digest });
        let loss = Loss { note: String::new(), missing: "too long for this comment".to_owned(), ..self.loss.clone() };
        text(&Self { question: Question { words, query, ..self.question.clone() }, loss, ..self.clone() })
    }

    /// The statements among the comments of a file.
    pub fn among(comments: &[String]) -> impl Iterator<Item = Self> {
        comments.iter().filter_map(|comment| serde_json::from_str(comment.strip_prefix(PREFIX)?).ok())
    }
}

/// A stable identifier of a host that does not disclose its machine id (machine-id(5) asks for that).
pub fn host_id(machine_id: &str) -> String {
    let digest = Digest::of_parts(&[b"retrocap host\0", machine_id.trim().as_bytes()]).to_string();
    digest[..32].to_owned()
}
