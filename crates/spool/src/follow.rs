//! Copies packets from memory into the spool.
//!
//! The follower reads the store like a query, so that no worker waits for it. It visits the bands in turn, starts of
//! sessions first. When the disk is slow, the deep bands fall behind. The follower counts packets that the store evicts
//! before they are written.
//!
//! Each band has a *mark* for each worker: all packets of the band with a lower sequence number are
//! written or evicted.
//! Packets that the store carries forward keep their number, so that they are not written twice.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use crate::band::Band;
use crate::medium::Medium;
use crate::writer::{Spool, SpoolState, WriteRefusal};
use base::interface::{Interface, Interfaces};
use base::packet::Packet;
use base::time::Timestamp;
use engine::pipeline::Worker;
use engine::store::{Cursor, RecordAt, SegmentEvicted, SegmentView, Segments};

/// Bytes that a band may write in its turn. Starts have no limit.
const QUOTA_BYTES: u64 = 1 << 20;
/// The first bands, whose turns have no limit.
const UNLIMITED_BANDS: usize = 2;
/// Passes after which the cursors of evicted segments are dropped.
const PASSES_BEFORE_PRUNING: u32 = 64;

/// Counts of packets that never reached the disk, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostPackets {
    /// The store evicted them before the disk was ready.
    pub too_slow: u64,
    /// The spool had no room.
    pub no_room: u64,
    /// The disk failed.
    pub failed: u64,
}

impl LostPackets {
    /// All of them.
    pub fn packets(&self) -> u64 {
        self.too_slow + self.no_room + self.failed
    }
}

/// Packets that wait in memory, and packets that were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets in memory that are not durable yet.
    pub behind_packets: u64,
    /// Captured bytes of these packets.
    pub behind_bytes: u64,
    /// Packets lost so far.
    pub lost: LostPackets,
    /// Every packet after this time is durable or waits in memory; `None` if no packet was lost.
    pub lost_until: Option<Timestamp>,
}

/// The progress of reading a segment.
#[derive(Debug)]
struct SegmentReader {
    band: Band,
    cursor: Cursor,
    /// A record that was read, and that the spool has not accepted yet.
    pending: Option<RecordAt>,
    read: u64,
    /// Where to continue if the packets since the last sync are lost.
    synced: (Cursor, Option<RecordAt>, u64),
}

type Key = (u32, u64);

/// The progress of one worker.
#[derive(Debug)]
struct Source {
    worker: Worker,
    tracks: HashMap<Key, SegmentReader, foldhash::fast::FixedState>,
    /// All packets of the band with lower sequence numbers are written or evicted.
    marks: [u64; Band::COUNT],
    /// The marks at the last sync.
    synced_marks: [u64; Band::COUNT],
    /// Packets before this one were stored before the spool began.
    base: u64,
}

/// Copies packets from the memory of all workers into the spool.
#[derive(Debug)]
pub struct Follower {
    sources: Vec<Source>,
    table: Arc<Interfaces>,
    interfaces: Vec<Arc<Interface>>,
    generation: u64,
    data: Vec<u8>,
    passes: u32,
    lost: LostPackets,
    lost_until: Option<Timestamp>,
    /// Packets that seemed lost in the last computation. A packet that is being written at that moment seems lost.
    seemed_lost: u64,
}

/// The result of a band's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The band has nothing left to write.
    Done,
    /// The band has more to write.
    More,
    /// The spool refuses packets of the band.
    Refused,
}

impl Follower {
    /// A follower of these workers. `before` has the number of packets that each worker had stored before; the follower
    /// does not write these.
    pub fn new(workers: Vec<Worker>, table: Arc<Interfaces>, before: &[u64]) -> Self {
        let sources = workers.into_iter().enumerate().map(|(i, worker)| {
            let base = before.get(i).copied().unwrap_or(0);
            let (marks, synced_marks) = ([base; Band::COUNT], [base; Band::COUNT]);
            Source { worker, tracks: HashMap::default(), marks, synced_marks, base }
        });
        Self {
            sources: sources.collect(),
            interfaces: table.snapshot(),
            generation: table.generation(),
            table,
            data: Vec::new(),
            passes: 0,
            lost: LostPackets::default(),
            lost_until: None,
            seemed_lost: 0,
        }
    }

