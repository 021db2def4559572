//! What others see of a spool: its files, its state, its counts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::band::Band;
use crate::catalogue::{BandView, Catalogue};
use crate::medium::DiskSpace;
use base::time::Timestamp;

/// How much room a spool has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SizeLimit {
    /// Bytes for the spool alone.
    Bytes(u64),
    /// Percent of the file system, with everything that is on it.
    Percent(f64),
}

impl SizeLimit {
    /// The limit in bytes. `room` tells of the file system.
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

/// How a spool is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Room.
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

/// Why a packet is not taken. The caller may try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room, and nothing can be removed.
    Full,
    /// The medium fails.
    Failed,
    /// What was taken before is not written yet.
    Busy,
}

/// The state of a spool, in the words of the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
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
    /// See `no_room`.
    pub failures: u64,
    /// Syncs.
    pub syncs: u64,
}

/// What others see of a spool while it is written.
#[derive(Debug, Default)]
pub struct PublishedState {
    catalogue: Mutex<Catalogue>,
    view: Mutex<SpoolSnapshot>,
}

/// The state of a spool at one moment.
#[derive(Clone, Debug, Default)]
pub struct SpoolSnapshot {
    /// State.
    pub state: State,
    /// Counts.
    pub counts: Counts,
    /// How long all packets should stay.
    pub keep: Option<Duration>,
    /// Room in bytes, as the limit says.
    pub budget_bytes: u64,
    /// Bytes of all files.
    pub used_bytes: u64,
    /// Files, those being written included.
    pub files: u64,
    /// By band: bytes, and the earliest packet.
    pub bands: [BandView; Band::COUNT],
    /// All packets since this time that reached the spool are there; `None` if nothing was ever removed.
    pub removed_until: Option<Timestamp>,
    /// The last failure.
    pub problem: Option<String>,
    /// The longest sync of the last minute.
    pub sync_max: Duration,
}

/// Keys of an index when nothing else is asked for.
pub const KEYS_MAX: usize = 512 << 10;

impl PublishedState {
    pub(crate) fn show(&self, view: SpoolSnapshot) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// The files, as they are now.
    pub fn catalogue(&self) -> Catalogue {
        self.files().clone()
    }

    /// The state.
    pub fn view(&self) -> SpoolSnapshot {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A board of files that nobody writes.
    pub fn of(catalogue: Catalogue) -> Self {
        Self { catalogue: Mutex::new(catalogue), view: Mutex::default() }
    }

    pub(crate) fn files(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of packets in a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Bands whose packets were all made durable.
    pub synced: Vec<Band>,
    /// Bands that lost the packets since their last sync. They can be put again.
    pub rewound: Vec<Band>,
}
