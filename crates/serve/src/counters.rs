//! What the service has done and does, for the metrics.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::histogram::Histogram;

/// Panics of all threads since the process was started.
pub static PANICS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Default)]
pub(crate) struct ServiceCounters {
    pub(crate) connections: AtomicUsize,
    pub(crate) queries_running: AtomicUsize,
    pub(crate) packet_queries: AtomicU64,
    pub(crate) flow_queries: AtomicU64,
    pub(crate) queries_refused: AtomicU64,
    pub(crate) packets_sent: AtomicU64,
    pub(crate) packets_overtaken: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) clients_stalled: AtomicU64,
    pub(crate) clients_refused: AtomicU64,
    pub(crate) clients_crowded_out: AtomicU64,
    pub(crate) clients_slow: AtomicU64,
    pub(crate) clients_garbled: AtomicU64,
    pub(crate) clients_untrusted: AtomicU64,
    pub(crate) clients_revoked: AtomicU64,
    pub(crate) roles_refused: AtomicU64,
    /// From a question about packets or flows to the first byte of the answer.
    pub(crate) latency: Histogram,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
