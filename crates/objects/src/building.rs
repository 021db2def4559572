//! An object of which parts have come.

use std::collections::BTreeMap;

use protocols::ObjectHead;
use streams::{PacketRef, Sender};

/// Runs of bytes that are remembered apart. A part that would make more is left out.
const RUNS_MAX: usize = 4096;

/// The bytes of an object, and which of them are there.
#[derive(Debug)]
pub(crate) struct PartialObject {
    pub(crate) head: ObjectHead,
    pub(crate) sender: Sender,
    pub(crate) packet: PacketRef,
    pub(crate) offset: u64,
    content: Vec<u8>,
    /// Runs that are there: start and end.
    runs: BTreeMap<u64, u64>,
    /// Where the object ends, if that was seen.
    pub(crate) size: Option<u64>,
    pub(crate) notes: Vec<String>,
}

impl PartialObject {
    pub(crate) fn new(head: ObjectHead, sender: Sender, packet: PacketRef, offset: u64) -> Self {
        let (content, runs) = (Vec::new(), BTreeMap::new());
        Self { head, sender, packet, offset, content, runs, size: None, notes: Vec::new() }
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.content.capacity()
    }

    pub(crate) fn note(&mut self, note: &str) {
        if !self.notes.iter().any(|there| there == note) {
            self.notes.push(note.to_owned());
        }
    }

    /// Puts bytes at their place. The first bytes win. `room` is what may be taken in addition.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8], object_bytes: usize, room: usize) {
        let end = at.saturating_add(bytes.len() as u64);
        let most = object_bytes.min(self.content.len() + room.saturating_sub(self.content.len()));
        if end > object_bytes as u64 {
            self.note("the object is larger than 64 MiB; what follows is left out");
        } else if end > most.max(self.content.len()) as u64 {
            self.note("memory for objects was used up; what follows is left out");
        }
        let end = end.min(most.max(self.content.len()) as u64);
        if end <= at {
            return;
        }
        if self.runs.len() >= RUNS_MAX && !self.runs.values().any(|run_end| *run_end == at) {
            self.note("the object came in too many pieces; some are left out");
            return;
        }
        let (Ok(from), Ok(to)) = (usize::try_from(at), usize::try_from(end)) else { return };
        if self.content.len() < to {
            self.content.resize(to, 0);
        }
        self.fill(from, &bytes[..to - from]);
        self.join(at, end);
    }

    /// Copies bytes into the holes between the runs.
    fn fill(&mut self, from: usize, bytes: &[u8]) {
        let to = from + bytes.len();
        let mut at = from;
        let first = self.runs.range(..=from as u64).next_back().map_or(from as u64, |(start, _)| *start);
        for (&start, &end) in self.runs.range(first..to as u64) {
            let start = usize::try_from(start).unwrap_or(to).clamp(at, to);
            self.content[at..start].copy_from_slice(&bytes[at - from..start - from]);
            at = usize::try_from(end).unwrap_or(to).clamp(start, to);
        }
        self.content[at..to].copy_from_slice(&bytes[at - from..]);
    }

    fn join(&mut self, mut start: u64, mut end: u64) {
        if let Some((&before, &before_end)) = self.runs.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.runs.range(start..=end).next() {
            end = end.max(next_end);
            self.runs.remove(&next);
        }
        self.runs.insert(start, end);
    }

    /// The holes before the end: places and lengths.
    pub(crate) fn holes(&self) -> Vec<(u64, u64)> {
        let size = self.size.or(self.head.range_total).or(self.head.size_declared);
        let size = size.unwrap_or(self.content.len() as u64).max(self.content.len() as u64);
        let (mut at, mut holes) = (0, Vec::new());
        for (&start, &end) in &self.runs {
            if start > at {
                holes.push((at, start - at));
            }
            at = end;
        }
        if at < size {
            holes.push((at, size - at));
        }
        holes
    }

    /// Whether all bytes up to the known end are there.
    pub(crate) fn is_whole(&self) -> bool {
        (self.size.is_some() || self.head.range_total.is_some()) && self.holes().is_empty()
    }

    pub(crate) fn into_content(self) -> Vec<u8> {
        self.content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_and_the_first_bytes_win() {
        let mut one = PartialObject::new(ObjectHead::default(), Sender::Responder, PacketRef::default(), 0);
        one.put(4, b"efgh", 100, 100);
        one.put(0, b"ab", 100, 100);
        assert_eq!(one.holes(), [(2, 2)]);
        one.put(1, b"XcdXXXXij", 100, 100);
        assert_eq!(one.holes(), []);
        assert_eq!(one.content, b"abcdefghij");
        one.size = Some(12);
        assert_eq!((one.holes(), one.is_whole()), (vec![(10, 2)], false));
        one.put(98, b"xyz", 100, 100);
        assert_eq!(one.notes.len(), 1, "a limit that is reached is noted");
        one.put(u64::MAX - 1, b"xyz", 100, 100);
        assert_eq!(one.content.len(), 100);
    }
}
