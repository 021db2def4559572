//! Puts the segments of one direction in order.
//!
//! Segments that continue the stream are passed on at once. Segments that came too early wait in a list of intervals. A
//! hole is given up, and reported as a gap, when the receiver has acknowledged bytes behind it and a few more packets
//! did not fill it, when the list is full, when nothing moved for some time, or at the end. Offsets count payload bytes
//! from the start of the direction in 64 bits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::event::{Cause, Conflict, Event, Gap, PacketRef, Run};
use crate::sender::Sender;
use crate::session::StreamReport;

/// Intervals that wait, at most. Bounds the work for one segment that overlaps all of them.
const WAITING_MAX: usize = 512;
/// Bytes counted for an interval in addition to its content.
const INTERVAL_BYTES: usize = 96;
/// Bytes passed on that are kept to compare retransmissions with.
const HISTORY_BYTES: usize = 4 << 10;
/// Packets of the session that a hole waits for after its bytes were acknowledged. Captures reorder a few packets.
const PATIENCE_PACKETS: u32 = 16;
/// How long a hole waits in packet time.
const PATIENCE: Duration = Duration::from_secs(30);
/// A segment further away than the largest usual window is ignored while the stream advances.
const FAR_BYTES: u64 = 16 << 20;
/// Segments in a row that lie far behind before the stream starts again there: a hole of more than 2 GiB wraps.
const BEHIND_MAX: u8 = 8;
/// How far behind a segment must lie to count as such.
const BEHIND_BYTES: i64 = 1 << 20;

/// The position of a direction, known from its first segment on.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// Offset of the next byte to pass on.
    next: u64,
    /// Its sequence number.
    sequence: u32,
}

/// A segment beyond a hole in the stream.
#[derive(Debug)]
struct EarlySegment {
    data: Box<[u8]>,
    /// Bytes on the wire; more than `data` has if the packet was truncated.
    len: u64,
    packet: PacketRef,
}

/// One direction of a TCP session.
#[derive(Debug)]
pub(crate) struct Assembler {
    sender: Sender,
    position: Option<Position>,
    waiting: BTreeMap<u64, EarlySegment>,
    waiting_bytes: usize,
    /// The latest bytes passed on, which end at the position.
    history: VecDeque<u8>,
    /// The highest offset that the receiver acknowledged.
    acknowledged: u64,
    /// The offset after the last byte, from a FIN.
    end: Option<u64>,
    /// Packets of the session since this direction moved, while segments wait.
    stalled_packets: u32,
    /// When the direction moved last.
    moved: base::time::Timestamp,
    /// Segments in a row that lay far behind.
    behind: u8,
    /// Why bytes may be missing from here on.
    cause: Cause,
    pub(crate) report: StreamReport,
}

/// A segment of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) sequence: u32,
    /// The captured payload.
    pub(crate) data: &'a [u8],
    /// Bytes of payload on the wire.
    pub(crate) len: u64,
    pub(crate) packet: PacketRef,
}

