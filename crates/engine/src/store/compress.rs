//! Compression of sealed segments on a separate thread.
//!
//! ```text
//!  Store ── job: a segment, an empty buffer ──►  Compressor   reads the segment as any reader does,
//!        ◄── the same buffer, filled ──────────               compresses it
//! ```
//!
//! The [`Store`] is the only writer. When free pages run low it chooses segments to compress. It then replaces a
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
use super::pages::{PageId, Position, Tail};
use super::queues::{Kind, QueueId};
use super::segment::{SegmentView, pages_of};
use super::unpack::{Unpacked, Unpacker};
use super::{SegmentId, Segments, Store};
use base::counters::CompressionTotals;

/// zstd compression level. ARCHITECTURE.md gives the measurements on real captures.
const LEVEL: i32 = 1;
/// Bytes of a zstd context that compresses segments of 64, 128 and 256 KiB at [`LEVEL`].
const CONTEXT_BYTES: [usize; 3] = [320 << 10, 560 << 10, 600 << 10];
/// Maximum number of jobs in flight.
const JOBS: usize = 4;
/// Assumed compression rate of one core in a replay, in bytes per second.
const NOMINAL_BYTES_PER_S: f64 = 250e6;
/// Largest fraction of the stored bytes that a replay compresses. A replay waits for the compressor and reads packets
/// faster than live traffic arrives, so this limits its run time.
const REPLAYED_PART_MAX: f64 = 0.5;
/// Largest unused CPU budget that a replay accumulates, in seconds of packet time.
const SAVED_S_MAX: f64 = 10.0;
/// Fraction of its expected lifetime after which a segment is not worth compressing.
const LIFE_USED_MAX: f64 = 0.75;

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
    let segment = super::segment_bytes(store_bytes);
    let context = CONTEXT_BYTES[(segment >> 17).min(2)];
    (context + segment + JOBS * packed_bytes_max(segment) + Unpacker::bytes(segment) + segment) as u64
}

/// Largest useful size of a compressed segment, in bytes: at most 90% of `len` and at least one page less.
fn packed_bytes_max(len: usize) -> usize {
    (len * 9 / 10).min((pages_of(len).saturating_sub(1)) * super::pages::PAGE_BYTES)
}

/// A segment to compress and, later, the result.
#[derive(Debug)]
struct Job {
    view: SegmentView,
    queue: QueueId,
    outcome: Outcome,
    /// Output buffer, as long as the longest compressed segment.
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
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
struct Prospect {
    /// The last segment that was considered. All segments before it in the queue were considered too.
    considered: Option<SegmentId>,
    /// Fraction of bytes saved per segment, as a moving average.
    saving: f64,
    /// Number of segments to skip before the next attempt.
    to_skip: u32,
}

impl Prospect {
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
pub(super) struct Packing {
    jobs: SyncSender<Job>,
    done: Receiver<Job>,
    /// Jobs that are not in flight, with their buffers.
    idle: Vec<Job>,
    pace: Pace,
    /// Compression budget in a replay, in bytes per nanosecond of packet time.
    bytes_per_ns: f64,
    credit_bytes: f64,
    credited_ticks_ns: u64,
    /// Bytes sent to the compressor in a replay.
    given_bytes: u64,
    /// Number of segments begun so far. `given` holds its value at the time each job was sent, oldest job first.
    began: u64,
    given: VecDeque<u64>,
    /// No new jobs are sent: the capture is behind, or the compressor has ended.
    pub(super) held: bool,
    queues: Box<[Prospect]>,
    /// Pages that receive a compressed stream before the uncompressed pages are free.
    spare: Vec<PageId>,
    unpacker: Unpacker,
    stream: Vec<u8>,
    counts: CompressionTotals,
    activity: Arc<Activity>,
}

impl Packing {
    /// Forgets a segment that left its queue.
    pub(super) fn evicted(&mut self, from: QueueId, id: SegmentId) {
        let considered = &mut self.queues[from.index()].considered;
        considered.take_if(|considered| *considered == id);
    }

