//! Evicts a segment: counts its packets in their sessions, and carries those forward that must survive.

use std::sync::Arc;

use super::compress::stream_of;
use super::cursor::{Cursor, RecordOutlines, Stream};
use super::eviction::Candidate;
use super::heads::{CarryTarget, Role};
use super::queues::{Band, Kind, QueueId};
use super::record::{HEADER_BYTES_MAX, RecordHeader, RecordOutline};
use super::segment::{SegmentId, SegmentView, pages_of};
use super::state::Store;
use crate::session::{SessionMarks, SessionSlot, SessionTable};
use base::counters::Volume;
use base::time::Timestamp;

/// Starts of a flood are not carried forward if their segment is younger than this: a flood that fills its share so
/// fast consists of sessions of little value.
const FLOOD_NS_MAX: u64 = 60_000_000_000;
/// Number of records of an evicted segment that are read before their sessions are updated.
const RECORDS_AHEAD: usize = 32;

/// Where the younger half of a segment begins.
#[derive(Clone, Copy, Debug)]
struct YoungerHalf {
    /// The sequence number of its first packet.
    from_sequence: u64,
    /// The age of that packet, and of the packet before it.
    age_ns: u64,
    before_age_ns: u64,
}

impl Store {
    /// Evicts the segment with the lowest priority; false when there is none.
    pub(super) fn evict_one(&mut self, sessions: &mut SessionTable) -> bool {
        let Some((victim, survey)) = self.policy.victim(&self.lists) else { return false };
        let Some(younger) = self.younger_half(&victim) else {
            self.evict(victim.queue, victim.segment, u64::MAX, sessions);
            return true;
        };
        if let Some(deeper) = survey.deeper_than(Band::Starts, younger.before_age_ns) {
            self.evict(deeper.queue, deeper.segment, u64::MAX, sessions);
            return true;
        }
        let was_open = self.policy.queues[victim.queue].open.is_some();
        self.evict(victim.queue, victim.segment, younger.from_sequence, sessions);
        if let Some(id) = self.policy.queues[victim.queue].list.first() {
            self.lists.set_opened(id, self.policy.clock.ticks_ns() - younger.age_ns);
        }
        if !was_open {
            self.seal(victim.queue);
        }
        true
    }

    /// The part of a segment that stays when only its older half is evicted; `None` if it is evicted whole.
    fn younger_half(&mut self, victim: &Candidate) -> Option<YoungerHalf> {
        let view = self.lists.view(victim.segment);
        if !victim.is_halved() || view.is_packed() {
            return None;
        }
        let shared = Arc::clone(&self.shared);
        let stream = stream_of(&shared, None, &view);
        let now = self.policy.clock.now();
        let age_ns = |header: &RecordHeader| victim.age_within_ns(now.0.saturating_sub(header.time.0));
        let mut cursor = Cursor::new(view);
        let mut half = YoungerHalf { from_sequence: u64::MAX, age_ns: 0, before_age_ns: 0 };
        loop {
            let is_older = cursor.offset() < view.len_bytes / 2;
            let Ok(Some(record)) = cursor.next(&stream) else { return Some(half) };
            if !is_older {
                half.from_sequence = record.header.sequence;
                half.age_ns = age_ns(&record.header);
                return Some(half);
            }
            half.before_age_ns = age_ns(&record.header);
        }
    }

