//! The bytes of one direction to search next: the end of the bytes that were searched before, then new bytes.
//!
//! Small runs are collected before they are searched, because each search begins with a part of the last one.

use std::collections::VecDeque;

use streams::{PacketRef, Run};

use crate::matched::Match;
use crate::patterns::{MATCH_BYTES_MAX, Pattern, Patterns};

/// Bytes that are collected before they are searched.
const COLLECT_BYTES: usize = 16 << 10;
/// Bytes of context before and after a match.
const CONTEXT_BYTES: usize = 32;
/// Bytes of a match that its context shows.
const SHOWN_BYTES: usize = 256;

/// One direction of a session.
#[derive(Debug, Default)]
pub(crate) struct Window {
    data: Vec<u8>,
    /// Offset of the first byte of `data`.
    start: u64,
    /// Bytes of `data` in which no match begins any more.
    done: usize,
    /// New bytes since the last search.
    fresh: usize,
    places: VecDeque<(u64, PacketRef)>,
    gap_before: bool,
    /// Matches that were reported although more could follow: pattern and offset.
    reported: Vec<(usize, u64)>,
    /// Where matches reach beyond `done`: pattern and end. The next match of the pattern begins there.
    reach: Vec<(usize, u64)>,
}

/// What follows the bytes that are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuation {
    /// More bytes, soon. A match that could still grow is not reported yet.
    More,
    /// More bytes, but later. All matches are reported now.
    Pause,
    /// No further bytes, or a gap.
    End,
}

impl Window {
    /// Bytes of memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.data.capacity() + self.places.len() * 32
    }

    /// Adds a run, and searches once enough bytes have been collected.
    pub(crate) fn add(&mut self, run: &Run<'_>, patterns: &Patterns, found: &mut dyn FnMut(&Pattern, Match)) {
        if self.data.is_empty() {
            self.start = run.offset;
        }
        self.data.extend_from_slice(run.data);
        self.places.push_back((run.offset, run.packet));
        self.fresh += run.data.len();
        if self.fresh >= COLLECT_BYTES {
            self.search(Continuation::More, patterns, found);
        }
    }

    /// Searches the collected bytes.
    pub(crate) fn search(&mut self, then: Continuation, patterns: &Patterns, found: &mut dyn FnMut(&Pattern, Match)) {
        let len = self.data.len();
        let open = if then == Continuation::End { len } else { len.saturating_sub(patterns.keep_bytes) };
        let mut reported = std::mem::take(&mut self.reported);
        let mut reach = std::mem::take(&mut self.reach);
        let begin = |number| {
            let end = reach.iter().find(|(of, _)| *of == number).map_or(0, |(_, end)| end.saturating_sub(self.start));
            self.done.max(usize::try_from(end).unwrap_or(usize::MAX))
        };
        let mut reaching = Vec::new();
        patterns.find(&self.data, begin, |number, named, from, to| {
            // Matches that begin in the end of the window are found again, when what follows is known.
            let offset = self.start + from as u64;
            if from < open && to > open && !patterns.overlaps(number) {
                reaching.push((number, self.start + to as u64));
            }
            if (from >= open && then == Continuation::More) || reported.contains(&(number, offset)) {
                return;
            }
            if from >= open {
                reported.push((number, offset));
            }
            found(named, self.matched(named, from, to.min(from + MATCH_BYTES_MAX)));
        });
        self.done = open.max(self.done);
        let done = self.start + self.done as u64;
        reported.retain(|(_, offset)| *offset >= done);
        self.reported = reported;
        reach.retain(|(_, end)| *end > done);
        reach.extend(reaching);
        self.reach = reach;
        self.fresh = 0;
        if then == Continuation::End {
            self.clear();
            return;
        }
        let drop = self.done.saturating_sub(CONTEXT_BYTES);
        self.data.drain(..drop);
        self.data.shrink_to(COLLECT_BYTES + patterns.keep_bytes);
        self.start += drop as u64;
        self.done -= drop;
        while self.places.get(1).is_some_and(|(offset, _)| *offset <= self.start) {
            self.places.pop_front();
        }
    }

    /// Searches the collected bytes and drops them, because bytes are missing after them.
    pub(crate) fn gap(&mut self, patterns: &Patterns, found: &mut dyn FnMut(&Pattern, Match)) {
        self.search(Continuation::End, patterns, found);
        self.gap_before = true;
    }

    fn clear(&mut self) {
        self.data = Vec::new();
        self.done = 0;
        self.places.clear();
        self.reported.clear();
        self.reach.clear();
    }

    fn matched(&self, named: &Pattern, from: usize, to: usize) -> Match {
        let offset = self.start + from as u64;
        let packet = self.places.iter().rev().find(|(start, _)| *start <= offset).map(|(_, packet)| *packet);
        Match {
            rule: named.rule.clone(),
            kind: named.kind,
            stage: named.stage.clone(),
            sender: None,
            stream_offset: Some(offset),
            packet: packet.unwrap_or_default(),
            length: (to - from) as u64,
            context: context(&self.data, from, to),
            gap_before: self.gap_before,
            detail: String::new(),
        }
    }
}

/// A match with some bytes before and after it.
pub(crate) fn context(data: &[u8], from: usize, to: usize) -> Vec<u8> {
    let begin = from.saturating_sub(CONTEXT_BYTES);
    let end = to.min(from + SHOWN_BYTES).saturating_add(CONTEXT_BYTES).min(data.len());
    data.get(begin..end).unwrap_or_default().to_vec()
}
