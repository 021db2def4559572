//! `/metrics`: the counts in the text format of Prometheus, version 0.0.4.
//!
//! Values are read at each request; nothing is kept between requests.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::counters::PANICS;
use super::health;
use super::horizon::Horizon;
use super::retention_target::RetentionTarget;
use super::service::Service;
use api::answers::{HealthCode, HealthStatus};
use base::foreign::Terminal;
use base::log_limit;
use query::status::{DiskTimes, SandboxStatus, SpoolStatus, Status};

/// The content type.
pub(super) const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text that is being written.
#[derive(Default)]
struct Text(String);

impl Text {
    /// One metric without labels.
    fn one(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.family(kind, name, help).line(name, &[], value);
    }

    fn family(&mut self, kind: Kind, name: &str, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP retrocap_{name} {help}\n# TYPE retrocap_{name} {kind}");
        self
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "retrocap_{name}");
        for (i, (label, value)) in labels.iter().enumerate() {
            // A line feed has an escape of its own.
            let value = value.split('\n').map(|line| Terminal(line).to_string()).collect::<Vec<_>>().join("\n");
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

pub(super) fn text(service: &Service) -> String {
    let status = service.status();
    let mut text = Text::default();
    recorder(&mut text, &status);
    conditions(&mut text, service);
    volumes(&mut text, &status);
    horizons(&mut text, service);
    coverage(&mut text, &status);
    kept_otherwise(&mut text, &status);
    sandbox(&mut text, status.sandbox.as_ref());
    compression(&mut text, &status);
    interfaces(&mut text, &status);
    if let Some(spool) = &status.spool {
        on_disk(&mut text, spool);
    }
    activity(&mut text, service);
    text.0
}

fn recorder(text: &mut Text, status: &Status) {
    text.family(Kind::Gauge, "build_info", "The version that runs.").line(
        "build_info",
        &[("version", status.version.untrusted())],
        1,
    );
    text.one(Kind::Gauge, "uptime_seconds", "Time since recording began.", status.uptime_s);
    let memory = &status.memory;
    let name = "memory_bytes";
    text.family(Kind::Gauge, name, "Memory: the budget, what it is spent on, and what the process has in RAM.");
    for (part, bytes) in [
        ("budget", memory.budget_bytes),
        ("used", memory.used_bytes),
        ("rings", memory.rings_bytes),
        ("segments", memory.segments_bytes),
        ("sessions", memory.sessions_bytes),
        ("ledger", memory.ledger_bytes),
        ("queries", memory.queries_bytes),
        ("compression", memory.compression_bytes),
        ("spool", memory.spool_bytes),
        ("resident", memory.resident_bytes),
    ] {
        text.line(name, &[("part", part)], bytes);
    }
    let name = "sessions";
    text.family(Kind::Gauge, name, "Known sessions, live and ended.");
    text.line(name, &[("state", "live")], status.sessions.live);
    text.line(name, &[("state", "ended")], status.sessions.ledger);
    let (name, help) = ("sessions_unlisted_total", "Sessions of floods that were counted, but not listed.");
    text.one(Kind::Counter, name, help, status.sessions.unlisted);
    text.one(Kind::Gauge, "sessions_capacity", "Sessions for which there is room.", status.sessions.capacity);
}

/// Whether recording goes on, and what `/v1/health` says.
fn conditions(text: &mut Text, service: &Service) {
    let recorder = service.recorder();
    let workers = &service.history().workers;
    text.one(Kind::Gauge, "live", "Whether it records this host: 1, or replays a capture: 0.", u8::from(recorder.live));
    text.one(Kind::Gauge, "workers", "Workers that should record.", workers.len());
    let recording = recorder.recording.load(Ordering::Relaxed);
    text.one(Kind::Gauge, "workers_recording", "Workers that record.", recording);
    let name = "worker_turns_total";
    text.family(Kind::Counter, name, "Loops of a worker, at least ten a second while it runs.");
    for (number, worker) in workers.iter().enumerate() {
        text.line(name, &[("worker", &number.to_string())], worker.published.publications());
    }
    let locked = recorder.live && service.not_locked().is_none();
    let help = "Whether packets are locked in RAM, also on their way to a reader.";
    text.one(Kind::Gauge, "memory_locked", help, u8::from(locked));
    let health = health::check(service);
    text.one(Kind::Gauge, "ready", "Whether /v1/health says ready.", u8::from(health.status == HealthStatus::Ready));
    let name = "degraded";
    text.family(Kind::Gauge, name, "Whether /v1/health says degraded for a reason.");
    let reasons: BTreeSet<HealthCode> = health.reasons.iter().map(|reason| reason.code).collect();
    for code in HealthCode::ALL {
        text.line(name, &[("reason", code.name())], u8::from(reasons.contains(&code)));
    }
    let (name, help) = ("panics_total", "Panics of any thread; a worker's ends the recorder.");
    text.one(Kind::Counter, name, help, PANICS.load(Ordering::Relaxed));
    let (name, help) =
        ("log_lines_left_out_total", "Lines that the log left out because of its limit for lines of one kind.");
    text.one(Kind::Counter, name, help, log_limit::suppressed());
}

/// Conservation: received = stored + filtered + dropped, stored = retained + evicted.
fn volumes(text: &mut Text, status: &Status) {
    let (packets, bytes) = (&status.packets, &status.bytes);
    for (name, help, count, captured) in [
        ("received", "Packets that reached the recorder.", packets.received, bytes.received),
        ("stored", "Packets that were stored.", packets.stored, bytes.stored),
        ("filtered", "Packets that the recording filter left out.", packets.filtered, bytes.filtered),
        ("evicted", "Packets that were evicted since they were stored.", packets.evicted, bytes.evicted),
    ] {
        text.one(Kind::Counter, &format!("packets_{name}_total"), help, count);
        text.one(Kind::Counter, &format!("bytes_{name}_total"), help, captured);
    }
    text.one(Kind::Gauge, "packets_retained", "Packets that are kept.", packets.retained);
    text.one(Kind::Gauge, "bytes_retained", "Captured bytes that are kept.", bytes.retained);
    let name = "packets_dropped_total";
    text.family(Kind::Counter, name, "Packets that the recorder could not store, by reason.");
    for (reason, count) in &status.dropped {
        text.line(name, &[("reason", reason.untrusted())], count);
    }
    let (name, help) = ("bytes_dropped_total", "Captured bytes of packets that the recorder could not store.");
    text.one(Kind::Counter, name, help, bytes.dropped);
    let carried = &status.carried;
    let (name, help) =
        ("packets_carried_total", "Packets of session starts that were carried forward to outlive their rank.");
    text.one(Kind::Counter, name, help, carried.packets);
    let (name, help) =
        ("starts_lost_total", "Packets of session starts that could not be carried forward for want of room.");
    text.one(Kind::Counter, name, help, carried.lost);
    let (name, help) =
        ("headless_sessions_total", "Sessions that lost their first packet while others of their packets stayed.");
    text.one(Kind::Counter, name, help, carried.headless_sessions);
    let (name, help) =
        ("untracked_sessions_total", "Sessions that may have lost their first packet, for want of room to know it.");
    text.one(Kind::Counter, name, help, carried.untracked_sessions);
    let compression = &status.compression;
    let name = "compression_bytes_total";
    text.family(Kind::Counter, name, "Bytes of segments that were compressed, before and after.");
    text.line(name, &[("bytes", "raw")], compression.raw_bytes);
    text.line(name, &[("bytes", "compressed")], compression.compressed_bytes);
    let (name, help) = ("compression_cpu_seconds_total", "Processor time of compression.");
    text.one(Kind::Counter, name, help, compression.cpu_s);
    let name = "compression_segments_total";
    text.family(Kind::Counter, name, "Segments that were compressed, or left because they would hardly get smaller.");
    text.line(name, &[("outcome", "compressed")], compression.segments);
    text.line(name, &[("outcome", "incompressible")], compression.incompressible_segments);
    let (name, help) =
        ("kernel_dropped_packets_total", "Packets that the kernel dropped before the recorder could read them.");
    text.one(Kind::Counter, name, help, packets.kernel_dropped);
    let name = "odd_packets_total";
    text.family(Kind::Counter, name, "Packets with an oddity; none of this is loss.");
    for (oddity, count) in [
        ("truncated", status.oddities.truncated),
        ("cut_headers", status.oddities.cut_headers),
        ("malformed", status.oddities.malformed),
        ("too_deep", status.oddities.too_deep),
        ("out_of_order", status.oddities.out_of_order),
    ] {
        text.line(name, &[("oddity", oddity)], count);
    }
}

/// How far back each rank reaches: from now, or from the newest packet of a replayed capture.
fn horizons(text: &mut Text, service: &Service) {
    let horizon = Horizon::of(service);
    let name = "horizon_seconds";
    text.family(Kind::Gauge, name, "Age of the oldest packet kept, by rank: how deep in its session a packet lies.");
    for (rank, age, _) in horizon.ranks() {
        text.line(name, &[("rank", &rank.0.to_string())], age.as_secs_f64());
    }
    if let Some(age) = horizon.whole() {
        let help = "Age up to which every packet is kept.";
        text.one(Kind::Gauge, "whole_seconds", help, age.as_secs_f64());
    }
    let name = "horizon_wanted_seconds";
    text.family(Kind::Gauge, name, "How far back the history should reach, from [health] of the configuration.");
    let RetentionTarget { starts, whole } = service.retention_target.get();
    for (of, wanted) in [("starts", starts), ("whole", whole)] {
        if let Some(wanted) = wanted {
            text.line(name, &[("of", of)], wanted.as_secs_f64());
        }
    }
    let name = "rank_bytes";
    text.family(Kind::Gauge, name, "Bytes kept, by rank.");
    for (rank, _, bytes) in horizon.ranks() {
        text.line(name, &[("rank", &rank.0.to_string())], bytes);
    }
}

/// What share of the sessions is still there.
fn coverage(text: &mut Text, status: &Status) {
    let name = "coverage_sessions";
    text.family(
        Kind::Gauge,
        name,
        "Sessions that began within a period before now, those that are forgotten included.",
    );
    for coverage in &status.coverage {
        text.line(name, &[("period", coverage.period.untrusted())], coverage.sessions);
    }
    let name = "coverage_ratio";
    text.family(
        Kind::Gauge,
        name,
        "The share of these sessions that still has all of its first packet, kB, 10 kB, packets.",
    );
    for coverage in &status.coverage {
        for (of, share) in [
            ("first_packet", coverage.first_packet),
            ("first_kb", coverage.first_kb),
            ("first_10kb", coverage.first_10kb),
            ("whole", coverage.whole),
        ] {
            text.line(name, &[("period", coverage.period.untrusted()), ("of", of)], share);
        }
    }
}

/// Pins and classes.
fn kept_otherwise(text: &mut Text, status: &Status) {
    let pins = &status.pins;
    text.one(Kind::Gauge, "pins", "Pins that are active.", pins.count);
    text.one(Kind::Gauge, "pins_bytes", "Memory that all pins together have taken.", pins.bytes);
    let (name, help) = ("pins_limit_bytes", "Memory that all pins together may take: a quarter of the budget.");
    text.one(Kind::Gauge, name, help, pins.limit_bytes);
    let (name, help) = ("pins_refused_packets", "Packets for which active pins had no room.");
    text.one(Kind::Gauge, name, help, pins.refused_packets);
    for (name, help) in [
        ("class_bytes", "Memory that a class of sessions takes."),
        ("class_reserve_bytes", "Memory that others cannot take from a class of sessions."),
    ] {
        text.family(Kind::Gauge, name, help);
        for class in &status.classes {
            let bytes = if name == "class_bytes" { class.bytes } else { class.reserve_bytes };
            text.line(name, &[("class", class.name.untrusted())], bytes);
        }
    }
}

/// The layers of the sandbox, as the kernel reports them.
fn sandbox(text: &mut Text, sandbox: Option<&SandboxStatus>) {
    let name = "sandbox_enforced";
    text.family(Kind::Gauge, name, "Whether a layer of the sandbox is enforced, as the kernel reports: 1, or 0.");
    let Some(sandbox) = sandbox else { return };
    for (layer, holds) in sandbox.layers() {
        text.line(name, &[("layer", layer)], u8::from(holds));
    }
    let name = "sandbox_unrestricted_threads_total";
    let help = "Threads that could not be held to the system calls of their role.";
    text.one(Kind::Counter, name, help, sandbox.seccomp.unrestricted_threads);
    let (name, help) = ("sandbox_landlock_version", "The version of Landlock that this kernel has; 0 for none.");
    text.one(Kind::Gauge, name, help, sandbox.landlock.abi);
}

fn compression(text: &mut Text, status: &Status) {
    let name = "rank_compressed_bytes";
    text.family(Kind::Gauge, name, "Memory that the compressed segments of a rank take.");
    for rank in &status.ranks {
        text.line(name, &[("rank", &rank.rank.to_string())], rank.compressed_bytes);
    }
}

fn interfaces(text: &mut Text, status: &Status) {
    for (name, help) in [
        ("interface_packets_total", "Packets that came from an interface."),
        ("interface_bytes_total", "Captured bytes of packets that came from an interface."),
    ] {
        text.family(Kind::Counter, name, help);
        for interface in &status.interfaces {
            let labels = [
                ("interface", interface.name.untrusted()),
                ("index", &*interface.index.to_string()),
                ("link_type", interface.link_type.untrusted()),
            ];
            let packets = name.starts_with("interface_packets");
            text.line(name, &labels, if packets { interface.packets } else { interface.bytes });
        }
    }
}

/// The spool. Its metrics are missing where there is none.
fn on_disk(text: &mut Text, spool: &SpoolStatus) {
    let name = "spool_state";
    text.family(Kind::Gauge, name, "State of the spool: 1 for the one that holds.");
    for state in ["ok", "opening", "behind", "full", "failed"] {
        text.line(name, &[("state", state)], u8::from(spool.state == state));
    }
    text.one(Kind::Gauge, "spool_budget_bytes", "Room of the spool.", spool.budget_bytes);
    text.one(Kind::Gauge, "spool_behind_packets", "Packets in memory that are not durable yet.", spool.behind_packets);
    text.one(Kind::Gauge, "spool_behind_bytes", "Captured bytes of these packets.", spool.behind_bytes);
    text.one(Kind::Counter, "spool_written_packets_total", "Packets made durable.", spool.written_packets);
    text.one(Kind::Counter, "spool_written_bytes_total", "Captured bytes of these packets.", spool.written_bytes);
    let name = "spool_lost_packets_total";
    text.family(Kind::Counter, name, "Packets that never reached the disk, by reason.");
    let lost = &spool.lost;
    for (reason, packets) in [("too_slow", lost.too_slow), ("no_room", lost.no_room), ("failed", lost.failed)] {
        text.line(name, &[("reason", reason)], packets);
    }
    let help = "Packets in files that were removed for room.";
    text.one(Kind::Counter, "spool_removed_packets_total", help, spool.removed_packets);
    let name = "spool_bytes";
    text.family(Kind::Gauge, name, "Bytes on disk by depth; band 0 is the start of sessions.");
    for band in &spool.bands {
        text.line(name, &[("band", &band.band.to_string())], band.bytes);
    }
    let name = "spool_oldest_seconds";
    text.family(Kind::Gauge, name, "Time of the oldest packet on disk by depth, in Unix time.");
    for band in &spool.bands {
        let oldest = band.oldest.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if let Some(oldest) = oldest {
            text.line(name, &[("band", &band.band.to_string())], oldest.as_second());
        }
    }
    text.one(Kind::Gauge, "spool_used_bytes", "Bytes of all files of the spool.", spool.used_bytes);
    let help = "Operations that the file system refused, for lack of room and otherwise.";
    text.one(Kind::Counter, "spool_failures_total", help, spool.failures);
    let whole = spool.whole_since.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    if let Some(whole) = whole {
        let help = "Time since which every packet is on disk or waits to be written, in Unix time.";
        text.one(Kind::Gauge, "spool_whole_since_seconds", help, whole.as_second());
    }
    disk_times(text, "spool_write_seconds", "Durations of writes to the spool.", &spool.writes);
    disk_times(text, "spool_sync_seconds", "Durations of syncs (fdatasync) of the spool.", &spool.syncs);
    let Some(log) = &spool.log else { return };
    text.one(Kind::Gauge, "session_log_bytes", "Bytes of the log of sessions on disk.", log.bytes);
    text.one(Kind::Counter, "session_log_rows_total", "Rows written to the log of sessions.", log.rows);
    let help = "Sessions that are in no row: of floods, or overwritten in memory before they were written.";
    text.one(Kind::Counter, "session_log_missed_sessions_total", help, log.missed_sessions);
    let help = "Rows lost because a file of the log of sessions could not be written.";
    text.one(Kind::Counter, "session_log_lost_rows_total", help, log.lost_rows);
}

fn disk_times(text: &mut Text, name: &str, help: &str, times: &DiskTimes) {
    text.family(Kind::Histogram, name, help);
    let bucket_name = format!("{name}_bucket");
    let mut count = 0;
    for bucket in &times.buckets {
        count += bucket.count;
        let seconds = |us| Duration::from_micros(us).as_secs_f64().to_string();
        let end = bucket.up_to_us.map_or_else(|| "+Inf".to_owned(), seconds);
        text.line(&bucket_name, &[("le", &end)], count);
    }
    text.line(&format!("{name}_sum"), &[], Duration::from_micros(times.sum_us).as_secs_f64());
    text.line(&format!("{name}_count"), &[], times.count);
}

fn activity(text: &mut Text, service: &Service) {
    let counters = &service.counters;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let gauge = |gauge: &AtomicUsize| gauge.load(Ordering::Relaxed);
    text.one(Kind::Gauge, "connections", "Connections to the service.", gauge(&counters.connections));
    text.one(Kind::Gauge, "queries_running", "Queries that run.", gauge(&counters.queries_running));
    let name = "queries_total";
    text.family(Kind::Counter, name, "Queries that were begun.");
    text.line(name, &[("of", "packets")], count(&counters.packet_queries));
    text.line(name, &[("of", "flows")], count(&counters.flow_queries));
    let name = "query_latency_seconds";
    text.family(Kind::Histogram, name, "Time from a query to the first byte of its answer.");
    let (buckets, asked, sum) = counters.latency.cumulative();
    for (end, count) in &buckets {
        text.line("query_latency_seconds_bucket", &[("le", end)], count);
    }
    text.line("query_latency_seconds_sum", &[], sum);
    text.line("query_latency_seconds_count", &[], asked);
    let (name, help) = ("queries_refused_total", "Queries that got no share of places or memory in time.");
    text.one(Kind::Counter, name, help, count(&counters.queries_refused));
    text.one(Kind::Counter, "sent_packets_total", "Packets found by queries.", count(&counters.packets_sent));
    text.one(Kind::Counter, "sent_bytes_total", "Bytes of answers to queries.", count(&counters.bytes_sent));
    let (name, help) = ("overtaken_packets_total", "Packets that were evicted before a query came to them.");
    text.one(Kind::Counter, name, help, count(&counters.packets_overtaken));
    let name = "clients_closed_total";
    text.family(Kind::Counter, name, "Clients that were closed, by what they did.");
    text.line(name, &[("reason", "stalled")], count(&counters.clients_stalled));
    text.line(name, &[("reason", "too_many")], count(&counters.clients_refused));
    text.line(name, &[("reason", "crowded_out")], count(&counters.clients_crowded_out));
    text.line(name, &[("reason", "slow")], count(&counters.clients_slow));
    text.line(name, &[("reason", "garbage")], count(&counters.clients_garbled));
    text.line(name, &[("reason", "untrusted")], count(&counters.clients_untrusted));
    text.line(name, &[("reason", "revoked")], count(&counters.clients_revoked));
    let (name, help) =
        ("roles_refused_total", "Requests that were refused for want of a role, or because of their host or origin.");
    text.one(Kind::Counter, name, help, count(&counters.roles_refused));
    let (lines, failures) = service.audit.counts();
    text.one(Kind::Counter, "audit_lines_total", "Lines written to the audit log.", lines);
    text.one(Kind::Counter, "audit_failures_total", "Lines that could not be written to the audit log.", failures);
    let name = "certificate_expires_seconds";
    text.family(Kind::Gauge, name, "When the recorder's certificate expires, in Unix time.");
    if let Some(tls) = &service.tls {
        text.line(name, &[], tls.certificate().not_after.as_second());
    }
}
