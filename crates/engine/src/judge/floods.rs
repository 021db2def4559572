//! Flood detection: finds parties whose session starts would displace those of all others.
//!
//! A flooding host opens sessions without end, so everything that it sends is a start, and the depth of a packet in its
//! session does not identify it. The detector therefore counts the bytes of starts. A party with more than an eighth of
//! all starts is a *flood*. Sessions of a flood are stored in queues of their own, which have a limited share of the
//! memory (see [`store`](crate::store)). The limit applies only while others need room: the only client of a server, or
//! the gateway in front of a thousand hosts, can use all of it.
//!
//! The detector counts two kinds of parties:
//! - The originator of sessions: an address, or for IPv6 a /64 prefix, because a single host can own one. This finds
//!   scans, endless single-packet sessions, and queries of random names to a resolver. A hash sorts such hosts into
//!   several floods.
//! - Sessions that the responder has not answered and the originator has not continued, per destination address and in
//!   total. This finds spoofed sources. All such sessions are one flood. A session leaves it when it becomes a
//!   conversation, so that real clients of a server under a SYN flood are kept as usual.
//!
//! Many answered sessions to one server are not a flood, because a busy server looks the same.
//!
//! A counter loses half of its value in ten minutes. No counter is changed for that. Instead, what is added grows: a
//! byte counts twice as much as one ten minutes before (forward decay; Cormode, Shkapenyuk, Srivastava, Xu 2009). All
//! counters are scaled down together after many hours, before the numbers become too large.
//!
//! The counters are in a table of fixed size: two rows with different hashes, of which the lower value counts (a
//! count-min sketch with conservative update; Cormode and Muthukrishnan 2005, Estan and Varghese 2002). A party that
//! shares a bucket with a flood in one row is unlikely to do so in the other.

use std::sync::atomic::Ordering;

use crate::session::hash::{fold, seeds};
use crate::session::{Ends, SessionMarks};
use base::memory::{Lock, Memory};

/// Number of buckets in one row.
const BUCKETS: usize = 1024;
const ROWS: usize = 2;
/// Time in which a counter falls by half.
const HALF_LIFE_NS: u64 = 600_000_000_000;
/// The weight of a byte is computed at most once in this time, because that takes an exponential.
const WEIGHT_STEP_NS: u64 = 60_000_000;
/// Half-lives after which all counters are scaled down.
const HALF_LIVES_MAX: u64 = 64;
/// A party with more than this fraction of all starts is a flood.
const PARTY_SHARE: f64 = 1.0 / 8.0;
/// All unanswered sessions together are a flood if they are more than this fraction of all starts.
const UNANSWERED_SHARE: f64 = 0.5;
/// The part of the store, as a divisor, that the starts of a flood would at least fill in about ten minutes. The
/// threshold is low, because packets that arrive before it is reached are stored among those of others, and would
/// outlive the later packets of the same party.
const FLOOD_STORE_SHARE: u64 = 8192;
/// The part of the store, as a divisor, that the starts of a storm would at least fill in about ten minutes.
const STORM_STORE_SHARE: u64 = 2;
/// Estimated bytes of a session that has only begun: one or two packets and their records.
const BEGUN_BYTES: f64 = 256.0;
/// Number of growth steps that are counted per session: at 512, 1,536 and 3,584 bytes, the range that is kept longest.
pub(super) const GROWN_MAX: u8 = 3;
/// The flood of unanswered sessions. Higher numbers are floods of hosts, selected by a hash.
const UNANSWERED: u8 = 1;

/// The counters of all parties.
#[derive(Debug)]
pub(super) struct Floods {
    /// The rows of the sketch, one after another: levels as the bits of an `f64`.
    rows: Memory,
    /// The level of all sessions.
    all: f64,
    /// The level of all unanswered sessions, except those in the flood of a host.
    unanswered: f64,
    /// What a byte counts now, and when that was computed.
    weight: f64,
    weighed_ns: u64,
    /// When a byte counted 1.
    origin_ns: u64,
    /// Secret numbers of the hash, two for each kind of party.
    seeds: [[u64; 2]; 2],
    flood_bytes: f64,
    storm_bytes: f64,
}

/// Offset in a session, in bytes, of the growth step that follows `grown` steps.
pub(super) fn grown_from_bytes(grown: u8) -> u64 {
    ((2u64 << grown) - 1) * 512
}

/// The kind of party that a bucket counts.
#[derive(Clone, Copy)]
enum Party {
    Originator,
    Unanswered,
}

impl Floods {
    /// Bytes of memory that the counters take.
    pub(super) const BYTES: u64 = (ROWS * BUCKETS * 8) as u64;

