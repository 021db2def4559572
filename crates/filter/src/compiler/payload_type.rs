//! Tests of what the link layer carries: the type field, or an LLC or SNAP header.

use super::condition::{Compare, Condition};
use super::generator::{From, Generator, Width};
use super::link_type::{is_802_11, is_arcnet, is_ethernet, is_hdlc, is_juniper, number};
use super::refusal::{Refusal, refuse};
use crate::vm::{Instruction, Operand};

/// Ethertypes, and service access points of LLC below 256.
pub(super) mod ether {
    pub(in crate::compiler) const IP: u32 = 0x0800;
    pub(in crate::compiler) const ARP: u32 = 0x0806;
    pub(in crate::compiler) const MOPDL: u32 = 0x6001;
    pub(in crate::compiler) const MOPRC: u32 = 0x6002;
    pub(in crate::compiler) const DECNET: u32 = 0x6003;
    pub(in crate::compiler) const LAT: u32 = 0x6004;
    pub(in crate::compiler) const SCA: u32 = 0x6007;
    /// Transparent Ethernet bridging.
    pub(in crate::compiler) const BRIDGED: u32 = 0x6558;
    pub(in crate::compiler) const RARP: u32 = 0x8035;
    pub(in crate::compiler) const ATALK: u32 = 0x809b;
    pub(in crate::compiler) const AARP: u32 = 0x80f3;
    pub(in crate::compiler) const VLAN: u32 = 0x8100;
    pub(in crate::compiler) const IPX: u32 = 0x8137;
    pub(in crate::compiler) const IPV6: u32 = 0x86dd;
    pub(in crate::compiler) const MPLS: u32 = 0x8847;
    pub(in crate::compiler) const PPPOE_DISCOVERY: u32 = 0x8863;
    pub(in crate::compiler) const PPPOE_SESSION: u32 = 0x8864;
    pub(in crate::compiler) const PROVIDER_VLAN: u32 = 0x88a8;
    pub(in crate::compiler) const LOOPBACK: u32 = 0x9000;
    pub(in crate::compiler) const OLD_PROVIDER_VLAN: u32 = 0x9100;
    /// The largest value that is a length.
    pub(in crate::compiler) const LENGTH_MAX: u32 = 1500;

    pub(in crate::compiler) const SAP_IP: u32 = 0x06;
    pub(in crate::compiler) const SAP_BRIDGE: u32 = 0x42;
    pub(in crate::compiler) const SAP_IPX: u32 = 0xe0;
    pub(in crate::compiler) const SAP_NETBEUI: u32 = 0xf0;
    pub(in crate::compiler) const SAP_ISO: u32 = 0xfe;
}

/// Network-layer protocols of ISO.
pub(super) mod iso {
    pub(in crate::compiler) const CLNP: u32 = 0x81;
    pub(in crate::compiler) const ESIS: u32 = 0x82;
    pub(in crate::compiler) const ISIS: u32 = 0x83;
}

const PPP_IP: u32 = 0x21;
const AF_INET: u32 = 2;
/// Linux's number.
const AF_INET6: u32 = 10;
/// The protocol numbers of Linux's cooked captures for 802.2 and for Novell's raw 802.3.
const SLL_802_2: u32 = 4;
const SLL_802_3: u32 = 1;
/// Frame Relay: the control byte before the protocol.
const UNNUMBERED: u32 = 0x0300;

type Tested = Result<Condition, Refusal>;

