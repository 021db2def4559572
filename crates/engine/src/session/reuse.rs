//! Selects the entries that new sessions take over.
//!
//! Entries without stored packets come first, in the order of their last eviction. Otherwise one scan of the array
//! rates a few neighbours and selects the least valuable ones: an ended session before a live one, an unanswered
//! session before a conversation, then the one that is idle longest. A flood therefore reuses its own entries.
//!
//! Entries are selected a few at a time and before they are needed. One scan then serves several sessions, and memory
//! has time to fetch what taking over an entry writes: the entry itself, and the word of its old session in the index.
//! An entry whose session has changed since is passed over.

use std::collections::VecDeque;

use super::array::SessionArray;
use super::entry::Entry;
use super::key::SessionKey;
use super::summary::SessionSlot;
use base::time::Timestamp;

/// Queued entries that are examined at a time.
const EMPTIED_EXAMINED: usize = 4;
/// Entries of the array that a scan rates.
const SCANNED: usize = 16;
/// Entries that a scan selects at most. The others are passed over until the next lap, so that sessions which come back
/// in turns find some of their entries again even if there are a few more sessions than entries.
const SELECTED_MAX: usize = 12;

/// The entries that can be reused.
#[derive(Debug)]
pub(super) struct EntryReuse {
    /// Entries without stored packets. No entry is queued twice.
    emptied: VecDeque<u32>,
    /// The entry at which the next scan starts.
    hand: u32,
    /// Entries selected from `emptied`.
    empty: VecDeque<ReusableEntry>,
    /// Entries selected by a scan, the next one last.
    scanned: Vec<ReusableEntry>,
}

/// An entry that was selected, and the session that it held then.
#[derive(Clone, Copy, Debug)]
struct ReusableEntry {
    slot: u32,
    /// The hash of the session's key.
    hash: u64,
    first_sequence: u64,
    packets: u64,
}

impl ReusableEntry {
    /// Whether the entry still holds the same session, and no packet of it came since.
    fn is_unchanged(&self, array: &SessionArray) -> bool {
        entry(array, self.slot).state() == (self.first_sequence, self.packets)
    }
}

impl EntryReuse {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            emptied: VecDeque::with_capacity(capacity as usize),
            hand: 0,
            empty: VecDeque::with_capacity(EMPTIED_EXAMINED),
            scanned: Vec::with_capacity(SELECTED_MAX),
        }
    }

    /// Bytes per entry of the array.
    pub(super) const SLOT_COST_BYTES: usize = size_of::<u32>();

    /// Queues an entry that has no stored packet and is not queued yet.
    pub(super) fn push(&mut self, slot: u32) {
        self.emptied.push_back(slot);
    }

    /// The entry to reuse and the hash of its session's key. `expect` returns the hash of a key that will soon leave the
    /// index.
    pub(super) fn next(
        &mut self,
        array: &SessionArray,
        now: Timestamp,
        expect: impl Fn(&SessionKey) -> u64,
    ) -> (u32, u64) {
        if self.empty.is_empty() && !self.emptied.is_empty() {
            self.select_empty(array, now, &expect);
        }
        while let Some(selected) = self.empty.pop_front() {
            if selected.is_unchanged(array) {
                if self.empty.is_empty() {
                    self.select_empty(array, now, &expect);
                }
                return (selected.slot, selected.hash);
            }
            self.put_back(selected.slot, array);
        }
        loop {
            while let Some(selected) = self.scanned.pop() {
                if selected.is_unchanged(array) {
                    if self.scanned.is_empty() {
                        self.scan(array, now, &expect);
                    }
                    return (selected.slot, selected.hash);
                }
            }
            self.scan(array, now, &expect);
        }
    }

    /// Selects queued entries whose sessions have ended or were never answered.
    fn select_empty(&mut self, array: &SessionArray, now: Timestamp, expect: &impl Fn(&SessionKey) -> u64) {
        for _ in 0..EMPTIED_EXAMINED.min(self.emptied.len()) {
            let Some(slot) = self.emptied.pop_front() else { return };
            let entry = entry(array, slot);
            if entry.kept_packets() == 0 && !entry.ended(now) && !entry.is_unanswered() {
                self.emptied.push_back(slot);
                continue;
            }
            entry.set_queued(false);
            if entry.kept_packets() == 0 {
                self.empty.push_back(select(entry, slot, expect));
            }
        }
        if let Some(next) = self.emptied.front() {
            entry(array, *next).prefetch();
        }
    }

    /// Queues an entry again that was selected and has changed, if it still has no stored packet.
    fn put_back(&mut self, slot: u32, array: &SessionArray) {
        let entry = entry(array, slot);
        if entry.kept_packets() == 0 && !entry.is_queued() {
            entry.set_queued(true);
            self.emptied.push_back(slot);
        }
    }

    /// Rates the next [`SCANNED`] entries of the array and selects the least valuable ones: those that are as worthless
    /// as the worst and idle for at least half as long. Of live conversations it selects only one.
    fn scan(&mut self, array: &SessionArray, now: Timestamp, expect: &impl Fn(&SessionKey) -> u64) {
        let (mut rated, mut count) = ([(0, 0); SCANNED], 0);
        for (rated, (slot, entry)) in rated.iter_mut().zip(array.entries_from(self.hand, SCANNED)) {
            *rated = (rating(entry, now), slot);
            count += 1;
        }
        let rated = &rated[..count];
        self.hand = rated.last().map(|(_, slot)| slot + 1).filter(|next| *next < array.capacity()).unwrap_or(0);
        array.entries_from(self.hand, SCANNED).for_each(|(_, entry)| entry.prefetch_counts());
        let worst = rated.iter().map(|rated| rated.0).max().unwrap_or(0);
        let enough = if worst & CLASS == 0 { worst } else { (worst & CLASS) | ((worst & !CLASS) / 2) };
        let many = if worst & CLASS == 0 { 1 } else { SELECTED_MAX };
        for &(_, slot) in rated.iter().rev().filter(|rated| rated.0 >= enough).take(many) {
            self.scanned.push(select(entry(array, slot), slot, expect));
        }
    }
}

/// How worthless a session is: ended in the highest bit, unanswered in the next, and then how long it is idle.
fn rating(entry: Entry<'_>, now: Timestamp) -> u64 {
    let (idle_ns, ended) = entry.idle(now);
    u64::from(ended) << 63 | u64::from(entry.is_unanswered()) << 62 | idle_ns.min(!CLASS)
}

/// The bits of a rating that weigh more than the idle time.
const CLASS: u64 = 0b11 << 62;

fn select(entry: Entry<'_>, slot: u32, expect: &impl Fn(&SessionKey) -> u64) -> ReusableEntry {
    let (first_sequence, packets) = entry.state();
    ReusableEntry { slot, hash: expect(&entry.key()), first_sequence, packets }
}

fn entry(array: &SessionArray, slot: u32) -> Entry<'_> {
    match array.entry(SessionSlot(slot)) {
        Some(entry) => entry,
        None => unreachable!("entries of the array are queued and scanned"),
    }
}
