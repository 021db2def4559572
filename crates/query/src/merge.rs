//! Merges all ranks and workers into one stream of packets in time order.
//!
//! Segments are runs that overlap in time. A heap holds the started runs, ordered by the time of their next packet. The
//! other segments wait, ordered by their oldest packet. If the packets of a segment are out of time order, the merge
//! reads ahead as far as the disorder of the segment reaches, so that times never go backwards. Packets of one worker
//! with equal times come in arrival order.

mod by_session;
mod narrow;
mod narrowed;
mod picked;
mod state;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::copies::Copies;
use super::disk::Disk;
use super::found::{Found, Summary};
use super::names::starts::SessionStarts;
use super::notes::{SearchNotes, SessionBits};
use super::run::{ReadAhead, Run};
use super::search::Search;
use super::session_selectors::SessionSelectors;
use super::{History, QueryError, Request, Tier};
use base::interface::Interface;
use base::packet::LinkType;
use base::time::Timestamp;
use engine::store::record::RecordHeader;
use engine::store::{Cursor, RecordAt, SegmentEvicted, SegmentView, Segments};
use filter::FilterSet;
pub use narrowed::{Narrowed, SessionQuestion, StoredPacket};
use narrowed::{OnlySessions, Picker};

/// Maximum number of records that one query reads ahead, over all segments (about 60 bytes each). Beyond it, packets
/// come in arrival order, and the query counts those out of time order.
const READ_AHEAD_MAX: usize = 16 * 1024;

/// Maximum number of compressed segments of which one query keeps a window (4 KiB each). Further segments are slower to
/// read.
const WINDOWS_MAX: usize = 32;

/// Number of records between two checks for an interrupt (well below a millisecond).
const RECORDS_BETWEEN_LOOKS: u32 = 1024;

/// Bytes at the start of a packet that usually contain all headers that an expression needs.
const START_BYTES: u32 = 128;

/// Stands for the worker of a packet from disk.
pub(super) const FROM_DISK: usize = usize::MAX;

/// Iterates over the packets that match a [`Request`], in time order.
#[derive(Debug)]
pub struct Packets<'h> {
    history: &'h History,
    interfaces: Vec<Arc<Interface>>,
    window: (Timestamp, Timestamp),
    /// The part of the window that the segments cover.
    reach: (Timestamp, Timestamp),
    /// For each worker, the sequence number from which on packets are left out.
    arrived_before: Vec<u64>,
    selectors: SessionSelectors,
    /// If set, only packets at the starts of these sessions match.
    starts: Option<SessionStarts>,
    search: Option<Search>,
    filter: Option<FilterSet>,
    limit: u64,
    copies: Copies,
    dedup: bool,
    /// Segments not started yet, the oldest last.
    waiting: Vec<(usize, SegmentView)>,
    /// Boxed, because a heap moves its elements.
    runs: BinaryHeap<Reverse<Box<Run>>>,
    read_ahead: usize,
    windows: usize,
    latest: Timestamp,
    data: Vec<u8>,
    notes: SearchNotes,
    /// If set, the sessions found so far: one packet per session is enough, and further packets are skipped.
    once: Option<SessionBits>,
    /// If set, only packets of these sessions match.
    only: Option<OnlySessions>,
    /// If set, it decides about each packet that matches.
    picker: Option<Picker<'h>>,
    interrupts: Vec<Arc<AtomicBool>>,
    /// The part of the answer that comes from disk.
    disk: Option<Disk>,
    summary: Summary,
}

impl History {
    /// Searches for the packets that match, in time order.
    ///
    /// # Errors
    ///
    /// If the window, the interface or the expression is invalid.
    pub fn packets(&self, request: &Request) -> Result<Packets<'_>, QueryError> {
        let packets = Packets::new(self, request)?;
        let disk = Disk::new(self, request, packets.window);
        Ok(Packets { disk, ..packets })
    }

    /// Searches for the packets that `search` selects. Of `request`, the window, the flow and the Community ID are
    /// ignored.
    ///
    /// # Errors
    ///
    /// If the interface or the expression is invalid.
    pub fn searched(&self, request: &Request, search: Search) -> Result<Packets<'_>, QueryError> {
        Packets::searched(self, request, search)
    }
}

