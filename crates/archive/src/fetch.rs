//! `retrocap-archive fetch`: reads a window back, as a spool that `retrocap get --spool DIR` reads.
//!
//! It gets the objects whose times and depth can match, and no others. What it could not get is named: an answer from the rest must not
//! look like one from everything.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::json;

use crate::archive_args::{ArchiveArgs, Part};
use crate::encryption::Identities;
use crate::inventory::{Entry, State, entries};
use crate::key::{self, DataKey};
use crate::report::{self, Reported, counted, size};
use crate::sidecar::{DOCUMENT_BYTES_MAX, Tombstone};
use crate::store::Store;
use crate::verify::{self, Verified};

/// Names of objects that a report lists for each problem.
const NAMED_MAX: usize = 20;

/// Read a window of one recorder back, as a spool: for retrocap get --spool DIR
#[derive(Debug, Args)]
pub(crate) struct Fetch {
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    part: Part,
    /// Directory to write to. It is made, and must be empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Fetch the log of sessions, and packets only after its end: for retrocap flows --spool DIR
    #[arg(long, conflicts_with = "only")]
    sessions: bool,
    /// Remove the directory again when standard input ends
    #[arg(long, hide = true)]
    temporary: bool,
    /// Private key of age, for what is encrypted; may be repeated
    #[arg(long = "identity", value_name = "FILE", env = "RETROCAP_ARCHIVE_IDENTITY", hide_env_values = true)]
    identities: Vec<PathBuf>,
    /// Refuse to fetch more than this
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = report::bytes)]
    limit: u64,
    /// Objects that are fetched at the same time; each takes up to 64 MiB of memory
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
}

/// What the archive has of a window, but was not fetched.
#[derive(Default)]
struct Lacking {
    missing: Vec<String>,
    damaged: Vec<String>,
    locked: Vec<String>,
    failed: Vec<String>,
    expired: Vec<String>,
    removed: Vec<String>,
}

impl Fetch {
    pub(crate) async fn run(&self, print_json: bool) -> anyhow::Result<()> {
        if !self.temporary {
            return self.fetch(print_json).await;
        }
        // What this program did not make must not be removed.
        let is_empty = std::fs::read_dir(&self.to).map_or(true, |mut entries| entries.next().is_none());
        if !is_empty {
            return Err(anyhow!("{} is not empty: name a new directory", self.to.display()));
        }
        let to = self.to.clone();
        let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        let fetching = async {
            let fetched = self.fetch(print_json).await;
            // The other program reads the files until it ends, and then this one.
            if fetched.as_ref().err().is_none_or(anyhow::Error::is::<Reported>) {
                std::future::pending::<()>().await;
            }
            fetched
        };
        let done = tokio::select! {
            fetched = fetching => fetched,
            _ = ended => Ok(()),
        };
        let _ = std::fs::remove_dir_all(&to);
        // A thread may still wait for the input.
        if let Err(error) = done {
            eprintln!("retrocap-archive: {error:#}");
            std::process::exit(1);
        }
        std::process::exit(0);
    }

    async fn fetch(&self, print_json: bool) -> anyhow::Result<()> {
        let store = self.archive.open(false)?;
        let host = self.host(&store).await?;
        let identities = Identities::read(&self.identities)?;
        let part = Part { hosts: vec![host.clone()], ..self.part.clone() };
        let all = entries(&store, &part).await?;
        let all = if self.sessions { of_sessions(all) } else { all };
        let (wanted, mut lacking) = sorted(&store, &all).await?;
        let bytes: u64 = wanted.iter().filter_map(|entry| Some(entry.object.as_ref()?.bytes)).sum();
        if bytes > self.limit {
            return Err(anyhow!(
                "this window has {} in {}, more than the limit of {}: ask for a shorter one, or for starts of sessions alone \
                 ({} starts), or raise the limit ({} {}G)",
                size(bytes),
                counted(wanted.len() as u64, "object"),
                size(self.limit),
                self.flag("--only"),
                self.flag("--limit"),
                (bytes >> 30) + 1
            ));
        }
        prepare(&self.to, bytes)?;
        let (mut files, mut fetched, mut unconfirmed) = (0, 0, 0);
        let mut names = HashSet::new();
        let (read_store, keys) = (&store, &identities);
        let mut reads = futures_util::stream::iter(&wanted)
            .map(|entry| async move { (entry, verify::read(read_store, entry, keys).await) })
            .buffered(usize::from(self.parallel));
        while let Some((entry, read)) = reads.next().await {
            match read {
                Ok(Verified::Right(Some(plain))) => {
                    write(&self.to, &place(&entry.key, &mut names), &plain)?;
                    files += 1;
                    fetched += plain.len() as u64;
                    unconfirmed += u64::from(!entry.is_described);
                }
                Ok(Verified::Right(None) | Verified::Locked) => lacking.locked.push(entry.name.clone()),
                Ok(Verified::Missing) => lacking.missing.push(entry.name.clone()),
                Ok(Verified::Damaged(reason)) => lacking.damaged.push(format!("{}: {reason}", entry.name)),
                Err(error) => lacking.failed.push(format!("{}: {error:#}", entry.name)),
            }
        }
        let reach = reach(&store, &host).await?;
        let fetched = Fetched { host, files, bytes: fetched, unconfirmed, reach };
        fetched.report(&lacking, &self.to, print_json);
        if lacking.is_complete() { Ok(()) } else { Err(Reported::error("the window is not whole".to_owned())) }
    }

