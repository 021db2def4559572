//! Bodies of requests, read within a limit of bytes and of time.

use std::time::Duration;

use axum::body::{Body, Bytes};

use api::Problem;

/// Bytes of the body of a request at most, where the body is not a list of selections.
pub(super) const BODY_BYTES_MAX: u64 = 64 << 10;

/// Reads a body of so many bytes at most within `patience`.
pub(super) async fn read_body(body: Body, bytes_max: u64, patience: Duration) -> Result<Bytes, Problem> {
    let bytes = axum::body::to_bytes(body, usize::try_from(bytes_max).unwrap_or(usize::MAX));
    match tokio::time::timeout(patience, bytes).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Problem::body_too_large(bytes_max)),
        Err(_) => Err(Problem::body_too_slow()),
    }
}
