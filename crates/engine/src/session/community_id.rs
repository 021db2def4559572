//! Community ID version 1: a session identifier that other tools compute in the same way.
//!
//! Source: the Community ID specification of the Corelight project. The ID is `1:` and the base64 encoding of
//! sha1(seed ‖ low address ‖ high address ‖ protocol ‖ 0 ‖ low port ‖ high port), all in network byte order.

use base64::Engine as _;
use sha1::{Digest, Sha1};

use super::key::{SessionKey, Side};
use decode::Network;

/// A Community ID: the SHA-1 hash of a session's endpoints and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommunityId([u8; 20]);

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl CommunityId {
    /// The ID of a session. `None` for sessions that are not IP.
    pub fn new(key: &SessionKey, seed: u16) -> Option<Self> {
        // The specification orders ICMP request/reply pairs by (address, type) and never swaps other ICMP messages. The
        // key has the same order.
        let mut hash = Sha1::new();
        hash.update(seed.to_be_bytes());
        for side in [Side::Low, Side::High] {
            match key.network() {
                Network::Ipv4 => hash.update(&key.address(side).to_be_bytes()[12..]),
                Network::Ipv6 => hash.update(key.address(side).to_be_bytes()),
                Network::Link => return None,
            }
        }
        hash.update([key.protocol(), 0]);
        if matches!(key.protocol(), ICMP | ICMPV6 | 6 | 17 | 132) {
            hash.update(key.port(Side::Low).to_be_bytes());
            hash.update(key.port(Side::High).to_be_bytes());
        }
        Some(Self(hash.finalize().into()))
    }

    /// The first 32 bits of the hash, as an index stores them.
    pub fn prefix(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Parses `1:` followed by 28 characters of base64. `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim().strip_prefix("1:")?).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl std::fmt::Display for CommunityId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1:{}", base64::engine::general_purpose::STANDARD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::packet::InterfaceId;
    use decode::Decoded;

    fn v4(text: &str) -> u128 {
        u128::from(text.parse::<std::net::Ipv4Addr>().unwrap().to_bits())
    }

    #[test]
    fn the_published_examples() {
        let cases = [
            ("128.232.110.120", 34855, "66.35.250.204", 80, 6, false, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            ("66.35.250.204", 80, "128.232.110.120", 34855, 6, false, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            ("192.168.1.52", 54585, "8.8.8.8", 53, 17, false, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
            ("192.168.0.89", 8, "192.168.0.1", 0, 1, false, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            ("192.168.0.1", 0, "192.168.0.89", 8, 1, false, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            ("10.0.0.1", 11, "10.0.0.2", 0, 1, true, "1:YHxtAirCG//0OzkcVAukqKQN9xM="),
            ("10.1.12.1", 0, "10.1.12.2", 0, 46, false, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="),
        ];
        for (source, source_port, destination, destination_port, protocol, one_way, expected) in cases {
            let decoded = Decoded {
                network: Network::Ipv4,
                protocol,
                source: v4(source),
                destination: v4(destination),
                source_port,
                destination_port,
                one_way,
                ..Decoded::default()
            };
            let (key, _) = SessionKey::new(&decoded, InterfaceId(0));
            let id = CommunityId::new(&key, 0).unwrap();
            assert_eq!(id.to_string(), expected, "{source}:{source_port} {destination}:{destination_port}");
            assert_eq!(CommunityId::parse(expected), Some(id));
        }
    }

    #[test]
    fn what_is_no_community_id_is_refused() {
        for text in ["", "1:", "2:LQU9qZlK+B5F3KDmev6m5PMibrg=", "LQU9qZlK+B5F3KDmev6m5PMibrg=", "1:AAAA"] {
            assert_eq!(CommunityId::parse(text), None, "{text}");
        }
    }
}
