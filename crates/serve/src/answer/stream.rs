//! Streams: answers that are made while they are sent.
//!
//! A query runs on a thread of its own and puts chunks into a [`Sink`]; the connection takes them out of the [`Body`].
//! Two chunks fit between them. When the client disconnects, the body is dropped, and the query sees that at its next
//! chunk or, through a flag, while it searches. A body that ends without [`Sink::end`] breaks the connection, so that the
//! client does not take a part for the whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::super::attestation::SentAnswer;
use super::super::quota::Share;
use super::super::service::Service;
use api::Problem;
use base::foreign::json_document;
use base::log_limit::LogLimit;
use evidence::digest::Hasher;
use query::Summary;

/// Time after which the client is sent what was found, however little it is.
const FIRST_AFTER: Duration = Duration::from_millis(2);
/// Chunks between the query and the connection.
const CHUNKS_WAITING: usize = 2;

/// The client has disconnected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientGone;

/// What an answer had, and what it lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnswerEnd {
    /// Counts with their names: `packets`, `bytes`, `overtaken`, `flows`.
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// Why it is not all that was asked for; empty when it is.
    pub(crate) note: String,
    /// What matches and is gone; empty when nothing is known to be.
    pub(crate) missing: String,
    /// The record of what was sent and its signature, if the client asked for a seal and the recorder has a key.
    pub(crate) record: Option<(String, String)>,
    /// The mark of the next page of a listing; empty when everything was listed.
    pub(crate) next: String,
}

impl AnswerEnd {
    /// The end of a capture file.
    pub(crate) fn of_file(summary: Summary, note: &str, missing: &str) -> Self {
        Self {
            counts: vec![("packets", summary.packets), ("bytes", summary.bytes), ("overtaken", summary.overtaken)],
            note: note.to_owned(),
            missing: missing.to_owned(),
            record: None,
            next: String::new(),
        }
    }
}

/// A part of an answer.
#[derive(Debug)]
pub(crate) enum AnswerPart {
    /// Some bytes.
    Data(Vec<u8>),
    /// The end; an answer without it is broken.
    End(AnswerEnd),
}

/// The end of a stream that a query writes.
#[derive(Debug)]
pub(crate) struct Sink {
    head: Option<oneshot::Sender<Result<(), Problem>>>,
    parts: mpsc::Sender<AnswerPart>,
    buffer: Vec<u8>,
    asked: Instant,
    service: Arc<Service>,
    /// The digest of what was sent, if it is sealed, and its length.
    sealed: Option<(Hasher, u64)>,
    /// Set when the client has disconnected.
    pub(crate) gone: Arc<AtomicBool>,
}

/// The end of a stream that a connection reads.
#[derive(Debug)]
pub(crate) struct Body {
    parts: mpsc::Receiver<AnswerPart>,
    ended: bool,
    _query: Query,
}

/// A running query; dropping it tells its thread that the client has disconnected.
#[derive(Debug)]
struct Query {
    service: Arc<Service>,
    gone: Arc<AtomicBool>,
    _place: Share,
}

