//! Followers: the past, then packets as they arrive, until the client has enough.
//!
//! A follower has a thread and polls for new packets [`POLLS_PER_SECOND`] times a second; without new packets a poll is
//! one comparison for each worker. It never makes the recorder wait: a slow reader is overtaken by eviction, which the
//! stream, the log and the counts say.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body as RequestBody;
use hyper::body::Body as _;
use tokio::runtime::Handle;

use super::super::audit::{Action, AuditEntry};
use super::super::clock::now;
use super::super::peer::Peer;
use super::super::quota::Share;
use super::super::service::Service;
use super::packets::{Export, ExportedInterfaces, Scope, options, statistics};
use super::statement::{Outcome, SentTimes};
use super::stream::{AnswerEnd, Body, ClientGone, Sink, stream};
use super::{Answer, AnswerKind};
use api::parameters::PacketQuery;
use api::{Problem, Role, describe};
use base::time::Timestamp;
use engine::own_streams::Exclusion;
use formats::writer::Options;
use formats::writer::one_link_type::{FittingExporter, OneLinkType};
use query::{Follow, Found, Request, counted};

/// How often a follower polls for new packets.
const POLLS_PER_SECOND: u32 = 40;
/// The time after which all workers have published a packet: the kernel hands it over within 50 ms.
const SETTLED_AFTER: Duration = Duration::from_millis(100);
/// Packets after which the rights of a reader that is behind are checked.
const PACKETS_PER_BATCH: u32 = 4096;
/// Time between two log lines about a reader that is too slow.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of a body that are read at most.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How often a reader's rights are checked.
const RIGHTS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a connection stays excluded after its end, for its last packets.
const LEFT_OUT_AFTER: Duration = Duration::from_secs(3);

/// Answers with packets as they arrive. If the request has a body, the answer ends when the body does.
pub(crate) async fn packets(
    service: Arc<Service>,
    peer: Peer,
    query: PacketQuery,
    body: RequestBody,
) -> Result<Answer, Problem> {
    // A stream over a network must not be recorded: it would be sent again, and that again.
    let carried_by = query.carried_by.or(peer.connection());
    match carried_by {
        Some(_) if query.carried_by.is_some() && !peer.may_exclude_connections() => {
            return Err(Problem::not_allowed(
                "\"carried-by\" keeps a connection from being recorded: that is for root and the user that records; \
                 leave it out, and leave the connection out of what you ask for",
            ));
        }
        Some((ours, theirs)) => {
            tracing::info!(
                "{peer} has packets sent from {ours} to {theirs}; that connection is not recorded meanwhile"
            );
        }
        None => {}
    }
    let excluded = UnrecordedConnection::new(&service, carried_by)?;
    let shares = service.follower(&peer).await?;
    let media = AnswerKind::Capture(query.format);
    let audited = audited(&query);
    let follower = Follower {
        export: Export { service, query, scope: Scope::Matching },
        peer,
        for_strict_readers: false,
        sent: Arc::default(),
        is_ended: Arc::default(),
    };
    if !body.is_end_stream() {
        tokio::spawn(end_with(body, Arc::clone(&follower.is_ended)));
    }
    Ok(Answer { media, body: follower.stream(shares, excluded, audited).await? })
}

/// Waits for the end of a body, which has no content that matters. A body that breaks off, or that has content without
/// end, ends the answer too.
async fn end_with(mut body: RequestBody, is_ended: Arc<AtomicBool>) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        bytes += frame.data_ref().map_or(0, axum::body::Bytes::len);
        if bytes > BODY_BYTES_MAX {
            break;
        }
    }
    is_ended.store(true, Ordering::Relaxed);
}

/// Excludes a connection from the recording as long as it carries packets, and a little longer.
pub(crate) struct UnrecordedConnection {
    left_out: Option<Exclusion>,
    runtime: Handle,
}

