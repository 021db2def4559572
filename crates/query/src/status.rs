//! The status document: what is retained, how far back it reaches, and what was lost and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::History;
use super::coverage::{Coverage, Largest};
use base::counters::{CompressionTotals, DropReason, Totals, Volume};
use base::packet::InterfaceId;
use base::time::Timestamp;
use engine::handover::{RestartReport, RestoredCounts};
use engine::session::SessionMarks;
use engine::store::Rank;

/// The document of `status --json` and `replay --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the recorder.
    pub version: String,
    /// Seconds since recording began.
    pub uptime_s: f64,
    /// How the byte budget is used.
    pub memory: MemoryStatus,
    /// Packets: received = stored + filtered + dropped, and stored = retained + evicted.
    pub packets: PacketCounts,
    /// The same counts in captured bytes.
    pub bytes: ByteCounts,
    /// Packets that could not be stored, by reason.
    #[schemars(with = "std::collections::BTreeMap<String, u64>")]
    pub dropped: serde_json::Map<String, serde_json::Value>,
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
    /// Packets that are unusual. None of them is a loss.
    pub oddities: OddityCounts,
    /// The settings of the recording.
    pub capture: CaptureStatus,
    /// Restrictions that the kernel enforces on the recorder; only for a service.
    #[schemars(with = "SandboxStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxStatus>,
    /// State taken over from the recorder before this one; only for a service that was restarted.
    #[schemars(with = "RestartStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartStatus>,
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
    pub recording_since: Option<String>,
    /// Start of the latest gap in recording.
    #[schemars(extend("format" = "date-time"))]
    pub gap_from: Option<String>,
    /// End of the latest gap.
    #[schemars(extend("format" = "date-time"))]
    pub gap_until: Option<String>,
    /// Length of the latest gap in seconds.
    pub gap_s: f64,
    /// Number of known gaps.
    pub gaps: u64,
    /// Why nothing was taken over, or only a part.
    pub problem: Option<String>,
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
    pub oldest: Option<String>,
    /// Time of the newest retained packet.
    #[schemars(extend("format" = "date-time"))]
    pub newest: Option<String>,
    /// Time from which every stored packet is retained.
    #[schemars(extend("format" = "date-time"))]
    pub whole_since: Option<String>,
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
    pub oldest: Option<String>,
}

/// Numbers of known sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionCounts {
    /// Live sessions.
    pub live: u64,
    /// Sessions that have ended.
    pub ledger: u64,
    /// Maximum number of sessions that are live or have retained packets.
    pub capacity: u64,
    /// Sessions of unanswered floods that were counted but not listed.
    #[serde(default)]
    pub unlisted: u64,
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
    pub name: String,
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

/// Packets of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// Name of the interface.
    pub name: String,
    /// Index in the operating system; 0 for an interface of a capture file.
    pub index: u32,
    /// Link type, as tcpdump -L names it.
    pub link_type: String,
    /// Packets received from the interface.
    pub packets: u64,
    /// Captured bytes received from the interface.
    pub bytes: u64,
    /// Whether the interface is up.
    pub up: bool,
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
    pub filter: Option<String>,
    /// Names of the interfaces to record; empty for all.
    pub interfaces: Vec<String>,
}

/// Restrictions that the kernel enforces on the recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxStatus {
    /// The configured mode.
    #[schemars(extend("enum" = ["required", "best-effort", "off"]))]
    pub mode: String,
    /// User ID of the process.
    pub uid: u32,
    /// Group ID of the process.
    pub gid: u32,
    /// Permitted capabilities in hexadecimal; all zeros for none.
    pub capabilities: String,
    /// Whether `no_new_privs` is set: executed programs cannot gain privileges.
    pub no_new_privs: bool,
    /// Whether the memory of the process can be dumped, or read by other processes of its user.
    pub dumpable: bool,
    /// Restriction of system calls.
    pub seccomp: SeccompStatus,
    /// Restriction of file access.
    pub landlock: LandlockStatus,
    /// Requested protections that are missing, as sentences.
    pub missing: Vec<String>,
    /// Privileges that could not be dropped, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_privileges: Vec<String>,
}

/// Restriction of system calls (seccomp).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeccompStatus {
    /// Whether filters are in force.
    pub enforced: bool,
    /// Number of filters that apply to all threads. Each thread adds the filter of its role.
    pub filters: u32,
    /// Roles of threads.
    pub roles: Vec<String>,
    /// Threads since the start that could not install the filter of their role.
    #[serde(default)]
    pub unrestricted_threads: u64,
}