    pub(super) fn new(store_bytes: u64, seed: u64, lock: Lock) -> std::io::Result<Self> {
        #[allow(clippy::cast_precision_loss, reason = "a share of memory need not be exact")]
        let part = |divisor: u64| (store_bytes / divisor) as f64;
        let [a, b, c, d] = seeds(seed ^ 0xf100d);
        Ok(Self {
            rows: Memory::new(ROWS * BUCKETS, lock)?,
            all: 0.0,
            unanswered: 0.0,
            weight: 1.0,
            weighed_ns: 0,
            origin_ns: 0,
            // A factor of the hash is odd, so that it loses no bits.
            seeds: [[a, b | 1], [c, d | 1]],
            flood_bytes: part(FLOOD_STORE_SHARE),
            storm_bytes: part(STORM_STORE_SHARE),
        })
    }

    /// Counts a session that begins. Returns its flood, 0 for none, and whether that flood is a storm.
    #[inline]
    pub(super) fn begins(&mut self, ends: &Ends, now_ns: u64) -> (u8, bool) {
        self.weigh(now_ns);
        let begun = BEGUN_BYTES * self.weight;
        let [flood, storm] = [self.flood_bytes, self.storm_bytes].map(|bytes| bytes * self.weight);
        self.all += begun;
        let share = flood.max(self.all * PARTY_SHARE);
        let hash = self.hash(ends, Party::Originator);
        let level = self.add(places(hash), begun);
        if level > share {
            return (host_flood(hash), level > storm);
        }
        let of_address = self.add(places(self.hash(ends, Party::Unanswered)), begun);
        self.unanswered += begun;
        if of_address > share || self.unanswered > flood.max(self.all * UNANSWERED_SHARE) {
            return (UNANSWERED, of_address.max(self.unanswered) > storm);
        }
        (0, false)
    }

    /// Counts growth step `grown` of a session, from 1 to [`GROWN_MAX`].
    pub(super) fn grows(&mut self, ends: &Ends, grown: u8, now_ns: u64) {
        self.weigh(now_ns);
        let bytes = BEGUN_BYTES * self.weight * f64::from(1u32 << grown);
        self.all += bytes;
        self.add(places(self.hash(ends, Party::Originator)), bytes);
    }

    /// Counts a session that has become a conversation, so its source is not spoofed. Returns its flood from now on.
    pub(super) fn answered(&mut self, ends: &Ends, flood: u8, now_ns: u64) -> u8 {
        if flood > UNANSWERED {
            return flood;
        }
        let left = if flood == UNANSWERED { SessionMarks::LEFT_FLOOD } else { flood };
        self.weigh(now_ns);
        let begun = BEGUN_BYTES * self.weight;
        self.subtract(places(self.hash(ends, Party::Unanswered)), begun);
        self.unanswered = (self.unanswered - begun).max(0.0);
        left
    }

    /// Adds to the buckets of one party and returns its level.
    #[inline]
    fn add(&mut self, places: [usize; ROWS], bytes: f64) -> f64 {
        let levels = places.map(|place| self.level(place));
        let level = levels[0].min(levels[1]) + bytes;
        for (place, old) in places.into_iter().zip(levels) {
            // Conservative update: a bucket with a higher level counts another party, so it stays as it is.
            if old < level {
                self.rows[place].store(level.to_bits(), Ordering::Relaxed);
            }
        }
        level
    }

    /// Subtracts from the buckets of one party.
    fn subtract(&mut self, places: [usize; ROWS], bytes: f64) {
        for place in places {
            let level = (self.level(place) - bytes).max(0.0);
            self.rows[place].store(level.to_bits(), Ordering::Relaxed);
        }
    }

    fn level(&self, place: usize) -> f64 {
        f64::from_bits(self.rows[place].load(Ordering::Relaxed))
    }

    /// Updates what a byte counts.
    #[inline]
    fn weigh(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.weighed_ns) >= WEIGHT_STEP_NS {
            self.weigh_anew(now_ns);
        }
    }

    #[cold]
    fn weigh_anew(&mut self, now_ns: u64) {
        let half_lives = (now_ns - self.origin_ns) / HALF_LIFE_NS;
        if half_lives >= HALF_LIVES_MAX {
            // Scaling by powers of two is exact.
            let scale = 0.5f64.powi(i32::try_from(half_lives).unwrap_or(i32::MAX));
            for place in 0..ROWS * BUCKETS {
                self.rows[place].store((self.level(place) * scale).to_bits(), Ordering::Relaxed);
            }
            self.all *= scale;
            self.unanswered *= scale;
            self.origin_ns += half_lives * HALF_LIFE_NS;
        }
        #[allow(clippy::cast_precision_loss, reason = "a decay need not be exact")]
        let age = (now_ns - self.origin_ns) as f64 / HALF_LIFE_NS as f64;
        self.weight = age.exp2();
        self.weighed_ns = now_ns;
    }

    /// A hash of the address by which a party is known. Who does not know the seeds cannot choose addresses that share
    /// buckets.
    #[inline]
    fn hash(&self, ends: &Ends, of: Party) -> u64 {
        let [low, high] = match of {
            Party::Originator if ends.are_ipv6 => [0, ends.originator[1]],
            Party::Originator => ends.originator,
            Party::Unanswered => ends.responder,
        };
        let [seed, factor] = self.seeds[of as usize];
        let second = fold(high ^ seed, factor);
        fold(low ^ second, factor)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "masked to the row's size")]
