//! What the recorder knows about itself: its host, its configuration and its key, read while it may read them.

use std::path::Path;
use std::time::SystemTime;

use super::error::Error;
use super::settings::Settings;
use base::time::Timestamp;
use evidence::clock::ClockWatch;
use evidence::digest::Digest;
use evidence::signature::Key;
use evidence::statement::{RecorderIdentity, host_id};
use serve::attestation::Attestation;

/// Reads identity and key.
///
/// # Errors
///
/// When the settings name a key that cannot sign.
pub(super) fn open(settings: &Settings) -> Result<Attestation, Error> {
    let key = settings.evidence_key.as_deref().map(read_key).transpose()?;
    let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let configuration = settings.file.as_deref().and_then(|file| std::fs::read(file).ok());
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let source = match settings.is_live() {
        true => "packet times are from the kernel's wall clock",
        false => "packet times are from a capture file; the clock of this machine",
    };
    let identity = RecorderIdentity {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        host_id: if machine_id.trim().is_empty() { "unknown".to_owned() } else { host_id(&machine_id) },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        arguments: arguments.join(" "),
        configuration_file: settings.file.as_ref().map(|file| file.display().to_string()),
        configuration_sha256: configuration.map(|content| Digest::of(&content)),
        live: settings.is_live(),
        recording_since: Timestamp::from(SystemTime::now()).to_rfc3339(),
        key: key.as_ref().map(Key::fingerprint),
    };
    Ok(Attestation { identity, clock: ClockWatch::start(source), key })
}

fn read_key(path: &Path) -> Result<Key, Error> {
    let failed = |reason: String| Error::EvidenceKey { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Key::read(&text).map_err(|error| failed(error.to_string()))
}
