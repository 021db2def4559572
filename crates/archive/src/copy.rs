//! `retrocap-archive copy`: copies what the archive does not have yet.
//!
//! ```text
//! file ──► read, hash ──► (encrypt) ──► put, if absent ──► sidecar, if absent
//! ```
//!
//! A sidecar in the archive says that a file is there; nothing is remembered on this side. So a copy that was interrupted anywhere
//! is repeated, and several copies can run at the same time. An object without a sidecar is read back and compared before it gets one.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::sync::Mutex;

use crate::archive_args::ArchiveArgs;
use crate::encryption::{self, Recipients};
use crate::key::{self, Class, DataKey};
use crate::report::{self, Reported, counted, size};
use crate::sidecar::{DOCUMENT_BYTES_MAX, Hashes, Sidecar, Tombstone, document, sha256};
use crate::source::{Contents, ReadFailure, SourceFile};
use crate::store::{Put, Store};
use spool::encryption::Keys;

/// Copy what the archive does not have yet
#[derive(Debug, Args)]
pub(crate) struct Copy {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Directory of the spool
    #[arg(long, value_name = "DIR", default_value = "/var/lib/retrocap/spool")]
    spool: PathBuf,
    /// Key file of an encrypted spool. Its files are copied as they are, and the key is needed to read them
    #[arg(long, value_name = "FILE")]
    spool_key: Option<PathBuf>,
    /// Name of the recorder in the archive [default: the name of this host]
    #[arg(long, value_name = "NAME", value_parser = key::check_host)]
    host: Option<String>,
    /// Only these: starts, middle, bulk, sessions; may be repeated [default: all]
    #[arg(long = "only", value_name = "CLASS", value_delimiter = ',', value_parser = class())]
    only: Vec<String>,
    /// Encrypt packets with this public key of age; may be repeated, and each private key can read them
    #[arg(long = "recipient", value_name = "age1…")]
    recipients: Vec<String>,
    /// The same, from a file with one key in a line
    #[arg(long = "recipients", value_name = "FILE")]
    recipient_files: Vec<PathBuf>,
    /// Encrypt the log of sessions, too. Databases then cannot read it
    #[arg(long)]
    encrypt_sessions: bool,
    /// Read every object back after it was stored. A server verifies the hash of what arrives; a directory is always read back
    #[arg(long)]
    read_back: bool,
    /// Files that are sent at the same time; each takes up to 64 MiB of memory, twice if it is encrypted
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    /// Send at most so many bytes a second: 500K, 10M [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = crate::report::bytes)]
    rate: Option<u64>,
}

pub(crate) fn class() -> impl clap::builder::TypedValueParser<Value = String> {
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(["starts", "middle", "bulk", key::SESSIONS]).map(String::from)
}

/// Files that fail in a row until the rest is left for the next time: a server that refuses all would be asked for hours.
const FAILURES_MAX: u32 = 8;
/// Listings that are made at the same time.
const LISTINGS: usize = 8;

/// What became of a file.
enum Copied {
    Stored(u64),
    /// The object was there without a sidecar, and is right.
    Completed,
    Gone,
    Failed(String),
}

struct Copier {
    store: Store,
    keys: Keys,
    recipients: Option<Recipients>,
    encrypt_sessions: bool,
    read_back: bool,
    rate: Option<u64>,
    /// When the next file may be sent.
    next: Mutex<Instant>,
}

#[derive(Default)]
struct Outcome {
    copied: u64,
    bytes: u64,
    present: u64,
    completed: u64,
    gone: u64,
    removed: u64,
    untried: u64,
    failed: Vec<(String, String)>,
}

impl Copy {
    pub(crate) async fn run(&self, print_json: bool) -> anyhow::Result<()> {
        let recipients = Recipients::read(&self.recipients, &self.recipient_files)?;
        if self.encrypt_sessions && recipients.is_none() {
            return Err(anyhow!("--encrypt-sessions needs a key: add --recipient age1…"));
        }
        let host = self.host()?;
        let keys = self.spool_key.as_deref().map(spool::key_file::read).transpose()?.unwrap_or_default();
        let contents = Contents::of(&self.spool, &host, &keys)?;
        let store = self.archive.open(true)?;
        let copier = Copier {
            read_back: self.read_back || store.is_directory,
            store,
            keys,
            recipients,
            encrypt_sessions: self.encrypt_sessions,
            rate: self.rate,
            next: Mutex::new(Instant::now()),
        };
        let mut outcome = Outcome { failed: contents.failed.clone(), ..Outcome::default() };
        copier.withdraw(&contents.removed, &mut outcome).await?;
        if contents.unended_removals > 0 {
            let reason =
                "a removal on purpose did not end, so that the archive can still have its packets: repeat `spool drop`";
            outcome.failed.push((spool::directory::REMOVALS.to_owned(), reason.to_owned()));
        }
        let wanted =
            |file: &&SourceFile| self.only.is_empty() || self.only.iter().any(|class| class == file.key.class());
        let mut files: Vec<SourceFile> = contents.files.iter().filter(wanted).cloned().collect();
        // Where the line is too slow for everything, starts arrive.
        files.sort_by_key(|file| (order(&file.key), file.key.times()));
        copier.copy(files, usize::from(self.parallel), &mut outcome).await?;
        self.report(&outcome, &contents, &copier.store.name, print_json)
    }

