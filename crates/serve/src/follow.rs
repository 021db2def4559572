//! Answers that go on: the past, then what comes, until the asker has enough.
//!
//! A follower has a thread and looks for new packets [`POLLS_PER_SECOND`] times a second; where nothing comes, a look is
//! one comparison for each worker. It never makes the recorder wait: who reads too slowly is overtaken by eviction, and
//! told so in the stream, in the log and in the counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use tokio::runtime::Handle;

use super::audit::{Action, AuditEntry, question};
use super::packets::{Export, ExportedInterfaces, Scope, description, headers, options, statistics, trailers};
use super::parameters::PacketQuery;
use super::peer::{Peer, Role};
use super::problem::Problem;
use super::stream::{Closed, Sink, stream};
use super::{Service, now};
use base::time::Timestamp;
use engine::own_streams::Exclusion;
use formats::writer::Options;
use formats::writer::one_link_type::{FittingExporter, OneLinkType};
use query::{Follow, Found};

/// How often a follower looks for new packets.
const POLLS_PER_SECOND: u32 = 40;
/// After this time all workers have published what they were sent: the kernel hands a packet over after 50 ms.
const SETTLED_AFTER: Duration = Duration::from_millis(100);
/// Packets after which a reader that is behind is rights_checked after.
const PACKETS_PER_BATCH: u32 = 4096;
/// Time between two lines of the log about one reader that is too slow.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// How often a reader's rights are rights_checked at.
const RIGHTS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a connection is still left out after its end, for its last packets.
const LEFT_OUT_AFTER: Duration = Duration::from_secs(3);

/// Answers with packets that go on to come.
pub(super) async fn packets(service: Arc<Service>, peer: Peer, query: PacketQuery) -> Result<Response, Problem> {
    // A stream that goes over a network must not be recorded: it would be sent again, and that again.
    let carried_by = query.carried_by.or(peer.connection());
    match carried_by {
        Some(_) if query.carried_by.is_some() && !peer.may_exclude_connections() => {
            return Err(Problem::not_allowed(
                "\"carried-by\" keeps a connection from being recorded: that is for root and the user that records; \
                 leave it out, and leave the connection out of what you ask for",
            ));
        }
        Some((ours, theirs)) => {
            tracing::info!("{peer} has packets sent on from {ours} to {theirs}, which is not recorded meanwhile");
        }
        None => {}
    }
    let left_out = UnrecordedConnection::new(&service, carried_by)?;
    let (follower, place) = service.follower().await?;
    service.counters.packet_queries.fetch_add(1, Ordering::Relaxed);
    let format = query.format;
    let audited_question = audited_question(&query);
    let live = Follower {
        export: Export { service: Arc::clone(&service), query, scope: Scope::Matching },
        peer,
        for_strict_readers: false,
        sent: Arc::default(),
    };
    let body = stream(&service, place, move |sink| {
        let outcome = live.run_audited(sink, audited_question);
        drop((follower, left_out));
        outcome
    })
    .await?;
    Ok((headers(format), axum::body::Body::new(body)).into_response())
}

/// Leaves a connection out of the recording for as long as it carries packets, and a little longer.
pub(super) struct UnrecordedConnection {
    left_out: Option<Exclusion>,
    runtime: Handle,
}

impl UnrecordedConnection {
    /// Leaves out the connection, our end first, if there is one. Call it within the runtime of the service.
    pub(super) fn new(service: &Service, connection: Option<(SocketAddr, SocketAddr)>) -> Result<Self, Problem> {
        let leave_out = |(ours, theirs)| {
            service.own_streams.leave_out(ours, Some(theirs), now()).ok_or_else(|| Problem::busy("own streams"))
        };
        Ok(Self { left_out: connection.map(leave_out).transpose()?, runtime: Handle::current() })
    }
}

impl Drop for UnrecordedConnection {
    fn drop(&mut self) {
        if let Some(left_out) = self.left_out.take() {
            self.runtime.spawn(async move {
                tokio::time::sleep(LEFT_OUT_AFTER).await;
                drop(left_out);
            });
        }
    }
}

/// What is asked for, as the audit log has it.
pub(super) fn audited_question(query: &PacketQuery) -> serde_json::Value {
    let mut audited_question = question(&query.request);
    audited_question["follow"] = true.into();
    if let Some((ours, theirs)) = query.carried_by {
        audited_question["carried_by"] = format!("{ours} {theirs}").into();
    }
    audited_question
}

