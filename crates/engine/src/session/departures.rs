//! The entries that the sessions archived last had in the array.
//!
//! A listing reads the array and then the archive, and sessions move from one to the other meanwhile. The entry that an
//! archived session had tells the reader whether the session was in the part of the array that it had read already.

use std::sync::atomic::{AtomicU32, Ordering};

use super::summary::SessionSlot;

/// Sessions whose entries are remembered.
const ENTRIES: usize = 16_384;

/// The entries, by the ordinals of the sessions in the archive. One thread writes, any number of threads read.
#[derive(Debug)]
pub(super) struct Departures(Box<[AtomicU32]>);

impl Departures {
    pub(super) const BYTES: usize = ENTRIES * size_of::<AtomicU32>();

    pub(super) fn new() -> Self {
        Self((0..ENTRIES).map(|_| AtomicU32::new(SessionSlot::ARCHIVED.0)).collect())
    }

    /// Notes the entry of the next session, before the archive counts it.
    pub(super) fn note(&self, ordinal: u64, slot: SessionSlot) {
        self.entry(ordinal).store(slot.0, Ordering::Release);
    }

    /// The entry that session `ordinal` had. `None` if it had none in this recorder, or if too many sessions were archived
    /// since. `count` returns the number of sessions archived so far.
    pub(super) fn slot(&self, ordinal: u64, count: impl Fn() -> u64) -> Option<SessionSlot> {
        let slot = self.entry(ordinal).load(Ordering::Acquire);
        // The writer may have begun to overwrite the entry with that of the session after the last one counted.
        let is_current = count().saturating_sub(ordinal) < ENTRIES as u64;
        Some(SessionSlot(slot)).filter(|slot| is_current && *slot != SessionSlot::ARCHIVED)
    }

    fn entry(&self, ordinal: u64) -> &AtomicU32 {
        &self.0[usize::try_from(ordinal % ENTRIES as u64).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entries_are_known_and_older_ones_are_not() {
        let departures = Departures::new();
        let count = 20_000;
        for ordinal in 0..count {
            departures.note(ordinal, SessionSlot(u32::try_from(ordinal).unwrap() + 7));
        }
        let slot = |ordinal: u64| departures.slot(ordinal, || count).map(|slot| slot.0);
        assert_eq!((slot(19_999), slot(count + 1 - ENTRIES as u64)), (Some(20_006), Some(3624)));
        assert_eq!((slot(count - ENTRIES as u64), slot(0)), (None, None));
        departures.note(count, SessionSlot::ARCHIVED);
        assert_eq!(departures.slot(count, || count + 1), None, "of a previous recorder");
    }
}
