//! Selectors besides the tcpdump expression: interface, flow, Community ID, address and port.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use engine::session::{SessionKey, key::Side};

/// Two endpoints in either order, and optionally a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// One endpoint; port 0 matches any port.
    pub a: (IpAddr, u16),
    /// The other endpoint; port 0 matches any port.
    pub b: (IpAddr, u16),
    /// IP protocol number; `None` matches any protocol.
    pub protocol: Option<u8>,
}

/// The text is not a flow.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "cannot read the flow {read:?}: {wrong}; try '10.0.0.5:51234 192.0.2.7:443 tcp' or '[2001:db8::1]:53 [2001:db8::2]:5353'"
)]
pub struct FlowError {
    read: String,
    wrong: String,
}

impl FromStr for Flow {
    type Err = FlowError;

    fn from_str(text: &str) -> Result<Self, FlowError> {
        let error = |wrong: String| FlowError { read: shortened(text), wrong };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (a, b, protocol) = match words[..] {
            [a, b] => (a, b, None),
            [a, b, protocol] => (a, b, Some(protocol)),
            _ => {
                return Err(error(format!(
                    "expected two endpoints and perhaps a protocol, found {} words",
                    words.len()
                )));
            }
        };
        let endpoint = |word: &str| {
            endpoint(word).ok_or_else(|| error(format!("{:?} is not an address and a port", shortened(word))))
        };
        let protocol = match protocol.map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("tcp") => Some(6),
            Some("udp") => Some(17),
            Some("sctp") => Some(132),
            Some("icmp") => Some(1),
            Some("icmp6" | "icmpv6" | "ipv6-icmp") => Some(58),
            Some(number) => Some(
                number
                    .parse()
                    .map_err(|_| error(format!("{:?} is no protocol that is known here", shortened(number))))?,
            ),
        };
        let flow = Self { a: endpoint(a)?, b: endpoint(b)?, protocol };
        if flow.a.0.is_ipv4() != flow.b.0.is_ipv4() {
            return Err(error("one address is IPv4 and the other IPv6".to_owned()));
        }
        Ok(flow)
    }
}

/// The text, cut to 80 characters for an error message.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn endpoint(word: &str) -> Option<(IpAddr, u16)> {
    if let Ok(socket) = word.parse::<SocketAddr>() {
        return Some((socket.ip(), socket.port()));
    }
    let address = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).unwrap_or(word);
    address.parse().ok().map(|ip| (ip, 0))
}

impl std::fmt::Display for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let write = |f: &mut std::fmt::Formatter<'_>, (ip, port): (IpAddr, u16)| match port {
            0 => write!(f, "{ip}"),
            _ => write!(f, "{}", SocketAddr::new(ip, port)),
        };
        write(f, self.a)?;
        f.write_str(" ")?;
        write(f, self.b)?;
        match self.protocol {
            Some(protocol) => write!(f, " {protocol}"),
            None => Ok(()),
        }
    }
}

impl Flow {
    /// Both endpoints; port 0 stands for any.
    pub fn ends(&self) -> [(IpAddr, u16); 2] {
        [self.a, self.b]
    }

    pub(super) fn matches(&self, key: &SessionKey) -> bool {
        if self.protocol.is_some_and(|protocol| protocol != key.protocol()) {
            return false;
        }
        let is = |wanted: (IpAddr, u16), side: Side| {
            let endpoint = key.endpoint(side);
            endpoint.ip == Some(wanted.0) && (wanted.1 == 0 || wanted.1 == endpoint.port)
        };
        (is(self.a, Side::Low) && is(self.b, Side::High)) || (is(self.a, Side::High) && is(self.b, Side::Low))
    }
}

/// An address, or a network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet(IpNet);