impl SeccompStatus {
    /// Describes the threads without the filter of their role; `None` if there are none.
    pub fn gap(&self) -> Option<String> {
        match self.unrestricted_threads {
            0 => None,
            threads => Some(format!(
                "{threads} threads could not be held to the system calls of their role (seccomp), so that those of all roles \
                 together bound them; the log says why"
            )),
        }
    }
}

/// Restriction of file access (Landlock).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LandlockStatus {
    /// Version of the Landlock ABI of the kernel; 0 if it has none.
    pub abi: u32,
    #[schemars(extend("enum" = ["full", "partial", "none"]))]
    /// How far the rules are enforced: `full`, `partial` or `none`.
    pub enforced: String,
    /// Paths that may be read.
    pub readable: Vec<String>,
    /// Paths that may be written.
    pub writable: Vec<String>,
}

impl SandboxStatus {
    /// Sets the number of threads since the start that run without the filter of their role.
    pub fn with_unrestricted_threads(mut self, threads: u64) -> Self {
        self.seccomp.unrestricted_threads = threads;
        self.missing.extend(self.seccomp.gap());
        self
    }

    /// Each layer of protection, and whether it is in force.
    pub fn layers(&self) -> [(&'static str, bool); 6] {
        [
            ("user", self.uid != 0),
            ("capabilities", self.capabilities.bytes().all(|digit| digit == b'0')),
            ("no_new_privs", self.no_new_privs),
            ("core_dumps", !self.dumpable),
            ("seccomp", self.seccomp.enforced),
            ("landlock", matches!(self.landlock.enforced.as_str(), "full" | "partial")),
        ]
    }
}

impl Status {
    /// The status of `history`. The caller supplies the seconds since start (`uptime_s`), the resident memory of this
    /// process (`resident_bytes`), and the time `now` that separates live sessions from ended ones.
    pub fn new(history: &History, uptime_s: f64, resident_bytes: u64, now: Timestamp) -> Self {
        let totals = history.totals();
        let dropped: Volume = totals.dropped.into_iter().sum();
        let (ranks, segments_bytes) = ranks(history);
        let sessions_bytes: u64 =
            history.workers.iter().map(|worker| worker.index_bytes + worker.sessions.bytes()).sum();
        let ledger_bytes: u64 = history.workers.iter().map(|worker| worker.sessions.archive_bytes()).sum();
        let span = history.span();
        let summary = history.summarize_sessions(now);
        let gap_until = history.restart.gaps.last().map_or(Timestamp::MIN, |gap| gap.until);
        let time = |t: Timestamp| t.to_rfc3339();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s,
            memory: MemoryStatus {
                budget_bytes: history.memory.budget_bytes,
                used_bytes: history.memory.rings_bytes
                    + history.memory.queries_bytes
                    + history.memory.compression_bytes
                    + segments_bytes
                    + sessions_bytes
                    + ledger_bytes,
                rings_bytes: history.memory.rings_bytes,
                segments_bytes,
                sessions_bytes,
                ledger_bytes,
                queries_bytes: history.memory.queries_bytes,
                compression_bytes: history.memory.compression_bytes,
                resident_bytes,
            },
            packets: PacketCounts {
                received: totals.received.packets,
                stored: totals.stored.packets,
                filtered: totals.filtered.packets,
                dropped: dropped.packets,
                kernel_dropped: totals.kernel_dropped,
                retained: totals.retained.packets,
                evicted: totals.evicted.packets,
            },
            bytes: ByteCounts {
                received: totals.received.bytes,
                stored: totals.stored.bytes,
                filtered: totals.filtered.bytes,
                dropped: dropped.bytes,
                retained: totals.retained.bytes,
                evicted: totals.evicted.bytes,
            },
            dropped: drop_reasons(&totals),
            retained: Retained {
                oldest: span.map(|s| time(s.0)),
                newest: span.map(|s| time(s.1)),
                whole_since: history.whole_since().map(|whole| time(whole.max(gap_until))),
            },
            ranks,
            sessions: summary.counts,
            coverage: summary.coverage,
            largest: summary.largest,
            carried: CarriedCounts {
                packets: totals.carried.volume.packets,
                bytes: totals.carried.volume.bytes,
                lost: totals.carried.lost,
            },
            compression: compression(totals.packed),
            classes: classes(history),
            pins: pins(history),
            interfaces: interfaces(history),
            oddities: OddityCounts {
                truncated: totals.oddities.truncated,
                cut_headers: totals.oddities.cut_headers,
                malformed: totals.oddities.malformed,
                too_deep: totals.oddities.too_deep,
                out_of_order: totals.oddities.out_of_order,
            },
            capture: CaptureStatus {
                workers: history.workers.len() as u64,
                filter: history.capture_filter.get(),
                interfaces: history.capture_interfaces.get(),
            },
            sandbox: None,
            restart: restart(&history.restart),
        }
    }
}

