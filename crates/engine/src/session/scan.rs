//! Scans over all sessions, for queries that no index can answer. There may be millions of sessions.
//!
//! A scan skips entries that were never used, and reads only the first of an entry's two cache lines unless the session
//! matches.

use super::archive::ArchivePosition;
use super::array::SessionArray;
use super::entry::Entry;
use super::summary::Session;
use super::summary::SessionSlot;
use base::time::Timestamp;

impl SessionArray {
    /// The sessions in the array that overlap a window: last packet at `since` or later, first packet at `until` or
    /// earlier. In no particular order.
    pub fn overlapping(&self, since: Timestamp, until: Timestamp) -> impl Iterator<Item = Session> + '_ {
        self.matching(move |entry| entry.last() >= since).filter(move |session| session.first <= until)
    }

    /// The sessions of [`known`](Self::known) that overlap a window and have lost packets.
    pub fn cut(&self, since: Timestamp, until: Timestamp) -> impl Iterator<Item = Session> + '_ {
        let is_cut = move |entry: Entry<'_>| entry.last() >= since && u64::from(entry.kept_packets()) < entry.packets();
        let array = self.matching(is_cut).filter(move |session| session.first <= until);
        let past = self.past_overlapping(since, until).map(|(_, session)| session);
        array.chain(past).filter(|session| session.kept_packets < session.packets.sum())
    }

    /// The sessions that overlap a window: those in the array in no particular order, then the archived ones, each with
    /// its location in the archive.
    ///
    /// No session comes twice. A session that leaves the array during the scan, before the scan reaches it, is missed.
    pub fn known(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (Option<ArchivePosition>, Session)> + '_ {
        // Fix the archive's end before the array is scanned: no session that leaves the array during the scan then
        // comes twice.
        let past = self.past_overlapping(since, until).map(|(place, session)| (Some(place), session));
        self.overlapping(since, until).map(|session| (None, session)).chain(past)
    }

    /// The earliest time from which sessions are known: the archive's earliest start or the array's earliest end,
    /// whichever comes first. `None` if no session is known.
    pub fn earliest(&self) -> Option<Timestamp> {
        // The time alone: entries that were never used come last, and there may be a million of others.
        let array = (0..self.used()).filter_map(|slot| self.entry(SessionSlot(slot))).map(Entry::last).min();
        [self.archive().earliest(), array].into_iter().flatten().min()
    }

    /// The archived sessions that overlap a window, up to the last one archived before the call, each with its location.
    pub fn past_overlapping(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (ArchivePosition, Session)> + '_ {
        self.past_overlapping_from(0, since, until)
    }

    /// The same, from the session with an ordinal on.
    pub fn past_overlapping_from(
        &self,
        ordinal: u64,
        since: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (ArchivePosition, Session)> + '_ {
        let past = self.archive().sessions(ordinal..self.archive().count(), Some((since, until)));
        let past = past.filter(move |(_, session)| session.last >= since && session.first <= until);
        past.map(|(place, session)| (place, session.with_likely_responder(self.servers())))
    }

    /// The sessions in the array whose entries satisfy `wanted`.
    fn matching(&self, wanted: impl Fn(Entry<'_>) -> bool) -> impl Iterator<Item = Session> {
        (0..self.used()).filter_map(move |slot| {
            let entry = self.entry(SessionSlot(slot))?;
            // Check consistency only for a match, as the generation is in the second cache line.
            let session = if wanted(entry) { entry.session(SessionSlot(slot)) } else { None };
            session.map(|session| session.with_likely_responder(self.servers()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::depth::LostParts;
    use crate::session::entry::CountedPacket;
    use crate::session::key::SessionKey;
    use base::memory::Lock;

    fn at(s: u64) -> Timestamp {
        Timestamp(s * 1_000_000_000)
    }

    /// Sessions of two packets and ten seconds. One begins per second, and every third has lost a packet.
    fn array_of(sessions: u32) -> SessionArray {
        let array = SessionArray::new(1000, 256 << 10, 1, Lock::No).unwrap();
        for slot in 0..sessions {
            let entry = array.entry(SessionSlot(slot)).unwrap();
            let first = u64::from(slot) + 100;
            let [packet, later] =
                [first, first + 10].map(|s| CountedPacket { time: at(s), wire_bytes: 100, captured_bytes: 100 });
            entry.begin(&SessionKey([u64::from(slot); 6]), u64::from(slot), true, &packet, 0);
            entry.count(&entry.before(later.time), true, &later, 0);
            if slot % 3 == 0 {
                entry.kept_less(100, at(1000), LostParts::NONE);
            }
        }
        array
    }

    #[test]
    fn the_entries_in_use_are_found_without_looking_at_all() {
        for used in [0, 1, 2, 3, 499, 500, 999, 1000] {
            assert_eq!(array_of(used).used(), used);
        }
    }

    #[test]
    fn a_window_has_the_sessions_that_overlap_it() {
        let array = array_of(300);
        let slots = |sessions: &mut dyn Iterator<Item = Session>| -> Vec<u32> { sessions.map(|s| s.slot.0).collect() };
        let whole = |from: u64, to: u64| (at(from), at(to));
        for (since, until) in [whole(0, 99), whole(0, 100), whole(150, 155), whole(390, 500), whole(410, 500)] {
            let expected: Vec<u32> = (0..300)
                .filter(|slot| at(u64::from(*slot) + 100) <= until && at(u64::from(*slot) + 110) >= since)
                .collect();
            assert_eq!(slots(&mut array.overlapping(since, until)), expected, "{since} {until}");
            assert_eq!(slots(&mut array.known(since, until).map(|(_, session)| session)), expected);
            let cut: Vec<u32> = expected.iter().copied().filter(|slot| slot % 3 == 0).collect();
            assert_eq!(slots(&mut array.cut(since, until)), cut, "{since} {until}");
        }
        assert_eq!(array.earliest(), Some(at(110)));
        assert_eq!(super::tests::array_of(0).earliest(), None);
    }
}
