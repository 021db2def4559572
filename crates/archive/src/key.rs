//! Names of objects in an archive.
//!
//! ```text
//! packets/class=starts/host=H/date=2026-11-27/OLDEST_NEWEST_eEPOCH_NUMBER-band0_FINGERPRINT.pcapng[.gz][.enc][.age]
//! sessions/host=H/date=2026-11-27/hour=13/sessions-CREATED-CRC.parquet[.age]
//! catalogue/…the same….json     what the object is, and its SHA-256; written after the object
//! removed/…the same….json       why the object is there no more, and what it was
//! ```
//!
//! A listing tells the times and the depth of every object, so that a question reads the objects that can match and no others.
//! The class comes first, because lifecycle rules of object stores select by the beginning of a name. The fingerprint is the CRC-32
//! of the file's footer, so that two files never have the same name: not even if a spool was wiped, so that its numbers began anew.

use std::fmt;

use base::time::Timestamp;
use spool::coding::Coding;

/// What packets a file has, by their depth in their sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Class {
    /// Bands 0 and 1: the first 1.5 kB.
    Starts,
    /// Bands 2 to 4.
    Middle,
    /// Band 5: beyond 31.5 KiB.
    Bulk,
}

impl Class {
    pub(crate) const ALL: [Self; 3] = [Self::Starts, Self::Middle, Self::Bulk];

    pub(crate) fn of_band(band: u8) -> Self {
        match band {
            0 | 1 => Self::Starts,
            2..=4 => Self::Middle,
            _ => Self::Bulk,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starts => "starts",
            Self::Middle => "middle",
            Self::Bulk => "bulk",
        }
    }
}

/// Extension of encrypted objects.
pub(crate) const ENCRYPTED: &str = ".age";
/// Extension of the documents about objects.
const DOCUMENT: &str = ".json";
/// The directory of files whose packets are further apart than [`SPAN_MAX`], such as after a change of the clock.
const ANY_DATE: &str = "date=various";
/// The longest time between the first and the last packet of a file in the directory of a date.
pub(crate) const SPAN_MAX: std::time::Duration = std::time::Duration::from_secs(86_400);

/// An object with packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PacketKey {
    pub(crate) host: String,
    pub(crate) oldest: Timestamp,
    pub(crate) newest: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    pub(crate) band: u8,
    pub(crate) fingerprint: u32,
    pub(crate) coding: Coding,
}

/// An object with sessions of an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionsKey {
    pub(crate) host: String,
    /// Start of the hour.
    pub(crate) hour: Timestamp,
    /// Name of the file, as in the spool.
    pub(crate) file: String,
}

/// An object with packets or sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DataKey {
    Packets(PacketKey),
    Sessions(SessionsKey),
}

impl DataKey {
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Packets(key) => &key.host,
            Self::Sessions(key) => &key.host,
        }
    }

    /// What `expire` keeps for the same time.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Packets(key) => Class::of_band(key.band).name(),
            Self::Sessions(_) => SESSIONS,
        }
    }

    /// The earliest and the latest time of what the object has.
    pub(crate) fn times(&self) -> (Timestamp, Timestamp) {
        match self {
            Self::Packets(key) => (key.oldest, key.newest),
            Self::Sessions(key) => (key.hour, key.hour.saturating_add(HOUR)),
        }
    }

    /// The directory, with `/` at its end.
    pub(crate) fn directory(&self) -> String {
        match self {
            Self::Packets(key) => {
                let class = Class::of_band(key.band);
                let long = key.newest.since(key.oldest) > SPAN_MAX;
                let date = if long { ANY_DATE.to_owned() } else { format!("date={}", date(key.oldest)) };
                format!("{}{date}/", packets_of(class, &key.host))
            }
            Self::Sessions(key) => {
                let time = key.hour.to_rfc3339();
                format!("{}date={}/hour={}/", sessions_of(&key.host), &time[..10], &time[11..13])
            }
        }
    }

    /// The directory of the day: that of the object, or for an hour of sessions the one above.
    pub(crate) fn day(&self) -> String {
        let directory = self.directory();
        directory.split_once("hour=").map_or(directory.clone(), |(day, _)| day.to_owned())
    }

    /// Reads the name of an object. Returns whether it is encrypted.
    pub(crate) fn parse(text: &str) -> Option<(Self, bool)> {
        let (plain, encrypted) = match text.strip_suffix(ENCRYPTED) {
            Some(plain) => (plain, true),
            None => (text, false),
        };
        let key = packets(plain).map(Self::Packets).or_else(|| sessions(plain).map(Self::Sessions))?;
        // The one name of this object, so that nothing is found under two names.
        (key.to_string() == plain).then_some((key, encrypted))
    }
}

