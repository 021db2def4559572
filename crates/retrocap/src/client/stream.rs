//! The byte stream that carries a request and its answer.

use tokio::io::{AsyncRead, AsyncWrite};

/// A bidirectional byte stream to a recorder or listener.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
