//! Sessions that have lost their entry while several of their packets were still stored.
//!
//! A session's entry says which of its packets is the first, and how many are stored. When more sessions arrive than the
//! array has entries, an entry is reused earlier than that. What eviction needs to know of the session is noted here: so
//! its first packet still stays as long as others, and if there is no room for it, that is counted.
//!
//! The notes have a fixed size. A note that finds no place replaces the one with the fewest stored packets, which is
//! counted too.

/// Notes that share a bucket, which the slot selects.
const WAYS: usize = 8;
/// There is a note for this many entries of the array.
const ENTRIES_PER_NOTE: usize = 2;

/// A session without an entry, in 16 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    slot: u32,
    /// Sequence numbers from the first packet of the session to that of the session which took the entry.
    sequences: u32,
    /// The sequence number of the first packet in the upper 48 bits, then 13 bits for the stored packets (0 if the note
    /// is free), and 3 for the flood with which the session is kept.
    first_kept_flood: u64,
}

const FLOOD_BITS: u32 = 3;
const KEPT_BITS: u32 = 13;
const KEPT_MAX: u32 = (1 << KEPT_BITS) - 1;

impl Note {
    /// `None` if a number is too large: the session has thousands of stored packets, or began billions of packets ago.
    fn new(slot: u32, first_sequence: u64, end_sequence: u64, kept: u32, flood: u8) -> Option<Self> {
        let sequences = u32::try_from(end_sequence.checked_sub(first_sequence)?).ok()?;
        if kept > KEPT_MAX || first_sequence >> (64 - KEPT_BITS - FLOOD_BITS) != 0 {
            return None;
        }
        let first = first_sequence << (KEPT_BITS + FLOOD_BITS);
        let first_kept_flood = first | u64::from(kept) << FLOOD_BITS | u64::from(flood & 7);
        Some(Self { slot, sequences, first_kept_flood })
    }

    fn kept(self) -> u64 {
        self.first_kept_flood >> FLOOD_BITS & u64::from(KEPT_MAX)
    }

    fn first_sequence(self) -> u64 {
        self.first_kept_flood >> (KEPT_BITS + FLOOD_BITS)
    }

    fn flood(self) -> u8 {
        (self.first_kept_flood & 7).to_le_bytes()[0]
    }

    fn add_kept(&mut self) {
        if self.kept() < u64::from(KEPT_MAX) {
            self.first_kept_flood += 1 << FLOOD_BITS;
        }
    }

    fn subtract_kept(&mut self) {
        self.first_kept_flood -= 1 << FLOOD_BITS;
    }
}

/// The notes.
#[derive(Debug)]
pub(super) struct Detached {
    buckets: Box<[[Note; WAYS]]>,
    /// Notes in use.
    used: usize,
    /// Sessions that lost their first packet while others stayed.
    headless: u64,
    /// Sessions whose note was replaced.
    untracked: u64,
}

impl Detached {
    /// Bytes of the notes for an array of `entries`.
    pub(super) const fn bytes(entries: usize) -> usize {
        Self::buckets(entries) * size_of::<[Note; WAYS]>()
    }

    const fn buckets(entries: usize) -> usize {
        entries.div_ceil(ENTRIES_PER_NOTE * WAYS)
    }

    pub(super) fn new(entries: usize) -> Self {
        let buckets = vec![[Note::default(); WAYS]; Self::buckets(entries).max(1)].into();
        Self { buckets, used: 0, headless: 0, untracked: 0 }
    }

    /// Notes a session that loses the entry `slot` to one that begins with packet `end_sequence`.
    #[cold]
    pub(super) fn add(&mut self, slot: u32, first_sequence: u64, end_sequence: u64, kept: u32, flood: u8) {
        let at = slot as usize % self.buckets.len();
        let note = Note::new(slot, first_sequence, end_sequence, kept, flood);
        let place = self.buckets[at].iter_mut().min_by_key(|note| note.kept());
        let (Some(note), Some(place)) = (note, place) else {
            self.untracked += 1;
            return;
        };
        if place.kept() > 0 {
            self.untracked += 1;
        } else {
            self.used += 1;
        }
        *place = note;
    }

    fn find(&mut self, slot: u32, sequence: u64) -> Option<&mut Note> {
        let at = slot as usize % self.buckets.len();
        let is = |note: &&mut Note| {
            let after = sequence.checked_sub(note.first_sequence());
            note.slot == slot && note.kept() > 0 && after.is_some_and(|after| after < u64::from(note.sequences))
        };
        self.buckets[at].iter_mut().find(is)
    }

    /// Counts the eviction of packet `sequence`. Returns whether it is the first of its session.
    #[inline]
    pub(super) fn packet_evicted(&mut self, slot: u32, sequence: u64) -> bool {
        self.used > 0 && self.noted_packet_evicted(slot, sequence)
    }

    #[inline(never)]
    fn noted_packet_evicted(&mut self, slot: u32, sequence: u64) -> bool {
        let Some(note) = self.find(slot, sequence) else { return false };
        note.subtract_kept();
        let (is_first, is_free) = (note.first_sequence() == sequence, note.kept() == 0);
        self.used -= usize::from(is_free);
        is_first
    }

    /// Counts a packet as stored again.
    pub(super) fn packet_kept(&mut self, slot: u32, sequence: u64) {
        if let Some(note) = self.find(slot, sequence) {
            note.add_kept();
        }
    }

    /// The flood of the session that begins with packet `sequence`, if other packets of the session are stored.
    pub(super) fn first_of_more(&mut self, slot: u32, sequence: u64) -> Option<u8> {
        self.find(slot, sequence).filter(|note| note.first_sequence() == sequence).map(|note| note.flood())
    }

    /// Counts a session that lost its first packet while others stayed.
    pub(super) fn count_headless(&mut self) {
        self.headless += 1;
    }

    /// Sessions that lost their first packet while others stayed, and sessions that could not be noted.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.headless, self.untracked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_to_the_session_that_had_the_slot_when_they_came() {
        let mut detached = Detached::new(16);
        detached.add(7, 10, 20, 2, 0);
        detached.add(7, 20, 30, 3, 4);
        detached.add(8, 12, 19, 2, 0);
        assert_eq!((detached.first_of_more(7, 20), detached.first_of_more(7, 21)), (Some(4), None));
        assert!(!detached.packet_evicted(7, 15));
        assert!(detached.packet_evicted(7, 10), "the first and last packet of the first session");
        assert_eq!(detached.first_of_more(7, 10), None, "nothing is left of it");
        assert!(!detached.packet_evicted(7, 12) && !detached.packet_evicted(9, 21));
        detached.packet_evicted(7, 22);
        detached.packet_evicted(7, 20);
        assert_eq!(detached.first_of_more(7, 20), Some(4), "one packet is left");
        detached.packet_kept(7, 20);
        detached.packet_evicted(7, 25);
        assert!(detached.packet_evicted(7, 20));
        assert_eq!((detached.used, detached.counts()), (1, (0, 0)));
    }

    #[test]
    fn notes_are_bounded_and_lost_ones_counted() {
        let mut detached = Detached::new(16);
        for slot in 0..20 {
            detached.add(slot, 100, 200, 2 + slot, 0);
        }
        assert_eq!(detached.counts(), (0, 12));
        assert_eq!(detached.first_of_more(19, 100), Some(0));
        assert_eq!(detached.first_of_more(11, 100), None, "those with most packets stay");
        detached.add(1, 5, 1 << 40, 2, 0);
        assert_eq!(detached.counts(), (0, 13), "too long to be noted");
    }
}
