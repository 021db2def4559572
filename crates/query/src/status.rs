//! What is kept, how far back it reaches, and what was lost and why.

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
    /// The version that runs.
    pub version: String,
    /// Seconds since recording began.
    pub uptime_s: f64,
    /// How the byte budget is spent.
    pub memory: MemoryStatus,
    /// Packets: received = stored + filtered + dropped, and stored = retained + evicted.
    pub packets: PacketCounts,
    /// The same in captured bytes.
    pub bytes: ByteCounts,
    /// Packets that could not be stored, by reason.
    #[schemars(with = "std::collections::BTreeMap<String, u64>")]
    pub dropped: serde_json::Map<String, serde_json::Value>,
    /// From when to when packets are kept.
    pub retained: Retained,
    /// How deep in their sessions packets lie.
    pub ranks: Vec<RankStatus>,
    /// Sessions known.
    pub sessions: SessionCounts,
    /// What share of the sessions of each past period is still there.
    #[serde(default)]
    pub coverage: Vec<Coverage>,
    /// The sessions that have most of the memory.
    #[serde(default)]
    pub largest: Vec<Largest>,
    /// SessionStarts of sessions that were carried forward to outlive their rank.
    pub carried: CarriedCounts,
    /// What was compressed to make room.
    #[serde(default)]
    pub compression: CompressionCounts,
    /// Classes of sessions that are kept otherwise.
    #[serde(default)]
    pub classes: Vec<ClassStatus>,
    /// What pins have.
    #[serde(default)]
    pub pins: PinCounts,
    /// The interfaces that packets came from.
    pub interfaces: Vec<InterfaceStatus>,
    /// Packets worth knowing of; none of this is loss.
    pub oddities: OddityCounts,
    /// What is recorded.
    pub capture: CaptureStatus,
    /// What the kernel enforces on the recorder; of a service only.
    #[schemars(with = "SandboxStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxStatus>,
    /// What was taken over from the recorder before, when this one was restarted; of a service only.
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
    /// Packets that found no room.
    pub lost_packets: u64,
    /// When the first of the recorders began.
    #[schemars(extend("format" = "date-time"))]
    pub recording_since: Option<String>,
    /// The beginning of the last time when nothing was recorded.
    #[schemars(extend("format" = "date-time"))]
    pub gap_from: Option<String>,
    /// Its end.
    #[schemars(extend("format" = "date-time"))]
    pub gap_until: Option<String>,
    /// Its length in seconds.
    pub gap_s: f64,
    /// Gaps that are remembered.
    pub gaps: u64,
    /// Why nothing was taken over, or not all.
    pub problem: Option<String>,
}

/// How the byte budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryStatus {
    /// The whole budget, taken at start.
    pub budget_bytes: u64,
    /// The part of the budget that is in use.
    pub used_bytes: u64,
    /// Kernel rings.
    pub rings_bytes: u64,
    /// Packets.
    pub segments_bytes: u64,
    /// The index of live sessions.
    pub sessions_bytes: u64,
    /// Sessions, live and ended.
    pub ledger_bytes: u64,
    /// Set aside for queries.
    pub queries_bytes: u64,
    /// Set aside for compression.
    #[serde(default)]
    pub compression_bytes: u64,
    /// What the process has in RAM, beyond the budget too.
    pub resident_bytes: u64,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketCounts {
    /// Reached the recorder.
    pub received: u64,
    /// Were stored.
    pub stored: u64,
    /// Did not match the filter of the recording.
    pub filtered: u64,
    /// Could not be stored; `dropped` has the reasons.
    pub dropped: u64,
    /// Were dropped by the kernel before they reached the recorder; not part of received.
    pub kernel_dropped: u64,
    /// Are kept.
    pub retained: u64,
    /// Were evicted since.
    pub evicted: u64,
}

/// What became of captured bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ByteCounts {
    /// Captured bytes of packets that reached the recorder.
    pub received: u64,
    /// Captured bytes of packets that were stored.
    pub stored: u64,
    /// Captured bytes of packets that did not match the filter of the recording.
    pub filtered: u64,
    /// Captured bytes of packets that could not be stored.
    pub dropped: u64,
    /// Captured bytes of packets that are kept.
    pub retained: u64,
    /// Captured bytes of packets that were evicted since.
    pub evicted: u64,
}

/// From when to when packets are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retained {
    /// Time of the oldest packet kept.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
    /// Time of the newest packet kept.
    #[schemars(extend("format" = "date-time"))]
    pub newest: Option<String>,
    /// Every packet newer than this is there.
    #[schemars(extend("format" = "date-time"))]
    pub whole_since: Option<String>,
}

/// What is kept of one rank: how deep in their sessions packets lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RankStatus {
    /// 0 is the start of sessions.
    pub rank: u8,
    /// Bytes of the session before the rank.
    pub offset_from: u64,
    /// Runs of packets.
    pub segments: u64,
    /// Bytes kept, with headers.
    pub bytes: u64,
    /// Those of them that are compressed, as compressed.
    pub compressed_bytes: u64,
    /// Those of them that are compressed, before it.
    #[serde(default)]
    pub compressed_raw_bytes: u64,
    /// Time of its oldest packet.
    #[schemars(extend("format" = "date-time"))]
    pub oldest: Option<String>,
}