/// What became of packets so far.
#[derive(Debug, Default)]
pub(super) struct FollowCounts {
    /// FollowCounts.
    pub(super) packets: AtomicU64,
    /// Evicted before they could be sent.
    pub(super) overtaken: AtomicU64,
    /// Of link types that the format cannot hold.
    pub(super) left_out: AtomicU64,
    /// Longer than the reader takes.
    pub(super) cut: AtomicU64,
    /// Whether the reader was let in, and may no longer read.
    pub(super) revoked: AtomicBool,
}

/// When there is more to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backlog {
    Waiting,
    Empty,
}

/// An answer that goes on; it runs on a thread of its own.
pub(super) struct Follower {
    pub(super) export: Export,
    /// Who reads.
    pub(super) peer: Peer,
    /// Whether it takes no classic packet that is longer than others of its kind do.
    pub(super) for_strict_readers: bool,
    pub(super) sent: Arc<FollowCounts>,
}

impl Follower {
    /// Begins once it is written down who reads.
    pub(super) fn run_audited(self, sink: Sink, audited_question: serde_json::Value) -> Result<(), Closed> {
        match self.export.service.audit().begin(&self.peer, Action::Packets, audited_question) {
            Ok(entry) => self.run(sink, entry),
            Err(problem) => sink.refuse(problem),
        }
    }

    fn run(self, mut sink: Sink, mut entry: AuditEntry) -> Result<(), Closed> {
        let service = Arc::clone(&self.export.service);
        let request = &self.export.query.request;
        let mut follow = match service.history().follow(request) {
            Ok(follow) => follow.interrupted_by(Arc::clone(&sink.gone)).interrupted_by(Arc::clone(&service.stopping)),
            Err(error) => {
                entry.end(&error.to_string());
                return sink.refuse(error);
            }
        };
        let mut writer = Writer::new(&self);
        writer.exporter.begin(sink.buffer(), &[format!("asked for: {}", description(request))]);
        // Who reads need not wait for the first packet.
        sink.send()?;
        let mut progress = ReportedProgress::default();
        let mut settled_clock = SettledClock::new(now(), Instant::now());
        let mut rights_checked = Instant::now();
        loop {
            let over = request.until.is_some_and(|until| now() > until.saturating_add(2 * SETTLED_AFTER));
            let settled = settled_clock.update(now(), Instant::now());
            let outcome = self.send_batch(&mut follow, settled, &mut writer, &mut sink, &mut entry);
            progress.report(&self, &follow, &writer);
            // Whoever lost a machine takes its roles away; a stream of days must not outlive that.
            if rights_checked.elapsed() >= RIGHTS_INTERVAL {
                rights_checked = Instant::now();
                if !service.may_still(&self.peer, Role::Packets) {
                    self.sent.revoked.store(true, Ordering::Relaxed);
                    break;
                }
            }
            if outcome? == Backlog::Waiting {
                continue;
            }
            if over || follow.has_ended() {
                break;
            }
            sink.send()?;
            std::thread::sleep(Duration::from_secs(1) / POLLS_PER_SECOND);
        }
        let summary = follow.summary();
        let note = self.note(&follow, &writer);
        let comments = self.export.comments(&note, "", &writer.exported, writer.exporter.cut());
        writer.exporter.end(sink.buffer(), &statistics(&service), &comments);
        sink.end(trailers(summary, &note, ""))?;
        entry.end(if note.is_empty() { "complete" } else { &note });
        Ok(())
    }

    fn send_batch(
        &self,
        follow: &mut Follow<'_>,
        settled: Timestamp,
        writer: &mut Writer,
        sink: &mut Sink,
        entry: &mut AuditEntry,
    ) -> Result<Backlog, Closed> {
        let mut overtaken = self.sent.overtaken.load(Ordering::Relaxed);
        for _ in 0..PACKETS_PER_BATCH {
            let missed = follow.summary().overtaken - overtaken;
            overtaken += missed;
            let Some(found) = follow.next(settled) else { return Ok(Backlog::Empty) };
            writer.packet(sink.buffer(), &found, missed);
            entry.packet(found.packet.data.len());
            sink.send_full()?;
        }
        Ok(Backlog::Waiting)
    }

    fn note(&self, follow: &Follow<'_>, writer: &Writer) -> String {
        let mut note = self.export.note(follow.summary(), None, &[]);
        if self.sent.revoked.load(Ordering::Relaxed) {
            let and = if note.is_empty() { "" } else { "; " };
            note.push_str(&format!("{and}incomplete: the role packets was taken away from {}", self.peer));
        }
        let left_out = writer.exporter.left_out();
        if let Some(link_type) = writer.exporter.link_type().filter(|_| left_out > 0) {
            let and = if note.is_empty() { "" } else { "; " };
            note.push_str(&format!(
                "{and}{left_out} packets do not fit into classic pcap of {link_type}: use --format pcapng"
            ));
        }
        note
    }
}

