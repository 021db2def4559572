//! Files, state and counts of a spool, published by its writer for queries and the status.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::band::Band;
use crate::catalogue::{BandView, Catalogue};
use crate::medium::DiskSpace;
use crate::timings::Timings;
use base::time::Timestamp;

/// The limit on the size of a spool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SizeLimit {
    /// Bytes that the files of the spool may take.
    Bytes(u64),
    /// Percent of the file system that may be in use, by the spool and everything else on it.
    Percent(f64),
}

impl SizeLimit {
    /// The limit in bytes. `room` describes the file system.
    pub fn budget_bytes(self, room: impl FnOnce() -> DiskSpace) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => part(room().size_bytes, percent),
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share")]
fn part(bytes: u64, percent: f64) -> u64 {
    (bytes as f64 * percent.clamp(0.0, 100.0) / 100.0) as u64
}

/// Settings of the writer of a spool.
#[derive(Clone, Debug)]
pub struct Options {
    /// Limit on the size.
    pub limit: SizeLimit,
    /// How long all packets should stay.
    pub keep: Option<Duration>,
    /// Compression level, 1 to 12; `None` for plain files.
    pub level: Option<u8>,
    /// Comments at the start of each file.
    pub comments: Vec<String>,
    /// Keys of an open file's index, of 8 bytes each, beyond which the file is sealed.
    pub keys_max: usize,
}

/// The reason why the spool refuses a packet. The caller may try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteRefusal {
    /// There is no room, and nothing can be removed.
    Full,
    /// The medium fails.
    Failed,
    /// Packets that were accepted before are not written yet.
    Busy,
}

/// The state of a spool, as the status reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolState {
    /// Everything is written in time.
    #[default]
    Ok,
    /// There is no room, and nothing can be removed.
    Full,
    /// The medium fails.
    Failed,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets made durable.
    pub packets: u64,
    /// Captured bytes of these packets.
    pub bytes: u64,
    /// Bytes written to files, index included.
    pub written_bytes: u64,
    /// Files created.
    pub files: u64,
    /// Files removed for room.
    pub removed_files: u64,
    /// Packets in these files.
    pub removed_packets: u64,
    /// Files given up after the medium failed.
    pub abandoned_files: u64,
    /// Writes, syncs and creations that failed, for lack of room and otherwise.
    pub no_room: u64,
    /// Failures for lack of room.
    pub failures: u64,
    /// Syncs.
    pub syncs: u64,
}

/// State of a spool that its writer publishes.
#[derive(Debug, Default)]
pub struct PublishedState {
    catalogue: Mutex<Catalogue>,
    view: Mutex<SpoolSnapshot>,
    /// Bytes in the directory beside the files of packets.
    beside_bytes: AtomicU64,
}

/// The state of a spool at one moment.
#[derive(Clone, Debug, Default)]
pub struct SpoolSnapshot {
    /// State.
    pub state: SpoolState,
    /// Counts.
    pub counts: Counts,
    /// How long all packets should stay.
    pub keep: Option<Duration>,
    /// Limit on the size, in bytes.
    pub budget_bytes: u64,
    /// Bytes of all files.
    pub used_bytes: u64,
    /// Files, those being written included.
    pub files: u64,
    /// Bytes and earliest packet of each band.
    pub bands: [BandView; Band::COUNT],
    /// The spool still has all packets that reached it since this time; `None` if it never removed a file.
    pub removed_until: Option<Timestamp>,
    /// The text of the last failure.
    pub problem: Option<String>,
    /// How long writes and syncs took since the start.
    pub timings: Timings,
}

/// Default number of keys of an index.
pub const KEYS_MAX: usize = 512 << 10;

impl PublishedState {
    pub(crate) fn show(&self, view: SpoolSnapshot) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// The current files.
    pub fn catalogue(&self) -> Catalogue {
        self.files().clone()
    }

    /// The state.
    pub fn view(&self) -> SpoolSnapshot {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A board for files that no recorder writes.
    pub fn of(catalogue: Catalogue) -> Self {
        Self { catalogue: Mutex::new(catalogue), ..Self::default() }
    }

    /// Bytes in the directory beside the files of packets.
    pub fn beside_bytes(&self) -> u64 {
        self.beside_bytes.load(Ordering::Relaxed)
    }

    /// Publishes the bytes in the directory beside the files of packets, which count towards the size of the spool.
    pub fn set_beside_bytes(&self, bytes: u64) {
        self.beside_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn files(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a turn of the writer: which packets became durable, and which were lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Bands whose packets were all made durable.
    pub synced: Vec<Band>,
    /// Bands that lost the packets since their last sync. The caller can put these packets again.
    pub rewound: Vec<Band>,
}
