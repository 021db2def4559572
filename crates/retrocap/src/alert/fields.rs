//! Reads the fields that the formats share: addresses, ports, times and protocols.

use std::net::IpAddr;

use super::json;
use base::time::Timestamp;

/// Reads an IP address without its zone. An IPv4-mapped IPv6 address becomes IPv4.
pub(super) fn address(name: &str, text: &str) -> Result<IpAddr, String> {
    let bare = text.split('%').next().unwrap_or_default();
    let address: IpAddr = bare.parse().map_err(|_| format!("{name} is {}, not an IP address", json::shown(text)))?;
    Ok(address.to_canonical())
}

/// Reads a port. 0 or a missing field means no port.
pub(super) fn port(name: &str, text: Option<&str>) -> Result<u16, String> {
    let Some(text) = text else { return Ok(0) };
    text.parse().map_err(|_| format!("{name} is {}, not a port", json::shown(text)))
}

/// Reads a time: seconds or milliseconds since 1970, or a date and time, which is UTC unless it has an offset.
pub(super) fn time(name: &str, text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("{name} is {}, not a time like 2026-11-22T10:00:00.123456+0000", json::shown(text));
    if let Ok(number) = text.parse::<f64>() {
        // A time in seconds has ten integer digits until the year 2286.
        const MILLISECONDS_FROM: f64 = 1e11;
        if number >= MILLISECONDS_FROM {
            let micros = number * 1e3;
            let whole = format!("{:.0}", micros).parse::<u64>().map_err(|_| wrong())?;
            return Ok(Timestamp(whole.saturating_mul(1000)));
        }
        return base::time::parse(&format!("@{text}"), Timestamp::MIN, &jiff::tz::TimeZone::UTC).map_err(|_| wrong());
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.len() < "2026-11-22T10:00:00".len() {
        return Err(wrong());
    }
    // strftime writes the offset as +0100; RFC 3339 requires +01:00.
    if !text.is_ascii() {
        return Err(wrong());
    }
    let mut text = text.to_owned();
    let bytes = text.as_bytes();
    let sign = bytes.len() - 5;
    if matches!(bytes[sign], b'+' | b'-') && bytes[sign + 1..].iter().all(u8::is_ascii_digit) {
        text.insert(sign + 3, ':');
    }
    base::time::parse(&text, Timestamp::MIN, &jiff::tz::TimeZone::UTC).map_err(|_| wrong())
}

/// The IP protocol number; `None` for an unknown name, which then matches any protocol.
pub(super) fn protocol(name: &str) -> Option<u8> {
    Some(match name.to_ascii_lowercase().as_str() {
        "icmp" => 1,
        "igmp" => 2,
        "tcp" => 6,
        "udp" => 17,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "icmp6" | "icmpv6" | "ipv6-icmp" => 58,
        "sctp" => 132,
        number => return number.parse().ok().filter(|&number| number != 0),
    })
}
