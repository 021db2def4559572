//! Connections: how many, how long, how large; and who is at the other end.

use std::fmt;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::{Service, health, http, pins};

/// Headers of a request, at most.
const HEADERS_MAX: usize = 64;
/// Bytes of the head of a request, at most: the longest expression, each byte of it percent-encoded, and some.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Bytes that a connection reads ahead, and that wait to be written.
const BUFFER_BYTES: usize = 64 << 10;
/// Pause after the system refused a connection, which it does for want of memory or descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Peer {
    /// Whether it may say what is not recorded: root, and the user that records.
    pub(super) fn may_leave_out(self) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == rustix::process::getuid().as_raw())
    }

    fn of(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        Self { uid: credentials.map(|c| c.uid()), pid: credentials.and_then(|c| c.pid()) }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid, self.pid) {
            (Some(uid), Some(pid)) => write!(f, "uid {uid} (process {pid})"),
            (Some(uid), None) => write!(f, "uid {uid}"),
            (None, _) => f.write_str("somebody"),
        }
    }
}

/// Serves until `shutdown` turns true or its sender is dropped; then answers that are under way end early but well, for
/// which they have [`Limits::stop_timeout`](super::Limits::stop_timeout).
pub async fn serve(listener: UnixListener, service: Arc<Service>, mut shutdown: watch::Receiver<bool>) {
    let router = http::router(Arc::clone(&service));
    let mut connections = JoinSet::new();
    let watch_drops = health::watch(Arc::clone(&service));
    let expire_pins = pins::expire_in_time(Arc::clone(&service));
    tokio::pin!(watch_drops, expire_pins);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut watch_drops => continue,
            () = &mut expire_pins => continue,
            Some(_) = connections.join_next() => continue,
            () = told(&mut shutdown) => break,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < service.limits().connections_max => {
                let shutdown = shutdown.clone();
                connections.spawn(connection(stream, router.clone(), Arc::clone(&service), shutdown));
            }
            Ok(_) => {
                service.activity.clients_refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::debug!("a connection was not accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    service.stopping.store(true, Ordering::Relaxed);
    let ended =
        timeout(service.limits().stop_timeout, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::info!("{} connections are closed before their answers have ended", connections.len());
        connections.shutdown().await;
    }
}

async fn connection(stream: UnixStream, router: Router, service: Arc<Service>, mut shutdown: watch::Receiver<bool>) {
    let peer = Peer::of(&stream);
    service.activity.connections.fetch_add(1, Ordering::Relaxed);
    let _open = Open(Arc::clone(&service));
    let router = TowerToHyperService::new(router);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(service.limits().head_timeout)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Watched::new(stream, Arc::clone(&service))), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = told(&mut shutdown) => {
            // Set here too, so that no answer of this connection misses it.
            service.stopping.store(true, Ordering::Relaxed);
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("the connection of {peer} was closed: {error}");
    }
}

/// Waits until the service is to end.
pub(super) async fn told(shutdown: &mut watch::Receiver<bool>) {
    // Without its sender nobody could tell any more.
    let _ = shutdown.wait_for(|&stop| stop).await;
}

/// Counts a connection for as long as it lives.
struct Open(Arc<Service>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.activity.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose reader has to take something within the stall timeout.
struct Watched {
    stream: UnixStream,
    service: Arc<Service>,
    /// Whether a write waits; then until `deadline`.
    waiting: bool,
    deadline: Pin<Box<Sleep>>,
}

impl Watched {
    fn new(stream: UnixStream, service: Arc<Service>) -> Self {
        let deadline = Box::pin(sleep(service.limits().stall_timeout));
        Self { stream, service, waiting: false, deadline }
    }

    /// A write that has to wait waits with the deadline.
    fn watch<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.waiting = false;
            return write;
        }
        if !self.waiting {
            self.waiting = true;
            self.deadline.as_mut().reset(Instant::now() + self.service.limits().stall_timeout);
        }
        if self.deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.service.activity.clients_stalled.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has stopped to read")))
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