/// Up to when packets have settled, by a wall clock that may be set.
#[derive(Debug)]
struct SettledClock {
    wall: Timestamp,
    at: Instant,
    /// When the clock was last seen to have been set back.
    set_back: Option<Instant>,
}

impl SettledClock {
    fn new(wall: Timestamp, at: Instant) -> Self {
        Self { wall, at, set_back: None }
    }

    /// Looks at both clocks; called again and again.
    ///
    /// Of what came just before the clock was set back the times are still to come, and would be for hours: for as long as it
    /// takes until all workers have published it nothing waits, though it may come out of order then.
    fn update(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        let expected = self.wall.saturating_add(at.saturating_duration_since(self.at));
        if wall.saturating_add(SETTLED_AFTER) < expected {
            self.set_back = Some(at);
        }
        (self.wall, self.at) = (wall, at);
        match self.set_back {
            Some(then) if at.saturating_duration_since(then) <= 2 * SETTLED_AFTER => Timestamp::MAX,
            _ => wall.saturating_sub(SETTLED_AFTER),
        }
    }
}

/// What is written, and what is known of it.
struct Writer {
    exporter: FittingExporter,
    exported: ExportedInterfaces,
}

impl Writer {
    fn new(live: &Follower) -> Self {
        let link_type = OneLinkType::choose(&live.export.service.history().link_types());
        let options = Options { link_type: Some(link_type), ..options(&live.export.query) };
        let exporter = FittingExporter::new(live.export.query.format, options);
        let exporter = if live.for_strict_readers { exporter.for_strict_readers() } else { exporter };
        Self { exporter, exported: ExportedInterfaces::default() }
    }

    /// Writes a packet before which `missed` were evicted too soon.
    fn packet(&mut self, out: &mut Vec<u8>, found: &Found<'_>, missed: u64) {
        let comment =
            (missed > 0).then(|| format!("{missed} packets before this one were evicted before they could be sent"));
        if self.exporter.packet(out, found.interface, &found.packet, comment.as_deref()) {
            self.exported.note(found.interface.id);
        }
    }
}

/// What has been told already.
#[derive(Debug, Default)]
struct ReportedProgress {
    packets: u64,
    overtaken: u64,
    warned_overtaken: u64,
    warned: Option<Instant>,
}

impl ReportedProgress {
    /// Adds what is new to the counts, and to the log when it is bad.
    fn report(&mut self, live: &Follower, follow: &Follow<'_>, writer: &Writer) {
        let summary = follow.summary();
        let counters = &live.export.service.counters;
        counters.packets_sent.fetch_add(summary.packets - self.packets, Ordering::Relaxed);
        counters.packets_overtaken.fetch_add(summary.overtaken - self.overtaken, Ordering::Relaxed);
        (self.packets, self.overtaken) = (summary.packets, summary.overtaken);
        let left_out = writer.exporter.left_out();
        live.sent.packets.store(summary.packets - left_out, Ordering::Relaxed);
        live.sent.overtaken.store(summary.overtaken, Ordering::Relaxed);
        live.sent.left_out.store(left_out, Ordering::Relaxed);
        live.sent.cut.store(writer.exporter.cut(), Ordering::Relaxed);
        let missed = summary.overtaken - self.warned_overtaken;
        if missed > 0 && self.warned.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL) {
            tracing::warn!("{} reads too slowly: {missed} packets were evicted before they could be sent", live.peer);
            self.warned_overtaken = summary.overtaken;
            self.warned = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_the_clock_was_set_back_does_not_wait_for_it() {
        let (start, wall) = (Instant::now(), Timestamp(1_000_000_000_000_000_000));
        let mut settled_clock = SettledClock::new(wall, start);
        let ms = Duration::from_millis;
        let hour = Duration::from_secs(3600);
        let at = |elapsed: u64| wall.saturating_add(ms(elapsed));
        let back = |elapsed: u64| at(elapsed).saturating_sub(hour);
        for (elapsed, clock, settled) in [
            (25, at(25), Some(at(25))),
            // It is slewed, or its thread was late.
            (50, at(40), Some(at(40))),
            (5000, at(4990), Some(at(4990))),
            (5025, back(5025), None),
            (5050, back(5050), None),
            (5225, back(5225), None),
            (5250, back(5250), Some(back(5250))),
            // What is set forward makes nobody wait.
            (5275, at(5275), Some(at(5275))),
            (5300, at(5300), Some(at(5300))),
        ] {
            let expected = settled.map_or(Timestamp::MAX, |settled| settled.saturating_sub(SETTLED_AFTER));
            assert_eq!(settled_clock.update(clock, start + ms(elapsed)), expected, "{elapsed}");
        }
    }
}
