//! The packet store: memory is cut into pages, pages are chained into segments, and segments are queued by rank.
//!
//! ```text
//!  rank 0 (first 512 B of sessions)   [segment] [segment] [segment] [segment] [open ▌   ]
//!  rank 1 (to 1.5 kB)                           [segment] [segment] [segment] [open ▌   ]
//!  rank 2 (to 3.5 kB)                                     [segment] [segment] [open ▌   ]
//!  …                                  older                                       newer
//! ```
//!
//! A packet is written once, into the open segment of its queue. A full segment is sealed, and its packets never change
//! again. When no pages are left, the oldest segment of one queue is evicted as a whole (`eviction` selects the queue).
//! Only then can packets move. The first packets of a session that is live, or of which others are stored, are carried
//! forward into a queue of their own (`heads`), so that sessions keep their start. Packets of pinned sessions move to
//! the queue of their pin.
//!
//! One thread owns the [`Store`] and writes; readers use [`Segments`]. No thread waits for another: a reader copies
//! bytes and then checks that the segment still exists. Invariants: a page belongs to one segment or is free; the
//! segments of a queue are in order of arrival; `stored = retained + evicted` in packets and bytes.

pub mod compress;
mod cursor;
mod eviction;
mod handover;
mod heads;
mod pages;
mod pinned;
mod queues;
pub mod rank;
pub mod record;
pub mod retention;
mod segment;
mod tally;
mod unpack;

use std::sync::Arc;

use compress::Packing;
pub use cursor::{Cursor, RecordAt, WINDOW_BYTES};
use cursor::{Outlines, Stream};
use eviction::{Shares, Survey};
use heads::Heads;
pub use pages::Gone;
use pages::{PAGE_COST_BYTES, PageId, Pages, Tail};
pub use queues::{KeptAs, Place};
use queues::{Kind, QueueId, Queues};
pub use rank::Rank;
use record::{HEADER_BYTES_MAX, Outline, PACKET_BYTES_MAX, Previous, RecordHeader};
use retention::{Clock, Policy};
use segment::Slot;
pub use segment::{SegmentId, SegmentView};
pub use tally::Tally;
use unpack::Unpacked;

use crate::session::{SessionSlot, SessionTable};
use base::counters::{Carried, CompressionTotals, Volume};
use base::memory::Lock;
use base::time::Timestamp;

/// Number of pages for each slot in the table of segments.
const PAGES_PER_SEGMENT_SLOT: u32 = 4;
/// Bytes per slot of the table of segments, including the entries of `Store::following` and `Store::opened_ticks_ns`.
const SLOT_COST_BYTES: usize = size_of::<Slot>() + 16;
/// The part of a store that readers use.
#[derive(Debug)]
pub struct Segments {
    pages: Pages,
    slots: Box<[Slot]>,
    unpacked: Unpacked,
}

