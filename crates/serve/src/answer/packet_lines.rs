//! `GET /v1/lines`: packets as lines of text, with their first bytes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::tz::TimeZone;

use super::super::audit::{Action, AuditEntry};
use super::super::peer::Peer;
use super::super::service::Service;
use super::stream::{AnswerEnd, ClientGone, Sink, stream};
use super::{Answer, AnswerKind};
use api::page_answers::PacketLine;
use api::page_parameters::AmountQuery;
use api::{Problem, describe};
use decode::text::{Line, Precision, Stamp, TextWriter};
use query::{Found, Summary};

/// Bytes of a packet that are sent.
const DATA_BYTES_MAX: usize = 4096;

/// Answers with the packets that match, or says why there are none.
pub(crate) async fn lines(service: Arc<Service>, peer: Peer, query: AmountQuery) -> Result<Answer, Problem> {
    tracing::debug!("{peer} reads packets as lines: {}", describe::sentence(&query.request));
    service.counters.packet_queries.fetch_add(1, Ordering::Relaxed);
    let share = service.packet_query(&peer).await?;
    let asked = Arc::clone(&service);
    let answer = move |sink: Sink| match asked.audit().begin(&peer, Action::Packets, describe::audit(&query.request)) {
        Ok(entry) => run(&asked, &query, sink, entry),
        Err(problem) => sink.refuse(problem),
    };
    Ok(Answer { media: AnswerKind::Lines, body: stream(&service, share, answer).await? })
}

fn run(service: &Service, query: &AmountQuery, mut sink: Sink, mut entry: AuditEntry) -> Result<(), ClientGone> {
    let history = service.history();
    let mut packets = match history.packets(&query.request) {
        Ok(packets) => packets.interrupted_by(Arc::clone(&sink.gone)).interrupted_by(Arc::clone(&service.stopping)),
        Err(error) => {
            let problem: Problem = error.into();
            entry.end(problem.outcome());
            return sink.refuse(problem);
        }
    };
    let mut writer = TextWriter::new(TimeZone::UTC, Precision::Nano).beginning_with(Stamp::None);
    while let Some(found) = packets.next() {
        entry.packet(found.packet.data.len());
        sink.line(&line(&found, &mut writer))?;
        sink.send_full_or_first()?;
    }
    let summary = packets.summary();
    drop(packets);
    if summary.packets == 0 {
        let problem = match history.explain_nothing(&query.request, None) {
            Ok(cause) => Problem::nothing_matched(&cause),
            Err(error) => error.into(),
        };
        entry.end(problem.outcome());
        return sink.refuse(problem);
    }
    service.counters.packets_sent.fetch_add(summary.packets, Ordering::Relaxed);
    end(service, sink, entry, summary, "")
}

fn line(found: &Found<'_>, writer: &mut TextWriter) -> PacketLine {
    let packet = &found.packet;
    let decoded = decode::decode(packet.link_type, packet.data);
    let mut text = String::new();
    let line = Line {
        time: packet.time,
        link_type: packet.link_type,
        data: packet.data,
        original_len: packet.original_len,
        decoded: &decoded,
    };
    writer.write(&mut text, &line);
    PacketLine {
        time: packet.time.to_rfc3339().into(),
        text: text.trim_end().into(),
        interface: found.interface.name.as_str().into(),
        link_type: packet.link_type.0,
        length: packet.original_len.into(),
        captured: packet.data.len() as u64,
        data: BASE64_STANDARD.encode(&packet.data[..packet.data.len().min(DATA_BYTES_MAX)]),
    }
}

/// Ends an answer about packets; `more` says what was left out.
pub(super) fn end(
    service: &Service,
    sink: Sink,
    entry: AuditEntry,
    summary: Summary,
    more: &str,
) -> Result<(), ClientGone> {
    let note = match (summary.interrupted && service.is_stopping(), summary.limited) {
        (true, _) => "incomplete: the recorder was stopped while this was sent",
        (false, true) if more.is_empty() => "there may be more packets: the limit was reached",
        _ => more,
    };
    let ending = AnswerEnd {
        counts: vec![("packets", summary.packets), ("overtaken", summary.overtaken)],
        note: note.to_owned(),
        ..AnswerEnd::default()
    };
    sink.end(ending)?;
    entry.end(if note.is_empty() { "complete" } else { note });
    Ok(())
}
