//! The session key: the fields that distinguish one session from another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::packet::InterfaceId;
use decode::{Decoded, Network};

/// The two endpoints of a session in a fixed order, its protocol, and where it was seen. Interface, VLANs and tunnels
/// are part of the key, as the same addresses may be in use in several places.
///
/// The key has six words, so that it is compared and stored without padding: low address (2), high address (2), then
/// `low port 16 | high port 16 | protocol 8 | network 4, one way 1, … | tunnel 16` and
/// `interface 16 | vlan 16 | inner vlan 16 | tunnel 16`. Link-layer sessions have no ports; both port fields hold the
/// ethertype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey(pub(super) [u64; 6]);

/// One of the two endpoints of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The endpoint that sorts first.
    Low,
    /// The endpoint that sorts second.
    High,
}

impl Side {
    /// The opposite side.
    pub fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// An address and, where the protocol has them, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// IP address, or `None` for link-layer endpoints.
    pub ip: Option<IpAddr>,
    /// Link-layer address, or `None` for IP endpoints.
    pub mac: Option<[u8; 6]>,
    /// Port, or ICMP type or code; 0 for link-layer endpoints.
    pub port: u16,
}

/// The addresses of a session's ends: the lower and the upper half of each.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The end that spoke first.
    pub originator: [u64; 2],
    /// The other end.
    pub responder: [u64; 2],
    /// Whether the addresses are those of IPv6.
    pub are_ipv6: bool,
}

const NO_VLAN: u16 = u16::MAX;
const ONE_WAY: u64 = 1 << 4;

impl SessionKey {
    /// The key of a packet's session, and the endpoint that sent the packet.
    #[inline]
    pub fn new(decoded: &Decoded, interface: InterfaceId) -> (Self, Side) {
        let (ports, protocol) = match decoded.network {
            Network::Link => ((decoded.ethertype, decoded.ethertype), 0),
            Network::Ipv4 | Network::Ipv6 => ((decoded.source_port, decoded.destination_port), decoded.protocol),
        };
        let source = (decoded.source, ports.0);
        let destination = (decoded.destination, ports.1);
        // Ports are rarely compared, as addresses are rarely equal.
        let is_low = source.0 < destination.0 || (source.0 == destination.0 && source.1 <= destination.1);
        let (side, low, high) = if decoded.one_way || is_low {
            (Side::Low, source, destination)
        } else {
            (Side::High, destination, source)
        };
        let one_way = if decoded.one_way { ONE_WAY } else { 0 };
        let tunnel = u64::from(decoded.tunnel);
        let key = Self([
            lower(low.0),
            upper(low.0),
            lower(high.0),
            upper(high.0),
            u64::from(low.1)
                | u64::from(high.1) << 16
                | u64::from(protocol) << 32
                | (decoded.network as u64 | one_way) << 40
                | (tunnel & 0xffff) << 48,
            u64::from(interface.0)
                | u64::from(decoded.vlan.unwrap_or(NO_VLAN)) << 16
                | u64::from(decoded.inner_vlan.unwrap_or(NO_VLAN)) << 32
                | (tunnel >> 16) << 48,
        ]);
        (key, side)
    }

    /// The words of the key, for another process of this program.
    pub fn words(&self) -> [u64; 6] {
        self.0
    }

    /// A key from [`words`](Self::words), with the interface as this process numbers it.
    pub fn from_words(words: [u64; 6], interface: InterfaceId) -> Self {
        let mut key = Self(words);
        key.move_to(interface);
        key
    }

    /// The kind of the addresses.
    pub fn network(&self) -> Network {
        match self.0[4] >> 40 & 0xf {
            4 => Network::Ipv4,
            6 => Network::Ipv6,
            _ => Network::Link,
        }
    }

    /// IP protocol number; 0 for link-layer sessions.
    pub fn protocol(&self) -> u8 {
        self.0[4].to_le_bytes()[4]
    }

    /// The ethertype: that of the network for IP, the packet's own for link-layer sessions.
    pub fn ethertype(&self) -> u16 {
        match self.network() {
            Network::Ipv4 => 0x0800,
            Network::Ipv6 => 0x86dd,
            Network::Link => low16(self.0[4]),
        }
    }

    /// The interface on which the session was seen.
    pub fn interface(&self) -> InterfaceId {
        InterfaceId(low16(self.0[5]))
    }

    /// Replaces the interface.
    pub(super) fn move_to(&mut self, interface: InterfaceId) {
        self.0[5] = self.0[5] & !0xffff | u64::from(interface.0);
    }

    /// Outermost VLAN ID.
    pub fn vlan(&self) -> Option<u16> {
        Some(low16(self.0[5] >> 16)).filter(|&id| id != NO_VLAN)
    }

    /// VLAN ID inside the outermost one.
    pub fn inner_vlan(&self) -> Option<u16> {
        Some(low16(self.0[5] >> 32)).filter(|&id| id != NO_VLAN)
    }

    /// A hash of the tunnels around the session; 0 for none.
    pub fn tunnel(&self) -> u32 {
        u32::from(low16(self.0[4] >> 48)) | u32::from(low16(self.0[5] >> 48)) << 16
    }

