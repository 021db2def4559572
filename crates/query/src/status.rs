//! The status document: what is retained, how far back it reaches, and what was lost and why.

mod collect;
mod disk_times;
mod sandbox;
mod spool;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::coverage::SessionCounts;
use super::coverage::{Coverage, Largest, LargestHost};
pub use super::interfaces::{InterfaceGapStatus, InterfaceStatus};
use base::foreign::Foreign;
pub use disk_times::{DiskTimeBucket, DiskTimes};
pub use processes::process::Source;
use processes::table::SocketTable;
pub use sandbox::{LandlockStatus, SandboxStatus, SeccompStatus};

/// The document of `status --json` and `replay --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the recorder.
    pub version: Foreign,
    /// Seconds since recording began.
    pub uptime_s: f64,
    /// How the byte budget is used.
    pub memory: MemoryStatus,
    /// Packets: received = stored + filtered + dropped, and stored = retained + evicted.
    pub packets: PacketCounts,
    /// The same counts in captured bytes.
    pub bytes: ByteCounts,
    /// Packets that could not be stored, by reason.
    pub dropped: BTreeMap<Foreign, u64>,
    /// The time range of the retained packets.
    pub retained: Retained,
    /// Retained packets by rank, that is, by their depth in the session.
    pub ranks: Vec<RankStatus>,
    /// Number of known sessions.
    pub sessions: SessionCounts,
    /// Coverage of each past period: the share of its sessions that is retained.
    #[serde(default)]
    pub coverage: Vec<Coverage>,
    /// The sessions with the most retained bytes.
    #[serde(default)]
    pub largest: Vec<Largest>,
    /// The hosts with the most retained bytes.
    #[serde(default)]
    pub largest_hosts: Vec<LargestHost>,
    /// Starts of sessions that were carried forward to outlive their rank.
    pub carried: CarriedCounts,
    /// Segments that were compressed to make room.
    #[serde(default)]
    pub compression: CompressionCounts,
    /// Classes of sessions with retention rules of their own.
    #[serde(default)]
    pub classes: Vec<ClassStatus>,
    /// Pins and the memory they use.
    #[serde(default)]
    pub pins: PinCounts,
    /// The interfaces that packets came from.
    pub interfaces: Vec<InterfaceStatus>,
    /// Periods in which nothing could be recorded from an interface: the latest of them, oldest first.
    #[serde(default)]
    pub interface_gaps: Vec<InterfaceGapStatus>,
    /// Number of all such periods, including those that are not listed.
    #[serde(default)]
    pub interface_gaps_total: u64,
    /// Packets that are unusual. None of them is a loss.
    pub oddities: OddityCounts,
    /// The settings of the recording.
    pub capture: CaptureStatus,
    /// What a replayed capture file contains beside packets; only for a replay.
    #[schemars(with = "InputStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputStatus>,
    /// Restrictions that the kernel enforces on the recorder; only for a service.
    #[schemars(with = "SandboxStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxStatus>,
    /// How processes are named; only for a service that names them.
    #[schemars(with = "ProcessNaming")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessNaming>,
    /// The packets on disk; null without a spool.
    #[serde(default)]
    pub spool: Option<SpoolStatus>,
    /// State taken over from the recorder before this one; only for a service that was restarted.
    #[schemars(with = "RestartStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartStatus>,
}

/// How processes of sessions are named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessNaming {
    /// `ebpf`: programs in the kernel see each socket of this host when it connects, binds or sends, in addition to scans.
    /// `sock_diag`: scans alone, which see sockets that live for some tens of milliseconds. Null before the first report.
    pub method: Option<Source>,
    /// Why it is not `ebpf`.
    pub reason: Option<Foreign>,
    /// Sockets in the table.
    pub sockets: u64,
    /// Sockets that were removed from the table to make room for newer ones.
    pub forgotten: u64,
    /// Sockets that could not be named, because there were too many at a time.
    pub lost: u64,
    /// Why sessions on both sides of a NAT are not tied; null if they are.
    #[serde(default)]
    pub nat_unseen: Option<Foreign>,
}

impl ProcessNaming {
    /// The state of a table.
    pub fn of(table: &SocketTable) -> Self {
        let (counts, method) = (table.counts(), table.method());
        let (method, reason) =
            method.map_or((None, None), |(method, reason)| (Some(method), reason.map(Foreign::from)));
        let nat_unseen = table.nat_unseen().map(Foreign::from);
        Self { method, reason, sockets: counts.sockets, forgotten: counts.forgotten, lost: counts.lost, nat_unseen }
    }
}

