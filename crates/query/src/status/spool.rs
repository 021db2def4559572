//! Collects the status of the packets on disk.

use super::super::History;
use super::{SessionLogStatus, SpoolBand, SpoolLost, SpoolStatus};
use base::time::Timestamp;
use spool::archive::Archive;
use spool::band::Band;
use spool::writer::SpoolState;

/// Bytes that may wait in memory before the spool counts as behind. Packets of at most some seconds always wait.
const BEHIND_BYTES: u64 = 64 << 20;

impl History {
    /// The status of the spool; `None` without one.
    pub fn spool_status(&self) -> Option<SpoolStatus> {
        self.disk.as_deref().map(status)
    }
}

/// The status of a spool.
pub(super) fn status(disk: &dyn Archive) -> SpoolStatus {
    let mut status = SpoolStatus { dir: disk.directory().to_owned(), ..SpoolStatus::default() };
    let progress = disk.progress().unwrap_or_default();
    status.behind_packets = progress.behind_packets;
    status.behind_bytes = progress.behind_bytes;
    status.lost_packets = progress.lost.packets();
    let lost = progress.lost;
    status.lost = SpoolLost { too_slow: lost.too_slow, no_room: lost.no_room, failed: lost.failed };
    let Some(view) = disk.view() else {
        status.problem = disk.problem();
        status.state = if status.problem.is_some() { "failed" } else { "opening" }.to_owned();
        return status;
    };
    status.log = disk.log().map(|log| SessionLogStatus {
        files: log.files,
        bytes: log.bytes,
        oldest: log.oldest.map(Timestamp::to_rfc3339),
        rows: log.rows,
        missed_sessions: log.missed,
        lost_rows: log.lost_rows,
        removed_files: log.removed_files,
        problem: log.problem,
    });
    status.state = match view.state {
        SpoolState::Failed => "failed",
        SpoolState::Full => "full",
        SpoolState::Ok if progress.behind_bytes > BEHIND_BYTES => "behind",
        SpoolState::Ok => "ok",
    }
    .to_owned();
    status.problem = view.problem;
    status.budget_bytes = view.budget_bytes;
    status.used_bytes = view.used_bytes;
    status.files = view.files;
    let oldest = view.bands.iter().filter_map(|band| band.oldest).min();
    status.oldest = oldest.map(Timestamp::to_rfc3339);
    let gone = view.removed_until.max(progress.lost_until);
    let whole = gone.map_or(oldest, |gone| Some(Timestamp(gone.0.saturating_add(1))));
    status.whole_since = whole.map(Timestamp::to_rfc3339);
    status.written_packets = view.counts.packets;
    status.written_bytes = view.counts.bytes;
    status.removed_packets = view.counts.removed_packets;
    status.failures = view.counts.failures + view.counts.no_room;
    status.writes = view.timings.writes.into();
    status.syncs = view.timings.syncs.into();
    status.bands = Band::all()
        .zip(&view.bands)
        .map(|(band, view)| SpoolBand {
            band: band.0,
            offset_from: band.offset_from(),
            files: view.files,
            bytes: view.bytes,
            oldest: view.oldest.map(Timestamp::to_rfc3339),
        })
        .collect();
    status
}
