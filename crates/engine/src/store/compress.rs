//! Compression of sealed segments on a separate thread.
//!
//! ```text
//!  Store ── job: a segment, an empty buffer ──►  Compressor   reads the segment as any reader does,
//!        ◄── the same buffer, filled ──────────               compresses it
//! ```
//!
//! The [`Store`](super::Store) is the only writer. When free pages run low it chooses segments to compress. It then replaces a
//! segment's pages with those of its compressed stream, provided that the segment still exists. The store prefers the
//! segment that saves the most bytes for the longest time, so that CPU time is spent where it helps most. A segment
//! that does not shrink enough stays uncompressed.
//!
//! In a live capture the compressor thread limits itself to its share of a core, and the writer never waits for it. In
//! a replay only the packets determine when each step happens: the share is measured in packet time, and the store
//! waits for results at fixed points. The same capture therefore always gives the same history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::cursor::Stream;
use super::pages::{PAGE_BYTES, PageId, Position};
use super::queues::{QueueId, Queues};
use super::segment::{SegmentId, SegmentView, pages_of, segment_bytes};
use super::segments::Segments;
use super::unpack::Unpacker;
use base::counters::CompressionTotals;

/// zstd compression level. ARCHITECTURE.md gives the measurements on real captures.
const LEVEL: i32 = 1;
/// Bytes of a zstd context that compresses segments of 64, 128 and 256 KiB at [`LEVEL`].
const CONTEXT_BYTES: [usize; 3] = [320 << 10, 560 << 10, 600 << 10];
/// Maximum number of jobs in flight.
pub(super) const JOBS: usize = 4;
/// Assumed compression rate of one core in a replay, in bytes per second.
const NOMINAL_BYTES_PER_S: f64 = 250e6;
/// Largest fraction of the stored bytes that a replay compresses. A replay waits for the compressor and reads packets
/// faster than live traffic arrives, so this limits its run time.
const REPLAYED_PART_MAX: f64 = 0.5;
/// Largest unused CPU budget that a replay accumulates, in seconds of packet time.
const SAVED_S_MAX: f64 = 10.0;
/// Fraction of its expected lifetime after which a segment is not worth compressing.
pub(super) const LIFE_USED_MAX: f64 = 0.75;

/// When compression happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The store takes results as they arrive. The compressor thread limits itself to its share of a core.
    Live,
    /// Only the packets determine when segments are compressed and when results are taken.
    Replay,
}

/// Settings of compression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compression {
    /// CPU share, as a fraction of one core from 0 to 1.
    pub share: f64,
    /// When compression happens.
    pub pace: Pace,
    /// Bytes of memory for segments that readers uncompress.
    pub readers_bytes: u64,
}

/// Bytes of memory that compression needs for a store of `store_bytes`, without the memory for readers.
pub fn cost_bytes(store_bytes: u64) -> u64 {
    let segment = segment_bytes(store_bytes);
    let context = CONTEXT_BYTES[(segment >> 17).min(2)];
    (context + segment + JOBS * packed_bytes_max(segment) + Unpacker::bytes(segment) + segment) as u64
}

/// Largest useful size of a compressed segment, in bytes: at most 90% of `len` and at least one page less.
pub(super) fn packed_bytes_max(len: usize) -> usize {
    (len * 9 / 10).min((pages_of(len).saturating_sub(1)) * PAGE_BYTES)
}

/// A segment to compress and, later, the result.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) view: SegmentView,
    pub(super) queue: QueueId,
    pub(super) outcome: Outcome,
    /// Output buffer, as long as the longest compressed segment.
    pub(super) buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Not processed yet, or the segment was evicted in the meantime.
    Nothing,
    Packed(usize),
    Incompressible,
}

/// CPU time of the compressor thread.
#[derive(Debug, Default)]
pub struct Activity {
    cpu_ns: AtomicU64,
}

impl Activity {
    /// Sets the CPU time used so far, in nanoseconds.
    pub fn set_cpu_ns(&self, ns: u64) {
        self.cpu_ns.store(ns, Ordering::Relaxed);
    }

    /// CPU time used so far, in nanoseconds. It stays 0 in a replay, because it would differ between runs.
    pub fn cpu_ns(&self) -> u64 {
        self.cpu_ns.load(Ordering::Relaxed)
    }
}

/// The worker side of a store's compression. Run it on its own thread.
pub struct Compressor {
    jobs: Receiver<Job>,
    done: SyncSender<Job>,
    segments: Arc<Segments>,
    activity: Arc<Activity>,
    context: zstd::bulk::Compressor<'static>,
    stream: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// Waits for a segment and compresses it. Returns false when the store has stopped compression.
    pub fn step(&mut self) -> bool {
        let Ok(mut job) = self.jobs.recv() else { return false };
        job.outcome = self.compress(&job.view, &mut job.buffer);
        self.done.send(job).is_ok()
    }

