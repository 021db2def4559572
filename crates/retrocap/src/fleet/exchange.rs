//! One question to one recorder, and how it ended.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use crate::client::deadline::{Deadline, TimedOut};
use crate::client::remote::{Remote, Unreachable};
use crate::client::tls::{ConnectionLost, Credentials, Tls};
use crate::client::{ROW_BYTES_MAX, Trailers, refused};
use api::path;
use base::foreign::Foreign;

/// Maximum bytes of a document.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Maximum bytes of all lines of one recorder.
const LINES_BYTES_MAX: u64 = 1 << 30;
/// Maximum bytes of the packets of one recorder.
const FILE_BYTES_MAX: u64 = 16 << 30;

type Body = http_body_util::Empty<Bytes>;

/// What happened at one recorder.
#[derive(Debug)]
pub(crate) enum Event {
    /// Whole lines of its answer.
    Lines { recorder: usize, lines: String },
    /// Its answer ended, or there is none.
    Ended { recorder: usize, ending: Box<Ending> },
}

/// Counts the bytes and steps of an exchange.
pub(crate) type ProgressCount = Arc<AtomicU64>;

/// What an answer consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// Lines of JSON.
    Lines,
    /// One document: the status of the recorder.
    Status,
    /// A capture file.
    Packets,
}

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The recorder answered.
    Answered,
    /// The recorder looked, and nothing matched; its reasons.
    Nothing(Foreign),
    /// The recorder refused the question.
    Refused(Foreign),
    /// The answer is broken, or the recorder cannot be trusted.
    Failed(String),
    /// There was no answer.
    Silent(String),
}

impl Outcome {
    /// The word for it in JSON.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Nothing(_) => "nothing",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Silent(_) => "silent",
        }
    }
}

/// How far back a recorder can look, from its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Horizon {
    /// Time of the oldest packet.
    pub(crate) oldest: Option<Foreign>,
    /// Time from which on every packet is there.
    pub(crate) whole_since: Option<Foreign>,
    /// Packets that were lost before they could be recorded.
    pub(crate) lost_packets: u64,
}

impl Horizon {
    fn read(status: &serde_json::Value) -> Self {
        let time = |key: &str| status.pointer(key)?.as_str().map(Foreign::from);
        let number = |key: &str| status.pointer(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
        Self {
            oldest: time("/retained/oldest"),
            whole_since: time("/retained/whole_since"),
            lost_packets: number("/packets/dropped").saturating_add(number("/packets/kernel_dropped")),
        }
    }
}

/// How the exchange with one recorder ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    pub(crate) horizon: Option<Horizon>,
    pub(crate) trailers: Trailers,
    /// Lines received.
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// The document, if one was asked for.
    pub(crate) document: Option<serde_json::Value>,
    /// The capture file, from its start.
    pub(crate) file: Option<File>,
}

impl Ending {
    pub(crate) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            horizon: None,
            trailers: Trailers::default(),
            rows: 0,
            bytes: 0,
            took: Duration::ZERO,
            document: None,
            file: None,
        }
    }
}

/// A question to one recorder.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The recorder's place in the list.
    pub(crate) recorder: usize,
    pub(crate) remote: Remote,
    pub(crate) credentials: Option<Arc<Credentials>>,
    /// Path and query string.
    pub(crate) target: String,
    pub(crate) kind: AnswerKind,
    pub(crate) timeout: Duration,
    /// Grows whenever the recorder has sent something.
    pub(crate) progress: ProgressCount,
}

impl Exchange {
    /// Asks, and passes lines on as they come.
    pub(super) async fn run(self, events: &mpsc::Sender<Event>) -> Ending {
        let start = Instant::now();
        let mut ending = Ending::of(Outcome::Answered);
        let mut deadline = Deadline::of_silence(self.timeout);
        match self.converse(&mut deadline, &mut ending, events).await {
            Ok(outcome) => ending.outcome = outcome,
            Err(error) => {
                let text = error.to_string();
                let is_silent = error.is::<Unreachable>() || error.is::<ConnectionLost>() || error.is::<TimedOut>();
                let is_silent = is_silent && ending.bytes == 0;
                ending.outcome = if is_silent { Outcome::Silent(text) } else { Outcome::Failed(text) };
            }
        }
        ending.took = start.elapsed();
        ending
    }

    async fn converse(
        &self,
        deadline: &mut Deadline,
        ending: &mut Ending,
        events: &mpsc::Sender<Event>,
    ) -> anyhow::Result<Outcome> {
        let tls = || match &self.credentials {
            Some(credentials) => Tls::with(credentials),
            None => Err(anyhow!("there is no certificate for TLS")),
        };
        let (stream, host) = deadline.limit(self.remote.connect_with(tls)).await??;
        self.advance(1);
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = deadline.limit(handshake).await?.map_err(|error| self.remote.broken(error))?;
        // The body of the answer reports the same errors.
        let connection = AbortOnDrop(tokio::spawn(connection));
        let outcome = self.ask(&mut sender, &host, deadline, ending, events).await;
        drop(connection);
        outcome
    }

