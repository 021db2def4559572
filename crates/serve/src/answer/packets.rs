//! Past packets, as a file that is made while it is sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::audit::{Action, AuditEntry};
use super::super::clock::now;
use super::super::peer::Peer;
use super::super::quota::Share;
use super::super::record::PacketsToProve;
use super::super::service::Service;
use super::super::spool_health::{is_on_disk, with_disk};
use super::content::apps::AppQuestion;
use super::narrow::{CandidateSearch, Looked};
use super::on_disk::{disk_problem, not_opened_on_disk, nothing_on_disk};
use super::selection_query::SelectionQuery;
use super::statement::{Outcome, SentTimes};
use super::stream::{AnswerEnd, ClientGone, Sink, stream};
use super::{Answer, AnswerKind};
use api::parameters::PacketQuery;
use api::{Problem, describe};
use base::packet::{InterfaceId, LinkType};
use base::time::Timestamp;
use formats::writer::{CAPTURED_BYTES_MAX, ExportError, Exporter, Format, InterfaceStatistics, Options};
use query::attribution::PacketProcesses;
use query::search::{Search, SearchLimits, SessionTotals};
use query::{Packets, Request, SearchNotes, Summary, Tier, counted};
use spool::index::ClosedPackets;
use spool::read::ReadSummary;

/// Answers with the packets that match, or says why there are none.
pub(crate) async fn packets(service: Arc<Service>, peer: Peer, query: PacketQuery) -> Result<Answer, Problem> {
    tracing::debug!("{peer} reads packets: {}", describe::sentence(&query.request));
    service.counters.packet_queries.fetch_add(1, Ordering::Relaxed);
    if let Some(filter) = query.app.clone() {
        let (content, share) = service.content_query(&peer).await?;
        let widening = match query.whole_sessions {
            true => Some(service.widening(&peer).await?),
            false => None,
        };
        let (widening, limits) = widening.unzip();
        let places = widening.into_iter().chain([content]).collect();
        let question = AppQuestion { filter, whole_sessions: limits, ids: None, _places: places };
        return export(service, peer, share, query, Scope::App(question)).await;
    }
    if query.whole_sessions {
        let (share, limits) = service.widening(&peer).await?;
        return export(service, peer, share, query, Scope::WholeSessions(limits)).await;
    }
    let share = service.packet_query(&peer).await?;
    export(service, peer, share, query, Scope::Matching).await
}

/// Which packets are sent.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Those that match.
    Matching,
    /// All packets of the sessions of those that match.
    WholeSessions(SearchLimits),
    /// Those that carry an application.
    App(AppQuestion),
    /// The packets of selections.
    Selections(SelectionQuery),
    /// The packets of sessions in which something may be found.
    Candidates(CandidateSearch),
}

/// Answers with a file.
pub(crate) async fn export(
    service: Arc<Service>,
    peer: Peer,
    share: Share,
    query: PacketQuery,
    scope: Scope,
) -> Result<Answer, Problem> {
    let media = match &scope {
        Scope::Candidates(_) => AnswerKind::Candidates,
        _ => AnswerKind::Capture(query.format),
    };
    let audited = match &scope {
        Scope::Matching => describe::audit(&query.request),
        Scope::WholeSessions(_) => {
            let mut audited = describe::audit(&query.request);
            audited["whole_sessions"] = true.into();
            audited
        }
        Scope::App(question) => {
            let mut audited = describe::audit(&query.request);
            audited["app"] = question.filter.to_string().into();
            audited["whole_sessions"] = query.whole_sessions.into();
            audited
        }
        Scope::Selections(selections) => selections.audited(&query.request),
        Scope::Candidates(search) => search.audited(&query.request),
    };
    let export = Export { service: Arc::clone(&service), query, scope };
    let answer = move |sink: Sink| match export.service.audit().begin(&peer, Action::Packets, audited) {
        Ok(entry) => export.run(sink, entry, &peer),
        Err(problem) => sink.refuse(problem),
    };
    Ok(Answer { media, body: stream(&service, share, answer).await? })
}

/// The packets of an answer.
struct Selected<'h> {
    packets: Packets<'h>,
    /// What was looked at to leave out others.
    looked: Option<Looked>,
    /// Why some that were asked for are not among them; empty if all are.
    lacks: String,
}

/// One export; it runs on a thread of its own.
pub(crate) struct Export {
    pub(crate) service: Arc<Service>,
    pub(crate) query: PacketQuery,
    pub(crate) scope: Scope,
}

