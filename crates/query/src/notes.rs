//! What a search meets besides the packets it finds. Answers use it to report what is missing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use super::History;
use base::packet::LinkType;
use base::time::Timestamp;
use engine::session::{Session, SessionArray, SessionSlot};
use engine::store::record::RecordHeader;
use filter::FilterSet;

/// Maximum number of recorded drop times. Further drops are added to the last one.
const DROPS_MAX: usize = 1024;
/// Maximum number of sessions whose found packets are counted (about 48 bytes each).
const SESSIONS_MAX: usize = 16_384;

/// Kernel drops met by a search, and the number of packets it found per session.
#[derive(Clone, Debug, Default)]
pub struct SearchNotes {
    /// Time of the first packet after a kernel drop, and the number of dropped packets.
    drops: Vec<(Timestamp, u64)>,
    /// Packets found per session, by worker and slot.
    sessions: HashMap<(usize, SessionSlot), FoundInSession, foldhash::fast::RandomState>,
    /// Whether packets of further sessions were found but not counted.
    more_sessions: bool,
    /// Packets that were captured without what the expression tests, by link type.
    not_captured: BTreeMap<LinkType, u64>,
}

/// Packets found in one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundInSession {
    first_sequence: u64,
    pub(super) packets: u64,
}

impl SearchNotes {
    pub(super) fn drop_before(&mut self, time: Timestamp, packets: u32) {
        let full = self.drops.len() == DROPS_MAX;
        match self.drops.last_mut() {
            Some(last) if full => *last = (last.0.max(time), last.1 + u64::from(packets)),
            _ => self.drops.push((time, u64::from(packets))),
        }
    }

    /// Packets that the kernel dropped within the window. Includes a drop only if the packet after it is retained.
    pub fn dropped_within(&self, since: Timestamp, until: Timestamp) -> u64 {
        self.drops.iter().filter(|(time, _)| *time >= since && *time <= until).map(|(_, packets)| packets).sum()
    }

    /// Returns whether a packet matches. Counts it if it does not, and its captured bytes end before what the expression
    /// tests. Packets that are cut within their headers count as not opened instead.
    pub(super) fn ask(&mut self, filter: &mut FilterSet, link_type: LinkType, data: &[u8], original_len: u32) -> bool {
        if filter.matches(link_type, data, original_len) {
            return true;
        }
        let is_cut = usize::try_from(original_len).is_ok_and(|len| data.len() < len);
        if is_cut && !filter.rejects_start(link_type, data, original_len) && decode::unopened(link_type, data).is_none()
        {
            *self.not_captured.entry(link_type).or_default() += 1;
        }
        false
    }

    /// Packets that were captured without what the expression tests, by link type.
    pub(super) fn not_captured(&self) -> impl Iterator<Item = (LinkType, u64)> + '_ {
        self.not_captured.iter().map(|(link_type, packets)| (*link_type, *packets))
    }

    /// The counts of packets alone, without those of sessions.
    pub(super) fn of_packets(&self) -> Self {
        Self { drops: self.drops.clone(), not_captured: self.not_captured.clone(), ..Self::default() }
    }

    /// Counts a found packet for its session.
    pub(super) fn found(&mut self, worker: usize, sessions: &SessionArray, header: &RecordHeader) {
        let full = self.sessions.len() >= SESSIONS_MAX;
        match self.sessions.entry((worker, header.session)) {
            Entry::Occupied(mut entry) => entry.get_mut().packets += 1,
            Entry::Vacant(_) if full => self.more_sessions = true,
            Entry::Vacant(entry) => {
                if let Some(session) = sessions.session_at(header.session, header.sequence) {
                    entry.insert(FoundInSession { first_sequence: session.first_sequence, packets: 1 });
                }
            }
        }
    }

    /// Packets found in a session; `None` if none was found or the session is not counted.
    pub(super) fn found_of(&self, worker: usize, session: &Session) -> Option<u64> {
        let found = self.sessions.get(&(worker, session.slot))?;
        (found.first_sequence == session.first_sequence).then_some(found.packets)
    }

    /// Whether the found packets of every session are counted.
    pub(super) fn counts_all(&self) -> bool {
        !self.more_sessions
    }
}

/// A set of sessions with one bit per slot. The session array bounds its size, whatever matches.
#[derive(Clone, Debug, Default)]
pub(super) struct SessionBits(Vec<Vec<u64>>);

impl SessionBits {
    pub(super) fn new(history: &History) -> Self {
        let words = |slots: u32| usize::try_from(slots.div_ceil(64)).unwrap_or(0);
        Self(history.workers.iter().map(|worker| vec![0; words(worker.sessions.used())]).collect())
    }

    pub(super) fn add(&mut self, worker: usize, sessions: &SessionArray, header: &RecordHeader) {
        if sessions.session_at(header.session, header.sequence).is_none() {
            return;
        }
        // The set has no bit for a slot first used after the set was made: that session began after the query.
        self.insert(worker, header.session);
    }

    /// Adds the session that has this slot.
    pub(super) fn insert(&mut self, worker: usize, slot: SessionSlot) {
        let (word, bit) = Self::place(slot);
        if let Some(word) = self.0.get_mut(worker).and_then(|words| words.get_mut(word)) {
            *word |= 1 << bit;
        }
    }

    pub(super) fn contains(&self, worker: usize, slot: SessionSlot) -> bool {
        let (word, bit) = Self::place(slot);
        self.0.get(worker).and_then(|words| words.get(word)).is_some_and(|word| word >> bit & 1 != 0)
    }

    /// Removes the session that has this slot.
    pub(super) fn remove(&mut self, worker: usize, slot: SessionSlot) {
        let (word, bit) = Self::place(slot);
        if let Some(word) = self.0.get_mut(worker).and_then(|words| words.get_mut(word)) {
            *word &= !(1 << bit);
        }
    }

    /// Adds all sessions of another set.
    pub(super) fn union(&mut self, other: &Self) {
        for (words, others) in self.0.iter_mut().zip(&other.0) {
            words.iter_mut().zip(others).for_each(|(word, other)| *word |= other);
        }
    }

    /// The words of one worker after the other.
    pub(super) fn into_words(self) -> Vec<Vec<u64>> {
        self.0
    }

    fn place(slot: SessionSlot) -> (usize, u32) {
        (usize::try_from(slot.0 / 64).unwrap_or(usize::MAX), slot.0 % 64)
    }
}
