//! Tests of addresses: IPv4, IPv6, MAC, ARCnet and DECnet.

use std::net::{IpAddr, Ipv6Addr};

use super::condition::{Compare, Condition};
use super::generator::{From, Generator, Width};
use super::link_type::{NONE, is_802_11, is_arcnet, is_ethernet, number};
use super::payload_type::ether;
use super::qualifier::{Direction, Protocol, Qualifier};
use super::refusal::{Refusal, refuse};

type Tested = Result<Condition, Refusal>;

const ONLY_802_11: &str = "addr1 to addr4, ra and ta are addresses of 802.11 frames only";

impl Generator {
    /// Joins the tests of the source and of the destination as the direction asks.
    fn by_direction(&mut self, direction: Direction, mut test: impl FnMut(&mut Self, bool) -> Tested) -> Tested {
        match direction {
            Direction::Src => test(self, true),
            Direction::Dst => test(self, false),
            Direction::Either | Direction::Both => {
                let source = test(self, true)?;
                let destination = test(self, false)?;
                Ok(if direction == Direction::Both {
                    self.and(source, destination)
                } else {
                    self.or(source, destination)
                })
            }
            Direction::Addr(_) | Direction::Ra | Direction::Ta => refuse(ONLY_802_11),
        }
    }

    /// Tests the addresses of IPv4, ARP or RARP. `mask` selects the bits that count.
    pub(super) fn host(&mut self, address: u32, mask: u32, qualifier: Qualifier) -> Tested {
        let direction = qualifier.direction();
        let (kind, source, destination) = match qualifier.protocol {
            None => {
                let with = |protocol| Qualifier { protocol: Some(protocol), ..qualifier };
                let ip = self.host(address, mask, with(Protocol::Ip))?;
                if self.labels > 0 {
                    return Ok(ip);
                }
                let arp = self.host(address, mask, with(Protocol::Arp))?;
                let rarp = self.host(address, mask, with(Protocol::Rarp))?;
                return Ok(self.any(ip, [arp, rarp]));
            }
            Some(Protocol::Ip) => (ether::IP, 12, 16),
            Some(Protocol::Arp) => (ether::ARP, 14, 24),
            Some(Protocol::Rarp) => (ether::RARP, 14, 24),
            Some(Protocol::Decnet) => return self.decnet_host(address, direction),
            Some(_) => return refuse("this protocol has no IPv4 addresses; use ip, arp or rarp before the address"),
        };
        self.by_direction(direction, |this, is_source| {
            let carries = this.carries(kind)?;
            let at = if is_source { source } else { destination };
            let address = this.masked(From::Network, (at, Width::Word), address, mask)?;
            Ok(this.and(carries, address))
        })
    }

    /// Tests the addresses of IPv6, of which the first `prefix` bits count.
    pub(super) fn host6(&mut self, address: Ipv6Addr, prefix: u32, qualifier: Qualifier) -> Tested {
        if !matches!(qualifier.protocol, None | Some(Protocol::Ip6)) {
            return refuse("this protocol has no IPv6 addresses; use ip6 before the address");
        }
        let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
        let word = |number: u128, at: u32| u32::try_from(number >> (96 - 8 * at) & 0xffff_ffff).unwrap_or_default();
        self.by_direction(qualifier.direction(), |this, is_source| {
            let start = if is_source { 8 } else { 24 };
            let mut all: Option<Condition> = None;
            for at in [12, 8, 4, 0] {
                let value = word(address.to_bits(), at);
                let one = this.masked(From::Network, (start + at, Width::Word), value, word(mask, at))?;
                all = Some(match all {
                    Some(all) => this.and(one, all),
                    None => one,
                });
            }
            let carries = this.carries(ether::IPV6)?;
            Ok(match all {
                Some(all) => this.and(carries, all),
                None => carries,
            })
        })
    }

    /// Tests all addresses of a name.
    pub(super) fn host_of_any(&mut self, name: &str, addresses: &[IpAddr], qualifier: Qualifier) -> Tested {
        let mut protocols = [qualifier.protocol; 2];
        if self.type_field.constant == NONE && qualifier.protocol.is_none() {
            protocols = [Some(Protocol::Ip), Some(Protocol::Ip6)];
        }
        let [v4, v6] = protocols;
        let mut all: Option<Condition> = None;
        for address in addresses {
            let one = match address {
                IpAddr::V4(address) if v4 != Some(Protocol::Ip6) => {
                    self.host(address.to_bits(), u32::MAX, Qualifier { protocol: v4, ..qualifier })?
                }
                IpAddr::V6(address) if v6 != Some(Protocol::Ip) => {
                    self.host6(*address, 128, Qualifier { protocol: v6, ..qualifier })?
                }
                _ => continue,
            };
            all = Some(match all {
                Some(all) => self.or(all, one),
                None => one,
            });
        }
        match all {
            Some(all) => Ok(all),
            None => refuse(format!("unknown host '{name}' for this address family")),
        }
    }

