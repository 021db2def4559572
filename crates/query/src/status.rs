//! What is kept, how far back it reaches, and what was lost and why.

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the keys are described in the interface's OpenAPI document")]
pub struct Status {
    pub version: String,
    pub uptime_s: f64,
    pub memory: MemoryStatus,
    pub packets: PacketCounts,
    pub bytes: ByteCounts,
    pub dropped: serde_json::Map<String, serde_json::Value>,
    pub retained: Retained,
    pub ranks: Vec<RankStatus>,
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
    /// Sessions that are kept otherwise.
    #[serde(default)]
    pub classes: Vec<ClassStatus>,
    #[serde(default)]
    pub pins: PinCounts,
    pub interfaces: Vec<InterfaceStatus>,
    /// Things worth knowing that are no loss: odd packets, counted.
    pub oddities: OddityCounts,
    pub capture: CaptureStatus,
    /// What keeps a recorder that was taken over from doing harm; of a service only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxStatus>,
    /// What was taken over from the recorder before; of a service that was restarted only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartStatus>,
}

/// What became of the history when the recorder was restarted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RestartStatus {
    /// What was taken over.
    pub packets: u64,
    pub bytes: u64,
    pub sessions: u64,
    pub pins: u64,
    /// Packets that found no room.
    pub lost_packets: u64,
    /// When the first of the recorders began.
    pub recording_since: Option<String>,
    /// When nothing was recorded last, and for how long.
    pub gap_from: Option<String>,
    pub gap_until: Option<String>,
    pub gap_s: f64,
    /// Gaps that are remembered.
    pub gaps: u64,
    /// Why nothing was taken over, or not all.
    pub problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MemoryStatus {
    pub budget_bytes: u64,
    pub used_bytes: u64,
    pub rings_bytes: u64,
    pub segments_bytes: u64,
    pub sessions_bytes: u64,
    pub ledger_bytes: u64,
    pub queries_bytes: u64,
    #[serde(default)]
    pub compression_bytes: u64,
    pub resident_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PacketCounts {
    pub received: u64,
    pub stored: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub kernel_dropped: u64,
    pub retained: u64,
    pub evicted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ByteCounts {
    pub received: u64,
    pub stored: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub retained: u64,
    pub evicted: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Retained {
    pub oldest: Option<String>,
    pub newest: Option<String>,
    pub whole_since: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RankStatus {
    pub rank: u8,
    pub offset_from: u64,
    pub segments: u64,
    pub bytes: u64,
    pub compressed_bytes: u64,
    #[serde(default)]
    pub compressed_raw_bytes: u64,
    pub oldest: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SessionCounts {
    pub live: u64,
    pub ledger: u64,
    pub capacity: u64,
    /// Sessions of floods that were counted, but not listed in the ledger.
    #[serde(default)]
    pub unlisted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CarriedCounts {
    pub packets: u64,
    pub bytes: u64,
    pub lost: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CompressionCounts {
    pub segments: u64,
    pub raw_bytes: u64,
    pub compressed_bytes: u64,
    pub incompressible_segments: u64,
    pub cpu_s: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClassStatus {
    pub name: String,
    pub bytes: u64,
    pub reserve_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PinCounts {
    pub count: u64,
    pub bytes: u64,
    pub limit_bytes: u64,
    pub refused_packets: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct InterfaceStatus {
    pub name: String,
    pub index: u32,
    pub link_type: String,
    pub packets: u64,
    pub bytes: u64,
    pub up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OddityCounts {
    pub truncated: u64,
    pub cut_headers: u64,
    pub malformed: u64,
    pub too_deep: u64,
    pub out_of_order: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CaptureStatus {
    pub workers: u64,
    pub filter: Option<String>,
    pub interfaces: Vec<String>,
}

/// What the kernel enforces on the recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SandboxStatus {
    /// `required`, `best-effort` or `off`.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    /// The permitted capabilities in hexadecimal, as in `/proc/PID/status`: all zeros for none.
    pub capabilities: String,
    pub no_new_privs: bool,
    pub dumpable: bool,
    pub seccomp: SeccompStatus,
    pub landlock: LandlockStatus,
    /// What was asked for and is not there, in sentences.
    pub missing: Vec<String>,
    /// Privileges that could not be dropped here, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_privileges: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SeccompStatus {
    pub enforced: bool,
    /// Filters that hold for all threads; each adds the one of its role.
    pub filters: u32,
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

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LandlockStatus {
    /// Version of the kernel's interface, 0 where there is none.
    pub abi: u32,
    /// `full`, `partial` or `none`.
    pub enforced: String,
    pub readable: Vec<String>,
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
