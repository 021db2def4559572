//! `retrocap-archive expire`: removes what is older than it has to be, by class.
//!
//! It says first what it would remove, and removes with `--delete` alone. Each removal is noted before it is done, and the description
//! of the object stays: a question about that time is told what was there.

use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use crate::archive_args::{ArchiveArgs, Part};
use crate::inventory::{Entry, State, entries};
use crate::key;
use crate::report::{self, Reported, counted, size};
use crate::sidecar::{Tombstone, document};
use base::time::Timestamp;

/// Remove what is older than it has to be. Without --delete it only says what that is
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  retrocap-archive expire s3://traffic/eu --keep starts=400d,middle=90d,bulk=30d,sessions=1000d
  retrocap-archive expire s3://traffic/eu --keep starts=400d,middle=90d,bulk=30d,sessions=1000d --delete")]
pub(crate) struct Expire {
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    part: Part,
    /// How long each class is kept: starts, middle, bulk, sessions. What is not named is kept for ever. The time counts from the
    /// latest packet, but not before the object was stored
    #[arg(long, value_name = "CLASS=DURATION", value_delimiter = ',', required = true, value_parser = rule)]
    keep: Vec<Rule>,
    /// Remove it
    #[arg(long)]
    delete: bool,
}

/// How long a class is kept.
#[derive(Clone, Debug)]
struct Rule {
    class: String,
    keep: Duration,
    text: String,
}

fn rule(text: &str) -> Result<Rule, String> {
    let Some((class, keep)) = text.split_once('=') else { return Err("try starts=400d,bulk=30d".to_owned()) };
    if !["starts", "middle", "bulk", key::SESSIONS].contains(&class) {
        return Err(format!("{class:?} is no class: starts, middle, bulk or sessions"));
    }
    let keep = base::time::parse_duration(keep).map_err(|error| error.to_string())?;
    Ok(Rule { class: class.to_owned(), keep, text: text.to_owned() })
}

impl Expire {
    pub(crate) async fn run(&self, print_json: bool) -> anyhow::Result<()> {
        for (at, rule) in self.keep.iter().enumerate() {
            if self.keep[..at].iter().any(|other| other.class == rule.class) {
                return Err(anyhow!("--keep names {} twice", rule.class));
            }
        }
        let store = self.archive.open(false)?;
        let now = Timestamp::from(SystemTime::now());
        let entries = entries(&store, &self.part).await?;
        let due: Vec<(&Entry, &str)> =
            entries.iter().filter_map(|entry| Some((entry, self.is_due(entry, now)?))).collect();
        let bytes: u64 = due.iter().filter_map(|(entry, _)| Some(entry.object.as_ref()?.bytes)).sum();
        let mut failed = Vec::new();
        if self.delete {
            for (entry, rule) in &due {
                let tombstone = Tombstone::new(&entry.name, "expired", (*rule).to_owned());
                // One that is there already is left as it is.
                let noted = store.create(&key::tombstone(&entry.name), document(&tombstone).into()).await;
                let deleted = match noted {
                    Ok(_) => store.delete(&entry.name).await,
                    Err(error) => Err(error),
                };
                failed.extend(deleted.err().map(|error| (entry.name.clone(), format!("{error:#}"))));
            }
        }
        let done = due.len() - failed.len();
        if print_json {
            let files: Vec<_> = due.iter().map(|(entry, rule)| json!({"key": entry.name, "rule": rule})).collect();
            let failed: Vec<_> = failed.iter().map(|(key, error)| json!({"key": key, "error": error})).collect();
            report::print(
                &json!({"deleted": self.delete, "objects": files, "bytes": bytes, "failed": failed}).to_string(),
            );
        } else if self.delete {
            report::print(&format!("removed {} ({})", counted(done as u64, "object"), size(bytes)));
        } else {
            let objects = counted(due.len() as u64, "object");
            report::print(&format!(
                "would remove {objects} ({}) of {}; add --delete to remove them",
                size(bytes),
                entries.len()
            ));
            for (entry, rule) in &due {
                report::print(&format!("{rule:<16} {}", entry.name));
            }
        }
        for (key, error) in &failed {
            eprintln!("retrocap-archive: {key}: {error}");
        }
        if failed.is_empty() { Ok(()) } else { Err(Reported::error(format!("{} failed", failed.len()))) }
    }

    /// The rule by which an object goes now.
    fn is_due(&self, entry: &Entry, now: Timestamp) -> Option<&str> {
        let object = entry.object.as_ref()?;
        match entry.state() {
            // Removed before, but not deleted.
            State::Undeleted => return Some("removed"),
            State::Whole => {}
            State::Unconfirmed | State::Removed | State::Missing => return None,
        }
        let rule = self.keep.iter().find(|rule| rule.class == entry.key.class())?;
        // A recorder with a wrong clock must not lose what it copied yesterday, nor keep it for ever.
        let newest = entry.key.times().1;
        let since = if newest > now { object.modified } else { newest.max(object.modified) };
        (now.since(since) > rule.keep).then_some(rule.text.as_str())
    }
}
