//! Flows as other programs print them, to be pasted after `--flow`.

use std::net::{IpAddr, SocketAddr};

use query::selectors::Flow;

/// Parses a flow, also from a line that another program printed: `flows` (text, CSV, JSON), tcpdump, `tshark -z conv`,
/// Zeek's conn.log, Suricata's fast.log, `ss` or netstat.
pub(super) fn pasted_flow(text: &str) -> Result<Flow, String> {
    text.parse::<Flow>().or_else(|error| printed_flow(text).ok_or_else(|| error.to_string()))
}

fn printed_flow(text: &str) -> Option<Flow> {
    if text.trim_start().starts_with('{') {
        let row: serde_json::Value = serde_json::from_str(text).ok()?;
        let end = |name: &str| {
            let ip: IpAddr = row[name]["ip"].as_str()?.parse().ok()?;
            Some((ip, u16::try_from(row[name]["port"].as_u64()?).ok()?))
        };
        let flow = format!("{} {}", ended(end("originator")?), ended(end("responder")?));
        return match row["proto"].as_str() {
            Some(protocol) if is_protocol(protocol) => format!("{flow} {protocol}").parse().ok(),
            _ => flow.parse().ok(),
        };
    }
    let words: Vec<&str> = text
        .split([' ', '\t', ',', ';'])
        .map(|word| word.trim_matches(['"', '{', '}']))
        .filter(|word| !word.is_empty())
        .collect();
    let has_arrow = words.iter().any(|word| is_arrow(word));
    let ends: Vec<(usize, String)> = (0..words.len())
        .filter_map(|at| {
            let port = (!has_arrow).then(|| words.get(at + 1)?.parse::<u16>().ok()).flatten();
            Some((at, printed_end(words[at].trim_end_matches(':'), port)?))
        })
        .take(2)
        .collect();
    let [(first, from), (second, to)] = &ends[..] else { return None };
    // Only an arrow, a port or both may stand between the two.
    if second - first > 3 {
        return None;
    }
    let protocol = words.iter().map(|word| word.to_lowercase()).find(|word| is_protocol(word));
    let protocol = protocol.map(|word| format!(" {word}")).unwrap_or_default();
    format!("{from} {to}{protocol}").parse().ok()
}

fn is_arrow(word: &str) -> bool {
    matches!(word, ">" | "->" | "<->" | "<-" | "=>" | "<=>" | "→" | "←" | "↔")
}

/// Parses an endpoint as `flows` prints it, as tcpdump does, with a dot before the port, or with the port in a column of its
/// own.
fn printed_end(word: &str, port: Option<u16>) -> Option<String> {
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Some(ended((ip, port.unwrap_or(0))));
    }
    if word.parse::<SocketAddr>().is_ok() {
        return Some(word.to_owned());
    }
    let (ip, port) = word.rsplit_once('.')?;
    Some(ended((ip.parse().ok()?, port.parse().ok()?)))
}

fn ended((ip, port): (IpAddr, u16)) -> String {
    if port == 0 { ip.to_string() } else { SocketAddr::new(ip, port).to_string() }
}

fn is_protocol(word: &str) -> bool {
    matches!(word, "tcp" | "udp" | "sctp" | "icmp" | "icmp6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_programs_name_a_flow() {
        let flow: Flow = "10.0.0.5:51234 192.0.2.7:443 tcp".parse().unwrap();
        for line in [
            "\"2012-03-16T14:47:09.820000000Z\",\"2012-03-16T14:47:32.680000000Z\",\"tcp\",\"10.0.0.5\",51234,\"192.0.2.7\",443,,120,36",
            "2012-03-16 14:47:09  tcp  10.0.0.5:51234 > 192.0.2.7:443  94 packets",
            "10.0.0.5:51234 <-> 192.0.2.7:443 tcp",
            "tcp 10.0.0.5:51234 → 192.0.2.7:443",
            "03/16/2012-14:47:09.1 [**] [1:2:3] A rule [**] [Priority: 2] {TCP} 10.0.0.5:51234 -> 192.0.2.7:443",
            "1331909229.82\tCHhAvVGS1DHFjwGM9\t10.0.0.5\t51234\t192.0.2.7\t443\ttcp\thttp",
            "tcp        0      0 10.0.0.5:51234          192.0.2.7:443        ESTABLISHED",
            r#"{"originator":{"ip":"10.0.0.5","port":51234},"responder":{"ip":"192.0.2.7","port":443},"proto":"tcp"}"#,
        ] {
            assert_eq!(pasted_flow(line), Ok(flow.clone()), "{line}");
        }
        let tcpdump = "14:47:09.820000 IP 10.0.0.5.51234 > 192.0.2.7.443: Flags [S], length 0";
        assert_eq!(pasted_flow(tcpdump), "10.0.0.5:51234 192.0.2.7:443".parse().map_err(|_| String::new()));
        let ping = "14:47:09.820000 IP 10.0.0.5 > 192.0.2.7: ICMP echo request, id 1, seq 1, length 64";
        assert_eq!(pasted_flow(ping), "10.0.0.5 192.0.2.7 icmp".parse().map_err(|_| String::new()));
        for line in ["", "10.0.0.5", "from 10.0.0.5 by the way to the host 192.0.2.7", "a > b", "1 2 3 4"] {
            assert!(pasted_flow(line).is_err(), "{line}");
        }
    }
}
