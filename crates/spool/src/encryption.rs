//! Encryption at rest: records of AES-256-GCM, each of which can be decrypted on its own.
//!
//! ```text
//!  magic 8 · key 8 · salt 16 · number 4 · length 4 │ ciphertext … · tag 16
//!  └────────── authenticated, not secret ─────────┘
//! ```
//!
//! Each writer of a file draws a salt, from which HKDF (RFC 5869) derives the key of its records, and numbers them. So no key
//! ever encrypts two records with one nonce, also not where a crash cut a file off and its end is written again. The first
//! key of a key file encrypts. All of its keys decrypt, so that an old key can stay until its files are gone.

use std::fmt;
use std::io;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, KeyType, Prk};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

/// The most plain bytes of one record; a BGZF member fits.
pub const PLAIN_BYTES_MAX: usize = 1 << 16;
/// Bytes that a record takes beside its content.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// The most bytes of a key file.
pub const KEY_FILE_BYTES_MAX: usize = 64 << 10;

const MAGIC: [u8; 8] = *b"RSPSEAL1";
const HEADER_BYTES: usize = 40;
const TAG_BYTES: usize = 16;
const RECORD_INFO: &[u8] = b"retrocap spool record";
const ID_INFO: &[u8] = b"retrocap spool key id";

/// The public number of a key: derived from it, and useless for finding it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key.
#[derive(Clone)]
pub struct Key {
    prk: Prk,
    id: KeyId,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// Output length of a derivation.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(prk: &Prk, info: &[&[u8]], out: &mut [u8]) {
    let filled = prk.expand(info, Length(out.len())).and_then(|derived| derived.fill(out));
    debug_assert!(filled.is_ok(), "an output of {} bytes", out.len());
}

impl Key {
    /// A key of these bytes, which must be random.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let prk = hkdf::Salt::new(HKDF_SHA256, &[]).extract(bytes);
        let mut id = [0; 8];
        expand(&prk, &[ID_INFO], &mut id);
        Self { prk, id: KeyId(id), bytes: Zeroizing::new(*bytes) }
    }

    /// Its public number.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// A key for another purpose, which says nothing about this one.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut out = Zeroizing::new([0; KEY_BYTES]);
        expand(&hkdf::Salt::new(HKDF_SHA256, &[]).extract(&self.bytes[..]), &[purpose.as_bytes()], &mut out[..]);
        out
    }

    fn of_salt(&self, salt: &[u8; 16]) -> Option<LessSafeKey> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        expand(&self.prk, &[RECORD_INFO, salt], &mut bytes[..]);
        UnboundKey::new(&AES_256_GCM, &bytes[..]).ok().map(LessSafeKey::new)
    }
}

/// Why a key file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has no key.
    #[error("it contains no key; make one with: openssl rand -hex 32")]
    Empty,
    /// A line is no key.
    #[error("line {line} is not a key of 64 hexadecimal digits; make one with: openssl rand -hex 32")]
    NoKey {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A key is there twice.
    #[error("line {line} repeats a key")]
    Repeated {
        /// Number of the line, from 1.
        line: usize,
    },
}

/// The keys of a spool. Without any, files are not encrypted.
#[derive(Clone, Debug, Default)]
pub struct Keys(Option<Arc<[Key]>>);

impl Keys {
    /// Reads a key file: one key in each line, 64 hexadecimal digits. Empty lines and lines that begin with `#` are left out.
    ///
    /// # Errors
    ///
    /// If a line is something else, or there is no key.
    pub fn parse(text: &[u8]) -> Result<Self, KeyError> {
        let mut keys: Vec<Key> = Vec::new();
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let bytes = hex(line).ok_or(KeyError::NoKey { line: number + 1 })?;
            let key = Key::new(&bytes);
            if keys.iter().any(|known| known.id == key.id) {
                return Err(KeyError::Repeated { line: number + 1 });
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self(Some(keys.into()))) }
    }

    /// No keys.
    pub const fn none() -> Self {
        Self(None)
    }

    fn all(&self) -> &[Key] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The key that encrypts new files, if any.
    pub fn writing(&self) -> Option<&Key> {
        self.all().first()
    }

    fn find(&self, id: KeyId) -> Option<&Key> {
        self.all().iter().find(|key| key.id == id)
    }
}

