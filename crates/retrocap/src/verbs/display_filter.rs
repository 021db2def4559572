//! Translates Wireshark's display filters to tcpdump expressions.
//!
//! A display filter is translated if a tcpdump expression has exactly the same meaning. Otherwise an error says what to
//! do instead. Like every tcpdump expression, a translation does not match packets inside tunnels or behind VLAN tags.

use crate::error::Usage;

/// Maximum nesting depth of parentheses and negations.
const DEPTH_MAX: usize = 32;

/// Translates a display filter. Returns `None` if `text` is no display filter.
///
/// # Errors
///
/// [`Usage`] for a display filter without an equivalent tcpdump expression.
pub(crate) fn translate(text: &str) -> anyhow::Result<Option<String>> {
    let Some(tokens) = tokens(text) else { return Ok(None) };
    if !is_display_filter(&tokens) {
        return Ok(None);
    }
    parse(text, &tokens).map(Some)
}

/// Translates an expression that libpcap does not compile, if its words can be a display filter without a field: `dns`,
/// `!(arp or dns)`, `tcp contains "GET"`. Returns `None` otherwise.
///
/// # Errors
///
/// [`Usage`] for a display filter without an equivalent tcpdump expression.
pub(crate) fn translate_refused(text: &str) -> anyhow::Result<Option<String>> {
    const WORDS: [&str; 26] = [
        "ipv6", "icmpv6", "dns", "mdns", "http", "http2", "tls", "ssl", "quic", "ssh", "smb", "smb2", "ftp", "smtp",
        "imap", "pop", "dhcp", "bootp", "ntp", "snmp", "sip", "rtp", "modbus", "dnp3", "contains", "matches",
    ];
    // These words are in tcpdump expressions only, where a port can be called http.
    const QUALIFIERS: [&str; 8] = ["port", "portrange", "host", "net", "proto", "src", "dst", "ether"];
    let Some(tokens) = tokens(text) else { return Ok(None) };
    let has = |words: &[&str]| tokens.iter().any(|token| words.contains(&token.as_str()));
    if has(&WORDS) && !has(&QUALIFIERS) { parse(text, &tokens).map(Some) } else { Ok(None) }
}

/// Translates the value of `-Y`, which is a display filter in any case.
///
/// # Errors
///
/// [`Usage`] if no tcpdump expression has the same meaning.
pub(crate) fn translate_all(text: &str) -> anyhow::Result<String> {
    match tokens(text) {
        Some(tokens) => parse(text, &tokens),
        None => Err(Parser { tokens: &[], text }.wrong("a quote is not closed")),
    }
}

fn parse(text: &str, tokens: &[String]) -> anyhow::Result<String> {
    let mut parser = Parser { tokens, text };
    let expression = parser.any(0)?;
    match parser.tokens.first() {
        None => Ok(expression),
        Some(token) => Err(parser.unknown(token)),
    }
}

/// Whether one of the words is a field of Wireshark: one that is known, or any word with a dot that is compared.
fn is_display_filter(tokens: &[String]) -> bool {
    // After these words tcpdump expects a host name.
    let names_a_host = |before: &str| matches!(before, "host" | "net" | "src" | "dst" | "gateway");
    let compares = |after: &str| matches!(after, "==" | "eq" | "ne" | "contains" | "matches" | "~" | "in");
    tokens.iter().enumerate().any(|(at, token)| {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at)).map_or("", String::as_str);
        let after = tokens.get(at + 1).map_or("", String::as_str);
        !names_a_host(before) && (is_field(token) || (is_dotted(token) && compares(after)))
    })
}

/// Splits an expression into names, values, operators and parentheses.
fn tokens(text: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let operators = ["==", "!=", ">=", "<=", "&&", "||", ">", "<", "!", "(", ")", "{", "}", ",", "~"];
        let bytes = if let Some(operator) = operators.iter().find(|operator| rest.starts_with(**operator)) {
            operator.len()
        } else if c == '"' {
            rest[1..].find('"')? + 2
        } else {
            rest.find(|c: char| c.is_whitespace() || "=!<>&|(){},~\"".contains(c)).unwrap_or(rest.len())
        };
        if bytes == 0 {
            return None;
        }
        tokens.push(rest[..bytes].to_owned());
        rest = rest[bytes..].trim_start();
    }
    Some(tokens)
}

