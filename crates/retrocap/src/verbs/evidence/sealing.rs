//! Makes manifests and signs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::client::Trailers;
use crate::options::Common;
use crate::terminal::human::counted;
use crate::terminal::output::{FileMode, Output};
use crate::terminal::printable::{note, print_json};
use evidence::digest::Digest;
use evidence::seal::{self, Sealer};
use evidence::signature::{Key, KeyError, NAMESPACE};
use evidence::timestamp;
use evidence::verify::{RECORDER_SUFFIX, beside};

/// The name of an export's manifest, after the name of the export.
const SUFFIX: &str = ".evidence.json";

/// The trailer with the recorder's signed record of what it sent.
const RECORD: &str = "retrocap-record";

/// Seals files in the manifest `output`.
pub(super) fn seal(
    files: &[PathBuf],
    output: &Path,
    key: Option<&Path>,
    request: bool,
    common: &Common,
) -> anyhow::Result<()> {
    let signer = key.map(Signer::new).transpose()?;
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let manifest = seal::seal(files, directory, sealer())?;
    let text = manifest.text();
    let (signature, stamp_request) = (beside(output, ".sig"), beside(output, ".tsq"));
    // A signature or a time stamp of an earlier manifest would be wrong beside this one.
    for old in [&signature, &stamp_request, &beside(output, ".tsr")] {
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove the old {}", old.display()));
            }
            _ => {}
        }
    }
    write(output, text.as_bytes())?;
    let fingerprint = signer.map(|signer| signer.sign(output, text.as_bytes(), &signature)).transpose()?;
    if request {
        write(&stamp_request, &timestamp::request(Digest::of(text.as_bytes()))?)?;
    }
    let sealed = Digest::of(text.as_bytes());
    if common.json {
        let document = json!({
            "manifest": output.display().to_string(),
            "sha256": sealed,
            "files": manifest.files.len(),
            "signed_by": fingerprint,
        });
        return print_json(&format!("{document}\n"));
    }
    if !common.quiet {
        let by = fingerprint.map_or_else(|| "not signed".to_owned(), |key| format!("signed by {key}"));
        let files = counted(manifest.files.len() as u64, "file");
        note(&format!("sealed {files} in {} (SHA-256 {sealed}), {by}", output.display()));
    }
    Ok(())
}

/// Seals what `get` wrote: a file, or the files of a directory.
pub(crate) fn seal_export(written: &Path, key: &Path, common: &Common) -> anyhow::Result<()> {
    let (files, manifest) = if written.is_dir() {
        let entries = std::fs::read_dir(written)?.collect::<Result<Vec<_>, _>>()?;
        let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        let name = format!("directory{SUFFIX}");
        let manifest = written.join(&name);
        files.retain(|path| !path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name)));
        files.sort();
        (files, manifest)
    } else {
        let record = beside(written, RECORDER_SUFFIX);
        let files = [written.to_owned(), record].into_iter().filter(|path| path.exists());
        (files.collect(), beside(written, SUFFIX))
    };
    let quiet = Common { json: false, ..common.clone() };
    seal(&files, &manifest, Some(key), false, &quiet)
}

/// Checks the key before anything is exported, and removes the recorder's record of an earlier export.
pub(crate) fn prepare(written: &Path, key: &Path) -> anyhow::Result<()> {
    let record = beside(written, RECORDER_SUFFIX);
    for old in [beside(&record, ".sig"), record] {
        if old.is_file() {
            std::fs::remove_file(&old).with_context(|| format!("cannot remove the old {}", old.display()))?;
        }
    }
    Signer::new(key).map(|_| ())
}

/// Stores the record that the recorder signed when it sent an export.
pub(crate) fn store_record(written: &Path, trailers: &Trailers) -> anyhow::Result<()> {
    let Some(encoded) = trailers.text(RECORD) else { return Ok(()) };
    let decoded = BASE64_STANDARD.decode(encoded.untrusted()).context("the recorder's record is damaged")?;
    let both: serde_json::Value = serde_json::from_slice(&decoded).context("the recorder's record is damaged")?;
    let path = beside(written, RECORDER_SUFFIX);
    for (name, path) in [("record", path.clone()), ("signature", beside(&path, ".sig"))] {
        let text = both.get(name).and_then(|text| text.as_str()).unwrap_or_default();
        write(&path, text.as_bytes())?;
    }
    Ok(())
}

/// A key, or the path of one that only ssh-keygen can use.
enum Signer {
    Own(Box<Key>),
    SshKeygen(PathBuf),
}

impl Signer {
    fn new(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if path.extension().is_some_and(|extension| extension == "pub") {
            return Ok(Self::SshKeygen(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the key {shown}"))?;
        match Key::read(&text) {
            Ok(key) => Ok(Self::Own(Box::new(key))),
            Err(error) if error.needs_ssh_keygen() => Ok(Self::SshKeygen(path.to_owned())),
            Err(error @ KeyError::Unreadable(_)) if text.contains("BEGIN") => Err(anyhow!("the key {shown}: {error}")),
            Err(error) => Err(anyhow!("{shown}: {error}")),
        }
    }

    /// Signs the text of `file`, writes the signature, and returns the key's fingerprint.
    fn sign(&self, file: &Path, text: &[u8], signature: &Path) -> anyhow::Result<String> {
        match self {
            Self::Own(key) => {
                write(signature, key.sign(text)?.as_bytes())?;
                Ok(key.fingerprint())
            }
            Self::SshKeygen(key) => {
                let mut command = Command::new("ssh-keygen");
                command.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"]).arg(key).arg("--").arg(file);
                let status = command.status().context("cannot start ssh-keygen, which this key needs")?;
                if !status.success() {
                    return Err(anyhow!("ssh-keygen did not sign with the key {}", key.display()));
                }
                let written = std::fs::read_to_string(signature)?;
                match evidence::signature::verify(&written, text) {
                    Ok(signer) => Ok(signer.fingerprint),
                    Err(evidence::signature::SignatureError::Unsupported(kind)) => {
                        Ok(format!("a key of the kind {kind}"))
                    }
                    Err(error) => Err(anyhow!("the signature that ssh-keygen made: {error}")),
                }
            }
        }
    }
}

/// Writes a file, which appears only when it is complete.
pub(super) fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut output = Output::open(path, FileMode::PRIVATE)?;
    output.buffer().extend_from_slice(content);
    output.finish()?;
    Ok(())
}

/// Who runs this program.
fn sealer() -> Sealer {
    let uid = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    Sealer {
        user: user.unwrap_or_else(|| format!("uid {uid}")),
        uid,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        program: concat!("retrocap ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}