impl Segments {
    /// All current segments, in no particular order.
    pub fn views(&self) -> impl Iterator<Item = SegmentView> + '_ {
        (0..).zip(&self.slots).filter_map(|(i, slot)| slot.view(SegmentId(i)))
    }

    /// The current segments that can contain packet `sequence` or a later one.
    pub fn views_from(&self, sequence: u64) -> impl Iterator<Item = SegmentView> + '_ {
        let reaching = move |(_, slot): &(u32, &Slot)| slot.reaches(sequence);
        (0..).zip(&self.slots).filter(reaching).filter_map(|(i, slot)| slot.view(SegmentId(i)))
    }

    /// Whether the memory of the pages is locked in RAM.
    pub fn are_locked(&self) -> bool {
        self.pages.are_locked()
    }

    /// Bytes of all pages, used and free.
    pub fn capacity_bytes(&self) -> u64 {
        self.pages.count() as u64 * pages::PAGE_BYTES as u64
    }

    /// A cursor at the start of a segment.
    pub fn cursor(&self, view: SegmentView) -> Cursor {
        Cursor::new(view)
    }

    /// Extends a cursor to records written since it was made; [`Gone`] if the segment was evicted.
    pub fn follow(&self, cursor: &mut Cursor) -> Result<(), Gone> {
        cursor.grow(self.slots.get(cursor.segment().id.0 as usize).ok_or(Gone)?)
    }

    /// The next record; `None` at the end, and [`Gone`] if the segment was evicted.
    pub fn next(&self, cursor: &mut Cursor) -> Result<Option<RecordAt>, Gone> {
        let slot = self.slots.get(cursor.segment().id.0 as usize).ok_or(Gone)?;
        loop {
            match cursor.next(&self.stream(slot, cursor.segment())) {
                Err(Gone) => cursor.follow(slot)?,
                next => return next,
            }
        }
    }

    /// Copies the bytes of a packet to `out`, at most [`PACKET_BYTES_MAX`]; [`Gone`] if the segment was evicted.
    pub fn data(&self, cursor: &Cursor, record: &RecordAt, out: &mut Vec<u8>) -> Result<(), Gone> {
        let mut view = *cursor.segment();
        let slot = self.slots.get(view.id.0 as usize).ok_or(Gone)?;
        loop {
            match cursor.data(&self.stream(slot, &view), &view, record, out) {
                Err(Gone) => view = view.follow(slot).ok_or(Gone)?,
                Ok(()) => return Ok(()),
            }
        }
    }

    fn stream<'a>(&'a self, slot: &'a Slot, view: &SegmentView) -> Stream<'a> {
        if view.is_packed() {
            Stream::Unpacked(&self.unpacked, &self.pages, slot)
        } else {
            Stream::Pages(&self.pages, slot)
        }
    }
}

/// The segment of a queue that is being written.
#[derive(Debug)]
struct Open {
    id: SegmentId,
    tail: Tail,
    previous: Previous,
    len_bytes: usize,
}

impl Open {
    /// Whether the segment can take a record of at most `record_bytes_max` bytes.
    #[inline]
    fn continues(&self, header: &RecordHeader, record_bytes_max: usize, segment_bytes: usize) -> bool {
        self.len_bytes + record_bytes_max <= segment_bytes && record::fits(&self.previous, header.time, header.sequence)
    }

    /// Writes a record. The segment has enough pages for it.
    #[inline]
    fn write(&mut self, shared: &Segments, header: &RecordHeader, data: &[u8]) {
        let encoded = record::encode(header, &self.previous);
        encoded.write(|(part, bytes)| self.tail.push(&shared.pages, part, bytes));
        self.tail.append(&shared.pages, data);
        self.len_bytes += encoded.bytes() + data.len();
        self.previous = header.as_previous();
        shared.slots[self.id.0 as usize].publish(header, self.len_bytes as u64);
    }
}

/// The writer of a store.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Segments>,
    free_pages: Vec<PageId>,
    free_slots: Vec<SegmentId>,
    queues: Queues,
    share_pages: Shares,
    heads: Heads,
    following: Box<[Option<SegmentId>]>,
    opened_ticks_ns: Box<[u64]>,
    clock: Clock,
    segment_bytes: usize,
    /// The state of compression; `None` when packets are not compressed.
    packing: Option<Box<Packing>>,
    /// Counts of earlier compression.
    packed_before: CompressionTotals,
    retained: Volume,
    evicted: Volume,
    lost_until: Option<Timestamp>,
    /// The active pins, one bit per pin, and the maximum number of pages that they may take together.
    pins: u16,
    pinned_pages_max: u32,
    tally: Arc<Tally>,
}

impl Store {
    /// The smallest memory in which a store works: one page for each rank, and pages for two packets of maximum length.
    pub const BYTES_MIN: u64 = ((Rank::COUNT + 2 * PACKET_BYTES_MAX / pages::PAGE_BYTES) * PAGE_COST_BYTES) as u64;

