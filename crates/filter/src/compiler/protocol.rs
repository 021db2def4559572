//! Tests of protocols and ports.

use super::condition::{Compare, Condition};
use super::generator::{From, Generator, Width};
use super::link_type::{is_hdlc, number};
use super::payload_type::{ether, iso};
use super::qualifier::{Direction, Protocol};
use super::refusal::{Refusal, refuse};

type Tested = Result<Condition, Refusal>;

/// IP protocol numbers.
mod ip {
    pub(super) const ICMP: u32 = 1;
    pub(super) const IGMP: u32 = 2;
    pub(super) const TCP: u32 = 6;
    pub(super) const IGRP: u32 = 9;
    pub(super) const UDP: u32 = 17;
    pub(super) const FRAGMENT: u32 = 44;
    pub(super) const ESP: u32 = 50;
    pub(super) const AH: u32 = 51;
    pub(super) const ICMPV6: u32 = 58;
    pub(super) const PIM: u32 = 103;
    pub(super) const VRRP: u32 = 112;
    pub(super) const CARP: u32 = 112;
    pub(super) const SCTP: u32 = 132;
}

/// The kinds of IS-IS messages.
mod isis {
    pub(super) const L1_LAN_HELLO: u32 = 15;
    pub(super) const L2_LAN_HELLO: u32 = 16;
    pub(super) const POINT_TO_POINT_HELLO: u32 = 17;
    pub(super) const L1_LSP: u32 = 18;
    pub(super) const L2_LSP: u32 = 20;
    pub(super) const L1_CSNP: u32 = 24;
    pub(super) const L2_CSNP: u32 = 25;
    pub(super) const L1_PSNP: u32 = 26;
    pub(super) const L2_PSNP: u32 = 27;
}

/// The port of Geneve.
const GENEVE_PORT: u32 = 6081;

/// A protocol with ports, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
    Sctp,
    Any,
}

impl Transport {
    fn numbers(self) -> &'static [u32] {
        match self {
            Self::Tcp => &[ip::TCP],
            Self::Udp => &[ip::UDP],
            Self::Sctp => &[ip::SCTP],
            // In this order: SCTP, TCP, UDP.
            Self::Any => &[ip::SCTP, ip::TCP, ip::UDP],
        }
    }

    /// The protocol that a qualifier names.
    pub(super) fn of(protocol: Option<Protocol>) -> Result<Self, Refusal> {
        match protocol {
            None => Ok(Self::Any),
            Some(Protocol::Tcp) => Ok(Self::Tcp),
            Some(Protocol::Udp) => Ok(Self::Udp),
            Some(Protocol::Sctp) => Ok(Self::Sctp),
            Some(_) => refuse("only tcp, udp and sctp have ports"),
        }
    }
}

/// The ports from `first` to `last`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) first: u32,
    pub(super) last: u32,
    /// Whether the expression names a range, even of one port.
    pub(super) is_range: bool,
}

