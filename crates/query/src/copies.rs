//! Packets captured twice: on a bridge and its port, on both ends of a veth pair, or on two mirrored ports.
//!
//! A copy has the same bytes from the network layer on, and arrives within 20 ms. This suffices if the interface or the
//! link-layer header differs. Otherwise it must arrive within 1 ms and its IPv4 identification must not be 0, because
//! datagrams without identification can be equal without being copies.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};

use base::packet::{InterfaceId, LinkType};
use base::time::Timestamp;

/// Maximum delay of a copy with another interface or link-layer header.
const ELSEWHERE_WITHIN_NS: u64 = 20_000_000;
/// Maximum delay of a copy with the same interface and link-layer header.
const HERE_WITHIN_NS: u64 = 1_000_000;
/// Maximum number of remembered packets (about 80 bytes each). The oldest are forgotten first.
const PACKETS_MAX: usize = 16_384;

/// Recognises copies in a sequence of packets in time order.
#[derive(Debug, Default)]
pub(super) struct Copies {
    recent: VecDeque<(Timestamp, u64)>,
    by_content: HashMap<u64, RecentPacket, foldhash::fast::RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct RecentPacket {
    time: Timestamp,
    interface: InterfaceId,
    /// Hash of the bytes before the network layer.
    link: u64,
}

impl Copies {
    /// Whether the packet is a copy of an earlier one. The first capture of a packet is not a copy.
    pub(super) fn is_copy(
        &mut self,
        time: Timestamp,
        interface: InterfaceId,
        link_type: LinkType,
        data: &[u8],
    ) -> bool {
        let Some((link, packet)) =
            decode::network_offset(link_type, data).and_then(|offset| data.split_at_checked(offset))
        else {
            return false;
        };
        while let Some(&(old, content)) = self.recent.front()
            && (self.recent.len() >= PACKETS_MAX || time.0.saturating_sub(old.0) > ELSEWHERE_WITHIN_NS)
        {
            self.recent.pop_front();
            if self.by_content.get(&content).is_some_and(|seen| seen.time == old) {
                self.by_content.remove(&content);
            }
        }
        let content = hash(packet);
        let link = hash(link);
        if let Some(seen) = self.by_content.get(&content) {
            let after_ns = time.0.saturating_sub(seen.time.0);
            let elsewhere = seen.interface != interface || seen.link != link;
            let identified = matches!(packet, [first, _, _, _, a, b, ..] if first >> 4 == 4 && [*a, *b] != [0, 0]);
            return elsewhere || (identified && after_ns <= HERE_WITHIN_NS);
        }
        self.by_content.insert(content, RecentPacket { time, interface, link });
        self.recent.push_back((time, content));
        false
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::tests::udp;
    use super::*;

    #[test]
    fn copies_differ_from_equal_packets() {
        let plain = udp((1, 1000), (2, 53), 9);
        let mut numbered = plain.clone();
        numbered[19] = 7;
        let mut tagged = numbered[..12].to_vec();
        tagged.extend([0x81, 0, 0, 5]);
        tagged.extend(&numbered[12..]);
        let ms = |time: u64| Timestamp(1_000_000_000 + time * 1_000_000);
        let mut copies = Copies::default();
        let mut is_copy =
            |time, interface, data: &[u8]| copies.is_copy(ms(time), InterfaceId(interface), LinkType::ETHERNET, data);
        assert!(!is_copy(0, 0, &numbered));
        assert!(is_copy(1, 1, &numbered), "on another interface");
        assert!(is_copy(1, 0, &numbered), "a mirror of two ports");
        assert!(is_copy(5, 0, &tagged), "with a tag");
        assert!(!is_copy(5, 0, &plain));
        assert!(!is_copy(5, 0, &plain), "without identification they may be two");
        assert!(!is_copy(50, 1, &numbered), "long after");
        let mut other = numbered.clone();
        *other.last_mut().unwrap() = 0;
        assert!(!is_copy(51, 1, &other));
    }
}
