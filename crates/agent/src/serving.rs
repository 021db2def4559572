//! `retrocap-agent serve`: answers questions with what the recorder of this host says.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use async_nats::{Client, Message, jetstream};
use clap::Args;
use futures_util::StreamExt as _;
use hyper::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use crate::connection::ServerArgs;
use crate::question::{EVERY_SITE, Question, Role, subject, token};
use crate::recorder;
use crate::reply::{Reply, StoredObject};
use base::foreign::Terminal;

/// Questions that are answered at a time; the recorder has few places for readers.
const RUNNING_MAX: usize = 4;
/// Questions that wait. More are refused, and the asker is told.
const WAITING_MAX: usize = 64;
/// The most bytes of an object.
const OBJECT_BYTES_MAX: u64 = 4 << 30;
/// The most bytes of a row of the recorder.
const ROW_BYTES_MAX: usize = 64 << 10;

/// Answer questions from a NATS server with what the recorder of this host has
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The group of recorders that this one belongs to; all belong to the site all, too
    #[arg(long, value_name = "NAME", default_value = EVERY_SITE)]
    site: String,
    /// The name of this recorder [default: the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What may be asked
    #[arg(long = "role", value_name = "ROLE", value_enum, default_values = ["status", "flows"])]
    roles: Vec<Role>,
    /// The recorder's socket
    #[arg(long, value_name = "PATH", default_value = "/run/retrocap/retrocap.sock")]
    socket: PathBuf,
}

impl Serve {
    /// Answers until the program is stopped.
    pub(crate) async fn run(self, server: &ServerArgs) -> anyhow::Result<()> {
        let name = self.name.clone().unwrap_or_else(host_name);
        let client = server.connect(&format!("retrocap-agent {name}"), true).await?;
        let answering = Arc::new(Answering {
            jetstream: jetstream::new(client.clone()),
            client,
            recorder: token(&name),
            site: token(&self.site),
            roles: self.roles,
            socket: self.socket,
            running: Semaphore::new(RUNNING_MAX),
            waiting: Semaphore::new(WAITING_MAX + RUNNING_MAX),
        });
        let mut tasks = Vec::new();
        let mut sites = vec![answering.site.clone(), EVERY_SITE.to_owned()];
        sites.dedup();
        for role in answering.roles.clone() {
            for site in &sites {
                for of_one in [None, Some(answering.recorder.as_str())] {
                    let subject = subject(site, role, of_one);
                    let subscriber = answering.client.subscribe(subject.clone()).await;
                    let mut subscriber = subscriber.with_context(|| format!("cannot subscribe to {subject}"))?;
                    let answering = Arc::clone(&answering);
                    tasks.push(tokio::spawn(async move {
                        while let Some(message) = subscriber.next().await {
                            let answering = Arc::clone(&answering);
                            tokio::spawn(async move { answering.answer(message, role).await });
                        }
                    }));
                }
            }
        }
        // Questions reach this agent once the server knows of the subscriptions.
        answering.client.flush().await.context("cannot subscribe")?;
        let roles: Vec<&str> = answering.roles.iter().map(|role| role.word()).collect();
        tracing::info!("{} answers for the site {}: {}", answering.recorder, answering.site, roles.join(", "));
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = stop.recv() => {}
        }
        // Replies that are under way leave first.
        let _ = answering.client.flush().await;
        Ok(())
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

struct Answering {
    client: Client,
    jetstream: jetstream::Context,
    recorder: String,
    site: String,
    roles: Vec<Role>,
    socket: PathBuf,
    running: Semaphore,
    waiting: Semaphore,
}

impl Answering {
    async fn answer(&self, message: Message, role: Role) {
        let Some(to) = message.reply.clone() else { return };
        let reply = match self.waiting.try_acquire() {
            Ok(_place) => self.reply(&message, role).await,
            Err(_) => self.new_reply("refused").because("too many questions wait: ask again later"),
        };
        let reason = reply.reason.clone().unwrap_or_default();
        tracing::info!("{}: {} {}", message.subject, reply.outcome, Terminal(&reason));
        let sent = self.client.publish(to, reply.message().into()).await;
        if let Err(error) = sent.map_err(anyhow::Error::from) {
            tracing::warn!("cannot reply: {error:#}");
        }
        let _ = self.client.flush().await;
    }

    fn new_reply(&self, outcome: &str) -> Reply {
        Reply::new(&self.recorder, &self.site, outcome)
    }

