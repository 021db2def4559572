//! `retrocap-agent ask`: publishes a question, and prints the replies as they come.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_nats::{Client, StatusCode, jetstream};
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};

use crate::connection::ServerArgs;
use crate::question::{EVERY_SITE, Question, subject, token};
use crate::reply::{Reply, StoredObject};
use base::foreign::json_document;

/// Ask all recorders that are connected to a NATS server
#[derive(Debug, Args)]
#[command(after_help = "\
Prints one JSON object a row, with the recorder's name, and one a recorder with its outcome, horizon and completeness.
The exit status is 0 if something was found, 1 if nothing was found, and 3 if a recorder of --expect did not answer, or one
refused or failed.

Examples:
  retrocap-agent ask flows address=192.0.2.7 since=1d
  retrocap-agent ask --site berlin hunt attack=heartbleed
  retrocap-agent ask --expect hosts.txt status
  retrocap-agent ask --bucket cases -o packets/ packets address=192.0.2.7 since=1h")]
pub(crate) struct Ask {
    /// Ask the recorders of this site
    #[arg(long, value_name = "NAME", default_value = EVERY_SITE)]
    site: String,
    /// Ask this recorder alone
    #[arg(long, value_name = "NAME")]
    recorder: Option<String>,
    /// The names of the recorders that should answer, one a line; the silent ones are listed
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// End when no reply has come for this long
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    wait: Duration,
    /// The bucket of the object store that packets come through
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
    /// Write packets into this folder, one file a recorder
    #[arg(short, long, value_name = "DIR", requires = "bucket")]
    output: Option<PathBuf>,
    /// What is asked
    #[arg(value_enum)]
    what: What,
    /// Parameters of the recorder's API: address=192.0.2.7, since=1d, filter='port 53', limit=100
    #[arg(value_name = "KEY=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Status,
    Health,
    Flows,
    Hunt,
    Files,
    Packets,
}

fn duration(text: &str) -> Result<Duration, String> {
    base::time::parse_duration(text).map_err(|error| error.to_string())
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is KEY=VALUE, as in address=192.0.2.7")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Ask {
    pub(crate) async fn run(self, server: &ServerArgs) -> anyhow::Result<ExitCode> {
        let expected = self.expected()?;
        let question = self.question()?;
        let role = question.role().map_err(|reason| anyhow!("{reason}"))?;
        let client = server.connect("retrocap-agent ask", false).await?;
        let (inbox, to) = (client.new_inbox(), subject(&self.site, role, self.recorder.as_deref()));
        let mut replies = client.subscribe(inbox.clone()).await?;
        client.publish_with_reply(to.clone(), inbox, serde_json::to_vec(&question)?.into()).await?;
        client.flush().await?;

        let mut seen = BTreeSet::new();
        let (mut found, mut failed) = (0u64, 0u64);
        let mut until = Instant::now() + self.wait;
        while let Ok(Some(message)) = timeout_at(until, replies.next()).await {
            if message.status == Some(StatusCode::NO_RESPONDERS) {
                eprintln!("nobody listens to {to}: no recorder of this site is connected, or you may not ask");
                break;
            }
            until = Instant::now() + self.wait;
            let mut reply: Reply = match serde_json::from_slice(&message.payload) {
                Ok(reply) => reply,
                Err(error) => {
                    failed += 1;
                    eprintln!("retrocap-agent: a reply cannot be read: {error}");
                    continue;
                }
            };
            if let (Some(object), Some(folder)) = (reply.object.clone(), &self.output)
                && let Err(error) = fetch(&client, &object, folder, &reply.recorder).await
            {
                (reply.outcome, reply.reason) = ("failed".to_owned(), Some(format!("{error:#}")));
            }
            found += u64::from(is_found(&reply));
            failed += u64::from(!matches!(reply.outcome.as_str(), "answered" | "nothing"));
            seen.insert(reply.recorder.clone());
            print(reply);
            let all_are_there = !expected.is_empty() && expected.is_subset(&seen);
            if all_are_there || self.recorder.is_some() {
                break;
            }
        }
        let silent: Vec<&String> = expected.difference(&seen).collect();
        for recorder in &silent {
            print_line(&json!({ "recorder": recorder, "outcome": "silent", "reason": "it sent no reply" }));
        }
        let unknown = match expected.is_empty() {
            true => "; who did not answer is unknown without --expect",
            false => "",
        };
        eprintln!(
            "{found} of {} recorders that answered have it, {failed} refused or failed, {} did not answer{unknown}",
            seen.len(),
            silent.len()
        );
        Ok(match () {
            () if failed > 0 || !silent.is_empty() || seen.is_empty() => ExitCode::from(3),
            () if found == 0 => ExitCode::FAILURE,
            () => ExitCode::SUCCESS,
        })
    }

    fn question(&self) -> anyhow::Result<Question> {
        let word = self.what.to_possible_value().map(|word| word.get_name().to_owned()).unwrap_or_default();
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.parameters);
        let query = query.finish();
        let target = if query.is_empty() { format!("/v1/{word}") } else { format!("/v1/{word}?{query}") };
        if self.what == What::Packets && self.output.is_none() {
            return Err(anyhow!("packets come through an object store: add --bucket NAME -o DIR"));
        }
        let asker = std::env::var("USER").unwrap_or_default();
        Ok(Question { target, asker, bucket: self.bucket.clone() })
    }

    fn expected(&self) -> anyhow::Result<BTreeSet<String>> {
        let Some(path) = &self.expect else { return Ok(BTreeSet::new()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        Ok(names.filter(|name| !name.is_empty()).map(token).collect())
    }
}

fn is_found(reply: &Reply) -> bool {
    reply.found_rows > 0 || reply.document.is_some() || reply.object.is_some()
}

/// Prints the rows of a reply, and then what the reply is worth.
fn print(mut reply: Reply) {
    for row in std::mem::take(&mut reply.shown) {
        if let serde_json::Value::Object(mut row) = row {
            row.insert("recorder".to_owned(), json!(reply.recorder));
            print_line(&serde_json::Value::Object(row));
        }
    }
    let mut end = json!(reply);
    if let Some(end) = end.as_object_mut() {
        end.remove("shown");
        end.insert("complete".to_owned(), json!(reply.left_out_rows == 0 && reply.note.is_none()));
    }
    print_line(&end);
}

fn print_line(line: &serde_json::Value) {
    let _ = writeln!(std::io::stdout(), "{}", json_document(&line.to_string()));
}

/// Writes an object into the folder, under a name that the recorder's name gives, and removes it from the store.
async fn fetch(client: &Client, object: &StoredObject, folder: &Path, recorder: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let store = jetstream::new(client.clone()).get_object_store(&object.bucket).await?;
    let path = folder.join(format!("{}.pcapng", token(recorder)));
    let mut from = store.get(&object.name).await.context("the packets are not in the object store")?;
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let mut to = options.open(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let (mut bytes, mut buffer) = (0u64, vec![0; 128 << 10]);
    loop {
        let read = from.read(&mut buffer).await.with_context(|| format!("{} cannot be fetched", object.name))?;
        if read == 0 {
            break;
        }
        to.write_all(&buffer[..read]).with_context(|| format!("cannot write {}", path.display()))?;
        bytes += read as u64;
    }
    if bytes != object.bytes {
        return Err(anyhow!("{} has {bytes} of {} bytes", path.display(), object.bytes));
    }
    let _ = store.delete(&object.name).await;
    Ok(())
}
