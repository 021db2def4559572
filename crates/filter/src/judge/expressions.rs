//! Expressions made from the grammar of pcap-filter(7), about what the packets contain.

use super::packets::Packets;
use super::random::Random;

/// The words of the grammar that damaged expressions are made of.
const WORDS: [&str; 60] = [
    "host",
    "net",
    "port",
    "portrange",
    "proto",
    "src",
    "dst",
    "and",
    "or",
    "not",
    "(",
    ")",
    "tcp",
    "udp",
    "ip",
    "ip6",
    "icmp",
    "ether",
    "vlan",
    "mpls",
    "10.0.0.1",
    "10.1",
    "80",
    "80-90",
    "0x1f",
    "017",
    "::1",
    "fe80::2",
    "2:0:0:0:0:1",
    "[",
    "]",
    ":",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&",
    "|",
    "^",
    "<<",
    ">",
    "<=",
    "=",
    "!=",
    "len",
    "less",
    "greater",
    "byte",
    "broadcast",
    "multicast",
    "gateway",
    "domain",
    "\\tcp",
    "mask",
    "255.255.0.0",
    "tcp[tcpflags]",
    "1.2.3.4.5",
    "$a1",
    "protochain",
];

pub(super) const KNOWN: &[&str] = &include!("known.in");

const PROTOCOLS: [&str; 12] =
    ["ip", "ip6", "tcp", "udp", "icmp", "icmp6", "arp", "rarp", "sctp", "igmp", "ether", "pim"];
const NAMES: [&str; 24] = [
    "atalk", "aarp", "decnet", "iso", "stp", "ipx", "netbeui", "lat", "moprc", "mopdl", "sca", "ah", "esp", "vrrp",
    "carp", "igrp", "isis", "esis", "clnp", "l1", "l2", "iih", "lsp", "csnp",
];
const SERVICES: [&str; 10] = ["http", "https", "domain", "ssh", "ntp", "snmp", "syslog", "bootps", "imap2", "ftp-data"];

pub(super) struct Expressions<'a> {
    packets: &'a Packets,
}

impl<'a> Expressions<'a> {
    pub(super) fn new(packets: &'a Packets) -> Self {
        Self { packets }
    }

    /// An expression of up to 2 to the power of `depth` primitives.
    pub(super) fn next(&mut self, random: &mut Random, depth: usize) -> String {
        match if depth == 0 { 0 } else { random.below(8) } {
            0..=2 => self.primitive(random),
            3 => format!("{} {}", random.choose(&["not", "!"]), self.next(random, depth - 1)),
            4 => format!("({})", self.next(random, depth - 1)),
            5 => {
                let (qualifier, list) = (self.qualifier(random), self.list(random));
                format!("{qualifier} {list}")
            }
            _ => {
                let join = *random.choose(&["and", "or", "&&", "||", "and not", "or not"]);
                format!("{} {join} {}", self.next(random, depth - 1), self.next(random, depth - 1))
            }
        }
    }

    /// A token too many, too few or in the wrong place.
    pub(super) fn damaged(&mut self, random: &mut Random) -> String {
        let mut words: Vec<String> = if random.one_in(3) {
            (0..1 + random.below(7)).map(|_| (*random.choose(&WORDS)).to_owned()).collect()
        } else {
            let whole = self.next(random, 2);
            whole.replace('(', " ( ").replace(')', " ) ").split_whitespace().map(str::to_owned).collect()
        };
        for _ in 0..1 + random.below(2) {
            let at = random.below(words.len());
            match random.below(4) {
                0 if words.len() > 1 => drop(words.remove(at)),
                1 => words.insert(at, (*random.choose(&WORDS)).to_owned()),
                2 => words[at] = (*random.choose(&WORDS)).to_owned(),
                _ => {
                    let other = random.below(words.len());
                    words.swap(at, other);
                }
            }
        }
        words.join(if random.one_in(30) { "" } else { " " })
    }