    /// Compresses segments until the store stops compression, without a CPU limit.
    pub fn run(mut self) {
        while self.step() {}
    }

    /// The counter to which the thread reports its CPU time.
    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    fn compress(&mut self, view: &SegmentView, out: &mut [u8]) -> Outcome {
        let Segments { pages, slots, .. } = &*self.segments;
        let (Ok(len), Some(slot)) = (usize::try_from(view.len_bytes), slots.get(view.id.0 as usize)) else {
            return Outcome::Nothing;
        };
        let Some(stream) = self.stream.get_mut(..len) else { return Outcome::Nothing };
        let copied = pages.copy_out(&mut Position { page: view.first_page(), offset: 0 }, stream);
        if copied.is_err() || !slot.is(view.generation) {
            return Outcome::Nothing;
        }
        // Output beyond this limit is an error from zstd, and the segment is not worth compressing.
        let max = packed_bytes_max(len).min(out.len());
        match self.context.compress_to_buffer(stream, &mut out[..max]) {
            Ok(packed) => Outcome::Packed(packed),
            Err(_) => Outcome::Incompressible,
        }
    }
}

/// Expected benefit of compressing the segments of one queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedSaving {
    /// The last segment that was considered. All segments before it in the queue were considered too.
    pub(super) considered: Option<SegmentId>,
    /// Fraction of bytes saved per segment, as a moving average.
    pub(super) saving: f64,
    /// Number of segments to skip before the next attempt.
    pub(super) to_skip: u32,
}

impl ExpectedSaving {
    const UNKNOWN: Self = Self { considered: None, saving: 0.5, to_skip: 0 };

    /// Updates the average with the fraction saved on one segment.
    fn learn(&mut self, saving: f64) {
        self.saving += (saving - self.saving) / 4.0;
        if self.saving < SAVING_MIN {
            self.to_skip = SKIPPED;
        }
    }
}

/// Queues that save a smaller fraction than this are only sampled.
const SAVING_MIN: f64 = 0.1;
/// Number of segments to skip after each attempt in such a queue.
const SKIPPED: u32 = 7;

/// The writer's side of compression.
#[derive(Debug)]
pub(super) struct CompressionState {
    jobs: SyncSender<Job>,
    done: Receiver<Job>,
    /// Jobs that are not in flight, with their buffers.
    idle: Vec<Job>,
    pub(super) pace: Pace,
    /// Compression budget in a replay, in bytes per nanosecond of packet time.
    bytes_per_ns: f64,
    credit_bytes: f64,
    credited_ticks_ns: u64,
    /// Bytes sent to the compressor in a replay.
    given_bytes: u64,
    /// Number of segments begun so far. `given` holds its value at the time each job was sent, oldest job first.
    pub(super) began: u64,
    given: VecDeque<u64>,
    /// No new jobs are sent: the capture is behind, or the compressor has ended.
    pub(super) held: bool,
    queues: Box<[ExpectedSaving]>,
    /// Pages that receive a compressed stream before the uncompressed pages are free.
    pub(super) spare: Vec<PageId>,
    unpacker: Unpacker,
    stream: Vec<u8>,
    counts: CompressionTotals,
    activity: Arc<Activity>,
}

impl CompressionState {
    /// Takes the memory that compresses segments of at most `longest` bytes, except for the spare pages.
    pub(super) fn new(
        compression: &Compression,
        segments: &Arc<Segments>,
        longest: usize,
        queues: &Queues,
    ) -> std::io::Result<(Self, Compressor)> {
        let packed_max = packed_bytes_max(longest);
        let mut context = zstd::bulk::Compressor::new(LEVEL)?;
        // Compress once so that zstd allocates its memory now and not with the first segment.
        let stream = vec![0; longest];
        context.compress(&stream)?;
        let activity = Arc::<Activity>::default();
        let (jobs, to_do) = sync_channel(JOBS);
        let (done, results) = sync_channel(JOBS);
        let idle = || Job {
            view: SegmentView::EMPTY,
            queue: queues.heads(0),
            outcome: Outcome::Nothing,
            buffer: vec![0; packed_max],
        };
        let packing = Self {
            jobs,
            done: results,
            idle: (0..JOBS).map(|_| idle()).collect(),
            pace: compression.pace,
            bytes_per_ns: compression.share * NOMINAL_BYTES_PER_S / 1e9,
            credit_bytes: 0.0,
            credited_ticks_ns: 0,
            given_bytes: 0,
            began: 0,
            given: VecDeque::with_capacity(JOBS),
            held: false,
            queues: vec![ExpectedSaving::UNKNOWN; queues.iter().count()].into(),
            spare: Vec::new(),
            unpacker: Unpacker::new(longest)?,
            stream: vec![0; longest],
            counts: CompressionTotals::default(),
            activity: Arc::clone(&activity),
        };
        let segments = Arc::clone(segments);
        Ok((packing, Compressor { jobs: to_do, done, segments, activity, context, stream }))
    }