impl Export {
    fn run(self, mut sink: Sink, mut entry: AuditEntry, peer: &Peer) -> Result<(), ClientGone> {
        if let Err(problem) = self.check_link_types(&sink) {
            entry.end(problem.outcome());
            return sink.refuse(problem);
        }
        let Selected { mut packets, looked, lacks } = match self.packets(&sink) {
            Ok(selected) => selected,
            Err(problem) => {
                entry.end(problem.outcome());
                return sink.refuse(problem);
            }
        };
        let mut exporter = Exporter::new(self.query.format, options(&self.query));
        let mut exported = ExportedInterfaces::default();
        let (mut left_out, mut span) = (None, SentTimes::default());
        sink.seal(self.query.seal);
        let mut wanted = self.query.seal.then(PacketsToProve::default);
        let has_comments = self.query.format == Format::Pcapng;
        let table = self.service.processes.as_deref().filter(|_| has_comments);
        let mut processes = table.map(PacketProcesses::new);
        while let Some(found) = packets.next() {
            let buffer = sink.buffer();
            if exported.0.is_empty() {
                exporter.begin(buffer, &[format!("asked for: {}", self.asked())]);
            }
            exported.note(found.interface.id);
            span.add(found.packet.time);
            if let Some(wanted) = &mut wanted {
                wanted.add(&found.packet);
            }
            let written = match processes.as_mut().and_then(|processes| processes.comment(&found.packet)) {
                Some(comment) => exporter.packet_with_comment(buffer, found.interface, &found.packet, &comment),
                None => exporter.packet(buffer, found.interface, &found.packet),
            };
            if let Err(error) = written {
                left_out = Some(error);
                break;
            }
            entry.packet(found.packet.data.len());
            sink.send_full_or_first()?;
        }
        let summary = packets.summary();
        self.service.counters.packets_sent.fetch_add(summary.packets, Ordering::Relaxed);
        self.service.counters.packets_overtaken.fetch_add(summary.overtaken, Ordering::Relaxed);
        let (on_disk, closed) = (packets.disk_summary(), packets.disk_closed());
        let drops = packets.notes().clone();
        let known = packets.search().map(|search| search.known.clone()).unwrap_or_default();
        let search = packets.into_search();
        if exported.0.is_empty() && looked.is_some() {
            exporter.begin(sink.buffer(), &[format!("asked for: {}", self.asked())]);
        } else if exported.0.is_empty() {
            return self.nothing(sink, entry, summary, &known, &drops, (on_disk, &closed));
        }
        // Packets that were found need not wait for the explanation of what is missing.
        sink.send()?;
        let note = joined(self.note(summary, left_out, &known), Some(lacks).filter(|lacks| !lacks.is_empty()));
        let note = joined(note, disk_problem(self.service.history(), &self.query.request, on_disk));
        let missing = self.missing(summary, &known, &drops, search.as_ref());
        let missing = joined(missing, not_opened_on_disk(&closed).filter(|_| !summary.limited));
        let mut comments = self.comments(&note, &missing, &exported, exporter.cut());
        if processes.is_some_and(|processes| processes.has_left_out()) {
            let most = PacketProcesses::SESSIONS_MAX;
            comments.push(format!("processes are named at the packets of the first {most} sessions only"));
        }
        let dropped_within = drops.dropped_within(Timestamp::MIN, Timestamp::MAX);
        let (note, missing, cut) = (note.as_str(), missing.as_str(), exporter.cut());
        let outcome = Outcome { entry: &entry, peer, summary, span, dropped_within, cut, note, missing };
        comments.extend(wanted.iter().flat_map(|wanted| self.service.prove(wanted)));
        comments.extend(outcome.statement(&self.service, &self.query.request, self.asked()));
        exporter.end(sink.buffer(), &statistics(&self.service), &comments);
        let mut ending = AnswerEnd::of_file(summary, note, missing);
        ending.counts.extend(looked.iter().flat_map(Looked::counts));
        let audit_id = entry.fact("id").and_then(|id| id.as_str());
        sink.end_sealed(ending, summary.packets, audit_id)?;
        entry.end(if note.is_empty() { "complete" } else { note });
        Ok(())
    }

