//! A row of the log: what one session did in one hour.

use base::time::Timestamp;
use engine::session::Session;
use query::attribution::Attribution;
use query::session_names::Names;

/// Packets and bytes of each end of a session: originator's packets, originator's bytes, responder's packets, responder's
/// bytes.
pub type Counts = [u64; 4];

/// The counts of a session so far.
pub fn counts(session: &Session) -> Counts {
    [session.packets.originator, session.bytes.originator, session.packets.responder, session.bytes.responder]
}

/// What is the same in all rows of a recorder.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    /// Name of the host.
    pub hostname: String,
    /// Version of the recorder.
    pub version: String,
    /// Whether rows have the Community ID, which takes more than half of the bytes.
    pub with_community_id: bool,
    /// Seed of the Community IDs.
    pub community_id_seed: u16,
}

/// Where the first packet of a session lies in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolPlace {
    /// Name of the file.
    pub file: std::sync::Arc<str>,
    /// Start of the chunk that has the packet, in bytes of the file.
    pub offset: u64,
}

/// One session in one hour.
#[derive(Clone, Debug)]
pub struct Row {
    /// The session, with its totals so far.
    pub session: Session,
    /// What earlier rows say of it.
    pub earlier: Counts,
    /// Whether it may go on.
    pub is_open: bool,
    /// Name of the capture interface.
    pub interface: std::sync::Arc<str>,
    /// Names in its first packets.
    pub names: Option<Box<Names>>,
    /// Its application protocol.
    pub app: Option<&'static str>,
    /// The processes that had it.
    pub attribution: Option<Box<Attribution>>,
    /// Where its first packet lies on disk.
    pub place: Option<SpoolPlace>,
}

impl Row {
    /// Packets and bytes of this hour: the totals without those of earlier rows.
    pub fn here(&self) -> Counts {
        let [a, b, c, d] = counts(&self.session);
        let [e, f, g, h] = self.earlier;
        [a.saturating_sub(e), b.saturating_sub(f), c.saturating_sub(g), d.saturating_sub(h)]
    }

    /// Start and end in milliseconds since the epoch, as the archive of memory rounds them.
    pub fn times_ms(&self) -> (i64, i64) {
        let whole = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        (whole(self.session.first.0 / MILLI_NS), whole(self.session.last.0.div_ceil(MILLI_NS)))
    }
}

/// Nanoseconds of a millisecond.
pub const MILLI_NS: u64 = 1_000_000;
/// Nanoseconds of an hour.
pub const HOUR_NS: u64 = 3_600_000_000_000;

/// The hour of a time, in hours since the epoch.
pub fn hour(time: Timestamp) -> u64 {
    time.0 / HOUR_NS
}