fn places(hash: u64) -> [usize; ROWS] {
    let (low, high) = (hash as usize % BUCKETS, (hash >> 32) as usize % BUCKETS);
    [low, BUCKETS + high]
}

/// The flood number of a host.
#[allow(clippy::cast_possible_truncation, reason = "less than the number of floods")]
fn host_flood(hash: u64) -> u8 {
    let first = UNANSWERED + 1;
    first + ((hash >> 48) % (SessionMarks::FLOODS as u64 - u64::from(first))) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn floods() -> Floods {
        Floods::new(32 << 20, 1, Lock::No).unwrap()
    }

    fn ends(originator: u32, responder: u32) -> Ends {
        Ends { originator: [originator.into(), 0], responder: [responder.into(), 0], are_ipv6: false }
    }

    /// Begins `count` sessions, one every `every_ns`. Returns the flood of the last one, and whether it is a storm.
    fn last(floods: &mut Floods, count: u32, every_ns: u64, hosts: impl Fn(u32) -> (u32, u32)) -> (u8, bool) {
        let mut flood = (0, false);
        for i in 0..count {
            let (originator, responder) = hosts(i);
            flood = floods.begins(&ends(originator, responder), 1 + u64::from(i) * every_ns);
        }
        flood
    }

    #[test]
    fn a_party_with_a_large_part_of_all_starts_is_a_flood() {
        assert_eq!(last(&mut floods(), 15, SECOND, |i| (1, i)), (0, false), "too few to fill anything");
        let (flood, storm) = last(&mut floods(), 300_000, 1000, |i| (1, i));
        assert!(flood > UNANSWERED && storm, "a scan");
        let unanswered = (UNANSWERED, true);
        assert_eq!(last(&mut floods(), 300_000, 1000, |i| (i, 1)), unanswered, "many sources, one server");
        assert_eq!(last(&mut floods(), 300_000, 1000, |i| (i, i)), unanswered, "many sources, many servers");
    }

    #[test]
    fn others_are_of_no_flood_beside_one() {
        let mut floods = floods();
        last(&mut floods, 1_000_000, 1000, |i| (7, i));
        let others =
            (0..2000).filter(|i| floods.begins(&ends(0x0a00_0000 + i, 0xc000_0000 + i), 1001 * SECOND / 1000).0 > 0);
        let others = others.count();
        assert!(others <= 5, "{others} of 2000 share both buckets with it");
    }

    #[test]
    fn a_flood_is_forgotten() {
        let mut floods = floods();
        assert!(last(&mut floods, 300_000, 1000, |i| (1, i)).0 > UNANSWERED);
        let four_hours = 4 * 3600 * SECOND;
        assert_eq!(floods.begins(&ends(1, 2), four_hours), (0, false));
    }

    #[test]
    fn a_flood_is_found_after_days_and_forgotten_after_many_half_lives() {
        let mut floods = floods();
        // Counters are scaled down every ten hours and a half.
        for hour in 0..240 {
            let from = hour * 3600 * SECOND;
            let flood = |at: u64| floods.begins(&ends(1, u32::try_from(at).unwrap()), from + at * 1000);
            assert!((0..100_000).map(flood).last().unwrap().0 > UNANSWERED, "hour {hour}");
            assert_eq!(floods.begins(&ends(2, 1), from + SECOND), (0, false), "another host in hour {hour}");
        }
        assert_eq!(floods.begins(&ends(1, 2), u64::MAX), (0, false));
    }

    #[test]
    fn a_busy_server_is_no_flood() {
        let mut floods = floods();
        for i in 0..100_000 {
            // One service that answers 100,000 clients.
            let now = u64::from(i) * 1000;
            assert_eq!(floods.begins(&ends(i, 1), now), (0, false), "session {i}");
            assert_eq!(floods.answered(&ends(i, 1), 0, now), 0);
        }
    }

    #[test]
    fn who_is_answered_under_a_flood_leaves_it() {
        let mut floods = floods();
        last(&mut floods, 300_000, 1000, |i| (i, 1));
        let client = ends(0xc0a8_0001, 1);
        let (flood, _) = floods.begins(&client, SECOND);
        assert_eq!(flood, UNANSWERED);
        let left = floods.answered(&client, flood, SECOND);
        assert_eq!(SessionMarks { flood: left, ..SessionMarks::default() }.kept_with(), 0);
    }
}
