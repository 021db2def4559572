//! Tells whether the segments of a session follow each other without overlap.
//!
//! Where they do, each packet is one piece of the stream. Where they do not, pieces of packets make the stream, and only
//! reassembly tells which. The packets of a session come rank by rank, in order of arrival within a rank. So a later rank
//! may fill what an earlier one left out.

use std::collections::HashMap;

/// Entries of a table at most. Of sessions that find no entry, the order is unknown.
const ENTRIES_MAX: usize = 1 << 20;
/// Stretches of a direction that later ranks may fill.
const OPEN_MAX: usize = 32;
/// The same of all directions.
const OPEN_ALL_MAX: usize = 1 << 16;

const USED: u16 = 1;
const KNOWN: [u16; 2] = [2, 4];
/// The session is a candidate.
const CANDIDATE: u16 = 8;
/// The session looks encrypted.
const ENCRYPTED: u16 = 16;
/// Payload was seen.
const PAYLOAD: u16 = 32;
/// Payload of a side was seen.
const DATA: [u16; 2] = [64, 128];
/// The stream of a side begins as one that is encrypted.
const SEALED: [u16; 2] = [256, 512];

/// What is known of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    slot: u32,
    /// A hash of the endpoints: a slot is used for one session after another.
    key: u32,
    end: [u32; 2],
    arrival: [u64; 2],
    len: [u16; 2],
    flags: u16,
}

impl Entry {
    pub(super) fn is_candidate(&self) -> bool {
        self.flags & CANDIDATE != 0
    }

    pub(super) fn set_candidate(&mut self) {
        self.flags |= CANDIDATE;
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    pub(super) fn set_encrypted(&mut self) {
        self.flags |= ENCRYPTED;
    }

    /// Whether the streams of both sides begin as those that are encrypted.
    pub(super) fn is_sealed(&self) -> bool {
        SEALED.iter().all(|side| self.flags & side != 0)
    }

    pub(super) fn set_sealed(&mut self, side: usize) {
        self.flags |= SEALED[side & 1];
    }
}

/// A stretch between two segments that other ranks may fill: the end of what is before it, the start of what is after it,
/// and when these arrived.
#[derive(Clone, Copy, Debug)]
struct Open {
    end: u32,
    start: u32,
    arrived: (u64, u64),
}

/// Where a packet lies in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamStart {
    /// It is the first one, behind the SYN.
    Here,
    /// It is the first one that was taken, and may not be the first of its stream.
    Uncertain,
    /// Another one was taken before.
    Later,
}

/// What a packet says of its session.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    pub(super) entry: &'a mut Entry,
    /// Whether it is the first packet of the session.
    pub(super) is_new: bool,
    /// Whether the order of segments is certain.
    pub(super) is_certain: bool,
    /// Whether it is the first of its direction, and no SYN came before.
    pub(super) lacks_start: bool,
    pub(super) start: StreamStart,
}

/// A segment, or a packet of a session without segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) worker: usize,
    pub(super) slot: u32,
    pub(super) arrival: u64,
    /// A hash of the endpoints.
    pub(super) key: u32,
    /// 0 or 1.
    pub(super) side: usize,
    /// Of TCP: sequence number, flags and bytes on the wire.
    pub(super) tcp: Option<(u32, u8, u32)>,
}

/// The order of all sessions.
#[derive(Debug)]
pub(super) struct Orders {
    tables: Vec<Vec<Entry>>,
    /// Whether a table has fewer entries than there are slots.
    lossy: bool,
    open: HashMap<(usize, u32, usize), Vec<Open>, foldhash::fast::RandomState>,
    open_count: usize,
}

const SYN: u8 = 2;
const ACK: u8 = 16;

impl Orders {
    /// For so many slots of each worker.
    pub(super) fn new(slots: &[usize]) -> Self {
        let most = (ENTRIES_MAX / slots.len().max(1)).max(1);
        let tables = slots.iter().map(|&slots| vec![Entry::default(); slots.clamp(1, most)]).collect();
        let lossy = slots.iter().any(|&slots| slots > most);
        Self { tables, lossy, open: HashMap::default(), open_count: 0 }
    }

