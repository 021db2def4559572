//! `retrocap spool`: lists, verifies and removes what is on disk. No recorder is needed.

mod decrypt;
#[cfg_attr(not(feature = "session-log"), path = "spool/no_session_log.rs")]
mod session_log;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use serde_json::json;

use crate::client;
use crate::error::Usage;
use crate::offline_spool::SpoolPlace;
use crate::options::Common;
use crate::terminal::human::{counted, size};
use crate::terminal::printable::{note, plain, print, print_json};
use crate::terminal::spool_page;
use crate::verbs::selection;
use api::path;
use base::time::{self, Timestamp};
use filter::FilterSet;
use query::status::{SpoolStatus, Status};
use spool::catalogue::{Catalogue, OpenReport};
use spool::check::{Damage, FileReport};
use spool::directory::{Directory, DirectoryError};
use spool::removal::{RemovalReport, remove_packets};
use spool::sealed_file::SealedFile;

/// List, verify and remove what is on disk
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap spool status                                          what is on disk by depth, and what was lost
  retrocap spool ls /var/lib/retrocap/spool                      its files, and the times that they cover
  retrocap spool check /var/lib/retrocap/spool                   verify every checksum
  retrocap spool drop host 10.0.0.5 --before 2026-11-01 --spool /var/lib/retrocap/spool
                                                                 remove packets permanently
  retrocap spool decrypt -o plain /mnt/dead/spool --spool-key spool.key
                                                                 write encrypted files for Wireshark and databases")]
pub(crate) struct Spool {
    /// Key file, if the files are encrypted
    #[arg(long, global = true, value_name = "FILE")]
    spool_key: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the files: times, packets, sessions, bytes
    Ls {
        /// Directory of the spool [default: that of the running recorder]
        directory: Option<PathBuf>,
    },
    /// Verify every checksum, and name the packets that are damaged
    Check {
        /// Directory of the spool [default: that of the running recorder]
        directory: Option<PathBuf>,
    },
    /// State of the running recorder's spool: what it has by depth, what was lost, and how fast the disk is
    Status,
    /// Remove the packets that match, permanently. Stop the recorder that writes to the spool first
    Drop {
        /// Only packets before this time
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        before: String,
        /// Directory of the spool [default: that of the running recorder]
        #[arg(long = "spool", value_name = "DIR")]
        directory: Option<PathBuf>,
        /// tcpdump expression, as in: host 10.0.0.5
        #[arg(value_name = "EXPR", required = true, allow_negative_numbers = true)]
        expression: Vec<String>,
    },
    /// Decrypt all files into a new directory, so that other programs can read them
    Decrypt {
        /// Directory to create
        #[arg(short, long = "output", value_name = "DIR")]
        output: PathBuf,
        /// Directory of the spool [default: that of the running recorder]
        directory: Option<PathBuf>,
    },
}

impl Spool {
    /// Runs the action.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        let key = self.spool_key.as_deref();
        match &self.action {
            Action::Ls { directory } => list(common, SpoolPlace { path: &chosen(common, directory.as_deref())?, key }),
            Action::Check { directory } => {
                check(common, SpoolPlace { path: &chosen(common, directory.as_deref())?, key })
            }
            Action::Decrypt { output, directory } => {
                decrypt::run(common, SpoolPlace { path: &chosen(common, directory.as_deref())?, key }, output)
            }
            Action::Status => status(common),
            Action::Drop { before, directory, expression } => {
                let Some(expression) = selection::expression(expression)? else {
                    return Err(Usage::of("drop takes an expression: try drop host 10.0.0.5 --before 2026-11-01"));
                };
                let place = SpoolPlace { path: &chosen(common, directory.as_deref())?, key };
                remove(common, place, &expression, before)
            }
        }
    }
}

/// Prints the state of the running recorder's spool.
fn status(common: &Common) -> anyhow::Result<()> {
    let document = client::get(common, path::SPOOL)?.document()?;
    let status: Option<SpoolStatus> = serde_json::from_str(&document).context("the recorder has another version")?;
    let Some(status) = status else { return Err(without_spool()) };
    if common.json {
        return print_json(&format!("{}\n", document.trim_end()));
    }
    print(&spool_page::page(&status, Timestamp::from(SystemTime::now()), &TimeZone::system()))
}

