//! Packets that survive the eviction of their segment: the starts of sessions, and packets of pinned sessions.
//!
//! A live conversation keeps its first packets (those of rank 0, about 512 bytes), and every session keeps its very
//! first packet while others are stored. When the segment of such packets is evicted, they are *carried forward* into a
//! separate queue. Their volume is counted, and limited to a share of the store. Beyond that limit sessions lose their
//! starts, which is counted too. In the same way, packets of pinned sessions move to the queue of their pin when their
//! segment is evicted.

use super::cursor::{Cursor, RecordAt, Stream};
use super::queues::QueueId;
use super::record::{HEADER_BYTES_MAX, PACKET_BYTES_MAX, RecordHeader};
use crate::session::SessionTable;
use base::counters::{CarriedTotals, Volume};
use base::time::Timestamp;

/// Maximum number of records that are picked from one segment.
const PICKED_MAX: usize = 8192;

/// Destination of a packet that survives the eviction of its segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct CarryTarget {
    pub(super) queue: QueueId,
    pub(super) role: Role,
}

/// Why a packet survives the eviction of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is a start that its session needs.
    Head,
    /// A pin protects its session.
    Pinned,
    /// It is in the younger half of a segment of which only the older half is evicted. It was not counted as evicted.
    Younger,
}

/// The packets that are being carried forward, and their counts.
#[derive(Debug, Default)]
pub(super) struct CarriedPackets {
    limit_bytes: u64,
    /// Bytes of all segments of carried starts.
    bytes: u64,
    carried: CarriedTotals,
    /// Records picked from the segment that is being evicted. Their bytes are in `data`, one packet after another.
    picked: Vec<(RecordHeader, CarryTarget)>,
    picked_heads: Volume,
    picked_pinned_bytes: usize,
    data: Vec<u8>,
    packet: Vec<u8>,
}

impl CarriedPackets {
    pub(super) fn new(limit_bytes: u64, segment_bytes: usize) -> Self {
        Self {
            limit_bytes,
            picked: Vec::with_capacity(PICKED_MAX),
            // A segment can exceed `segment_bytes` by one packet.
            data: Vec::with_capacity(segment_bytes + PACKET_BYTES_MAX),
            packet: Vec::with_capacity(PACKET_BYTES_MAX),
            ..Self::default()
        }
    }

    pub(super) fn carried(&self) -> CarriedTotals {
        self.carried
    }

    /// Whether a segment of `len_bytes` bytes of carried starts is within the limit.
    pub(super) fn has_room(&self, len_bytes: usize) -> bool {
        self.bytes + len_bytes as u64 <= self.limit_bytes
    }

    /// Adds the bytes of carried starts that were taken over from another store.
    pub(super) fn took(&mut self, len_bytes: u64) {
        self.bytes += len_bytes;
    }

    /// Adds the counts of another store.
    pub(super) fn go_on_counting(&mut self, carried: CarriedTotals) {
        self.carried.volume += carried.volume;
        self.carried.lost += carried.lost;
    }

    /// Subtracts the bytes of a segment of carried starts that was evicted.
    pub(super) fn released(&mut self, len_bytes: u64) {
        self.bytes = self.bytes.saturating_sub(len_bytes);
    }

    /// Discards the picked packets, before another segment is read.
    pub(super) fn begin(&mut self) {
        self.picked.clear();
        self.picked_heads = Volume::default();
        self.picked_pinned_bytes = 0;
        self.data.clear();
    }

    /// Copies a packet; false if there is no room for it, or if it cannot be read.
    pub(super) fn pick(&mut self, to: CarryTarget, cursor: &Cursor, record: &RecordAt, stream: &Stream<'_>) -> bool {
        let header = record.header;
        if !self.fits(&header, to) || cursor.data(stream, cursor.segment(), record, &mut self.packet).is_err() {
            return false;
        }
        self.picked.push((header, to));
        self.data.extend_from_slice(&self.packet);
        match to.role {
            Role::Head => self.picked_heads.add(self.packet.len() as u64),
            Role::Pinned => self.picked_pinned_bytes += HEADER_BYTES_MAX + self.packet.len(),
            Role::Younger => {}
        }
        true
    }

    fn fits(&self, header: &RecordHeader, to: CarryTarget) -> bool {
        let len = header.captured_len as usize;
        let heads = self.picked_heads;
        let taken = self.bytes + heads.bytes + len as u64 + (heads.packets + 1) * HEADER_BYTES_MAX as u64;
        self.picked.len() < self.picked.capacity()
            && self.data.len() + len <= self.data.capacity()
            && (to.role != Role::Head || taken <= self.limit_bytes)
    }

    /// Counts packets that should have been carried forward but found no room.
    pub(super) fn lost(&mut self, packets: u64) {
        self.carried.lost += packets;
    }

    /// The picked packets.
    pub(super) fn picked(&self) -> impl Iterator<Item = (&RecordHeader, CarryTarget, &[u8])> {
        let mut rest = &self.data[..];
        self.picked.iter().map(move |(header, to)| {
            let (data, after) = rest.split_at(header.captured_len as usize);
            rest = after;
            (header, *to, data)
        })
    }

    /// Upper bound of the bytes that were picked for pins.
    pub(super) fn pinned_bytes(&self) -> usize {
        self.picked_pinned_bytes
    }

    /// Ends an eviction. Of the picked packets, the first `carried` were written, with starts of `heads_bytes` bytes
    /// among them. Counts the others as lost, and returns their latest time.
    pub(super) fn finish(
        &mut self,
        carried: Volume,
        heads_bytes: u64,
        sessions: &mut SessionTable,
    ) -> Option<Timestamp> {
        let written = usize::try_from(carried.packets).unwrap_or(usize::MAX).min(self.picked.len());
        for (header, to) in &self.picked[written..] {
            self.carried.lost += 1;
            if to.role == Role::Younger {
                sessions.packet_evicted(header.session, header.sequence, u64::from(header.captured_len), true);
            }
            sessions.packet_lost(header.session, header.sequence);
        }
        let lost_until = self.picked[written..].iter().map(|(header, _)| header.time).max();
        self.bytes += heads_bytes;
        self.carried.volume += carried;
        self.begin();
        lost_until
    }
}