impl Generator {
    /// Tests the type of the payload: an ethertype, or a service access point.
    pub(super) fn carries(&mut self, kind: u32) -> Tested {
        if self.labels > 0 {
            return self.label_carries(kind);
        }
        match self.link {
            link if is_ethernet(link) => {
                let outer = if self.is_geneve { None } else { self.outer_link_check()? };
                let inner = self.ethernet_carries(kind)?;
                Ok(self.both(outer, inner))
            }
            link if is_hdlc(link) => {
                let kind = if kind == ether::SAP_ISO { kind << 8 | kind } else { kind };
                self.equal(From::Type, 0, Width::Half, kind)
            }
            link if is_802_11(link) => {
                let data = self.is_802_11_data()?;
                let llc = self.llc_carries(kind)?;
                Ok(self.and(data, llc))
            }
            number::FDDI | number::TOKEN_RING | number::ATM_RFC1483 | number::ATM_CLIP | number::IP_OVER_FC => {
                self.llc_carries(kind)
            }
            number::SUNATM => {
                let is_llc = self.atm_is_llc()?;
                let llc = self.llc_carries(kind)?;
                Ok(self.and(is_llc, llc))
            }
            number::LINUX_SLL => self.cooked_carries(kind),
            number::SLIP | number::SLIP_BSDOS | number::RAW => match kind {
                ether::IP => self.masked(From::Link, (0, Width::Byte), 0x40, 0xf0),
                ether::IPV6 => self.masked(From::Link, (0, Width::Byte), 0x60, 0xf0),
                _ => Ok(self.constant(false)),
            },
            number::IPV4 => Ok(self.constant(kind == ether::IP)),
            number::IPV6 => Ok(self.constant(kind == ether::IPV6)),
            number::LOCAL_TALK => Ok(self.constant(kind == ether::ATALK)),
            number::PPP | number::PPP_PPPD | number::PPP_SERIAL | number::PPP_ETHER => {
                self.equal(From::Type, 0, Width::Half, ppp(kind))
            }
            _ => self.rare_carries(kind),
        }
    }

    /// Link types that are rare, or whose payload has few kinds.
    fn rare_carries(&mut self, kind: u32) -> Tested {
        match self.link {
            number::PPP_BSDOS if kind == ether::IP => self.is_one_of(From::Type, Width::Half, &[PPP_IP, 0x2d, 0x2f]),
            number::PPP_BSDOS => self.equal(From::Type, 0, Width::Half, ppp(kind)),
            number::NULL | number::LOOP | number::ENC => match kind {
                ether::IP => self.loopback_is(AF_INET),
                ether::IPV6 => self.loopback_is(AF_INET6),
                _ => Ok(self.constant(false)),
            },
            number::PFLOG => match kind {
                ether::IP => self.equal(From::Link, 1, Width::Byte, AF_INET),
                ether::IPV6 => self.equal(From::Link, 1, Width::Byte, AF_INET6),
                _ => Ok(self.constant(false)),
            },
            link if is_arcnet(link) => {
                let kinds: &[u32] = match kind {
                    ether::IPV6 => &[0xc4],
                    // The second one is of an older standard.
                    ether::IP => &[212, 240],
                    ether::ARP => &[213, 241],
                    ether::RARP => &[214],
                    ether::ATALK => &[221],
                    _ => return Ok(self.constant(false)),
                };
                self.is_one_of(From::Type, Width::Byte, kinds)
            }
            number::FRAME_RELAY => {
                let kinds: &[u32] = match kind {
                    ether::IP => &[UNNUMBERED | 0xcc],
                    ether::IPV6 => &[UNNUMBERED | 0x8e],
                    ether::SAP_ISO => &[UNNUMBERED | iso::CLNP, UNNUMBERED | iso::ESIS, UNNUMBERED | iso::ISIS],
                    _ => return Ok(self.constant(false)),
                };
                let mut tests = Vec::new();
                for &kind in kinds {
                    tests.push(self.equal(From::Link, 2, Width::Half, kind)?);
                }
                Ok(self.any_of(tests))
            }
            link if is_juniper(link) => self.masked(From::Link, (0, Width::Word), 0x4d47_4300, 0xffff_ff00),
            number::BACNET_MS_TP => self.masked(From::Link, (0, Width::Word), 0x55ff_0000, 0xffff_0000),
            number::IPNET => match kind {
                ether::IP => self.equal(From::Type, 0, Width::Byte, 2),
                ether::IPV6 => self.equal(From::Type, 0, Width::Byte, 26),
                _ => Ok(self.constant(false)),
            },
            number::SYMANTEC_FIREWALL | number::FIREWIRE | number::LINUX_SLL2 => {
                self.equal(From::Type, 0, Width::Half, kind)
            }
            link => refuse(format!("the payload of packets of link type {link} cannot be tested")),
        }
    }

