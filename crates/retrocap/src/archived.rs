//! `--archive URL`: reads a window of an archive, as `--spool DIR` reads a spool.
//!
//! Another program, `retrocap-archive`, fetches the files of the window into a directory, so that this one needs no client of object
//! stores. It removes the directory when this program ends, however that happens: it waits for the end of its standard input.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::error::{AlreadyReported, Incomplete, Usage};
use crate::options::Common;
use crate::terminal::human::counted;
use crate::terminal::printable::{note, plain};
use crate::verbs::archive_args::ArchiveArgs;
use crate::verbs::selection::{Selection, TimeWindowArgs};
use base::time::Timestamp;

/// The program that fetches.
const PROGRAM: &str = "retrocap-archive";
/// How much more is fetched before and after a window whose sessions are wanted whole.
const AROUND_SESSIONS: Duration = Duration::from_secs(3600);

/// What a verb reads of an archive.
pub(crate) struct Wanted {
    /// The log of sessions, and packets only after its end.
    pub(crate) sessions: bool,
    /// Whole sessions, which reach beyond the window.
    pub(crate) whole_sessions: bool,
    /// New packets, which an archive does not get.
    pub(crate) follows: bool,
}

/// A verb that can read an archive.
pub(crate) trait ReadsArchive {
    /// What is asked for.
    fn asked(&mut self) -> (&mut Selection, &mut TimeWindowArgs, Wanted);

    /// Runs the verb against a recorder, files or a spool.
    fn run_verb(&self, common: &Common) -> anyhow::Result<()>;
}

/// Runs a verb, on the files of an archive if one is named.
pub(crate) fn run(verb: &mut impl ReadsArchive, common: &Common) -> anyhow::Result<()> {
    let (selection, around, wanted) = verb.asked();
    if selection.archive.archive.is_none() {
        return verb.run_verb(common);
    }
    if wanted.follows {
        return Err(Usage::of("--follow waits for new packets, and an archive gets none here: leave out --follow"));
    }
    let (now, tz) = (common.now(), TimeZone::system());
    let window = selection.window(Some(around), now, &tz)?;
    // Relative times would count from the newest packet of the files.
    selection.fix_times(around, now, &tz)?;
    let fetched = Fetched::fetch(&selection.archive, window, &wanted)?;
    fetched.tell(window, &wanted);
    if fetched.report.files == 0 {
        return Err(if fetched.report.complete { fetched.nothing() } else { AlreadyReported.into() });
    }
    selection.read_spool(fetched.directory.clone());
    let answer = verb.run_verb(common);
    match answer {
        Ok(()) if !fetched.report.complete => Err(Incomplete.into()),
        answer => answer,
    }
}

/// The report of the program.
#[derive(Debug, Deserialize)]
struct Report {
    host: String,
    files: u64,
    unconfirmed: u64,
    complete: bool,
    first_day: Option<String>,
    last_day: Option<String>,
    lacking: BTreeMap<String, Lacking>,
}

/// Objects that were not fetched.
#[derive(Debug, Deserialize)]
struct Lacking {
    count: u64,
    what: String,
    classes: BTreeMap<String, u64>,
    objects: Vec<String>,
}

/// The files of a window.
struct Fetched {
    directory: PathBuf,
    report: Report,
    /// It removes the directory when its standard input ends.
    child: Child,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        // It has removed the directory, unless somebody ended it.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Beside this program, or in the search path.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name(PROGRAM));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PROGRAM.into())
}

type Window = (Option<Timestamp>, Option<Timestamp>);

