//! `/v1/packets`: packets out of the past, as a file that is made while it is sent.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, TRAILER};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::connections::Peer;
use super::parameters::PacketQuery;
use super::problem::Problem;
use super::stream::{Closed, Sink, stream};
use super::{Service, follow, now};
use crate::export::{CAPTURED_BYTES_MAX, ExportError, Exporter, Format, InterfaceStatistics, Options};
use crate::packet::{InterfaceId, LinkType};
use crate::query::{Packets, Request, Summary};

const TRAILERS: &str = "retrocap-packets, retrocap-bytes, retrocap-overtaken, retrocap-note";

/// Answers with the packets that match, or says why there are none.
pub(super) async fn packets(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = PacketQuery::read(query.as_deref().unwrap_or_default(), service.clock())?;
    tracing::debug!("{peer} reads packets: {}", description(&query.request));
    if query.follow {
        return follow::packets(service, peer, query).await;
    }
    let place = service.packet_query().await?;
    service.activity.packet_queries.fetch_add(1, Ordering::Relaxed);
    let format = query.format;
    let export = Export { service: Arc::clone(&service), query };
    let body = stream(&service, place, move |sink| export.run(sink)).await?;
    Ok((headers(format), axum::body::Body::new(body)).into_response())
}

/// What the head of an answer says.
pub(super) fn headers(format: Format) -> [(HeaderName, HeaderValue); 2] {
    let content = match format {
        Format::Pcapng => "application/x-pcapng",
        Format::Pcap => "application/vnd.tcpdump.pcap",
    };
    [(CONTENT_TYPE, HeaderValue::from_static(content)), (TRAILER, HeaderValue::from_static(TRAILERS))]
}

/// One export; it runs on a thread of its own.
pub(super) struct Export {
    pub(super) service: Arc<Service>,
    pub(super) query: PacketQuery,
}

impl Export {
    fn run(self, mut sink: Sink) -> Result<(), Closed> {
        if let Err(problem) = self.check_link_types(&sink) {
            return sink.refuse(problem);
        }
        let mut packets = match self.packets(&sink) {
            Ok(packets) => packets,
            Err(problem) => return sink.refuse(problem),
        };
        let mut exporter = Exporter::new(self.query.format, self.options());
        let mut exported = Interfaces::default();
        let mut left_out = None;
        while let Some(found) = packets.next() {
            let buffer = sink.buffer();
            if exported.0.is_empty() {
                exporter.begin(buffer, &[format!("asked for: {}", description(&self.query.request))]);
            }
            exported.note(found.interface.id);
            if let Err(error) = exporter.packet(buffer, found.interface, &found.packet) {
                left_out = Some(error);
                break;
            }
            sink.send_full()?;
        }
        let summary = packets.summary();
        self.service.activity.packets_sent.fetch_add(summary.packets, Ordering::Relaxed);
        self.service.activity.packets_overtaken.fetch_add(summary.overtaken, Ordering::Relaxed);
        if exported.0.is_empty() {
            return self.nothing(sink, summary);
        }
        let note = self.note(summary, left_out);
        let comments = self.comments(&note, &exported, exporter.cut());
        exporter.end(sink.buffer(), &self.statistics(), &comments);
        sink.end(trailers(summary, &note))
    }

