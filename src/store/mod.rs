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

mod heads;
mod pages;
pub mod rank;
pub mod record;
pub mod retention;
mod segment;

use std::sync::Arc;

use heads::Heads;
pub use pages::Gone;
use pages::{PAGE_COST_BYTES, PageId, Pages, Tail};
pub use rank::Rank;
use record::{HEADER_BYTES_MAX, PACKET_BYTES_MAX, Previous, RecordHeader};
use retention::{Clock, Policy};
use segment::Slot;
pub use segment::{Cursor, RecordAt, SegmentId, SegmentView};

use crate::counters::{Carried, Volume};
use crate::memory::Lock;
use crate::session::Table;
use crate::time::Timestamp;

/// Pages of a store for each entry of its table of segments.
const PAGES_PER_SEGMENT_SLOT: u32 = 4;
/// Bytes that one entry of the table of segments costs, the writer's notes included.
const SLOT_COST_BYTES: usize = size_of::<Slot>() + 16;
/// What readers see of a store.
#[derive(Debug)]
pub struct Segments {
    pages: Pages,
    slots: Box<[Slot]>,
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

    /// Reads a segment from its start.
    pub fn cursor(&self, view: SegmentView) -> Cursor {
        Cursor::new(view)
    }

    /// Lets a cursor go on to what was written since it was made; [`Gone`] if the segment was evicted.
    pub fn follow(&self, cursor: &mut Cursor) -> Result<(), Gone> {
        cursor.follow(self.slots.get(cursor.segment().id.0 as usize).ok_or(Gone)?)
    }

    /// The next record; [`Gone`] if the segment was evicted meanwhile.
    pub fn next(&self, cursor: &mut Cursor) -> Result<Option<RecordAt>, Gone> {
        let slot = self.slots.get(cursor.segment().id.0 as usize).ok_or(Gone)?;
        cursor.next(&self.pages, slot)
    }

    /// Puts the bytes of a packet into `out`, which never holds more than [`PACKET_BYTES_MAX`].
    pub fn data(&self, cursor: &Cursor, record: &RecordAt, out: &mut Vec<u8>) -> Result<(), Gone> {
        let slot = self.slots.get(cursor.segment().id.0 as usize).ok_or(Gone)?;
        cursor.data(&self.pages, slot, record, out)
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

/// One queue for each rank, and one for the starts of sessions that were carried forward.
const QUEUES: usize = Rank::COUNT + 1;
/// The queue of carried starts.
const HEADS: QueueId = QueueId(Rank::COUNT);

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct QueueId(usize);

impl QueueId {
    /// The queue of a rank.
    fn of(rank: Rank) -> Self {
        Self(rank.index())
    }

    /// The rank of the packets in it.
    fn rank(self) -> Rank {
        if self == HEADS { Rank::START } else { Rank(u8::try_from(self.0).unwrap_or(u8::MAX)) }
    }

    /// Whether starts of sessions lie in it.
    fn has_starts(self) -> bool {
        self.rank() == Rank::START
    }
}

/// The segments of one rank, oldest first, linked through `Store::following`.
#[derive(Debug, Default)]
struct Queue {
    head: Option<SegmentId>,
    last: Option<SegmentId>,
    open: Option<Open>,
}

/// The writer.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Segments>,
    free_pages: Vec<PageId>,
    free_slots: Vec<SegmentId>,
    queues: [Queue; QUEUES],
    heads: Heads,
    following: Box<[Option<SegmentId>]>,
    opened_ticks_ns: Box<[u64]>,
    weights: [f64; QUEUES],
    clock: Clock,
    segment_bytes: usize,
    retained: Volume,
    evicted: Volume,
    lost_until: Option<Timestamp>,
}

impl Store {
    /// The smallest memory a store works in: each rank has a page, and the longest packet fits beside them.
    pub const BYTES_MIN: u64 = ((Rank::COUNT + 2 * PACKET_BYTES_MAX / pages::PAGE_BYTES) * PAGE_COST_BYTES) as u64;