/// How many sessions are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionCounts {
    /// Sessions that are live.
    pub live: u64,
    /// Sessions that have ended.
    pub ledger: u64,
    /// Sessions for which there is room.
    pub capacity: u64,
    /// Sessions of floods that nobody answered: counted, and not listed.
    #[serde(default)]
    pub unlisted: u64,
}

/// Starts of sessions that were carried forward to outlive their rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CarriedCounts {
    /// Packets of the starts of sessions, carried forward when their rank was evicted.
    pub packets: u64,
    /// The same: captured bytes.
    pub bytes: u64,
    /// Packets that found no room: their sessions have lost their start.
    pub lost: u64,
}

/// What compression did to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompressionCounts {
    /// Segments that were compressed to make room, since start.
    pub segments: u64,
    /// Their bytes before.
    pub raw_bytes: u64,
    /// Their bytes after.
    pub compressed_bytes: u64,
    /// Segments that would hardly have become smaller, and were left as they are.
    pub incompressible_segments: u64,
    /// Processor time that it took; 0 in a replay, where it would differ each time.
    pub cpu_s: f64,
}

/// What a class of sessions takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClassStatus {
    /// As configured.
    pub name: String,
    /// Memory its packets have.
    pub bytes: u64,
    /// Memory that others cannot take from it.
    pub reserve_bytes: u64,
}

/// What pins take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinCounts {
    /// Pins that hold.
    pub count: u64,
    /// Memory they have taken.
    pub bytes: u64,
    /// What all together may take.
    pub limit_bytes: u64,
    /// Packets that found no room.
    pub refused_packets: u64,
}

/// What came from one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// The name.
    pub name: String,
    /// The kernel's index; 0 of a capture file.
    pub index: u32,
    /// As tcpdump -L names it.
    pub link_type: String,
    /// Packets that came from it.
    pub packets: u64,
    /// Captured bytes that came from it.
    pub bytes: u64,
    /// Whether it is up.
    pub up: bool,
}

/// Packets worth knowing of; none of this is loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OddityCounts {
    /// Packets too large to be kept whole.
    pub truncated: u64,
    /// Packets that end within a header.
    pub cut_headers: u64,
    /// Packets whose headers contradict themselves.
    pub malformed: u64,
    /// Packets with more nested headers than are opened.
    pub too_deep: u64,
    /// Packets stamped earlier than the one before.
    pub out_of_order: u64,
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaptureStatus {
    /// Threads that record.
    pub workers: u64,
    /// The expression that packets must match to be recorded.
    pub filter: Option<String>,
    /// The interfaces asked for; empty for all.
    pub interfaces: Vec<String>,
}

/// What the kernel enforces on the recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxStatus {
    /// What was asked for.
    #[schemars(extend("enum" = ["required", "best-effort", "off"]))]
    pub mode: String,
    /// The user that the recorder runs as.
    pub uid: u32,
    /// The group that it runs as.
    pub gid: u32,
    /// The permitted capabilities in hexadecimal; all zeros for none.
    pub capabilities: String,
    /// Whether no program that it executes can gain rights.
    pub no_new_privs: bool,
    /// Whether its memory can be dumped, or read by others of its user.
    pub dumpable: bool,
    /// The system calls that the kernel permits.
    pub seccomp: SeccompStatus,
    /// The files that the kernel permits.
    pub landlock: LandlockStatus,
    /// What was asked for and is not there, in sentences.
    pub missing: Vec<String>,
    /// Privileges that could not be dropped here, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_privileges: Vec<String>,
}

/// The system calls that the kernel permits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeccompStatus {
    /// Whether filters hold.
    pub enforced: bool,
    /// Filters that hold for all threads; each adds the one of its role.
    pub filters: u32,
    /// The roles of threads.
    pub roles: Vec<String>,
    /// Threads since the start that could not take the filter of their role on.
    #[serde(default)]
    pub unrestricted_threads: u64,
}

impl SeccompStatus {
    /// What is to be said of threads without the filter of their role.
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

/// The files that the kernel permits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LandlockStatus {
    /// Version of the kernel's interface; 0 where there is none.
    pub abi: u32,
    #[schemars(extend("enum" = ["full", "partial", "none"]))]
    /// `full`, `partial` or `none`.
    pub enforced: String,
    /// What may be read.
    pub readable: Vec<String>,
    /// What may be written.
    pub writable: Vec<String>,
}

impl SandboxStatus {
    /// The same, with so many threads since the start that the kernel did not hold to their role.
    pub fn with_unrestricted_threads(mut self, threads: u64) -> Self {
        self.seccomp.unrestricted_threads = threads;
        self.missing.extend(self.seccomp.gap());
        self
    }

    /// Each layer, and whether it holds.
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
    /// The state of `history`. Clock and operating system are the caller's: `uptime_s` seconds since start,
    /// `resident_bytes` of this process, `now` for telling live sessions from ended ones.
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

/// Each rank down to the deepest that has packets, and the bytes of all their segments.
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