/// Runs `answer` on a thread where it may block. Returns the body once the answer has begun; what goes wrong before that
/// is a problem.
pub(crate) async fn stream(
    service: &Arc<Service>,
    place: Share,
    answer: impl FnOnce(Sink) -> Result<(), ClientGone> + Send + 'static,
) -> Result<Body, Problem> {
    let asked = Instant::now();
    let (head, begun) = oneshot::channel();
    let (sender, parts) = mpsc::channel(CHUNKS_WAITING);
    let gone = Arc::new(AtomicBool::new(false));
    service.counters.queries_running.fetch_add(1, Ordering::Relaxed);
    let query = Query { service: Arc::clone(service), gone: Arc::clone(&gone), _place: place };
    let sink = Sink {
        head: Some(head),
        parts: sender,
        buffer: Vec::new(),
        asked,
        service: Arc::clone(service),
        sealed: None,
        gone,
    };
    service.spawn_query(move || {
        if answer(sink).is_err() {
            tracing::debug!("a client disconnected before its answer had ended");
        }
    });
    let begun = begun.await;
    service.counters.latency.note(asked.elapsed());
    match begun {
        Ok(Ok(())) => Ok(Body { parts, ended: false, _query: query }),
        Ok(Err(problem)) => Err(problem),
        Err(_) => {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::error!("a query ended without an answer{left_out}");
            }
            Err(Problem::internal())
        }
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        self.service.counters.queries_running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sink {
    /// Computes the digest of what is sent, if the client asked for a seal and the recorder has a key.
    pub(crate) fn seal(&mut self, asked: bool) {
        let has_key = self.service.attestation.as_ref().is_some_and(|attestation| attestation.key.is_some());
        self.sealed = (asked && has_key).then(|| (Hasher::default(), 0));
    }

    /// Answers with a problem.
    pub(crate) fn refuse(mut self, problem: impl Into<Problem>) -> Result<(), ClientGone> {
        match self.head.take() {
            Some(head) => head.send(Err(problem.into())).map_err(|_| ClientGone),
            None => Err(ClientGone),
        }
    }

    pub(crate) fn chunk_bytes(&self) -> usize {
        self.service.memory.chunk_bytes()
    }

    /// The buffer that the answer is written to; after its first byte the answer can no longer be a problem.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.buffer.capacity() == 0 {
            let chunk_bytes = self.chunk_bytes();
            self.buffer.reserve(chunk_bytes + (chunk_bytes >> 4));
        }
        &mut self.buffer
    }

    /// Sends what was written once it is enough for a chunk; waits until the client has taken earlier chunks.
    pub(crate) fn send_full(&mut self) -> Result<(), ClientGone> {
        if self.buffer.len() >= self.chunk_bytes() { self.send() } else { Ok(()) }
    }

    /// As [`send_full`](Self::send_full), but a client that has waited for a while is sent the first bytes, however few.
    pub(crate) fn send_full_or_first(&mut self) -> Result<(), ClientGone> {
        if self.head.is_some() && self.asked.elapsed() >= FIRST_AFTER { self.send() } else { self.send_full() }
    }

    /// Writes a line of JSON in which no text deceives its reader, and sends what is enough for a chunk.
    pub(crate) fn line(&mut self, value: &impl Serialize) -> Result<(), ClientGone> {
        let buffer = self.buffer();
        let start = buffer.len();
        if serde_json::to_writer(&mut *buffer, value).is_err() {
            unreachable!("texts and numbers can be written, and a buffer takes all of it");
        }
        let is_plain = buffer[start..].iter().all(|byte| (b' '..0x7f).contains(byte));
        if !is_plain {
            let safe = json_document(&String::from_utf8_lossy(&buffer[start..])).into_owned();
            buffer.truncate(start);
            buffer.extend_from_slice(safe.as_bytes());
        }
        buffer.push(b'\n');
        self.send_full()
    }

    /// Sends what is left, and ends the answer.
    pub(crate) fn end(mut self, ending: AnswerEnd) -> Result<(), ClientGone> {
        self.send()?;
        self.parts.blocking_send(AnswerPart::End(ending)).map_err(|_| ClientGone)
    }

    /// As [`end`](Self::end), with the recorder's signature over what was sent.
    pub(crate) fn end_sealed(
        mut self,
        ending: AnswerEnd,
        packets: u64,
        audit_id: Option<&str>,
    ) -> Result<(), ClientGone> {
        self.send()?;
        let sent = self.sealed.take().map(|(hasher, bytes)| SentAnswer { sha256: hasher.finish(), bytes, packets });
        let attestation = self.service.attestation.as_ref();
        let record = attestation.zip(sent).and_then(|(attestation, sent)| attestation.record(sent, audit_id));
        self.end(AnswerEnd { record, ..ending })
    }

    /// Sends what was written, however little; begins the answer with the first call.
    pub(crate) fn send(&mut self) -> Result<(), ClientGone> {
        if let Some(head) = self.head.take() {
            head.send(Ok(())).map_err(|_| ClientGone)?;
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.buffer);
        if let Some((hasher, bytes)) = &mut self.sealed {
            hasher.update(&chunk);
            *bytes += chunk.len() as u64;
        }
        self.service.counters.bytes_sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        self.parts.blocking_send(AnswerPart::Data(chunk)).map_err(|_| ClientGone)
    }
}

impl Body {
    /// The next part; `None` after the end, and where the query ended without one.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<AnswerPart>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.parts.poll_recv(cx).map(|part| {
            self.ended = matches!(part, Some(AnswerPart::End(_)));
            part
        })
    }

    /// Whether the last part was the end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// As [`poll_part`](Self::poll_part), as a future.
    pub(crate) async fn part(&mut self) -> Option<AnswerPart> {
        std::future::poll_fn(|cx| self.poll_part(cx)).await
    }
}