impl Generator {
    /// Tests a protocol that is named alone.
    pub(super) fn protocol(&mut self, protocol: Protocol) -> Tested {
        use Protocol as P;
        match protocol {
            P::Sctp => self.proto(ip::SCTP, None),
            P::Tcp => self.proto(ip::TCP, None),
            P::Udp => self.proto(ip::UDP, None),
            P::Pim => self.proto(ip::PIM, None),
            P::Ah => self.proto(ip::AH, None),
            P::Esp => self.proto(ip::ESP, None),
            P::Icmp => self.proto(ip::ICMP, Some(P::Ip)),
            P::Igmp => self.proto(ip::IGMP, Some(P::Ip)),
            P::Igrp => self.proto(ip::IGRP, Some(P::Ip)),
            P::Vrrp => self.proto(ip::VRRP, Some(P::Ip)),
            P::Carp => self.proto(ip::CARP, Some(P::Ip)),
            P::Icmp6 => self.proto(ip::ICMPV6, Some(P::Ip6)),
            P::Ip => self.carries(ether::IP),
            P::Ip6 => self.carries(ether::IPV6),
            P::Arp => self.carries(ether::ARP),
            P::Rarp => self.carries(ether::RARP),
            P::Atalk => self.carries(ether::ATALK),
            P::Aarp => self.carries(ether::AARP),
            P::Decnet => self.carries(ether::DECNET),
            P::Sca => self.carries(ether::SCA),
            P::Lat => self.carries(ether::LAT),
            P::Mopdl => self.carries(ether::MOPDL),
            P::Moprc => self.carries(ether::MOPRC),
            P::Iso => self.carries(ether::SAP_ISO),
            P::Stp => self.carries(ether::SAP_BRIDGE),
            P::Ipx => self.carries(ether::SAP_IPX),
            P::Netbeui => self.carries(ether::SAP_NETBEUI),
            P::Esis => self.proto(iso::ESIS, Some(P::Iso)),
            P::Isis => self.proto(iso::ISIS, Some(P::Iso)),
            P::Clnp => self.proto(iso::CLNP, Some(P::Iso)),
            P::IsisL1 => {
                use isis::{L1_CSNP, L1_LAN_HELLO, L1_LSP, L1_PSNP, POINT_TO_POINT_HELLO};
                self.isis_is_one_of(&[L1_PSNP, L1_CSNP, L1_LSP, L1_LAN_HELLO, POINT_TO_POINT_HELLO])
            }
            P::IsisL2 => {
                use isis::{L2_CSNP, L2_LAN_HELLO, L2_LSP, L2_PSNP, POINT_TO_POINT_HELLO};
                self.isis_is_one_of(&[L2_PSNP, L2_CSNP, L2_LSP, L2_LAN_HELLO, POINT_TO_POINT_HELLO])
            }
            P::IsisIih => self.isis_is_one_of(&[isis::POINT_TO_POINT_HELLO, isis::L1_LAN_HELLO, isis::L2_LAN_HELLO]),
            P::IsisLsp => self.isis_is_one_of(&[isis::L1_LSP, isis::L2_LSP]),
            P::IsisSnp => self.isis_is_one_of(&[isis::L2_PSNP, isis::L1_PSNP, isis::L1_CSNP, isis::L2_CSNP]),
            P::IsisCsnp => self.isis_is_one_of(&[isis::L1_CSNP, isis::L2_CSNP]),
            P::IsisPsnp => self.isis_is_one_of(&[isis::L1_PSNP, isis::L2_PSNP]),
            P::Link => refuse("`link` and its aliases need an address, a protocol or an offset after them"),
            P::Radio => refuse("`radio` needs an offset after it, as in radio[0]"),
        }
    }

    fn isis_is_one_of(&mut self, kinds: &[u32]) -> Tested {
        let mut all: Option<Condition> = None;
        for &kind in kinds {
            let one = self.proto(kind, Some(Protocol::Isis))?;
            all = Some(match all {
                Some(all) => self.or(all, one),
                None => one,
            });
        }
        Ok(match all {
            Some(all) => all,
            None => self.constant(false),
        })
    }

    /// Tests the protocol that another one carries.
    pub(super) fn proto(&mut self, number: u32, over: Option<Protocol>) -> Tested {
        match over {
            None => {
                let v4 = self.proto(number, Some(Protocol::Ip))?;
                let v6 = self.proto(number, Some(Protocol::Ip6))?;
                Ok(self.or(v4, v6))
            }
            Some(Protocol::Link) => self.carries(number),
            Some(Protocol::Ip) => {
                let carries = self.carries(ether::IP)?;
                let is = self.equal(From::Network, 9, Width::Byte, number)?;
                Ok(self.and(carries, is))
            }
            Some(Protocol::Ip6) => {
                let carries = self.carries(ether::IPV6)?;
                let fragment = self.equal(From::Network, 6, Width::Byte, ip::FRAGMENT)?;
                let behind = self.equal(From::Network, 40, Width::Byte, number)?;
                let behind = self.and(fragment, behind);
                let direct = self.equal(From::Network, 6, Width::Byte, number)?;
                let either = self.or(direct, behind);
                Ok(self.and(carries, either))
            }
            Some(Protocol::Iso) if self.link == number::FRAME_RELAY => {
                self.equal(From::Link, 2, Width::Half, 0x0300 | number)
            }
            Some(Protocol::Iso) => {
                let (kind, at) =
                    if is_hdlc(self.link) { (ether::SAP_ISO << 8 | ether::SAP_ISO, 1) } else { (ether::SAP_ISO, 0) };
                let carries = self.carries(kind)?;
                let is = self.equal(From::NetworkWithoutSnap, at, Width::Byte, number)?;
                Ok(self.and(carries, is))
            }
            Some(Protocol::Isis) => {
                let isis = self.proto(iso::ISIS, Some(Protocol::Iso))?;
                let is = self.equal(From::NetworkWithoutSnap, 4, Width::Byte, number)?;
                Ok(self.and(isis, is))
            }
            Some(_) => refuse("`proto` can only follow ether, ip, ip6, iso and isis"),
        }
    }