    /// Takes `bytes` of memory, all of it now; at least [`BYTES_MIN`](Self::BYTES_MIN).
    ///
    /// # Errors
    ///
    /// When the system has not that much to give.
    pub fn new(bytes: u64, policy: &Policy, lock: Lock) -> std::io::Result<Self> {
        let per_page = (PAGE_COST_BYTES + SLOT_COST_BYTES / PAGES_PER_SEGMENT_SLOT as usize) as u64;
        let pages = u32::try_from(bytes.max(Self::BYTES_MIN) / per_page).unwrap_or(u32::MAX - 1);
        let slots = pages / PAGES_PER_SEGMENT_SLOT;
        let table: Box<[Slot]> = (0..slots).map(|_| Slot::default()).collect();
        table.iter().for_each(Slot::free);
        Ok(Self {
            shared: Arc::new(Segments { pages: Pages::new(pages, lock)?, slots: table }),
            free_pages: (0..pages).rev().map(PageId).collect(),
            free_slots: (0..slots).rev().map(SegmentId).collect(),
            queues: std::array::from_fn(|_| Queue::default()),
            following: vec![None; slots as usize].into(),
            opened_ticks_ns: vec![0; slots as usize].into(),
            weights: queue_weights(policy),
            heads: Heads::new(bytes / HEADS_SHARE, segment_bytes(bytes)),
            clock: Clock::default(),
            segment_bytes: segment_bytes(bytes),
            retained: Volume::default(),
            evicted: Volume::default(),
            lost_until: None,
        })
    }

    /// What readers see.
    pub fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.shared)
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
    pub fn append(&mut self, header: &RecordHeader, data: &[u8], rank: Rank, sessions: &mut Table) {
        self.clock.advance(header.time);
        let queue = QueueId::of(rank);
        let record_bytes_max = HEADER_BYTES_MAX + data.len();
        if !self.continues(queue, header, record_bytes_max) {
            self.seal(queue);
        }
        self.make_room(queue, record_bytes_max, sessions);
        self.write(queue, header, data);
    }

    /// Writes a record for which there is room.
    fn write(&mut self, queue: QueueId, header: &RecordHeader, data: &[u8]) {
        let mut open = self.queues[queue.0].open.take().unwrap_or_else(|| self.begin(queue, header));
        let encoded = record::encode(header, &open.previous);
        self.extend(&mut open, encoded.bytes().len() + data.len());
        open.tail.append(&self.shared.pages, encoded.bytes());
        open.tail.append(&self.shared.pages, data);
        open.len_bytes += encoded.bytes().len() + data.len();
        self.shared.slots[open.id.0 as usize].publish(header, open.len_bytes as u64);
        open.previous = header.as_previous();
        self.queues[queue.0].open = Some(open);
        self.retained.add(u64::from(header.captured_len));
    }

    /// Whether the open segment of a queue can take the record; true when there is none.
    fn continues(&self, queue: QueueId, header: &RecordHeader, record_bytes_max: usize) -> bool {
        self.queues[queue.0].open.as_ref().is_none_or(|open| {
            open.len_bytes + record_bytes_max <= self.segment_bytes
                && record::fits(&open.previous, header.time, header.sequence)
        })
    }

    fn seal(&mut self, queue: QueueId) {
        self.queues[queue.0].open = None;
    }

    /// Whether a record can be written without evicting anything.
    fn has_room(&self, queue: QueueId, record_bytes_max: usize) -> bool {
        let open = self.queues[queue.0].open.as_ref();
        let room = open.map_or(0, |open| open.tail.room());
        let pages = segment::pages_of(record_bytes_max.saturating_sub(room));
        self.free_pages.len() >= pages && (open.is_some() || !self.free_slots.is_empty())
    }

    /// Evicts until the record fits. Its own queue's open segment can be among what goes.
    fn make_room(&mut self, queue: QueueId, record_bytes_max: usize, sessions: &mut Table) {
        while !self.has_room(queue, record_bytes_max) {
            if !self.evict_one(sessions) {
                debug_assert!(false, "a store smaller than its largest packet");
                return;
            }
        }
    }

    /// Begins a segment at the end of a queue. There is a free slot and a free page.
    fn begin(&mut self, queue: QueueId, header: &RecordHeader) -> Open {
        let (Some(id), Some(page)) = (self.free_slots.pop(), self.free_pages.pop()) else {
            unreachable!("make_room left a slot and a page");
        };
        let previous = Previous { time: header.time, sequence: header.sequence.wrapping_sub(1), interface: None };
        self.shared.slots[id.0 as usize].open(queue.rank(), page, previous.time, previous.sequence);
        self.opened_ticks_ns[id.0 as usize] = self.clock.ticks_ns();
        self.following[id.0 as usize] = None;
        let queue = &mut self.queues[queue.0];
        match queue.last.replace(id) {
            Some(last) => self.following[last.0 as usize] = Some(id),
            None => queue.head = Some(id),
        }
        Open { id, tail: Tail::new(page), previous, len_bytes: 0 }
    }

    /// Links the pages that `bytes` more bytes need behind the segment's last.
    fn extend(&mut self, open: &mut Open, bytes: usize) {
        let mut last = open.tail.page();
        for _ in 0..segment::pages_of(bytes.saturating_sub(open.tail.room())) {
            let Some(page) = self.free_pages.pop() else { unreachable!("make_room left enough pages") };
            self.shared.pages.link(last, page);
            last = page;
        }
    }