impl<'h> Packets<'h> {
    pub(super) fn new(history: &'h History, request: &Request) -> Result<Self, QueryError> {
        Self::within(history, request, request.window()?)
    }

    /// The packets that `search` selects. The window, the flow and the Community ID of `request` are ignored.
    fn searched(history: &'h History, request: &Request, search: Search) -> Result<Self, QueryError> {
        let request = Request { since: None, until: None, flow: None, community_id: None, ..request.clone() };
        let packets = Self::within(history, &request, search.window())?;
        let disk = Disk::of_search(history, &request, &search);
        Ok(Self { search: Some(search), disk, ..packets })
    }

    fn within(history: &'h History, request: &Request, window: (Timestamp, Timestamp)) -> Result<Self, QueryError> {
        let selectors = SessionSelectors::new(request, history)?;
        let filter = request.filter(&history.link_types())?;
        let mut waiting: Vec<(usize, SegmentView)> = Vec::new();
        for (i, worker) in history.workers.iter().enumerate() {
            let in_memory = request.tier != Some(Tier::Disk);
            let wanted = |s: &SegmentView| in_memory && s.packets > 0 && s.oldest <= window.1 && s.newest >= window.0;
            waiting.extend(worker.segments.views().filter(wanted).map(|view| (i, view)));
        }
        waiting.sort_unstable_by_key(|(worker, view)| Reverse((view.oldest, *worker, view.id.0)));
        Ok(Self {
            history,
            interfaces: history.interfaces.snapshot(),
            window,
            reach: (
                waiting.iter().map(|(_, view)| view.oldest).min().unwrap_or_default().max(window.0),
                waiting.iter().map(|(_, view)| view.newest).max().unwrap_or_default().min(window.1),
            ),
            arrived_before: vec![u64::MAX; history.workers.len()],
            selectors,
            starts: None,
            search: None,
            filter,
            limit: request.limit.unwrap_or(u64::MAX),
            copies: Copies::default(),
            dedup: request.dedup,
            waiting,
            runs: BinaryHeap::new(),
            read_ahead: 0,
            windows: 0,
            latest: Timestamp::MIN,
            data: Vec::new(),
            notes: SearchNotes::default(),
            once: None,
            only: None,
            picker: None,
            interrupts: Vec::new(),
            disk: None,
            summary: Summary::default(),
        })
    }

    /// Leaves out, for each worker, the packets with this sequence number or a higher one.
    pub(super) fn arrived_before(mut self, sequences: Vec<u64>) -> Self {
        self.arrived_before = sequences;
        self
    }

    /// The packets at the starts of some sessions. Subtracts the records that this reads from `allowance`; `None` if it
    /// is too small.
    pub(super) fn of_starts(
        history: &'h History,
        window: (Timestamp, Timestamp),
        starts: SessionStarts,
        allowance: &mut u64,
    ) -> Option<Self> {
        let request = Request { since: Some(window.0), until: Some(window.1), ..Request::default() };
        let mut packets = Self::new(history, &request).ok()?;
        packets.waiting.retain(|(_, view)| SessionStarts::have(view.rank));
        *allowance = allowance.checked_sub(packets.waiting.iter().map(|(_, view)| view.packets).sum())?;
        packets.starts = Some(starts);
        Some(packets)
    }