impl UnrecordedConnection {
    /// Excludes the connection, our end first, if there is one. Call it within the runtime of the service.
    pub(crate) fn new(service: &Service, connection: Option<(SocketAddr, SocketAddr)>) -> Result<Self, Problem> {
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

/// The question, for the audit log.
pub(crate) fn audited(query: &PacketQuery) -> serde_json::Value {
    let mut audited = describe::audit(&query.request);
    audited["follow"] = true.into();
    if let Some((ours, theirs)) = query.carried_by {
        audited["carried_by"] = format!("{ours} {theirs}").into();
    }
    audited
}

/// What became of packets so far.
#[derive(Debug, Default)]
pub(crate) struct FollowCounts {
    /// Packets sent.
    pub(crate) packets: AtomicU64,
    /// Evicted before they could be sent.
    pub(crate) overtaken: AtomicU64,
    /// Of link types that the format cannot hold.
    pub(crate) left_out: AtomicU64,
    /// Longer than the reader takes.
    pub(crate) cut: AtomicU64,
    /// Whether the reader lost its role meanwhile.
    pub(crate) revoked: AtomicBool,
}

/// Whether more packets wait to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backlog {
    Waiting,
    Empty,
}

/// An answer that follows; it runs on a thread of its own.
pub(crate) struct Follower {
    pub(crate) export: Export,
    /// Who reads.
    pub(crate) peer: Peer,
    /// Whether the reader rejects packets that are longer than the format usually has.
    pub(crate) for_strict_readers: bool,
    pub(crate) sent: Arc<FollowCounts>,
    /// Set when the client wants no further packets.
    pub(crate) is_ended: Arc<AtomicBool>,
}

impl Follower {
    /// Streams what is followed; the connection that carries it is not recorded meanwhile.
    pub(crate) async fn stream(
        self,
        (follower, query): (Share, Share),
        excluded: UnrecordedConnection,
        audited: serde_json::Value,
    ) -> Result<Body, Problem> {
        let service = Arc::clone(&self.export.service);
        service.counters.packet_queries.fetch_add(1, Ordering::Relaxed);
        let answer = move |sink: Sink| {
            let outcome = self.run_audited(sink, audited);
            drop((follower, excluded));
            outcome
        };
        stream(&service, query, answer).await
    }

    /// Runs once the audit log has the read.
    pub(crate) fn run_audited(self, sink: Sink, audited: serde_json::Value) -> Result<(), ClientGone> {
        match self.export.service.audit().begin(&self.peer, Action::Packets, audited) {
            Ok(entry) => self.run(sink, entry),
            Err(problem) => sink.refuse(problem),
        }
    }