/// The text is neither an address nor a network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{read:?} is no address: try 10.0.0.5, 10.0.0.0/8 or 2001:db8::/32")]
pub struct SubnetError {
    read: String,
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let plain = text.replace(['[', ']'], "");
        let net = plain.parse::<IpNet>().ok().or_else(|| plain.parse::<IpAddr>().ok().map(IpNet::from));
        net.map(Self).ok_or_else(|| SubnetError { read: shortened(text) })
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Subnet {
    pub(super) fn contains(self, ip: IpAddr) -> bool {
        self.0.contains(&ip)
    }

    /// The first and the last address.
    pub(super) fn range(self) -> (IpAddr, IpAddr) {
        (self.0.network(), self.0.broadcast())
    }
}

/// A port, or an inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// The text is neither a port nor a range of ports.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{read:?} is not a port from 0 to 65535, nor a range of them: try 443 or 5000-5010")]
pub struct PortError {
    read: String,
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(PortError { read: shortened(text) }),
        }
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl PortRange {
    /// The first and the last port.
    pub(super) fn bounds(self) -> (u16, u16) {
        (self.first, self.last)
    }

    pub(super) fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_read_as_people_write_them() {
        for (text, expected) in [
            ("10.0.0.1:80 10.0.0.2:1234", "10.0.0.1:80 10.0.0.2:1234"),
            ("10.0.0.1:80 10.0.0.2:1234 TCP", "10.0.0.1:80 10.0.0.2:1234 6"),
            ("10.0.0.1 10.0.0.2:53 17", "10.0.0.1 10.0.0.2:53 17"),
            (" [2001:db8::1]:53   [2001:db8::2]:5353 udp ", "[2001:db8::1]:53 [2001:db8::2]:5353 17"),
            ("2001:db8::1 2001:db8::2", "2001:db8::1 2001:db8::2"),
        ] {
            assert_eq!(text.parse::<Flow>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_subnet_holds_its_addresses() {
        for (net, ip, holds) in [
            ("10.0.0.5", "10.0.0.5", true),
            ("10.0.0.5", "10.0.0.4", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "255.0.0.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("[2001:db8::]/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("2001:db8::1", "2001:db8::1", true),
        ] {
            let subnet: Subnet = net.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(subnet.contains(ip.parse().unwrap()), holds, "{net} {ip}");
            assert_eq!(subnet.to_string().parse(), Ok(subnet));
        }
        for wrong in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "::/129", "example.com", "10.0.0.1:80"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_are_one_or_a_range() {
        for (text, written, holds, misses) in [
            ("443", "443", 443, 444),
            ("5000-5010", "5000-5010", 5010, 5011),
            (" 7 - 7", "7", 7, 6),
            ("0-65535", "0-65535", 0, 0),
        ] {
            let ports: PortRange = text.parse().unwrap();
            assert_eq!(ports.to_string(), written);
            assert!(ports.contains(holds) && (text == "0-65535" || !ports.contains(misses)), "{text}");
        }
        for wrong in ["", "http", "65536", "5-4", "-5", "5-", "1-2-3"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_long_text_is_not_repeated_whole() {
        let error = "x".repeat(5000).parse::<Flow>().unwrap_err().to_string();
        assert!(error.len() < 500, "{error}");
        let error = format!("10.0.0.1 10.0.0.2 {}", "é".repeat(5000)).parse::<Flow>().unwrap_err().to_string();
        assert!(error.len() < 1000, "{error}");
    }

    #[test]
    fn what_is_no_flow_says_why() {
        for (text, wrong) in [
            ("10.0.0.1:80", "found 1 words"),
            ("10.0.0.1:80 nobody:1", "\"nobody:1\" is not an address and a port"),
            ("10.0.0.1:80 10.0.0.2:1 smoke", "\"smoke\" is no protocol"),
            ("10.0.0.1:80 [::1]:1", "one address is IPv4 and the other IPv6"),
        ] {
            let error = text.parse::<Flow>().unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("try '10.0.0.5:51234"), "{text}: {error}");
        }
    }
}