    /// Allocates `bytes` of memory, at least [`BYTES_MIN`](Self::BYTES_MIN). Pins may take `pinned_bytes` of it, and
    /// never more than half.
    ///
    /// # Errors
    ///
    /// When the system cannot provide the memory.
    pub fn new(bytes: u64, policy: &Policy, pinned_bytes: u64, lock: Lock) -> std::io::Result<Self> {
        let per_page = (PAGE_COST_BYTES + SLOT_COST_BYTES / PAGES_PER_SEGMENT_SLOT as usize) as u64;
        let bytes = bytes.saturating_sub(Queues::bytes(policy)).max(Self::BYTES_MIN);
        let pages = u32::try_from(bytes / per_page).unwrap_or(u32::MAX - 1);
        let slots = pages / PAGES_PER_SEGMENT_SLOT;
        let table: Box<[Slot]> = (0..slots).map(|_| Slot::default()).collect();
        table.iter().for_each(Slot::free);
        Ok(Self {
            shared: Arc::new(Segments { pages: Pages::new(pages, lock)?, slots: table, unpacked: Unpacked::default() }),
            free_pages: (0..pages).rev().map(PageId).collect(),
            free_slots: (0..slots).rev().map(SegmentId).collect(),
            queues: Queues::new(policy, pages),
            share_pages: shares(policy, pages),
            following: vec![None; slots as usize].into(),
            opened_ticks_ns: vec![0; slots as usize].into(),
            heads: Heads::new(u64::from(pages) * pages::PAGE_BYTES as u64 / HEADS_SHARE, segment_bytes(bytes)),
            clock: Clock::default(),
            segment_bytes: segment_bytes(bytes),
            packing: None,
            packed_before: CompressionTotals::default(),
            retained: Volume::default(),
            evicted: Volume::default(),
            lost_until: None,
            pins: 0,
            pinned_pages_max: u32::try_from(pinned_bytes / pages::PAGE_BYTES as u64).unwrap_or(u32::MAX).min(pages / 2),
            tally: Arc::new(Tally::new(policy.classes().len() + 1)),
        })
    }

    /// Applies the weights and shares of another policy. The classes stay as they are.
    pub fn set_policy(&mut self, policy: &Policy) {
        self.queues.set_policy(policy);
        let pages = self.shared.pages.count();
        self.share_pages = shares(policy, u32::try_from(pages).unwrap_or(u32::MAX));
    }