    /// The prospect of a queue.
    pub(super) fn prospect(&mut self, queue: QueueId) -> &mut ExpectedSaving {
        &mut self.queues[queue.index()]
    }

    /// Whether another job can be sent.
    pub(super) fn can_send(&self) -> bool {
        !self.idle.is_empty() && !self.held
    }

    /// Sends a segment to the compressor; false if the compressor has ended.
    pub(super) fn send(&mut self, queue: QueueId, view: SegmentView) -> bool {
        self.queues[queue.index()].considered = Some(view.id);
        self.given.push_back(self.began);
        let Some(job) = self.idle.pop() else { return false };
        let sent = self.jobs.try_send(Job { view, queue, outcome: Outcome::Nothing, ..job }).is_ok();
        // Compressed segments stay readable without a compressor, but no more are compressed.
        self.held |= !sent;
        sent
    }

    /// The next finished job. A replay waits for the oldest job when it is due.
    pub(super) fn take_done(&mut self) -> Option<Job> {
        if self.on_their_way() == 0 {
            return None;
        }
        match self.pace {
            Pace::Live => self.done.try_recv().ok(),
            Pace::Replay if self.is_due() => self.done.recv().ok(),
            Pace::Replay => None,
        }
    }

    /// Takes back a finished job.
    pub(super) fn put_back(&mut self, job: Job) {
        self.given.pop_front();
        self.idle.push(job);
    }

    /// Learns from the outcome of a job what the segments of its queue save, and counts it.
    pub(super) fn learn(&mut self, job: &Job) {
        let prospect = &mut self.queues[job.queue.index()];
        let Outcome::Packed(len) = job.outcome else {
            self.counts.incompressible += u64::from(job.outcome == Outcome::Incompressible);
            return prospect.learn(0.0);
        };
        #[allow(clippy::cast_precision_loss, reason = "lengths of segments")]
        prospect.learn(1.0 - len as f64 / job.view.len_bytes as f64);
        self.counts.segments += 1;
        self.counts.raw_bytes += job.view.len_bytes;
        self.counts.packed_bytes += len as u64;
    }

    /// Forgets a segment that left its queue.
    pub(super) fn evicted(&mut self, from: QueueId, id: SegmentId) {
        let considered = &mut self.queues[from.index()].considered;
        considered.take_if(|considered| *considered == id);
    }

    pub(super) fn counts(&self) -> CompressionTotals {
        CompressionTotals { cpu_ns: self.activity.cpu_ns(), ..self.counts }
    }

    /// Whether a replay waits for the oldest job now. This is the case when all jobs are in flight, or when [`JOBS`]
    /// segments have begun since the job was sent: the compressor then had time to finish it.
    fn is_due(&self) -> bool {
        self.idle.is_empty() || self.given.front().is_some_and(|&began| self.began - began >= JOBS as u64)
    }

    /// Number of jobs in flight.
    fn on_their_way(&self) -> usize {
        JOBS - self.idle.len()
    }

    /// Whether the budget allows `len` more bytes. `ticks_ns` is the packet time, and `stored_bytes` counts all bytes
    /// stored so far. A live capture always allows it.
    pub(super) fn may(&mut self, len: u64, ticks_ns: u64, stored_bytes: u64) -> bool {
        if self.pace == Pace::Live {
            return true;
        }
        #[allow(clippy::cast_precision_loss, reason = "a credit is no account")]
        {
            let earned = (ticks_ns - self.credited_ticks_ns) as f64 * self.bytes_per_ns;
            self.credited_ticks_ns = ticks_ns;
            self.credit_bytes = (self.credit_bytes + earned).min(self.bytes_per_ns * SAVED_S_MAX * 1e9);
            let may = self.credit_bytes >= len as f64
                && (self.given_bytes + len) as f64 <= stored_bytes as f64 * REPLAYED_PART_MAX;
            if may {
                self.credit_bytes -= len as f64;
                self.given_bytes += len;
            }
            may
        }
    }
}

/// The uncompressed stream of a segment that is about to be evicted.
pub(super) fn stream_of<'a>(
    shared: &'a Segments,
    packing: Option<&'a mut CompressionState>,
    view: &SegmentView,
) -> Stream<'a> {
    let slot = &shared.slots[view.id.0 as usize];
    match packing.filter(|_| view.is_packed()) {
        None => Stream::Pages(&shared.pages, slot),
        Some(packing) => {
            let stream = packing.unpacker.unpack(&shared.pages, slot, view, &mut packing.stream);
            debug_assert!(stream.is_ok(), "what was compressed can be read");
            Stream::Bytes(stream.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests;
