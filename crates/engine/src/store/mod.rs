//! Kept packets: memory cut into pages, pages chained into segments, segments queued by rank.
//!
//! ```text
//!  rank 0 (first 512 B of sessions)   [segment] [segment] [segment] [segment] [open ▌   ]
//!  rank 1 (to 1.5 kB)                           [segment] [segment] [segment] [open ▌   ]
//!  rank 2 (to 3.5 kB)                                     [segment] [segment] [open ▌   ]
//!  …                                  older                                       newer
//! ```
//!
//! A packet is written once, into the open segment of its rank. A full segment is sealed and never changes again.
//! When pages run out, the oldest segment of one queue is evicted whole ([`retention`] says which). Only then may a packet
//! move: the first packets of a session that lives on, or of which more is left, are carried forward into a queue of
//! their own (`heads`), so that no session is ever without its start.
//!
//! One thread has the [`Store`] and writes; readers have [`Segments`]. Nobody waits for anybody: a reader copies bytes
//! out and then asks whether the segment was still there. What always holds: a page belongs to one segment or is
//! free; segments of a queue are in order of arrival; `stored = retained + evicted` in packets and bytes.

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

/// Pages of a store for each entry of its table of segments.
const PAGES_PER_SEGMENT_SLOT: u32 = 4;
/// Bytes that one entry of the table of segments costs, the writer's marks included.
const SLOT_COST_BYTES: usize = size_of::<Slot>() + 16;
/// What readers see of a store.
#[derive(Debug)]
pub struct Segments {
    pages: Pages,
    slots: Box<[Slot]>,
    unpacked: Unpacked,
}

impl Segments {
    /// All segments there are now, in no order.
    pub fn views(&self) -> impl Iterator<Item = SegmentView> + '_ {
        (0..).zip(&self.slots).filter_map(|(i, slot)| slot.view(SegmentId(i)))
    }

    /// Those of them that may have a packet of this place in the order of arrival, or a later one.
    pub fn views_from(&self, sequence: u64) -> impl Iterator<Item = SegmentView> + '_ {
        let reaching = move |(_, slot): &(u32, &Slot)| slot.reaches(sequence);
        (0..).zip(&self.slots).filter(reaching).filter_map(|(i, slot)| slot.view(SegmentId(i)))
    }

    /// Whether their memory is locked in RAM.
    pub fn are_locked(&self) -> bool {
        self.pages.are_locked()
    }

    /// Bytes of all pages there are, taken or free.
    pub fn capacity_bytes(&self) -> u64 {
        self.pages.count() as u64 * pages::PAGE_BYTES as u64
    }

    /// Reads a segment from its start.
    pub fn cursor(&self, view: SegmentView) -> Cursor {
        Cursor::new(view)
    }

    /// Lets a cursor go on to what was written since it was made; [`Gone`] if the segment was evicted.
    pub fn follow(&self, cursor: &mut Cursor) -> Result<(), Gone> {
        cursor.grow(self.slots.get(cursor.segment().id.0 as usize).ok_or(Gone)?)
    }

    /// The next record; [`Gone`] if the segment was evicted meanwhile.
    pub fn next(&self, cursor: &mut Cursor) -> Result<Option<RecordAt>, Gone> {
        let slot = self.slots.get(cursor.segment().id.0 as usize).ok_or(Gone)?;
        loop {
            match cursor.next(&self.stream(slot, cursor.segment())) {
                Err(Gone) => cursor.follow(slot)?,
                next => return next,
            }
        }
    }

    /// Puts the bytes of a packet into `out`, which never holds more than [`PACKET_BYTES_MAX`].
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

/// The segment of a rank that is being written.
#[derive(Debug)]
struct Open {
    id: SegmentId,
    tail: Tail,
    previous: Previous,
    len_bytes: usize,
}

impl Open {
    /// Whether it can take a record that has no more bytes than this.
    #[inline]
    fn continues(&self, header: &RecordHeader, record_bytes_max: usize, segment_bytes: usize) -> bool {
        self.len_bytes + record_bytes_max <= segment_bytes && record::fits(&self.previous, header.time, header.sequence)
    }

    /// Writes a record, for which there are pages.
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

/// The writer.
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
    /// Compression, if there is any.
    packing: Option<Box<Packing>>,
    /// What was compressed before.
    packed_before: CompressionTotals,
    retained: Volume,
    evicted: Volume,
    lost_until: Option<Timestamp>,
    /// The pins that hold, a bit each, and the pages they may take together.
    pins: u16,
    pinned_pages_max: u32,
    tally: Arc<Tally>,
}

impl Store {
    /// The smallest memory a store works in: each rank has a page, and the longest packet fits beside them.
    pub const BYTES_MIN: u64 = ((Rank::COUNT + 2 * PACKET_BYTES_MAX / pages::PAGE_BYTES) * PAGE_COST_BYTES) as u64;

