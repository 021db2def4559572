//! TCP connections of the recorder's own, which carry packets away and are not recorded.
//!
//! A stream of packets that is recorded would be sent again, and that again, without end. So who sends packets over a
//! network says first which connection carries them, and the packet path leaves out that connection and nothing else: what
//! it carried before stays, so that one sees who came. The packet path asks one atomic for each TCP packet, and takes the
//! list over when it has changed; it never waits.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::time::Timestamp;
use decode::{Decoded, Network};

/// IP protocol number of TCP.
const TCP: u8 = 6;
/// Packets of a connection that are kept at most because they are older than its stream. There are a few, as the kernel
/// hands packets over late; a clock that is set back must not make a stream feed itself.
const EARLIER_MAX: u8 = 64;

/// Which connections are left out.
#[derive(Debug, Default)]
pub struct OwnStreams {
    /// Changes with the list.
    generation: AtomicU64,
    streams: Mutex<Vec<(u64, Stream)>>,
}

/// One connection, or all to one endpoint of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    ours: Endpoint,
    theirs: Option<Endpoint>,
    /// From when on.
    since: Timestamp,
}

/// As the decoder tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint {
    network: Network,
    address: u128,
    port: u16,
}

/// Leaves a connection out for as long as it lives.
#[derive(Debug)]
pub struct Exclusion {
    streams: Arc<OwnStreams>,
    id: u64,
}

impl OwnStreams {
    /// Connections that are left out at once, at most.
    pub const MAX: usize = 64;

    /// Leaves out the connection between `ours` and `theirs`, or, without the latter, every one to `ours`, which must
    /// then be an address that nobody else can use, such as one of the loopback network. What is older than `since` is not
    /// meant. `None` when there are too many.
    ///
    /// Say it before the first byte is sent, and keep the answer for some seconds after the last.
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
        // A socket for both families names IPv4 peers in IPv6; on the wire they are what they are.
        let (network, bits) = match address.ip().to_canonical() {
            IpAddr::V4(ip) => (Network::Ipv4, u128::from(u32::from(ip))),
            IpAddr::V6(ip) => (Network::Ipv6, u128::from(ip)),
        };
        Self { network, address: bits, port: address.port() }
    }
}

/// What a packet path knows of [`OwnStreams`].
#[derive(Debug)]
pub struct OwnStreamFilter {
    shared: Arc<OwnStreams>,
    generation: u64,
    streams: Vec<ActiveExclusion>,
}

/// A connection, and how many packets that are older than its stream may yet come.
#[derive(Debug)]
struct ActiveExclusion {
    id: u64,
    stream: Stream,
    earlier_left: u8,
}

impl OwnStreamFilter {
    /// Watches a list.
    pub fn new(shared: Arc<OwnStreams>) -> Self {
        Self { shared, generation: 0, streams: Vec::with_capacity(OwnStreams::MAX) }
    }

    /// Whether a packet is of a connection that is left out.
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
        // Somebody changes it at this moment: the next packet asks again.
        let Ok(streams) = self.shared.streams.try_lock() else { return };
        self.generation = self.shared.generation.load(Ordering::Acquire);
        // No more than are listed at any time, so that nothing is allocated.
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
        // Another connection that comes meanwhile changes nothing.
        let _other = streams.leave_out(address("10.0.0.1:4001"), None, NOW);
        assert!(watch.is_own(NOW, &packet));
        assert!(watch.is_own(Timestamp(0), &packet), "a clock that was set back");
        // Also one that was set back before the first packet ends it.
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
