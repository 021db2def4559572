//! Collects the status of a history.

use std::collections::BTreeMap;

use super::{
    ByteCounts, CaptureStatus, CarriedCounts, ClassStatus, CompressionCounts, MemoryStatus, OddityCounts, PacketCounts,
    PinCounts, RankStatus, RestartStatus, Retained, Status,
};
use crate::history::{History, Memory};
use base::counters::{CompressionTotals, DropReason, Totals, Volume};
use base::foreign::Foreign;
use base::time::Timestamp;
use engine::handover::{RestartReport, RestoredCounts};
use engine::session::SessionMarks;
use engine::store::Rank;

impl Status {
    /// The status of `history`. The caller supplies the seconds since start (`uptime_s`), the resident memory of this
    /// process (`resident_bytes`), and the time `now` that separates live sessions from ended ones.
    pub fn new(history: &History, uptime_s: f64, resident_bytes: u64, now: Timestamp) -> Self {
        let totals = history.totals();
        let dropped: Volume = totals.dropped.into_iter().sum();
        let (ranks, segments_bytes) = ranks(history);
        let span = history.span();
        let summary = history.summarize_sessions(now);
        let (interface_gaps, interface_gaps_total) = history.interface_gap_status();
        let time = |t: Timestamp| t.to_rfc3339().into();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s,
            memory: memory(history, segments_bytes, resident_bytes),
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
                whole_since: history.everything_since().map(time),
            },
            ranks,
            sessions: summary.counts,
            coverage: summary.coverage,
            largest: summary.largest,
            largest_hosts: summary.largest_hosts,
            carried: CarriedCounts {
                packets: totals.carried.volume.packets,
                bytes: totals.carried.volume.bytes,
                lost: totals.carried.lost,
                headless_sessions: totals.carried.headless,
                untracked_sessions: totals.carried.untracked,
            },
            compression: compression(totals.packed),
            classes: classes(history),
            pins: pins(history),
            interfaces: history.interface_status(),
            interface_gaps,
            interface_gaps_total,
            oddities: OddityCounts {
                truncated: totals.oddities.truncated,
                cut_headers: totals.oddities.cut_headers,
                malformed: totals.oddities.malformed,
                too_deep: totals.oddities.too_deep,
                out_of_order: totals.oddities.out_of_order,
            },
            capture: CaptureStatus {
                workers: history.workers.len() as u64,
                filter: history.capture_filter.get().map(Into::into),
                interfaces: history.capture_interfaces.get().into_iter().map(Into::into).collect(),
            },
            input: None,
            sandbox: None,
            processes: None,
            spool: history.spool_status(),
            restart: restart(&history.restart),
        }
    }
}

fn memory(history: &History, segments_bytes: u64, resident_bytes: u64) -> MemoryStatus {
    let Memory { budget_bytes, rings_bytes, queries_bytes, compression_bytes, spool_bytes } = history.memory;
    let sessions_bytes: u64 = history.workers.iter().map(|worker| worker.index_bytes + worker.sessions.bytes()).sum();
    let ledger_bytes: u64 = history.workers.iter().map(|worker| worker.sessions.archive_bytes()).sum();
    let parts = rings_bytes + queries_bytes + compression_bytes + spool_bytes;
    let used_bytes = parts + segments_bytes + sessions_bytes + ledger_bytes;
    MemoryStatus {
        budget_bytes,
        used_bytes,
        rings_bytes,
        segments_bytes,
        sessions_bytes,
        ledger_bytes,
        queries_bytes,
        compression_bytes,
        spool_bytes,
        resident_bytes,
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
        recording_since: before.since.map(|since| since.to_rfc3339().into()),
        gap_from: gap.map(|gap| gap.from.to_rfc3339().into()),
        gap_until: gap.map(|gap| gap.until.to_rfc3339().into()),
        gap_s: gap.map_or(0.0, |gap| gap.until.since(gap.from).as_secs_f64()),
        gaps: before.gaps.len() as u64,
        problem: before.problem.clone().map(Into::into),
    })
}

fn drop_reasons(totals: &Totals) -> BTreeMap<Foreign, u64> {
    let reasons = DropReason::ALL.iter().zip(totals.dropped);
    reasons.map(|(reason, volume)| (reason.as_str().into(), volume.packets)).collect()
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
        oldest: oldest.map(|t| t.to_rfc3339().into()),
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
            name: name.clone().into(),
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
