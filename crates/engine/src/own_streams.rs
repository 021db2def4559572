//! Excludes the recorder's own TCP connections that carry packets away, such as those of PCAP-over-IP.
//!
//! If such a connection were recorded, its packets would be sent again, without end. Code that sends packets over a
//! network therefore registers the connection first, and the packet path excludes that connection and nothing else.
//! Packets that the connection carried before stay recorded, so that its opening is visible. The packet path reads one
//! atomic per TCP packet, and copies the list when it has changed. It never waits.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::time::Timestamp;
use decode::{Decoded, Network};

/// IP protocol number of TCP.
const TCP: u8 = 6;
/// The most packets of a connection that are recorded because they are older than its exclusion. There are a few, as
/// the kernel delivers packets late. The limit ensures that a stream does not record itself after the clock was set
/// back.
const EARLIER_MAX: u8 = 64;

/// The list of excluded connections, shared with the packet paths.
#[derive(Debug, Default)]
pub struct OwnStreams {
    /// Grows with each change to the list.
    generation: AtomicU64,
    streams: Mutex<Vec<(u64, Stream)>>,
}

/// One connection, or all connections of one local endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    ours: Endpoint,
    theirs: Option<Endpoint>,
    /// Start of the exclusion, in packet time.
    since: Timestamp,
}

/// An endpoint in the decoder's representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint {
    network: Network,
    address: u128,
    port: u16,
}

/// Excludes a connection until it is dropped.
#[derive(Debug)]
pub struct Exclusion {
    streams: Arc<OwnStreams>,
    id: u64,
}

impl OwnStreams {
    /// The most exclusions at a time.
    pub const MAX: usize = 64;

    /// Excludes the connection between `ours` and `theirs` from recording. Without `theirs`, it excludes every
    /// connection of `ours`, which must then be an address that nobody else can use, such as one of the loopback
    /// network. Packets older than `since` stay recorded. `None` if there are too many exclusions.
    ///
    /// Call this before sending the first byte, and keep the result for some seconds after the last.
    pub fn leave_out(
        self: &Arc<Self>,
        ours: SocketAddr,
        theirs: Option<SocketAddr>,
        since: Timestamp,
    ) -> Option<Exclusion> {
        let mut streams = self.lock();
        if streams.len() >= Self::MAX {
            return None;
        }
        let id = self.generation.fetch_add(1, Ordering::Release) + 1;
        streams.push((id, Stream { ours: ours.into(), theirs: theirs.map(Endpoint::from), since }));
        Some(Exclusion { streams: Arc::clone(self), id })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Stream)>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Exclusion {
    fn drop(&mut self) {
        let mut streams = self.streams.lock();
        streams.retain(|(id, _)| *id != self.id);
        self.streams.generation.fetch_add(1, Ordering::Release);
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        // A dual-stack socket reports IPv4 peers as IPv4-mapped IPv6 addresses; their packets are IPv4.
        let (network, bits) = match address.ip().to_canonical() {
            IpAddr::V4(ip) => (Network::Ipv4, u128::from(u32::from(ip))),
            IpAddr::V6(ip) => (Network::Ipv6, u128::from(ip)),
        };
        Self { network, address: bits, port: address.port() }
    }
}

/// A packet path's copy of [`OwnStreams`].
#[derive(Debug)]
pub struct OwnStreamFilter {
    shared: Arc<OwnStreams>,
    generation: u64,
    streams: Vec<ActiveExclusion>,
}

/// An exclusion, and the number of earlier packets that may still be recorded.
#[derive(Debug)]
struct ActiveExclusion {
    id: u64,
    stream: Stream,
    earlier_left: u8,
}

impl OwnStreamFilter {
    /// Makes a filter that follows the list.
    pub fn new(shared: Arc<OwnStreams>) -> Self {
        Self { shared, generation: 0, streams: Vec::with_capacity(OwnStreams::MAX) }
    }

    /// Whether a packet belongs to an excluded connection.
    #[inline]
    pub fn is_own(&mut self, time: Timestamp, decoded: &Decoded) -> bool {
        if decoded.protocol != TCP {
            return false;
        }
        if self.shared.generation.load(Ordering::Acquire) != self.generation {
            self.take_over();
        }
        !self.streams.is_empty() && self.is_among(time, decoded)
    }

    #[cold]
    fn take_over(&mut self) {
        // If the list is being changed, try again at the next packet.
        let Ok(streams) = self.shared.streams.try_lock() else { return };
        self.generation = self.shared.generation.load(Ordering::Acquire);
        // Remove before adding: the copy never exceeds its capacity, so nothing is allocated.
        self.streams.retain(|watched| streams.iter().any(|(id, _)| *id == watched.id));
        for &(id, stream) in streams.iter() {
            if self.streams.iter().all(|watched| watched.id != id) {
                self.streams.push(ActiveExclusion { id, stream, earlier_left: EARLIER_MAX });
            }
        }
    }

