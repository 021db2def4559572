//! `retrocap-archive verify`: reads every object back and compares it with what was copied.

use clap::Args;
use futures_util::StreamExt as _;
use serde_json::json;

use crate::archive_args::{ArchiveArgs, Part};
use crate::encryption::{DecryptionFailure, Identities};
use crate::inventory::{Entry, State, entries};
use crate::key;
use crate::report::{self, Reported, counted, size};
use crate::sidecar::{DOCUMENT_BYTES_MAX, Sidecar, sha256};
use crate::source;
use crate::store::{OBJECT_BYTES_MAX, Store};

/// Read every object back, and compare it with what was copied
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    part: Part,
    /// Private key of age, to verify what encrypted objects contain, too; may be repeated
    #[arg(long = "identity", value_name = "FILE")]
    identities: Vec<std::path::PathBuf>,
    /// Objects that are read at the same time; each takes up to 64 MiB of memory
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
}

/// A file that was read back, or why not.
pub(crate) enum Verified {
    /// Its bytes; `None` if it is encrypted and there is no key.
    Right(Option<Vec<u8>>),
    /// The object is not there, and nothing says why.
    Missing,
    Damaged(String),
    /// No key opens it.
    Locked,
}

/// Reads an object and compares it with its description. Without a description, it is compared with its own checksum.
pub(crate) async fn read(store: &Store, entry: &Entry, identities: &Identities) -> anyhow::Result<Verified> {
    let Some(stored) = store.get(&entry.name, OBJECT_BYTES_MAX).await? else { return Ok(Verified::Missing) };
    let sidecar = match store.get(&key::sidecar(&entry.name), DOCUMENT_BYTES_MAX).await? {
        None => None,
        Some(bytes) => match Sidecar::read(&bytes, &entry.name) {
            Ok(sidecar) => Some(sidecar),
            Err(error) => return Ok(Verified::Damaged(error)),
        },
    };
    if let Some(sidecar) = &sidecar
        && (stored.len() as u64, sha256(&stored)) != (sidecar.stored_bytes, sidecar.stored_sha256.clone())
    {
        let reason = format!(
            "the object has another hash than what was copied ({} of {} bytes)",
            stored.len(),
            sidecar.stored_bytes
        );
        return Ok(Verified::Damaged(reason));
    }
    let plain = if !entry.is_encrypted {
        stored
    } else if identities.is_empty() {
        return Ok(Verified::Right(None));
    } else {
        match identities.decrypt(&stored) {
            Ok(plain) => plain,
            Err(DecryptionFailure::NoKey) => return Ok(Verified::Locked),
            Err(DecryptionFailure::Damaged(error)) => {
                return Ok(Verified::Damaged(format!("it cannot be decrypted: {error}")));
            }
        }
    };
    let is_right = match &sidecar {
        Some(sidecar) => sha256(&plain) == sidecar.sha256,
        // Nothing but the key of the recorder tells. It counts as not confirmed.
        None if matches!(&entry.key, key::DataKey::Packets(key) if key.coding.encrypted) => true,
        None => source::is_named(&plain, &entry.key, &spool::encryption::Keys::none()),
    };
    if !is_right {
        return Ok(Verified::Damaged("its contents are not the file that it is named after".to_owned()));
    }
    Ok(Verified::Right(Some(plain)))
}

impl Verify {
    pub(crate) async fn run(&self, print_json: bool) -> anyhow::Result<()> {
        let store = self.archive.open(false)?;
        let identities = Identities::read(&self.identities)?;
        let entries = entries(&store, &self.part).await?;
        if entries.is_empty() {
            return Err(anyhow::anyhow!("{} has nothing of this part, so nothing was verified", store.name));
        }
        let (mut right, mut bytes, mut removed, mut problems) = (0, 0, 0, Vec::new());
        let (store, identities) = (&store, &identities);
        let mut reads = futures_util::stream::iter(&entries)
            .map(|entry| async move { (entry, verified(store, entry, identities).await) })
            .buffer_unordered(usize::from(self.parallel));
        while let Some((entry, found)) = reads.next().await {
            match found {
                Ok(true) => {
                    right += 1;
                    bytes += entry.object.as_ref().map_or(0, |object| object.bytes);
                }
                Ok(false) => removed += 1,
                Err(problem) => problems.push((entry.name.clone(), problem)),
            }
        }
        problems.sort_unstable();
        if print_json {
            let problems: Vec<_> =
                problems.iter().map(|(key, problem)| json!({"key": key, "problem": problem})).collect();
            report::print(
                &json!({"right": right, "bytes": bytes, "removed": removed, "problems": problems}).to_string(),
            );
        } else {
            let read = counted(right, "object");
            match problems.len() as u64 {
                0 => report::print(&format!(
                    "{read} ({}) are as they were copied; {removed} expired or were removed",
                    size(bytes)
                )),
                n => report::print(&format!(
                    "{} NOT as they should be; {read} ({}) are as they were copied",
                    counted(n, "object"),
                    size(bytes)
                )),
            }
        }
        for (key, problem) in &problems {
            eprintln!("retrocap-archive: {key}: {problem}");
        }
        if problems.is_empty() { Ok(()) } else { Err(Reported::error("the archive is not whole".to_owned())) }
    }
}

/// Whether an object is right; false if it is rightly absent. `Err` says what is wrong.
async fn verified(store: &Store, entry: &Entry, identities: &Identities) -> Result<bool, String> {
    match entry.state() {
        State::Removed => return Ok(false),
        State::Missing => return Err("it is missing, and nothing says that it expired or was removed".to_owned()),
        State::Undeleted => {
            return Err("it expired or was removed, but is still there: retrocap-archive expire --delete".to_owned());
        }
        State::Whole | State::Unconfirmed => {}
    }
    match read(store, entry, identities).await {
        Err(error) => Err(format!("{error:#}")),
        Ok(Verified::Missing) => Err("it is missing, and nothing says that it expired or was removed".to_owned()),
        Ok(Verified::Damaged(reason)) => Err(reason),
        Ok(Verified::Locked) => Err("no key of --identity opens it".to_owned()),
        Ok(Verified::Right(_)) if !entry.is_described => {
            Err("its copy was not completed: retrocap-archive copy on that recorder completes it".to_owned())
        }
        Ok(Verified::Right(_)) => Ok(true),
    }
}
