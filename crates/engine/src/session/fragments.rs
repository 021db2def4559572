//! Assigns the later fragments of an IP datagram to the session of the first one.
//!
//! Only the first fragment of an IP datagram has the transport header. A ring of fixed size remembers its session for
//! the later fragments. A flood of fragments therefore takes no more memory; it only evicts older ones from the ring.

use foldhash::fast::FixedState;
use std::hash::{BuildHasher, Hash};

use super::index::Index;
use base::memory::Lock;
use base::packet::InterfaceId;
use base::time::Timestamp;
use decode::{Decoded, Fragment, Network};

/// Number of datagrams in the ring.
const CAPACITY: usize = 2048;
/// How long a first fragment stays valid: 30 seconds, the default of Linux's `ipfrag_time`.
const TIMEOUT_NS: u64 = 30 * 1_000_000_000;

/// A fragmented datagram and where it was seen. The sender may choose its number. A sender that reuses a number only
/// mixes up its own fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Datagram {
    number: u64,
    interface: InterfaceId,
    vlan: Option<u16>,
}

/// The session fields of a first fragment. They may come from inside a tunnel that the later fragments do not show.
#[derive(Clone, Copy, Debug)]
struct FirstFragment {
    datagram: Datagram,
    network: Network,
    protocol: u8,
    one_way: bool,
    source: u128,
    destination: u128,
    source_port: u16,
    destination_port: u16,
    tunnel: u32,
    seen: Timestamp,
}

/// The ring of recent first fragments.
#[derive(Debug)]
pub(super) struct Fragments {
    ring: Vec<FirstFragment>,
    index: Index,
    hasher: FixedState,
    next: usize,
}

impl Fragments {
    /// Bytes of the ring and its index.
    pub(super) fn bytes() -> usize {
        CAPACITY * size_of::<FirstFragment>() + Index::bytes(CAPACITY)
    }

    pub(super) fn new(seed: u64, lock: Lock) -> std::io::Result<Self> {
        Ok(Self {
            ring: Vec::with_capacity(CAPACITY),
            index: Index::new(CAPACITY, lock)?,
            hasher: FixedState::with_seed(seed),
            next: 0,
        })
    }

    /// Remembers the session of a first fragment, and completes the fields of a later one. Other packets stay
    /// unchanged.
    #[inline]
    pub(super) fn resolve(&mut self, decoded: &mut Decoded, interface: InterfaceId, time: Timestamp) {
        if let Some(fragment) = decoded.fragment {
            self.resolve_fragment(fragment, decoded, interface, time);
        }
    }

    #[cold]
    fn resolve_fragment(&mut self, fragment: Fragment, decoded: &mut Decoded, interface: InterfaceId, time: Timestamp) {
        let datagram = Datagram { number: decoded.datagram, interface, vlan: decoded.vlan };
        let hash = self.hasher.hash_one(datagram);
        let found = self.index.find(hash, |slot| self.ring[slot as usize].datagram == datagram);
        if fragment.first {
            let known = FirstFragment {
                datagram,
                network: decoded.network,
                protocol: decoded.protocol,
                one_way: decoded.one_way,
                source: decoded.source,
                destination: decoded.destination,
                source_port: decoded.source_port,
                destination_port: decoded.destination_port,
                tunnel: decoded.tunnel,
                seen: time,
            };
            match found {
                Some(slot) => self.ring[slot as usize] = known,
                None => self.remember(hash, known),
            }
        } else if let Some(slot) = found {
            let known = self.ring[slot as usize];
            if time.0.abs_diff(known.seen.0) <= TIMEOUT_NS {
                decoded.network = known.network;
                decoded.protocol = known.protocol;
                decoded.one_way = known.one_way;
                decoded.source = known.source;
                decoded.destination = known.destination;
                decoded.source_port = known.source_port;
                decoded.destination_port = known.destination_port;
                decoded.tunnel = known.tunnel;
            }
        }
    }

    fn remember(&mut self, hash: u64, known: FirstFragment) {
        let slot = u32::try_from(self.next).unwrap_or(0);
        if self.ring.len() < CAPACITY {
            self.ring.push(known);
        } else {
            self.index.remove(self.hasher.hash_one(self.ring[self.next].datagram), slot);
            self.ring[self.next] = known;
        }
        self.index.insert(hash, slot);
        self.next = (self.next + 1) % CAPACITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(id: u32, first: bool) -> Decoded {
        let ports = if first { (1000, 53) } else { (0, 0) };
        Decoded {
            network: Network::Ipv4,
            protocol: 17,
            source: 1,
            destination: 2,
            source_port: ports.0,
            destination_port: ports.1,
            fragment: Some(Fragment { id, first }),
            datagram: u64::from(id) + 1,
            ..Decoded::default()
        }
    }

    fn ports(fragments: &mut Fragments, mut decoded: Decoded, second: u64) -> (u16, u16) {
        fragments.resolve(&mut decoded, InterfaceId(0), Timestamp(second * 1_000_000_000));
        (decoded.source_port, decoded.destination_port)
    }

    #[test]
    fn a_later_fragment_gets_the_ports_of_the_first() {
        let mut fragments = Fragments::new(1, Lock::No).unwrap();
        assert_eq!(ports(&mut fragments, fragment(7, false), 0), (0, 0), "not seen yet");
        ports(&mut fragments, fragment(7, true), 1);
        assert_eq!(ports(&mut fragments, fragment(7, false), 2), (1000, 53));
        assert_eq!(ports(&mut fragments, fragment(8, false), 2), (0, 0), "another datagram");
        assert_eq!(ports(&mut fragments, fragment(7, false), 40), (0, 0), "too late");
    }

    #[test]
    fn a_bomb_pushes_out_the_oldest_and_takes_no_memory() {
        let mut fragments = Fragments::new(1, Lock::No).unwrap();
        let capacity = fragments.ring.capacity();
        for id in 0..100_000 {
            ports(&mut fragments, fragment(id, true), 1);
        }
        assert_eq!(fragments.ring.capacity(), capacity);
        assert_eq!(ports(&mut fragments, fragment(99_999, false), 1), (1000, 53));
        assert_eq!(ports(&mut fragments, fragment(99_999 - 2048, false), 1), (0, 0));
    }
}
