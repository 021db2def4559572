//! Words that are conditions by themselves, and addresses.

use std::net::IpAddr;

use super::address_text::{decnet, dotted, port_range};
use super::arithmetic::Relation;
use super::condition::{Compare, Condition};
use super::keyword::Keyword;
use super::names::Assigned;
use super::payload_type::{ether, iso};
use super::protocol::{Ports, Transport};
use super::qualifier::{Kind, Protocol, Qualifier};
use super::rare::{Llc, PfField};
use super::reader::Reader;
use super::refusal::{Refusal, refuse};
use super::token::Token;
use super::wlan;

type Tested = Result<Condition, Refusal>;

const NO_QUALIFIER: &str = "a word like `host`, `net` or `port` must stand before this";
const PROTOCHAIN: &str = "`protochain` needs a program with loops, which cannot be run in bounded time; use `proto`";

impl Reader<'_> {
    /// Reads what follows a protocol that stands before no address.
    pub(super) fn protocol_term(&mut self, protocol: Protocol) -> Tested {
        match self.peek() {
            Some(&Token::Keyword(word @ (Keyword::Type | Keyword::Subtype | Keyword::Dir))) => {
                self.take();
                self.word(word)
            }
            Some(Token::Keyword(Keyword::Broadcast)) => {
                self.take();
                self.generator.broadcast(Some(protocol))
            }
            Some(Token::Keyword(Keyword::Multicast)) => {
                self.take();
                self.generator.multicast(Some(protocol))
            }
            _ => self.generator.protocol(protocol),
        }
    }

    /// Reads what follows a word.
    pub(super) fn word(&mut self, word: Keyword) -> Tested {
        match word {
            Keyword::Broadcast => self.generator.broadcast(None),
            Keyword::Multicast => self.generator.multicast(None),
            Keyword::Less => {
                let length = self.expect_number()?;
                Ok(self.generator.less(length))
            }
            Keyword::Greater => {
                let length = self.expect_number()?;
                Ok(self.generator.greater(length))
            }
            Keyword::Byte => self.byte(),
            Keyword::Inbound => self.generator.direction(false),
            Keyword::Outbound => self.generator.direction(true),
            Keyword::Ifindex => {
                let index = self.expect_number()?;
                self.generator.interface(index)
            }
            Keyword::Vlan => {
                let id = self.number_in_parentheses()?;
                self.generator.vlan(id)
            }
            Keyword::Mpls => {
                let label = self.number_in_parentheses()?;
                self.generator.mpls(label)
            }
            Keyword::Pppoed => self.generator.pppoe_discovery(),
            Keyword::Pppoes => {
                let session = self.number_in_parentheses()?;
                self.generator.pppoe_session(session)
            }
            Keyword::Geneve => {
                let network = self.number_in_parentheses()?;
                self.generator.geneve(network)
            }
            Keyword::Llc => self.llc(),
            Keyword::Type | Keyword::Subtype | Keyword::Dir => self.frame_control(word),
            Keyword::Atm(kind) => self.generator.atm(kind),
            Keyword::AtmField(field) => {
                self.values(|this, relation, value| this.generator.atm_field(field, relation, value))
            }
            Keyword::SignalUnit(unit, high_speed) => self.generator.signal_unit(unit, high_speed),
            Keyword::Mtp3(field, high_speed) => {
                self.values(|this, relation, value| this.generator.mtp3(field, high_speed, relation, value))
            }
            Keyword::PfName { is_ruleset } => {
                let name = self.expect_name()?;
                self.generator.pf_name(is_ruleset, &name)
            }
            Keyword::Pf(field) => self.pf(field),
            _ => refuse("this word cannot stand here"),
        }
    }

    fn expect_name(&mut self) -> Result<String, Refusal> {
        match self.peek() {
            Some(&Token::Name(name)) => {
                self.take();
                Ok(name.to_owned())
            }
            _ => self.unexpected("a name must stand here"),
        }
    }

    /// Reads a number, also in parentheses, if one follows.
    fn number_in_parentheses(&mut self) -> Result<Option<u32>, Refusal> {
        let mut open = 0_usize;
        while self.take_if(&Token::Open) {
            open += 1;
        }
        if open == 0 {
            return Ok(self.take_number());
        }
        let number = self.expect_number()?;
        for _ in 0..open {
            if !self.take_if(&Token::Close) {
                return self.unexpected("a ) must stand here");
            }
        }
        Ok(Some(number))
    }

    fn byte(&mut self) -> Tested {
        let at = self.expect_number()?;
        let operator = match self.peek() {
            Some(Token::Ampersand) => '&',
            Some(Token::Pipe) => '|',
            Some(Token::Less) => '<',
            Some(Token::Greater) => '>',
            Some(Token::Equal) => '=',
            _ => return self.unexpected("one of < > = & | must stand here"),
        };
        self.take();
        let value = self.expect_number()?;
        self.generator.byte(at, operator, value)
    }

    /// Reads a number, a comparison with one, or several numbers in parentheses with `or` between them.
    fn values(&mut self, mut test: impl FnMut(&mut Self, Relation, u32) -> Tested) -> Tested {
        const EQUAL: Relation = Relation { compare: Compare::Equal, negated: false };
        if !self.take_if(&Token::Open) {
            let relation = self.peek().and_then(relation);
            if relation.is_some() {
                self.take();
            }
            let value = self.expect_number()?;
            return test(self, relation.unwrap_or(EQUAL), value);
        }
        let value = self.expect_number()?;
        let mut all = test(self, EQUAL, value)?;
        while self.take_if(&Token::Or) {
            let value = self.expect_number()?;
            let one = test(self, EQUAL, value)?;
            all = self.generator.or(all, one);
        }
        if self.take_if(&Token::Close) { Ok(all) } else { self.unexpected("`or` or `)` must stand here") }
    }

    fn llc(&mut self) -> Tested {
        let kind = match self.peek() {
            Some(&Token::Name(name)) => match wlan::llc_kind(name) {
                Some(kind) => kind,
                None => return self.unexpected("this is no kind of LLC frame"),
            },
            Some(Token::Keyword(Keyword::Pf(PfField::Rule))) => Llc::SupervisoryOf(5),
            _ => return self.generator.llc(Llc::Any),
        };
        self.take();
        self.generator.llc(kind)
    }

    fn frame_control(&mut self, word: Keyword) -> Tested {
        match word {
            Keyword::Dir => {
                let direction = match self.take_number() {
                    Some(number) => number,
                    None => {
                        let name = self.expect_name()?;
                        wlan::direction(&name)?
                    }
                };
                self.generator.frame_control(1, direction, 3)
            }
            Keyword::Subtype => {
                let name = self.expect_name()?;
                self.generator.frame_control(0, wlan::type_of_subtype(&name)?, 0xfc)
            }
            _ => {
                let kind = match self.take_number() {
                    Some(number) if number & !0x0c != 0 => return refuse("this is no 802.11 type"),
                    Some(number) => number,
                    None => {
                        let name = self.expect_name()?;
                        wlan::frame_type(&name)?
                    }
                };
                if !self.take_if(&Token::Keyword(Keyword::Subtype)) {
                    return self.generator.frame_control(0, kind, 0x0c);
                }
                let subtype = match self.take_number() {
                    Some(number) if number & !0xf0 != 0 => return refuse("this is no 802.11 subtype"),
                    Some(number) => number,
                    None => {
                        let name = self.expect_name()?;
                        wlan::subtype(kind, &name)?
                    }
                };
                self.generator.frame_control(0, kind | subtype, 0xfc)
            }
        }
    }

    fn pf(&mut self, field: PfField) -> Tested {
        let value = match field {
            PfField::Action => {
                let name = self.expect_name()?;
                wlan::pf_action(&name)?
            }
            PfField::Reason if self.peek().is_some_and(|token| !matches!(token, Token::Number(_))) => {
                let name = self.expect_name()?;
                wlan::pf_reason(&name)?
            }
            _ => self.expect_number()?,
        };
        self.generator.pf_field(field, value)
    }

    /// Reads an address or a name, if one follows.
    pub(super) fn address(&mut self, qualifier: Option<Qualifier>) -> Result<Option<Condition>, Refusal> {
        let token = match self.peek() {
            Some(token @ (Token::Name(_) | Token::Ipv4(_) | Token::Ipv6(_) | Token::Mac(_) | Token::Arcnet(_))) => {
                token.clone()
            }
            _ => return Ok(None),
        };
        self.take();
        let Some(qualifier) = qualifier else { return refuse(NO_QUALIFIER) };
        let is_host = matches!(qualifier.kind(), Kind::Host) && qualifier.protocol == Some(Protocol::Link);
        Ok(Some(match token {
            Token::Mac(address) if is_host => self.generator.ether_host(address, qualifier.direction())?,
            Token::Mac(_) => return refuse("a MAC address needs `ether` before it, as in `ether host`"),
            Token::Arcnet(address) if is_host && super::link_type::is_arcnet(self.generator.link) => {
                self.generator.arcnet_host(address, qualifier.direction())?
            }
            Token::Arcnet(_) => return refuse("only packets of ARCnet have such addresses"),
            Token::Ipv6(address) => {
                let prefix = if self.take_if(&Token::Slash) { self.expect_number()? } else { 128 };
                if prefix > 128 {
                    return refuse("an IPv6 address has 128 bits");
                }
                if u128::MAX.checked_shr(prefix).unwrap_or(0) & address.to_bits() != 0 {
                    return refuse(format!("the address {address} has bits beyond the first {prefix}"));
                }
                match qualifier.kind() {
                    Kind::Host if prefix != 128 => return refuse("write `net` before an address with a length"),
                    Kind::Host | Kind::Net => self.generator.host6(address, prefix, qualifier)?,
                    _ => return refuse("an IPv6 address is no port and no protocol"),
                }
            }
            Token::Ipv4(text) => self.ipv4(text, qualifier)?,
            Token::Name(name) => self.name(name, qualifier)?,
            _ => return Ok(None),
        }))
    }

    /// Reads what follows an IPv4 address.
    fn ipv4(&mut self, text: &str, qualifier: Qualifier) -> Tested {
        let mask = if self.take_if(&Token::Slash) {
            match self.expect_number()? {
                0 => 0,
                length @ 1..=32 => u32::MAX << (32 - length),
                _ => return refuse("an IPv4 address has 32 bits"),
            }
        } else if self.take_if(&Token::Keyword(Keyword::Mask)) {
            let Some(Token::Ipv4(mask)) = self.peek().cloned() else {
                return self.unexpected("a mask like 255.255.0.0 must stand here");
            };
            self.take();
            let (mask, length) = dotted(mask)?;
            mask << (32 - length)
        } else {
            return self.plain_ipv4(text, qualifier);
        };
        let (address, length) = dotted(text)?;
        let address = address << (32 - length);
        if address & !mask != 0 {
            return refuse("the address has bits outside of its network");
        }
        if qualifier.kind != Some(Kind::Net) {
            return refuse("write `net` before an address with a length or a mask");
        }
        self.generator.host(address, mask, qualifier)
    }

    fn plain_ipv4(&mut self, text: &str, qualifier: Qualifier) -> Tested {
        if !matches!(qualifier.kind(), Kind::Host | Kind::Net) {
            return refuse("an IPv4 address is no port and no protocol");
        }
        match qualifier.protocol {
            Some(Protocol::Decnet) => self.generator.host(decnet(text)?, u32::MAX, qualifier),
            Some(Protocol::Link) => refuse("an IPv4 address is no address of the link layer"),
            _ => {
                let (address, length) = dotted(text)?;
                let unused = 32 - length;
                self.generator.host(address << unused, u32::MAX << unused, qualifier)
            }
        }
    }

    /// A number with qualifiers: a host, a network, a port or a protocol.
    pub(super) fn number_id(&mut self, number: u32, qualifier: Option<Qualifier>) -> Tested {
        let Some(qualifier) = qualifier else { return refuse(NO_QUALIFIER) };
        match qualifier.kind() {
            Kind::Host | Kind::Net => match qualifier.protocol {
                Some(Protocol::Link) => refuse("a number is no address of the link layer"),
                Some(Protocol::Decnet) => self.generator.host(number, u32::MAX, qualifier),
                _ if qualifier.kind() == Kind::Net => self.network(number, qualifier),
                _ => self.generator.host(number, u32::MAX, qualifier),
            },
            kind @ (Kind::Port | Kind::PortRange) => {
                let transport = Transport::of(qualifier.protocol)?;
                port(i64::from(number))?;
                let ports = Ports { first: number, last: number, is_range: kind == Kind::PortRange };
                self.generator.ports(ports, transport, qualifier.direction())
            }
            Kind::Proto => self.generator.proto(number, qualifier.protocol),
            Kind::ProtoChain => refuse(PROTOCHAIN),
            Kind::Gateway => refuse("`gateway` is not supported; use `ether host` and `not host`"),
        }
    }

    /// A network whose number has leading zeros: they are no part of it.
    fn network(&mut self, mut number: u32, qualifier: Qualifier) -> Tested {
        let mut mask = u32::MAX;
        while number != 0 && number & 0xff00_0000 == 0 {
            number <<= 8;
            mask <<= 8;
        }
        self.generator.host(number, mask, qualifier)
    }

    fn name(&mut self, name: &str, qualifier: Qualifier) -> Tested {
        let protocol = qualifier.protocol;
        match qualifier.kind() {
            Kind::Net => match self.names.network(name) {
                Some(number) => self.network(number, qualifier),
                None => self.names.refuse_network(name),
            },
            Kind::Host if protocol == Some(Protocol::Link) => {
                let Some(address) = self.names.ether(name) else {
                    return refuse(format!("unknown ether host '{name}'"));
                };
                self.generator.ether_host(address, qualifier.direction())
            }
            Kind::Host if protocol == Some(Protocol::Decnet) => refuse("names of DECnet hosts are not supported"),
            Kind::Host => {
                let addresses: Vec<IpAddr> = self.names.host(name)?;
                self.generator.host_of_any(name, &addresses, qualifier)
            }
            Kind::Port => {
                let transport = Transport::of(protocol)?;
                let Some(port) = self.names.port(name) else { return refuse(format!("unknown port '{name}'")) };
                let transport = registered(transport, port)?;
                let ports = Ports { first: port.port, last: port.port, is_range: false };
                self.generator.ports(ports, transport, qualifier.direction())
            }
            Kind::PortRange => {
                let transport = Transport::of(protocol)?;
                let (first, last, assigned) = match port_range(name) {
                    Some((first, last)) => (port(first)?, port(last)?, None),
                    None => {
                        let (first, last, assigned) = self.names.port_range(name)?;
                        (first, last, assigned)
                    }
                };
                let port = Assigned { port: first, transport: assigned };
                let transport = registered(transport, port)?;
                self.generator.ports(Ports { first, last, is_range: true }, transport, qualifier.direction())
            }
            Kind::Gateway => refuse("`gateway` is not supported; use `ether host` and `not host`"),
            Kind::Proto => match self.protocol_number(name, protocol) {
                Some(number) => self.generator.proto(number, protocol),
                None => refuse(format!("unknown protocol '{name}'")),
            },
            Kind::ProtoChain => refuse(PROTOCHAIN),
        }
    }

    fn protocol_number(&mut self, name: &str, over: Option<Protocol>) -> Option<u32> {
        match over {
            None | Some(Protocol::Ip | Protocol::Ip6) => self.names.protocol(name),
            Some(Protocol::Link) => Some(match name {
                "aarp" => ether::AARP,
                "arp" => ether::ARP,
                "atalk" => ether::ATALK,
                "decnet" => ether::DECNET,
                "ip" => ether::IP,
                "ip6" => ether::IPV6,
                "lat" => ether::LAT,
                "loopback" => ether::LOOPBACK,
                "mopdl" => ether::MOPDL,
                "moprc" => ether::MOPRC,
                "rarp" => ether::RARP,
                "sca" => ether::SCA,
                "iso" => ether::SAP_ISO,
                "stp" => ether::SAP_BRIDGE,
                "ipx" => ether::SAP_IPX,
                "netbeui" => ether::SAP_NETBEUI,
                _ => return None,
            }),
            Some(Protocol::Iso) => Some(match name {
                "esis" => iso::ESIS,
                "isis" => iso::ISIS,
                "clnp" => iso::CLNP,
                _ => return None,
            }),
            Some(_) => None,
        }
    }
}

