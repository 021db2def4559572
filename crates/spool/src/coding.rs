//! How the bytes of a file are coded: plain or compressed, in the clear or encrypted.
//!
//! A coded file is a sequence of *units*: BGZF members, or encrypted records, each of which holds plain bytes or members.
//! Each unit says how long it is and can be decoded alone.

use std::io;

use crate::bgzf::{self, Deflate, Inflate};
use crate::encryption::{self, Keys, Opener, Sealer};

/// The longest unit, in bytes of the file.
pub const UNIT_BYTES_MAX: usize = encryption::PLAIN_BYTES_MAX + encryption::OVERHEAD_BYTES;

/// How the bytes of a file are coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Coding {
    /// Whether they are BGZF.
    pub compressed: bool,
    /// Whether they are encrypted; what is encrypted may be compressed.
    pub encrypted: bool,
}

impl Coding {
    /// Whether the file is pcapng as it is, without units.
    pub fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// The end of the names of such files.
    pub fn extension(self) -> &'static str {
        match (self.compressed, self.encrypted) {
            (false, false) => ".pcapng",
            (true, false) => ".pcapng.gz",
            (false, true) => ".pcapng.enc",
            (true, true) => ".pcapng.gz.enc",
        }
    }

    /// All codings.
    pub const ALL: [Self; 4] = [
        Self { compressed: false, encrypted: false },
        Self { compressed: true, encrypted: false },
        Self { compressed: false, encrypted: true },
        Self { compressed: true, encrypted: true },
    ];

    /// Bytes that the last block of a file takes, with the end of the file, if the block has `len` bytes.
    pub fn end_len(self, len: usize) -> usize {
        let members = if self.compressed { bgzf::STORED_OVERHEAD_BYTES + bgzf::END.len() } else { 0 };
        len + members + if self.encrypted { encryption::OVERHEAD_BYTES } else { 0 }
    }
}

/// Codes the bytes of one file.
#[derive(Debug)]
pub struct Encoder {
    deflate: Option<Deflate>,
    sealer: Option<Sealer>,
    members: Vec<u8>,
}

impl Encoder {
    /// An encoder; `level` is that of the compression.
    ///
    /// # Errors
    ///
    /// If the file is to be encrypted and there is no key, or the system has no random numbers.
    pub fn new(coding: Coding, level: u8, keys: &Keys) -> io::Result<Self> {
        let no_key = || io::Error::new(io::ErrorKind::PermissionDenied, "there is no key to encrypt with");
        let sealer = match coding.encrypted {
            true => Some(Sealer::new(keys.writing().ok_or_else(no_key)?)?),
            false => None,
        };
        Ok(Self { deflate: coding.compressed.then(|| Deflate::new(level)), sealer, members: Vec::new() })
    }

    /// Appends `plain`, coded.
    pub fn put(&mut self, out: &mut Vec<u8>, plain: &[u8]) {
        match (&mut self.deflate, &mut self.sealer) {
            (None, None) => out.extend_from_slice(plain),
            (Some(deflate), None) => deflate.put(out, plain),
            (None, Some(sealer)) => {
                plain.chunks(encryption::PLAIN_BYTES_MAX).for_each(|part| sealer.put(out, part));
            }
            (Some(deflate), Some(sealer)) => {
                for part in plain.chunks(bgzf::PLAIN_BYTES_MAX) {
                    self.members.clear();
                    deflate.put(&mut self.members, part);
                    sealer.put(out, &self.members);
                }
            }
        }
    }

    /// Appends the last block and the end of the file, so that the file's length says where the block is.
    pub fn put_end(&mut self, out: &mut Vec<u8>, block: &[u8]) {
        self.members.clear();
        match self.deflate {
            Some(_) => {
                bgzf::put_stored(&mut self.members, block);
                self.members.extend_from_slice(&bgzf::END);
            }
            None => self.members.extend_from_slice(block),
        }
        match &mut self.sealer {
            Some(sealer) => sealer.put(out, &self.members),
            None => out.extend_from_slice(&self.members),
        }
    }
}

/// Decodes units.
#[derive(Debug, Default)]
pub struct Decoder {
    inflate: Inflate,
    opener: Opener,
    members: Vec<u8>,
}

impl Decoder {
    /// A decoder that has these keys.
    pub fn new(keys: &Keys) -> Self {
        Self { inflate: Inflate::default(), opener: Opener::new(keys), members: Vec::new() }
    }

    /// Appends the content of the unit that begins `bytes` and returns the unit's length. `None` if the unit is incomplete,
    /// damaged or of another key; `out` is then unchanged. A plain file has no units.
    pub fn unit(&mut self, coding: Coding, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        match (coding.compressed, coding.encrypted) {
            (false, false) => None,
            (true, false) => self.inflate.member(bytes, out),
            (false, true) => self.opener.record(bytes, out),
            (true, true) => {
                self.members.clear();
                let len = self.opener.record(bytes, &mut self.members)?;
                let start = out.len();
                if self.inflate.members(&self.members, out).is_none() {
                    out.truncate(start);
                    return None;
                }
                Some(len)
            }
        }
    }

    /// Appends the content of all units of `bytes`. `None` if one of them is incomplete or damaged.
    pub fn units(&mut self, coding: Coding, mut bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
        if coding.is_plain() {
            out.extend_from_slice(bytes);
            return Some(());
        }
        while !bytes.is_empty() {
            let len = self.unit(coding, bytes, out)?;
            bytes = &bytes[len..];
        }
        Some(())
    }
}

/// Where the next unit may begin after damage: the distance from the start of `bytes`, which is at least 1.
pub fn next_unit(coding: Coding, bytes: &[u8]) -> Option<usize> {
    if coding.encrypted { encryption::next_record(bytes) } else { bgzf::next_member(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_coding_gives_back_what_went_in() {
        let keys = Keys::parse(b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff").unwrap();
        let plain: Vec<u8> = (0..300_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, 1, &keys).unwrap();
            let (mut coded, mut back) = (Vec::new(), Vec::new());
            encoder.put(&mut coded, &plain);
            let data = coded.len();
            encoder.put_end(&mut coded, &[7; 512]);
            assert_eq!(coded.len() - data, coding.end_len(512), "{coding:?}");
            let mut decoder = Decoder::new(&keys);
            decoder.units(coding, &coded, &mut back).unwrap();
            assert!(back == [&plain[..], &[7; 512]].concat(), "{coding:?}");
            if !coding.is_plain() {
                assert!(decoder.units(coding, &coded[..coded.len() - 1], &mut back).is_none());
                let second = next_unit(coding, &coded).unwrap();
                assert!(decoder.unit(coding, &coded[second..], &mut back).is_some());
                assert!(second <= UNIT_BYTES_MAX);
            }
            if coding.encrypted {
                assert!(Encoder::new(coding, 1, &Keys::default()).is_err());
                assert!(!coded.windows(8).any(|bytes| bytes == &plain[..8]), "in the clear");
            }
        }
    }
}
