//! What an index can say of the packets that a request selects.

use super::Request;
use super::history::History;
use spool::index::Condition;

/// What every packet that the request selects must have, as far as an index knows it.
pub(super) fn conditions(history: &History, request: &Request) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if let Some(address) = request.address {
        conditions.extend(condition_of(address.range()));
    }
    if let Some(port) = request.port {
        let (from, to) = port.bounds();
        conditions.push(Condition::Port(from, to));
    }
    if let Some(flow) = &request.flow {
        for (ip, port) in flow.ends() {
            conditions.extend(condition_of((ip, ip)));
            conditions.extend((port != 0).then_some(Condition::Port(port, port)));
        }
    }
    if let Some(id) = request.community_id.filter(|_| history.seed(request) == 0) {
        conditions.push(Condition::Session(id.prefix()));
    }
    conditions.extend(necessary(&request.expression));
    conditions
}

/// The condition of a range of addresses.
pub(super) fn condition_of(range: (std::net::IpAddr, std::net::IpAddr)) -> Option<Condition> {
    use std::net::IpAddr;
    match range {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(Condition::Ipv4(from.to_bits(), to.to_bits())),
        (IpAddr::V6(from), IpAddr::V6(to)) => Some(Condition::Ipv6(from.to_bits(), to.to_bits())),
        _ => None,
    }
}

/// Conditions without which no packet matches the expression. Understands conjunctions of hosts, networks and ports;
/// anything else gives no condition, and the packets decide.
fn necessary(expression: &str) -> Vec<Condition> {
    let words: Vec<&str> = expression.split_whitespace().collect();
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-');
    if words.iter().any(|word| !word.chars().all(simple) || matches!(*word, "or" | "not" | "vlan" | "mpls" | "gateway"))
    {
        return Vec::new();
    }
    let terms = words.split(|word| *word == "and");
    terms.filter_map(term).collect()
}

/// The condition of one term: `host A`, `net N/L`, `port P`, also after `src`, `dst` or a protocol.
fn term(words: &[&str]) -> Option<Condition> {
    let [before @ .., kind, value] = words else { return None };
    let known = ["ip", "ip6", "tcp", "udp", "sctp", "src", "dst", "arp", "icmp", "ether"];
    if before.contains(&"ether") || !before.iter().all(|word| known.contains(word)) {
        return None;
    }
    match *kind {
        "host" | "src" | "dst" => condition_of(value.parse().map(|ip| (ip, ip)).ok()?),
        "net" => value.parse::<super::selectors::Subnet>().ok().and_then(|net| condition_of(net.range())),
        "port" => value.parse().ok().map(|port| Condition::Port(port, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conjunctions_of_hosts_and_ports_give_conditions_and_nothing_else_does() {
        let host = Condition::Ipv4(0x0a00_0001, 0x0a00_0001);
        let cases: [(&str, &[Condition]); 10] = [
            ("host 10.0.0.1", &[host]),
            ("tcp and src host 10.0.0.1 and dst port 80", &[host, Condition::Port(80, 80)]),
            ("tcp port 443", &[Condition::Port(443, 443)]),
            ("net 10.0.0.0/8", &[Condition::Ipv4(0x0a00_0000, 0x0aff_ffff)]),
            ("ip6 host 2001:db8::1", &[Condition::Ipv6(0x2001_0db8 << 96 | 1, 0x2001_0db8 << 96 | 1)]),
            ("host 10.0.0.1 or port 80", &[]),
            ("not host 10.0.0.1", &[]),
            ("(host 10.0.0.1)", &[]),
            ("host printer", &[]),
            ("ether host 02:00:00:00:00:01", &[]),
        ];
        for (expression, expected) in cases {
            assert_eq!(necessary(expression), expected, "{expression}");
        }
    }
}