    fn any_of(&mut self, tests: Vec<Condition>) -> Condition {
        let mut tests = tests.into_iter();
        match tests.next() {
            Some(first) => self.any(first, tests),
            None => self.constant(false),
        }
    }

    fn is_one_of(&mut self, from: From, width: Width, values: &[u32]) -> Tested {
        let mut tests = Vec::new();
        for &value in values {
            tests.push(self.equal(from, 0, width, value)?);
        }
        Ok(self.any_of(tests))
    }

    /// Joins a check that is not always needed with `inner`.
    pub(super) fn both(&mut self, check: Option<Condition>, inner: Condition) -> Condition {
        match check {
            Some(check) => self.and(check, inner),
            None => inner,
        }
    }

    /// What must hold for the link-layer header inside another one to exist.
    pub(super) fn outer_link_check(&mut self) -> Result<Option<Condition>, Refusal> {
        if self.is_geneve {
            return Ok(Some(self.geneve_carries_ethernet()));
        }
        if self.outer_link != number::SUNATM {
            return Ok(None);
        }
        // LAN emulation: 0xff00 marks a control frame.
        let control = self.equal(From::OuterLink, 4, Width::Half, 0xff00)?;
        Ok(Some(self.not(control)))
    }

    fn is_length(&mut self) -> Tested {
        let is_type = self.field((From::Type, 0, Width::Half), u32::MAX, Compare::Greater, ether::LENGTH_MAX)?;
        Ok(self.not(is_type))
    }

    fn ethernet_carries(&mut self, kind: u32) -> Tested {
        match kind {
            ether::SAP_ISO | ether::SAP_IP | ether::SAP_NETBEUI => {
                let length = self.is_length()?;
                let sap = self.equal(From::Llc, 0, Width::Half, kind << 8 | kind)?;
                Ok(self.and(length, sap))
            }
            ether::SAP_IPX => {
                let sap = self.equal(From::Llc, 0, Width::Byte, kind)?;
                let novell = self.equal(From::Llc, 0, Width::Half, 0xffff)?;
                let either = self.or(sap, novell);
                let snap = self.snap(0, ether::IPX)?;
                let any = self.or(snap, either);
                let length = self.is_length()?;
                let framed = self.and(length, any);
                let typed = self.equal(From::Type, 0, Width::Half, ether::IPX)?;
                Ok(self.or(typed, framed))
            }
            ether::ATALK | ether::AARP => {
                let length = self.is_length()?;
                let snap = self.apple_snap(kind)?;
                let framed = self.and(length, snap);
                let typed = self.equal(From::Type, 0, Width::Half, kind)?;
                Ok(self.or(typed, framed))
            }
            0..=ether::LENGTH_MAX => {
                let length = self.is_length()?;
                let sap = self.equal(From::Type, 2, Width::Byte, kind)?;
                Ok(self.and(length, sap))
            }
            _ => self.equal(From::Type, 0, Width::Half, kind),
        }
    }

    fn cooked_carries(&mut self, kind: u32) -> Tested {
        let is_llc = |this: &mut Self| this.equal(From::Type, 0, Width::Half, SLL_802_2);
        match kind {
            ether::SAP_ISO | ether::SAP_IP | ether::SAP_NETBEUI => {
                let llc = is_llc(self)?;
                let sap = self.equal(From::Llc, 0, Width::Half, kind << 8 | kind)?;
                Ok(self.and(llc, sap))
            }
            ether::SAP_IPX => {
                let sap = self.equal(From::Llc, 0, Width::Byte, kind)?;
                let snap = self.snap(0, ether::IPX)?;
                let either = self.or(sap, snap);
                let llc = is_llc(self)?;
                let framed = self.and(llc, either);
                let novell = self.equal(From::Type, 0, Width::Half, SLL_802_3)?;
                let framed = self.or(novell, framed);
                let typed = self.equal(From::Type, 0, Width::Half, ether::IPX)?;
                Ok(self.or(typed, framed))
            }
            ether::ATALK | ether::AARP => {
                let llc = is_llc(self)?;
                let snap = self.apple_snap(kind)?;
                let framed = self.and(llc, snap);
                let typed = self.equal(From::Type, 0, Width::Half, kind)?;
                Ok(self.or(typed, framed))
            }
            0..=ether::LENGTH_MAX => {
                let llc = is_llc(self)?;
                let at = self.payload.constant;
                let sap = self.equal(From::Link, at, Width::Byte, kind)?;
                Ok(self.and(llc, sap))
            }
            _ => self.equal(From::Type, 0, Width::Half, kind),
        }
    }