    fn host(&self) -> anyhow::Result<String> {
        if let Some(host) = &self.host {
            return Ok(host.clone());
        }
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        key::check_host(&name).map_err(|error| anyhow!("{error}; name this recorder with --host"))
    }

    fn report(&self, outcome: &Outcome, contents: &Contents, name: &str, print_json: bool) -> anyhow::Result<()> {
        let Outcome { copied, bytes, present, completed, gone, removed, untried, failed } = outcome;
        if print_json {
            let failed: Vec<_> = failed.iter().map(|(file, error)| json!({"file": file, "error": error})).collect();
            report::print(&json!({
                    "copied": copied, "bytes": bytes, "completed": completed, "present": present, "removed": removed, "gone": gone,
                    "unfinished": contents.unfinished, "untried": untried, "failed": failed,
                }).to_string());
        } else {
            let more = [
                (*completed, "that an interrupted copy had sent, verified and completed"),
                (*removed, "withdrawn, because packets or sessions were removed on purpose"),
                (contents.unfinished, "still being written, to be copied later"),
            ];
            let more: String = more
                .iter()
                .filter(|(n, _)| *n > 0)
                .map(|(n, what)| format!("; {} {what}", counted(*n, "file")))
                .collect();
            report::print(&format!(
                "copied {} ({}) to {name}; {present} were there already{more}",
                counted(*copied, "file"),
                size(*bytes),
            ));
        }
        if *gone > 0 {
            eprintln!(
                "retrocap-archive: {} left the spool before the copy: copy more often, or give the spool more room",
                counted(*gone, "file")
            );
        }
        for (file, error) in failed {
            eprintln!("retrocap-archive: {file}: {error}");
        }
        if *untried > 0 {
            let files = counted(*untried, "file");
            eprintln!("retrocap-archive: gave up after {FAILURES_MAX} failures in a row; {files} were not tried");
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(Reported::error(format!("{} failed; repeat the command", failed.len())))
        }
    }
}

/// Starts first, then the log, then what is deeper.
fn order(key: &DataKey) -> u8 {
    match key {
        DataKey::Packets(key) => match Class::of_band(key.band) {
            Class::Starts => 0,
            Class::Middle => 2,
            Class::Bulk => 3,
        },
        DataKey::Sessions(_) => 1,
    }
}

/// The objects that have a document of this kind (`catalogue` or `removed`), on the days of these keys.
async fn documents<'a>(
    store: &Store,
    keys: impl Iterator<Item = &'a DataKey>,
    kind: &str,
) -> anyhow::Result<HashSet<String>> {
    let days: HashSet<String> = keys.map(DataKey::day).collect();
    let mut listings = futures_util::stream::iter(days)
        .map(|day| async move { store.list(&format!("{kind}/{day}")).await })
        .buffer_unordered(LISTINGS);
    let mut found = HashSet::new();
    while let Some(listed) = listings.next().await {
        found.extend(listed?.into_iter().filter_map(|one| Some(key::described(&one.key)?.to_owned())));
    }
    Ok(found)
}

