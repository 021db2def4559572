//! Who begins so many sessions that their starts would push out everybody else's.
//!
//! How deep a packet lies in its session says nothing about a host that opens sessions without end: all it sends are
//! starts. So starts are counted, in bytes, and a party with more than an eighth of all of them is a *flood*: its sessions are kept in queues of
//! their own, which have a share of the memory (see [`store`](crate::store)). Being one costs nothing as long as nobody else
//! needs the room: the one client of a server, or the gateway before a thousand hosts, has all of it.
//!
//! Two kinds of parties are counted:
//! - who begins sessions (an address; of IPv6 a /64, which a single host has): scans, single-packet sessions without end, random
//!   names asked of a resolver. By a hash, such hosts are sorted into several floods.
//! - what nobody has answered or gone on with, for each address it goes to and as a whole: made-up sources. All of it is one flood. A
//!   session leaves it when it becomes a conversation, so that those who really ask a server under a SYN flood are kept as ever.
//!
//! That many ask the same of one server is no flood: a busy server looks the same.
//!
//! Counters decay by half in ten minutes, and lie in a table of fixed size: two rows with different hashes, of which the lower
//! counts (a count-min sketch with conservative update; Cormode and Muthukrishnan 2005, Estan and Varghese 2002). Whoever shares
//! a bucket with a flood in one row hardly does in the other.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering;

use foldhash::quality::FixedState;

use crate::session::key::Side;
use crate::session::{SessionKey, SessionMarks};
use base::memory::{Lock, Memory};
use decode::Network;

/// Buckets of one row.
const BUCKETS: usize = 1024;
const ROWS: usize = 2;
/// In which a counter falls by half.
const HALF_LIFE_NS: f64 = 600e9;
/// How often a counter that is in use is brought down: it costs an exponential.
const DECAY_STEP_NS: u64 = 60_000_000;
/// A party is a flood if it has more than this part of all starts.
const PARTY_SHARE: f64 = 1.0 / 8.0;
/// Unanswered sessions are a flood, whoever they go to, if they are more than this part of all starts.
const UNANSWERED_SHARE: f64 = 0.5;
/// Nobody is a flood whose starts would not fill this part of the store in about ten minutes. It is little: what a party sends before it
/// is one stays among the others' packets, and would outlive what it sends later.
const FLOOD_STORE_SHARE: u64 = 8192;
/// A flood is a storm if they would fill this part of it.
const STORM_STORE_SHARE: u64 = 2;
/// What a session takes that has only begun: a packet or two, and their records.
const BEGUN_BYTES: f64 = 256.0;
/// How often it is counted anew that a session grows: at 512, 1,536 and 3,584 bytes, where what is kept for long ends.
pub(super) const GROWN_MAX: u8 = 3;
/// The flood of unanswered sessions; those above it are of hosts, by a hash.
const UNANSWERED: u8 = 1;

/// The counters.
#[derive(Debug)]
pub(super) struct Floods {
    /// Two words a bucket: the level as the bits of a float, and when it was that. The last two buckets are those of all sessions, and
    /// of all unanswered ones.
    words: Memory,
    hasher: FixedState,
    flood_bytes: f64,
    storm_bytes: f64,
}

/// The bucket of all sessions.
const ALL: usize = ROWS * BUCKETS;
/// The bucket of all unanswered sessions that are of no host's flood.
const ALL_UNANSWERED: usize = ALL + 1;

/// Bytes of a session from which on it has grown once more than `grown` times.
pub(super) fn grown_from_bytes(grown: u8) -> u64 {
    ((2u64 << grown) - 1) * 512
}

/// A party that is counted.
#[derive(Clone, Copy)]
enum Of {
    Originator,
    Unanswered,
}

impl Floods {
    /// Bytes that the counters take.
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

