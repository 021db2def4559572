//! Fingerprints of clients and servers, from the parameters that they offer: JA3, JA3S, JA4 (clients only), HASSH.

use md5::{Digest as _, Md5};
use sha2::Sha256;

/// MD5 in hexadecimal.
pub(crate) fn md5(text: &str) -> String {
    hex(&Md5::digest(text.as_bytes()))
}

/// The first 12 hexadecimal digits of SHA-256, which JA4 uses.
pub(crate) fn sha256_short(text: &str) -> String {
    if text.is_empty() { "000000000000".to_owned() } else { hex(&Sha256::digest(text.as_bytes())[..6]) }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether a value is a GREASE value, which clients send to keep servers tolerant (RFC 8701).
pub(crate) fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// Numbers joined by `-`, without GREASE.
pub(crate) fn joined(values: &[u16]) -> String {
    let values = values.iter().filter(|value| !is_grease(**value));
    values.map(u16::to_string).collect::<Vec<_>>().join("-")
}