type Emit<'e> = &'e mut dyn FnMut(Event<'_>);

impl Assembler {
    pub(crate) fn new(sender: Sender) -> Self {
        Self {
            sender,
            position: None,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            history: VecDeque::new(),
            acknowledged: 0,
            end: None,
            stalled_packets: 0,
            moved: base::time::Timestamp::MIN,
            behind: 0,
            cause: Cause::Missing,
            report: StreamReport::default(),
        }
    }

    /// Bytes of memory that this direction holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.history.capacity()
    }

    /// Whether the position is known.
    pub(crate) fn is_open(&self) -> bool {
        self.position.is_some()
    }

    /// Whether payload of this direction was passed on or waits.
    pub(crate) fn has_bytes(&self) -> bool {
        self.report.bytes > 0 || !self.waiting.is_empty()
    }

    /// Opens the direction: `sequence` is that of the first payload byte.
    pub(crate) fn open(&mut self, sequence: u32) {
        self.position = Some(Position { next: 0, sequence });
    }

    /// The offset of a sequence number, relative to the start; negative for bytes before it.
    fn offset(position: Position, sequence: u32) -> i64 {
        #[allow(clippy::cast_possible_wrap, reason = "serial number arithmetic, RFC 1982")]
        let distance = sequence.wrapping_sub(position.sequence) as i32;
        i64::try_from(position.next).unwrap_or(i64::MAX).saturating_add(i64::from(distance))
    }

    /// Notes the end of the direction, from a FIN with the sequence number after the last byte.
    pub(crate) fn finish_at(&mut self, sequence: u32) {
        if let Some(position) = self.position {
            let end = u64::try_from(Self::offset(position, sequence)).unwrap_or(0);
            if end >= position.next && end - position.next <= FAR_BYTES {
                self.end = Some(end);
            }
        }
    }

    /// Whether everything up to a FIN was passed on.
    pub(crate) fn is_finished(&self) -> bool {
        self.end.is_some_and(|end| self.position.is_some_and(|position| position.next >= end))
    }

    /// From now on, missing bytes have this cause.
    pub(crate) fn expect(&mut self, cause: Cause) {
        self.cause = cause;
    }

    /// Notes what the receiver has acknowledged.
    pub(crate) fn acknowledge(&mut self, sequence: u32) {
        if let Some(position) = self.position {
            let offset = u64::try_from(Self::offset(position, sequence)).unwrap_or(0);
            self.acknowledged = self.acknowledged.max(offset);
        }
    }

    /// Counts a packet of the session while segments wait, and gives up a hole that nothing will fill.
    pub(crate) fn tick(&mut self, now: base::time::Timestamp, emit: Emit<'_>) {
        let Some((&first, _)) = self.waiting.first_key_value() else { return };
        self.stalled_packets = self.stalled_packets.saturating_add(1);
        let acknowledged = self.acknowledged >= first && self.stalled_packets > PATIENCE_PACKETS;
        if acknowledged || now.since(self.moved) > PATIENCE {
            self.skip_hole(emit);
        }
    }

    /// Takes a segment with payload. `bytes_max` bounds what may wait.
    pub(crate) fn segment(&mut self, segment: Segment<'_>, bytes_max: usize, emit: Emit<'_>) {
        let position = *self.position.get_or_insert(Position { next: 0, sequence: segment.sequence });
        let start = Self::offset(position, segment.sequence);
        let len = i64::try_from(segment.len).unwrap_or(i64::MAX);
        let next = i64::try_from(position.next).unwrap_or(i64::MAX);
        let end = start.saturating_add(len);
        if end <= next {
            self.old(segment, start, emit);
            return;
        }
        self.behind = 0;
        let (data, from) = if start < next {
            let known = usize::try_from(next - start).unwrap_or(usize::MAX);
            let split = known.min(segment.data.len());
            self.compare(&segment.data[..split], start, segment.packet, emit);
            self.report.retransmitted_bytes += u64::try_from(next - start).unwrap_or(0);
            (&segment.data[split..], position.next)
        } else {
            (segment.data, u64::try_from(start).unwrap_or(0))
        };
        let end = u64::try_from(end).unwrap_or(0);
        let segment = Segment { data, len: end - from, ..segment };
        if from == position.next && self.waiting.is_empty() {
            self.pass(segment.data, segment.len, segment.packet, emit);
            return;
        }
        self.wait(from, segment, emit);
        self.advance(emit);
        self.make_room(bytes_max, emit);
    }

    /// Takes a segment that holds nothing new.
    fn old(&mut self, segment: Segment<'_>, start: i64, emit: Emit<'_>) {
        let Some(position) = self.position else { return };
        let next = i64::try_from(position.next).unwrap_or(i64::MAX);
        if next - start > BEHIND_BYTES {
            self.behind += 1;
            if self.behind < BEHIND_MAX {
                self.report.discarded_bytes += segment.len;
                return;
            }
            // The stream went on for more than 2 GiB unseen.
            self.behind = 0;
            self.flush(emit);
            if let Some(position) = self.position {
                let lost = u64::from(segment.sequence.wrapping_sub(position.sequence));
                self.gap(lost, self.cause_within(), emit);
            }
            self.pass(segment.data, segment.len, segment.packet, emit);
            return;
        }
        self.behind = 0;
        // A keepalive repeats the last byte, often with another value (RFC 9293, 3.8.4).
        let keepalive = segment.len == 1 && start + 1 == next;
        if !keepalive {
            self.compare(segment.data, start, segment.packet, emit);
        }
        let unknown = start < next - i64::try_from(self.history.len()).unwrap_or(0);
        if unknown && (start < 0 || self.report.gaps > 0) {
            self.report.discarded_bytes += segment.len;
        } else {
            self.report.retransmitted_bytes += segment.len;
        }
    }

    /// Compares bytes that came again with those passed on, as far as these are still known.
    fn compare(&mut self, data: &[u8], start: i64, packet: PacketRef, emit: Emit<'_>) {
        let Some(position) = self.position else { return };
        let known = i64::try_from(position.next).unwrap_or(i64::MAX) - i64::try_from(self.history.len()).unwrap_or(0);
        let skip = usize::try_from((known - start).max(0)).unwrap_or(usize::MAX);
        let Some(data) = data.get(skip..) else { return };
        let from = start.max(known);
        let at = usize::try_from(from - known).unwrap_or(usize::MAX);
        let differs = data.iter().zip(self.history.iter().skip(at)).any(|(new, old)| new != old);
        let len = data.len().min(self.history.len().saturating_sub(at));
        if differs {
            self.conflict(u64::try_from(from).unwrap_or(0), len as u64, packet, emit);
        }
    }

    fn conflict(&mut self, offset: u64, len: u64, packet: PacketRef, emit: Emit<'_>) {
        self.report.conflicts += 1;
        emit(Event::Conflict(Conflict { sender: self.sender, offset, len, packet }));
    }

    /// Keeps the parts of a segment that no earlier segment has.
    fn wait(&mut self, from: u64, segment: Segment<'_>, emit: Emit<'_>) {
        let end = from + segment.len;
        if self.waiting.is_empty() {
            self.stalled_packets = 0;
            self.moved = segment.packet.time;
        }
        let first = self.waiting.range(..=from).next_back().map_or(from, |(&at, _)| at);
        let (mut at, mut parts, mut conflicts) = (from, Vec::new(), Vec::new());
        let part = |from: u64, to: u64| (from, to);
        for (&start, there) in self.waiting.range(first..end) {
            let there_end = start + there.len;
            if there_end <= at {
                continue;
            }
            if start > at {
                parts.push(part(at, start));
            }
            let (low, high) = (start.max(from), there_end.min(end));
            if low < high {
                let new = slice(segment.data, low - from, high - from);
                let old = slice(&there.data, low - start, high - start);
                if new.iter().zip(old).any(|(new, old)| new != old) {
                    conflicts.push((low, high - low));
                } else {
                    self.report.retransmitted_bytes += high - low;
                }
            }
            at = there_end;
        }
        if at < end {
            parts.push(part(at, end));
        }
        for (low, len) in conflicts {
            self.conflict(low, len, segment.packet, emit);
        }
        for (low, high) in parts {
            let data: Box<[u8]> = slice(segment.data, low - from, high - from).into();
            self.waiting_bytes += data.len() + INTERVAL_BYTES;
            self.waiting.insert(low, EarlySegment { data, len: high - low, packet: segment.packet });
        }
    }

    /// Passes on what now continues the stream.
    fn advance(&mut self, emit: Emit<'_>) {
        while let Some(position) = self.position
            && self.waiting.first_key_value().is_some_and(|(&at, _)| at == position.next)
            && let Some((_, waiting)) = self.waiting.pop_first()
        {
            self.waiting_bytes -= waiting.data.len() + INTERVAL_BYTES;
            self.pass(&waiting.data, waiting.len, waiting.packet, emit);
        }
    }

    fn make_room(&mut self, bytes_max: usize, emit: Emit<'_>) {
        while self.waiting_bytes > bytes_max || self.waiting.len() > WAITING_MAX {
            let (Some(position), Some((&first, _)), Some((&last, _))) =
                (self.position, self.waiting.first_key_value(), self.waiting.last_key_value())
            else {
                return;
            };
            let moves = self.stalled_packets < PATIENCE_PACKETS && self.acknowledged < first;
            if moves && last - position.next > FAR_BYTES {
                if let Some((_, far)) = self.waiting.pop_last() {
                    self.waiting_bytes -= far.data.len() + INTERVAL_BYTES;
                    self.report.discarded_bytes += far.len;
                }
            } else {
                self.skip_hole(emit);
            }
        }
    }

    /// Reports the bytes up to the first waiting segment as missing, and goes on there.
    fn skip_hole(&mut self, emit: Emit<'_>) {
        let (Some(position), Some((&first, _))) = (self.position, self.waiting.first_key_value()) else { return };
        self.gap(first.saturating_sub(position.next), self.cause_within(), emit);
        self.advance(emit);
    }

    /// Passes on everything that waits, with gaps between.
    pub(crate) fn flush(&mut self, emit: Emit<'_>) {
        while !self.waiting.is_empty() {
            self.skip_hole(emit);
        }
    }

    /// Ends the direction: what waits, then what the other side acknowledged and nobody has.
    pub(crate) fn close(&mut self, emit: Emit<'_>) {
        self.flush(emit);
        let Some(position) = self.position else { return };
        // An acknowledgement counts a FIN as one byte.
        let sent = self.end.unwrap_or_else(|| self.acknowledged.saturating_sub(1));
        if sent > position.next {
            self.gap(sent - position.next, self.cause, emit);
        }
    }

    fn pass(&mut self, data: &[u8], len: u64, packet: PacketRef, emit: Emit<'_>) {
        let Some(position) = &mut self.position else { return };
        let offset = position.next;
        position.next += data.len() as u64;
        position.sequence = position.sequence.wrapping_add(truncated(data.len() as u64));
        self.stalled_packets = 0;
        self.moved = packet.time;
        self.report.bytes += data.len() as u64;
        let recent = &data[data.len().saturating_sub(HISTORY_BYTES)..];
        let surplus = (self.history.len() + recent.len()).saturating_sub(HISTORY_BYTES);
        self.history.drain(..surplus.min(self.history.len()));
        self.history.extend(recent);
        if !data.is_empty() {
            emit(Event::Run(Run { sender: self.sender, offset, data, packet }));
        }
        let cut = len - data.len() as u64;
        if cut > 0 {
            self.gap(cut, Cause::Snaplen, emit);
        }
    }

    /// Why bytes are missing that others follow. A recorder cuts sessions from their end; what is missing before that end
    /// was evicted.
    fn cause_within(&self) -> Cause {
        if self.cause == Cause::Cut { Cause::Evicted } else { self.cause }
    }

    /// Reports missing bytes, and moves the position behind them.
    fn gap(&mut self, len: u64, cause: Cause, emit: Emit<'_>) {
        let Some(position) = &mut self.position else { return };
        if len == 0 {
            return;
        }
        let offset = position.next;
        position.next += len;
        position.sequence = position.sequence.wrapping_add(truncated(len));
        self.history.clear();
        self.report.gaps += 1;
        self.report.gap_bytes += len;
        emit(Event::Gap(Gap { sender: self.sender, offset, len, cause }));
    }
}

/// The part of `data` between two offsets, as far as it was captured.
fn slice(data: &[u8], from: u64, to: u64) -> &[u8] {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
    &data[at(from)..at(to)]
}

#[allow(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
fn truncated(len: u64) -> u32 {
    len as u32
}
