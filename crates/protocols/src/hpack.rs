//! HPACK, the compression of headers in HTTP/2 (RFC 7541): decoding only, with bounds.
//!
//! Decoders of well-kept crates build the table of the Huffman code for each string, which a hostile sender turns into
//! twenty microseconds for two bytes.

use std::collections::VecDeque;
use std::sync::LazyLock;

/// Bytes of the dynamic table that a sender may ask for.
const TABLE_BYTES_MAX: usize = 64 << 10;
/// The size of the table before a sender asks for another one.
const TABLE_BYTES: usize = 4096;
/// Bytes of the fields that one block may make: references to a large entry take a byte each.
const BLOCK_BYTES_MAX: usize = 256 << 10;
/// What an entry counts beside its bytes.
const ENTRY_BYTES: usize = 32;

/// The state of the headers of one side.
#[derive(Debug)]
pub(crate) struct Decoder {
    dynamic: VecDeque<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { dynamic: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES }
    }
}

impl Decoder {
    /// Passes the fields of a block. `None` if it cannot be read, after which the state of the sender is not known.
    pub(crate) fn block(&mut self, data: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> Option<()> {
        let (mut rest, mut made) = (data, 0);
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                let bytes = integer(&mut rest, 5)?;
                self.bytes_max = Some(bytes).filter(|&bytes| bytes <= TABLE_BYTES_MAX)?;
                self.evict();
                continue;
            }
            let (name, value) = if first & 0x80 != 0 {
                self.entry(integer(&mut rest, 7)?)?
            } else {
                let keeps = first & 0x40 != 0;
                let index = integer(&mut rest, if keeps { 6 } else { 4 })?;
                let name = if index == 0 { string(&mut rest)? } else { self.entry(index)?.0 };
                let field = (name, string(&mut rest)?);
                if keeps {
                    self.bytes += field.0.len() + field.1.len() + ENTRY_BYTES;
                    self.dynamic.push_front(field.clone());
                    self.evict();
                }
                field
            };
            made += name.len() + value.len() + ENTRY_BYTES;
            if made > BLOCK_BYTES_MAX {
                return None;
            }
            each(&name, &value);
        }
        Some(())
    }

    fn entry(&self, index: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.dynamic.get(index - STATIC.len()).cloned(),
        }
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max
            && let Some((name, value)) = self.dynamic.pop_back()
        {
            self.bytes -= name.len() + value.len() + ENTRY_BYTES;
        }
    }
}

/// An integer whose first bits are the last ones of the first byte.
fn integer(rest: &mut &[u8], prefix: u8) -> Option<usize> {
    let (&first, mut tail) = rest.split_first()?;
    let mask = (1u16 << prefix) - 1;
    let mut value = usize::from(u16::from(first) & mask);
    if value == usize::from(mask) {
        let mut shift = 0;
        loop {
            let (&next, after) = tail.split_first()?;
            tail = after;
            value += usize::from(next & 0x7f) << shift;
            shift += 7;
            if next & 0x80 == 0 {
                break;
            }
            // Nothing that is longer than four bytes has a meaning here.
            if shift > 21 {
                return None;
            }
        }
    }
    *rest = tail;
    Some(value)
}

fn string(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let is_huffman = rest.first()? & 0x80 != 0;
    let len = integer(rest, 7)?;
    let (bytes, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    if is_huffman { HUFFMAN.decode(bytes) } else { Some(bytes.to_vec()) }
}

/// The code: of each length the first code, and the symbols in the order of their codes.
struct Huffman {
    /// First code, number of codes, and place of the first symbol.
    lengths: [(u32, u32, usize); 31],
    symbols: Vec<u16>,
}

static HUFFMAN: LazyLock<Huffman> = LazyLock::new(|| {
    // The code is canonical: codes of one length follow each other in the order of their symbols.
    let (mut lengths, mut symbols, mut code) = ([(0, 0, 0); 31], Vec::new(), 0u32);
    for (len, place) in lengths.iter_mut().enumerate().skip(1) {
        code <<= 1;
        let of_len = (0u16..).zip(CODE_LENGTHS).filter(|(_, of)| usize::from(*of) == len).map(|(symbol, _)| symbol);
        let first = symbols.len();
        symbols.extend(of_len);
        let count = u32::try_from(symbols.len() - first).unwrap_or(0);
        *place = (code, count, first);
        code += count;
    }
    Huffman { lengths, symbols }
});

impl Huffman {
    fn decode(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (mut out, mut code, mut len) = (Vec::with_capacity(bytes.len() * 8 / 5), 0u32, 0usize);
        for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
            code = code << 1 | u32::from(bit);
            len += 1;
            let &(first, count, place) = self.lengths.get(len)?;
            if let Some(at) = code.checked_sub(first).filter(|&at| at < count) {
                let symbol = self.symbols.get(place + at as usize)?;
                // The end of strings is no part of a string.
                out.push(u8::try_from(*symbol).ok()?);
                (code, len) = (0, 0);
            }
        }
        // What is left over is the start of that symbol: ones, and less than a byte.
        (len < 8 && code == (1 << len) - 1).then_some(out)
    }
}

/// Bits of the code of each byte, and of the end of strings (RFC 7541, appendix B).
#[rustfmt::skip]
const CODE_LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// Fields that need not be sent (RFC 7541, appendix A).
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: &mut Decoder, hex: &str) -> Option<Vec<(String, String)>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let mut fields = Vec::new();
        decoder.block(&bytes, &mut |name, value| fields.push((text(name), text(value))))?;
        Some(fields)
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        // RFC 7541, C.4 and C.6.1.
        let mut requests = Decoder::default();
        let first = decoded(&mut requests, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff").unwrap();
        let expected = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(first, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let second = decoded(&mut requests, "8286 84be 5886 a8eb 1064 9cbf").unwrap();
        assert_eq!(
            second[3..],
            [(":authority", "www.example.com"), ("cache-control", "no-cache")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        let response = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d \
                        29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
        let response = decoded(&mut Decoder::default(), response).unwrap();
        assert_eq!(response[0], (":status".to_owned(), "302".to_owned()));
        assert_eq!(response[3], ("location".to_owned(), "https://www.example.com".to_owned()));
    }

    #[test]
    fn hostile_blocks_are_refused_within_bounds() {
        for hex in ["ff", "7f80808080808001", "80", "be", "40ff", "418cf1", "3fffffff7f", "0083ffffff"] {
            assert_eq!(decoded(&mut Decoder::default(), hex), None, "{hex}");
        }
        // A large entry, and many references to it.
        let mut decoder = Decoder::default();
        let mut block = vec![0x40, 1, b'a', 0x7f, 0xb9, 0x16];
        block.extend(vec![b'x'; 3000]);
        block.extend(vec![0xbe; 60_000]);
        let mut made = 0;
        assert!(decoder.block(&block, &mut |name, value| made += name.len() + value.len()).is_none());
        assert!(made <= BLOCK_BYTES_MAX, "{made}");
    }
}
