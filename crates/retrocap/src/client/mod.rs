//! The client of the service's API. It sends one request over the Unix socket, TLS or loopback TCP, and streams the
//! answer.
//!
//! Calls block, because a verb sends one request and has nothing else to do. The client reads an answer no faster than
//! the caller consumes it, so that a slow pipe makes the recorder wait instead of filling memory. The recorder is not
//! trusted: buffered parts of an answer have a size limit, and a recorder that stops sending meets a [`Deadline`].

pub(crate) mod address;
pub(crate) mod deadline;
pub(crate) mod remote;
mod request_body;
pub(crate) mod stream;
pub(crate) mod tls;

use std::io::{BufRead, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use base::foreign::Foreign;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::error::Usage;
use crate::options::Common;
use crate::terminal::output;
use crate::terminal::printable::note;
use address::Address;
use deadline::Deadline;
use request_body::{Hold, RequestBody};

/// Maximum bytes of a line with a base64 piece of a file. Recorders send some hundred kilobytes.
pub(crate) const PIECE_LINE_BYTES_MAX: u64 = 4 << 20;
/// Maximum bytes of a line with one session or sum. Recorders send about one kilobyte.
pub(crate) const ROW_BYTES_MAX: u64 = 64 << 10;
/// Maximum bytes of a whole document. The status has a few hundred bytes per interface.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// How long a recorder may take to complete an answer that was interrupted.
const COMPLETED_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);
/// Maximum number of characters of a refusal to print.
const DETAIL_CHARS_MAX: usize = 4000;

/// The service refused a request.
#[derive(Debug, thiserror::Error)]
#[error("{}", .detail.terminal())]
pub(crate) struct RefusedRequest {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The reason, and what to do.
    pub(crate) detail: Foreign,
    /// Why nothing was found; `None` for other refusals.
    pub(crate) cause: Option<String>,
}

impl RefusedRequest {
    /// Whether the request was valid and matched nothing.
    pub(crate) fn is_nothing_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.cause.is_some()
    }
}