fn without_spool() -> anyhow::Error {
    anyhow!("the recorder has no spool: name the directory of a spool, or run `retrocap run --spool DIR`")
}

/// The directory that was given, or else that of the running recorder.
fn chosen(common: &Common, directory: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(directory) = directory {
        return Ok(directory.to_owned());
    }
    let document = client::get(common, path::STATUS)?.document()?;
    let status: Status = serde_json::from_str(&document).context("the recorder has another version")?;
    match status.spool {
        Some(spool) => Ok(spool.dir.into()),
        None => Err(without_spool()),
    }
}

fn open(place: SpoolPlace<'_>) -> anyhow::Result<(Arc<Directory>, Catalogue, OpenReport)> {
    let directory = Arc::new(place.open_to_read()?);
    let (catalogue, opening) = Catalogue::open(&directory, false)
        .with_context(|| format!("cannot read the spool {}", place.path.display()))?;
    Ok((directory, catalogue, opening))
}

/// A row of the list.
struct Row {
    name: String,
    band: u8,
    sealed: bool,
    times: Option<(Timestamp, Timestamp)>,
    packets: u64,
    sessions: Option<u64>,
    bytes: u64,
}

fn rows(catalogue: &Catalogue) -> Vec<Row> {
    let sealed = catalogue.sealed.iter().map(|entry| Row {
        name: entry.name.clone(),
        band: entry.footer.header.band,
        sealed: true,
        times: entry.footer.times,
        packets: entry.footer.packets,
        sessions: Some(entry.footer.sessions),
        bytes: entry.len,
    });
    let open = catalogue.open.iter().map(|shared| {
        let growing = shared.lock();
        Row {
            name: shared.name(),
            band: shared.header.band,
            sealed: false,
            times: growing.index.times(),
            packets: growing.index.packets(),
            sessions: None,
            bytes: growing.written,
        }
    });
    let mut rows: Vec<Row> = sealed.chain(open).collect();
    rows.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    rows
}

fn list(common: &Common, place: SpoolPlace<'_>) -> anyhow::Result<()> {
    let (directory, catalogue, opening) = open(place)?;
    let rows = rows(&catalogue);
    let log = session_log::list(&directory)?;
    for (name, reason) in &opening.failed {
        note(&format!("{} cannot be read: {}", plain(name), plain(reason)));
    }
    if common.json {
        let row = |row: &Row| {
            json!({
                "file": row.name, "band": row.band, "sealed": row.sealed,
                "first": row.times.map(|times| times.0.to_rfc3339()),
                "last": row.times.map(|times| times.1.to_rfc3339()),
                "packets": row.packets, "sessions": row.sessions, "bytes": row.bytes,
            })
        };
        let rows: Vec<_> = rows.iter().map(row).chain(log.iter().map(session_log::FileOfSessions::json)).collect();
        return print_json(&format!("{}\n", serde_json::to_string_pretty(&rows)?));
    }
    if rows.is_empty() && log.is_empty() {
        return Err(anyhow!("{} holds no files of a spool", place.path.display()));
    }
    let tz = TimeZone::system();
    let local = |time: Option<Timestamp>| time.map_or("-".to_owned(), |time| time::local(time, &tz));
    let mut out = format!(
        "{:<32} {:>4}  {:<19}  {:<19} {:>10} {:>9} {:>10}\n",
        "FILE", "BAND", "FIRST", "LAST", "PACKETS", "SESSIONS", "BYTES"
    );
    for row in &rows {
        let sessions = row.sessions.map_or("open".to_owned(), |sessions| sessions.to_string());
        let (first, last) = (local(row.times.map(|times| times.0)), local(row.times.map(|times| times.1)));
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{:<32} {:>4}  {first:<19}  {last:<19} {:>10} {sessions:>9} {:>10}",
            plain(&row.name),
            row.band,
            row.packets,
            size(row.bytes)
        );
    }
    for file in &log {
        out.push_str(&file.line(&tz));
    }
    print(&out)
}

