//! The reply of one recorder: counts, and as many rows as fit.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most bytes of a reply. NATS refuses messages above 1 MiB by default.
pub(crate) const BYTES_MAX: usize = 256 << 10;
/// Bytes that rows may take of it.
const ROWS_BYTES_MAX: usize = 240 << 10;

/// Packets in the object store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredObject {
    pub(crate) bucket: String,
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// What one recorder answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Name of the recorder.
    pub(crate) recorder: String,
    pub(crate) site: String,
    /// `answered`, `nothing`, `refused` or `failed`.
    pub(crate) outcome: String,
    /// Why, unless it was answered.
    pub(crate) reason: Option<String>,
    /// Rows that match, shown or not.
    pub(crate) found_rows: u64,
    /// The first rows.
    pub(crate) shown: Vec<Value>,
    /// Rows that do not fit into the reply.
    pub(crate) left_out_rows: u64,
    /// Bytes of the recorder's answer.
    pub(crate) bytes: u64,
    /// Why the answer is not complete, in the recorder's words.
    pub(crate) note: Option<String>,
    /// What of it was evicted, in the recorder's words.
    pub(crate) missing: Option<String>,
    /// Time of the recorder's oldest packet.
    pub(crate) oldest: Option<String>,
    /// Time from which on it has every packet.
    pub(crate) whole_since: Option<String>,
    /// The document that was asked for.
    pub(crate) document: Option<Value>,
    pub(crate) object: Option<StoredObject>,
    #[serde(skip)]
    shown_bytes: usize,
}

impl Reply {
    pub(crate) fn new(recorder: &str, site: &str, outcome: &str) -> Self {
        let (recorder, site, outcome) = (recorder.to_owned(), site.to_owned(), outcome.to_owned());
        Self { recorder, site, outcome, ..Self::default() }
    }

    pub(crate) fn because(mut self, reason: impl ToString) -> Self {
        self.reason = Some(reason.to_string());
        self
    }

    /// Adds a row, as long as rows fit.
    pub(crate) fn add(&mut self, line: &[u8]) {
        self.found_rows += 1;
        let fits = self.left_out_rows == 0 && self.shown_bytes + line.len() <= ROWS_BYTES_MAX;
        match serde_json::from_slice(line) {
            Ok(row) if fits => {
                self.shown_bytes += line.len() + 1;
                self.shown.push(row);
            }
            _ => self.left_out_rows += 1,
        }
    }

    /// The message. A document that does not fit is left out.
    pub(crate) fn message(mut self) -> Vec<u8> {
        let written = |reply: &Self| serde_json::to_vec(reply).unwrap_or_default();
        let message = written(&self);
        if message.len() <= BYTES_MAX {
            return message;
        }
        self.document = None;
        self.left_out_rows += self.shown.len() as u64;
        self.shown.clear();
        self.reason = Some("the answer does not fit into a reply: ask for less".to_owned());
        written(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_do_not_fit_are_counted() {
        let mut reply = Reply::new("r", "s", "answered");
        let row = format!("{{\"x\":\"{}\"}}", "a".repeat(1000));
        (0..1000).for_each(|_| reply.add(row.as_bytes()));
        assert_eq!((reply.found_rows, reply.shown.len() as u64 + reply.left_out_rows), (1000, 1000));
        assert!(reply.shown.len() > 200 && reply.left_out_rows > 0);
        assert!(reply.message().len() <= BYTES_MAX);
        let mut large = Reply::new("r", "s", "answered");
        large.document = Some(Value::String("x".repeat(1 << 20)));
        let message = large.message();
        assert!(message.len() < BYTES_MAX && String::from_utf8(message).unwrap().contains("ask for less"));
    }
}