    async fn reply(&self, message: &Message, role: Role) -> Reply {
        let question: Question = match serde_json::from_slice(&message.payload) {
            Ok(question) => question,
            Err(error) => return self.new_reply("refused").because(format_args!("no question: {error}")),
        };
        tracing::info!("{} asks {}: {}", Terminal(&question.asker), message.subject, Terminal(&question.target));
        match question.role() {
            // The subject is what NATS has permitted.
            Ok(takes) if takes == role => {}
            Ok(takes) => {
                let reason = format!("the question takes the role {}, and came as {}", takes.word(), role.word());
                return self.new_reply("refused").because(reason);
            }
            Err(reason) => return self.new_reply("refused").because(reason),
        }
        let Ok(_place) = self.running.acquire().await else { return self.new_reply("failed") };
        match self.asked(&question).await {
            Ok(reply) => reply,
            Err(error) => self.new_reply("failed").because(format_args!("{error:#}")),
        }
    }

    async fn asked(&self, question: &Question) -> anyhow::Result<Reply> {
        let mut reply = self.new_reply("answered");
        let mut status = recorder::get(&self.socket, "/v1/status").await?;
        let document = status.document().await?;
        let time = |key: &str| document.pointer(key)?.as_str().map(str::to_owned);
        (reply.oldest, reply.whole_since) = (time("/retained/oldest"), time("/retained/whole_since"));
        let mut answer = recorder::get(&self.socket, &question.target).await?;
        if answer.status != StatusCode::OK {
            let problem = answer.document().await?;
            let text = |key: &str| problem.get(key).and_then(|text| text.as_str()).map(str::to_owned);
            let is_nothing = answer.status == StatusCode::NOT_FOUND && text("cause").is_some();
            reply.outcome = if is_nothing { "nothing" } else { "refused" }.to_owned();
            reply.reason = text("detail").or_else(|| Some(answer.status.to_string()));
            return Ok(reply);
        }
        let is_document = matches!(question.target.split('?').next(), Some("/v1/status" | "/v1/health"));
        if is_document {
            reply.document = Some(answer.document().await?);
        } else if question.wants_packets() {
            let bucket = question.bucket.as_deref().ok_or_else(|| anyhow!("packets need a bucket to go to"))?;
            reply.object = Some(self.store(&mut answer, bucket).await?);
            reply.bytes = reply.object.as_ref().map_or(0, |object| object.bytes);
        } else {
            rows(&mut answer, &mut reply).await?;
        }
        (reply.note, reply.missing) = (answer.trailer("retrocap-note"), answer.trailer("retrocap-missing"));
        Ok(reply)
    }

    /// Writes packets to the object store. An object whose writing fails does not appear.
    async fn store(&self, answer: &mut recorder::Answer, bucket: &str) -> anyhow::Result<StoredObject> {
        let store = self.jetstream.get_object_store(bucket).await;
        let store = store.with_context(|| format!("cannot open the bucket {bucket} of the object store"))?;
        let name =
            format!("{}-{}.pcapng", self.recorder, self.client.new_inbox().rsplit('.').next().unwrap_or_default());
        let (mut to, mut from) = tokio::io::duplex(1 << 20);
        let reading = async {
            let mut bytes = 0u64;
            while let Some(part) = answer.part().await? {
                bytes += part.len() as u64;
                if bytes > OBJECT_BYTES_MAX {
                    return Err(anyhow!("there are more than {} GiB of packets: ask for less", OBJECT_BYTES_MAX >> 30));
                }
                to.write_all(&part).await?;
            }
            drop(to);
            Ok(bytes)
        };
        let writing = async { store.put(name.as_str(), &mut from).await.context("cannot write to the object store") };
        let (bytes, stored) = tokio::join!(reading, writing);
        match (bytes, stored) {
            (Ok(bytes), Ok(_)) => Ok(StoredObject { bucket: bucket.to_owned(), name, bytes }),
            (bytes, stored) => {
                // What is cut is not taken for whole.
                let _ = store.delete(&name).await;
                Err(bytes.err().or(stored.err()).unwrap_or_else(|| anyhow!("the packets could not be stored")))
            }
        }
    }
}

/// Reads rows. All are counted; the first ones are shown.
async fn rows(answer: &mut recorder::Answer, reply: &mut Reply) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    while let Some(part) = answer.part().await? {
        reply.bytes += part.len() as u64;
        rest.extend_from_slice(&part);
        let mut from = 0;
        while let Some(length) = rest[from..].iter().position(|byte| *byte == b'\n') {
            if !rest[from..from + length].trim_ascii().is_empty() {
                reply.add(&rest[from..from + length]);
            }
            from += length + 1;
        }
        rest.drain(..from);
        if rest.len() > ROW_BYTES_MAX {
            return Err(anyhow!("the recorder sends a row of more than {} KiB", ROW_BYTES_MAX >> 10));
        }
    }
    if !rest.trim_ascii().is_empty() {
        reply.add(&rest);
    }
    Ok(())
}
