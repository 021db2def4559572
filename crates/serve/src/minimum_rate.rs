//! A connection whose client has to take what it is sent.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::Service;

/// Bytes that a client has to take within the stall timeout, while some wait for it. One that takes a byte a minute
/// would hold a query's place for ever.
const TAKEN_BYTES_MIN: usize = 32 << 10;

/// A stream whose client has to take something within the stall timeout.
pub(super) struct MinimumRate<S> {
    stream: S,
    service: Arc<Service>,
    /// Since when a write waits.
    waiting: Option<Instant>,
    /// How long writes have waited since the client last took enough.
    waited: Duration,
    /// Bytes taken since then.
    taken: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> MinimumRate<S> {
    pub(super) fn new(stream: S, service: Arc<Service>) -> Self {
        let deadline = Box::pin(sleep(service.limits().stall_timeout));
        Self { stream, service, waiting: None, waited: Duration::ZERO, taken: 0, deadline }
    }

    /// A write that has to wait waits with the deadline.
    fn watch(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = write {
            if let Some(since) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            self.taken += written.as_ref().map_or(0, |bytes| *bytes);
            if self.taken >= TAKEN_BYTES_MIN {
                (self.taken, self.waited) = (0, Duration::ZERO);
            }
            return Poll::Ready(written);
        }
        if self.waiting.is_none() {
            let now = Instant::now();
            self.waiting = Some(now);
            self.deadline.as_mut().reset(now + self.service.limits().stall_timeout.saturating_sub(self.waited));
        }
        if self.deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.service.counters.clients_stalled.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has stopped to read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MinimumRate<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MinimumRate<S> {
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
        // What TLS has yet to write waits here too.
        let flush = Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| 0);
        self.watch(cx, flush).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