    /// Counts a session that begins. The flood that it is of, 0 for none, and whether that is a storm.
    pub(super) fn begins(&mut self, key: &SessionKey, originator: Side, now_ns: u64) -> (u8, bool) {
        let all = self.add_to(ALL, BEGUN_BYTES, now_ns);
        let hash = self.hash(key, originator, Of::Originator);
        let level = self.add(places(hash), BEGUN_BYTES, now_ns);
        if level > self.flood_bytes && level > all * PARTY_SHARE {
            return (host_flood(hash), level > self.storm_bytes);
        }
        let hash = self.hash(key, originator, Of::Unanswered);
        let of_address = self.add(places(hash), BEGUN_BYTES, now_ns);
        let unanswered = self.add_to(ALL_UNANSWERED, BEGUN_BYTES, now_ns);
        let is_flood = |level: f64, share: f64| level > self.flood_bytes && level > all * share;
        if is_flood(of_address, PARTY_SHARE) || is_flood(unanswered, UNANSWERED_SHARE) {
            return (UNANSWERED, of_address.max(unanswered) > self.storm_bytes);
        }
        (0, false)
    }

    /// A session has grown beyond its first bytes, for the `grown`th time.
    pub(super) fn grows(&mut self, key: &SessionKey, originator: Side, grown: u8, now_ns: u64) {
        let bytes = BEGUN_BYTES * f64::from(1u32 << grown);
        self.add_to(ALL, bytes, now_ns);
        self.add(places(self.hash(key, originator, Of::Originator)), bytes, now_ns);
    }

    /// A session of a flood, or of none, has become a conversation: nobody spoofed it. The flood that it is of now.
    pub(super) fn answered(&mut self, key: &SessionKey, originator: Side, flood: u8, now_ns: u64) -> u8 {
        if flood > UNANSWERED {
            return flood;
        }
        let left = if flood == UNANSWERED { SessionMarks::LEFT_FLOOD } else { flood };
        self.add(places(self.hash(key, originator, Of::Unanswered)), -BEGUN_BYTES, now_ns);
        self.add_to(ALL_UNANSWERED, -BEGUN_BYTES, now_ns);
        left
    }

    /// Adds to the buckets of one party; its level then.
    fn add(&mut self, places: [usize; ROWS], bytes: f64, now_ns: u64) -> f64 {
        let levels = places.map(|place| self.level(place, now_ns));
        let level = (levels[0].min(levels[1]) + bytes).max(0.0);
        for (place, old) in places.into_iter().zip(levels) {
            // Only as far as this one needs: a bucket that is higher is so for somebody else's sake.
            let new = if bytes > 0.0 { old.max(level) } else { (old + bytes).max(0.0) };
            self.words[place * 2].store(new.to_bits(), Ordering::Relaxed);
        }
        level
    }

    /// Adds to one bucket; its level then.
    fn add_to(&mut self, place: usize, bytes: f64, now_ns: u64) -> f64 {
        let level = (self.level(place, now_ns) + bytes).max(0.0);
        self.words[place * 2].store(level.to_bits(), Ordering::Relaxed);
        level
    }

    /// What a bucket has come down to.
    fn level(&self, place: usize, now_ns: u64) -> f64 {
        let (word, stamp) = (&self.words[place * 2], &self.words[place * 2 + 1]);
        let level = f64::from_bits(word.load(Ordering::Relaxed));
        let elapsed_ns = now_ns.saturating_sub(stamp.load(Ordering::Relaxed));
        // Under a flood most buckets were brought up to date just now.
        if elapsed_ns < DECAY_STEP_NS {
            return level;
        }
        #[allow(clippy::cast_precision_loss, reason = "a decay need not be exact")]
        let decayed = level * (-(elapsed_ns as f64) / HALF_LIFE_NS).exp2();
        word.store(decayed.to_bits(), Ordering::Relaxed);
        stamp.store(now_ns, Ordering::Relaxed);
        decayed
    }

    fn hash(&self, key: &SessionKey, originator: Side, of: Of) -> u64 {
        let side = if matches!(of, Of::Originator) { originator } else { originator.other() };
        let address = key.address(side);
        let is_prefix = matches!(of, Of::Originator) && key.network() == Network::Ipv6;
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

/// The flood that a host is sorted into.
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

    /// The flood that the last of `count` sessions of these hosts is of, one each `every_ns`, and whether it is a storm.
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
            // One service that answers all, asked by as many hosts.
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
