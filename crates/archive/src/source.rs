//! What a spool has to be archived: its sealed files, the files of its log of sessions, and what was removed on purpose.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Deserialize;

use crate::key::{self, DataKey, PacketKey, SessionsKey};
use crate::sidecar::PacketCounts;
use spool::coding::Decoder;
use spool::directory::{Directory, REMOVALS};
use spool::encryption::Keys;
use spool::layout::{FOOTER_BYTES, Footer, parse_name};
use spool::medium::Medium as _;
use spool::sealed_file::{SealedFile, footer};

/// A file that can be archived.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    path: PathBuf,
    /// Name in the spool, with its directories.
    pub(crate) name: String,
    pub(crate) key: DataKey,
    pub(crate) bytes: u64,
    pub(crate) packets: Option<PacketCounts>,
}

/// A spool.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) files: Vec<SourceFile>,
    /// Files of packets that are still being written, or that a crash left.
    pub(crate) unfinished: u64,
    /// Files that cannot be read, with the reason.
    pub(crate) failed: Vec<(String, String)>,
    /// Files from which packets or rows were removed on purpose, as they were before.
    pub(crate) removed: Vec<DataKey>,
    /// Removals that a crash ended.
    pub(crate) unended_removals: u64,
}

/// Why a file was not read.
pub(crate) enum ReadFailure {
    /// The recorder removed it meanwhile, to make room.
    Gone,
    Failed(String),
}

impl Contents {
    /// Reads the footers of a spool that `host` has recorded.
    pub(crate) fn of(spool: &Path, host: &str, keys: &Keys) -> anyhow::Result<Self> {
        let directory = Directory::open_to_read(spool)?.with_keys(keys.clone());
        let mut contents = Self::default();
        for (name, len) in directory.list().with_context(|| format!("cannot read the spool {}", spool.display()))? {
            if parse_name(&name).is_none() {
                continue;
            }
            let opened = directory.open(&name).and_then(|file| footer(&directory, &file, &name, len));
            match opened {
                Ok(Some(footer)) => contents.files.push(packets(spool, host, &SealedFile::new(&name, footer, len))),
                Ok(None) => contents.unfinished += 1,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => contents.failed.push((name, error.to_string())),
            }
        }
        contents.log(spool, host)?;
        contents.removals(spool, host)?;
        if contents.files.is_empty() && contents.unfinished == 0 && !spool.join("sessions").is_dir() {
            return Err(anyhow!(
                "{} contains no files of a spool: name the directory of `run --spool`",
                spool.display()
            ));
        }
        Ok(contents)
    }

