//! Narrows a query to the sessions in which something may be found, before the packets are merged.
//!
//! The first pass reads every segment from start to end, which costs a fraction of the merge. It asks of each packet
//! whether its session is wanted. The merge then reads only the segments that may have packets of such sessions. A mask
//! of slots per segment says which these are; two slots can share a bit, so that the merge still checks each record.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use super::super::notes::SessionBits;
use super::narrowed::{Mask, Masks, Narrowed, OnlySessions, StoredPacket};
use super::{Packets, RECORDS_BETWEEN_LOOKS};
use base::packet::LinkType;
use base::time::Timestamp;
use engine::session::SessionArray;
use engine::store::record::RecordHeader;
use engine::store::{Cursor, RecordAt, SegmentEvicted, SegmentView};

impl Packets<'_> {
    /// Whether the query can be narrowed: packets on disk are read only once.
    pub fn can_narrow(&self) -> bool {
        self.disk.is_none() && self.search.is_none() && self.once.is_none()
    }

    /// Narrows the query to the sessions of packets for which `is_wanted` returned true. It is asked of all packets that
    /// match, those of one rank in order of arrival, and lower ranks before higher ones. Call it before the first packet
    /// was taken.
    pub fn narrow(&mut self, is_wanted: &mut dyn FnMut(&StoredPacket<'_>) -> bool) -> Narrowed {
        let mut narrowed = Narrowed::default();
        let mut segments = std::mem::take(&mut self.waiting);
        segments.sort_unstable_by_key(|(worker, view)| (*worker, view.rank.0, view.first_sequence()));
        let mut masks = Masks::new(segments.len(), self.history.workers.len());
        let (mut wanted, mut seen) = (SessionBits::new(self.history), SessionBits::new(self.history));
        for &(worker, view) in &segments {
            let mut mask = Mask::new(masks.words);
            let read = self.each_record(worker, view, &mut |header, link_type, data| {
                narrowed.packets += 1;
                mask.insert(header.session);
                seen.insert(worker, header.session);
                let slot = header.session;
                let packet = StoredPacket { worker, slot, arrival: header.sequence, link_type, data };
                if is_wanted(&packet) {
                    wanted.insert(worker, slot);
                    masks.wanted[worker].insert(slot);
                }
            });
            match read {
                Ok(true) => masks.add(worker, view, mask),
                Ok(false) => {
                    narrowed.interrupted = true;
                    self.summary.interrupted = true;
                    break;
                }
                // Its packets that were read may belong to wanted sessions, and are gone.
                Err(unread) => self.summary.overtaken += unread,
            }
        }
        if narrowed.interrupted {
            segments.clear();
        }
        segments.retain(|(worker, view)| masks.have_wanted(*worker, view));
        segments.sort_unstable_by_key(|(worker, view)| Reverse((view.oldest, *worker, view.id.0)));
        self.waiting = segments;
        narrowed.cut_sessions = self.cut_sessions(&seen);
        self.only = Some(OnlySessions::new(wanted, SessionBits::default()));
        narrowed
    }

    /// Passes the records of a segment that match the query. Returns whether it came to the end, or how many packets were
    /// evicted before.
    fn each_record(
        &mut self,
        worker: usize,
        view: SegmentView,
        each: &mut dyn FnMut(&RecordHeader, LinkType, &[u8]),
    ) -> Result<bool, u64> {
        self.each_stored(worker, view, |packets, cursor, record| {
            if !packets.is_in_window(worker, cursor, &record)? {
                return Ok(());
            }
            if packets.filter.is_some() {
                packets.notes.found(worker, &packets.history.workers[worker].sessions, &record.header);
            }
            if let Some(link_type) = packets.interface_of(&record.header).map(|interface| interface.link_type) {
                each(&record.header, link_type, &packets.data);
            }
            Ok(())
        })
    }

    /// Passes all records of a segment. Returns whether it came to the end, or how many packets were evicted before.
    pub(super) fn each_stored(
        &mut self,
        worker: usize,
        view: SegmentView,
        mut each: impl FnMut(&mut Self, &Cursor, RecordAt) -> Result<(), SegmentEvicted>,
    ) -> Result<bool, u64> {
        let mut cursor = self.segments(worker).cursor(view);
        if view.is_packed() {
            cursor.keep_window();
        }
        let mut read = 0u64;
        loop {
            if read.is_multiple_of(RECORDS_BETWEEN_LOOKS.into())
                && self.interrupts.iter().any(|flag| flag.load(Ordering::Relaxed))
            {
                return Ok(false);
            }
            let passed = match self.segments(worker).next(&mut cursor) {
                Ok(None) => return Ok(true),
                Ok(Some(record)) => {
                    read += 1;
                    each(self, &cursor, record)
                }
                Err(SegmentEvicted) => Err(SegmentEvicted),
            };
            if passed.is_err() {
                return Err(view.packets.saturating_sub(read));
            }
        }
    }

    /// Whether a record matches. If so, its bytes are in `self.data`.
    fn is_in_window(&mut self, worker: usize, cursor: &Cursor, record: &RecordAt) -> Result<bool, SegmentEvicted> {
        let header = &record.header;
        let arrived = header.sequence < self.arrived_before[worker];
        Ok((self.window.0..=self.window.1).contains(&header.time) && arrived && self.matches(worker, cursor, record)?)
    }

    /// Sessions of these slots that have lost packets in the window.
    fn cut_sessions(&self, seen: &SessionBits) -> u64 {
        let since: Timestamp = self.window.0;
        let cut = |(worker, sessions): (usize, &SessionArray)| {
            sessions.cut(since, self.window.1).filter(|session| seen.contains(worker, session.slot)).count() as u64
        };
        self.history.workers.iter().map(|worker| &*worker.sessions).enumerate().map(cut).sum()
    }
}