    /// Addresses or numbers that share a qualifier.
    fn list(&mut self, random: &mut Random) -> String {
        let joins = ["or", "and", "or not"];
        let mut list = String::new();
        for at in 0..2 + random.below(3) {
            if at > 0 {
                list += &format!(" {} ", random.choose(&joins));
            }
            list += &self.port(random);
        }
        if random.one_in(2) { format!("({list})") } else { list }
    }

    fn qualifier(&mut self, random: &mut Random) -> String {
        let protocol = *random.choose(&["", "", "tcp ", "udp ", "sctp "]);
        let direction = *random.choose(&["", "", "src ", "dst ", "src or dst ", "src and dst "]);
        format!("{protocol}{direction}port")
    }

    /// Bytes of a packet: at this offset after Ethernet, so many.
    fn bytes(&self, random: &mut Random, at: usize, len: usize) -> Vec<u8> {
        let frame = self.packets.frame(random);
        (at..at + len).map(|at| frame.get(at).copied().unwrap_or(0)).collect()
    }

    fn port(&self, random: &mut Random) -> String {
        if random.one_in(12) {
            return (*random.choose(&SERVICES)).to_owned();
        }
        let at = 34 + 2 * random.below(2);
        let bytes = self.bytes(random, at, 2);
        let port = u16::from(bytes[0]) << 8 | u16::from(bytes[1]);
        if random.one_in(8) { format!("0x{port:x}") } else { port.to_string() }
    }

    fn address(&self, random: &mut Random) -> [u8; 4] {
        let at = 26 + 4 * random.below(2);
        self.bytes(random, at, 4).try_into().unwrap()
    }

    fn mac(&self, random: &mut Random) -> String {
        let at = 6 * random.below(2);
        let bytes = self.bytes(random, at, 6);
        let sign = *random.choose(&[":", ":", "-", "."]);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(sign)
    }

    fn primitive(&mut self, random: &mut Random) -> String {
        let direction = *random.choose(&["", "", "src ", "dst ", "src or dst ", "src and dst ", "dst or src "]);
        match random.below(22) {
            0..=2 => self.host(random, direction),
            3 => self.net(random, direction),
            4..=5 => format!("{} {}", self.qualifier(random), self.port(random)),
            6 => {
                let (first, last) = (self.port(random), self.port(random));
                format!("{}range {first}-{last}", self.qualifier(random))
            }
            7 => format!("ether {direction}host {}", self.mac(random)),
            8 => (*random.choose(&PROTOCOLS[..10])).to_owned(),
            9 => (*random.choose(&NAMES)).to_owned(),
            10 => {
                let over = *random.choose(&["ip ", "ip6 ", ""]);
                let number = *random.choose(&["6", "17", "1", "\\tcp", "\\udp", "58", "\\icmp", "132", "0x32"]);
                format!("{over}proto {number}")
            }
            11 => {
                let kinds =
                    ["0x800", "0x86dd", "\\ip", "\\arp", "0x8100", "100", "\\stp", "0xfe", "0x42", "\\ipx", "0xf0"];
                format!("ether proto {}", random.choose(&kinds))
            }
            12 => (*random.choose(&[
                "broadcast",
                "multicast",
                "ip broadcast",
                "ip multicast",
                "ip6 multicast",
                "ether multicast",
            ]))
            .to_owned(),
            13 => {
                let layer = *random.choose(&["vlan", "mpls", "pppoes", "vlan", "geneve"]);
                if random.one_in(2) { layer.to_owned() } else { format!("{layer} {}", random.below(8)) }
            }
            14 => format!("{} {}", random.choose(&["less", "greater"]), random.below(200)),
            15 => {
                format!("byte {} {} {}", random.below(40), random.choose(&["=", "<", ">", "&", "|"]), random.below(256))
            }
            16 => (*random.choose(&RARE)).to_owned(),
            _ => self.relation(random),
        }
    }