impl Copier {
    async fn copy(&self, files: Vec<SourceFile>, parallel: usize, outcome: &mut Outcome) -> anyhow::Result<()> {
        let known = documents(&self.store, files.iter().map(|file| &file.key), "catalogue").await?;
        let (present, missing): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| {
            let key = file.key.to_string();
            known.contains(&key) || known.contains(&format!("{key}{}", key::ENCRYPTED))
        });
        outcome.present = present.len() as u64;
        outcome.untried = missing.len() as u64;
        let mut failures = 0;
        let mut copies = futures_util::stream::iter(missing)
            .map(|file| async move { (file.name.clone(), self.file(file).await) })
            .buffer_unordered(parallel);
        while failures < FAILURES_MAX {
            let Some((name, copied)) = copies.next().await else { break };
            outcome.untried -= 1;
            failures += 1;
            match copied.unwrap_or_else(|error| Copied::Failed(format!("{error:#}"))) {
                Copied::Stored(bytes) => {
                    failures = 0;
                    outcome.copied += 1;
                    outcome.bytes += bytes;
                }
                Copied::Completed => {
                    failures = 0;
                    outcome.completed += 1;
                }
                Copied::Gone => {
                    failures = 0;
                    outcome.gone += 1;
                }
                Copied::Failed(error) => outcome.failed.push((name, error)),
            }
        }
        Ok(())
    }

    async fn file(&self, file: SourceFile) -> anyhow::Result<Copied> {
        let file = Arc::new(file);
        let (reading, keys) = (Arc::clone(&file), self.keys.clone());
        let plain = match tokio::task::spawn_blocking(move || reading.read(&keys)).await? {
            Ok(bytes) => bytes,
            Err(ReadFailure::Gone) => return Ok(Copied::Gone),
            Err(ReadFailure::Failed(error)) => return Ok(Copied::Failed(error)),
        };
        let encrypts = match file.key {
            DataKey::Packets(_) => true,
            DataKey::Sessions(_) => self.encrypt_sessions,
        };
        let recipients = self.recipients.as_ref().filter(|_| encrypts);
        let (bytes, hash) = (plain.len() as u64, sha256(&plain));
        let stored: Bytes = match recipients {
            Some(recipients) => recipients.encrypt(&plain)?.into(),
            None => plain.into(),
        };
        let key = format!("{}{}", file.key, if recipients.is_some() { key::ENCRYPTED } else { "" });
        let mut hashes =
            Hashes { bytes, sha256: hash, stored_bytes: stored.len() as u64, stored_sha256: sha256(&stored) };
        self.wait_for_rate(hashes.stored_bytes).await;
        let put = self.store.create(&key, stored).await?;
        if (put == Put::Exists || self.read_back)
            && let Err(reason) = self.compare(&key, &mut hashes, put == Put::Exists && recipients.is_some()).await?
        {
            return Ok(Copied::Failed(reason));
        }
        let sent = hashes.stored_bytes;
        let sidecar = Sidecar::new(&file.key, &key, &file.name, hashes, file.packets.clone());
        let described = key::sidecar(&key);
        if self.store.create(&described, document(&sidecar).into()).await? == Put::Exists {
            let other = self.store.get(&described, DOCUMENT_BYTES_MAX).await?.unwrap_or_default();
            if !Sidecar::read(&other, &key).is_ok_and(|other| other.is_of_same_file(&sidecar)) {
                return Ok(Copied::Failed(format!("{described} describes another file, and is left as it is")));
            }
        }
        Ok(if put == Put::Exists { Copied::Completed } else { Copied::Stored(sent) })
    }

    /// Whether the object is the file; else why not. Of an object that another run has encrypted, length and form are compared:
    /// it is another text each time, and this side cannot decrypt it.
    async fn compare(
        &self,
        key: &str,
        hashes: &mut Hashes,
        is_other_encryption: bool,
    ) -> anyhow::Result<Result<(), String>> {
        let Some(back) = self.store.get(key, crate::store::OBJECT_BYTES_MAX).await? else {
            return Ok(Err("the archive lost it as soon as it was stored".to_owned()));
        };
        let found = sha256(&back);
        let is_right = match is_other_encryption {
            true => encryption::can_be_of(&back, hashes.bytes),
            false => found == hashes.stored_sha256,
        };
        if !is_right {
            return Ok(Err(format!("the archive has another object {key}, which is not overwritten")));
        }
        (hashes.stored_bytes, hashes.stored_sha256) = (back.len() as u64, found);
        Ok(Ok(()))
    }

    async fn wait_for_rate(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let mut next = self.next.lock().await;
        tokio::time::sleep_until((*next).into()).await;
        *next = Instant::now() + Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1));
    }

    /// Withdraws files from which packets or rows were removed on purpose: notes why, and deletes them.
    async fn withdraw(&self, removed: &[DataKey], outcome: &mut Outcome) -> anyhow::Result<()> {
        let known = documents(&self.store, removed.iter(), "catalogue").await?;
        let withdrawn = documents(&self.store, removed.iter(), "removed").await?;
        for key in removed.iter().flat_map(|key| [key.to_string(), format!("{key}{}", key::ENCRYPTED)]) {
            // An interrupted copy can have left the object without a sidecar: it is in no answer, but it is there.
            let is_noted = withdrawn.contains(&key) || !known.contains(&key);
            if is_noted && !self.store.has(&key).await? {
                continue;
            }
            let tombstone = Tombstone::new(&key, "removed on purpose", "retrocap spool drop".to_owned());
            let noted = self.store.create(&key::tombstone(&key), document(&tombstone).into()).await;
            let deleted = match noted {
                Ok(_) => self.store.delete(&key).await,
                Err(error) => Err(error),
            };
            match deleted {
                Ok(()) => outcome.removed += 1,
                Err(error) => outcome.failed.push((
                    key,
                    format!("its packets were removed on purpose, and the archive STILL HAS THEM: {error:#}"),
                )),
            }
        }
        Ok(())
    }
}