    /// The part of the store that readers use.
    pub fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.shared)
    }

    /// The clock of the store in nanoseconds: it follows packet timestamps, never runs backwards, and limits each jump.
    pub fn ticks_ns(&self) -> u64 {
        self.clock.ticks_ns()
    }

    /// Packets and captured bytes that are stored now.
    pub fn retained(&self) -> Volume {
        self.retained
    }

    /// Packets and captured bytes evicted so far.
    pub fn evicted(&self) -> Volume {
        self.evicted
    }

    /// Counts of packets that were carried forward.
    pub fn carried(&self) -> Carried {
        self.heads.carried()
    }

    /// The time of the newest packet that was evicted; all packets stored with a later time are still present.
    pub fn lost_until(&self) -> Option<Timestamp> {
        self.lost_until
    }

    /// Stores a packet, and evicts segments if it needs their room.
    pub fn append(&mut self, header: &RecordHeader, data: &[u8], place: Place, sessions: &mut SessionTable) {
        self.clock.advance(header.time);
        let record_bytes_max = HEADER_BYTES_MAX + data.len();
        let queue = match self.pinned(place.marks.pins, record_bytes_max) {
            Some(queue) => queue,
            None => self.queues.at(place),
        };
        // Nearly all records fit into the last page of the open segment.
        if let Some(open) = &mut self.queues[queue].open
            && record_bytes_max <= open.tail.room()
            && open.continues(header, record_bytes_max, self.segment_bytes)
        {
            open.write(&self.shared, header, data);
            return self.retained.add(u64::from(header.captured_len));
        }
        if !self.continues(queue, header, record_bytes_max) {
            self.seal(queue);
        }
        self.make_room(queue, record_bytes_max, sessions);
        self.write(queue, header, data);
    }

    /// Writes a record for which there is room, and returns its size in bytes.
    fn write(&mut self, queue: QueueId, header: &RecordHeader, data: &[u8]) -> usize {
        if self.queues[queue].open.is_none() {
            let open = self.begin(queue, header);
            self.queues[queue].open = Some(open);
        }
        let Some(open) = &self.queues[queue].open else { unreachable!("it was begun") };
        let record_bytes = record::bytes(header, &open.previous) + data.len();
        if record_bytes > open.tail.room() {
            self.extend(queue, open.tail.page(), record_bytes - open.tail.room());
        }
        let Some(open) = &mut self.queues[queue].open else { unreachable!("it was begun") };
        open.write(&self.shared, header, data);
        self.retained.add(u64::from(header.captured_len));
        record_bytes
    }

    /// Whether the open segment of a queue can take the record; true when no segment is open.
    fn continues(&self, queue: QueueId, header: &RecordHeader, record_bytes_max: usize) -> bool {
        let open = self.queues[queue].open.as_ref();
        open.is_none_or(|open| open.continues(header, record_bytes_max, self.segment_bytes))
    }

    fn seal(&mut self, queue: QueueId) {
        self.queues[queue].open = None;
    }

    /// Whether a record can be written without eviction such that `spare` pages remain free.
    fn has_room(&self, queue: QueueId, record_bytes_max: usize, spare: usize) -> bool {
        let open = self.queues[queue].open.as_ref();
        let room = open.map_or(0, |open| open.tail.room());
        let pages = segment::pages_of(record_bytes_max.saturating_sub(room));
        self.free_pages.len() >= pages + spare && (open.is_some() || !self.free_slots.is_empty())
    }

    /// Evicts segments until the record fits. The open segment of `queue` can be among them.
    fn make_room(&mut self, queue: QueueId, record_bytes_max: usize, sessions: &mut SessionTable) {
        while !self.has_room(queue, record_bytes_max, CARRIED_PAGES) {
            if self.take_packed() {
                self.pack_more();
                continue;
            }
            if !self.evict_one(sessions) {
                debug_assert!(false, "a store smaller than its largest packet");
                return;
            }
        }
    }

    /// Opens a segment at the end of a queue. A slot and a page are free.
    fn begin(&mut self, queue: QueueId, header: &RecordHeader) -> Open {
        self.pack_at_beginning();
        let (Some(id), Some(page)) = (self.free_slots.pop(), self.free_pages.pop()) else {
            unreachable!("make_room left a slot and a page");
        };
        let previous = Previous { time: header.time, sequence: header.sequence.wrapping_sub(1), interface: None };
        self.shared.slots[id.0 as usize].open(self.queues[queue].kind.rank(), page, previous.time, previous.sequence);
        self.opened_ticks_ns[id.0 as usize] = self.clock.ticks_ns();
        self.following[id.0 as usize] = None;
        self.queues.took(queue, 1);
        let queue = &mut self.queues[queue];
        match queue.last.replace(id) {
            Some(last) => self.following[last.0 as usize] = Some(id),
            None => queue.head = Some(id),
        }
        Open { id, tail: Tail::new(page), previous, len_bytes: 0 }
    }

    /// Appends the pages that `bytes` more bytes need to the open segment of a queue, whose last page is `last`.
    fn extend(&mut self, queue: QueueId, mut last: PageId, bytes: usize) {
        let more = segment::pages_of(bytes);
        for _ in 0..more {
            let Some(page) = self.free_pages.pop() else { unreachable!("make_room left enough pages") };
            self.shared.pages.link(last, page);
            last = page;
        }
        self.queues.took(queue, u32::try_from(more).unwrap_or(u32::MAX));
    }

    /// Evicts the segment with the lowest priority; false when there is none.
    fn evict_one(&mut self, sessions: &mut SessionTable) -> bool {
        let Some(victim) = self.survey().victim(self.share_pages) else { return false };
        self.evict(victim.queue, victim.segment, sessions);
        true
    }

    /// The current state of all queues.
    fn survey(&self) -> Survey {
        let now = self.clock.ticks_ns();
        Survey::new(&self.queues, |id| now - self.opened_ticks_ns[id.0 as usize])
    }

    fn evict(&mut self, from: QueueId, id: SegmentId, sessions: &mut SessionTable) {
        let queue = &mut self.queues[from];
        if queue.open.as_ref().is_some_and(|open| open.id == id) {
            queue.open = None;
        }
        queue.head = self.following[id.0 as usize];
        if queue.head.is_none() {
            queue.last = None;
        }
        let kind = queue.kind;
        let slot = &self.shared.slots[id.0 as usize];
        let Some(view) = slot.view(id) else { unreachable!("only segments are queued") };
        // The stream borrows the buffer of `packing` if the segment is compressed, so `packing` is taken out of `self`
        // until the segment is read.
        let mut packing = self.packing.take();
        let shared = Arc::clone(&self.shared);
        let stream = compress::stream_of(&shared, packing.as_deref_mut(), &view);
        let may_carry = kind.has_starts() || (self.pins != 0 && kind != Kind::Pinned);
        let firsts = tell_evicted(view, &stream, may_carry, sessions);
        let mut lost_until = view.newest;
        if may_carry || firsts > 0 {
            lost_until = self.pick(view, &stream, kind, sessions);
        }
        self.packing = packing;
        if let Some(packing) = &mut self.packing {
            packing.evicted(from, id);
        }
        if matches!(kind, Kind::Heads { .. }) {
            self.heads.released(view.len_bytes);
        }
        self.shared.slots[id.0 as usize].free();
        let pages = self.free_pages_of(&view);
        self.queues.gave(from, pages);
        self.free_slots.push(id);
        self.retained.packets -= view.packets;
        self.retained.bytes -= view.captured_bytes;
        let carried = self.carry_forward(sessions);
        self.evicted.packets += view.packets - carried.packets;
        self.evicted.bytes += view.captured_bytes - carried.bytes;
        if carried.packets < view.packets {
            self.lost_until = self.lost_until.max(Some(lost_until));
        }
    }

    /// Memory of classes and pins, as published for readers.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Publishes the memory of classes and pins for readers.
    pub fn publish_tally(&self) {
        self.tally.publish(&self.queues);
    }

    fn free_pages_of(&mut self, view: &SegmentView) -> u32 {
        let count = view.pages();
        let mut page = view.first_page();
        for i in 0..count {
            self.free_pages.push(page);
            if i + 1 < count {
                match self.shared.pages.next(page) {
                    Ok(next) => page = next,
                    Err(Gone) => unreachable!("a segment's pages are linked"),
                }
            }
        }
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// Counts the eviction of all packets of a segment in their sessions.
///
/// Sessions are scattered in memory, so their entries are prefetched for [`RECORDS_AHEAD`] records. If no packet may be
/// carried forward (`may_carry`), all packets are recorded as lost, except the first of each session, which is decided
/// later. Returns how many packets are the first of their session.
fn tell_evicted(view: SegmentView, stream: &Stream<'_>, may_carry: bool, sessions: &mut SessionTable) -> u32 {
    let mut firsts = 0;
    let mut outlines = Outlines::new(view, stream);
    let mut ahead = [(SessionSlot(0), 0, 0); RECORDS_AHEAD];
    loop {
        let mut count = 0;
        while count < RECORDS_AHEAD
            && let Some(Outline { session, sequence, captured_len, .. }) = outlines.next()
        {
            sessions.prefetch_counts(session);
            ahead[count] = (session, sequence, captured_len);
            count += 1;
        }
        for &(session, sequence, captured_len) in &ahead[..count] {
            let is_first = sessions.packet_evicted(session, sequence, u64::from(captured_len));
            if !is_first && !may_carry {
                sessions.packet_lost(session, sequence);
            }
            firsts += u32::from(is_first);
        }
        if count < RECORDS_AHEAD {
            return firsts;
        }
    }
}

fn shares(policy: &Policy, pages: u32) -> Shares {
    let [middle, bulk] = policy.share_pages(pages);
    [middle, bulk, pages / IMPORTANT_SHARE]
}

/// Number of records of an evicted segment that are read before their sessions are updated.
const RECORDS_AHEAD: usize = 32;
/// The part of the store that important packets may take, as a divisor.
const IMPORTANT_SHARE: u32 = 32;
/// Pages that are reserved for carried packets, because a compressed segment can free fewer pages than they need.
const CARRIED_PAGES: usize = 4;
/// The part of a store that carried starts may take, as a divisor.
const HEADS_SHARE: u64 = 8;

/// Size in bytes, from 64 to 256 KiB, at which a segment is sealed in a store of `bytes`. A segment is small compared
/// with the store, because it is evicted as a whole, and large compared with its slot.
fn segment_bytes(bytes: u64) -> usize {
    usize::try_from((bytes / 512).next_power_of_two().clamp(64 << 10, 256 << 10)).unwrap_or(64 << 10)
}

#[cfg(test)]
mod tests;
