//! Asks the recorder of this host over its Unix socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the recorder may send nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// The most bytes of a document.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// An answer, of which the body is read as it comes.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) trailers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Sends a GET request.
pub(crate) async fn get(socket: &Path, target: &str) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(socket).await.with_context(|| format!("no recorder at {}", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = hyper::Request::builder().uri(target).header("host", "retrocap").header("te", "trailers");
    let request = request.header("connection", "TE").body(Empty::<Bytes>::new())?;
    let response = timeout(SILENCE, sender.send_request(request)).await.context("the recorder does not answer")??;
    let (head, body) = response.into_parts();
    Ok(Answer { status: head.status, trailers: HeaderMap::new(), body, connection })
}

impl Answer {
    /// The next part; `None` at the end, when the trailers are there.
    pub(crate) async fn part(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = timeout(SILENCE, self.body.frame()).await.context("the recorder sends no more")? {
            match frame.context("the recorder ended its answer early")?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.trailers = trailers;
                    }
                }
            }
        }
        Ok(None)
    }

    /// The whole answer as a JSON document.
    pub(crate) async fn document(&mut self) -> anyhow::Result<serde_json::Value> {
        let mut document = Vec::new();
        while let Some(part) = self.part().await? {
            document.extend_from_slice(&part);
            if document.len() > DOCUMENT_BYTES_MAX {
                return Err(anyhow!("the recorder's document has more than {} MiB", DOCUMENT_BYTES_MAX >> 20));
            }
        }
        Ok(serde_json::from_slice(&document).unwrap_or_default())
    }

    /// A trailer as text.
    pub(crate) fn trailer(&self, name: &str) -> Option<String> {
        Some(String::from_utf8_lossy(self.trailers.get(name)?.as_bytes()).into_owned())
    }
}