/// The packets on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpoolStatus {
    /// The directory.
    pub dir: String,
    /// `ok`; `opening` after the start; `behind` if more than five seconds of packets wait in memory; `full` if there is no
    /// room and nothing to remove; `failed` if the disk fails.
    pub state: String,
    /// Why it is not `ok`.
    pub problem: Option<String>,
    /// Room in bytes; for a percentage, of the whole file system.
    pub budget_bytes: u64,
    /// Bytes of all files.
    pub used_bytes: u64,
    /// Files.
    pub files: u64,
    /// Time of the oldest packet on disk.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
    /// Time from which every packet is on disk, or waits in memory to be written.
    #[schemars(extend("format" = "date-time"))]
    pub whole_since: Option<String>,
    /// Packets in memory that are not durable yet.
    pub behind_packets: u64,
    /// Captured bytes of these packets.
    pub behind_bytes: u64,
    /// Packets that were made durable.
    pub written_packets: u64,
    /// Captured bytes of these packets.
    pub written_bytes: u64,
    /// Packets that were never written; `lost` gives the reasons.
    pub lost_packets: u64,
    /// Packets that were never written, by reason.
    pub lost: SpoolLost,
    /// Packets in files that were removed for room.
    pub removed_packets: u64,
    /// Operations that the file system refused, for lack of room and otherwise.
    #[serde(default)]
    pub failures: u64,
    /// How long writes took.
    #[serde(default)]
    pub writes: DiskTimes,
    /// How long it took to make written packets durable.
    #[serde(default)]
    pub syncs: DiskTimes,
    /// What each depth has, the starts of sessions first.
    pub bands: Vec<SpoolBand>,
    /// The log of sessions; null if there is none.
    #[serde(default)]
    pub log: Option<SessionLogStatus>,
}

/// The log of sessions on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionLogStatus {
    /// Files, of an hour each.
    pub files: u64,
    /// Bytes of these files; they are part of the spool's.
    pub bytes: u64,
    /// Start of the earliest hour.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
    /// Rows written since the start.
    pub rows: u64,
    /// Sessions since the start that are in no row: of floods, or overwritten in memory before they were written.
    pub missed_sessions: u64,
    /// Rows lost since the start because a file could not be written.
    pub lost_rows: u64,
    /// Files removed for room since the start.
    pub removed_files: u64,
    /// Why the latest file could not be written; null if it could.
    pub problem: Option<String>,
}

/// Packets that were never written to disk, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpoolLost {
    /// The disk was slower than the packets.
    pub too_slow: u64,
    /// There was no room.
    pub no_room: u64,
    /// The disk failed.
    pub failed: u64,
}

/// The packets of one depth on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpoolBand {
    /// Band 0 is the start of sessions.
    pub band: u8,
    /// Bytes of the session before its packets, at least.
    pub offset_from: u64,
    /// Files.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Time of the oldest packet.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
}

/// What became of the history when the recorder was restarted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestartStatus {
    /// Packets taken over.
    pub packets: u64,
    /// Captured bytes taken over.
    pub bytes: u64,
    /// Sessions taken over.
    pub sessions: u64,
    /// Pins taken over.
    pub pins: u64,
    /// Packets that were lost because there was no room for them.
    pub lost_packets: u64,
    /// Start of the first recorder in the series of restarts.
    #[schemars(extend("format" = "date-time"))]
    pub recording_since: Option<Foreign>,
    /// Start of the latest gap in recording.
    #[schemars(extend("format" = "date-time"))]
    pub gap_from: Option<Foreign>,
    /// End of the latest gap.
    #[schemars(extend("format" = "date-time"))]
    pub gap_until: Option<Foreign>,
    /// Length of the latest gap in seconds.
    pub gap_s: f64,
    /// Number of known gaps.
    pub gaps: u64,
    /// Why nothing was taken over, or only a part.
    pub problem: Option<Foreign>,
}

/// How the byte budget is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryStatus {
    /// The whole budget, allocated at start.
    pub budget_bytes: u64,
    /// Sum of the parts below, without `resident_bytes`.
    pub used_bytes: u64,
    /// Kernel rings.
    pub rings_bytes: u64,
    /// Segments, which hold the packets.
    pub segments_bytes: u64,
    /// The session index and the session array.
    pub sessions_bytes: u64,
    /// The archive of sessions that have left the session array.
    pub ledger_bytes: u64,
    /// Reserved for queries.
    pub queries_bytes: u64,
    /// Reserved for compression.
    #[serde(default)]
    pub compression_bytes: u64,
    /// Buffers and index of the spool.
    #[serde(default)]
    pub spool_bytes: u64,
    /// Resident memory of the process, including memory outside the budget.
    pub resident_bytes: u64,
}

/// Packets by outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketCounts {
    /// Packets that reached the recorder.
    pub received: u64,
    /// Packets that were stored.
    pub stored: u64,
    /// Packets that did not match the capture filter.
    pub filtered: u64,
    /// Packets that could not be stored; the top-level `dropped` gives the reasons.
    pub dropped: u64,
    /// Packets that the kernel dropped before they reached the recorder; not part of `received`.
    pub kernel_dropped: u64,
    /// Stored packets that are retained.
    pub retained: u64,
    /// Stored packets that were evicted.
    pub evicted: u64,
}

