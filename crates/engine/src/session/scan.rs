//! Looking through all sessions, as far as that cannot be avoided: many questions do, and there may be millions.
//!
//! Entries that were never used are not looked at, and of those that do not count only the first of their two cache lines is.

use super::archive::ArchivePosition;
use super::array::SessionArray;
use super::entry::Entry;
use super::summary::Session;
use super::summary::SessionSlot;
use base::time::Timestamp;

impl SessionArray {
    /// Entries that were ever used: the first ones of the array, as no later one is given away before they are.
    pub fn used(&self) -> u32 {
        let (mut used, mut unused) = (0, self.capacity());
        while used < unused {
            let middle = used + (unused - used) / 2;
            match self.entry(SessionSlot(middle)).is_some_and(Entry::in_use) {
                true => used = middle + 1,
                false => unused = middle,
            }
        }
        used
    }

    /// The sessions in the array that had a packet at `since` or later and none of them after `until` alone, in no order.
    pub fn overlapping(&self, since: Timestamp, until: Timestamp) -> impl Iterator<Item = Session> + '_ {
        self.matching(move |entry| entry.last() >= since).filter(move |session| session.first <= until)
    }

    /// The sessions known of which packets are gone, as far as they overlap a window; each as [`known`](Self::known) shows it.
    pub fn cut(&self, since: Timestamp, until: Timestamp) -> impl Iterator<Item = Session> + '_ {
        let is_cut = move |entry: Entry<'_>| entry.last() >= since && u64::from(entry.kept_packets()) < entry.packets();
        let array = self.matching(is_cut).filter(move |session| session.first <= until);
        let past = self.past_overlapping(since, until).map(|(_, session)| session);
        array.chain(past).filter(|session| session.kept_packets < session.packets.sum())
    }

    /// The sessions known that overlap a window: those in the array in no order, then those of the past, each with
    /// the place where it is found again.
    ///
    /// None comes twice. One that leaves the array while this goes on, before it was come to, is missed.
    pub fn known(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (Option<ArchivePosition>, Session)> + '_ {
        // Before the array is looked at: who leaves it meanwhile has been come to, or is missed.
        let past = self.past_overlapping(since, until).map(|(place, session)| (Some(place), session));
        self.overlapping(since, until).map(|session| (None, session)).chain(past)
    }

    /// No session known ended before this, about; `None` where nothing is known.
    pub fn earliest(&self) -> Option<Timestamp> {
        let array = self.sessions().map(|session| session.last).min();
        [self.archive().earliest(), array].into_iter().flatten().min()
    }

    fn past_overlapping(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (ArchivePosition, Session)> + '_ {
        let past = self.archive().sessions(self.archive().count(), Some((since, until)));
        past.filter(move |(_, session)| session.last >= since && session.first <= until)
    }

    /// The sessions in the array whose entries are `wanted` at a first look.
    fn matching(&self, wanted: impl Fn(Entry<'_>) -> bool) -> impl Iterator<Item = Session> {
        (0..self.used()).filter_map(move |slot| {
            let entry = self.entry(SessionSlot(slot))?;
            // Whether it is whole is looked at only then: that stands in the second line.
            if wanted(entry) { entry.session(SessionSlot(slot)) } else { None }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::key::SessionKey;
    use base::memory::Lock;

    fn at(s: u64) -> Timestamp {
        Timestamp(s * 1_000_000_000)
    }

    /// Sessions of ten seconds that begin one a second, of two packets each; every third one has lost one.
    fn array_of(sessions: u32) -> SessionArray {
        let array = SessionArray::new(1000, 256 << 10, Lock::No).unwrap();
        for slot in 0..sessions {
            let entry = array.entry(SessionSlot(slot)).unwrap();
            let first = u64::from(slot) + 100;
            entry.begin(&SessionKey([u64::from(slot); 6]), at(first), u64::from(slot), 0);
            for time in [first, first + 10] {
                entry.count(true, at(time), 100, 0);
                entry.kept_more(100);
            }
            if slot % 3 == 0 {
                entry.kept_less(100, at(1000));
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
