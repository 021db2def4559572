//! Endpoints that were servers in the sessions of one worker.
//!
//! A session that is seen from its middle does not show which side opened it. If one side was the responder of other
//! sessions, it is the likely responder of this one, too. The table has a fixed size: an endpoint that is new takes the
//! place of one that was seen less often. The worker writes, and any number of threads read.

use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use base::codec::{Put, Take, damaged};
use foldhash::quality::FixedState;

/// Entries of the table, a power of two.
const ENTRIES: usize = 4096;
/// Neighbouring entries that an endpoint can have.
const WAYS: usize = 4;
/// An entry is the hash of an endpoint in the upper bits, and the number of its sessions, up to 255, in the lower ones.
const COUNT_MASK: u64 = 0xff;

/// Counts of sessions by responder.
#[derive(Debug)]
pub(super) struct Servers {
    entries: Box<[AtomicU64]>,
    /// The seed of the hashes. A recorder continues with that of the previous one, whose hashes it takes over.
    seed: AtomicU64,
}

impl Servers {
    pub(super) const BYTES: usize = ENTRIES * size_of::<AtomicU64>();

    /// `seed` makes collisions unpredictable for senders who choose addresses and ports.
    pub(super) fn new(seed: u64) -> Self {
        Self { entries: (0..ENTRIES).map(|_| AtomicU64::new(0)).collect(), seed: AtomicU64::new(seed) }
    }

    /// Counts a session that this endpoint has answered.
    pub(super) fn note(&self, address: u128, port: u16, protocol: u8) {
        let hash = self.hash(address, port, protocol);
        let ways = self.ways(hash);
        let place = ways.iter().find(|entry| is_of(entry.load(Ordering::Relaxed), hash));
        let rarest = || ways.iter().min_by_key(|entry| entry.load(Ordering::Relaxed) & COUNT_MASK);
        let Some(entry) = place.or_else(rarest) else { return };
        let old = entry.load(Ordering::Relaxed);
        let count = old & COUNT_MASK;
        let new = match is_of(old, hash) {
            true => old + u64::from(count < COUNT_MASK),
            // A flood of new endpoints takes several sessions to replace a server that is often used.
            false if count > 1 => old - 1,
            false => hash & !COUNT_MASK | 1,
        };
        entry.store(new, Ordering::Relaxed);
    }

    /// Sessions that this endpoint has answered, up to 255; 0 if it is not in the table.
    pub(super) fn sessions_of(&self, address: u128, port: u16, protocol: u8) -> u64 {
        let hash = self.hash(address, port, protocol);
        let entries = self.ways(hash).iter().map(|entry| entry.load(Ordering::Relaxed));
        entries.filter(|entry| is_of(*entry, hash)).map(|entry| entry & COUNT_MASK).max().unwrap_or(0)
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed.load(Ordering::Relaxed)
    }

    /// Writes the table for the next recorder.
    pub(super) fn hand_over(&self, out: &mut impl Write) -> io::Result<()> {
        let entries: Vec<u64> =
            self.entries.iter().map(|entry| entry.load(Ordering::Relaxed)).filter(|entry| *entry != 0).collect();
        out.put_u64(self.seed())?;
        out.put_u32(u32::try_from(entries.len()).unwrap_or(0))?;
        entries.iter().try_for_each(|entry| out.put_u64(*entry))
    }

    /// Takes over the table of a worker of the previous recorder. All its workers had the same seed.
    ///
    /// # Errors
    ///
    /// If the input ends early or has more entries than any table.
    pub(super) fn take_over(&self, input: &mut impl Read) -> io::Result<()> {
        let seed = input.take_u64()?;
        let count = input.take_u32()? as usize;
        if count > ENTRIES {
            return Err(damaged("the number of servers"));
        }
        if self.entries.iter().all(|entry| entry.load(Ordering::Relaxed) == 0) {
            self.seed.store(seed, Ordering::Relaxed);
        }
        let is_comparable = self.seed() == seed;
        for _ in 0..count {
            let entry = input.take_u64()?;
            if !is_comparable {
                continue;
            }
            let ways = self.ways(entry);
            let same = ways.iter().find(|way| is_of(way.load(Ordering::Relaxed), entry));
            let rarest = || ways.iter().min_by_key(|way| way.load(Ordering::Relaxed) & COUNT_MASK);
            let Some(way) = same.or_else(rarest) else { continue };
            if way.load(Ordering::Relaxed) & COUNT_MASK < entry & COUNT_MASK {
                way.store(entry, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn ways(&self, hash: u64) -> &[AtomicU64] {
        let from = usize::try_from(hash >> 32).unwrap_or(0) % (ENTRIES / WAYS) * WAYS;
        &self.entries[from..from + WAYS]
    }

    fn hash(&self, address: u128, port: u16, protocol: u8) -> u64 {
        let mut hasher = FixedState::with_seed(self.seed()).build_hasher();
        hasher.write_u128(address);
        hasher.write_u32(u32::from(port) << 8 | u32::from(protocol));
        hasher.finish()
    }
}

/// Whether an entry belongs to the endpoint with this hash.
fn is_of(entry: u64, hash: u64) -> bool {
    entry & COUNT_MASK > 0 && (entry ^ hash) & !COUNT_MASK == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_outlasts_a_flood_of_endpoints() {
        let servers = Servers::new(1);
        for _ in 0..300 {
            servers.note(7, 40_000, 6);
        }
        assert_eq!(servers.sessions_of(7, 40_000, 6), 255);
        assert_eq!((servers.sessions_of(7, 40_001, 6), servers.sessions_of(7, 40_000, 17)), (0, 0));
        for address in 0..100_000 {
            servers.note(1 << 64 | address, 50_000, 6);
        }
        assert!(servers.sessions_of(7, 40_000, 6) > 0);
        let known = (0..100_000).filter(|address| servers.sessions_of(1 << 64 | address, 50_000, 6) > 0).count();
        assert!((1..=ENTRIES).contains(&known), "{known}");
    }

    #[test]
    fn the_next_recorder_knows_the_same_servers() {
        let before = Servers::new(1);
        for address in 0..500 {
            for _ in 0..=address % 3 {
                before.note(address, 443, 6);
            }
        }
        let mut written = Vec::new();
        before.hand_over(&mut written).unwrap();
        let after = Servers::new(2);
        after.take_over(&mut &written[..]).unwrap();
        // A second worker of the previous recorder, with the same seed.
        let other = Servers::new(1);
        other.note(9999, 22, 6);
        let mut more = Vec::new();
        other.hand_over(&mut more).unwrap();
        after.take_over(&mut &more[..]).unwrap();
        for address in 0..500 {
            assert_eq!(after.sessions_of(address, 443, 6), before.sessions_of(address, 443, 6), "{address}");
        }
        assert_eq!((after.sessions_of(9999, 22, 6), after.sessions_of(9999, 23, 6)), (1, 0));
        for end in 0..written.len() {
            assert!(Servers::new(3).take_over(&mut &written[..end]).is_err());
        }
        written[8..12].fill(0xff);
        assert!(Servers::new(3).take_over(&mut &written[..]).is_err());
    }
}