/// Whether a word is a field of a protocol in Wireshark, such as `ip.addr`.
fn is_field(word: &str) -> bool {
    const PROTOCOLS: [&str; 21] = [
        "ip", "ipv6", "tcp", "udp", "sctp", "eth", "arp", "icmp", "icmpv6", "frame", "vlan", "http", "http2", "dns",
        "tls", "ssl", "smb", "smb2", "ftp", "quic", "data",
    ];
    let Some((protocol, _)) = word.split_once('.') else { return false };
    PROTOCOLS.contains(&protocol) && is_dotted(word)
}

/// Whether a word can be a field: `modbus.func_code`.
fn is_dotted(word: &str) -> bool {
    let Some((protocol, field)) = word.split_once('.') else { return false };
    protocol.starts_with(|c: char| c.is_ascii_alphabetic())
        && protocol.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        && field.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c))
        && !field.is_empty()
}

struct Parser<'a> {
    tokens: &'a [String],
    text: &'a str,
}

impl Parser<'_> {
    fn take(&mut self, words: &[&str]) -> bool {
        let is_next = self.tokens.first().is_some_and(|token| words.contains(&token.as_str()));
        if is_next {
            self.tokens = &self.tokens[1..];
        }
        is_next
    }

    fn next(&mut self) -> anyhow::Result<String> {
        let (first, rest) = self.tokens.split_first().ok_or_else(|| self.wrong("it ends too early"))?;
        self.tokens = rest;
        Ok(first.clone())
    }

    /// Parses alternatives. In Wireshark `and` binds tighter than `or`; tcpdump gives them equal precedence, so the
    /// output has parentheses.
    fn any(&mut self, depth: usize) -> anyhow::Result<String> {
        let mut terms = vec![self.all(depth)?];
        while self.take(&["or", "||"]) {
            terms.push(self.all(depth)?);
        }
        Ok(joined(terms, " or "))
    }

    fn all(&mut self, depth: usize) -> anyhow::Result<String> {
        let mut terms = vec![self.term(depth)?];
        while self.take(&["and", "&&"]) {
            terms.push(self.term(depth)?);
        }
        Ok(joined(terms, " and "))
    }

    fn term(&mut self, depth: usize) -> anyhow::Result<String> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("it is nested too deeply"));
        }
        if self.take(&["not", "!"]) {
            return Ok(format!("not ({})", self.term(depth + 1)?));
        }
        if self.take(&["("]) {
            let inner = self.any(depth + 1)?;
            return if self.take(&[")"]) { Ok(inner) } else { Err(self.wrong("a parenthesis is not closed")) };
        }
        let field = self.next()?;
        if let Some(protocol) = protocol(&field) {
            return Ok(protocol.to_owned());
        }
        if self.take(&["==", "eq"]) {
            let value = self.next()?;
            return self.equals(&field, &value);
        }
        if self.take(&["in"]) {
            return self.one_of(&field);
        }
        if field == "frame.len" {
            let comparison = self.next()?;
            let value = self.next()?;
            let number: u32 = value.parse().map_err(|_| self.wrong("frame.len takes a number"))?;
            return match comparison.as_str() {
                ">" | "<" | ">=" | "<=" => Ok(format!("len {comparison} {number}")),
                _ => Err(self.unknown(&comparison)),
            };
        }
        if is_field(&field) && self.tokens.first().is_some_and(|token| token == "!=") {
            return Err(self.wrong(&format!("{field} != has meant two things in Wireshark: write !({field} == …)")));
        }
        Err(self.unknown(&field))
    }

    fn one_of(&mut self, field: &str) -> anyhow::Result<String> {
        if !self.take(&["{"]) {
            return Err(self.wrong("`in` takes a set, as in tcp.port in {80, 443}"));
        }
        let mut terms = Vec::new();
        while !self.take(&["}"]) {
            let value = self.next()?;
            terms.push(self.equals(field, &value)?);
            self.take(&[","]);
        }
        if terms.is_empty() { Err(self.wrong("a set is empty")) } else { Ok(joined(terms, " or ")) }
    }

    fn equals(&self, field: &str, value: &str) -> anyhow::Result<String> {
        let (protocol, name) = field.split_once('.').ok_or_else(|| self.unknown(field))?;
        let direction = match name {
            "addr" | "host" | "port" => "",
            "src" | "src_host" | "srcport" => "src ",
            "dst" | "dst_host" | "dstport" => "dst ",
            _ => return self.flag_or_number(field, value),
        };
        let wrong = |what: &str| self.wrong(&format!("{field} takes {what}, not {value:?}"));
        match (protocol, name.ends_with("port")) {
            ("tcp" | "udp" | "sctp", true) => {
                let (first, last) = value.split_once("..").unwrap_or((value, value));
                match (first.parse::<u16>(), last.parse::<u16>()) {
                    (Ok(first), Ok(last)) if first == last => Ok(format!("{protocol} {direction}port {first}")),
                    (Ok(first), Ok(last)) if first < last => {
                        Ok(format!("{protocol} {direction}portrange {first}-{last}"))
                    }
                    _ => Err(wrong("a port")),
                }
            }
            ("ip", false) => {
                let net: ipnet::Ipv4Net = network(value, 32).ok_or_else(|| wrong("an IPv4 address"))?;
                let net = net.trunc();
                Ok(match net.prefix_len() {
                    32 => format!("ip {direction}host {}", net.addr()),
                    _ => format!("ip {direction}net {net}"),
                })
            }
            ("ipv6", false) => {
                let net: ipnet::Ipv6Net = network(value, 128).ok_or_else(|| wrong("an IPv6 address"))?;
                let net = net.trunc();
                Ok(match net.prefix_len() {
                    128 => format!("ip6 {direction}host {}", net.addr()),
                    _ => format!("ip6 {direction}net {net}"),
                })
            }
            ("eth", false) => {
                let mac = value.replace('-', ":");
                let is_mac = mac.split(':').count() == 6
                    && mac.split(':').all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok());
                if is_mac { Ok(format!("ether {direction}host {mac}")) } else { Err(wrong("a MAC address")) }
            }
            _ => Err(self.unknown(field)),
        }
    }

    fn flag_or_number(&self, field: &str, value: &str) -> anyhow::Result<String> {
        let bit = match field {
            "tcp.flags.fin" => 1,
            "tcp.flags.syn" => 2,
            "tcp.flags.reset" => 4,
            "tcp.flags.push" => 8,
            "tcp.flags.ack" => 16,
            "ip.proto" => {
                let number: u8 = value.parse().map_err(|_| self.wrong("ip.proto takes a number"))?;
                return Ok(format!("ip proto {number}"));
            }
            "frame.len" => {
                let number: u32 = value.parse().map_err(|_| self.wrong("frame.len takes a number"))?;
                return Ok(format!("len = {number}"));
            }
            _ => return Err(self.unknown(field)),
        };
        let comparison = match value {
            "1" | "true" | "True" => "!=",
            "0" | "false" | "False" => "=",
            _ => return Err(self.wrong(&format!("{field} is 0 or 1"))),
        };
        // libpcap's `tcp[]` covers only IPv4. In IPv6 without extension headers, TCP begins at byte 40.
        Ok(format!("(tcp[13] & {bit} {comparison} 0 or (ip6[6] = 6 and ip6[53] & {bit} {comparison} 0))"))
    }

    fn wrong(&self, why: &str) -> anyhow::Error {
        Usage::of(format_args!("{:?} is a display filter of Wireshark, and {why}", shortened(self.text)))
    }

    /// An error for a word that only Wireshark can interpret.
    fn unknown(&self, word: &str) -> anyhow::Error {
        let instead = match word.split('.').next().unwrap_or_default() {
            "http" => "try 'tcp port 80', or for the host --name HOST",
            "dns" => "try 'port 53', or for the name --name HOST",
            "tls" | "ssl" => "try 'tcp port 443', or for the server's name --name HOST",
            "vlan" => "try 'vlan 42' alone",
            _ => "try a tcpdump expression such as 'host 10.0.0.5 and port 80'",
        };
        let filter = shortened(self.text).replace('\'', "'\\''");
        self.wrong(&format!(
            "no tcpdump expression means {word:?} exactly: {instead}; or let tshark look, as in retrocap get --since 10m \
             -w - | tshark -r - -Y '{filter}'"
        ))
    }
}