    /// Frees the segment that counts least; false when there is none.
    fn evict_one(&mut self, sessions: &mut Table) -> bool {
        let now = self.clock.ticks_ns();
        let mut victim = None;
        let mut highest = -1.0;
        for (i, queue) in self.queues.iter().enumerate() {
            let Some(head) = queue.head else { continue };
            let age_ns = now - self.opened_ticks_ns[head.0 as usize];
            #[allow(clippy::cast_precision_loss, reason = "ages are compared, not counted")]
            let score = (age_ns as f64 + 1.0) * self.weights[i];
            if score > highest {
                highest = score;
                victim = Some((QueueId(i), head));
            }
        }
        let Some((queue, id)) = victim else { return false };
        self.evict(queue, id, sessions);
        true
    }

    fn evict(&mut self, from: QueueId, id: SegmentId, sessions: &mut Table) {
        let queue = &mut self.queues[from.0];
        if queue.open.as_ref().is_some_and(|open| open.id == id) {
            queue.open = None;
        }
        queue.head = self.following[id.0 as usize];
        if queue.head.is_none() {
            queue.last = None;
        }
        let slot = &self.shared.slots[id.0 as usize];
        let Some(view) = slot.view(id) else { unreachable!("only segments are queued") };
        self.tell_evicted(view, slot, sessions);
        let mut lost_until = view.newest;
        if from.has_starts() {
            lost_until = self.heads.pick(&self.shared.pages, slot, view, sessions, self.clock.now());
        }
        if from == HEADS {
            self.heads.released(view.len_bytes);
        }
        slot.free();
        self.free_pages_of(&view);
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

    /// Tells the sessions of all packets of a segment. Sessions lie anywhere in memory, so they are asked for a few records
    /// ahead.
    fn tell_evicted(&self, view: SegmentView, slot: &Slot, sessions: &mut Table) {
        let mut cursor = Cursor::new(view);
        let mut ahead = [RecordHeader::EMPTY; RECORDS_AHEAD];
        loop {
            let mut count = 0;
            while count < RECORDS_AHEAD
                && let Ok(Some(record)) = cursor.next(&self.shared.pages, slot)
            {
                sessions.expect(record.header.session);
                ahead[count] = record.header;
                count += 1;
            }
            for header in &ahead[..count] {
                sessions.evicted(header.session, header.sequence, u64::from(header.captured_len));
            }
            if count < RECORDS_AHEAD {
                return;
            }
        }
    }

    /// Writes the starts of sessions that were picked from an evicted segment into the queue of heads.
    ///
    /// They take no more than the segment has freed; where they would, or where there are too many, the session loses its
    /// start, which is counted.
    fn carry_forward(&mut self, sessions: &mut Table) -> Volume {
        let mut carried = Volume::default();
        let mut heads = std::mem::take(&mut self.heads);
        for (header, data) in heads.picked() {
            let record_bytes_max = HEADER_BYTES_MAX + data.len();
            if !self.continues(HEADS, header, record_bytes_max) {
                self.seal(HEADS);
            }
            if !self.has_room(HEADS, record_bytes_max) {
                break;
            }
            self.write(HEADS, header, data);
            sessions.kept(header.session, data.len() as u64);
            carried.add(data.len() as u64);
        }
        heads.finish(carried, sessions);
        self.heads = heads;
        carried
    }

    fn free_pages_of(&mut self, view: &SegmentView) {
        let count = segment::pages_of(usize::try_from(view.len_bytes).unwrap_or(usize::MAX)).max(1);
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
    }
}

/// Records of an evicted segment that are read before their sessions are told.
const RECORDS_AHEAD: usize = 32;
/// The part of a store that carried starts may take, as a divisor.
const HEADS_SHARE: u64 = 8;

/// The weight of each queue against age. Carried starts count twice: each time one is evicted is a chance to find out that
/// nothing else is left of its session.
fn queue_weights(policy: &Policy) -> [f64; QUEUES] {
    let ranks = policy.weights();
    std::array::from_fn(|i| if i == HEADS.0 { 2.0 * ranks[0] } else { ranks[i] })
}

/// Bytes after which a segment is sealed, for a store of `bytes`: small enough that the oldest one of each rank is a
/// small part of the whole, large enough that its notes are.
fn segment_bytes(bytes: u64) -> usize {
    usize::try_from((bytes / 512).next_power_of_two().clamp(64 << 10, 256 << 10)).unwrap_or(64 << 10)
}

#[cfg(test)]
mod tests;
