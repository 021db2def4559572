//! Looks into objects: which are wanted, and what a hunt finds in them.

use hunt::indicators::Indicators;
use hunt::patterns::Patterns;
use hunt::{Kind, Match};

use crate::object::Object;

/// Protocols that carry objects, as `--kind` names them.
pub const KINDS: [&str; 8] = ["http", "smtp", "imap", "pop3", "ftp", "smb", "nfs", "tftp"];

/// Bytes before and after a match that its context has.
const CONTEXT_BYTES: usize = 32;
/// Bytes of a match that its context has.
const SHOWN_BYTES: usize = 256;

/// Which objects are wanted. All that is set holds.
#[derive(Clone, Debug, Default)]
pub struct ObjectFilter {
    /// One of these protocols; empty for all.
    pub kinds: Vec<String>,
    /// The type of the content, or the start of it: `image/png`, `image/`.
    pub mime: Option<String>,
    /// The SHA-256 of the content.
    pub sha256: Option<String>,
    /// At least so many bytes.
    pub size_min: Option<u64>,
}

impl ObjectFilter {
    /// Whether an object is wanted.
    pub fn matches(&self, object: &Object) -> bool {
        let of_kind =
            |kind: &String| kind == object.protocol || (kind == "smb" && matches!(object.protocol, "smb1" | "smb2"));
        (self.kinds.is_empty() || self.kinds.iter().any(of_kind))
            && self.mime.as_ref().is_none_or(|mime| object.mime.starts_with(mime.as_str()))
            && self.sha256.as_ref().is_none_or(|hash| *hash == object.hashes[2])
            && self.size_min.is_none_or(|least| object.content.len() as u64 >= least)
    }
}

/// What is searched for in the contents of objects.
#[derive(Debug, Default)]
pub struct ObjectSearch {
    /// Texts, bytes and regular expressions.
    pub patterns: Patterns,
    /// Hashes.
    pub indicators: Indicators,
}

impl ObjectSearch {
    /// Passes all matches in an object.
    pub fn find(&self, object: &Object, mut each: impl FnMut(Match)) {
        let found = |rule: &str, kind: Kind| Match {
            rule: rule.to_owned(),
            kind,
            stage: String::new(),
            sender: Some(object.sender),
            stream_offset: Some(object.offset),
            packet: object.packet,
            length: 0,
            context: Vec::new(),
            gap_before: false,
            detail: String::new(),
        };
        for hash in &object.hashes {
            // The hash of an object with a hole is the hash of nothing that anybody else has.
            if object.complete && self.indicators.fingerprint(hash) {
                let length = object.content.len() as u64;
                each(Match { length, detail: format!("hash of {}", object.name), ..found(hash, Kind::Ioc) });
            }
        }
        self.patterns.find(
            &object.content,
            |_| 0,
            |_, named, from, to| {
                let begin = from.saturating_sub(CONTEXT_BYTES);
                let end = (to.min(from + SHOWN_BYTES) + CONTEXT_BYTES).min(object.content.len());
                let context = object.content.get(begin..end).unwrap_or_default().to_vec();
                each(Match { length: (to - from) as u64, context, ..found(&named.rule, named.kind) });
            },
        );
    }
}