fn restart(before: &RestartReport) -> Option<RestartStatus> {
    if *before == RestartReport::default() {
        return None;
    }
    let RestoredCounts { packets, bytes, lost_packets, sessions, pins } = before.restored;
    let gap = before.gaps.last();
    Some(RestartStatus {
        packets,
        bytes,
        sessions,
        pins,
        lost_packets,
        recording_since: before.since.map(|since| since.to_rfc3339()),
        gap_from: gap.map(|gap| gap.from.to_rfc3339()),
        gap_until: gap.map(|gap| gap.until.to_rfc3339()),
        gap_s: gap.map_or(0.0, |gap| gap.until.since(gap.from).as_secs_f64()),
        gaps: before.gaps.len() as u64,
        problem: before.problem.clone(),
    })
}

fn drop_reasons(totals: &Totals) -> serde_json::Map<String, serde_json::Value> {
    let reasons = DropReason::ALL.iter().zip(totals.dropped);
    reasons.map(|(reason, volume)| (reason.as_str().to_owned(), volume.packets.into())).collect()
}

/// The status of each rank down to the deepest with segments, and the memory of all segments in bytes.
fn ranks(history: &History) -> (Vec<RankStatus>, u64) {
    let mut ranks = [(0, 0, (0, 0), None); Rank::COUNT];
    let mut total = 0;
    for view in history.workers.iter().flat_map(|worker| worker.segments.views()) {
        let (segments, bytes, packed, oldest) = &mut ranks[view.rank.index()];
        *segments += 1;
        *bytes += view.len_bytes;
        if view.is_packed() {
            *packed = (packed.0 + view.packed_bytes, packed.1 + view.len_bytes);
        }
        *oldest = Some(oldest.map_or(view.oldest, |o: Timestamp| o.min(view.oldest)));
        total += view.memory_bytes();
    }
    let deepest = ranks.iter().rposition(|rank| rank.0 > 0).map_or(0, |rank| rank + 1);
    let status = Rank::all().zip(ranks).take(deepest).map(|(rank, (segments, bytes, packed, oldest))| RankStatus {
        rank: rank.0,
        offset_from: rank.offset_from(),
        segments,
        bytes,
        compressed_bytes: packed.0,
        compressed_raw_bytes: packed.1,
        oldest: oldest.map(|t| t.to_rfc3339()),
    });
    (status.collect(), total)
}

fn compression(packed: CompressionTotals) -> CompressionCounts {
    CompressionCounts {
        segments: packed.segments,
        raw_bytes: packed.raw_bytes,
        compressed_bytes: packed.packed_bytes,
        incompressible_segments: packed.incompressible,
        cpu_s: std::time::Duration::from_nanos(packed.cpu_ns).as_secs_f64(),
    }
}

fn classes(history: &History) -> Vec<ClassStatus> {
    let Some(worker) = history.workers.first() else { return Vec::new() };
    let of_all = |of: &dyn Fn(&engine::pipeline::Worker) -> u64| history.workers.iter().map(of).sum();
    let names = worker.classes.iter().enumerate();
    names
        .map(|(at, (name, _))| ClassStatus {
            name: name.clone(),
            bytes: of_all(&|worker| worker.tally.class_bytes(at + 1)),
            reserve_bytes: of_all(&|worker| worker.classes.get(at).map_or(0, |class| class.1)),
        })
        .collect()
}

fn pins(history: &History) -> PinCounts {
    let mut counts = PinCounts::default();
    for (at, worker) in history.workers.iter().enumerate() {
        if at == 0 {
            counts.count = worker.pins.list().len() as u64;
            counts.limit_bytes = worker.pins.limit_bytes();
        }
        for place in 0..SessionMarks::PINS {
            counts.bytes += worker.tally.pinned_bytes(place);
            counts.refused_packets += worker.tally.refused_packets(place);
        }
    }
    counts
}

fn interfaces(history: &History) -> Vec<InterfaceStatus> {
    let volume = |id: InterfaceId| history.workers.iter().map(|worker| worker.published.interface(id)).sum();
    let all = history.interfaces.snapshot();
    all.iter()
        .map(|interface| {
            let seen: Volume = volume(interface.id);
            InterfaceStatus {
                name: interface.name.clone(),
                index: interface.index,
                link_type: interface.link_type.to_string(),
                packets: seen.packets,
                bytes: seen.bytes,
                up: interface.up,
            }
        })
        .collect()
}