fn check(common: &Common, place: SpoolPlace<'_>) -> anyhow::Result<()> {
    let (path, directory) = (place.path, place.open_to_read()?);
    let (mut reports, mut unreadable) = (Vec::new(), Vec::new());
    let checked = spool::check::check(&directory, |name, report| match report {
        Ok(report) => reports.push(report),
        Err(error) => unreadable.push((name.to_owned(), error.to_string())),
    });
    checked.with_context(|| format!("cannot read the spool {}", path.display()))?;
    let log = session_log::check(&directory)?;
    let damaged = reports.iter().filter(|report| !report.is_whole()).count() + unreadable.len() + log.damaged.len();
    if common.json {
        let unreadable: Vec<_> = unreadable.iter().map(|(file, error)| json!({"file": file, "error": error})).collect();
        let document = json!({
            "files": reports.len() + unreadable.len(), "damaged_files": damaged - log.damaged.len(),
            "packets": reports.iter().map(|report| report.packets).sum::<u64>(),
            "damage": reports.iter().filter(|report| !report.is_whole()).map(damage_json).collect::<Vec<_>>(),
            "unreadable": unreadable,
            "session_log": log.json(),
        });
        print_json(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&(check_text(&reports, &unreadable, damaged - log.damaged.len()) + &log.text()))?;
    }
    if damaged > 0 { Err(anyhow!("{damaged} of the files are damaged")) } else { Ok(()) }
}

fn damage_json(report: &FileReport) -> serde_json::Value {
    let damage = |damage: &Damage| {
        json!({
            "from_byte": damage.bytes.start, "to_byte": damage.bytes.end, "packets": damage.packets,
            "first": damage.times.map(|times| times.0.to_rfc3339()),
            "last": damage.times.map(|times| times.1.to_rfc3339()),
        })
    };
    json!({
        "file": report.name, "sealed": report.sealed, "index_damage": report.index_damage,
        "damage": report.damage.iter().map(damage).collect::<Vec<_>>(),
    })
}

fn check_text(reports: &[FileReport], unreadable: &[(String, String)], damaged: usize) -> String {
    let packets: u64 = reports.iter().map(|report| report.packets).sum();
    let files = counted((reports.len() + unreadable.len()) as u64, "file");
    let mut out = match damaged {
        0 => format!("all is whole: {} in {files}\n", counted(packets, "packet")),
        _ => format!("{damaged} of {files} are damaged; {} are whole\n", counted(packets, "packet")),
    };
    for report in reports.iter().filter(|report| !report.is_whole()) {
        for Damage { bytes, packets, times } in &report.damage {
            let packets = packets.map_or("an unknown number of packets".to_owned(), |n| counted(n, "packet"));
            let times = times.map_or(String::new(), |(from, to)| format!(" between {from} and {to}"));
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}: bytes {} to {}: {packets}{times}", plain(&report.name), bytes.start, bytes.end);
        }
        if !report.index_damage.is_empty() {
            let parts = report.index_damage.join(", ");
            let _ = writeln!(
                out,
                "{}: the index is damaged ({}); all packets are intact",
                plain(&report.name),
                plain(&parts)
            );
        }
    }
    for report in reports.iter().filter(|report| !report.sealed && report.unconfirmed_bytes > 0) {
        let bytes = report.unconfirmed_bytes;
        let _ = writeln!(out, "{}: not closed; the last {bytes} bytes are unconfirmed", plain(&report.name));
    }
    for (name, error) in unreadable {
        let _ = writeln!(out, "{}: cannot be read: {}", plain(name), plain(error));
    }
    out
}