    /// Tests the addresses of the link layer.
    pub(super) fn ether_host(&mut self, address: [u8; 6], direction: Direction) -> Tested {
        let (source, destination) = match self.link {
            link if is_ethernet(link) => {
                let check = self.outer_link_check()?;
                let host = self.mac(&address, direction, 6, 0)?;
                return Ok(self.both(check, host));
            }
            link if is_802_11(link) => return self.wlan_host(address, direction),
            number::FDDI => (7, 1),
            number::TOKEN_RING => (8, 2),
            number::IP_OVER_FC => (10, 2),
            _ => return refuse("packets of this link type have no MAC addresses"),
        };
        self.mac(&address, direction, source, destination)
    }

    fn mac(&mut self, address: &[u8], direction: Direction, source: u32, destination: u32) -> Tested {
        self.by_direction(direction, |this, is_source| {
            this.bytes(From::Link, if is_source { source } else { destination }, address)
        })
    }

    pub(super) fn arcnet_host(&mut self, address: u8, direction: Direction) -> Tested {
        self.mac(&[address], direction, 0, 1)
    }

    /// Tests the addresses of an 802.11 frame. Which of its four addresses is the source depends on the direction bits.
    fn wlan_host(&mut self, address: [u8; 6], direction: Direction) -> Tested {
        let at = |this: &mut Self, at| this.bytes(From::Link, at, &address);
        match direction {
            Direction::Src => self.wlan_source(&address),
            Direction::Dst => self.wlan_by_first_address(|this, offset| this.bytes(From::Link, offset, &address)),
            Direction::Either | Direction::Both => {
                let source = self.wlan_host(address, Direction::Src)?;
                let destination = self.wlan_host(address, Direction::Dst)?;
                Ok(if direction == Direction::Both {
                    self.and(source, destination)
                } else {
                    self.or(source, destination)
                })
            }
            Direction::Addr(1) => at(self, 4),
            Direction::Addr(2) => {
                let has_second = self.wlan_has_second_address()?;
                let host = at(self, 10)?;
                Ok(self.and(has_second, host))
            }
            Direction::Addr(3) => {
                let no_control = self.wlan_is_not(0x04, 0x0c)?;
                let host = at(self, 16)?;
                Ok(self.and(no_control, host))
            }
            Direction::Addr(_) => {
                let between_stations = self.masked(From::Link, (1, Width::Byte), 3, 3)?;
                let host = at(self, 24)?;
                Ok(self.and(between_stations, host))
            }
            Direction::Ra => {
                let data = self.has_bits(From::Link, 0, Width::Byte, 8)?;
                let host = at(self, 4)?;
                Ok(self.and(data, host))
            }
            Direction::Ta => {
                let has_second = self.wlan_has_second_address()?;
                let data = self.has_bits(From::Link, 0, Width::Byte, 8)?;
                let both = self.and(data, has_second);
                let host = at(self, 10)?;
                Ok(self.and(both, host))
            }
        }
    }

    fn wlan_is_not(&mut self, value: u32, mask: u32) -> Tested {
        let is = self.masked(From::Link, (0, Width::Byte), value, mask)?;
        Ok(self.not(is))
    }

    /// All frames but CTS and ACK have a second address.
    fn wlan_has_second_address(&mut self) -> Tested {
        let no_control = self.wlan_is_not(0x04, 0x0c)?;
        let no_cts = self.wlan_is_not(0xc0, 0xf0)?;
        let no_ack = self.wlan_is_not(0xd0, 0xf0)?;
        let neither = self.and(no_cts, no_ack);
        Ok(self.or(no_control, neither))
    }

    /// Returns `bits are set and set, or bits are not set and unset`.
    fn wlan_choose(&mut self, (byte, bits): (u32, u32), set: Condition, unset: Condition) -> Tested {
        let is_set = self.has_bits(From::Link, byte, Width::Byte, bits)?;
        let set = self.and(is_set, set);
        let is_set = self.has_bits(From::Link, byte, Width::Byte, bits)?;
        let is_unset = self.not(is_set);
        let unset = self.and(is_unset, unset);
        Ok(self.or(unset, set))
    }

    fn wlan_no_control(&mut self, inner: Condition) -> Tested {
        let control = self.has_bits(From::Link, 0, Width::Byte, 4)?;
        let no_control = self.not(control);
        Ok(self.and(no_control, inner))
    }

