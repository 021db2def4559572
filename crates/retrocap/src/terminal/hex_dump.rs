//! Dumps packet bytes below a packet's line, as tcpdump does with `-X`, `-x` and `-A`.

use std::fmt::Write as _;

use base::packet::LinkType;

const ROW_BYTES: usize = 16;

/// The dump that follows a packet's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dump {
    HexAndAscii,
    Hex,
    Ascii,
}

/// Appends the bytes after the link-layer header of `header_bytes` bytes, which tcpdump also leaves out.
pub(crate) fn append(out: &mut String, dump: Dump, data: &[u8], header_bytes: usize) {
    append_from(out, dump, data.get(header_bytes..).unwrap_or(data), 0);
}

/// Appends bytes that begin at an offset.
pub(crate) fn append_from(out: &mut String, dump: Dump, data: &[u8], from: u64) {
    if dump == Dump::Ascii {
        out.extend(data.iter().map(|&byte| if byte == b'\n' { '\n' } else { printable(byte) }));
        out.push('\n');
        return;
    }
    for (row, bytes) in data.chunks(ROW_BYTES).enumerate() {
        let mut hex = String::with_capacity(40);
        for pair in bytes.chunks(2) {
            hex.push(' ');
            for byte in pair {
                let _ = write!(hex, "{byte:02x}");
            }
        }
        let offset = from + (row * ROW_BYTES) as u64;
        let _ = write!(out, "    {offset:#06x}: {}", if dump == Dump::Hex { &hex } else { "" });
        if dump == Dump::HexAndAscii {
            let text: String = bytes.iter().map(|&byte| printable(byte)).collect();
            let _ = write!(out, "{hex:<40}  {text}");
        }
        out.push('\n');
    }
}

/// Bytes of the link-layer header, which tcpdump leaves out of a dump.
pub(crate) fn link_header_bytes(link_type: LinkType) -> usize {
    match link_type.0 {
        0 | 108 => 4,
        1 => 14,
        113 => 16,
        276 => 20,
        _ => 0,
    }
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_tcpdump_prints_them() {
        let mut out = String::new();
        append(&mut out, Dump::HexAndAscii, b"..GET / HTTP/1.1\r\nHo\x1b", 2);
        assert_eq!(
            out,
            "    0x0000:  4745 5420 2f20 4854 5450 2f31 2e31 0d0a  GET./.HTTP/1.1..\n\
             \u{20}   0x0010:  486f 1b                                  Ho.\n"
                .replace("GET./.HTTP", "GET / HTTP")
        );
        let mut out = String::new();
        append(&mut out, Dump::Ascii, b"a\x9b\nb", 0);
        assert_eq!(out, "a.\nb\n");
    }
}
