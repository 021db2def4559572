//! The sessions of NAT, as a bounded table: which session on one side is which on the other.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::conntrack::Translation;
use crate::lifetime::SessionLifetime;

/// Size of a translation, in bytes: with its part of tables that are as empty as they get.
const TRANSLATION_BYTES: usize = 1280;
/// Maximum number of translations of the same ends that one lookup examines.
const EXAMINED_MAX: usize = 64;
/// Time after the last packet of a session at which the kernel may still report its translation.
const LATE_NS: u64 = 1_000_000_000;

/// A session as it is on the other side of a NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherSide {
    /// Whether the session that was asked for is the one before translation.
    pub asked_is_before: bool,
    /// Whether the end that was asked for first is the responder.
    pub is_turned: bool,
    /// The ends on the other side, in the order in which they were asked for.
    pub ends: [SocketAddr; 2],
}

type Ends = (u8, SocketAddr, SocketAddr);

#[derive(Debug)]
struct Sighting {
    translation: Translation,
    first_ns: u64,
    last_ns: u64,
}

/// The most recent translations.
#[derive(Debug, Default)]
pub(crate) struct Translations {
    seen: VecDeque<Sighting>,
    /// Number of the first in `seen`.
    first: u64,
    /// Their numbers, in the order in which they were seen.
    by_ends: HashMap<Ends, VecDeque<u64>>,
}

fn key(protocol: u8, [a, b]: [SocketAddr; 2]) -> Ends {
    (protocol, a.min(b), a.max(b))
}

impl Translations {
    pub(crate) fn bytes(&self) -> usize {
        self.seen.len() * TRANSLATION_BYTES
    }

    /// Notes a change. Returns how many older ones were forgotten, so that all take at most `bytes_max` bytes.
    pub(crate) fn take(&mut self, time_ns: u64, translation: Translation, bytes_max: usize) -> u64 {
        let before = key(translation.protocol, translation.before);
        let known = self.by_ends.get(&before).and_then(|numbers| numbers.back().copied());
        let known = known.and_then(|number| self.seen.get_mut(usize::try_from(number - self.first).ok()?));
        let known = known.filter(|sighting| sighting.last_ns == u64::MAX);
        if let Some(sighting) = known {
            if !translation.is_over && sighting.translation == translation {
                return 0;
            }
            sighting.last_ns = time_ns.max(sighting.first_ns);
        }
        if translation.is_over {
            return 0;
        }
        let number = self.first + self.seen.len() as u64;
        for ends in [translation.before, translation.after] {
            self.by_ends.entry(key(translation.protocol, ends)).or_default().push_back(number);
        }
        self.seen.push_back(Sighting { translation, first_ns: time_ns, last_ns: u64::MAX });
        let mut forgotten = 0;
        while self.bytes() > bytes_max && self.forget_oldest() {
            forgotten += 1;
        }
        forgotten
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(Sighting { translation, .. }) = self.seen.pop_front() else { return false };
        for ends in [translation.before, translation.after] {
            let key = key(translation.protocol, ends);
            if let Some(numbers) = self.by_ends.get_mut(&key) {
                numbers.pop_front_if(|number| *number == self.first);
                if numbers.is_empty() {
                    self.by_ends.remove(&key);
                }
            }
        }
        self.first += 1;
        true
    }

    /// Marks all translations as over.
    pub(crate) fn end(&mut self, time_ns: u64) {
        for sighting in &mut self.seen {
            sighting.last_ns = sighting.last_ns.min(time_ns.max(sighting.first_ns));
        }
    }