    /// How the user calls a flag: `retrocap get` has names of its own.
    fn flag(&self, flag: &'static str) -> &'static str {
        match flag {
            "--host" if self.temporary => "--archive-host",
            "--limit" if self.temporary => "--archive-limit",
            "--only" if self.temporary => "--archive-only",
            _ => flag,
        }
    }

    /// The one recorder that is asked about.
    async fn host(&self, store: &Store) -> anyhow::Result<String> {
        let hosts = Part::all_hosts(store).await?;
        if let [host] = &*self.part.hosts {
            let is_known = hosts.contains(host);
            let others = hosts.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let unknown = || anyhow!("the archive has nothing of {host}; it has {others}");
            return if is_known || hosts.is_empty() { Ok(host.clone()) } else { Err(unknown()) };
        }
        match &*hosts {
            [] => Err(anyhow!("{} has nothing that retrocap-archive has copied", store.name)),
            [host] => Ok(host.clone()),
            hosts => {
                let some: Vec<&str> = hosts.iter().take(NAMED_MAX).map(String::as_str).collect();
                let more = if hosts.len() > some.len() { ", …" } else { "" };
                let count = hosts.len();
                let flag = self.flag("--host");
                Err(anyhow!("the archive has {count} recorders: choose one with {flag}: {}{more}", some.join(", ")))
            }
        }
    }
}

/// The log of sessions, and packets after its end, of which sessions have to be made.
fn of_sessions(entries: Vec<Entry>) -> Vec<Entry> {
    let ends = entries.iter().filter(|entry| matches!(entry.key, DataKey::Sessions(_)) && entry.object.is_some());
    // The latest hour may have ended early: its packets tell of the rest.
    let end = ends.map(|entry| entry.key.times().0).max();
    let is_part = |entry: &Entry| match entry.key {
        DataKey::Sessions(_) => true,
        DataKey::Packets(_) => end.is_none_or(|end| entry.key.times().1 >= end),
    };
    entries.into_iter().filter(is_part).collect()
}

/// What can be fetched, and what cannot.
async fn sorted<'a>(store: &Store, entries: &'a [Entry]) -> anyhow::Result<(Vec<&'a Entry>, Lacking)> {
    let (mut wanted, mut lacking) = (Vec::new(), Lacking::default());
    for entry in entries {
        match entry.state() {
            State::Whole | State::Unconfirmed => wanted.push(entry),
            State::Missing => lacking.missing.push(entry.name.clone()),
            State::Removed | State::Undeleted => {
                let tombstone = store.get(&key::tombstone(&entry.name), DOCUMENT_BYTES_MAX).await?;
                let tombstone: Option<Tombstone> = tombstone.and_then(|bytes| serde_json::from_slice(&bytes).ok());
                match tombstone.as_ref().map(|tombstone| &*tombstone.reason) {
                    Some("expired") => lacking.expired.push(entry.name.clone()),
                    _ => lacking.removed.push(entry.name.clone()),
                }
            }
        }
    }
    Ok((wanted, lacking))
}

/// The first and the last day of which the archive has packets or sessions of a recorder.
async fn reach(store: &Store, host: &str) -> anyhow::Result<Option<(String, String)>> {
    let all = Part { hosts: vec![host.to_owned()], since: None, until: None, only: Vec::new() };
    let days = all.days(store).await?;
    let dates = days.iter().filter_map(|day| Some(day.rsplit_once("date=")?.1.trim_end_matches('/').to_owned()));
    let mut dates: Vec<String> = dates.filter(|date| date != "various").collect();
    dates.sort_unstable();
    Ok(dates.first().cloned().zip(dates.last().cloned()))
}

