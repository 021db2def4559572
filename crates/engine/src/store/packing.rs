//! Compression on the writer's side: selects the segments to compress, and exchanges their pages for compressed ones.

use std::sync::Arc;

use super::compress::{
    Compression, CompressionState, Compressor, JOBS, Job, LIFE_USED_MAX, Outcome, Pace, packed_bytes_max,
};
use super::queues::{Kind, QueueId};
use super::segment::{SegmentId, SegmentView, pages_of};
use super::state::Store;
use super::unpack::Unpacked;
use base::counters::CompressionTotals;

impl Store {
    /// Enables compression by the returned [`Compressor`]. Call this before any reader has the segments.
    ///
    /// # Errors
    ///
    /// Fails when zstd or the system cannot allocate the memory.
    pub fn compress(&mut self, compression: &Compression) -> std::io::Result<Compressor> {
        let longest = self.segment_bytes;
        let Some(shared) = Arc::get_mut(&mut self.shared) else { unreachable!("nobody reads yet") };
        shared.unpacked = Unpacked::new(compression.readers_bytes, longest)?;
        let (mut packing, compressor) = CompressionState::new(compression, &self.shared, longest, &self.policy.queues)?;
        packing.spare = self.arena.take_many(pages_of(packed_bytes_max(longest)));
        self.packing = Some(Box::new(packing));
        Ok(compressor)
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
            self.arena.give_back(packing.spare);
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
        while self.arena.free_pages() < low
            && self.packing.as_ref().is_some_and(|packing| packing.can_send())
            && let Some((queue, view)) = self.most_worth_packing()
        {
            let stored_bytes = self.retained.bytes + self.evicted.bytes;
            let Some(packing) = &mut self.packing else { return };
            if !packing.may(view.len_bytes, self.policy.clock.ticks_ns(), stored_bytes) || !packing.send(queue, view) {
                return;
            }
        }
    }

    /// The segment with the highest gain: expected fraction saved times remaining lifetime.
    fn most_worth_packing(&mut self) -> Option<(QueueId, SegmentView)> {
        let now = self.policy.clock.ticks_ns();
        #[allow(clippy::cast_precision_loss, reason = "ages are compared, not counted")]
        let age = |id: SegmentId| (now - self.lists.opened_ticks_ns(id)) as f64 + 1.0;
        let survey = self.policy.survey(&self.lists);
        let packing = self.packing.as_mut()?;
        let mut best: Option<(f64, QueueId, SegmentView)> = None;
        // Skip pinned segments: they can move to another queue at any time.
        for (at, queue) in self.policy.queues.iter().filter(|(_, queue)| queue.kind != Kind::Pinned) {
            let open = queue.open.as_ref().map(|open| open.id);
            loop {
                let prospect = packing.prospect(at);
                let next = prospect.considered.map_or(queue.list.first(), |id| self.lists.after(id));
                let Some(id) = next.filter(|&id| Some(id) != open) else { break };
                let life = self.policy.life_ns(&survey, queue.kind, queue.weight);
                let view = Some(self.lists.view(id)).filter(|view| {
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
        while !made_room && let Some(job) = self.packing.as_mut().and_then(|packing| packing.take_done()) {
            made_room |= self.exchange(&job);
            if let Some(packing) = &mut self.packing {
                packing.put_back(job);
            }
        }
        made_room
    }

    /// Replaces a segment with its compressed stream if the segment still exists. Returns whether pages were freed.
    fn exchange(&mut self, job: &Job) -> bool {
        let (Some(packing), slot) = (&mut self.packing, self.lists.slot(job.view.id)) else { return false };
        if !slot.is(job.view.generation) {
            return false;
        }
        packing.learn(job);
        let Outcome::Packed(len) = job.outcome else { return false };
        let count = pages_of(len);
        let at = packing.spare.len() - count;
        let first = self.arena.fill(&packing.spare[at..], &job.buffer[..len]);
        slot.pack(first, len as u64);
        let before = self.arena.free_pages();
        let freed = self.arena.free(&job.view);
        self.policy.queues.gave(job.queue, freed - u32::try_from(count).unwrap_or(freed));
        // The segment was longer by at least one page than what replaces it.
        for (page, free) in packing.spare[at..].iter_mut().zip(std::iter::from_fn(|| self.arena.take())) {
            *page = free;
        }
        self.arena.free_pages() > before
    }
}
