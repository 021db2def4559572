//! What must not go with its segment: the starts of sessions that outlive their rank, and the packets of pinned sessions.
//!
//! A session that is open for days, or whose last packets are younger than its first ones can be, keeps its first
//! packets (those of rank 0, about 512 bytes) as long as it lives or anything else of it is left: they are *carried forward*
//! into a queue of their own. What that costs is counted, and bounded: a share of the store, beyond which sessions lose their
//! starts, which is counted too. In the same way a pin gets what is already there of its sessions, when it would go.

use super::Store;
use super::cursor::{Cursor, RecordAt, Stream};
use super::queues::{Kind, QueueId};
use super::record::{HEADER_BYTES_MAX, RecordHeader};
use super::segment::{self, SegmentView};
use crate::session::SessionTable;
use base::counters::{Carried, Volume};
use base::time::Timestamp;

/// A flood that fills its share in less time is none of sessions that will be missed.
const FLOOD_NS_MAX: u64 = 60_000_000_000;
/// Records that are picked from one segment at most.
const PICKED_MAX: usize = 8192;

/// Where a packet goes that must not be lost with its segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) queue: QueueId,
    pub(super) is_head: bool,
}

/// The writer's notes on what it carries.
#[derive(Debug, Default)]
pub(super) struct Heads {
    limit_bytes: u64,
    /// Bytes of the segments of carried starts.
    bytes: u64,
    carried: Carried,
    /// Records picked from the segment that is being evicted, and their bytes one after another.
    picked: Vec<(RecordHeader, Target)>,
    picked_heads: Volume,
    picked_pinned_bytes: usize,
    data: Vec<u8>,
    packet: Vec<u8>,
}

impl Heads {
    pub(super) fn new(limit_bytes: u64, segment_bytes: usize) -> Self {
        Self {
            limit_bytes,
            picked: Vec::with_capacity(PICKED_MAX),
            // A segment can be longer than that by one packet.
            data: Vec::with_capacity(segment_bytes + super::PACKET_BYTES_MAX),
            packet: Vec::with_capacity(super::PACKET_BYTES_MAX),
            ..Self::default()
        }
    }

    pub(super) fn carried(&self) -> Carried {
        self.carried
    }

    /// Whether a segment of so many bytes is within the limit.
    pub(super) fn has_room(&self, len_bytes: usize) -> bool {
        self.bytes + len_bytes as u64 <= self.limit_bytes
    }

    /// Carried starts were taken over from another store.
    pub(super) fn took(&mut self, len_bytes: u64) {
        self.bytes += len_bytes;
    }

    /// Counts on from what another store has counted.
    pub(super) fn go_on_counting(&mut self, carried: Carried) {
        self.carried.volume += carried.volume;
        self.carried.lost += carried.lost;
    }

    /// A segment of carried starts was evicted.
    pub(super) fn released(&mut self, len_bytes: u64) {
        self.bytes = self.bytes.saturating_sub(len_bytes);
    }

    /// Begins with another segment.
    pub(super) fn begin(&mut self) {
        self.picked.clear();
        self.picked_heads = Volume::default();
        self.picked_pinned_bytes = 0;
        self.data.clear();
    }

    /// Copies a packet; false if there is no room for it.
    pub(super) fn pick(&mut self, to: Target, cursor: &Cursor, record: &RecordAt, stream: &Stream<'_>) -> bool {
        let header = record.header;
        if !self.fits(&header, to) || cursor.data(stream, cursor.segment(), record, &mut self.packet).is_err() {
            return false;
        }
        self.picked.push((header, to));
        self.data.extend_from_slice(&self.packet);
        if to.is_head {
            self.picked_heads.add(self.packet.len() as u64);
        } else {
            self.picked_pinned_bytes += HEADER_BYTES_MAX + self.packet.len();
        }
        true
    }

    fn fits(&self, header: &RecordHeader, to: Target) -> bool {
        let len = header.captured_len as usize;
        let heads = self.picked_heads;
        let taken = self.bytes + heads.bytes + len as u64 + (heads.packets + 1) * HEADER_BYTES_MAX as u64;
        self.picked.len() < self.picked.capacity()
            && self.data.len() + len <= self.data.capacity()
            && (!to.is_head || taken <= self.limit_bytes)
    }

    /// Packets had to go that should have stayed.
    pub(super) fn lost(&mut self, packets: u64) {
        self.carried.lost += packets;
    }

    /// What was picked.
    pub(super) fn picked(&self) -> impl Iterator<Item = (&RecordHeader, Target, &[u8])> {
        let mut rest = &self.data[..];
        self.picked.iter().map(move |(header, to)| {
            let (data, after) = rest.split_at(header.captured_len as usize);
            rest = after;
            (header, *to, data)
        })
    }