/// Makes the directory, which only this user can read, and looks for room.
fn prepare(to: &Path, bytes: u64) -> anyhow::Result<()> {
    let cannot = || format!("cannot use {}", to.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to).with_context(cannot)?;
    if std::fs::read_dir(to).with_context(cannot)?.next().is_some() {
        return Err(anyhow!("{} is not empty, and nothing in it is overwritten: name a new directory", to.display()));
    }
    let room = rustix::fs::statvfs(to).with_context(cannot)?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < bytes {
        return Err(anyhow!(
            "{} has room for {}, and this window has {}: name another directory, or set TMPDIR",
            to.display(),
            size(free),
            size(bytes)
        ));
    }
    Ok(())
}

/// The file of an object in the spool.
fn place(key: &DataKey, names: &mut HashSet<String>) -> String {
    let name = match key {
        DataKey::Packets(key) => {
            let mut name = key.file_name();
            // A spool that was emptied began to count anew. A number with more zeros is the same number, and another name.
            while names.contains(&name) {
                name.insert(0, '0');
            }
            name
        }
        DataKey::Sessions(_) => {
            let directory = key.directory();
            let below = directory.split_once("/date=").map_or("", |(_, below)| below);
            let DataKey::Sessions(sessions) = key else { return String::new() };
            format!("sessions/date={below}{}", sessions.file)
        }
    };
    names.insert(name.clone());
    name
}

fn write(to: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = to.join(name);
    let cannot = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).with_context(cannot)?;
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(cannot)?;
    file.write_all(bytes).with_context(cannot)
}

/// The class in the name of an object.
fn class_in(name: &str) -> &str {
    let class = name.strip_prefix("packets/class=").and_then(|rest| rest.split('/').next());
    class.unwrap_or(key::SESSIONS)
}

impl Lacking {
    fn is_complete(&self) -> bool {
        [&self.missing, &self.damaged, &self.locked, &self.failed].iter().all(|names| names.is_empty())
    }

    /// Each kind with its name for scripts, and for people.
    fn kinds(&self) -> [(&'static str, &'static str, &[String]); 6] {
        [
            ("missing", "missing from the archive, and nothing says why", &self.missing),
            ("damaged", "damaged", &self.damaged),
            ("locked", "encrypted, and no key was given that opens them", &self.locked),
            ("failed", "not read", &self.failed),
            ("expired", "expired before", &self.expired),
            ("removed", "removed on purpose", &self.removed),
        ]
    }
}

/// What was fetched.
struct Fetched {
    host: String,
    files: u64,
    bytes: u64,
    unconfirmed: u64,
    reach: Option<(String, String)>,
}

impl Fetched {
    fn report(&self, lacking: &Lacking, to: &Path, print_json: bool) {
        let Self { host, files, bytes, unconfirmed, reach } = self;
        if print_json {
            let mut document = json!({
                "host": host, "files": files, "bytes": bytes, "unconfirmed": unconfirmed, "complete": lacking.is_complete(),
                "first_day": reach.as_ref().map(|(first, _)| first), "last_day": reach.as_ref().map(|(_, last)| last),
            });
            document["lacking"] = json!({});
            for (kind, what, names) in lacking.kinds().into_iter().filter(|(.., names)| !names.is_empty()) {
                let some: Vec<&String> = names.iter().take(NAMED_MAX).collect();
                let mut classes = BTreeMap::<&str, u64>::new();
                for name in names {
                    *classes.entry(class_in(name)).or_default() += 1;
                }
                document["lacking"][kind] =
                    json!({"count": names.len(), "what": what, "classes": classes, "objects": some});
            }
            report::print(&document.to_string());
            return;
        }
        report::print(&format!("fetched {} ({}) of {host} to {}", counted(*files, "file"), size(*bytes), to.display()));
        if let Some((first, last)) = reach {
            eprintln!("retrocap-archive: the archive has {host} from {first} to {last}");
        }
        for (_, what, names) in lacking.kinds().iter().filter(|(.., names)| !names.is_empty()) {
            eprintln!("retrocap-archive: {} {what}:", counted(names.len() as u64, "object"));
            for name in names.iter().take(NAMED_MAX) {
                eprintln!("  {name}");
            }
        }
    }
}
