//! What the recorder states about its exports: in their comments, and with its key.

use serde_json::json;

use super::clock::now;
use evidence::clock::ClockWatch;
use evidence::digest::Digest;
use evidence::signature::Key;
use evidence::statement::{RecorderIdentity, Statement};

/// The recorder's identity, its clock, and the key that it signs with.
#[derive(Debug)]
pub struct Attestation {
    /// The recorder.
    pub identity: RecorderIdentity,
    /// Its clock.
    pub clock: ClockWatch,
    /// The key, if it has one.
    pub key: Option<Key>,
}

/// What was sent to a client that asked for a seal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentAnswer {
    pub(crate) sha256: Digest,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

impl Attestation {
    /// What a person reads in the comments of an export.
    pub(crate) fn words(&self, statement: &Statement) -> Vec<String> {
        let RecorderIdentity { host, host_id, version, configuration_sha256, .. } = &self.identity;
        let host = base::foreign::Log(host).to_string();
        let configuration = configuration_sha256.map(|sha256| format!(", configuration SHA-256 {sha256}"));
        let clock = &statement.clock;
        let state = match clock.at_export.as_ref().and_then(|reading| reading.synchronised) {
            Some(true) => "synchronized",
            Some(false) => "not synchronized",
            None => "of unknown state",
        };
        let error = clock.at_export.as_ref().and_then(|reading| reading.estimated_error_us);
        let error = error.map(|error| format!(", estimated error {error} µs")).unwrap_or_default();
        let steps = clock.steps.len() as u64 + clock.more_steps;
        vec![
            format!(
                "recorded by retrocap {version} on {host} (host id {host_id}{})",
                configuration.unwrap_or_default()
            ),
            format!("{}: {state} at the export{error}, {steps} steps while recording", clock.source),
        ]
    }

    /// The record of what was sent, and its signature; `None` without a key.
    pub(crate) fn record(&self, sent: SentAnswer, audit_id: Option<&str>) -> Option<(String, String)> {
        let text = json!({
            "retrocap_export": 1,
            "sha256": sent.sha256,
            "bytes": sent.bytes,
            "packets": sent.packets,
            "sent": now().to_rfc3339(),
            "host": self.identity.host,
            "host_id": self.identity.host_id,
            "version": self.identity.version,
            "configuration_sha256": self.identity.configuration_sha256,
            "audit_id": audit_id,
        });
        let text = format!("{}\n", base::foreign::json_document(&text.to_string()));
        let signature = self.key.as_ref()?.sign(text.as_bytes());
        let signature = signature.inspect_err(|error| tracing::error!("an export was not signed: {error}"));
        Some((text, signature.ok()?))
    }
}