    /// Writes new packets, starts first. Returns whether more packets are ready that the spool would accept.
    pub fn pass<M: Medium>(&mut self, spool: &mut Spool<M>, now: Timestamp) -> bool {
        self.passes = self.passes.wrapping_add(1);
        if self.passes.is_multiple_of(PASSES_BEFORE_PRUNING) {
            self.prune();
        }
        let mut more = false;
        for band in Band::all() {
            for source in 0..self.sources.len() {
                more |= self.band(spool, source, band, now) == Outcome::More;
            }
            self.turn(spool, now);
        }
        more
    }

    /// Asks the spool which of the accepted packets became durable, and which were lost.
    fn turn<M: Medium>(&mut self, spool: &mut Spool<M>, now: Timestamp) {
        let turn = spool.turn(now);
        for band in turn.rewound {
            self.rewind(band);
        }
        for band in turn.synced {
            self.synced(band);
        }
    }

    /// Writes all packets and makes them durable, except those that the spool refuses.
    pub fn finish<M: Medium>(&mut self, spool: &mut Spool<M>, now: Timestamp) {
        while self.pass(spool, now) {}
        self.finish_within(spool, now);
    }

    /// Makes all accepted packets durable.
    pub fn finish_within<M: Medium>(&mut self, spool: &mut Spool<M>, now: Timestamp) {
        spool.sync(now);
        self.turn(spool, now);
    }

    fn band<M: Medium>(&mut self, spool: &mut Spool<M>, source: usize, band: Band, now: Timestamp) -> Outcome {
        let stored = self.sources[source].worker.published.totals().stored.packets;
        let segments = Arc::clone(&self.sources[source].worker.segments);
        let mark = self.sources[source].marks[band.index()];
        if stored == mark {
            return Outcome::Done;
        }
        let mut heads = BinaryHeap::new();
        for view in segments.views_from(mark).filter(|view| view.packets > 0 && Band::of(view.rank) == band) {
            let track = self.track(source, band, view, &segments);
            if let Ok(Some(sequence)) = head(track, &segments, mark) {
                heads.push(Reverse((sequence, key(&view))));
            }
        }
        let quota = if band.index() < UNLIMITED_BANDS { u64::MAX } else { QUOTA_BYTES };
        let mut written = 0;
        while let Some(Reverse((_, key))) = heads.pop() {
            if written >= quota {
                return Outcome::More;
            }
            match self.put(spool, source, key, now) {
                Ok(_) if spool.has_news() => {
                    self.turn(spool, now);
                    return Outcome::More;
                }
                Ok(bytes) => written += bytes,
                Err(refused) => {
                    return if refused == WriteRefusal::Busy { Outcome::More } else { Outcome::Refused };
                }
            }
            let Some(track) = self.sources[source].tracks.get_mut(&key) else { continue };
            if let Ok(Some(sequence)) = head(track, &segments, mark) {
                heads.push(Reverse((sequence, key)));
            }
        }
        self.sources[source].marks[band.index()] = stored;
        Outcome::Done
    }

    fn track(&mut self, source: usize, band: Band, view: SegmentView, segments: &Segments) -> &mut SegmentReader {
        self.sources[source].tracks.entry(key(&view)).or_insert_with(|| {
            let cursor = segments.cursor(view);
            SegmentReader { band, synced: (cursor.clone(), None, 0), cursor, pending: None, read: 0 }
        })
    }

    /// Puts the pending packet of a segment into the spool. Returns its length.
    fn put<M: Medium>(
        &mut self,
        spool: &mut Spool<M>,
        source: usize,
        key: Key,
        now: Timestamp,
    ) -> Result<u64, WriteRefusal> {
        let Source { worker, tracks, .. } = &mut self.sources[source];
        let Some(track) = tracks.get_mut(&key) else { return Ok(0) };
        let Some(record) = track.pending else { return Ok(0) };
        let header = &record.header;
        if worker.segments.data(&track.cursor, &record, &mut self.data).is_err() {
            track.pending = None;
            return Ok(0);
        }
        if usize::from(header.interface.0) >= self.interfaces.len() || self.generation != self.table.generation() {
            self.generation = self.table.generation();
            self.interfaces = self.table.snapshot();
        }
        let Some(interface) = self.interfaces.get(usize::from(header.interface.0)) else {
            track.pending = None;
            return Ok(0);
        };
        let packet = Packet {
            time: header.time,
            interface: header.interface,
            link_type: interface.link_type,
            direction: header.direction,
            flags: header.flags,
            original_len: header.original_len,
            drops_before: header.drops_before,
            data: &self.data,
        };
        spool.put(track.band, interface, &packet, now)?;
        track.pending = None;
        Ok(self.data.len() as u64)
    }