impl fmt::Display for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.directory())?;
        match self {
            Self::Packets(key) => {
                let (oldest, newest) = (compact(key.oldest), compact(key.newest));
                let end = key.coding.extension();
                let PacketKey { epoch, number, band, fingerprint, .. } = key;
                write!(f, "{oldest}_{newest}_e{epoch}_{number:012}-band{band}_{fingerprint:08x}{end}")
            }
            Self::Sessions(key) => f.write_str(&key.file),
        }
    }
}

impl PacketKey {
    /// The name of the file in a spool.
    pub(crate) fn file_name(&self) -> String {
        spool::layout::file_name(self.number, self.band, self.coding)
    }
}

/// Name of the class of session logs.
pub(crate) const SESSIONS: &str = "sessions";
const HOUR: std::time::Duration = std::time::Duration::from_nanos(3_600_000_000_000 - 1);

/// Where the packets of a class are, by host.
pub(crate) fn packets_root(class: Class) -> String {
    format!("packets/class={}/", class.name())
}

pub(crate) fn packets_of(class: Class, host: &str) -> String {
    format!("{}host={host}/", packets_root(class))
}

/// Where the session logs are, by host.
pub(crate) const SESSIONS_ROOT: &str = "sessions/";

pub(crate) fn sessions_of(host: &str) -> String {
    format!("{SESSIONS_ROOT}host={host}/")
}

/// The document that describes an object.
pub(crate) fn sidecar(key: &str) -> String {
    format!("catalogue/{key}{DOCUMENT}")
}

/// The document that says why an object is there no more.
pub(crate) fn tombstone(key: &str) -> String {
    format!("removed/{key}{DOCUMENT}")
}

/// The object that a document describes.
pub(crate) fn described(document: &str) -> Option<&str> {
    let key = document.strip_prefix("catalogue/").or_else(|| document.strip_prefix("removed/"))?;
    key.strip_suffix(DOCUMENT)
}

/// Whether a directory `date=…` can have packets or sessions of these days (`2026-11-27`).
pub(crate) fn is_between(directory: &str, first: Option<&str>, last: Option<&str>) -> bool {
    let Some(date) = directory.strip_prefix("date=") else { return false };
    directory == ANY_DATE || (first.is_none_or(|first| first <= date) && last.is_none_or(|last| date <= last))
}

/// A host as a part of names.
pub(crate) fn check_host(host: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if host.is_empty() || host.len() > 253 || host.starts_with('.') || !host.bytes().all(is_plain) {
        return Err(format!(
            "{host:?} cannot be a part of names: use letters, digits, dots, - and _, as in sensor-7.example"
        ));
    }
    Ok(host.to_owned())
}

/// The day of a time, in UTC: `2026-11-27`.
pub(crate) fn date(time: Timestamp) -> String {
    time.to_rfc3339()[..10].to_owned()
}

/// A time that sorts, without characters that file systems refuse: `20261127T130512.123456789Z`.
fn compact(time: Timestamp) -> String {
    time.to_rfc3339().replace(['-', ':'], "")
}

fn read_compact(text: &str) -> Option<Timestamp> {
    let (date, time) = (text.get(..8)?, text.get(9..)?);
    let date = format!("{}-{}-{}", date.get(..4)?, date.get(4..6)?, date.get(6..8)?);
    let time = format!("{}:{}:{}", time.get(..2)?, time.get(2..4)?, time.get(4..)?);
    rfc3339(&format!("{date}T{time}"))
}

/// Reads a time as documents and requests have it.
pub(crate) fn rfc3339(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok().map(Timestamp)
}

fn packets(text: &str) -> Option<PacketKey> {
    let rest = text.strip_prefix("packets/class=")?.split_once("/host=")?.1;
    let (host, rest) = rest.split_once("/date=")?;
    let name = rest.split_once('/')?.1;
    let mut parts = name.split('_');
    let (oldest, newest) = (read_compact(parts.next()?)?, read_compact(parts.next()?)?);
    let epoch = parts.next()?.strip_prefix('e')?.parse().ok()?;
    let (number, band) = parts.next()?.split_once("-band")?;
    let (fingerprint, end) = parts.next()?.split_once('.')?;
    let coding = Coding::ALL.into_iter().find(|coding| coding.extension().strip_prefix('.') == Some(end))?;
    Some(PacketKey {
        host: check_host(host).ok()?,
        oldest,
        newest,
        epoch,
        number: number.parse().ok()?,
        band: band.parse().ok()?,
        fingerprint: u32::from_str_radix(fingerprint, 16).ok()?,
        coding,
    })
}