fn remove(common: &Common, place: SpoolPlace<'_>, expression: &str, before: &str) -> anyhow::Result<()> {
    let (path, keys) = (place.path, place.keys()?);
    let now = Timestamp::from(SystemTime::now());
    let before = time::parse(before, now, &TimeZone::system()).map_err(Usage::of)?;
    let mut filter = FilterSet::new(expression).map_err(Usage::of)?;
    // The lock keeps a recorder out meanwhile, and unfinished files are completed first.
    let directory = match Directory::open_to_write(path) {
        Err(DirectoryError::Locked { path }) => return Err(in_use(&path)),
        opened => Arc::new(opened?.with_keys(keys)),
    };
    let (catalogue, opening) =
        Catalogue::open(&directory, true).with_context(|| format!("cannot read the spool {}", path.display()))?;
    let uid = rustix::process::getuid().as_raw();
    let reason = format!("{expression:?} before {before}, by uid {uid}");
    let record = json!({"time": now.to_rfc3339(), "uid": uid, "expression": expression, "before": before.to_rfc3339()});
    // Written first, so that a removal that a crash ends is on record, too.
    note_removal(&directory, "begin", &record)?;
    let mut matches = |link_type, data: &[u8], original_len| filter.matches(link_type, data, original_len);
    let removal = remove_packets(&directory, &catalogue, before, &reason, now, &mut matches);
    // Packets may be gone already: a log that cannot be read does not keep the removal from being recorded and reported.
    let log = session_log::remove(&directory, expression, before, now);
    let RemovalReport { packets, bytes, rewritten, removed, changed, failed } = removal;
    let log_failed = log.as_ref().err().map(|error| ("sessions".to_owned(), format!("{error:#}")));
    let log = log.ok();
    let of_log = log.iter().flat_map(|log| log.failed());
    // Nothing was removed from files that cannot be opened, such as those whose key is missing.
    let failed: Vec<&(String, String)> =
        failed.iter().chain(&opening.failed).chain(of_log).chain(&log_failed).collect();
    let reasons: Vec<_> = failed.iter().map(|(file, error)| json!({"file": file, "error": error})).collect();
    let document = json!({
        "packets": packets, "bytes": bytes, "rewritten_files": rewritten, "removed_files": removed,
        "session_log": log.as_ref().map(|log| log.json()), "failed": reasons,
    });
    let changed = json!({
        "files": changed.iter().map(|file| changed_file(file)).collect::<Vec<_>>(),
        "session_files": log.as_ref().map(|log| log.changed()),
    });
    note_removal(&directory, "end", &merged(merged(record, &document), &changed))?;
    for (file, error) in &failed {
        note(&format!("retrocap: {}: {}", plain(file), plain(error)));
    }
    let incomplete = match failed.len() as u64 {
        0 => None,
        files => Some(anyhow!(
            "INCOMPLETE: nothing was removed from {}; packets that match may still be there",
            counted(files, "file")
        )),
    };
    if common.json {
        print_json(&format!("{document}\n"))?;
        return incomplete.map_or(Ok(()), Err);
    }
    if let Some(log) = log.as_ref().filter(|log| packets == 0 && log.rows() == 0 && incomplete.is_none()) {
        return Err(anyhow!("no packet before {before} matches {expression:?}{}", log.undecided_text()));
    }
    print(&format!(
        "removed {} ({}): {rewritten} files were rewritten without them, {removed} files that contained nothing else were deleted\n{}",
        counted(packets, "packet"),
        size(bytes),
        log.map(|log| log.text()).unwrap_or_default()
    ))?;
    incomplete.map_or(Ok(()), Err)
}

/// A file as it was before the removal, so that an archive finds its copy.
fn changed_file(file: &SealedFile) -> serde_json::Value {
    let (oldest, newest) = file.times();
    json!({
        "file": file.name, "epoch": file.footer.header.id.epoch, "oldest": oldest.to_rfc3339(), "newest": newest.to_rfc3339(),
        "fingerprint": file.fingerprint(),
    })
}

/// A recorder holds the spool.
fn in_use(path: &Path) -> anyhow::Error {
    anyhow!(
        "a recorder writes to the spool {}, and nothing was removed: stop it (systemctl stop retrocap), repeat this command, \
         and start it again; a recorder that is stopped also forgets what is in its memory",
        path.display()
    )
}

/// Adds a line to the list of removals in the directory of the spool.
fn note_removal(directory: &Directory, phase: &str, record: &serde_json::Value) -> anyhow::Result<()> {
    let line = merged(json!({"removal": phase}), record).to_string();
    let name = spool::directory::REMOVALS;
    directory
        .note_removal(&line)
        .with_context(|| format!("cannot write {name} in {}, which lists what was removed", directory.path().display()))
}

/// The members of both objects.
fn merged(mut one: serde_json::Value, other: &serde_json::Value) -> serde_json::Value {
    if let (Some(one), Some(other)) = (one.as_object_mut(), other.as_object()) {
        one.extend(other.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    one
}