    /// Tests whether this is not a later fragment of an IPv4 packet.
    pub(super) fn is_first_fragment(&mut self) -> Tested {
        let later = self.has_bits(From::Network, 6, Width::Half, 0x1fff)?;
        Ok(self.not(later))
    }

    /// Tests the ports of packets over IPv4 and IPv6.
    pub(super) fn ports(&mut self, ports: Ports, transport: Transport, direction: Direction) -> Tested {
        if !matches!(direction, Direction::Src | Direction::Dst | Direction::Either | Direction::Both) {
            return refuse("addr1 to addr4, ra and ta are addresses of 802.11 frames only");
        }
        let v4 = self.ports_over(true, ports, transport, direction)?;
        let v6 = self.ports_over(false, ports, transport, direction)?;
        Ok(self.or(v6, v4))
    }

    fn ports_over(&mut self, over_v4: bool, ports: Ports, transport: Transport, direction: Direction) -> Tested {
        let carries = self.carries(if over_v4 { ether::IP } else { ether::IPV6 })?;
        let mut all: Option<Condition> = None;
        for &number in transport.numbers() {
            let mut head = self.equal(From::Network, if over_v4 { 9 } else { 6 }, Width::Byte, number)?;
            if over_v4 {
                let first = self.is_first_fragment()?;
                head = self.and(head, first);
            }
            let from = if over_v4 { From::TransportV4 } else { From::TransportV6 };
            let port = self.port_by_direction(from, ports, direction)?;
            let one = self.and(head, port);
            all = Some(match all {
                Some(all) => self.or(all, one),
                None => one,
            });
        }
        Ok(match all {
            Some(all) => self.and(carries, all),
            None => carries,
        })
    }

    fn port_by_direction(&mut self, from: From, ports: Ports, direction: Direction) -> Tested {
        match direction {
            Direction::Src => self.port_at(from, 0, ports),
            Direction::Dst => self.port_at(from, 2, ports),
            _ => {
                let source = self.port_at(from, 0, ports)?;
                let destination = self.port_at(from, 2, ports)?;
                Ok(if direction == Direction::Both {
                    self.and(source, destination)
                } else {
                    self.or(source, destination)
                })
            }
        }
    }

    fn port_at(&mut self, from: From, offset: u32, ports: Ports) -> Tested {
        if !ports.is_range {
            return self.equal(from, offset, Width::Half, ports.first);
        }
        let (low, high) = (ports.first.min(ports.last), ports.first.max(ports.last));
        let from_low = self.field((from, offset, Width::Half), u32::MAX, Compare::GreaterEqual, low)?;
        let above = self.field((from, offset, Width::Half), u32::MAX, Compare::Greater, high)?;
        let to_high = self.not(above);
        Ok(self.and(from_low, to_high))
    }

    /// Tests whether a packet goes to the port of Geneve, over IPv4 or over IPv6.
    pub(super) fn has_geneve_port(&mut self, over_v4: bool) -> Tested {
        let ports = Ports { first: GENEVE_PORT, last: GENEVE_PORT, is_range: false };
        self.ports_over(over_v4, ports, Transport::Udp, Direction::Dst)
    }
}