/// Sends a request to a recorder.
///
/// # Errors
///
/// [`RefusedRequest`] when the recorder refuses the request, [`Usage`] when the request is wrong.
pub(crate) fn ask(common: &Common, method: Method, target: &str, body: Option<String>) -> anyhow::Result<Answer> {
    let address = &common.socket();
    let mut deadline = Deadline::new(common.timeout());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    // On a quiet network no packet may come for hours. The recorder ends the answer when the body ends.
    let follows = target.contains("follow=");
    let is_document = body.is_some();
    let (body, hold) = match follows && !is_document {
        true => RequestBody::held(),
        false => (RequestBody::of(body), None),
    };
    let asking = async {
        let (stream, host) = address::connect(address).await?;
        let failed = |error: hyper::Error| match address {
            Address::Remote(remote) => remote.broken(error),
            Address::Socket(_) => anyhow::Error::new(error).context(format!("talking to the recorder at {address}")),
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ignore its result: the answer's body reports the same error.
        tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(method).uri(target);
        for (name, value) in [("host", host.as_str()), ("te", "trailers"), ("connection", "TE")] {
            request = request.header(name, value);
        }
        if is_document {
            request = request.header("content-type", "application/json");
        }
        if hold.is_some() {
            // Without it, hyper sends no body with a GET.
            request = request.header("transfer-encoding", "chunked");
        }
        let request = request.body(body).map_err(Usage::of)?;
        sender.send_request(request).await.map_err(failed)
    };
    let response = match deadline.wait(&runtime, asking) {
        Ok(response) => response?,
        Err(error) => return Err(anyhow!("the recorder at {address} {error}")),
    };
    let (head, body) = response.into_parts();
    let mut answer =
        Answer { runtime, body, chunk: Bytes::new(), trailers: Trailers::default(), interrupted: None, deadline, hold };
    if head.status.is_success() {
        if follows {
            answer.deadline.lift();
        }
        return Ok(answer);
    }
    let refused = refused(head.status, &answer.document()?);
    Err(if refused.status == StatusCode::BAD_REQUEST { Usage::of(refused) } else { refused.into() })
}

/// Reads a problem document (RFC 9457).
pub(crate) fn refused(status: StatusCode, document: &str) -> RefusedRequest {
    let problem: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
    let text = |key: &str| problem.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    let detail = text("detail").or_else(|| text("title")).unwrap_or_else(|| format!("the recorder answered {status}"));
    let detail = detail.chars().take(DETAIL_CHARS_MAX).collect::<String>().into();
    RefusedRequest { status, detail, cause: text("cause") }
}

/// The HTTP trailers of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trailers(Arc<Mutex<hyper::HeaderMap>>);

impl Trailers {
    /// The trailers that ended an answer.
    pub(crate) fn of(trailers: hyper::HeaderMap) -> Self {
        Self(Arc::new(Mutex::new(trailers)))
    }

    /// Adds a text to a trailer.
    pub(crate) fn add(&self, name: &'static str, text: &str) {
        let mut trailers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = trailers.get(name).map(|there| String::from_utf8_lossy(there.as_bytes()).into_owned());
        let all = there.map_or_else(|| text.to_owned(), |there| format!("{there}; {text}"));
        if let Ok(value) = hyper::header::HeaderValue::from_str(&all) {
            trailers.insert(name, value);
        }
    }

    /// The trailer of this name; `None` until the stream has ended.
    pub(crate) fn text(&self, name: &str) -> Option<Foreign> {
        let trailers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(String::from_utf8_lossy(trailers.get(name)?.as_bytes()).into_owned().into())
    }
}

/// An answer, which is read as a stream.
#[derive(Debug)]
pub(crate) struct Answer {
    runtime: Runtime,
    body: Incoming,
    chunk: Bytes,
    trailers: Trailers,
    interrupted: Option<Interrupt>,
    deadline: Deadline,
    /// Keeps an answer that follows going.
    hold: Option<Hold>,
}

/// Ends an answer early, and records that it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<(AtomicBool, Notify)>);

impl Interrupt {
    pub(crate) fn is_interrupted(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Makes the answer end as if it were complete.
    pub(crate) fn interrupt(&self) {
        self.0.0.store(true, Ordering::Relaxed);
        self.0.1.notify_one();
    }
}

impl Answer {
    /// The next chunk; `None` at the end.
    pub(crate) fn next_chunk(&mut self) -> std::io::Result<Option<Bytes>> {
        while let Some(frame) = self.next_frame()?.transpose().map_err(broken)? {
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.deadline.extend(data.len());
                    return Ok(Some(data));
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        *self.trailers.0.lock().unwrap_or_else(PoisonError::into_inner) = trailers;
                    }
                }
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> std::io::Result<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let ended = self.interrupted.clone().unwrap_or_default();
        if ended.is_interrupted() {
            return Ok(None);
        }
        let body = &mut self.body;
        let frame = self.deadline.wait(&self.runtime, async {
            tokio::select! {
                frame = body.frame() => frame,
                () = ended.0.1.notified() => None,
            }
        });
        frame.map_err(|error| std::io::Error::new(ErrorKind::TimedOut, format!("the recorder {error}")))
    }

    /// A handle that ends the answer from any thread.
    pub(crate) fn interruption(&mut self) -> Interrupt {
        self.interrupted.get_or_insert_default().clone()
    }

    /// From now on Ctrl-C, SIGTERM or SIGHUP ends the answer instead of the program. The recorder completes it, and says
    /// what it lacks; if it does not, the answer ends where it is.
    pub(crate) fn end_when_interrupted(&mut self) {
        let ended = self.interruption();
        self.complete_when_interrupted(move || {
            note("retrocap: the recorder did not say in time what this answer lacks");
            ended.interrupt();
        });
    }

    /// As [`end_when_interrupted`](Self::end_when_interrupted), but ends the program if the recorder does not complete the
    /// answer, or if nobody reads what was received.
    pub(crate) fn end_or_exit_when_interrupted(&mut self) {
        self.complete_when_interrupted(|| std::process::exit(output::INTERRUPTED));
    }

    fn complete_when_interrupted(&mut self, otherwise: impl FnOnce() + Send + 'static) {
        let hold = self.hold.take();
        output::when_interrupted(move || {
            drop(hold);
            std::thread::sleep(COMPLETED_WITHIN);
            otherwise();
        });
    }

    /// A handle that tells whether the answer was interrupted.
    pub(crate) fn interrupted(&self) -> Interrupt {
        self.interrupted.clone().unwrap_or_default()
    }

    /// The trailers, which are filled at the end of the answer.
    pub(crate) fn trailers(&self) -> Trailers {
        self.trailers.clone()
    }

    /// Reads the whole answer as text.
    pub(crate) fn document(&mut self) -> anyhow::Result<String> {
        let mut document = String::new();
        self.take(DOCUMENT_BYTES_MAX + 1).read_to_string(&mut document)?;
        if document.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(anyhow!("the recorder's answer has more than {} MiB", DOCUMENT_BYTES_MAX >> 20));
        }
        Ok(document)
    }
}

impl Read for Answer {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.chunk.is_empty() {
            match self.next_chunk()? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let bytes = self.chunk.len().min(into.len());
        into[..bytes].copy_from_slice(&self.chunk.split_to(bytes));
        Ok(bytes)
    }
}

/// Reads the next line of an answer. Returns false at the end.
///
/// # Errors
///
/// When reading fails, and when the line is not UTF-8 or has more than `bytes_max` bytes.
pub(crate) fn next_line(lines: &mut impl BufRead, line: &mut String, bytes_max: u64) -> std::io::Result<bool> {
    line.clear();
    let bytes = lines.take(bytes_max).read_line(line)?;
    if bytes as u64 == bytes_max && !line.ends_with('\n') {
        let error = format!("the recorder's answer has a line of more than {} KiB", bytes_max >> 10);
        return Err(std::io::Error::new(ErrorKind::InvalidData, error));
    }
    Ok(bytes > 0)
}

/// An error for a connection that ended within the answer.
fn broken(error: hyper::Error) -> std::io::Error {
    std::io::Error::new(
        ErrorKind::ConnectionAborted,
        format!("the recorder ended its answer early ({error}); ask again"),
    )
}

/// Sends a GET request for `target`, which is a path and a query string; see [`ask`].
pub(crate) fn get(common: &Common, target: &str) -> anyhow::Result<Answer> {
    ask(common, Method::GET, target, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_reported_in_the_services_words() {
        let problem =
            refused(StatusCode::NOT_FOUND, r#"{"title":"x","detail":"nothing was seen","cause":"never_seen"}"#);
        assert_eq!((problem.to_string().as_str(), problem.is_nothing_found()), ("nothing was seen", true));
        let problem = refused(StatusCode::NOT_FOUND, "what?");
        assert_eq!(
            (problem.to_string().as_str(), problem.is_nothing_found()),
            ("the recorder answered 404 Not Found", false)
        );
    }
}