fn port(number: i64) -> Result<u32, Refusal> {
    match u16::try_from(number) {
        Ok(port) => Ok(port.into()),
        Err(_) => refuse(format!("{number} is no port, which is at most 65535")),
    }
}

/// The protocol of a named port: that of the expression, unless the name is assigned for another.
fn registered(asked: Transport, port: Assigned) -> Result<Transport, Refusal> {
    match (asked, port.transport) {
        (Transport::Any, None) => Ok(Transport::Any),
        (Transport::Any, Some(assigned)) => Ok(assigned),
        (asked, None) => Ok(asked),
        (asked, Some(assigned)) if asked == assigned => Ok(asked),
        (_, Some(assigned)) => refuse(format!("this name is a port of {assigned:?} only").to_lowercase()),
    }
}

pub(super) fn relation(token: &Token<'_>) -> Option<Relation> {
    let (compare, negated) = match token {
        Token::Greater => (Compare::Greater, false),
        Token::GreaterEqual => (Compare::GreaterEqual, false),
        Token::Equal => (Compare::Equal, false),
        Token::LessEqual => (Compare::Greater, true),
        Token::Less => (Compare::GreaterEqual, true),
        Token::NotEqual => (Compare::Equal, true),
        _ => return None,
    };
    Some(Relation { compare, negated })
}
