//! A connection whose client has to read at a minimum rate.
//!
//! Time counts only while a write waits for the client. Within [`ServiceLimits::stall_timeout`](super::Limits::stall_timeout) of
//! such time the client has to take what the minimum rate amounts to; otherwise its connection fails. So neither a client
//! that has stopped nor one that takes a byte now and then keeps its share of memory.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::counters::count;
use super::service::Service;

/// Bytes a second that a client has to take on average, while some wait for it: 64 kbit/s.
const BYTES_PER_SECOND_MIN: u64 = 8 << 10;
/// Bytes that it has to take within a window at least.
const WINDOW_BYTES_MIN: u64 = 32 << 10;

/// A stream whose client has to read at the minimum rate.
pub(super) struct MinimumRate<S> {
    stream: S,
    service: Arc<Service>,
    /// Since when a write waits.
    waiting: Option<Instant>,
    /// How long writes have waited in this window.
    waited: Duration,
    /// Bytes taken in this window.
    taken: u64,
    deadline: Pin<Box<Sleep>>,
}

/// Bytes that a client has to take within a window of this length.
fn required_bytes(window: Duration) -> u64 {
    window.as_secs().saturating_mul(BYTES_PER_SECOND_MIN).max(WINDOW_BYTES_MIN)
}

impl<S> MinimumRate<S> {
    pub(super) fn new(stream: S, service: Arc<Service>) -> Self {
        let deadline = Box::pin(sleep(service.limits().stall_timeout));
        Self { stream, service, waiting: None, waited: Duration::ZERO, taken: 0, deadline }
    }

    /// A write that waits ends with the deadline.
    fn watch(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = write {
            if let Some(since) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            self.taken += written.as_ref().map_or(0, |bytes| *bytes as u64);
            if self.taken >= required_bytes(self.service.limits().stall_timeout) {
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
        count(&self.service.counters.clients_stalled);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")))
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
        // What TLS has buffered waits here.
        let flush = Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| 0);
        self.watch(cx, flush).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