    /// Records the position of the band: all packets before it are durable.
    fn synced(&mut self, band: Band) {
        for source in &mut self.sources {
            source.synced_marks[band.index()] = source.marks[band.index()];
            for track in source.tracks.values_mut().filter(|track| track.band == band) {
                if (track.synced.2, track.synced.1.is_some()) != (track.read, track.pending.is_some()) {
                    track.synced = (track.cursor.clone(), track.pending, track.read);
                }
            }
        }
    }

    /// Returns to the last position before which all packets were durable.
    fn rewind(&mut self, band: Band) {
        for source in &mut self.sources {
            source.marks[band.index()] = source.synced_marks[band.index()];
            for track in source.tracks.values_mut().filter(|track| track.band == band) {
                (track.cursor, track.pending, track.read) = track.synced.clone();
            }
        }
    }

    /// Drops the cursors of evicted segments.
    fn prune(&mut self) {
        for source in &mut self.sources {
            let segments = &source.worker.segments;
            source.tracks.retain(|_, track| segments.follow(&mut track.cursor).is_ok());
        }
    }

    /// Counts the packets that wait in memory and those that were lost. Call it about once a second.
    pub fn progress<M: Medium>(&mut self, spool: &Spool<M>, now: Timestamp) -> Progress {
        let mut progress = Progress::default();
        // Read the count of stored packets first, so that packets that arrive meanwhile do not count as lost.
        let stored: u64 = self.sources.iter().map(|source| source.worker.published.totals().stored.packets).sum();
        let base: u64 = self.sources.iter().map(|source| source.base).sum();
        for source in &self.sources {
            for view in source.worker.segments.views() {
                let band = Band::of(view.rank);
                let mark = source.marks[band.index()];
                if view.packets == 0 || view.last_sequence < mark {
                    continue;
                }
                // A pending record was read, but not written.
                let written = |track: &SegmentReader| track.read - u64::from(track.pending.is_some());
                let read = source.tracks.get(&key(&view)).map_or(0, written);
                let unread = view.packets.saturating_sub(read);
                progress.behind_packets += unread;
                progress.behind_bytes += view.captured_bytes / view.packets * unread;
            }
        }
        let taken = spool.counts().packets + spool.unsynced_packets();
        progress.behind_packets += spool.unsynced_packets();
        let there = taken + progress.behind_packets - spool.unsynced_packets();
        let seems = stored.saturating_sub(base).saturating_sub(there);
        let lost = seems.min(std::mem::replace(&mut self.seemed_lost, seems));
        if let Some(more) = lost.checked_sub(self.lost.packets()).filter(|more| *more > 0) {
            match spool.state() {
                SpoolState::Ok => self.lost.too_slow += more,
                SpoolState::Full => self.lost.no_room += more,
                SpoolState::Failed => self.lost.failed += more,
            }
            self.lost_until = Some(now);
        }
        progress.lost = self.lost;
        progress.lost_until = self.lost_until;
        progress
    }

    /// Captured bytes of all packets that were stored so far.
    pub fn stored_bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.worker.published.totals().stored.bytes).sum()
    }

    /// The number of packets that each worker has stored. If all are written, the recorder that takes over the workers'
    /// memory begins there.
    pub fn stored(&self) -> Vec<u64> {
        self.sources.iter().map(|source| source.worker.published.totals().stored.packets).collect()
    }
}

fn key(view: &SegmentView) -> Key {
    (view.id.0, view.birth())
}

/// Reads the next unwritten record of a segment, and returns its sequence number.
fn head(track: &mut SegmentReader, segments: &Segments, mark: u64) -> Result<Option<u64>, SegmentEvicted> {
    if track.pending.is_none() {
        segments.follow(&mut track.cursor)?;
        loop {
            let Some(record) = segments.next(&mut track.cursor)? else { return Ok(None) };
            track.read += 1;
            if record.header.sequence >= mark {
                track.pending = Some(record);
                break;
            }
        }
    }
    Ok(track.pending.map(|record| record.header.sequence))
}