fn hex(line: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut out = Zeroizing::new([0; KEY_BYTES]);
    if line.len() != 2 * KEY_BYTES {
        return None;
    }
    for (byte, digits) in out.iter_mut().zip(line.chunks_exact(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(out)
}

/// Encrypts the records of one writer.
pub struct Sealer {
    key: LessSafeKey,
    id: KeyId,
    salt: [u8; 16],
    number: u32,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.id)
    }
}

impl Sealer {
    /// A writer of records.
    ///
    /// # Errors
    ///
    /// If the system has no random numbers.
    pub fn new(key: &Key) -> io::Result<Self> {
        let mut salt = [0; 16];
        let failed = || io::Error::other("the system gave no random numbers");
        SystemRandom::new().fill(&mut salt).map_err(|_| failed())?;
        Ok(Self { key: key.of_salt(&salt).ok_or_else(failed)?, id: key.id, salt, number: 0 })
    }

    /// Appends at most [`PLAIN_BYTES_MAX`] bytes as a record.
    pub fn put(&mut self, out: &mut Vec<u8>, plain: &[u8]) {
        debug_assert!(plain.len() <= PLAIN_BYTES_MAX, "a record of {} bytes", plain.len());
        let start = out.len();
        let len = u32::try_from(plain.len() + TAG_BYTES).unwrap_or(u32::MAX);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(plain);
        let (header, content) = out[start..].split_at_mut(HEADER_BYTES);
        let sealed = self.key.seal_in_place_separate_tag(nonce(self.number), Aad::from(header), content);
        // AES-GCM refuses no content of this length. Should it do so, the record must not be in the clear.
        let Ok(tag) = sealed else { return out.truncate(start) };
        out.extend_from_slice(tag.as_ref());
        // A file of 64 MiB has some thousand records.
        self.number = self.number.wrapping_add(1);
    }
}

fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// The length of the record that begins `bytes`; `None` if none begins there.
pub fn record_len(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..HEADER_BYTES)?;
    let len = usize::try_from(u32::from_le_bytes(*header[36..].first_chunk()?)).ok()?;
    (header[..8] == MAGIC && (TAG_BYTES..=PLAIN_BYTES_MAX + TAG_BYTES).contains(&len)).then_some(HEADER_BYTES + len)
}

/// The key that encrypted the record that begins `bytes`; `None` if none begins there.
pub fn key_of(bytes: &[u8]) -> Option<KeyId> {
    let id = KeyId(*bytes.get(8..16)?.first_chunk()?);
    bytes.starts_with(&MAGIC).then_some(id)
}

/// Where the next record may begin after damage: the distance from the start of `bytes`, which is at least 1.
pub fn next_record(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len().saturating_sub(MAGIC.len() - 1)).find(|&at| bytes[at..].starts_with(&MAGIC))
}

/// Decrypts records.
#[derive(Default)]
pub struct Opener {
    keys: Keys,
    /// The key of the salt that came last.
    last: Option<(KeyId, [u8; 16], LessSafeKey)>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opener").field(&self.keys).finish()
    }
}

impl Opener {
    /// A reader of records with these keys.
    pub fn new(keys: &Keys) -> Self {
        Self { keys: keys.clone(), last: None }
    }

    /// Checks that there is a key for the file that begins with `bytes`.
    ///
    /// # Errors
    ///
    /// If the key is missing. A file whose start is damaged has no error here.
    pub fn check(keys: &Keys, bytes: &[u8]) -> io::Result<()> {
        let refused = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        match key_of(bytes) {
            Some(id) if keys.all().is_empty() => refused(format!(
                "it is encrypted with the key {id}, and no key was given: name the key file (--spool-key FILE)"
            )),
            Some(id) if keys.find(id).is_none() => {
                let given: Vec<String> = keys.all().iter().map(|key| key.id.to_string()).collect();
                refused(format!(
                    "it is encrypted with the key {id}, and the key file has {}: add a line with that key to the file",
                    given.join(", ")
                ))
            }
            _ => Ok(()),
        }
    }

    /// Checks that there is a key for all records that `bytes` seem to contain.
    ///
    /// # Errors
    ///
    /// If a key is missing.
    pub fn check_all(keys: &Keys, mut bytes: &[u8]) -> io::Result<()> {
        Self::check(keys, bytes)?;
        while let Some(at) = next_record(bytes) {
            bytes = &bytes[at..];
            Self::check(keys, bytes)?;
        }
        Ok(())
    }

