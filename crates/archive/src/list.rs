//! `retrocap-archive list`: what the archive has, by recorder and class.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use crate::archive_args::{ArchiveArgs, Part};
use crate::inventory::{State, entries};
use crate::report::{self, size};
use base::time::Timestamp;

/// List what the archive has, by recorder and class
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    part: Part,
    /// One row for each object
    #[arg(long)]
    files: bool,
}

struct Sum {
    files: u64,
    bytes: u64,
    times: (Timestamp, Timestamp),
}

impl List {
    pub(crate) async fn run(&self, print_json: bool) -> anyhow::Result<()> {
        let store = self.archive.open(false)?;
        let entries = entries(&store, &self.part).await?;
        let mut sums: BTreeMap<(String, &str, State), Sum> = BTreeMap::new();
        for entry in &entries {
            let times = entry.key.times();
            let key = (entry.key.host().to_owned(), entry.key.class(), entry.state());
            let sum = sums.entry(key).or_insert(Sum { files: 0, bytes: 0, times });
            sum.files += 1;
            sum.bytes += entry.object.as_ref().map_or(0, |object| object.bytes);
            sum.times = (sum.times.0.min(times.0), sum.times.1.max(times.1));
        }
        if self.files {
            for entry in &entries {
                let (oldest, newest) = entry.key.times();
                let (oldest, newest) = (oldest.to_rfc3339(), newest.to_rfc3339());
                let bytes = entry.object.as_ref().map(|object| object.bytes);
                if print_json {
                    let (host, class, state) = (entry.key.host(), entry.key.class(), entry.state().name());
                    report::print(&json!({"key": entry.name, "host": host, "class": class, "state": state, "oldest": oldest, "newest": newest,
                            "bytes": bytes, "encrypted": entry.is_encrypted}).to_string());
                } else {
                    report::print(&format!(
                        "{:<11} {:>10}  {}",
                        entry.state().name(),
                        bytes.map_or("-".to_owned(), size),
                        entry.name
                    ));
                }
            }
            return Ok(());
        }
        if print_json {
            let rows = sums.iter().map(|((host, class, state), sum)| {
                json!({"host": host, "class": class, "state": state.name(), "files": sum.files, "bytes": sum.bytes,
                    "oldest": sum.times.0.to_rfc3339(), "newest": sum.times.1.to_rfc3339()})
            });
            report::print(&serde_json::Value::from(rows.collect::<Vec<_>>()).to_string());
            return Ok(());
        }
        if sums.is_empty() {
            report::print(&format!("{} has nothing of this part", store.name));
            return Ok(());
        }
        report::print(&format!(
            "{:<24} {:<8} {:<11} {:>8} {:>10}  {:<20}  newest",
            "recorder", "class", "state", "files", "size", "oldest"
        ));
        for ((host, class, state), sum) in &sums {
            let (oldest, newest) = (sum.times.0.to_rfc3339(), sum.times.1.to_rfc3339());
            let (oldest, newest) = (&oldest[..19], &newest[..19]);
            report::print(&format!(
                "{host:<24} {class:<8} {:<11} {:>8} {:>10}  {oldest}Z  {newest}Z",
                state.name(),
                sum.files,
                size(sum.bytes)
            ));
        }
        Ok(())
    }
}