    fn wlan_source(&mut self, address: &[u8; 6]) -> Tested {
        let [fourth, third] = [24, 16].map(|at| self.bytes(From::Link, at, address));
        let from_ds = self.wlan_choose((1, 1), fourth?, third?)?;
        let second = self.bytes(From::Link, 10, address)?;
        let data = self.wlan_choose((1, 2), from_ds, second)?;
        let second = self.bytes(From::Link, 10, address)?;
        let all = self.wlan_choose((0, 8), data, second)?;
        self.wlan_no_control(all)
    }

    /// Tests the destination address, which is the third one of data to a distribution system and else the first.
    fn wlan_by_first_address(&mut self, mut test: impl FnMut(&mut Self, u32) -> Tested) -> Tested {
        let third = test(self, 16)?;
        let first = test(self, 4)?;
        let data = self.wlan_choose((1, 1), third, first)?;
        let first = test(self, 4)?;
        let all = self.wlan_choose((0, 8), data, first)?;
        self.wlan_no_control(all)
    }

    /// Tests DECnet addresses, in headers of the short and the long form, with padding and without.
    fn decnet_host(&mut self, address: u32, direction: Direction) -> Tested {
        let [_, _, high, low] = address.to_be_bytes();
        let address = u32::from_be_bytes([0, 0, low, high]);
        let (long, short) = match direction {
            Direction::Dst => (7, 1),
            Direction::Src => (15, 3),
            other => {
                return self.by_direction(other, |this, is_source| {
                    this.decnet_host(
                        address.swap_bytes() >> 16,
                        if is_source { Direction::Src } else { Direction::Dst },
                    )
                });
            }
        };
        let carries = self.carries(ether::DECNET)?;
        let mut all: Option<Condition> = None;
        for (width, value, mask, at) in [
            (Width::Half, 0x8106, 0xff07, 3 + long),
            (Width::Byte, 0x06, 0x07, 2 + long),
            (Width::Half, 0x8102, 0xff07, 3 + short),
            (Width::Byte, 0x02, 0x07, 2 + short),
        ] {
            let form = self.masked(From::Network, (2, width), value, mask)?;
            let address = self.equal(From::Network, at, Width::Half, address)?;
            let one = self.and(form, address);
            all = Some(match all {
                Some(all) => self.or(one, all),
                None => one,
            });
        }
        Ok(match all {
            Some(all) => self.and(carries, all),
            None => carries,
        })
    }

    pub(super) fn broadcast(&mut self, protocol: Option<Protocol>) -> Tested {
        match protocol {
            None | Some(Protocol::Link) if is_arcnet(self.link) => self.arcnet_host(0, Direction::Dst),
            None | Some(Protocol::Link) => self.ether_host([0xff; 6], Direction::Dst),
            Some(Protocol::Ip) => {
                let carries = self.carries(ether::IP)?;
                let zeros = self.equal(From::Network, 16, Width::Word, 0)?;
                let ones = self.equal(From::Network, 16, Width::Word, u32::MAX)?;
                let either = self.or(zeros, ones);
                Ok(self.and(carries, either))
            }
            Some(_) => refuse("only `ether broadcast` and `ip broadcast` exist"),
        }
    }

    pub(super) fn multicast(&mut self, protocol: Option<Protocol>) -> Tested {
        let group = |this: &mut Self, at| this.has_bits(From::Link, at, Width::Byte, 1);
        match (protocol, self.link) {
            (None | Some(Protocol::Link), link) if is_arcnet(link) => self.arcnet_host(0, Direction::Dst),
            (None | Some(Protocol::Link), link) if is_ethernet(link) => {
                let check = self.outer_link_check()?;
                let group = group(self, 0)?;
                Ok(self.both(check, group))
            }
            (None | Some(Protocol::Link), link) if is_802_11(link) => self.wlan_by_first_address(group),
            (None | Some(Protocol::Link), number::FDDI) => group(self, 1),
            (None | Some(Protocol::Link), number::TOKEN_RING | number::IP_OVER_FC) => group(self, 2),
            (Some(Protocol::Ip), _) => {
                let carries = self.carries(ether::IP)?;
                let class_d = self.field((From::Network, 16, Width::Byte), u32::MAX, Compare::GreaterEqual, 224)?;
                Ok(self.and(carries, class_d))
            }
            (Some(Protocol::Ip6), _) => {
                let carries = self.carries(ether::IPV6)?;
                let group = self.equal(From::Network, 24, Width::Byte, 255)?;
                Ok(self.and(carries, group))
            }
            (None | Some(Protocol::Link), _) => refuse("packets of this link type have no multicast addresses"),
            _ => refuse("only `ether multicast`, `ip multicast` and `ip6 multicast` exist"),
        }
    }
}