    /// The other side of a session; `None` also if it is not clear which one.
    pub(crate) fn find(&self, protocol: u8, ends: [SocketAddr; 2], lived: SessionLifetime) -> Option<OtherSide> {
        let numbers = self.by_ends.get(&key(protocol, ends))?;
        let at = |number: &u64| self.seen.get(usize::try_from(number - self.first).ok()?);
        let until_ns = lived.last_ns.saturating_add(LATE_NS);
        let begun = numbers.partition_point(|number| at(number).is_some_and(|sighting| sighting.first_ns <= until_ns));
        let examined = begun.saturating_sub(EXAMINED_MAX)..begun;
        let is_cut = examined.start > 0;
        let sightings = numbers.range(examined).filter_map(at);
        let mut fitting = sightings.filter(|sighting| sighting.last_ns >= lived.first_ns).peekable();
        // What was not examined may fit too.
        if is_cut && fitting.peek().is_none_or(|first| first.first_ns > lived.first_ns) {
            return None;
        }
        let found = fitting.next()?;
        if fitting.any(|other| other.translation != found.translation) {
            return None;
        }
        let Translation { before, after, .. } = found.translation;
        let turned = |[a, b]: [SocketAddr; 2]| [b, a];
        if ends == before || ends == turned(before) {
            let is_turned = ends != before;
            return Some(OtherSide {
                asked_is_before: true,
                is_turned,
                ends: if is_turned { turned(after) } else { after },
            });
        }
        let is_turned = ends != after;
        Some(OtherSide { asked_is_before: false, is_turned, ends: if is_turned { turned(before) } else { before } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn masqueraded(port: u16) -> Translation {
        let to = SocketAddr::from(([192, 0, 2, 7], 443));
        Translation {
            protocol: 6,
            before: [SocketAddr::from(([10, 0, 0, 2], port)), to],
            after: [SocketAddr::from(([198, 51, 100, 1], port)), to],
            is_over: false,
        }
    }

    fn at(first: u64, last: u64) -> SessionLifetime {
        SessionLifetime { first_ns: first * SECOND, last_ns: last * SECOND, closed: true }
    }

    #[test]
    fn each_side_of_a_nat_has_the_other_for_its_time_only() {
        let mut table = Translations::default();
        let one = masqueraded(4000);
        table.take(10 * SECOND, one, 1 << 20);
        table.take(20 * SECOND, Translation { is_over: true, ..one }, 1 << 20);
        let other = table.find(6, one.before, at(10, 19)).unwrap();
        assert_eq!((other.asked_is_before, other.ends), (true, one.after));
        let [a, b] = one.after;
        let other = table.find(6, [b, a], at(10, 19)).unwrap();
        assert_eq!((other.asked_is_before, other.ends), (false, [one.before[1], one.before[0]]));
        assert_eq!(table.find(17, one.before, at(10, 19)), None);
        assert_eq!(table.find(6, one.before, at(21, 30)), None, "after its end");
        // The same outside by another host inside, at the same time as far as is known.
        let two = Translation { before: [SocketAddr::from(([10, 0, 0, 3], 9)), one.before[1]], ..one };
        table.take(19 * SECOND, two, 1 << 20);
        assert_eq!(table.find(6, one.after, at(12, 30)), None, "not clear");
    }

    #[test]
    fn translations_end_when_their_events_are_lost_and_many_of_the_same_ends_take_no_longer() {
        let mut table = Translations::default();
        let one = masqueraded(4000);
        table.take(10 * SECOND, one, 1 << 20);
        table.end(20 * SECOND);
        assert!(table.find(6, one.before, at(15, 30)).is_some(), "it began before");
        assert_eq!(table.find(6, one.before, at(21, 30)), None, "its end may be among the events that were lost");
        for number in 0..1000 {
            table.take((100 + number) * SECOND, one, 1 << 20);
            table.take((100 + number) * SECOND + 1, Translation { is_over: true, ..one }, 1 << 20);
        }
        assert!(table.find(6, one.before, at(1099, 1099)).is_some());
        assert!(table.find(6, one.before, at(500, 500)).is_some());
    }

    #[test]
    fn a_million_translations_stay_within_their_bytes_and_are_counted() {
        let mut table = Translations::default();
        let mut forgotten = 0;
        for number in 0..1_000_000u32 {
            let mut one = masqueraded(4000);
            one.before[0].set_ip(std::net::Ipv4Addr::from(number).into());
            one.after[0].set_port(u16::try_from(number % 60_000).unwrap());
            forgotten += table.take(u64::from(number), one, 1 << 20);
            assert!(table.bytes() <= 1 << 20);
        }
        assert_eq!(table.seen.len() as u64 + forgotten, 1_000_000);
        assert!(table.by_ends.len() <= 2 * table.seen.len());
    }
}