fn sessions(text: &str) -> Option<SessionsKey> {
    let (host, rest) = text.strip_prefix("sessions/host=")?.split_once("/date=")?;
    let (date, rest) = rest.split_once("/hour=")?;
    let (hour, file) = rest.split_once('/')?;
    let hour = rfc3339(&format!("{date}T{hour}:00:00Z"))?;
    log_crc(file)?;
    Some(SessionsKey { host: check_host(host).ok()?, hour, file: file.to_owned() })
}

/// The CRC-32 of a file of the log of sessions, which its name states.
pub(crate) fn log_crc(file: &str) -> Option<u32> {
    // One that the recorder has encrypted ends with `.enc`; the checksum is that of the encrypted file.
    let name = file.strip_suffix(".enc").unwrap_or(file).strip_prefix("sessions-")?.strip_suffix(".parquet")?;
    match name.split_once("-replaces-") {
        Some((name, replaced)) => created_and_crc(replaced).and(created_and_crc(name)),
        None => created_and_crc(name),
    }
}

/// The checksum of a file from `CREATED-CRC`.
fn created_and_crc(name: &str) -> Option<u32> {
    let (created, crc) = name.split_once('-')?;
    let is_number = !created.is_empty() && created.len() <= 20 && created.bytes().all(|byte| byte.is_ascii_digit());
    let is_crc = crc.len() == 8 && crc.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_number && is_crc).then(|| u32::from_str_radix(crc, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(oldest: u64, newest: u64) -> PacketKey {
        PacketKey {
            host: "sensor-7.example".to_owned(),
            oldest: Timestamp(oldest),
            newest: Timestamp(newest),
            epoch: 3,
            number: 42,
            band: 5,
            fingerprint: 0x9f8e_7d6c,
            coding: Coding { compressed: true, encrypted: false },
        }
    }

    #[test]
    fn names_are_read_as_written() {
        let hour = 1_764_248_400_000_000_000;
        for (key, expected) in [
            (
                DataKey::Packets(key(hour, hour + 1)),
                "packets/class=bulk/host=sensor-7.example/date=2025-11-27/20251127T130000.000000000Z_20251127T130000.\
                 000000001Z_e3_000000000042-band5_9f8e7d6c.pcapng.gz",
            ),
            (
                DataKey::Packets(key(0, hour)),
                "packets/class=bulk/host=sensor-7.example/date=various/19700101T000000.000000000Z_20251127T130000.\
                 000000000Z_e3_000000000042-band5_9f8e7d6c.pcapng.gz",
            ),
            (
                DataKey::Sessions(SessionsKey {
                    host: "a".to_owned(),
                    hour: Timestamp(hour),
                    file: "sessions-17-0000000a.parquet".to_owned(),
                }),
                "sessions/host=a/date=2025-11-27/hour=13/sessions-17-0000000a.parquet",
            ),
            (
                DataKey::Sessions(SessionsKey {
                    host: "a".to_owned(),
                    hour: Timestamp(hour),
                    file: "sessions-18-0000000b-replaces-17-0000000a.parquet".to_owned(),
                }),
                "sessions/host=a/date=2025-11-27/hour=13/sessions-18-0000000b-replaces-17-0000000a.parquet",
            ),
        ] {
            assert_eq!(key.to_string(), expected);
            assert_eq!(DataKey::parse(expected), Some((key.clone(), false)));
            assert_eq!(DataKey::parse(&format!("{expected}.age")), Some((key, true)));
            assert_eq!(described(&sidecar(expected)), Some(expected));
            assert_eq!(described(&tombstone(expected)), Some(expected));
        }
    }

    #[test]
    fn names_of_others_are_refused() {
        for name in [
            "",
            "packets/class=bulk/host=../date=2025-11-27/x",
            "packets/class=starts/host=a/date=2025-11-27/20251127T130000.000000000Z_20251127T130000.000000001Z_e3_000000000042-band5_\
             9f8e7d6c.pcapng",
            "sessions/host=a/date=2025-11-27/hour=13/sessions-17-a.parquet",
            "sessions/host=a/date=2025-11-27/hour=13/../sessions-17-0000000a.parquet",
            "sessions/host=a/date=2025-11-27/hour=99/sessions-17-0000000a.parquet",
            "sessions/host=a/date=2025-11-27/hour=13/sessions-17-0000000a-replaces-../x.parquet",
            "sessions/host=a/date=2025-11-27/hour=13/sessions-17-0000000a-replaces-16-\u{1b}[31m.parquet",
        ] {
            assert_eq!(DataKey::parse(name), None, "{name}");
        }
        for host in ["", "a/b", "..", "a b", "é"] {
            assert!(check_host(host).is_err(), "{host}");
        }
    }
}