    /// Appends the content of the record that begins `bytes` and returns the record's length. `None` if the record is
    /// incomplete, damaged or of another key; `out` is then unchanged.
    pub fn record(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let record = bytes.get(..record_len(bytes)?)?;
        let (header, sealed) = record.split_at(HEADER_BYTES);
        let (id, salt) = (key_of(header)?, *header[16..].first_chunk::<16>()?);
        let number = u32::from_le_bytes(*header[32..].first_chunk()?);
        if self.last.as_ref().is_none_or(|(last, of, _)| (*last, *of) != (id, salt)) {
            self.last = Some((id, salt, self.keys.find(id)?.of_salt(&salt)?));
        }
        let (_, _, key) = self.last.as_ref()?;
        let start = out.len();
        out.extend_from_slice(sealed);
        let Ok(plain) = key.open_in_place(nonce(number), Aad::from(header), &mut out[start..]) else {
            out.truncate(start);
            return None;
        };
        let len = plain.len();
        out.truncate(start + len);
        Some(record.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(text: &str) -> Keys {
        Keys::parse(text.as_bytes()).unwrap()
    }

    fn digits(digit: char) -> String {
        String::from_iter([digit; 64])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_record_gives_back_what_went_in_and_any_changed_bit_is_noticed(
            plain in proptest::collection::vec(any::<u8>(), 0..2000), bit: usize, garbage: Vec<u8>,
        ) {
            let keys = keys(&digits('a'));
            let mut sealer = Sealer::new(keys.writing().unwrap()).unwrap();
            let mut record = Vec::new();
            sealer.put(&mut record, &plain);
            prop_assert_eq!(record.len(), plain.len() + OVERHEAD_BYTES);
            let mut opener = Opener::new(&keys);
            let mut out = vec![1, 2];
            prop_assert_eq!(opener.record(&record, &mut out), Some(record.len()));
            prop_assert_eq!(&out[2..], &plain[..]);
            let bit = bit % (record.len() * 8);
            record[bit / 8] ^= 1 << (bit % 8);
            out.truncate(2);
            prop_assert_eq!(opener.record(&record, &mut out), None);
            prop_assert_eq!(&out, &[1, 2]);
            let _ = (opener.record(&garbage, &mut out), next_record(&garbage), Opener::check(&keys, &garbage));
        }
    }

    #[test]
    fn two_writers_never_share_a_nonce() {
        let keys = keys(&digits('b'));
        let (mut one, mut other) = (Vec::new(), Vec::new());
        Sealer::new(keys.writing().unwrap()).unwrap().put(&mut one, b"the same text");
        Sealer::new(keys.writing().unwrap()).unwrap().put(&mut other, b"the same text");
        assert_ne!(one[16..32], other[16..32], "the salts");
        assert_ne!(one[HEADER_BYTES..], other[HEADER_BYTES..]);
        let mut two = Vec::new();
        let mut sealer = Sealer::new(keys.writing().unwrap()).unwrap();
        sealer.put(&mut two, b"the same text");
        sealer.put(&mut two, b"the same text");
        let (first, second) = two.split_at(two.len() / 2);
        assert_ne!(first[HEADER_BYTES..], second[HEADER_BYTES..]);
    }

    #[test]
    fn an_old_key_still_decrypts_and_a_missing_one_is_named() {
        let old = keys(&digits('1'));
        let mut record = Vec::new();
        Sealer::new(old.writing().unwrap()).unwrap().put(&mut record, b"text");
        let both = keys(&format!("# new\n{}\n\n# old\n{}\n", digits('2'), digits('1')));
        assert_eq!(Opener::new(&both).record(&record, &mut Vec::new()), Some(record.len()));
        assert!(Opener::check(&both, &record).is_ok());
        let id = old.writing().unwrap().id().to_string();
        for (wrong, text) in [(keys(&digits('2')), "add a line"), (Keys::default(), "--spool-key FILE")] {
            assert_eq!(Opener::new(&wrong).record(&record, &mut Vec::new()), None);
            let error = Opener::check(&wrong, &record).unwrap_err().to_string();
            assert!(error.contains(&id) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn key_files_are_read_strictly_and_keys_do_not_show() {
        assert_eq!(Keys::parse(b"\n# none\n").unwrap_err(), KeyError::Empty);
        assert_eq!(Keys::parse(b"\nabc\n").unwrap_err(), KeyError::NoKey { line: 2 });
        let twice = format!("{}\n{}", digits('c'), digits('C'));
        assert_eq!(Keys::parse(twice.as_bytes()).unwrap_err(), KeyError::Repeated { line: 2 });
        assert!(!format!("{:?}", keys(&digits('c'))).contains("cccc"));
    }
}
