//! Encryption on this side, in the format of [age](https://age-encryption.org/v1): recorders have the public key alone, so that a
//! recorder that was taken over cannot read the archive. `age --decrypt` reads the objects, too.

use std::io::{Read as _, Write as _};
use std::path::Path;

use age::secrecy::ExposeSecret as _;
use anyhow::{Context as _, anyhow};

/// First line of an encrypted file.
const MAGIC: &[u8] = b"age-encryption.org/v1\n";
/// Bytes of a chunk, and bytes that encryption adds to each.
const CHUNK: u64 = 64 << 10;
const TAG: u64 = 16;
/// The longest header that is expected.
const HEADER_BYTES_MAX: u64 = 64 << 10;

/// Public keys.
pub(crate) struct Recipients(Vec<age::x25519::Recipient>);

impl Recipients {
    /// Reads keys `age1…`, and files of them; `None` if there are none.
    pub(crate) fn read(keys: &[String], files: &[std::path::PathBuf]) -> anyhow::Result<Option<Self>> {
        let mut all = Vec::new();
        let mut add = |key: &str, place: &str| {
            let key = key.parse().map_err(|error| anyhow!("{place}: not a public key of age: {error}: try age1…"))?;
            all.push(key);
            anyhow::Ok(())
        };
        for key in keys {
            add(key, "--recipient")?;
        }
        for file in files {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                add(line, &file.display().to_string())?;
            }
        }
        if !files.is_empty() && all.is_empty() {
            return Err(anyhow!("the files of --recipients have no key, so nothing would be encrypted"));
        }
        Ok((!all.is_empty()).then_some(Self(all)))
    }

    pub(crate) fn encrypt(&self, plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        let keys = self.0.iter().map(|key| key as &dyn age::Recipient);
        let mut out = Vec::with_capacity(plain.len() + plain.len() / 2048 + 1024);
        let mut writer = age::Encryptor::with_recipients(keys)?.wrap_output(&mut out)?;
        writer.write_all(plain)?;
        writer.finish()?;
        Ok(out)
    }
}

/// Private keys.
pub(crate) struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl Identities {
    pub(crate) fn read(files: &[std::path::PathBuf]) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for file in files {
            let reader =
                std::fs::File::open(file).with_context(|| format!("cannot read the key {}", file.display()))?;
            let read = age::IdentityFile::from_buffer(std::io::BufReader::new(reader));
            let read = read.map_err(|_| anyhow!("{} has no private key of age: AGE-SECRET-KEY-1…", file.display()))?;
            all.extend(read.into_identities()?);
        }
        Ok(Self(all))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decrypts an object. The error says whether no key fits or the object is damaged.
    pub(crate) fn decrypt(&self, encrypted: &[u8]) -> Result<Vec<u8>, DecryptionFailure> {
        let damaged = |error: &dyn std::fmt::Display| DecryptionFailure::Damaged(error.to_string());
        let decryptor = age::Decryptor::new(encrypted).map_err(|error| damaged(&error))?;
        let keys = self.0.iter().map(|key| &**key as &dyn age::Identity);
        let mut reader = decryptor.decrypt(keys).map_err(|error| match error {
            age::DecryptError::NoMatchingKeys => DecryptionFailure::NoKey,
            error => damaged(&error),
        })?;
        let mut plain = Vec::with_capacity(encrypted.len());
        reader.read_to_end(&mut plain).map_err(|error| damaged(&error))?;
        Ok(plain)
    }
}

/// Why an object was not decrypted.
pub(crate) enum DecryptionFailure {
    NoKey,
    Damaged(String),
}

/// Whether an object can be the encryption of so many bytes. It is all that can be told without the private key.
pub(crate) fn can_be_of(encrypted: &[u8], plain_bytes: u64) -> bool {
    let body = plain_bytes + plain_bytes.div_ceil(CHUNK).max(1) * TAG + TAG;
    let len = encrypted.len() as u64;
    encrypted.starts_with(MAGIC) && (body..body + HEADER_BYTES_MAX).contains(&len)
}

/// Writes a new private key to a file that is not there yet, readable for its owner. Returns the public key.
pub(crate) fn generate(path: &Path) -> anyhow::Result<String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let key = age::x25519::Identity::generate();
    let public = key.to_public().to_string();
    let text = format!("# public key: {public}\n{}\n", key.to_string().expose_secret());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_private_key_reads_what_was_encrypted() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, other) = (folder.path().join("mine"), folder.path().join("other"));
        let public = generate(&mine).unwrap();
        generate(&other).unwrap();
        assert!(generate(&mine).is_err(), "a key is not overwritten");
        let recipients = Recipients::read(&[public], &[]).unwrap().unwrap();
        for len in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let plain: Vec<u8> = (0..len).map(|at: u32| u8::try_from(at % 251).unwrap()).collect();
            let mut encrypted = recipients.encrypt(&plain).unwrap();
            assert!(can_be_of(&encrypted, u64::from(len)));
            assert!(!can_be_of(&encrypted, u64::from(len) + 70_000) && !can_be_of(&plain, u64::from(len)));
            let keys = Identities::read(std::slice::from_ref(&mine)).unwrap();
            assert!(keys.decrypt(&encrypted).is_ok_and(|decrypted| decrypted == plain));
            let strangers = Identities::read(std::slice::from_ref(&other)).unwrap();
            assert!(matches!(strangers.decrypt(&encrypted), Err(DecryptionFailure::NoKey)));
            let last = encrypted.len() - 1;
            encrypted[last] ^= 1;
            assert!(matches!(keys.decrypt(&encrypted), Err(DecryptionFailure::Damaged(_))));
            encrypted.truncate(last);
            assert!(matches!(keys.decrypt(&encrypted), Err(DecryptionFailure::Damaged(_))));
        }
    }
}