    fn llc_carries(&mut self, kind: u32) -> Tested {
        match kind {
            ether::SAP_IP | ether::SAP_ISO | ether::SAP_NETBEUI => {
                self.equal(From::Llc, 0, Width::Half, kind << 8 | kind)
            }
            ether::ATALK => self.apple_snap(kind),
            0..=ether::LENGTH_MAX => self.equal(From::Llc, 0, Width::Byte, kind),
            _ => self.equal(From::Llc, 6, Width::Half, kind),
        }
    }

    fn apple_snap(&mut self, kind: u32) -> Tested {
        self.snap(if kind == ether::ATALK { 0x08_0007 } else { 0 }, kind)
    }

    /// Tests a SNAP header: its organization and type.
    fn snap(&mut self, organization: u32, kind: u32) -> Tested {
        let [_, a, b, c] = organization.to_be_bytes();
        let [_, _, d, e] = kind.to_be_bytes();
        self.bytes(From::Llc, 0, &[0xaa, 0xaa, 3, a, b, c, d, e])
    }

    fn label_carries(&mut self, kind: u32) -> Tested {
        let version = match kind {
            ether::IP => 0x40,
            ether::IPV6 => 0x60,
            _ => return refuse("after `mpls`, only IPv4 and IPv6 can be tested"),
        };
        // The lowest label has the bottom-of-stack bit.
        let bottom = self.masked(From::Network, (2_u32.wrapping_neg(), Width::Byte), 1, 1)?;
        let version = self.masked(From::Network, (0, Width::Byte), version, 0xf0)?;
        Ok(self.and(bottom, version))
    }

    /// Tests the address family before packets of loopback devices: in the byte order of the host, except on OpenBSD.
    fn loopback_is(&mut self, family: u32) -> Tested {
        let family = if self.link == number::LOOP { family } else { family.to_be() };
        self.equal(From::Link, 0, Width::Word, family)
    }

    /// Tests whether there is Ethernet in Geneve: then its payload begins later than its header.
    fn geneve_carries_ethernet(&mut self) -> Condition {
        let steps = [
            self.link_header.register.map(Instruction::LoadMemory),
            self.payload.register.map(Instruction::LoadXMemory),
        ];
        let same = self.test(steps.into_iter().flatten().collect(), Compare::Equal, Operand::X);
        self.not(same)
    }

    /// Tests whether an ATM cell has an LLC header.
    pub(super) fn atm_is_llc(&mut self) -> Tested {
        self.masked(From::Link, (0, Width::Byte), 2, 0x0f)
    }

    /// Tests whether an 802.11 frame carries data.
    pub(super) fn is_802_11_data(&mut self) -> Tested {
        let data = self.has_bits(From::Link, 0, Width::Byte, 8)?;
        let control = self.has_bits(From::Link, 0, Width::Byte, 4)?;
        let no_control = self.not(control);
        Ok(self.and(no_control, data))
    }
}

/// Returns the number that PPP uses for a type.
fn ppp(kind: u32) -> u32 {
    match kind {
        ether::IP => PPP_IP,
        ether::IPV6 => 0x57,
        ether::DECNET => 0x27,
        ether::ATALK => 0x29,
        // Xerox NS.
        0x0600 => 0x25,
        ether::SAP_ISO => 0x23,
        ether::SAP_BRIDGE => 0x31,
        ether::SAP_IPX => 0x2b,
        other => other,
    }
}
