//! Answers that are made while they are sent.
//!
//! A query runs on a thread of its own and puts chunks into a [`Sink`]; the connection takes them out of the [`Body`].
//! Between them is room for two. When the client goes, the body is dropped, and the query sees that at its next chunk
//! or, through its flag, while it searches. A body that ends without [`Sink::end`] breaks the connection, so that the
//! client does not take a part for the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::HeaderMap;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Service;
use super::problem::Problem;
use base::log_limit::LogLimit;

/// Bytes after which a chunk is sent. A packet is never split, so that a chunk can be longer by one.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// Time after which whoever asked is sent what was found, however little it is.
const FIRST_AFTER: Duration = Duration::from_millis(2);
/// Chunks between the query and the connection.
const CHUNKS_WAITING: usize = 2;

/// The client has gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed;

#[derive(Debug)]
enum Part {
    Data(Bytes),
    End(HeaderMap),
}

/// Where a query writes.
#[derive(Debug)]
pub(super) struct Sink {
    head: Option<oneshot::Sender<Result<(), Problem>>>,
    parts: mpsc::Sender<Part>,
    buffer: Vec<u8>,
    asked: Instant,
    service: Arc<Service>,
    /// Set when the client has gone.
    pub(super) gone: Arc<AtomicBool>,
}

/// What a connection reads.
#[derive(Debug)]
pub(super) struct Body {
    parts: mpsc::Receiver<Part>,
    ended: bool,
    _query: Query,
}

/// A running query; dropping it tells its thread that nobody waits any more.
#[derive(Debug)]
struct Query {
    service: Arc<Service>,
    gone: Arc<AtomicBool>,
    _place: OwnedSemaphorePermit,
}

/// Runs `answer` on a thread where it may block. The body is given once the answer has begun; what goes wrong before
/// that is a problem.
pub(super) async fn stream(
    service: &Arc<Service>,
    place: OwnedSemaphorePermit,
    answer: impl FnOnce(Sink) -> Result<(), Closed> + Send + 'static,
) -> Result<Body, Problem> {
    let asked = Instant::now();
    let (head, begun) = oneshot::channel();
    let (sender, parts) = mpsc::channel(CHUNKS_WAITING);
    let gone = Arc::new(AtomicBool::new(false));
    service.counters.queries_running.fetch_add(1, Ordering::Relaxed);
    let query = Query { service: Arc::clone(service), gone: Arc::clone(&gone), _place: place };
    let sink = Sink { head: Some(head), parts: sender, buffer: Vec::new(), asked, service: Arc::clone(service), gone };
    service.spawn_query(move || {
        if answer(sink).is_err() {
            tracing::debug!("a client went before its answer had ended");
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
    /// The answer is a problem.
    pub(super) fn refuse(mut self, problem: impl Into<Problem>) -> Result<(), Closed> {
        match self.head.take() {
            Some(head) => head.send(Err(problem.into())).map_err(|_| Closed),
            None => Err(Closed),
        }
    }

    /// Where the answer is written to; from the first byte on it can no longer be a problem.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(CHUNK_BYTES + (CHUNK_BYTES >> 4));
        }
        &mut self.buffer
    }

    /// Sends what was written once it is enough for a chunk; waits while the client has yet to take the last ones.
    pub(super) fn send_full(&mut self) -> Result<(), Closed> {
        if self.buffer.len() >= CHUNK_BYTES { self.send() } else { Ok(()) }
    }

    /// As [`send_full`](Self::send_full); but who has waited for a while is sent the first of it, however little.
    pub(super) fn send_full_or_first(&mut self) -> Result<(), Closed> {
        if self.head.is_some() && self.asked.elapsed() >= FIRST_AFTER { self.send() } else { self.send_full() }
    }

    /// Sends what is left, and ends the answer.
    pub(super) fn end(mut self, trailers: HeaderMap) -> Result<(), Closed> {
        self.send()?;
        self.parts.blocking_send(Part::End(trailers)).map_err(|_| Closed)
    }

    /// Sends what was written, however little; begins the answer with the first call.
    pub(super) fn send(&mut self) -> Result<(), Closed> {
        if let Some(head) = self.head.take() {
            head.send(Ok(())).map_err(|_| Closed)?;
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.service.counters.bytes_sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        self.parts.blocking_send(Part::Data(chunk)).map_err(|_| Closed)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.parts.poll_recv(cx).map(|part| match part {
            Some(Part::Data(chunk)) => Some(Ok(Frame::data(chunk))),
            Some(Part::End(trailers)) => {
                self.ended = true;
                Some(Ok(Frame::trailers(trailers)))
            }
            None => Some(Err(std::io::Error::other("the query ended before its answer did"))),
        })
    }
}
