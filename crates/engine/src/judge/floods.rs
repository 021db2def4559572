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
//! Counters halve every ten minutes. They are in a table of fixed size: two rows with different hashes, of which the
//! lower value counts (a count-min sketch with conservative update; Cormode and Muthukrishnan 2005, Estan and Varghese
//! 2002). A party that shares a bucket with a flood in one row is unlikely to do so in the other.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering;

use foldhash::quality::FixedState;

use crate::session::key::Side;
use crate::session::{SessionKey, SessionMarks};
use base::memory::{Lock, Memory};
use decode::Network;

/// Number of buckets in one row.
const BUCKETS: usize = 1024;
const ROWS: usize = 2;
/// Time in which a counter falls by half.
const HALF_LIFE_NS: f64 = 600e9;
/// Minimum time between two decays of a counter, because each of them computes an exponential.
const DECAY_STEP_NS: u64 = 60_000_000;
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
    /// Two words per bucket: the level as the bits of an `f64`, and the time of its last decay in nanoseconds. The last
    /// two buckets count all sessions and all unanswered sessions.
    words: Memory,
    hasher: FixedState,
    flood_bytes: f64,
    storm_bytes: f64,
}

/// The bucket of all sessions.
const ALL: usize = ROWS * BUCKETS;
/// The bucket of all unanswered sessions, except those in the flood of a host.
const ALL_UNANSWERED: usize = ALL + 1;

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
    pub(super) const BYTES: u64 = ((ALL_UNANSWERED + 1) * 16) as u64;

    pub(super) fn new(store_bytes: u64, seed: u64, lock: Lock) -> std::io::Result<Self> {
        #[allow(clippy::cast_precision_loss, reason = "a share of memory need not be exact")]
        let part = |divisor: u64| (store_bytes / divisor) as f64;
        Ok(Self {
            words: Memory::new((ALL_UNANSWERED + 1) * 2, lock)?,
            hasher: FixedState::with_seed(seed ^ 0xf100d),
            flood_bytes: part(FLOOD_STORE_SHARE),
            storm_bytes: part(STORM_STORE_SHARE),
        })
    }

    /// Counts a session that begins. Returns its flood, 0 for none, and whether that flood is a storm.
    pub(super) fn begins(&mut self, key: &SessionKey, originator: Side, now_ns: u64) -> (u8, bool) {
        let all = self.add_to(ALL, BEGUN_BYTES, now_ns);
        let hash = self.hash(key, originator, Party::Originator);
        let level = self.add(places(hash), BEGUN_BYTES, now_ns);
        if level > self.flood_bytes && level > all * PARTY_SHARE {
            return (host_flood(hash), level > self.storm_bytes);
        }
        let hash = self.hash(key, originator, Party::Unanswered);
        let of_address = self.add(places(hash), BEGUN_BYTES, now_ns);
        let unanswered = self.add_to(ALL_UNANSWERED, BEGUN_BYTES, now_ns);
        let is_flood = |level: f64, share: f64| level > self.flood_bytes && level > all * share;
        if is_flood(of_address, PARTY_SHARE) || is_flood(unanswered, UNANSWERED_SHARE) {
            return (UNANSWERED, of_address.max(unanswered) > self.storm_bytes);
        }
        (0, false)
    }

    /// Counts growth step `grown` of a session, from 1 to [`GROWN_MAX`].
    pub(super) fn grows(&mut self, key: &SessionKey, originator: Side, grown: u8, now_ns: u64) {
        let bytes = BEGUN_BYTES * f64::from(1u32 << grown);
        self.add_to(ALL, bytes, now_ns);
        self.add(places(self.hash(key, originator, Party::Originator)), bytes, now_ns);
    }

    /// Counts a session that has become a conversation, so its source is not spoofed. Returns its flood from now on.
    pub(super) fn answered(&mut self, key: &SessionKey, originator: Side, flood: u8, now_ns: u64) -> u8 {
        if flood > UNANSWERED {
            return flood;
        }
        let left = if flood == UNANSWERED { SessionMarks::LEFT_FLOOD } else { flood };
        self.add(places(self.hash(key, originator, Party::Unanswered)), -BEGUN_BYTES, now_ns);
        self.add_to(ALL_UNANSWERED, -BEGUN_BYTES, now_ns);
        left
    }

    /// Adds `bytes` to the buckets of one party and returns its level.
    fn add(&mut self, places: [usize; ROWS], bytes: f64, now_ns: u64) -> f64 {
        let levels = places.map(|place| self.level(place, now_ns));
        let level = (levels[0].min(levels[1]) + bytes).max(0.0);
        for (place, old) in places.into_iter().zip(levels) {
            // Conservative update: a bucket with a higher level counts another party, so it stays as it is.
            let new = if bytes > 0.0 { old.max(level) } else { (old + bytes).max(0.0) };
            self.words[place * 2].store(new.to_bits(), Ordering::Relaxed);
        }
        level
    }

    /// Adds `bytes` to one bucket and returns its level.
    fn add_to(&mut self, place: usize, bytes: f64, now_ns: u64) -> f64 {
        let level = (self.level(place, now_ns) + bytes).max(0.0);
        self.words[place * 2].store(level.to_bits(), Ordering::Relaxed);
        level
    }

    /// The level of a bucket after decay.
    fn level(&self, place: usize, now_ns: u64) -> f64 {
        let (word, stamp) = (&self.words[place * 2], &self.words[place * 2 + 1]);
        let level = f64::from_bits(word.load(Ordering::Relaxed));
        let elapsed_ns = now_ns.saturating_sub(stamp.load(Ordering::Relaxed));
        // During a flood, most buckets have decayed within the last step.
        if elapsed_ns < DECAY_STEP_NS {
            return level;
        }
        #[allow(clippy::cast_precision_loss, reason = "a decay need not be exact")]
        let decayed = level * (-(elapsed_ns as f64) / HALF_LIFE_NS).exp2();
        word.store(decayed.to_bits(), Ordering::Relaxed);
        stamp.store(now_ns, Ordering::Relaxed);
        decayed
    }

    fn hash(&self, key: &SessionKey, originator: Side, of: Party) -> u64 {
        let side = if matches!(of, Party::Originator) { originator } else { originator.other() };
        let address = key.address(side);
        let is_prefix = matches!(of, Party::Originator) && key.network() == Network::Ipv6;
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(of as u64);
        hasher.write_u128(if is_prefix { address >> 64 } else { address });
        hasher.finish()
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
    use base::packet::InterfaceId;
    use decode::{Decoded, Network};

    const SECOND: u64 = 1_000_000_000;

    fn floods() -> Floods {
        Floods::new(32 << 20, 1, Lock::No).unwrap()
    }

    fn udp(source: u32, destination: u32, port: u16) -> (SessionKey, Side) {
        let decoded = Decoded {
            network: Network::Ipv4,
            protocol: 17,
            source: source.into(),
            destination: destination.into(),
            source_port: 40_000,
            destination_port: port,
            ..Decoded::default()
        };
        SessionKey::new(&decoded, InterfaceId(0))
    }

    fn low16(i: u32) -> u16 {
        u16::try_from(i & 0xffff).unwrap()
    }

    /// Begins `count` sessions, one every `every_ns`. Returns the flood of the last one, and whether it is a storm.
    fn last(floods: &mut Floods, count: u32, every_ns: u64, hosts: impl Fn(u32) -> (u32, u32, u16)) -> (u8, bool) {
        let mut flood = (0, false);
        for i in 0..count {
            let (source, destination, port) = hosts(i);
            let (key, originator) = udp(source, destination, port);
            flood = floods.begins(&key, originator, 1 + u64::from(i) * every_ns);
        }
        flood
    }

    #[test]
    fn a_party_with_a_large_part_of_all_starts_is_a_flood() {
        assert_eq!(last(&mut floods(), 15, SECOND, |i| (1, i, 53)), (0, false), "too few to fill anything");
        let (flood, storm) = last(&mut floods(), 300_000, 1000, |i| (1, i, 80));
        assert!(flood > UNANSWERED && storm, "a scan");
        let unanswered = (UNANSWERED, true);
        assert_eq!(last(&mut floods(), 300_000, 1000, |i| (i, 1, 80)), unanswered, "many sources, one service");
        assert_eq!(last(&mut floods(), 300_000, 1000, |i| (i, 1, low16(i))), unanswered, "many sources, all ports");
        assert_eq!(last(&mut floods(), 300_000, 1000, |i| (i, i, 80)), unanswered, "many sources, many servers");
    }

    #[test]
    fn others_are_of_no_flood_beside_one() {
        let mut floods = floods();
        last(&mut floods, 1_000_000, 1000, |i| (7, i, low16(i)));
        let others = (0..2000).filter(|i| {
            let (key, originator) = udp(0x0a00_0000 + i, 0xc000_0000 + i, 443);
            floods.begins(&key, originator, 1001 * SECOND / 1000).0 > 0
        });
        let others = others.count();
        assert!(others <= 5, "{others} of 2000 share both buckets with it");
    }

    #[test]
    fn a_flood_is_forgotten() {
        let mut floods = floods();
        assert!(last(&mut floods, 300_000, 1000, |i| (1, i, 80)).0 > UNANSWERED);
        let (key, originator) = udp(1, 2, 80);
        let four_hours = 4 * 3600 * SECOND;
        assert_eq!(floods.begins(&key, originator, four_hours), (0, false));
    }

    #[test]
    fn a_busy_server_is_no_flood() {
        let mut floods = floods();
        for i in 0..100_000 {
            // One service that answers 100,000 clients.
            let (key, originator) = udp(i, 1, 443);
            let now = u64::from(i) * 1000;
            assert_eq!(floods.begins(&key, originator, now), (0, false), "session {i}");
            assert_eq!(floods.answered(&key, originator, 0, now), 0);
        }
    }

    #[test]
    fn who_is_answered_under_a_flood_leaves_it() {
        let mut floods = floods();
        last(&mut floods, 300_000, 1000, |i| (i, 1, 443));
        let (key, originator) = udp(0xc0a8_0001, 1, 443);
        let (flood, _) = floods.begins(&key, originator, SECOND);
        assert_eq!(flood, UNANSWERED);
        let left = floods.answered(&key, originator, flood, SECOND);
        assert_eq!(SessionMarks { flood: left, ..SessionMarks::default() }.kept_with(), 0);
    }
}