    /// The addresses of the ends, of which `originator` spoke first.
    #[inline]
    pub fn ends(&self, originator: Side) -> Ends {
        let [low_a, low_b, high_a, high_b, ..] = self.0;
        let (low, high) = ([low_a, low_b], [high_a, high_b]);
        let (originator, responder) = if originator == Side::Low { (low, high) } else { (high, low) };
        Ends { originator, responder, are_ipv6: self.network() == Network::Ipv6 }
    }

    /// Whether the key keeps source and destination in packet order: ICMP messages without an answering type.
    pub fn one_way(&self) -> bool {
        self.0[4] >> 40 & ONE_WAY != 0
    }

    /// The address of an endpoint as a number.
    pub fn address(&self, side: Side) -> u128 {
        let at = match side {
            Side::Low => 0,
            Side::High => 2,
        };
        u128::from(self.0[at]) | u128::from(self.0[at + 1]) << 64
    }

    /// The port of an endpoint; 0 for link-layer sessions.
    pub fn port(&self, side: Side) -> u16 {
        match (self.network(), side) {
            (Network::Link, _) => 0,
            (_, Side::Low) => low16(self.0[4]),
            (_, Side::High) => low16(self.0[4] >> 16),
        }
    }

    /// The address and port of a side.
    pub fn endpoint(&self, side: Side) -> Endpoint {
        let address = self.address(side);
        let port = self.port(side);
        match ip(self.network(), address) {
            Some(ip) => Endpoint { ip: Some(ip), mac: None, port },
            None => {
                let [_, _, mac @ ..] = lower(address).to_be_bytes();
                Endpoint { ip: None, mac: Some(mac), port }
            }
        }
    }
}

/// Converts a numeric address to an IP address. `None` for link-layer addresses.
pub fn ip(network: Network, address: u128) -> Option<IpAddr> {
    match network {
        Network::Ipv4 => {
            let [.., a, b, c, d] = address.to_be_bytes();
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        Network::Ipv6 => Some(IpAddr::V6(Ipv6Addr::from_bits(address))),
        Network::Link => None,
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.ip, self.mac) {
            (Some(IpAddr::V6(ip)), _) => write!(f, "[{ip}]:{}", self.port),
            (Some(ip), _) => write!(f, "{ip}:{}", self.port),
            (None, Some([a, b, c, d, e, g])) => write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"),
            (None, None) => f.write_str("?"),
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
fn lower(value: u128) -> u64 {
    value as u64
}

#[allow(clippy::cast_possible_truncation, reason = "shifted, it fits")]
fn upper(value: u128) -> u64 {
    (value >> 64) as u64
}

#[allow(clippy::cast_possible_truncation, reason = "the low 16 bits are meant")]
fn low16(value: u64) -> u16 {
    value as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_decoded() -> impl Strategy<Value = Decoded> {
        let network = prop_oneof![Just(Network::Link), Just(Network::Ipv4), Just(Network::Ipv6)];
        let tags = (prop::option::of(0u16..4096), prop::option::of(0u16..4096), any::<u32>());
        (network, any::<(u128, u128, u16, u16, u8, u16)>(), tags).prop_map(|(network, a, tags)| {
            let mask = match network {
                Network::Link => (1 << 48) - 1,
                Network::Ipv4 => u128::from(u32::MAX),
                Network::Ipv6 => u128::MAX,
            };
            let link = network == Network::Link;
            Decoded {
                network,
                source: a.0 & mask,
                destination: a.1 & mask,
                source_port: if link { 0 } else { a.2 },
                destination_port: if link { 0 } else { a.3 },
                protocol: if link { 0 } else { a.4 },
                ethertype: a.5,
                vlan: tags.0,
                inner_vlan: tags.1,
                tunnel: tags.2,
                ..Decoded::default()
            }
        })
    }

    proptest! {
        #[test]
        fn both_directions_have_one_key(there in any_decoded(), interface: u16) {
            let back = Decoded {
                source: there.destination,
                destination: there.source,
                source_port: there.destination_port,
                destination_port: there.source_port,
                ..there
            };
            let (key, side) = SessionKey::new(&there, InterfaceId(interface));
            let (other, other_side) = SessionKey::new(&back, InterfaceId(interface));
            prop_assert_eq!(key, other);
            if (there.source, there.source_port) != (there.destination, there.destination_port) {
                prop_assert_eq!(side, other_side.other());
            }
        }

        #[test]
        fn a_key_returns_what_went_in(decoded in any_decoded(), interface: u16) {
            let (key, side) = SessionKey::new(&decoded, InterfaceId(interface));
            prop_assert_eq!(key.network(), decoded.network);
            prop_assert_eq!(key.protocol(), decoded.protocol);
            prop_assert_eq!(key.address(side), decoded.source);
            prop_assert_eq!(key.address(side.other()), decoded.destination);
            prop_assert_eq!(key.port(side), decoded.source_port);
            prop_assert_eq!(key.port(side.other()), decoded.destination_port);
            prop_assert_eq!(key.vlan(), decoded.vlan);
            prop_assert_eq!(key.inner_vlan(), decoded.inner_vlan);
            prop_assert_eq!(key.tunnel(), decoded.tunnel);
            prop_assert_eq!(key.interface(), InterfaceId(interface));
        }
    }
}