    /// Takes `bytes` of memory, all of it now; at least [`BYTES_MIN`](Self::BYTES_MIN). Of them, pins may take `pinned_bytes`,
    /// and never more than half.
    ///
    /// # Errors
    ///
    /// When the system has not that much to give.
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

    /// Shortens by another policy from now on; its classes are those it had.
    pub fn set_policy(&mut self, policy: &Policy) {
        self.queues.set_policy(policy);
        let pages = self.shared.pages.count();
        self.share_pages = shares(policy, u32::try_from(pages).unwrap_or(u32::MAX));
    }

    /// What readers see.
    pub fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.shared)
    }

    /// The store's own time: with the packets' stamps, but never backwards and never in leaps.
    pub fn ticks_ns(&self) -> u64 {
        self.clock.ticks_ns()
    }

    /// What is there.
    pub fn retained(&self) -> Volume {
        self.retained
    }

    /// What was there.
    pub fn evicted(&self) -> Volume {
        self.evicted
    }

    /// The starts of sessions that were carried forward.
    pub fn carried(&self) -> Carried {
        self.heads.carried()
    }

    /// The time of the newest packet that was evicted: every packet newer than this is there.
    pub fn lost_until(&self) -> Option<Timestamp> {
        self.lost_until
    }

    /// Keeps a packet, evicting what must go for it.
    pub fn append(&mut self, header: &RecordHeader, data: &[u8], place: Place, sessions: &mut SessionTable) {
        self.clock.advance(header.time);
        let record_bytes_max = HEADER_BYTES_MAX + data.len();
        let queue = match self.pinned(place.marks.pins, record_bytes_max) {
            Some(queue) => queue,
            None => self.queues.at(place),
        };
        // Nearly all records fit into the page that is being filled.
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

    /// Writes a record for which there is room; its bytes.
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

    /// Whether the open segment of a queue can take the record; true when there is none.
    fn continues(&self, queue: QueueId, header: &RecordHeader, record_bytes_max: usize) -> bool {
        let open = self.queues[queue].open.as_ref();
        open.is_none_or(|open| open.continues(header, record_bytes_max, self.segment_bytes))
    }

    fn seal(&mut self, queue: QueueId) {
        self.queues[queue].open = None;
    }

    /// Whether a record can be written without evicting anything, so that `spare` pages are left.
    fn has_room(&self, queue: QueueId, record_bytes_max: usize, spare: usize) -> bool {
        let open = self.queues[queue].open.as_ref();
        let room = open.map_or(0, |open| open.tail.room());
        let pages = segment::pages_of(record_bytes_max.saturating_sub(room));
        self.free_pages.len() >= pages + spare && (open.is_some() || !self.free_slots.is_empty())
    }

    /// Evicts until the record fits. Its own queue's open segment can be among what goes.
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

    /// Begins a segment at the end of a queue. There is a free slot and a free page.
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

    /// Links the pages that `bytes` more bytes need behind a segment's last.
    fn extend(&mut self, queue: QueueId, mut last: PageId, bytes: usize) {
        let more = segment::pages_of(bytes);
        for _ in 0..more {
            let Some(page) = self.free_pages.pop() else { unreachable!("make_room left enough pages") };
            self.shared.pages.link(last, page);
            last = page;
        }
        self.queues.took(queue, u32::try_from(more).unwrap_or(u32::MAX));
    }

    /// Frees the segment that counts least; false when there is none.
    fn evict_one(&mut self, sessions: &mut SessionTable) -> bool {
        let Some(victim) = self.survey().victim(self.share_pages) else { return false };
        self.evict(victim.queue, victim.segment, sessions);
        true
    }

    /// All queues as they are now.
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
        // Compression steps aside meanwhile: what is read of the segment may lie in its buffer.
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

    /// What classes and pins have, as readers see it.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Lets readers see what classes and pins have.
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

/// Tells the sessions of all packets of a segment. Sessions lie anywhere in memory, so they are asked for a few records
/// ahead. Unless packets may be carried forward (`may_carry`), they are lost, but for the first of a session, of which it
/// is decided later. Returns how many of the packets are the first of a session.
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

/// Records of an evicted segment that are read before their sessions are told.
const RECORDS_AHEAD: usize = 32;
/// The part of the store that important packets may take, as a divisor.
const IMPORTANT_SHARE: u32 = 32;
/// Pages that only carried packets may take: what a compressed segment frees can be less than they need.
const CARRIED_PAGES: usize = 4;
/// The part of a store that carried starts may take, as a divisor.
const HEADS_SHARE: u64 = 8;

/// Bytes after which a segment is sealed, for a store of `bytes`: small enough that the oldest one of each rank is a
/// small part of the whole, large enough that its marks are.
fn segment_bytes(bytes: u64) -> usize {
    usize::try_from((bytes / 512).next_power_of_two().clamp(64 << 10, 256 << 10)).unwrap_or(64 << 10)
}

#[cfg(test)]
mod tests;