    fn host(&self, random: &mut Random, direction: &str) -> String {
        if random.one_in(4) {
            let at = 22 + 16 * random.below(2);
            let bytes: [u8; 16] = self.bytes(random, at, 16).try_into().unwrap();
            let address = std::net::Ipv6Addr::from(bytes);
            let protocol = *random.choose(&["", "ip6 "]);
            return format!("{protocol}{direction}host {address}");
        }
        let [a, b, c, d] = self.address(random);
        let protocol = *random.choose(&["", "", "ip ", "arp ", "rarp ", "decnet "]);
        let kind = if direction.is_empty() { "host " } else { *random.choose(&["host ", ""]) };
        if protocol == "decnet " {
            return format!("{protocol}{direction}{kind}{a}.{b}");
        }
        format!("{protocol}{direction}{kind}{a}.{b}.{c}.{d}")
    }

    fn net(&self, random: &mut Random, direction: &str) -> String {
        let [a, b, c, d] = self.address(random);
        match random.below(7) {
            0 => format!("{direction}net {a}"),
            1 => format!("{direction}net {a}.{b}"),
            2 => format!("{direction}net {a}.{b}.{c}"),
            3 => format!("{direction}net {a}.{b}.0.0/16"),
            4 => format!("{direction}net {a}.{b}.{c}.{}/{}", d & 0xf0, 28 + random.below(5)),
            5 => format!("{direction}net {a}.0.0.0 mask 255.0.0.0"),
            _ => {
                let bytes = self.bytes(random, 22, 16);
                format!("{direction}net {:x}{:02x}::/16", bytes[0], bytes[1])
            }
        }
    }

    fn relation(&self, random: &mut Random) -> String {
        let operator = *random.choose(&["=", "==", "!=", ">", "<", ">=", "<="]);
        let named = [
            "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
            "tcp[13] & tcp-ack = tcp-ack",
            "icmp[icmptype] = icmp-echo",
            "icmp6[icmp6type] = icmp6-neighborsolicit",
            "ip[6:2] & 0x1fff = 0",
            "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420",
            "ether[0] & 1 = 0 and ip[16] >= 224",
        ];
        if random.one_in(6) {
            return (*random.choose(&named)).to_owned();
        }
        format!("{} {operator} {}", self.arithmetic(random, 2), self.arithmetic(random, 1))
    }

    fn arithmetic(&self, random: &mut Random, depth: usize) -> String {
        match if depth == 0 { random.below(3) } else { random.below(9) } {
            0 => random.below(300).to_string(),
            1 => (*random.choose(&["len", "0x0f", "1", "tcp-syn", "65535", "0xffffffff"])).to_owned(),
            2..=4 => {
                let protocol = *random.choose(&PROTOCOLS);
                let at = random.below(20);
                let size = *random.choose(&["", "", ":1", ":2", ":4"]);
                format!("{protocol}[{at}{size}]")
            }
            5 => format!("{}[{}]", random.choose(&PROTOCOLS), self.arithmetic(random, depth - 1)),
            6 => format!("-{}", self.arithmetic(random, depth - 1)),
            7 => format!("({})", self.arithmetic(random, depth - 1)),
            _ => {
                let operators = ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"];
                let operator = *random.choose(&operators);
                format!("{} {operator} {}", self.arithmetic(random, depth - 1), self.arithmetic(random, depth - 1))
            }
        }
    }
}

/// Primitives that few link types know.
const RARE: [&str; 34] = [
    "type data",
    "type mgt subtype beacon",
    "subtype qos-data",
    "dir tods",
    "wlan addr1 2:0:0:0:0:1",
    "wlan addr2 2:0:0:0:0:1",
    "wlan addr3 2:0:0:0:0:1",
    "wlan addr4 2:0:0:0:0:1",
    "wlan ra 2:0:0:0:0:1",
    "wlan ta 2:0:0:0:0:2",
    "wlan host 2:0:0:0:0:1",
    "radio[4] = 2",
    "llc",
    "llc i",
    "llc s",
    "llc ui",
    "llc rnr",
    "vpi 0",
    "vci > 3",
    "vci (3 or 5)",
    "oam",
    "connectmsg",
    "lane",
    "on eeee",
    "rulenum 0",
    "reason match",
    "action pass",
    "inbound",
    "outbound",
    "ifindex 5",
    "fisu",
    "sio 3",
    "dpc 5",
    "pppoed",
];
