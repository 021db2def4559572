//! The bytes that each side of a session sent, in windows that overlap.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::scan::{Scan, Unscanned, YaraRules};
use hunt::Match;
use streams::{Event, PacketRef, Run, Sender, Session, Sink};

/// Bytes of a window.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes that a window shares with the one before it.
const OVERLAP_BYTES: usize = 64 << 10;
/// Bytes that the place of a run counts for.
const PLACE_BYTES: usize = size_of::<(u64, PacketRef)>();
/// Bytes in the windows of all sessions.
const HELD_BYTES_MAX: usize = 24 << 20;

/// The bytes of one direction that wait.
#[derive(Debug, Default)]
struct Window {
    data: Vec<u8>,
    /// Offset of the first byte.
    start: u64,
    places: VecDeque<(u64, PacketRef)>,
    gap_before: bool,
    /// New bytes since the last window.
    fresh: usize,
    /// Whether it is in the order in which windows are searched to save memory.
    is_queued: bool,
}

/// Where the bytes of a window lie.
#[derive(Debug)]
struct Place {
    session: Session,
    sender: Sender,
    start: u64,
    /// Bytes of the window before this one.
    overlap: u64,
    places: Vec<(u64, PacketRef)>,
    gap_before: bool,
}

/// Cuts streams into windows, and searches them.
pub(in super::super) struct YaraStreams {
    windows: HashMap<u64, (Session, [Window; 2])>,
    order: VecDeque<(u64, Sender)>,
    held_bytes: usize,
    scan: Scan<Place>,
    found: Vec<(Session, Match)>,
    failed: Option<anyhow::Error>,
    /// Directions that were searched in pieces to save memory.
    pub(in super::super) in_pieces: u64,
}

impl YaraStreams {
    pub(in super::super) fn new(rules: Arc<YaraRules>) -> anyhow::Result<Self> {
        Ok(Self {
            windows: HashMap::new(),
            order: VecDeque::new(),
            held_bytes: 0,
            scan: Scan::new(rules)?,
            found: Vec::new(),
            failed: None,
            in_pieces: 0,
        })
    }

    /// What was found since the last call.
    pub(in super::super) fn found(&mut self) -> anyhow::Result<std::vec::Drain<'_, (Session, Match)>> {
        self.failed.take().map_or_else(|| Ok(self.found.drain(..)), Err)
    }

    /// Searches what is left. Returns what could not be done.
    pub(in super::super) fn finish(&mut self) -> anyhow::Result<Unscanned> {
        let found = &mut self.found;
        self.scan.finish(&mut |place, one, end| found.extend(placed(place, one, end)))?;
        Ok(self.scan.unscanned)
    }

    /// Searches what has come since the last window of each direction, for a search that goes on.
    pub(in super::super) fn catch_up(&mut self) -> anyhow::Result<()> {
        let fresh: Vec<(u64, Sender)> = self
            .windows
            .iter()
            .flat_map(|(number, (_, windows))| {
                Sender::BOTH.map(|sender| (*number, sender, windows[sender.index()].fresh))
            })
            .filter(|(_, _, fresh)| *fresh > 0)
            .map(|(number, sender, _)| (number, sender))
            .collect();
        for (number, sender) in fresh {
            self.search(number, sender, OVERLAP_BYTES);
        }
        self.finish().map(drop)
    }

    fn run(&mut self, session: &Session, run: &Run<'_>) {
        let (_, windows) = self.windows.entry(session.number).or_insert_with(|| (session.clone(), Default::default()));
        let window = &mut windows[run.sender.index()];
        if window.data.is_empty() {
            window.start = run.offset;
        }
        if !window.is_queued {
            window.is_queued = true;
            self.order.push_back((session.number, run.sender));
        }
        window.data.extend_from_slice(run.data);
        window.places.push_back((window.start + window.data.len() as u64 - run.data.len() as u64, run.packet));
        window.fresh += run.data.len();
        self.held_bytes += run.data.len() + PLACE_BYTES;
        if window.data.len() >= WINDOW_BYTES {
            self.search(session.number, run.sender, OVERLAP_BYTES);
        }
        while self.held_bytes > HELD_BYTES_MAX
            && let Some((number, sender)) = self.order.pop_front()
        {
            if let Some((_, windows)) = self.windows.get_mut(&number) {
                windows[sender.index()].is_queued = false;
            }
            self.in_pieces += u64::from(self.search(number, sender, 0));
        }
    }

    /// Searches a window, and keeps so many bytes of it for the next one. Returns whether there was something.
    fn search(&mut self, number: u64, sender: Sender, keep: usize) -> bool {
        let Some((session, windows)) = self.windows.get_mut(&number) else { return false };
        let window = &mut windows[sender.index()];
        let len = window.data.len();
        if window.fresh > 0 {
            let place = Place {
                session: session.clone(),
                sender,
                start: window.start,
                overlap: (len - window.fresh) as u64,
                places: window.places.iter().copied().collect(),
                gap_before: window.gap_before,
            };
            let found = &mut self.found;
            let added =
                self.scan.add(&window.data, place, &mut |place, one, end| found.extend(placed(place, one, end)));
            self.failed = self.failed.take().or(added.err());
        }
        let had = window.fresh > 0;
        let drop = len.saturating_sub(keep);
        window.data.drain(..drop);
        window.data.shrink_to(keep);
        window.start += drop as u64;
        window.fresh = 0;
        let places = window.places.len();
        while window.places.get(1).is_some_and(|(offset, _)| *offset <= window.start) {
            window.places.pop_front();
        }
        if window.data.is_empty() {
            window.places.clear();
        }
        self.held_bytes -= drop + (places - window.places.len()) * PLACE_BYTES;
        had
    }
}

impl Sink for YaraStreams {
    fn event(&mut self, session: &Session, event: Event<'_>) {
        match event {
            Event::Run(run) => self.run(session, &run),
            Event::Gap(gap) => {
                self.search(session.number, gap.sender, 0);
                if let Some((_, windows)) = self.windows.get_mut(&session.number) {
                    windows[gap.sender.index()].gap_before = true;
                }
            }
            Event::End => {
                for sender in Sender::BOTH {
                    self.search(session.number, sender, 0);
                }
                self.windows.remove(&session.number);
                // Sessions that ended leave their places in the order.
                if self.order.len() > 1024 + 4 * self.windows.len() {
                    self.order.retain(|(number, _)| self.windows.contains_key(number));
                }
            }
            _ => {}
        }
    }
}

/// A match at its place in the stream; `None` for one that the window before had as well, because its last string ends there.
fn placed(place: &Place, one: Match, end: u64) -> Option<(Session, Match)> {
    let offset = one.stream_offset.unwrap_or(0);
    if end > 0 && end <= place.overlap {
        return None;
    }
    let at = place.start + offset;
    let packet = place.places.iter().rev().find(|(start, _)| *start <= at).or(place.places.first());
    let one = Match {
        sender: Some(place.sender),
        stream_offset: Some(at),
        packet: packet.map(|(_, packet)| *packet).unwrap_or_default(),
        gap_before: place.gap_before,
        ..one
    };
    Some((place.session.clone(), one))
}
