//! A capture file as the source waits for the disk. A live source never does.
//!
//! A file is read much faster than most disks write. Without a pause, packets would leave memory before they are written. At
//! most 128 KiB wait to be written. Packets among them are lost, and counted, only if a queue that fills slowly loses its last
//! segment.

use std::sync::Arc;
use std::time::Duration;

use super::spool::DirectorySpool;
use base::packet::Packet;
use base::source::{Batch, Source, SourceCounts, SourceError};
use engine::pipeline::Worker;

/// Bytes of packets that may wait to be written.
const WAITING_BYTES_MAX: u64 = 128 << 10;
/// Pause between two looks.
const PAUSE: Duration = Duration::from_micros(200);

/// Says when a source has to wait.
#[derive(Debug)]
pub(super) struct SpoolGate {
    spool: Arc<DirectorySpool>,
}

impl SpoolGate {
    /// The gate before the memory that this spool follows.
    pub(super) fn new(spool: Arc<DirectorySpool>) -> Self {
        Self { spool }
    }

    fn is_closed(&self, worker: &Worker) -> bool {
        let stored = worker.published.totals().stored.bytes;
        self.spool.reached_bytes().is_some_and(|reached| stored.saturating_sub(reached) > WAITING_BYTES_MAX)
    }
}

/// A source that waits for the disk.
pub(super) struct WaitingSource<'s, S> {
    source: &'s mut S,
    gate: Option<&'s SpoolGate>,
    worker: Worker,
}

impl<'s, S: Source> WaitingSource<'s, S> {
    /// The packets of `source` for this worker.
    pub(super) fn new(source: &'s mut S, gate: Option<&'s SpoolGate>, worker: Worker) -> Self {
        Self { source, gate, worker }
    }
}

impl<S: Source> Source for WaitingSource<'_, S> {
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        if self.gate.is_some_and(|gate| gate.is_closed(&self.worker)) {
            std::thread::sleep(PAUSE);
            return Ok(Batch::Idle);
        }
        self.source.bursts(each)
    }

    fn is_behind(&self) -> bool {
        self.source.is_behind()
    }

    fn counts(&self) -> SourceCounts {
        self.source.counts()
    }
}