    fn is_among(&mut self, time: Timestamp, decoded: &Decoded) -> bool {
        let network = decoded.network;
        let from = Endpoint { network, address: decoded.source, port: decoded.source_port };
        let to = Endpoint { network, address: decoded.destination, port: decoded.destination_port };
        self.streams.iter_mut().any(
            |ActiveExclusion { stream: Stream { ours, theirs, since }, earlier_left, .. }| {
                let other = match (*ours == from, *ours == to) {
                    (true, _) => to,
                    (_, true) => from,
                    _ => return false,
                };
                if theirs.is_some_and(|theirs| theirs != other) {
                    return false;
                }
                *earlier_left = if time < *since { earlier_left.saturating_sub(1) } else { 0 };
                *earlier_left == 0
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(from: &str, to: &str) -> Decoded {
        let (from, to) = (Endpoint::from(address(from)), Endpoint::from(address(to)));
        Decoded {
            network: from.network,
            protocol: TCP,
            source: from.address,
            source_port: from.port,
            destination: to.address,
            destination_port: to.port,
            ..Decoded::default()
        }
    }

    const NOW: Timestamp = Timestamp(1_000_000);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_connection_is_left_out_and_no_other() {
        let streams = Arc::new(OwnStreams::default());
        let mut watch = OwnStreamFilter::new(Arc::clone(&streams));
        let (ours, theirs) = ("10.0.0.1:4000", "10.0.0.2:57012");
        assert!(!watch.is_own(NOW, &tcp(ours, theirs)));
        let left_out = streams.leave_out(address(ours), Some(address("[::ffff:10.0.0.2]:57012")), NOW);
        for (from, to, own) in [
            (ours, theirs, true),
            (theirs, ours, true),
            (ours, "10.0.0.2:57013", false),
            ("10.0.0.3:57012", ours, false),
            ("10.0.0.1:4001", theirs, false),
            ("[::a00:1]:4000", "[::a00:2]:57012", false),
        ] {
            assert_eq!(watch.is_own(NOW, &tcp(from, to)), own, "{from} {to}");
        }
        assert!(!watch.is_own(NOW, &Decoded { protocol: 17, ..tcp(ours, theirs) }));
        drop(left_out);
        assert!(!watch.is_own(NOW, &tcp(ours, theirs)));
    }

    #[test]
    fn what_a_connection_carried_before_stays() {
        let streams = Arc::new(OwnStreams::default());
        let mut watch = OwnStreamFilter::new(Arc::clone(&streams));
        let (ours, theirs) = ("10.0.0.1:4000", "10.0.0.2:57012");
        let _left_out = streams.leave_out(address(ours), Some(address(theirs)), NOW);
        let packet = tcp(ours, theirs);
        assert!(!watch.is_own(Timestamp(NOW.0 - 1), &packet), "the handshake");
        // Another exclusion in the meantime changes nothing.
        let _other = streams.leave_out(address("10.0.0.1:4001"), None, NOW);
        assert!(watch.is_own(NOW, &packet));
        assert!(watch.is_own(Timestamp(0), &packet), "a clock that was set back");
        // The limit also holds if the clock was set back before the first packet.
        let tuple = tcp("10.0.0.1:4001", theirs);
        let kept = (0..1000).filter(|_| !watch.is_own(Timestamp(0), &tuple)).count();
        assert!(kept < usize::from(EARLIER_MAX));
    }

    #[test]
    fn all_connections_of_a_listener() {
        let streams = Arc::new(OwnStreams::default());
        let mut watch = OwnStreamFilter::new(Arc::clone(&streams));
        let _left_out = streams.leave_out(address("127.0.0.1:57012"), None, NOW);
        assert!(watch.is_own(NOW, &tcp("127.0.0.1:57012", "127.0.0.1:33333")));
        assert!(watch.is_own(NOW, &tcp("127.0.0.1:33333", "127.0.0.1:57012")));
        assert!(!watch.is_own(NOW, &tcp("127.0.0.2:57012", "127.0.0.1:33333")));
    }

    #[test]
    fn there_is_a_limit() {
        let streams = Arc::new(OwnStreams::default());
        let mut all: Vec<_> =
            (0..OwnStreams::MAX).map(|_| streams.leave_out(address("127.0.0.1:1"), None, NOW)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(streams.leave_out(address("127.0.0.1:2"), None, NOW).is_none());
        all.pop();
        assert!(streams.leave_out(address("127.0.0.1:2"), None, NOW).is_some());
    }
}