    fn packets(&self, sink: &Sink) -> Result<Packets<'_>, Problem> {
        let packets = self.service.history().packets(&self.query.request)?;
        Ok(packets.interrupted_by(Arc::clone(&sink.gone)).interrupted_by(Arc::clone(&self.service.stopping)))
    }

    /// Classic pcap has one link type. Where several were recorded, the matches are looked through before anything is
    /// sent, so that a client gets a whole file or a sentence.
    fn check_link_types(&self, sink: &Sink) -> Result<(), Problem> {
        if self.query.format != Format::Pcap || self.service.history().link_types().len() < 2 {
            return Ok(());
        }
        let mut packets = self.packets(sink)?;
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

    pub(super) fn options(&self) -> Options {
        let expression = self.query.request.expression.trim();
        let system = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        Options {
            precision: self.query.precision,
            hardware: Some(text(system.machine())),
            os: Some(format!("{} {}", text(system.sysname()), text(system.release()))),
            filter: (!expression.is_empty()).then(|| expression.to_owned()),
            link_type: None,
        }
    }

    /// No packet was found.
    fn nothing(&self, sink: Sink, summary: Summary) -> Result<(), Closed> {
        if summary.interrupted {
            return sink.refuse(Problem::stopping());
        }
        match self.service.history().explain_nothing(&self.query.request) {
            Ok(cause) => sink.refuse(Problem::nothing_matched(&cause)),
            Err(error) => sink.refuse(error),
        }
    }

    /// Why the export is not all that was asked for; empty when it is.
    pub(super) fn note(&self, summary: Summary, left_out: Option<ExportError>) -> String {
        let mut notes = Vec::new();
        if summary.interrupted && self.service.is_stopping() {
            notes.push("incomplete: the recorder was stopped while this was sent".to_owned());
        }
        if let Some(error) = left_out {
            notes.push(format!("incomplete: {error}"));
        }
        if summary.overtaken > 0 {
            notes.push(format!("{} packets of the window were evicted before they could be sent", summary.overtaken));
        }
        if summary.unsorted > 0 {
            notes.push(format!("{} packets stand behind later ones", summary.unsorted));
        }
        notes.join("; ")
    }

    /// What the end of a pcapng file says.
    pub(super) fn comments(&self, note: &str, exported: &Interfaces, cut: u64) -> Vec<String> {
        let mut comments = Vec::new();
        if !note.is_empty() {
            comments.push(note.to_owned());
        }
        if cut > 0 {
            comments.push(format!("{cut} packets were longer than {CAPTURED_BYTES_MAX} bytes and are cut there"));
        }
        let history = self.service.history();
        if let Some(whole) = history.whole_since().filter(|&whole| self.query.request.since.is_none_or(|s| s < whole)) {
            let evicted = history.totals().evicted.packets;
            if evicted > 0 {
                comments.push(format!(
                    "before {whole} only the starts of sessions are kept: {evicted} packets have been evicted"
                ));
            }
        }
        let dropped = history.totals().kernel_dropped;
        if dropped > 0 && exported.0.len() > 1 {
            comments.push(format!("the kernel dropped {dropped} packets of all interfaces together"));
        }
        comments
    }

    pub(super) fn statistics(&self) -> Vec<InterfaceStatistics> {
        let history = self.service.history();
        let recorder = self.service.recorder();
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
}

/// The interfaces that an export has packets of.
#[derive(Debug, Default)]
pub(super) struct Interfaces(Vec<InterfaceId>);

impl Interfaces {
    pub(super) fn note(&mut self, id: InterfaceId) {
        // Most packets are of the interface of the one before.
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

pub(super) fn trailers(summary: Summary, note: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let numbers = [
        ("retrocap-packets", summary.packets),
        ("retrocap-bytes", summary.bytes),
        ("retrocap-overtaken", summary.overtaken),
    ];
    for (name, number) in numbers {
        trailers.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
    if let Ok(value) = HeaderValue::from_str(note)
        && !note.is_empty()
    {
        trailers.insert(HeaderName::from_static("retrocap-note"), value);
    }
    trailers
}

/// A request as the file's comment and the log say it.
pub(super) fn description(request: &Request) -> String {
    let mut text = match request.expression.trim() {
        "" => "everything".to_owned(),
        expression => format!("{expression:?}"),
    };
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {name} {value}");
        }
    };
    add("since", request.since.map(|time| time.to_rfc3339()));
    add("until", request.until.map(|time| time.to_rfc3339()));
    add("interface", request.interface.as_ref().map(|name| format!("{name:?}")));
    add("Community ID", request.community_id.map(|id| id.to_string()));
    add("flow", request.flow.as_ref().map(|flow| flow.to_string()));
    add("at most", request.limit.map(|limit| limit.to_string()));
    text
}
