//! A little-endian encoding of integers and strings, used for the state that one recorder hands over to the next (see
//! `engine::handover`).

use std::io::{self, Read, Write};

/// An error of kind [`io::ErrorKind::InvalidData`] that names the damaged part.
pub fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes encoded values.
pub trait Put: Write {
    /// Writes one byte.
    fn put_u8(&mut self, value: u8) -> io::Result<()> {
        self.write_all(&[value])
    }

    /// Writes a `u16`.
    fn put_u16(&mut self, value: u16) -> io::Result<()> {
        self.write_all(&value.to_le_bytes())
    }

    /// Writes a `u32`.
    fn put_u32(&mut self, value: u32) -> io::Result<()> {
        self.write_all(&value.to_le_bytes())
    }

    /// Writes a `u64`.
    fn put_u64(&mut self, value: u64) -> io::Result<()> {
        self.write_all(&value.to_le_bytes())
    }

    /// Writes a sequence of `u64` words, without its length.
    fn put_words(&mut self, words: &[u64]) -> io::Result<()> {
        words.iter().try_for_each(|word| self.put_u64(*word))
    }

    /// Writes a `u16` length and the UTF-8 bytes of `text`, cut to at most 65,535 bytes at a character boundary.
    fn put_text(&mut self, text: &str) -> io::Result<()> {
        let mut len = text.len().min(usize::from(u16::MAX));
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        self.put_u16(u16::try_from(len).unwrap_or(0))?;
        self.write_all(&text.as_bytes()[..len])
    }
}

impl<W: Write + ?Sized> Put for W {}

/// Reads values that [`Put`] has written. The end of the input is an error of kind `UnexpectedEof`.
pub trait Take: Read {
    /// Reads `N` bytes.
    fn take_array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads one byte.
    fn take_u8(&mut self) -> io::Result<u8> {
        self.take_array().map(u8::from_le_bytes)
    }

    /// Reads a `u16`.
    fn take_u16(&mut self) -> io::Result<u16> {
        self.take_array().map(u16::from_le_bytes)
    }

    /// Reads a `u32`.
    fn take_u32(&mut self) -> io::Result<u32> {
        self.take_array().map(u32::from_le_bytes)
    }

    /// Reads a `u64`.
    fn take_u64(&mut self) -> io::Result<u64> {
        self.take_array().map(u64::from_le_bytes)
    }

    /// Reads a sequence of `N` `u64` words.
    fn take_words<const N: usize>(&mut self) -> io::Result<[u64; N]> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.take_u64()?;
        }
        Ok(words)
    }

    /// Reads a string of at most 65,535 bytes. Invalid UTF-8 is an error.
    fn take_text(&mut self) -> io::Result<String> {
        let mut bytes = vec![0; usize::from(self.take_u16()?)];
        self.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| damaged("a text that is none"))
    }
}

impl<R: Read + ?Sized> Take for R {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let mut bytes = Vec::new();
        bytes.put_u8(1).unwrap();
        bytes.put_u16(2).unwrap();
        bytes.put_u32(3).unwrap();
        bytes.put_words(&[4, u64::MAX]).unwrap();
        bytes.put_text("späť").unwrap();
        bytes.put_text(&"ä".repeat(40_000)).unwrap();
        let mut rest = &bytes[..];
        assert_eq!((rest.take_u8().unwrap(), rest.take_u16().unwrap(), rest.take_u32().unwrap()), (1, 2, 3));
        assert_eq!(rest.take_words().unwrap(), [4, u64::MAX]);
        assert_eq!(rest.take_text().unwrap(), "späť");
        assert_eq!(rest.take_text().unwrap(), "ä".repeat(32_767), "cut where a character ends");
        assert_eq!(rest.take_u8().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
