//! `GET /v1/streams`: what the two sides of sessions sent, in order, with the gaps.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::super::stream::{ClientGone, Sink, stream};
use super::super::{Answer, AnswerKind, packet_lines};
use super::new_streams;
use crate::audit::{Action, AuditEntry};
use crate::peer::Peer;
use crate::service::Service;
use api::page_answers::StreamPart;
use api::page_parameters::AmountQuery;
use api::{Problem, describe};
use query::explain::Cause;
use streams::{Event, Session};

/// Answers with the parts, or says why there are none.
pub(crate) async fn streams(service: Arc<Service>, peer: Peer, query: AmountQuery) -> Result<Answer, Problem> {
    tracing::debug!("{peer} reads streams: {}", describe::sentence(&query.request));
    let (content, share) = service.content_query(&peer).await?;
    let asked = Arc::clone(&service);
    let answer = move |sink: Sink| {
        let _content = content;
        match asked.audit().begin(&peer, Action::Packets, audited(&query)) {
            Ok(entry) => run(&asked, &query, sink, entry),
            Err(problem) => sink.refuse(problem),
        }
    };
    Ok(Answer { media: AnswerKind::Lines, body: stream(&service, share, answer).await? })
}

fn audited(query: &AmountQuery) -> serde_json::Value {
    let mut audited = describe::audit(&query.request);
    audited["stream_bytes"] = query.amount.into();
    audited
}

/// The parts that are sent, up to a number of bytes.
struct Parts {
    sink: Sink,
    left: u64,
    sent: u64,
    gone: bool,
}

impl Parts {
    fn take(&mut self, session: &Session, event: Event<'_>) {
        if self.gone || self.left == 0 {
            return;
        }
        let part = match event {
            Event::Run(run) => {
                // A message or packet that begins within the limit is sent whole.
                self.left = self.left.saturating_sub(run.data.len().max(1) as u64);
                StreamPart {
                    session: session.number,
                    direction: run.sender.name().into(),
                    offset: run.offset,
                    length: run.data.len() as u64,
                    time: Some(run.packet.time.to_rfc3339().into()),
                    data: Some(BASE64_STANDARD.encode(run.data)),
                    gap: None,
                    conflict: false,
                }
            }
            Event::Gap(gap) => StreamPart {
                session: session.number,
                direction: gap.sender.name().into(),
                offset: gap.offset,
                length: gap.len,
                time: None,
                data: None,
                gap: Some(gap.cause.name().into()),
                conflict: false,
            },
            Event::Conflict(conflict) => StreamPart {
                session: session.number,
                direction: conflict.sender.name().into(),
                offset: conflict.offset,
                length: conflict.len,
                time: Some(conflict.packet.time.to_rfc3339().into()),
                data: None,
                gap: None,
                conflict: true,
            },
            Event::Begin | Event::End => return,
        };
        self.sent += 1;
        self.gone = self.sink.line(&part).is_err();
    }
}

fn run(service: &Service, query: &AmountQuery, sink: Sink, mut entry: AuditEntry) -> Result<(), ClientGone> {
    let history = service.history();
    let mut packets = match history.packets(&query.request) {
        Ok(packets) => packets.interrupted_by(Arc::clone(&sink.gone)).interrupted_by(Arc::clone(&service.stopping)),
        Err(error) => {
            let problem: Problem = error.into();
            entry.end(problem.outcome());
            return sink.refuse(problem);
        }
    };
    let mut parts = Parts { sink, left: query.amount, sent: 0, gone: false };
    let (mut table, mut sequence) = (new_streams(), 0);
    while let Some(found) = packets.next() {
        sequence += 1;
        entry.packet(found.packet.data.len());
        table.packet(&found.packet, sequence, &mut |session: &Session, event: Event<'_>| parts.take(session, event));
        if parts.gone || parts.left == 0 {
            break;
        }
    }
    let summary = packets.summary();
    drop(packets);
    table.finish(&mut |session: &Session, event: Event<'_>| parts.take(session, event));
    if parts.gone {
        return Err(ClientGone);
    }
    if parts.sent == 0 {
        let problem = match (summary.packets, history.explain_nothing(&query.request, None)) {
            (0, Ok(cause)) => Problem::nothing_matched(&cause),
            (0, Err(error)) => error.into(),
            (packets, _) => {
                let sentence = format!("the {packets} packets that match carry no data above their headers");
                Problem::nothing_matched(&Cause::new("never_seen", sentence))
            }
        };
        entry.end(problem.outcome());
        return parts.sink.refuse(problem);
    }
    let more = if parts.left == 0 { "there may be more: the limit of bytes was reached" } else { "" };
    packet_lines::end(service, parts.sink, entry, summary, more)
}