impl Fetched {
    fn fetch(args: &ArchiveArgs, (since, until): Window, wanted: &Wanted) -> anyhow::Result<Self> {
        // Packets of a long window do not belong into memory, where /tmp often is.
        let below = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let directory = tempfile::Builder::new().prefix("retrocap-archive-").tempdir_in(&below);
        let directory = directory.with_context(|| format!("cannot make a directory in {}", below.display()))?.keep();
        let mut command = Command::new(program());
        command.args(["--json", "fetch", "--temporary", "--to"]).arg(&directory);
        let margin = if wanted.whole_sessions { AROUND_SESSIONS } else { Duration::ZERO };
        if let Some(since) = since {
            command.args(["--since", &since.saturating_sub(margin).to_rfc3339()]);
        }
        if let Some(until) = until {
            command.args(["--until", &until.saturating_add(margin).to_rfc3339()]);
        }
        if wanted.sessions {
            command.arg("--sessions");
        } else {
            let all = ["starts", "middle", "bulk"].map(str::to_owned);
            let classes = if args.archive_only.is_empty() { &all[..] } else { &args.archive_only };
            command.args(["--only", &classes.join(",")]);
        }
        let named = [("--host", &args.archive_host), ("--limit", &args.archive_limit)];
        for (flag, value) in named.iter().filter_map(|(flag, value)| Some((flag, value.as_ref()?))) {
            command.args([flag, value.as_str()]);
        }
        if args.archive_allow_http {
            command.arg("--allow-http");
        }
        if let Some(key) = &args.archive_key {
            command.arg("--identity").arg(key);
        }
        command.arg("--").args(&args.archive);
        // Ctrl-C ends this program, and the other one cleans up after it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _ = std::fs::remove_dir_all(&directory);
                return Err(cannot_start(&error));
            }
        };
        Self::finish(child, directory)
    }

    /// Waits for the report.
    fn finish(mut child: Child, directory: PathBuf) -> anyhow::Result<Self> {
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        if !matches!(read, Some(Ok(1..))) {
            drop(child.stdin.take());
            let _ = child.wait();
            // The other program has said why.
            let _ = std::fs::remove_dir_all(&directory);
            return Err(AlreadyReported.into());
        }
        let report = serde_json::from_str(&line).with_context(|| format!("{PROGRAM} has another version"))?;
        Ok(Self { directory, report, child })
    }

    /// Says what the answer lacks.
    fn tell(&self, (since, until): Window, wanted: &Wanted) {
        let Report { host, unconfirmed, first_day, last_day, lacking, .. } = &self.report;
        for (kind, lacking) in lacking {
            let classes: Vec<String> = lacking.classes.iter().map(|(class, n)| format!("{n} {class}")).collect();
            let objects = counted(lacking.count, "object");
            note(&format!(
                "retrocap: the answer lacks {objects} of this window ({}): {}",
                classes.join(", "),
                plain(&lacking.what)
            ));
            if kind != "expired" {
                lacking.objects.iter().for_each(|name| note(&format!("  {}", plain(name))));
            }
        }
        if *unconfirmed > 0 {
            note(&format!(
                "retrocap: {} were copied without the last step, and have no hash",
                counted(*unconfirmed, "object")
            ));
        }
        if wanted.whole_sessions {
            note("retrocap: sessions are looked for up to an hour before and after the window");
        }
        let (Some(first), Some(last)) = (first_day, last_day) else { return };
        let begins_before = since.is_some_and(|since| since.to_rfc3339()[..10] < **first);
        let ends_after = until.is_some_and(|until| until.to_rfc3339()[..10] > **last);
        if begins_before || ends_after {
            note(&format!("retrocap: the archive has {} from {} to {}", plain(host), plain(first), plain(last)));
        }
    }

    fn nothing(&self) -> anyhow::Error {
        anyhow!("the archive has nothing of {} in this window", plain(&self.report.host))
    }
}

fn cannot_start(error: &std::io::Error) -> anyhow::Error {
    let beside = std::env::current_exe().unwrap_or_default();
    let beside = beside.parent().unwrap_or(Path::new("/usr/bin")).display();
    if error.kind() == std::io::ErrorKind::NotFound {
        return anyhow!(
            "--archive needs the program {PROGRAM}, which is neither in {beside} nor in the search path: install it \
             (cargo build --release -p archive), or copy the archive's files with another tool and use --spool"
        );
    }
    anyhow!("cannot start {PROGRAM}: {error}")
}