    fn packets(&self, sink: &Sink) -> Result<Selected<'_>, Problem> {
        let (history, request) = (self.service.history(), &self.query.request);
        let packets = match &self.scope {
            Scope::Matching => history.packets(request)?,
            Scope::WholeSessions(limits) => {
                let search = history.widen(request, *limits, |packets| self.interruptible(sink, packets))?;
                let Request { limit, dedup, tier, .. } = *request;
                history.searched(&Request { limit, dedup, tier, ..Request::default() }, search)?
            }
            Scope::Selections(selections) => {
                let stop = || sink.gone.load(Ordering::Relaxed) || self.service.is_stopping();
                history.searched(request, selections.search(&self.service, &stop))?
            }
            Scope::App(question) => {
                let (packets, lacks) = question.chosen(&self.service, sink, request)?;
                return Ok(Selected { packets, looked: None, lacks });
            }
            Scope::Candidates(search) => {
                let mut packets = self.interruptible(sink, history.packets(request)?);
                let looked = search.narrow(history, &mut packets);
                return Ok(Selected { packets, looked, lacks: String::new() });
            }
        };
        Ok(Selected { packets: self.interruptible(sink, packets), looked: None, lacks: String::new() })
    }

    fn interruptible<'p>(&self, sink: &Sink, packets: Packets<'p>) -> Packets<'p> {
        packets.interrupted_by(Arc::clone(&sink.gone)).interrupted_by(Arc::clone(&self.service.stopping))
    }

    fn asked(&self) -> String {
        match &self.scope {
            Scope::Matching | Scope::Candidates(_) => describe::sentence(&self.query.request),
            Scope::WholeSessions(_) => format!("the whole sessions of {}", describe::sentence(&self.query.request)),
            Scope::App(question) => question.sentence(&self.query.request),
            Scope::Selections(selections) => format!("{} selections", selections.selectors.len()),
        }
    }

    /// Classic pcap has one link type. Where several were recorded, all matches are checked before anything is sent, so that
    /// a client gets a whole file or a problem.
    fn check_link_types(&self, sink: &Sink) -> Result<(), Problem> {
        if self.query.format != Format::Pcap
            || self.service.history().link_types().len() < 2 && self.service.history().disk.is_none()
        {
            return Ok(());
        }
        let mut packets = self.packets(sink)?.packets;
        let mut first: Option<LinkType> = None;
        while let Some(found) = packets.next() {
            let other = found.interface.link_type;
            match first {
                Some(first) if first != other => return Err(ExportError::SeveralLinkTypes { first, other }.into()),
                _ => first = Some(other),
            }
        }
        Ok(())
    }

    /// No packet was found.
    fn nothing(
        &self,
        sink: Sink,
        entry: AuditEntry,
        summary: Summary,
        known: &[SessionTotals],
        drops: &SearchNotes,
        on_disk: (ReadSummary, &ClosedPackets),
    ) -> Result<(), ClientGone> {
        let (history, request) = (self.service.history(), &self.query.request);
        let cause = match &self.scope {
            Scope::Selections(selections) => Ok(selections.explain_nothing(&self.service, known, drops)),
            _ => history.explain_nothing(request, Some(drops)),
        };
        let problem = match cause {
            _ if summary.interrupted => Problem::stopping(),
            Ok(cause) => Problem::nothing_matched(&nothing_on_disk(history, request, cause, on_disk)),
            Err(error) => error.into(),
        };
        entry.end(problem.outcome());
        sink.refuse(problem)
    }

    /// Why the export is not all that was asked for; empty when it is.
    pub(crate) fn note(&self, summary: Summary, left_out: Option<ExportError>, known: &[SessionTotals]) -> String {
        let mut notes = Vec::new();
        let sessions: u64 = known.iter().map(|known| known.left_out).sum();
        if sessions > 0 {
            notes.push(format!(
                "incomplete: {} left out, because more match than fit into the memory for queries; narrow it down with \
                 since, until or an expression",
                counted(sessions, "session was", "sessions were")
            ));
        }
        if summary.interrupted && self.service.is_stopping() {
            notes.push("incomplete: the recorder was stopped while it sent this answer".to_owned());
        }
        if let Some(error) = left_out {
            notes.push(format!("incomplete: {error}"));
        }
        if summary.overtaken > 0 {
            notes.push(format!(
                "{} evicted before {} could be sent",
                counted(summary.overtaken, "packet of the window was", "packets of the window were"),
                if summary.overtaken == 1 { "it" } else { "they" }
            ));
        }
        if summary.copies > 0 {
            let copies = counted(summary.copies, "packet was captured", "packets were captured");
            notes.push(if self.query.request.dedup {
                format!("{copies} twice, and the copies were left out")
            } else {
                format!("{copies} twice (a bridge and its port, or two mirrored ports): --dedup leaves the copies out")
            });
        }
        if summary.unsorted > 0 {
            notes.push(format!("{} out of order", counted(summary.unsorted, "packet is", "packets are")));
        }
        notes.join("; ")
    }

    /// What matches and is gone, as far as that is known; empty if nothing is.
    fn missing(
        &self,
        summary: Summary,
        known: &[SessionTotals],
        drops: &SearchNotes,
        search: Option<&Search>,
    ) -> String {
        // A limited number of packets was asked for and found.
        if summary.limited {
            return String::new();
        }
        let missing = match &self.scope {
            Scope::Matching | Scope::App(_) | Scope::Candidates(_) => {
                let (history, request) = (self.service.history(), &self.query.request);
                let missing = history.explain_missing(request, drops).ok().flatten();
                missing.map(|missing| with_disk(history, request, missing))
            }
            Scope::WholeSessions(_) => search.and_then(|search| {
                let (history, request) = (self.service.history(), &self.query.request);
                let missing = history.explain_missing_whole(request, search).ok().flatten();
                missing.map(|missing| with_disk(history, request, missing))
            }),
            Scope::Selections(selections) => {
                selections.explain_missing(known, is_on_disk(self.service.history(), &self.query.request))
            }
        };
        let mut missing = missing.unwrap_or_default();
        // The client sees the packets of candidates alone.
        if matches!(self.scope, Scope::Candidates(_))
            && !missing.contains("not opened")
            && let Ok(Some(sentence)) =
                self.service.history().unopened(&self.query.request).map(|packets| packets.sentence())
        {
            let separator = if missing.is_empty() { "" } else { "; " };
            missing.push_str(&format!("{separator}{sentence}"));
        }
        missing
    }

    /// The comments at the end of a pcapng file.
    pub(crate) fn comments(&self, note: &str, missing: &str, exported: &ExportedInterfaces, cut: u64) -> Vec<String> {
        let mut comments = Vec::new();
        comments.extend([note, missing].into_iter().filter(|text| !text.is_empty()).map(str::to_owned));
        if cut > 0 {
            let packets = counted(cut, "packet was", "packets were");
            comments.push(format!("{packets} longer than {CAPTURED_BYTES_MAX} bytes and cut there"));
        }
        let history = self.service.history();
        let in_memory_alone = history.disk.is_none() || self.query.request.tier == Some(Tier::Memory);
        if let Some(whole) =
            history.whole_since().filter(|&whole| in_memory_alone && self.query.request.since.is_none_or(|s| s < whole))
        {
            let evicted = history.totals().evicted.packets;
            if evicted > 0 {
                comments.push(format!(
                    "before {whole} only the starts of sessions are kept: {} been evicted",
                    counted(evicted, "packet has", "packets have")
                ));
            }
        }
        comments.extend(history.describe_interface_gaps(&self.query.request));
        let dropped = history.totals().kernel_dropped;
        if dropped > 0 && exported.0.len() > 1 {
            comments.push(format!(
                "the kernel dropped {} of all interfaces together",
                counted(dropped, "packet", "packets")
            ));
        }
        comments
    }
}

