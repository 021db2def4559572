//! Signs the head of the log's chain once a day and when the recorder stops, so that who has no key cannot make the lines
//! before it anew.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::attestation::Attestation;
use super::super::clock::now;
use super::writer::Text;
use super::{Audit, AuditLog};
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

impl Audit {
    /// Signs the head of the log if a day has passed, or the recorder stops, and lines were added. It may wait for a disk.
    pub(crate) fn sign_head(&self, attestation: Option<&Arc<Attestation>>, stopping: bool) {
        let (Some(log), Some(attestation)) = (&self.0, attestation) else { return };
        if attestation.key.is_none() || !log.is_due(stopping) {
            return;
        }
        for writer in [&log.writer, &log.refused_writer] {
            let attestation = Arc::clone(attestation);
            let compose = move |head| signed(&attestation, head);
            if let Err(error) = writer.append(Text::OfHead(Box::new(compose))) {
                tracing::warn!("the head of the audit log was not signed: {error}");
            }
        }
    }
}

impl AuditLog {
    fn is_due(&self, stopping: bool) -> bool {
        let lines = self.lines.load(std::sync::atomic::Ordering::Relaxed);
        let mut signing = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = signing.at.is_none_or(|at| at.elapsed() >= INTERVAL);
        let due = lines > signing.lines && (waited || stopping);
        if due {
            *signing = Signing { at: Some(Instant::now()), lines };
        }
        due
    }
}

/// The line with the signed head.
fn signed(attestation: &Attestation, head: Head) -> Option<String> {
    let time = now().to_rfc3339();
    let text = serde_json::to_string(&SignedHead { retrocap_log_head: 1, time: time.clone(), head }).ok()?;
    let signature = attestation.key.as_ref()?.sign(text.as_bytes());
    let signature = signature.inspect_err(|error| tracing::warn!("the audit log was not signed: {error}")).ok()?;
    let line: Value = json!({ "time": time, "event": "head", "signed": text, "signature": signature });
    Some(json_document(&line.to_string()).into_owned())
}