    async fn ask(
        &self,
        sender: &mut SendRequest<Body>,
        host: &str,
        deadline: &mut Deadline,
        ending: &mut Ending,
        events: &mpsc::Sender<Event>,
    ) -> anyhow::Result<Outcome> {
        if self.kind != AnswerKind::Status {
            let (status, mut body) = self.send(sender, path::STATUS, host, deadline).await?;
            let document = self.document(&mut body, deadline).await?;
            // A client without the role for it may still list sessions.
            if status.is_success() {
                ending.horizon = Some(Horizon::read(&serde_json::from_str(&document).unwrap_or_default()));
            }
        }
        let (status, mut body) = self.send(sender, &self.target, host, deadline).await?;
        if !status.is_success() {
            let problem = refused(status, &self.document(&mut body, deadline).await?);
            let is_nothing = problem.is_nothing_found();
            return Ok(if is_nothing { Outcome::Nothing(problem.detail) } else { Outcome::Refused(problem.detail) });
        }
        match self.kind {
            AnswerKind::Status => {
                let document = self.document(&mut body, deadline).await?;
                ending.bytes = document.len() as u64;
                let status = serde_json::from_str(&document).context("its status is no JSON document")?;
                ending.horizon = Some(Horizon::read(&status));
                ending.document = Some(status);
            }
            AnswerKind::Lines => self.lines(&mut body, deadline, ending, events).await?,
            AnswerKind::Packets => self.packets(&mut body, deadline, ending).await?,
        }
        Ok(Outcome::Answered)
    }

    async fn send(
        &self,
        sender: &mut SendRequest<Body>,
        target: &str,
        host: &str,
        deadline: &mut Deadline,
    ) -> anyhow::Result<(hyper::StatusCode, Incoming)> {
        let mut request = hyper::Request::builder().uri(target);
        for (name, value) in [("host", host), ("te", "trailers"), ("connection", "TE")] {
            request = request.header(name, value);
        }
        let request = request.body(Body::new())?;
        deadline.limit(sender.ready()).await?.map_err(|error| self.remote.broken(error))?;
        let response = deadline.limit(sender.send_request(request)).await?;
        let (head, body) = response.map_err(|error| self.remote.broken(error))?.into_parts();
        self.advance(1);
        Ok((head.status, body))
    }

    fn advance(&self, steps: usize) {
        self.progress.fetch_add(steps as u64, Ordering::Relaxed);
    }

    /// The next part of an answer. Keeps its trailers.
    async fn part(
        &self,
        body: &mut Incoming,
        deadline: &mut Deadline,
        trailers: &mut Trailers,
    ) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = deadline.limit(body.frame()).await? {
            let frame = frame.map_err(|error| anyhow!("it ended its answer early ({error})"))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    deadline.extend(data.len());
                    self.advance(data.len());
                    return Ok(Some(data));
                }
                Err(frame) => {
                    if let Ok(found) = frame.into_trailers() {
                        *trailers = Trailers::of(found);
                    }
                }
            }
        }
        Ok(None)
    }

    async fn document(&self, body: &mut Incoming, deadline: &mut Deadline) -> anyhow::Result<String> {
        let (mut document, mut trailers) = (Vec::new(), Trailers::default());
        while let Some(part) = self.part(body, deadline, &mut trailers).await? {
            document.extend_from_slice(&part);
            if document.len() > DOCUMENT_BYTES_MAX {
                return Err(anyhow!("it sends a document of more than {} MiB", DOCUMENT_BYTES_MAX >> 20));
            }
        }
        Ok(String::from_utf8_lossy(&document).into_owned())
    }

    async fn lines(
        &self,
        body: &mut Incoming,
        deadline: &mut Deadline,
        ending: &mut Ending,
        events: &mpsc::Sender<Event>,
    ) -> anyhow::Result<()> {
        let (recorder, mut line) = (self.recorder, Vec::new());
        loop {
            let part = self.part(body, deadline, &mut ending.trailers).await?;
            let is_end = part.is_none();
            if let Some(part) = part {
                ending.bytes += part.len() as u64;
                line.extend_from_slice(&part);
            } else if !line.is_empty() {
                line.push(b'\n');
            }
            if ending.bytes > LINES_BYTES_MAX {
                return Err(anyhow!("it sends more than {} MiB of lines: ask for less", LINES_BYTES_MAX >> 20));
            }
            let whole = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if (line.len() - whole) as u64 > ROW_BYTES_MAX {
                return Err(anyhow!("it sends a line of more than {} KiB", ROW_BYTES_MAX >> 10));
            }
            let rest = line.split_off(whole);
            let lines = String::from_utf8(std::mem::replace(&mut line, rest)).context("its answer is not UTF-8")?;
            if !lines.trim().is_empty() {
                ending.rows += lines.lines().filter(|line| !line.trim().is_empty()).count() as u64;
                events.send(Event::Lines { recorder, lines }).await.context("nobody reads the answer")?;
            }
            if is_end {
                return Ok(());
            }
        }
    }

    async fn packets(&self, body: &mut Incoming, deadline: &mut Deadline, ending: &mut Ending) -> anyhow::Result<()> {
        let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
        let written = async {
            while let Some(part) = self.part(body, deadline, &mut ending.trailers).await? {
                ending.bytes += part.len() as u64;
                if ending.bytes > FILE_BYTES_MAX {
                    return Err(anyhow!("it sends more than {} GiB of packets: ask for less", FILE_BYTES_MAX >> 30));
                }
                file.write_all(&part).context("cannot write a temporary file")?;
            }
            Ok(())
        };
        let written = written.await;
        // What came before a failure is valid.
        file.rewind().context("cannot read a temporary file")?;
        ending.file = Some(file);
        written
    }
}

/// Ends a task with its owner.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