    /// The files of the log of sessions. A file has its name only when it is whole.
    fn log(&mut self, spool: &Path, host: &str) -> anyhow::Result<()> {
        for date in names(&spool.join("sessions"))? {
            for hour in names(&spool.join("sessions").join(&date))? {
                let directory = format!("sessions/{date}/{hour}");
                for file in names(&spool.join(&directory))? {
                    let name = format!("{directory}/{file}");
                    let Some(key) = log_key(&name, host) else { continue };
                    let path = spool.join(&name);
                    match std::fs::symlink_metadata(&path) {
                        Ok(metadata) if metadata.is_file() => {
                            self.files.push(SourceFile { path, name, key, bytes: metadata.len(), packets: None });
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn removals(&mut self, spool: &Path, host: &str) -> anyhow::Result<()> {
        let path = spool.join(REMOVALS);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<RemovalLine>(line) else { continue };
            match line.removal.as_str() {
                "begin" => self.unended_removals += 1,
                "end" => self.unended_removals = self.unended_removals.saturating_sub(1),
                _ => continue,
            }
            self.removed.extend(line.files.iter().filter_map(|file| file.key(host)));
            let logs = line.session_files.iter().flatten();
            self.removed.extend(logs.filter_map(|name| log_key(name, host)));
        }
        Ok(())
    }
}

/// A line of the list of what was removed on purpose.
#[derive(Deserialize)]
struct RemovalLine {
    removal: String,
    #[serde(default)]
    files: Vec<ChangedFile>,
    #[serde(default)]
    session_files: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct ChangedFile {
    file: String,
    epoch: u64,
    oldest: String,
    newest: String,
    fingerprint: u32,
}

impl ChangedFile {
    fn key(&self, host: &str) -> Option<DataKey> {
        let (number, band, coding) = parse_name(&self.file)?;
        Some(DataKey::Packets(PacketKey {
            host: host.to_owned(),
            oldest: key::rfc3339(&self.oldest)?,
            newest: key::rfc3339(&self.newest)?,
            epoch: self.epoch,
            number,
            band,
            fingerprint: self.fingerprint,
            coding,
        }))
    }
}

/// The names in a directory, sorted; none if it is missing.
fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let cannot = || format!("cannot read {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.with_context(cannot)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.with_context(cannot)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// The key of `sessions/date=…/hour=…/….parquet`.
fn log_key(name: &str, host: &str) -> Option<DataKey> {
    let name = name.strip_prefix("sessions/")?;
    let (key, encrypted) = DataKey::parse(&format!("{}{name}", key::sessions_of(host)))?;
    (!encrypted && matches!(key, DataKey::Sessions(SessionsKey { .. }))).then_some(key)
}

fn packets(spool: &Path, host: &str, file: &SealedFile) -> SourceFile {
    let footer = &file.footer;
    let (oldest, newest) = file.times();
    let key = PacketKey {
        host: host.to_owned(),
        oldest,
        newest,
        epoch: footer.header.id.epoch,
        number: footer.header.id.counter,
        band: footer.header.band,
        fingerprint: file.fingerprint(),
        coding: footer.header.coding,
    };
    let counts = PacketCounts {
        band: footer.header.band,
        epoch: footer.header.id.epoch,
        number: footer.header.id.counter,
        replaces: footer.header.replaces,
        packets: footer.packets,
        sessions: footer.sessions,
        captured_bytes: footer.captured_bytes,
        damaged_bytes: footer.damaged_bytes,
    };
    SourceFile {
        path: spool.join(&file.name),
        name: file.name.clone(),
        key: DataKey::Packets(key),
        bytes: file.len,
        packets: Some(counts),
    }
}

impl SourceFile {
    /// Reads the file, and verifies that it is the one that was listed.
    pub(crate) fn read(&self, keys: &Keys) -> Result<Vec<u8>, ReadFailure> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => ReadFailure::Gone,
            _ => ReadFailure::Failed(error.to_string()),
        };
        if self.bytes > crate::store::OBJECT_BYTES_MAX {
            return Err(ReadFailure::Failed(format!("it has {} bytes, more than one request can store", self.bytes)));
        }
        let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let file = std::fs::OpenOptions::new().read(true).custom_flags(no_link).open(&self.path).map_err(failed)?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or(0) + 1);
        file.take(self.bytes + 1).read_to_end(&mut bytes).map_err(failed)?;
        match self.is_it(&bytes, keys) {
            true => Ok(bytes),
            false => Err(ReadFailure::Failed("it changed while it was read, or is damaged".to_owned())),
        }
    }

    fn is_it(&self, bytes: &[u8], keys: &Keys) -> bool {
        bytes.len() as u64 == self.bytes && is_named(bytes, &self.key, keys)
    }
}

/// Whether the bytes are the file that this key names: as its footer says, or its checksum.
pub(crate) fn is_named(bytes: &[u8], key: &DataKey, keys: &Keys) -> bool {
    match key {
        DataKey::Sessions(key) => key::log_crc(&key.file) == Some(crc32fast::hash(bytes)),
        DataKey::Packets(key) => {
            let name = key.file_name();
            let mut block = Vec::new();
            let end = bytes.len().checked_sub(key.coding.end_len(FOOTER_BYTES)).and_then(|at| bytes.get(at..));
            let decoded = end.and_then(|end| Decoder::new(keys).units(key.coding, end, &mut block));
            let footer = decoded.and_then(|_| Footer::read(&block));
            footer.is_some_and(|footer| {
                SealedFile::new(&name, footer, bytes.len() as u64).fingerprint() == key.fingerprint
            })
        }
    }
}