    fn counts(&self) -> CompressionTotals {
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
    fn may(&mut self, len: u64, ticks_ns: u64, stored_bytes: u64) -> bool {
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

impl Store {
    /// Enables compression by the returned [`Compressor`]. Call this before any reader has the segments.
    ///
    /// # Errors
    ///
    /// Fails when zstd or the system cannot allocate the memory.
    pub fn compress(&mut self, compression: &Compression) -> std::io::Result<Compressor> {
        let longest = self.segment_bytes;
        let packed_max = packed_bytes_max(longest);
        let Some(shared) = Arc::get_mut(&mut self.shared) else { unreachable!("nobody reads yet") };
        shared.unpacked = Unpacked::new(compression.readers_bytes, longest)?;
        let mut context = zstd::bulk::Compressor::new(LEVEL)?;
        // Compress once so that zstd allocates its memory now and not with the first segment.
        let stream = vec![0; longest];
        context.compress(&stream)?;
        let activity = Arc::<Activity>::default();
        let (jobs, to_do) = sync_channel(JOBS);
        let (done, results) = sync_channel(JOBS);
        let idle = || Job {
            view: SegmentView::EMPTY,
            queue: self.queues.heads(0),
            outcome: Outcome::Nothing,
            buffer: vec![0; packed_max],
        };
        let spare = self.free_pages.len().saturating_sub(pages_of(packed_max));
        self.packing = Some(Box::new(Packing {
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
            queues: vec![Prospect::UNKNOWN; self.queues.iter().count()].into(),
            spare: self.free_pages.split_off(spare),
            unpacker: Unpacker::new(longest)?,
            stream: vec![0; longest],
            counts: CompressionTotals::default(),
            activity: Arc::clone(&activity),
        }));
        Ok(Compressor { jobs: to_do, done, segments: Arc::clone(&self.shared), activity, context, stream })
    }

    /// Totals of compression so far.
    pub fn packed(&self) -> CompressionTotals {
        let mut packed = self.packed_before;
        packed += self.packing.as_ref().map_or(CompressionTotals::default(), |packing| packing.counts());
        packed
    }

    /// Stops compression. The compressor thread ends, and jobs in flight are discarded.
    pub fn stop_compressing(&mut self) {
        if let Some(packing) = self.packing.take() {
            self.packed_before += packing.counts();
            self.free_pages.extend(packing.spare);
        }
    }

    /// Takes finished jobs and sends new ones unless the capture is `behind`. A live capture calls this between
    /// batches.
    pub fn settle(&mut self, behind: bool) {
        let Some(packing) = &mut self.packing else { return };
        if packing.pace == Pace::Live {
            packing.held = behind;
            self.take_packed();
            self.pack_more();
        }
    }

    /// Counts a new segment and sends jobs if pages run low.
    pub(super) fn pack_at_beginning(&mut self) {
        if let Some(packing) = &mut self.packing {
            packing.began += 1;
        }
        self.pack_more();
    }

    /// Sends jobs to the compressor while free pages are low.
    pub(super) fn pack_more(&mut self) {
        let low = JOBS * pages_of(self.segment_bytes);
        while self.free_pages.len() < low
            && let Some(packing) = &self.packing
            && !packing.idle.is_empty()
            && !packing.held
            && let Some((queue, view)) = self.most_worth_packing()
        {
            let (ticks_ns, stored_bytes) = (self.clock.ticks_ns(), self.retained.bytes + self.evicted.bytes);
            let Some(packing) = &mut self.packing else { return };
            if !packing.may(view.len_bytes, ticks_ns, stored_bytes) {
                return;
            }
            packing.queues[queue.index()].considered = Some(view.id);
            packing.given.push_back(packing.began);
            let Some(job) = packing.idle.pop() else { return };
            if packing.jobs.try_send(Job { view, queue, outcome: Outcome::Nothing, ..job }).is_err() {
                // The compressor has ended. Compressed segments stay readable, but no more are compressed.
                packing.held = true;
                return;
            }
        }
    }

    /// The segment with the highest gain: expected fraction saved times remaining lifetime.
    fn most_worth_packing(&mut self) -> Option<(QueueId, SegmentView)> {
        let now = self.clock.ticks_ns();
        #[allow(clippy::cast_precision_loss, reason = "ages are compared, not counted")]
        let age = |id: SegmentId| (now - self.opened_ticks_ns[id.0 as usize]) as f64 + 1.0;
        let survey = self.survey();
        let packing = self.packing.as_mut()?;
        let mut best: Option<(f64, QueueId, SegmentView)> = None;
        // Skip pinned segments: they can move to another queue at any time.
        for (at, queue) in self.queues.iter().filter(|(_, queue)| queue.kind != Kind::Pinned) {
            let open = queue.open.as_ref().map(|open| open.id);
            loop {
                let prospect = &mut packing.queues[at.index()];
                let next = prospect.considered.map_or(queue.head, |id| self.following[id.0 as usize]);
                let Some(id) = next.filter(|&id| Some(id) != open) else { break };
                let life = survey.life_ns(self.share_pages, queue.kind, queue.weight);
                let view = self.shared.slots[id.0 as usize].view(id).filter(|view| {
                    !view.is_packed()
                        && age(id) <= life * LIFE_USED_MAX
                        && view.len_bytes <= self.segment_bytes as u64
                        && view.pages() > 1
                });
                let Some(view) = view.filter(|_| prospect.to_skip == 0) else {
                    prospect.considered = Some(id);
                    prospect.to_skip = prospect.to_skip.saturating_sub(1);
                    continue;
                };
                let gain = (life - age(id)) * prospect.saving;
                if best.is_none_or(|(best, ..)| gain > best) {
                    best = Some((gain, at, view));
                }
                break;
            }
        }
        best.map(|(_, queue, view)| (queue, view))
    }

    /// Takes finished jobs until one frees pages. A replay takes the oldest job when it is due. Returns whether pages
    /// were freed.
    pub(super) fn take_packed(&mut self) -> bool {
        let mut made_room = false;
        while !made_room
            && let Some(packing) = &self.packing
            && packing.on_their_way() > 0
        {
            let done = match packing.pace {
                Pace::Live => packing.done.try_recv().ok(),
                Pace::Replay if packing.is_due() => packing.done.recv().ok(),
                Pace::Replay => None,
            };
            let Some(job) = done else { break };
            made_room |= self.exchange(&job);
            if let Some(packing) = &mut self.packing {
                packing.given.pop_front();
                packing.idle.push(job);
            }
        }
        made_room
    }

    /// Replaces a segment with its compressed stream if the segment still exists. Returns whether pages were freed.
    fn exchange(&mut self, job: &Job) -> bool {
        let (Some(packing), slot) = (&mut self.packing, &self.shared.slots[job.view.id.0 as usize]) else {
            return false;
        };
        if !slot.is(job.view.generation) {
            return false;
        }
        let Outcome::Packed(len) = job.outcome else {
            packing.counts.incompressible += u64::from(job.outcome == Outcome::Incompressible);
            packing.queues[job.queue.index()].learn(0.0);
            return false;
        };
        #[allow(clippy::cast_precision_loss, reason = "lengths of segments")]
        packing.queues[job.queue.index()].learn(1.0 - len as f64 / job.view.len_bytes as f64);
        let pages = &self.shared.pages;
        let at = packing.spare.len() - pages_of(len);
        for pair in packing.spare[at..].windows(2) {
            pages.link(pair[0], pair[1]);
        }
        let first = packing.spare[at];
        Tail::new(first).append(pages, &job.buffer[..len]);
        slot.pack(first, len as u64);
        packing.counts.segments += 1;
        packing.counts.raw_bytes += job.view.len_bytes;
        packing.counts.packed_bytes += len as u64;
        let before = self.free_pages.len();
        let freed = self.free_pages_of(&job.view);
        self.queues.gave(job.queue, freed - u32::try_from(pages_of(len)).unwrap_or(freed));
        if let Some(packing) = &mut self.packing {
            for (page, free) in
                packing.spare[at..].iter_mut().zip(self.free_pages.drain(before..before + pages_of(len)))
            {
                *page = free;
            }
        }
        self.free_pages.len() > before
    }
}

/// The uncompressed stream of a segment that is about to be evicted.
pub(super) fn stream_of<'a>(shared: &'a Segments, packing: Option<&'a mut Packing>, view: &SegmentView) -> Stream<'a> {
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
