//! Reads the times and sums of many sessions: entry by entry, and block by block from the archive.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::archive::SessionArchive;
use super::array::SessionArray;
use super::columns::{self, BATCH};
use super::span::SessionSpan;
use super::summary::SessionSlot;
use base::time::Timestamp;

/// The sessions of a full block of the archive, of which no packet is stored.
#[derive(Clone, Debug)]
pub struct PastSpans {
    /// Ordinals of the sessions.
    pub ordinals: Range<u64>,
    /// First and last time of each session, and its bytes on the wire.
    pub spans: Vec<(Timestamp, Timestamp, u64)>,
}

/// Sessions of a full block of the archive, whose first ordinal is a multiple of this number.
pub const BLOCK_SESSIONS: u64 = BATCH as u64;

/// An empty window: with it, a block is read without its sessions.
const HEADER_ONLY: Option<(u64, u64)> = Some((u64::MAX, 0));

impl SessionArray {
    /// The sessions in the array that overlap a window, as [`overlapping`](Self::overlapping) has them.
    pub fn spans(&self, since: Timestamp, until: Timestamp) -> impl Iterator<Item = SessionSpan> + '_ {
        let entries = (0..self.used()).filter_map(|slot| Some((SessionSlot(slot), self.entry(SessionSlot(slot))?)));
        let recent = entries.filter(move |(_, entry)| entry.last() >= since);
        recent.filter_map(|(slot, entry)| entry.span(slot)).filter(move |span| span.first <= until)
    }

    /// Bytes of the ring of the archive.
    pub fn archive_ring_bytes(&self) -> u64 {
        self.archive().ring_bytes()
    }

    /// The ordinal of the oldest archived session that can be read.
    pub fn oldest_archived(&self) -> u64 {
        self.archive().oldest()
    }

    /// The full blocks of the archive that `wanted` chooses by their ordinals and that overlap the window, oldest first.
    pub fn past_spans(
        &self,
        window: (Timestamp, Timestamp),
        wanted: impl FnMut(&Range<u64>) -> bool,
    ) -> impl Iterator<Item = PastSpans> {
        self.archive().spans((window.0.0 / 1_000_000, window.1.0 / 1_000_000), wanted)
    }
}

impl SessionArchive {
    fn spans(
        &self,
        window: (u64, u64),
        mut wanted: impl FnMut(&Range<u64>) -> bool,
    ) -> impl Iterator<Item = PastSpans> {
        let mut position = 0;
        std::iter::from_fn(move || {
            loop {
                position = position.max(self.tail.load(Ordering::Acquire));
                let Some(header) = self.block(position, HEADER_ONLY) else {
                    if position < self.tail.load(Ordering::Acquire) {
                        // The writer has overtaken this reader, which continues at the new tail.
                        continue;
                    }
                    return None;
                };
                let at = position;
                position += header.words;
                let ordinals = header.ordinal..header.ordinal + header.sessions;
                if !wanted(&ordinals) {
                    continue;
                }
                let block = self.block(at, Some(window)).filter(|block| !block.compressed.is_empty());
                if let Some(batch) = block.and_then(|block| columns::decode(&block.compressed)) {
                    return Some(PastSpans {
                        ordinals,
                        spans: batch.iter().map(columns::ArchivedSession::span).collect(),
                    });
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::archive::ArchiveWriter;
    use crate::session::depth::LostParts;
    use crate::session::entry::{CountedPacket, Entry};
    use crate::session::key::SessionKey;
    use base::memory::Lock;

    fn at(s: u64) -> Timestamp {
        Timestamp(s * 1_000_000_000)
    }

    fn begin(entry: Entry<'_>, number: u64) {
        let packet = |s| CountedPacket { time: at(s), wire_bytes: 100 + number % 7, captured_bytes: 100 };
        entry.begin(&SessionKey([number; 6]), number, true, &packet(number + 100), 0);
        entry.count(&entry.before(at(number + 110)), true, &packet(number + 110), 0);
        if number.is_multiple_of(3) {
            entry.kept_less(100, at(number + 200), LostParts::at(0));
        }
    }

    #[test]
    fn spans_are_those_of_the_sessions() {
        let array = SessionArray::new(1000, 256 << 10, 1, Lock::No).unwrap();
        let mut writer = ArchiveWriter::new().unwrap();
        for slot in 0..300 {
            begin(array.entry(SessionSlot(slot)).unwrap(), slot.into());
        }
        // Two full blocks, and some sessions that wait for theirs.
        let spare = array.entry(SessionSlot(999)).unwrap();
        for number in 0..2 * BLOCK_SESSIONS + 9 {
            begin(spare, number);
            writer.archive(array.archive(), SessionSlot(999), spare);
        }
        let fields =
            |span: &SessionSpan| (span.first, span.last, span.packets, span.bytes, span.kept_packets, span.kept_bytes);
        for (since, until) in [(0, 99), (0, 100), (150, 155), (390, 500), (410, 500)] {
            let window = (at(since), at(until));
            let all = array.overlapping(window.0, window.1);
            let expected: Vec<_> =
                all.map(|session| (fields(&SessionSpan::from(&session)), session.lost(), session.is_whole())).collect();
            let spans = array.spans(window.0, window.1);
            assert_eq!(spans.map(|span| (fields(&span), span.lost(), span.is_whole())).collect::<Vec<_>>(), expected);
        }
        let blocks = |window, first| {
            array.past_spans(window, move |ordinals: &Range<u64>| ordinals.start >= first).collect::<Vec<_>>()
        };
        let all = blocks((Timestamp::MIN, Timestamp::MAX), 0);
        let past: Vec<_> = array.past_overlapping(Timestamp::MIN, Timestamp::MAX).collect();
        let expected = past[..1024].iter().map(|(_, session)| (session.first, session.last, session.bytes.sum()));
        assert_eq!(all.iter().flat_map(|block| block.spans.clone()).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert_eq!(all.iter().map(|block| block.ordinals.clone()).collect::<Vec<_>>(), [0..512, 512..1024]);
        assert_eq!(blocks((Timestamp::MIN, Timestamp::MAX), 512).len(), 1);
        assert_eq!(blocks((at(100), at(611)), 0).len(), 1, "the second block began later");
    }
}