/// Two sentences, of which each can be missing.
fn joined(one: String, other: Option<String>) -> String {
    match other {
        Some(other) if one.is_empty() => other,
        Some(other) => format!("{one}; {other}"),
        None => one,
    }
}

/// The options of the file that a query asks for.
pub(crate) fn options(query: &PacketQuery) -> Options {
    let expression = query.request.expression.trim();
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    Options {
        precision: query.precision,
        hardware: Some(text(system.machine())),
        os: Some(format!("{} {}", text(system.sysname()), text(system.release()))),
        filter: (!expression.is_empty()).then(|| expression.to_owned()),
        ..Options::default()
    }
}

/// The statistics of interfaces at the end of every file.
pub(crate) fn statistics(service: &Service) -> Vec<InterfaceStatistics> {
    let history = service.history();
    let recorder = service.recorder();
    let os_dropped = history.totals().kernel_dropped;
    let all = history.interfaces.snapshot();
    all.iter()
        .map(|interface| {
            let volume = |id| history.workers.iter().map(|worker| worker.published.interface(id).packets).sum();
            InterfaceStatistics {
                // A replayed capture was not recorded at the time of this clock.
                start: recorder.live.then_some(recorder.start),
                end: recorder.live.then(now),
                received: Some(volume(interface.id)),
                os_dropped: Some(os_dropped),
                ..InterfaceStatistics::of(interface.id)
            }
        })
        .collect()
}

/// The interfaces that an export has packets of.
#[derive(Debug, Default)]
pub(crate) struct ExportedInterfaces(Vec<InterfaceId>);

impl ExportedInterfaces {
    pub(crate) fn note(&mut self, id: InterfaceId) {
        // Most packets come from the same interface as the one before.
        if self.0.last() != Some(&id) {
            match self.0.iter().position(|&known| known == id) {
                Some(at) => {
                    let last = self.0.len() - 1;
                    self.0.swap(at, last);
                }
                None => self.0.push(id),
            }
        }
    }
}
