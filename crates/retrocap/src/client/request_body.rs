//! The body of a request: bytes, or a body that stays open until the client has enough of an answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::oneshot;

/// Keeps a body open until it is dropped.
#[derive(Debug)]
pub(super) struct Hold(#[allow(dead_code, reason = "its end is the message")] oneshot::Sender<()>);

/// The body of a request.
#[derive(Debug)]
pub(super) struct RequestBody {
    bytes: Option<Bytes>,
    open: Option<oneshot::Receiver<()>>,
}

impl RequestBody {
    pub(super) fn of(text: Option<String>) -> Self {
        Self { bytes: text.map(Bytes::from), open: None }
    }

    /// An empty body that ends when the hold is dropped.
    pub(super) fn held() -> (Self, Option<Hold>) {
        let (hold, open) = oneshot::channel();
        (Self { bytes: None, open: Some(open) }, Some(Hold(hold)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(open) = &mut self.open {
            std::task::ready!(Pin::new(open).poll(context)).ok();
            self.open = None;
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.open {
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