    /// Evicts a segment, whose packets from `younger` on stay in its queue.
    fn evict(&mut self, from: QueueId, id: SegmentId, younger: u64, sessions: &mut SessionTable) {
        let queue = &mut self.policy.queues[from];
        if queue.open.as_ref().is_some_and(|open| open.id == id) {
            queue.open = None;
        }
        self.lists.pop(&mut queue.list);
        let kind = queue.kind;
        let view = self.lists.view(id);
        // The stream borrows the buffer of `packing` if the segment is compressed, so `packing` is taken out of `self`
        // until the segment is read.
        let mut packing = self.packing.take();
        let shared = Arc::clone(&self.shared);
        let stream = stream_of(&shared, packing.as_deref_mut(), &view);
        let is_halved = younger != u64::MAX;
        let may_carry = kind.has_starts() || (self.policy.pins() != 0 && kind != Kind::Pinned);
        let mut lost_until = view.newest;
        if report_evicted(view, &stream, may_carry, younger, sessions) > 0 || is_halved {
            lost_until = self.pick(view, &stream, (from, younger), sessions);
        }
        self.packing = packing;
        if let Some(packing) = &mut self.packing {
            packing.evicted(from, id);
        }
        if matches!(kind, Kind::Heads { .. }) {
            self.heads.released(view.len_bytes);
        }
        self.lists.free(id);
        let pages = self.arena.free(&view);
        self.policy.queues.gave(from, pages);
        self.retained.packets -= view.packets;
        self.retained.bytes -= view.captured_bytes;
        let carried = self.carry_forward(sessions);
        self.evicted.packets += view.packets - carried.packets;
        self.evicted.bytes += view.captured_bytes - carried.bytes;
        if carried.packets < view.packets {
            self.lost_until = self.lost_until.max(Some(lost_until));
        }
    }

    /// Copies the packets that survive from a segment that is about to be evicted: those from `younger` on, which stay in
    /// its queue, and those that are needed. Returns the latest time of the others.
    fn pick(
        &mut self,
        view: SegmentView,
        stream: &Stream<'_>,
        (queue, younger): (QueueId, u64),
        sessions: &mut SessionTable,
    ) -> Timestamp {
        let kind = self.policy.queues[queue].kind;
        let mut heads = std::mem::take(&mut self.heads);
        heads.begin();
        let mut lost_until = Timestamp::MIN;
        // All records of a segment get the same answer, or else a session could lose its first packet and keep later
        // ones.
        let age_ns = self.policy.clock.ticks_ns() - self.lists.opened_ticks_ns(view.id);
        let carries_floods = age_ns >= FLOOD_NS_MAX;
        // The younger half comes first, so that it finds the room that the segment leaves. The needed packets of the older
        // half go to a queue of their own, where they can begin one more page.
        if younger != u64::MAX {
            let mut cursor = Cursor::new(view);
            while let Ok(Some(record)) = cursor.next(stream) {
                let header = record.header;
                let to = CarryTarget { queue, role: Role::Younger };
                if header.sequence >= younger && !heads.pick(to, &cursor, &record, stream) {
                    heads.lost(1);
                    sessions.packet_evicted(header.session, header.sequence, u64::from(header.captured_len), true);
                    sessions.packet_lost(header.session, header.sequence);
                    lost_until = lost_until.max(header.time);
                }
            }
        }
        let mut cursor = Cursor::new(view);
        while let Ok(Some(record)) = cursor.next(stream) {
            let header = record.header;
            if header.sequence >= younger {
                break;
            }
            if let Some(to) = self.needed(&header, kind, carries_floods, heads.pinned_bytes(), sessions) {
                if heads.pick(to, &cursor, &record, stream) {
                    continue;
                }
                heads.lost(1);
            }
            sessions.packet_lost(header.session, header.sequence);
            lost_until = lost_until.max(header.time);
        }
        self.heads = heads;
        lost_until
    }