    /// Ends the query soon after `flag` is set, even while nothing matches. Can be called for several flags.
    #[must_use]
    pub fn interrupted_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupts.push(flag);
        self
    }

    /// Finds only one packet of each session; [`into_sessions`](Self::into_sessions) returns these sessions.
    pub(super) fn once_per_session(mut self) -> Self {
        self.once = Some(SessionBits::new(self.history));
        self.disk = None;
        self
    }

    /// The next packet that matches; `None` at the end, at the limit or after an interrupt.
    #[expect(clippy::should_implement_trait, reason = "what it gives borrows from it, which no iterator can do")]
    pub fn next(&mut self) -> Option<Found<'_>> {
        let (header, worker) = self.find()?;
        self.found(header, worker)
    }

    /// Finds the next packet that matches, and returns its header and worker. Its bytes are then in `self.data`.
    pub(super) fn find(&mut self) -> Option<(RecordHeader, usize)> {
        let mut looked_at = 0u32;
        let (header, worker) = loop {
            if self.summary.packets >= self.limit {
                self.summary.limited = true;
                return None;
            }
            if looked_at.is_multiple_of(RECORDS_BETWEEN_LOOKS)
                && self.interrupts.iter().any(|flag| flag.load(Ordering::Relaxed))
            {
                self.summary.interrupted = true;
                return None;
            }
            looked_at = looked_at.wrapping_add(1);
            self.begin_due();
            if self.disk_is_next() {
                match self.find_on_disk() {
                    Some(header) => return Some((header, FROM_DISK)),
                    None => continue,
                }
            }
            let Reverse(mut run) = self.runs.pop()?;
            let (record, worker) = (run.head, run.worker);
            let matches = self.matches(worker, &run.cursor, &record);
            self.advance(&mut run);
            if run.live {
                self.runs.push(Reverse(run));
            }
            match matches {
                Ok(true) if !self.is_picked(&record.header, worker) => {}
                Ok(true) if self.is_left_out_copy(&record.header, worker) => self.note_found(worker, &record.header),
                Ok(true) => break (record.header, worker),
                Ok(false) => {}
                // The segment was evicted. `advance` has already counted the rest of its packets.
                Err(SegmentEvicted) => self.summary.overtaken += 1,
            }
        };
        self.note_found(worker, &header);
        self.summary.packets += 1;
        self.summary.bytes += self.data.len() as u64;
        if header.time < self.latest {
            self.summary.unsorted += 1;
        }
        self.latest = self.latest.max(header.time);
        let link_type = self.interface_of(&header)?.link_type;
        if let Some(only) = &mut self.only {
            only.found(worker, header.session, link_type, &self.data);
        }
        Some((header, worker))
    }

    /// Notes a packet of memory that matches, which may also be on disk, and its session; of packets that were captured twice,
    /// of both.
    fn note_found(&mut self, worker: usize, header: &RecordHeader) {
        let at = usize::from(header.interface.0);
        if let (Some(disk), Some(interface)) = (&mut self.disk, self.interfaces.get(at)) {
            disk.note_from_memory(header, interface, &self.data);
        }
        let sessions = &self.history.workers[worker].sessions;
        match &mut self.once {
            _ if self.filter.is_none() || self.search.is_some() || self.only.is_some() => {}
            Some(once) => once.add(worker, sessions, header),
            None => self.notes.found(worker, sessions, header),
        }
    }

    /// The packet that `find` found last.
    pub(super) fn found(&self, header: RecordHeader, worker: usize) -> Option<Found<'_>> {
        let on_disk = self.disk.as_ref().and_then(Disk::current);
        let in_memory = || self.interfaces.get(usize::from(header.interface.0)).map(Arc::as_ref);
        let interface = on_disk.or_else(in_memory)?;
        let selections = self.search.as_ref().map(Search::hits).unwrap_or_default();
        Some(Found::new(header, worker, interface, &self.data, selections))
    }

    /// Whether the next packet on disk comes before all that are left in memory.
    fn disk_is_next(&mut self) -> bool {
        let Some(on_disk) = self.disk.as_mut().and_then(Disk::peek_time) else { return false };
        // Of packets with the same time, those in memory come first.
        self.runs.peek().is_none_or(|Reverse(run)| on_disk < run.head.header.time)
    }

    /// Whether the caller picks the packet in `self.data`.
    fn is_picked(&mut self, header: &RecordHeader, worker: usize) -> bool {
        if self.picker.is_none() {
            return true;
        }
        let link_type = self.link_type_of(header, worker);
        let packet = link_type.map(|link_type| Found::packet(header, link_type, &self.data));
        packet.zip(self.picker.as_mut()).is_some_and(|(packet, picker)| picker.0(&packet))
    }

    /// Takes the next packet on disk. Its bytes are in `self.data` if it is a part of the answer.
    fn find_on_disk(&mut self) -> Option<RecordHeader> {
        let header =
            self.disk.as_mut()?.take(&self.selectors, &mut self.filter, self.search.as_mut(), &mut self.data)?;
        if !self.is_picked(&header, FROM_DISK) || self.is_left_out_copy(&header, FROM_DISK) {
            return None;
        }
        self.summary.packets += 1;
        self.summary.bytes += self.data.len() as u64;
        self.summary.from_disk += 1;
        self.summary.unsorted += u64::from(header.time < self.latest);
        self.latest = self.latest.max(header.time);
        Some(header)
    }

    /// Starts every waiting segment that may hold a packet before the next packet of all started runs.
    fn begin_due(&mut self) {
        while let Some(&(worker, view)) = self.waiting.last() {
            if self.runs.peek().is_some_and(|Reverse(run)| run.head.header.time < view.oldest) {
                return;
            }
            self.waiting.pop();
            let mut cursor = self.segments(worker).cursor(view);
            if view.is_packed() && self.windows < WINDOWS_MAX {
                cursor.keep_window();
                self.windows += 1;
            }
            let mut run = Box::new(Run {
                worker,
                cursor,
                head: RecordAt::EMPTY,
                ahead: BinaryHeap::new(),
                latest: Timestamp::MIN,
                read: 0,
                live: true,
            });
            self.advance(&mut run);
            if run.live {
                self.runs.push(Reverse(run));
            }
        }
    }

    /// Moves a run to its next packet within the window.
    fn advance(&mut self, run: &mut Run) {
        let disorder_ns = run.cursor.segment().disorder_ns;
        let segments = self.segments(run.worker);
        let outcome = loop {
            // The earliest record read ahead is next once no later record can precede it.
            if let Some(Reverse(first)) = run.ahead.peek() {
                let settled = run.latest.0.saturating_sub(disorder_ns) >= first.0.header.time.0;
                if (settled || self.read_ahead >= READ_AHEAD_MAX)
                    && let Some(Reverse(first)) = run.ahead.pop()
                {
                    self.read_ahead -= 1;
                    break Ok(Some(first.0));
                }
            }
            match segments.next(&mut run.cursor) {
                Err(SegmentEvicted) => break Err(SegmentEvicted),
                Ok(None) => match run.ahead.pop() {
                    Some(Reverse(first)) => {
                        self.read_ahead -= 1;
                        break Ok(Some(first.0));
                    }
                    None => break Ok(None),
                },
                Ok(Some(record)) => {
                    run.read += 1;
                    run.latest = run.latest.max(record.header.time);
                    let time = record.header.time;
                    if time < self.window.0
                        || time > self.window.1
                        || record.header.sequence >= self.arrived_before[run.worker]
                    {
                        continue;
                    }
                    if record.header.drops_before > 0 {
                        self.notes.drop_before(record.header.time, record.header.drops_before);
                    }
                    if disorder_ns == 0 {
                        break Ok(Some(record));
                    }
                    run.ahead.push(Reverse(ReadAhead(record)));
                    self.read_ahead += 1;
                }
            }
        };
        if !matches!(outcome, Ok(Some(_))) && run.cursor.drop_window() {
            self.windows -= 1;
        }
        match outcome {
            Ok(Some(record)) => run.head = record,
            Ok(None) => run.live = false,
            Err(SegmentEvicted) => {
                run.live = false;
                self.read_ahead -= run.ahead.len();
                self.summary.overtaken +=
                    run.cursor.segment().packets.saturating_sub(run.read) + run.ahead.len() as u64;
            }
        }
    }

    /// Whether the packet matches. If so, its bytes are in `self.data`.
    fn matches(&mut self, at: usize, cursor: &Cursor, record: &RecordAt) -> Result<bool, SegmentEvicted> {
        let header = &record.header;
        if !self.selectors.interface(header.interface)
            || self.starts.as_ref().is_some_and(|starts| !starts.wanted(at, header))
        {
            return Ok(false);
        }
        if self.once.as_ref().is_some_and(|once| once.contains(at, header.session))
            || self.only.as_ref().is_some_and(|only| !only.has(at, header.session))
        {
            return Ok(false);
        }
        let worker = &self.history.workers[at];
        let by_record = match &mut self.search {
            Some(search) => search.by_record(at, &worker.sessions, header),
            None => Some(true),
        };
        if by_record == Some(false) {
            return Ok(false);
        }
        let Some(link_type) = self.interface_of(header).map(|i| i.link_type) else { return Ok(false) };
        if self.selectors.rejects(&worker.sessions, header)
            || self.filter_rejects_start(at, cursor, record, link_type)?
        {
            return Ok(false);
        }
        worker.segments.data(cursor, record, &mut self.data)?;
        if let (None, Some(search)) = (by_record, &mut self.search)
            && !search.by_bytes(header, link_type, &self.data)
        {
            return Ok(false);
        }
        let (data, notes, original_len) = (&self.data, &mut self.notes, header.original_len);
        let mut ask = |filter: &mut FilterSet| notes.ask(filter, link_type, data, original_len);
        Ok(self.selectors.packet(&worker.sessions, header, link_type, data)
            && self.filter.as_mut().is_none_or(&mut ask))
    }

    /// Whether the headers of a long packet suffice to reject it. Most of its bytes are then never fetched from memory.
    fn filter_rejects_start(
        &mut self,
        at: usize,
        cursor: &Cursor,
        record: &RecordAt,
        link_type: LinkType,
    ) -> Result<bool, SegmentEvicted> {
        let original_len = record.header.original_len;
        if record.header.captured_len <= 2 * START_BYTES || self.filter.is_none() {
            return Ok(false);
        }
        let mut start = *record;
        start.header.captured_len = START_BYTES;
        self.history.workers[at].segments.data(cursor, &start, &mut self.data)?;
        Ok(self.filter.as_mut().is_some_and(|filter| filter.rejects_start(link_type, &self.data, original_len)))
    }

    /// Counts the packet if it is a copy. Returns whether to leave it out. Its bytes must be in `self.data`.
    fn is_left_out_copy(&mut self, header: &RecordHeader, worker: usize) -> bool {
        if self.once.is_some() || self.starts.is_some() {
            return false;
        }
        let Some(link_type) = self.link_type_of(header, worker) else { return false };
        let copy = self.copies.is_copy(header.time, header.interface, link_type, &self.data);
        self.summary.copies += u64::from(copy);
        copy && self.dedup
    }

    /// The link type of the packet in `self.data`.
    fn link_type_of(&mut self, header: &RecordHeader, worker: usize) -> Option<LinkType> {
        match worker {
            FROM_DISK => self.disk.as_ref().and_then(Disk::current).map(|interface| interface.link_type),
            _ => self.interface_of(header).map(|interface| interface.link_type),
        }
    }

    /// The interface of the record. Renews the copy of the interface table if the interface is newer than the copy.
    fn interface_of(&mut self, header: &RecordHeader) -> Option<&Interface> {
        let at = usize::from(header.interface.0);
        if at >= self.interfaces.len() {
            self.interfaces = self.history.interfaces.snapshot();
        }
        self.interfaces.get(at).map(Arc::as_ref)
    }

    fn segments(&self, worker: usize) -> &'h Segments {
        &self.history.workers[worker].segments
    }
}
