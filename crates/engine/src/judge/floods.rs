//! Who begins so many sessions that their starts would push out everybody else's.
//!
//! How deep a packet lies in its session says nothing about a host that opens sessions without end: all it sends are
//! starts. So starts are counted, and a host that begins more of them than its share *climbs* as a whole: its further
//! sessions are sorted into a step of their own, where age weighs sixteen times as much (with each step). Within the step
//! starts still outlive bulk, so a busy server loses nothing to itself; but it is its own past that makes room, not that of others.
//!
//! Three counters are asked for each new session, and the highest decides:
//! - of who began it: scans, single-packet sessions without end, random names asked of a resolver;
//! - of the service it goes to (address, port, protocol): many sources, real or spoofed, that want the same of one server;
//! - of the address it goes to, as long as nobody has answered or gone on: spoofed sources that try all ports.
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

/// Buckets of one row.
const BUCKETS: usize = 8192;
const ROWS: usize = 2;
/// In which a counter falls by half.
const HALF_LIFE_NS: f64 = 600e9;
/// How often a counter that is in use is brought down: it costs an exponential.
const DECAY_STEP_NS: u64 = 60_000_000;
/// The part of the store that starts of one host may take up in about a half-life, as a divisor.
const ALLOWANCE_SHARE: u64 = 16;
/// What a session takes that has only begun: a packet or two, and their records.
const BEGUN_BYTES: f64 = 256.0;
/// How often it is counted anew that a session grows: at 512, 1,536 and 3,584 bytes, where what is kept for long ends.
pub(super) const GROWN_MAX: u8 = 3;

/// The counters.
#[derive(Debug)]
pub(super) struct Floods {
    /// Two words a bucket: the level as the bits of a float, and when it was that.
    words: Memory,
    hasher: FixedState,
    allowance: f64,
}

/// Bytes of a session from which on it has grown once more than `grown` times.
pub(super) fn grown_from_bytes(grown: u8) -> u64 {
    ((2u64 << grown) - 1) * 512
}

/// What is counted of a session.
#[derive(Clone, Copy)]
enum Of {
    Originator,
    Service,
    Unanswered,
}

impl Floods {
    /// Bytes that the counters take.
    pub(super) const BYTES: u64 = (ROWS * BUCKETS * 16) as u64;

    pub(super) fn new(store_bytes: u64, seed: u64, lock: Lock) -> std::io::Result<Self> {
        #[allow(clippy::cast_precision_loss, reason = "a share of memory need not be exact")]
        let allowance = (store_bytes / ALLOWANCE_SHARE) as f64;
        Ok(Self {
            words: Memory::new(ROWS * BUCKETS * 2, lock)?,
            hasher: FixedState::with_seed(seed ^ 0xf100d),
            allowance: allowance.max(1.0),
        })
    }

    /// Counts a session that begins; how far its hosts have climbed.
    pub(super) fn begins(&mut self, key: &SessionKey, originator: Side, now_ns: u64) -> u8 {
        let mut level: f64 = 0.0;
        for of in [Of::Originator, Of::Service, Of::Unanswered] {
            level = level.max(self.add(self.places(key, originator, of), BEGUN_BYTES, now_ns));
        }
        self.climb(level)
    }

    /// A session has grown beyond its first bytes, for the `grown`th time.
    pub(super) fn grows(&mut self, key: &SessionKey, originator: Side, grown: u8, now_ns: u64) {
        for of in [Of::Originator, Of::Service] {
            self.add(self.places(key, originator, of), BEGUN_BYTES * f64::from(1u32 << grown), now_ns);
        }
    }

    /// A session has become a conversation: nobody spoofed it.
    pub(super) fn answered(&mut self, key: &SessionKey, originator: Side, now_ns: u64) {
        self.add(self.places(key, originator, Of::Unanswered), -BEGUN_BYTES, now_ns);
    }

    /// The step for a level: 0 up to the allowance, and one more each time it doubles.
    fn climb(&self, level: f64) -> u8 {
        let mut step = 0;
        let mut bound = self.allowance;
        while level > bound && usize::from(step) + 1 < SessionMarks::CLIMBS {
            step += 1;
            bound *= 2.0;
        }
        step
    }

    /// Adds to the buckets of one counter; its level then.
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

    #[allow(clippy::cast_possible_truncation, reason = "masked to the row's size")]
    fn places(&self, key: &SessionKey, originator: Side, of: Of) -> [usize; ROWS] {
        let responder = originator.other();
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(of as u64);
        match of {
            Of::Originator => hasher.write_u128(key.address(originator)),
            Of::Service => {
                hasher.write_u128(key.address(responder));
                hasher.write_u64(u64::from(key.port(responder)) << 8 | u64::from(key.protocol()));
            }
            Of::Unanswered => hasher.write_u128(key.address(responder)),
        }
        let hash = hasher.finish();
        let (low, high) = (hash as usize % BUCKETS, (hash >> 32) as usize % BUCKETS);
        [low, BUCKETS + high]
    }
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

    /// The step that the last of `count` sessions of these hosts is put on, one each `every_ns`.
    fn last_climb(floods: &mut Floods, count: u32, every_ns: u64, hosts: impl Fn(u32) -> (u32, u32, u16)) -> u8 {
        let mut climb = 0;
        for i in 0..count {
            let (source, destination, port) = hosts(i);
            let (key, originator) = udp(source, destination, port);
            climb = floods.begins(&key, originator, 1 + u64::from(i) * every_ns);
        }
        climb
    }

    #[test]
    fn whoever_begins_too_many_sessions_climbs() {
        assert_eq!(last_climb(&mut floods(), 5_000, SECOND, |i| (1, i, 53)), 0, "one a second is nobody's flood");
        let scan = |i: u32| (1, i, 80);
        assert_eq!(last_climb(&mut floods(), 300_000, 1000, scan), 5, "a scan");
        assert_eq!(last_climb(&mut floods(), 300_000, 1000, |i| (i, 1, 80)), 5, "many sources, one service");
        assert_eq!(last_climb(&mut floods(), 300_000, 1000, |i| (i, 1, low16(i))), 5, "many sources, all ports");
        assert_eq!(last_climb(&mut floods(), 300_000, 1000, |i| (i, i, 80)), 0, "many sources, many servers");
    }

    #[test]
    fn others_do_not_climb_with_a_flood() {
        let mut floods = floods();
        last_climb(&mut floods, 1_000_000, 1000, |i| (7, i, low16(i)));
        let climbs = (0..2000).filter(|i| {
            let (key, originator) = udp(0x0a00_0000 + i, 0xc000_0000 + i, 443);
            floods.begins(&key, originator, 1001 * SECOND / 1000) > 0
        });
        let climbs = climbs.count();
        assert!(climbs <= 5, "{climbs} of 2000 share both buckets with it");
    }

    #[test]
    fn a_flood_is_forgiven() {
        let mut floods = floods();
        assert_eq!(last_climb(&mut floods, 300_000, 1000, |i| (1, i, 80)), 5);
        let (key, originator) = udp(1, 2, 80);
        let two_hours = 7200 * SECOND;
        assert_eq!(floods.begins(&key, originator, two_hours), 0);
    }

    #[test]
    fn answers_clear_an_address() {
        let mut floods = floods();
        for i in 0..100_000 {
            // Ports of one server that all answer, asked by as many hosts.
            let (key, originator) = udp(i, 1, low16(i));
            let now = u64::from(i) * 1000;
            assert_eq!(floods.begins(&key, originator, now), 0, "session {i}");
            floods.answered(&key, originator, now);
        }
    }
}