/// Captured bytes by outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ByteCounts {
    /// Captured bytes of packets that reached the recorder.
    pub received: u64,
    /// Captured bytes of packets that were stored.
    pub stored: u64,
    /// Captured bytes of packets that did not match the capture filter.
    pub filtered: u64,
    /// Captured bytes of packets that could not be stored.
    pub dropped: u64,
    /// Captured bytes of packets that are retained.
    pub retained: u64,
    /// Captured bytes of packets that were evicted.
    pub evicted: u64,
}

/// The time range of the retained packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retained {
    /// Time of the oldest retained packet.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<Foreign>,
    /// Time of the newest retained packet.
    #[schemars(extend("format" = "date-time"))]
    pub newest: Option<Foreign>,
    /// Time from which every stored packet is retained, and no restart left a gap.
    #[schemars(extend("format" = "date-time"))]
    pub whole_since: Option<Foreign>,
}

/// The retained packets of one rank: packets at a similar depth in their sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RankStatus {
    /// Rank 0 is the start of sessions.
    pub rank: u8,
    /// Smallest offset of the rank: bytes of the session before it.
    pub offset_from: u64,
    /// Number of segments.
    pub segments: u64,
    /// Bytes of the segments with record headers, uncompressed.
    pub bytes: u64,
    /// Compressed bytes of the segments that are compressed.
    pub compressed_bytes: u64,
    /// Uncompressed bytes of the segments that are compressed.
    #[serde(default)]
    pub compressed_raw_bytes: u64,
    /// Time of the oldest retained packet of the rank.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<Foreign>,
}

/// Starts of sessions that were carried forward to outlive their rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CarriedCounts {
    /// Packets carried forward when their rank was evicted; a packet counts each time.
    pub packets: u64,
    /// Captured bytes of these packets.
    pub bytes: u64,
    /// Packets that there was no room to carry forward. Their sessions have lost their start.
    pub lost: u64,
    /// Sessions that lost their first packet while others of their packets stayed, since this start.
    #[serde(default)]
    pub headless_sessions: u64,
    /// Sessions of which that is not known: their entry was reused while several of their packets were stored, and
    /// there was no room for a note.
    #[serde(default)]
    pub untracked_sessions: u64,
}

/// Compression of segments to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompressionCounts {
    /// Segments that were compressed since the start.
    pub segments: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// Their bytes after compression.
    pub compressed_bytes: u64,
    /// Segments that compression would hardly shrink, and that were left uncompressed.
    pub incompressible_segments: u64,
    /// Processor time of compression in seconds; 0 in a replay, so that its result is reproducible.
    pub cpu_s: f64,
}

/// Memory of one class of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClassStatus {
    /// Name of the class in the configuration.
    pub name: Foreign,
    /// Bytes that its packets use.
    pub bytes: u64,
    /// Bytes reserved for the class.
    pub reserve_bytes: u64,
}

/// Memory of all pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinCounts {
    /// Number of active pins.
    pub count: u64,
    /// Bytes that pinned sessions use.
    pub bytes: u64,
    /// Maximum number of bytes for all pins together.
    pub limit_bytes: u64,
    /// Packets of pinned sessions that were not pinned because of the limit.
    pub refused_packets: u64,
}

/// Packets that are unusual. None of them is a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OddityCounts {
    /// Packets too large to be captured whole.
    pub truncated: u64,
    /// Packets that end within a header.
    pub cut_headers: u64,
    /// Packets whose headers contradict themselves.
    pub malformed: u64,
    /// Packets with more nested headers than the decoder reads.
    pub too_deep: u64,
    /// Packets with an earlier timestamp than the packet before.
    pub out_of_order: u64,
}

/// The settings of the recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaptureStatus {
    /// Number of capture threads.
    pub workers: u64,
    /// The capture filter; null if every packet is recorded.
    pub filter: Option<Foreign>,
    /// Names of the interfaces to record; empty for all.
    pub interfaces: Vec<Foreign>,
}

/// What a replayed capture file contains beside packets, and what of it is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InputStatus {
    /// Number of packets with a time outside the supported range, which was set to the nearest end.
    pub times_changed: u64,
    /// Number of packets without a time, which have that of the packet before.
    #[serde(default)]
    pub times_missing: u64,
    /// Number of annotations in the file, by kind.
    pub annotations: BTreeMap<Foreign, u64>,
    /// Number of annotations that are not kept, by kind.
    pub left_out: BTreeMap<Foreign, u64>,
}

impl InputStatus {
    /// The status of a file with these annotations.
    pub fn new(
        times_changed: u64,
        times_missing: u64,
        annotations: &BTreeMap<&'static str, u64>,
        left_out: &BTreeMap<&'static str, u64>,
    ) -> Self {
        let counts = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(kind, count)| ((*kind).into(), *count)).collect()
        };
        Self { times_changed, times_missing, annotations: counts(annotations), left_out: counts(left_out) }
    }
}
