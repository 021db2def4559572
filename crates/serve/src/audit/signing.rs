//! Signs the head of the log's chain once a day and when the recorder stops, so that who has no key cannot make the lines
//! before it anew.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::attestation::Attestation;
use super::super::clock::now;
use base::foreign::json_document;
use evidence::chain::{Head, SignedHead};

/// How often a head is signed while lines are added.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// What was signed last.
#[derive(Debug, Default)]
pub(super) struct Signing {
    at: Option<Instant>,
    /// The count of lines then.
    lines: u64,
}

impl Signing {
    /// Whether the head is to be signed now, `lines` being the count of lines so far. It is then taken as signed.
    pub(super) fn is_due(&mut self, lines: u64, stopping: bool) -> bool {
        let waited = self.at.is_none_or(|at| at.elapsed() >= INTERVAL);
        let due = lines > self.lines && (waited || stopping);
        if due {
            *self = Self { at: Some(Instant::now()), lines };
        }
        due
    }
}

/// The line with the signed head.
pub(super) fn signed(attestation: &Attestation, head: Head) -> Option<String> {
    let time = now().to_rfc3339();
    let text = serde_json::to_string(&SignedHead { retrocap_log_head: 1, time: time.clone(), head }).ok()?;
    let signature = attestation.key.as_ref()?.sign(text.as_bytes());
    let signature = signature.inspect_err(|error| tracing::warn!("the audit log was not signed: {error}")).ok()?;
    let line: Value = json!({ "time": time, "event": "head", "signed": text, "signature": signature });
    Some(json_document(&line.to_string()).into_owned())
}