    /// Takes a packet.
    pub(super) fn take(&mut self, piece: Piece) -> Option<Taken<'_>> {
        let table = self.tables.get_mut(piece.worker)?;
        let len = table.len();
        let entry = table.get_mut(piece.slot as usize % len)?;
        let begins = piece.tcp.is_none_or(|(_, flags, _)| flags & (SYN | ACK) == SYN);
        let same = entry.flags & USED != 0 && entry.slot == piece.slot && entry.key == piece.key;
        let mut is_certain = true;
        if !same {
            // Earlier packets of this session may have been taken before those of another one.
            is_certain = begins || (entry.flags & USED == 0 && !self.lossy);
            *entry = Entry { slot: piece.slot, key: piece.key, flags: USED, ..Entry::default() };
        }
        let (mut lacks_start, mut start) = (false, StreamStart::Later);
        if let Some((sequence, flags, len)) = piece.tcp {
            lacks_start = len > 0 && flags & SYN == 0 && entry.flags & KNOWN[piece.side & 1] == 0;
            if len > 0 && entry.flags & DATA[piece.side & 1] == 0 {
                entry.flags |= DATA[piece.side & 1];
                let is_known = entry.flags & KNOWN[piece.side & 1] != 0 && flags & SYN == 0;
                let follows = is_known && entry.end[piece.side & 1] == sequence;
                start = if follows { StreamStart::Here } else { StreamStart::Uncertain };
            }
            let order = Order { entry: &mut *entry, open: &mut self.open, open_count: &mut self.open_count };
            is_certain &= order.segment(piece, sequence, flags, len);
        }
        Some(Taken { entry, is_new: !same, is_certain, lacks_start, start })
    }
}

/// One session, and the open stretches of all.
struct Order<'a> {
    entry: &'a mut Entry,
    open: &'a mut HashMap<(usize, u32, usize), Vec<Open>, foldhash::fast::RandomState>,
    open_count: &'a mut usize,
}

impl Order<'_> {
    /// Takes a segment. Returns whether it follows the others.
    fn segment(self, piece: Piece, sequence: u32, flags: u8, len: u32) -> bool {
        let (entry, side) = (self.entry, piece.side);
        let syn = flags & SYN != 0;
        let start = sequence.wrapping_add(u32::from(syn));
        if len == 0 && !syn {
            return true;
        }
        let end = start.wrapping_add(len);
        let known = entry.flags & KNOWN[side] != 0;
        // A SYN within a session opens another one, or pretends to.
        let anew = syn && entry.flags & PAYLOAD != 0 && entry.end[side] != start;
        let previous = (entry.end[side], entry.arrival[side]);
        if len > 0 {
            entry.flags |= PAYLOAD;
        }
        if !known || anew {
            entry.flags |= KNOWN[side];
            (entry.end[side], entry.arrival[side], entry.len[side]) = (end, piece.arrival, short(len));
            return !anew;
        }
        let key = (piece.worker, piece.slot, side);
        if piece.arrival < previous.1 {
            return self.open.get_mut(&key).is_some_and(|open| fill(open, piece.arrival, start, end));
        }
        let ahead = distance(previous.0, start);
        if ahead < 0 {
            // A segment that came again says nothing new, and neither does a keepalive.
            return distance(end, previous.0) >= 0 && distance(start, previous.0) <= i32::from(entry.len[side]);
        }
        (entry.end[side], entry.arrival[side], entry.len[side]) = (end, piece.arrival, short(len));
        if ahead == 0 {
            return true;
        }
        let open = self.open.entry(key).or_default();
        if *self.open_count < OPEN_ALL_MAX && open.len() < OPEN_MAX {
            *self.open_count += 1;
            open.push(Open { end: previous.0, start, arrived: (previous.1, piece.arrival) });
        }
        true
    }
}

/// Whether a segment lies in an open stretch. It then begins behind the segment.
fn fill(open: &mut [Open], arrival: u64, start: u32, end: u32) -> bool {
    let Some(open) = open.iter_mut().find(|open| open.arrived.0 < arrival && arrival < open.arrived.1) else {
        return false;
    };
    let fits = distance(open.end, start) >= 0 && distance(end, open.start) >= 0;
    if fits {
        open.end = end;
        open.arrived.0 = arrival;
    }
    fits
}

/// How far `to` lies behind `from`, as sequence numbers count (RFC 1982).
#[allow(clippy::cast_possible_wrap, reason = "serial number arithmetic")]
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}

fn short(len: u32) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