    /// Bytes that were picked for pins, at most.
    pub(super) fn pinned_bytes(&self) -> usize {
        self.picked_pinned_bytes
    }

    /// `carried` of what was picked found room again, that of starts in `heads_bytes`. Returns the latest time of what did not.
    pub(super) fn finish(
        &mut self,
        carried: Volume,
        heads_bytes: u64,
        sessions: &mut SessionTable,
    ) -> Option<Timestamp> {
        let written = usize::try_from(carried.packets).unwrap_or(usize::MAX).min(self.picked.len());
        for (header, _) in &self.picked[written..] {
            self.carried.lost += 1;
            sessions.packet_lost(header.session, header.sequence);
            sessions.lost_start(header.session, header.sequence);
        }
        let lost_until = self.picked[written..].iter().map(|(header, _)| header.time).max();
        self.bytes += heads_bytes;
        self.carried.volume += carried;
        self.begin();
        lost_until
    }
}

impl Store {
    /// Copies what must not go from a segment that is about to. Returns the latest time of what goes.
    pub(super) fn pick(
        &mut self,
        view: SegmentView,
        stream: &Stream<'_>,
        kind: Kind,
        sessions: &mut SessionTable,
    ) -> Timestamp {
        let mut heads = std::mem::take(&mut self.heads);
        heads.begin();
        let mut lost_until = Timestamp::MIN;
        // The same for all records of the segment, or else a session could lose its first packet and keep those behind it.
        let age_ns = self.clock.ticks_ns() - self.opened_ticks_ns[view.id.0 as usize];
        let carries_floods = age_ns >= FLOOD_NS_MAX;
        let mut cursor = Cursor::new(view);
        while let Ok(Some(record)) = cursor.next(stream) {
            let header = record.header;
            if let Some(to) = self.needed(&header, kind, carries_floods, heads.pinned_bytes(), sessions) {
                if heads.pick(to, &cursor, &record, stream) {
                    continue;
                }
                heads.lost(1);
            }
            sessions.packet_lost(header.session, header.sequence);
            if kind.has_starts() || sessions.is_first(header.session, header.sequence) {
                sessions.lost_start(header.session, header.sequence);
            }
            lost_until = lost_until.max(header.time);
        }
        self.heads = heads;
        lost_until
    }

    /// Where a packet of an evicted segment has to go, if it must not be lost: to its session's pin, or to the carried starts.
    /// `picked_bytes` were picked for pins before it.
    ///
    /// A flood that fills its share in less than a minute loses the starts of sessions that live, but for their first packets. A session
    /// that turned out to be a conversation is of no flood any more.
    fn needed(
        &self,
        header: &RecordHeader,
        kind: Kind,
        carries_floods: bool,
        picked_bytes: usize,
        sessions: &SessionTable,
    ) -> Option<Target> {
        let marks = sessions.marks_at(header.session, header.sequence)?;
        let is_pinned = marks.pins & self.pins != 0 && kind != Kind::Pinned;
        if is_pinned {
            let queue = self.queues.pinned((marks.pins & self.pins).trailing_zeros() as usize);
            // What each pin gets can begin a page of its own.
            let bytes = picked_bytes + HEADER_BYTES_MAX + header.captured_len as usize;
            let pages = u32::try_from(segment::pages_of(bytes)).ok()? + self.pins.count_ones();
            if self.queues.pinned_pages() + pages <= self.pinned_pages_max {
                return Some(Target { queue, is_head: false });
            }
        }
        let needed = if kind.has_starts() && (marks.kept_with() == 0 || carries_floods) {
            sessions.needs_start(header.session, header.sequence, self.clock.now())
        } else {
            // Every session keeps its very first packet while others are left.
            sessions.is_first_of_more(header.session, header.sequence)
        };
        // What comes behind a pinned session's first packet may find the room that it did not.
        let needed = needed || (is_pinned && sessions.is_first(header.session, header.sequence));
        needed.then(|| Target { queue: self.queues.heads(marks.kept_with()), is_head: true })
    }

    /// Writes what was picked from an evicted segment where it has to go.
    ///
    /// It takes no more than the segment has freed; where it would, or where there is too much, the session loses it, which is
    /// counted.
    pub(super) fn carry_forward(&mut self, sessions: &mut SessionTable) -> Volume {
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
            if to.is_head {
                heads_bytes += record_bytes as u64;
            }
            sessions.packet_kept(header.session, data.len() as u64);
            carried.add(data.len() as u64);
        }
        let lost_until = heads.finish(carried, heads_bytes, sessions);
        self.lost_until = self.lost_until.max(lost_until);
        self.heads = heads;
        carried
    }
}
