//! The documents about objects: what an object is, and why one is there no more.

use serde::{Deserialize, Serialize};

use crate::key::DataKey;
use base::time::Timestamp;

/// Version of the documents.
const FORMAT: u32 = 1;
/// The longest document that is read.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 64 << 10;

/// What an object is. It is written after the object, so that an object with a sidecar is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sidecar {
    pub(crate) format: u32,
    /// Name of the object.
    pub(crate) key: String,
    pub(crate) host: String,
    /// `starts`, `middle`, `bulk` or `sessions`.
    pub(crate) class: String,
    /// Name of the file in the spool.
    pub(crate) file: String,
    pub(crate) oldest: String,
    pub(crate) newest: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// Length and hash of the object, which differ from those of the file if it is encrypted.
    pub(crate) stored_bytes: u64,
    pub(crate) stored_sha256: String,
    /// `age`, or null.
    pub(crate) encryption: Option<String>,
    pub(crate) archived: String,
    #[serde(flatten)]
    pub(crate) packets: Option<PacketCounts>,
}

/// What the footer of a spool file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PacketCounts {
    pub(crate) band: u8,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    /// Number of the file that this one replaces, after packets were removed on purpose.
    pub(crate) replaces: Option<u64>,
    pub(crate) packets: u64,
    pub(crate) sessions: u64,
    pub(crate) captured_bytes: u64,
    pub(crate) damaged_bytes: u64,
}

/// Length and hash of the bytes of a file, and of the object made of it.
#[derive(Clone, Debug)]
pub(crate) struct Hashes {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) stored_bytes: u64,
    pub(crate) stored_sha256: String,
}

impl Sidecar {
    pub(crate) fn new(
        key: &DataKey,
        stored_key: &str,
        file: &str,
        hashes: Hashes,
        packets: Option<PacketCounts>,
    ) -> Self {
        let (oldest, newest) = key.times();
        let encryption = stored_key.ends_with(crate::key::ENCRYPTED).then(|| "age".to_owned());
        let Hashes { bytes, sha256, stored_bytes, stored_sha256 } = hashes;
        Self {
            format: FORMAT,
            key: stored_key.to_owned(),
            host: key.host().to_owned(),
            class: key.class().to_owned(),
            file: file.to_owned(),
            oldest: oldest.to_rfc3339(),
            newest: newest.to_rfc3339(),
            bytes,
            sha256,
            stored_bytes,
            stored_sha256,
            encryption,
            archived: Timestamp::from(std::time::SystemTime::now()).to_rfc3339(),
            packets,
        }
    }

    /// Reads a document; `Err` says why it is of no use.
    pub(crate) fn read(bytes: &[u8], key: &str) -> Result<Self, String> {
        let sidecar: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("its description is damaged: {error}"))?;
        if sidecar.format != FORMAT {
            return Err(format!("its description has version {}, and this program reads {FORMAT}", sidecar.format));
        }
        if sidecar.key != key {
            return Err("its description is that of another object".to_owned());
        }
        Ok(sidecar)
    }

    /// Whether both describe the same file.
    pub(crate) fn is_of_same_file(&self, other: &Self) -> bool {
        (&self.key, self.bytes, &self.sha256) == (&other.key, other.bytes, &other.sha256)
    }
}

/// Why an object is there no more. It stays for ever, so that a question knows what was there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    pub(crate) format: u32,
    pub(crate) key: String,
    /// `expired`, or `removed on purpose`.
    pub(crate) reason: String,
    /// The rule, or the command that removed packets.
    pub(crate) by: String,
    pub(crate) at: String,
}

impl Tombstone {
    pub(crate) fn new(key: &str, reason: &str, by: String) -> Self {
        let at = Timestamp::from(std::time::SystemTime::now()).to_rfc3339();
        Self { format: FORMAT, key: key.to_owned(), reason: reason.to_owned(), by, at }
    }
}

/// A document as it is stored.
pub(crate) fn document(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// A hash in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
