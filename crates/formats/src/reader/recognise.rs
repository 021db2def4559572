//! Recognises the format of an input by its first bytes, and names common formats that are not supported.

use super::outcome::{Damage, InterfaceTable};
use super::{pcap, pcapng};

/// The number of bytes that identify the format.
pub(super) const BYTES: usize = 4;
/// The number of bytes of an unsupported file that an error message shows.
const SHOWN_BYTES: usize = 8;

pub(super) enum Recognised {
    Pcap(pcap::Parser),
    Pcapng,
    MoreWanted(usize),
}

/// Recognises the format from at least [`BYTES`] bytes at the start of an input.
pub(super) fn recognise(bytes: &[u8], table: &mut InterfaceTable) -> Result<Recognised, Damage> {
    if bytes.starts_with(&pcapng::MAGIC) {
        return Ok(Recognised::Pcapng);
    }
    let Some(magic) = pcap::Magic::of(bytes) else {
        return Err(Damage { offset: 0, message: foreign(bytes) });
    };
    match bytes.first_chunk() {
        Some(header) => pcap::Parser::new(magic, header, table).map(Recognised::Pcap),
        None => Ok(Recognised::MoreWanted(pcap::FILE_HEADER_BYTES)),
    }
}

/// Returns the damage of an input that ended before its format was recognised.
pub(super) fn cut_short(bytes: &[u8]) -> Damage {
    let message = match bytes.len() {
        0 => "the input is empty, expected pcap or pcapng".to_owned(),
        length if pcap::Magic::of(bytes).is_some() => {
            format!("file header cut short: {length} of {} bytes", pcap::FILE_HEADER_BYTES)
        }
        _ => foreign(bytes),
    };
    Damage { offset: 0, message }
}

/// Magic numbers of files that are mistaken for captures, with the format's name and advice.
const FOREIGN: &[(&[u8], &str, &str)] = &[
    (&[0x1f, 0x8b], "gzip", COMPRESSED_GZIP),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "decompress it first: zstdcat FILE | retrocap replay -"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz", "decompress it first: xzcat FILE | retrocap replay -"),
    (b"BZh", "bzip2", "decompress it first: bzcat FILE | retrocap replay -"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4", "decompress it first: lz4cat FILE | retrocap replay -"),
    (b"PK\x03\x04", "zip", "unpack it first: unzip -p FILE | retrocap replay -"),
    (b"snoop\0\0\0", "snoop", CONVERT),
    (b"GMBU", "Network Monitor", CONVERT),
    (b"RTSS", "Network Monitor", CONVERT),
    (b"\x89PNG", "PNG", EXPECTED),
    (b"%PDF", "PDF", EXPECTED),
    (b"\x7fELF", "ELF", EXPECTED),
    (b"<!DO", "HTML", EXPECTED),
    (b"<htm", "HTML", EXPECTED),
];
const COMPRESSED_GZIP: &str = "decompress it first: zcat FILE | retrocap replay -";
const CONVERT: &str = "convert it first: editcap -F pcapng FILE - | retrocap replay -";
const EXPECTED: &str = "expected pcap or pcapng";

fn foreign(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut shown = String::new();
    for byte in bytes.iter().take(SHOWN_BYTES) {
        let _ = write!(shown, "{}{byte:02x}", if shown.is_empty() { "" } else { " " });
    }
    match FOREIGN.iter().find(|(beginning, ..)| bytes.starts_with(beginning)) {
        Some((_, name, advice)) => format!("not a capture file: begins with {shown} ({name}); {advice}"),
        None if bytes.iter().take(SHOWN_BYTES).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => {
            format!("not a capture file: begins with {shown} (text); {EXPECTED}")
        }
        None => format!("not a capture file: begins with {shown}; {EXPECTED}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_capture_is_named() {
        let table: &[(&[u8], &str)] = &[
            (b"\x89PNG\r\n\x1a\n", "begins with 89 50 4e 47 0d 0a 1a 0a (PNG); expected pcap or pcapng"),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "(gzip); decompress it first: zcat FILE | retrocap replay -"),
            (b"\x28\xb5\x2f\xfd\0\0", "(zstd); decompress it first: zstdcat FILE | retrocap replay -"),
            (b"\xfd7zXZ\0", "(xz); decompress it first: xzcat FILE | retrocap replay -"),
            (b"snoop\0\0\0", "(snoop); convert it first: editcap -F pcapng FILE - | retrocap replay -"),
            (b"1234", "begins with 31 32 33 34 (text); expected pcap or pcapng"),
            (b"\0\0\0\0", "begins with 00 00 00 00; expected pcap or pcapng"),
        ];
        for (bytes, message) in table {
            let said = foreign(bytes);
            assert!(said.starts_with("not a capture file: begins with "), "{said}");
            assert!(said.ends_with(message), "{said}");
        }
    }
}