    fn run(self, mut sink: Sink, mut entry: AuditEntry) -> Result<(), ClientGone> {
        let service = Arc::clone(&self.export.service);
        let request = &self.export.query.request;
        let mut follow = match service.history().follow(request) {
            Ok(follow) => follow.interrupted_by(Arc::clone(&sink.gone)).interrupted_by(Arc::clone(&service.stopping)),
            Err(error) => {
                entry.end(&error.to_string());
                return sink.refuse(error);
            }
        };
        let newest = service.history().totals().newest;
        let mut missing = None;
        let mut writer = Writer::new(&self);
        writer.exporter.begin(sink.buffer(), &[format!("asked for: {}", describe::sentence(request))]);
        // The client need not wait for the first packet.
        sink.send()?;
        let mut progress = ReportedProgress::default();
        let mut settled_clock = SettledClock::new(now(), Instant::now());
        let mut rights_checked = Instant::now();
        loop {
            let over = request.until.is_some_and(|until| now() > until.saturating_add(2 * SETTLED_AFTER));
            let settled = settled_clock.update(now(), Instant::now());
            let outcome = self.send_batch(&mut follow, settled, &mut writer, &mut sink, &mut entry);
            progress.report(&self, &follow, &writer);
            if missing.is_none() && follow.is_live() {
                let past = self.missing(newest, &follow);
                writer.comment = Some(past.clone()).filter(|past| !past.is_empty());
                missing = Some(past);
            }
            // A stream of days must end when its client loses the role.
            if rights_checked.elapsed() >= RIGHTS_INTERVAL {
                rights_checked = Instant::now();
                if !service.may_still(&self.peer, Role::Packets) {
                    self.sent.revoked.store(true, Ordering::Relaxed);
                    break;
                }
            }
            let backlog = outcome?;
            if self.is_ended.load(Ordering::Relaxed) {
                break;
            }
            if backlog == Backlog::Waiting {
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
        let missing = match (missing, summary.packets) {
            // What came since the start could not be seen either, for whatever reason.
            (Some(_), 0) => self.missing(service.history().totals().newest, &follow),
            (missing, _) => missing.unwrap_or_default(),
        };
        let mut comments = self.export.comments(&note, &missing, &writer.exported, writer.exporter.cut());
        let outcome = Outcome {
            entry: &entry,
            peer: &self.peer,
            summary,
            span: writer.span,
            dropped_within: 0,
            cut: writer.exporter.cut(),
            note: &note,
            missing: &missing,
        };
        comments.extend(outcome.statement(&service, request, describe::sentence(request)));
        writer.exporter.end(sink.buffer(), &statistics(&service), &comments);
        sink.end(AnswerEnd::of_file(summary, &note, &missing))?;
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
    ) -> Result<Backlog, ClientGone> {
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

    /// What the past up to `newest`, the newest packet at the start, has of the request and could not be sent. Empty if
    /// nothing.
    fn missing(&self, newest: Option<Timestamp>, follow: &Follow<'_>) -> String {
        let (history, asked) = (self.export.service.history(), &self.export.query.request);
        let until = newest.map(|newest| asked.until.map_or(newest, |until| until.min(newest)));
        let past = Request { until, limit: None, ..asked.clone() };
        // A follower that begins now does not ask for the past.
        if past.since.zip(past.until).is_some_and(|(since, until)| since > until) {
            return String::new();
        }
        if follow.summary().packets == 0 {
            let cause = history.explain_nothing(&past, Some(follow.notes())).ok();
            // Before the first packet there was no past that could be missing.
            return cause
                .filter(|cause| cause.code != "nothing_recorded")
                .map_or(String::new(), |cause| cause.sentence);
        }
        history.explain_missing(&past, follow.notes()).ok().flatten().unwrap_or_default()
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
                "{and}{} into classic pcap of {link_type}: use --format pcapng",
                counted(left_out, "packet does not fit", "packets do not fit")
            ));
        }
        note
    }
}

/// The time up to which all packets are published, by a wall clock that may be set.
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

    /// Takes the time of both clocks; call it at each poll.
    ///
    /// Packets from just before the clock was set back have times in the future, possibly by hours. Until all workers have
    /// published them nothing waits, so that they may come out of order.
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

/// The file that is written, and the interfaces it has.
struct Writer {
    exporter: FittingExporter,
    exported: ExportedInterfaces,
    span: SentTimes,
    /// The comment for the next packet.
    comment: Option<String>,
}

impl Writer {
    fn new(live: &Follower) -> Self {
        let link_type = OneLinkType::choose(&live.export.service.history().link_types());
        let options = Options { link_type: Some(link_type), ..options(&live.export.query) };
        let exporter = FittingExporter::new(live.export.query.format, options);
        let exporter = if live.for_strict_readers { exporter.for_strict_readers() } else { exporter };
        Self { exporter, exported: ExportedInterfaces::default(), span: SentTimes::default(), comment: None }
    }

    /// Writes a packet before which `missed` were evicted too soon.
    fn packet(&mut self, out: &mut Vec<u8>, found: &Found<'_>, missed: u64) {
        let comment =
            (missed > 0).then(|| format!("{missed} packets before this one were evicted before they could be sent"));
        let comment = match (self.comment.take(), comment) {
            (Some(earlier), Some(missed)) => Some(format!("{earlier}; {missed}")),
            (earlier, missed) => earlier.or(missed),
        };
        if self.exporter.packet(out, found.interface, &found.packet, comment.as_deref()) {
            self.exported.note(found.interface.id);
            self.span.add(found.packet.time);
        }
    }
}

/// What the log and the counts have already.
#[derive(Debug, Default)]
struct ReportedProgress {
    packets: u64,
    overtaken: u64,
    warned_overtaken: u64,
    warned: Option<Instant>,
}

impl ReportedProgress {
    /// Adds what is new to the counts, and to the log when packets were lost.
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