fn network<N: std::str::FromStr>(value: &str, bits: u8) -> Option<N> {
    if value.contains('/') { value.parse().ok() } else { format!("{value}/{bits}").parse().ok() }
}

/// Protocol names with the same meaning in Wireshark and tcpdump.
fn protocol(word: &str) -> Option<&'static str> {
    Some(match word {
        "ip" => "ip",
        "ipv6" => "ip6",
        "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        "arp" => "arp",
        "icmp" => "icmp",
        "icmpv6" => "icmp6",
        _ => return None,
    })
}

fn joined(mut terms: Vec<String>, with: &str) -> String {
    if terms.len() == 1 { terms.remove(0) } else { format!("({})", terms.join(with)) }
}

fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    if text.chars().count() <= CHARS_MAX {
        text.to_owned()
    } else {
        text.chars().take(CHARS_MAX).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_translated() {
        for (filter, expression) in [
            ("ip.addr==10.0.0.5", "ip host 10.0.0.5"),
            ("ip.addr == 10.0.0.0/8", "ip net 10.0.0.0/8"),
            ("ip.src eq 10.0.0.5 && tcp.dstport == 443", "(ip src host 10.0.0.5 and tcp dst port 443)"),
            ("ipv6.addr==2001:db8::1", "ip6 host 2001:db8::1"),
            ("tcp.port in {80, 443 8000..8080}", "(tcp port 80 or tcp port 443 or tcp portrange 8000-8080)"),
            ("!(udp.port==53)", "not (udp port 53)"),
            ("tcp.port==1 or tcp.port==2 and ip.addr==10.0.0.1", "(tcp port 1 or (tcp port 2 and ip host 10.0.0.1))"),
            ("eth.addr == 02:00:00:00:00:01", "ether host 02:00:00:00:00:01"),
            ("frame.len > 1000 and icmpv6", "(len > 1000 and icmp6)"),
            ("ip.proto == 47", "ip proto 47"),
        ] {
            let translated = translate(filter).unwrap().unwrap();
            assert_eq!(translated, expression);
            crate::verbs::selection::expression(&[translated]).unwrap();
        }
        let flags = translate("tcp.flags.syn==1 && tcp.flags.ack==0").unwrap().unwrap();
        crate::verbs::selection::expression(&[flags]).unwrap();
    }

    #[test]
    fn what_only_wireshark_knows_is_explained() {
        for (filter, words) in [
            ("http.request.method==\"POST\"", &["tcp port 80", "tshark -r - -Y 'http.request.method==\"POST\"'"][..]),
            ("dns.qry.name contains \"example\"", &["--name HOST"]),
            ("tls.handshake.extensions_server_name == \"a\"", &["--name HOST"]),
            ("ip.addr != 10.0.0.5", &["!(ip.addr == …)"]),
            ("tcp.port == http", &["takes a port"]),
            ("ip.addr == 10.0.0.5 &&", &["ends too early"]),
            ("(tcp.port == 80", &["not closed"]),
            ("tcp.analysis.retransmission", &["tcp.analysis.retransmission", "tshark"]),
            ("vlan.id == 42", &["vlan 42"]),
            ("modbus.func_code == 5", &["modbus.func_code", "tshark"]),
            ("ssh.protocol contains \"OpenSSH\"", &["ssh.protocol", "tshark"]),
        ] {
            let error = translate(filter).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{filter}: {error}");
            }
        }
        for (filter, word) in [("dns", "port 53"), ("http", "tcp port 80"), ("ssh", "tshark"), ("\"", "quote")] {
            let error = translate_all(filter).unwrap_err().to_string();
            assert!(error.contains(word), "{filter}: {error}");
        }
        assert_eq!(translate_all("arp").unwrap(), "arp");
        assert_eq!(translate_all("ip.addr == 10.0.0.5 or tcp").unwrap(), "(ip host 10.0.0.5 or tcp)");
        assert!(translate(&format!("{}tcp.port==1", "!".repeat(100_000))).is_err());
    }

    #[test]
    fn tcpdump_expressions_are_left_alone() {
        for expression in [
            "port 53",
            "tcp[13] & 2 != 0",
            "host example.com",
            "not (tcp and port 22)",
            "ip",
            "udp && port 53",
            "",
            "host ip.example",
        ] {
            assert_eq!(translate(expression).unwrap(), None, "{expression}");
        }
    }
}