    /// The destination of a packet of an evicted segment, if it must survive: the pin of its session, or the carried
    /// starts. `picked_bytes` is the number of bytes already picked for pins.
    ///
    /// A flood that fills its share in less than a minute loses the starts of its live sessions, except for the first
    /// packet of each session of which others are stored. A session that has left its flood keeps all starts that were
    /// stored among those of the flood: its handshake came before the detector could know that it is no part of it.
    fn needed(
        &self,
        header: &RecordHeader,
        kind: Kind,
        carries_floods: bool,
        picked_bytes: usize,
        sessions: &mut SessionTable,
    ) -> Option<CarryTarget> {
        let Some(marks) = sessions.marks_at(header.session, header.sequence) else {
            let flood = sessions.first_of_more_detached(header.session, header.sequence)?;
            return Some(CarryTarget { queue: self.policy.queues.heads(flood), role: Role::Head });
        };
        let is_pinned = marks.pins & self.policy.pins() != 0 && kind != Kind::Pinned;
        if is_pinned {
            let queue = self.policy.queues.pinned((marks.pins & self.policy.pins()).trailing_zeros() as usize);
            // The packets of each pin can begin a page of their own.
            let bytes = picked_bytes + HEADER_BYTES_MAX + header.captured_len as usize;
            let pages = u32::try_from(pages_of(bytes)).ok()? + self.policy.pins().count_ones();
            if self.policy.pins_have_room(pages) {
                return Some(CarryTarget { queue, role: Role::Pinned });
            }
        }
        let has_left = kind.flood() != 0 && marks.flood == SessionMarks::LEFT_FLOOD;
        let needed = if kind.has_starts() && has_left {
            true
        } else if kind.has_starts() && (marks.kept_with() == 0 || carries_floods) {
            sessions.needs_start(header.session, header.sequence, self.policy.clock.now())
        } else {
            // Every session keeps its very first packet while others are stored.
            sessions.is_first_of_more(header.session, header.sequence)
        };
        // Later packets of a pinned session may find room where its first one found none, so the first is carried
        // forward.
        let needed = needed || (is_pinned && sessions.is_first(header.session, header.sequence));
        needed.then(|| CarryTarget { queue: self.policy.queues.heads(marks.kept_with()), role: Role::Head })
    }

    /// Writes the packets that were picked from an evicted segment to their queues.
    ///
    /// It evicts nothing else. From the first packet on that does not fit into the free pages, the rest is lost and
    /// counted.
    fn carry_forward(&mut self, sessions: &mut SessionTable) -> Volume {
        let mut carried = Volume::default();
        let mut heads_bytes = 0;
        let mut heads = std::mem::take(&mut self.heads);
        for (header, to, data) in heads.picked() {
            let record_bytes_max = HEADER_BYTES_MAX + data.len();
            if !self.continues(to.queue, header, record_bytes_max) {
                self.seal(to.queue);
            }
            if !self.has_room(to.queue, record_bytes_max, 0) {
                break;
            }
            let record_bytes = self.write(to.queue, header, data);
            if to.role == Role::Head {
                heads_bytes += record_bytes as u64;
            }
            if to.role != Role::Younger {
                sessions.packet_kept(header.session, header.sequence, data.len() as u64);
            }
            carried.add(data.len() as u64);
        }
        let lost_until = heads.finish(carried, heads_bytes, sessions);
        self.lost_until = self.lost_until.max(lost_until);
        self.heads = heads;
        carried
    }
}

/// Counts the eviction of the packets of a segment before `younger` in their sessions.
///
/// If no packet may be carried forward (`may_carry`), all packets are recorded as lost, except the first of each
/// session. Returns of how many packets it has to be decided whether they are lost. Packets of a session that has lost
/// its entry are not among them, except for its first. In a flood of single packets these are nearly all, so that its
/// segments are read only once.
fn report_evicted(
    view: SegmentView,
    stream: &Stream<'_>,
    may_carry: bool,
    younger: u64,
    sessions: &mut SessionTable,
) -> u32 {
    let mut undecided = 0;
    let mut outlines = RecordOutlines::new(view, stream);
    if sessions.are_few() {
        while let Some(RecordOutline { session, sequence, captured_len, .. }) = outlines.next()
            && sequence < younger
        {
            undecided += u32::from(sessions.packet_evicted(session, sequence, u64::from(captured_len), may_carry));
        }
        return undecided;
    }
    // Sessions are scattered in memory, so the entries of several records are prefetched together.
    let mut ahead = [(SessionSlot(0), 0, 0); RECORDS_AHEAD];
    loop {
        let mut count = 0;
        while count < RECORDS_AHEAD
            && let Some(RecordOutline { session, sequence, captured_len, .. }) = outlines.next()
            && sequence < younger
        {
            sessions.prefetch_counts(session);
            ahead[count] = (session, sequence, captured_len);
            count += 1;
        }
        for &(session, sequence, captured_len) in &ahead[..count] {
            undecided += u32::from(sessions.packet_evicted(session, sequence, u64::from(captured_len), may_carry));
        }
        if count < RECORDS_AHEAD {
            return undecided;
        }
    }
}
