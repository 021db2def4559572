//! The starts of sessions that outlive their rank: carried forward when their segment is evicted.
//!
//! A session that is open for days, or whose last packets are younger than its first ones can be, keeps its first
//! packets (those of rank 0, about 512 bytes) as long as it lives or anything else of it is left. What that costs is
//! counted, and bounded: a share of the store, beyond which sessions lose their starts, which is counted too.

use super::cursor::{Cursor, Stream};
use super::record::{HEADER_BYTES_MAX, RecordHeader};
use super::segment::SegmentView;
use crate::counters::{Carried, Volume};
use crate::session::Table;
use crate::time::Timestamp;

/// Records that are picked from one segment at most.
const PICKED_MAX: usize = 4096;

/// The writer's notes on carried starts.
#[derive(Debug, Default)]
pub(super) struct Heads {
    limit_bytes: u64,
    bytes: u64,
    carried: Carried,
    /// Records picked from the segment that is being evicted, and their bytes one after another.
    picked: Vec<RecordHeader>,
    data: Vec<u8>,
    packet: Vec<u8>,
}

impl Heads {
    pub(super) fn new(limit_bytes: u64, segment_bytes: usize) -> Self {
        Self {
            limit_bytes,
            picked: Vec::with_capacity(PICKED_MAX),
            data: Vec::with_capacity(segment_bytes),
            packet: Vec::with_capacity(super::PACKET_BYTES_MAX),
            ..Self::default()
        }
    }

    pub(super) fn carried(&self) -> Carried {
        self.carried
    }

    /// A segment of carried starts was evicted.
    pub(super) fn released(&mut self, len_bytes: u64) {
        self.bytes = self.bytes.saturating_sub(len_bytes);
    }

    /// Copies what must not go from a segment that is about to. Returns the latest time of what goes.
    pub(super) fn pick(
        &mut self,
        stream: &Stream<'_>,
        view: SegmentView,
        sessions: &mut Table,
        now: Timestamp,
    ) -> Timestamp {
        self.picked.clear();
        self.data.clear();
        let mut lost_until = Timestamp::MIN;
        let mut cursor = Cursor::new(view);
        while let Ok(Some(record)) = cursor.next(stream) {
            let header = record.header;
            if sessions.needs_start(header.session, header.sequence, now) {
                if self.fits(&header) && cursor.data(stream, &view, &record, &mut self.packet).is_ok() {
                    self.picked.push(header);
                    self.data.extend_from_slice(&self.packet);
                    continue;
                }
                self.carried.lost += 1;
            }
            sessions.lost_start(header.session, header.sequence);
            lost_until = lost_until.max(header.time);
        }
        lost_until
    }

    fn fits(&self, header: &RecordHeader) -> bool {
        let len = header.captured_len as usize;
        let taken = self.bytes + (self.data.len() + len + (self.picked.len() + 1) * HEADER_BYTES_MAX) as u64;
        self.picked.len() < self.picked.capacity()
            && self.data.len() + len <= self.data.capacity()
            && taken <= self.limit_bytes
    }

    /// What was picked.
    pub(super) fn picked(&self) -> impl Iterator<Item = (&RecordHeader, &[u8])> {
        let mut rest = &self.data[..];
        self.picked.iter().map(move |header| {
            let (data, after) = rest.split_at(header.captured_len as usize);
            rest = after;
            (header, data)
        })
    }

    /// `carried` of what was picked found room again.
    pub(super) fn finish(&mut self, carried: Volume, sessions: &mut Table) {
        let written = usize::try_from(carried.packets).unwrap_or(usize::MAX).min(self.picked.len());
        for header in &self.picked[written..] {
            self.carried.lost += 1;
            sessions.lost_start(header.session, header.sequence);
        }
        self.bytes += carried.bytes + carried.packets * HEADER_BYTES_MAX as u64 / 2;
        self.carried.volume += carried;
        self.picked.clear();
        self.data.clear();
    }
}
