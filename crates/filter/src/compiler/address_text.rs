//! Addresses and ranges as text.

use super::refusal::{Refusal, refuse};

/// Reads one to four bytes with dots between them. Returns the number and its bits.
pub(super) fn dotted(text: &str) -> Result<(u32, u32), Refusal> {
    let mut number = 0_u32;
    let mut bits = 0;
    for part in text.split('.') {
        // Leading zeros mean nothing here, unlike in numbers.
        match part.bytes().all(|digit| digit.is_ascii_digit()).then(|| part.parse::<u8>()) {
            Some(Ok(byte)) => number = number << 8 | u32::from(byte),
            _ => return refuse(format!("invalid IPv4 address '{text}'")),
        }
        bits += 8;
    }
    Ok((number, bits))
}

/// Reads a DECnet address: area and node.
pub(super) fn decnet(text: &str) -> Result<u32, Refusal> {
    let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(area), Some(node)) => Ok(area << 10 & 0xfc00 | node & 0x3ff),
        _ => refuse(format!("malformed DECnet address '{text}'")),
    }
}

/// Reads two decimal numbers with `-` between them. What follows is ignored, as tcpdump does.
pub(super) fn port_range(text: &str) -> Option<(i64, i64)> {
    let (first, rest) = signed(text)?;
    let (last, _) = signed(rest.strip_prefix('-')?)?;
    Some((first, last))
}

fn signed(text: &str) -> Option<(i64, &str)> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return None;
    }
    let (number, rest) = text.split_at(text.len() - unsigned.len() + digits);
    Some((number.trim_start_matches('+').parse().unwrap_or(i64::MAX), rest))
}
