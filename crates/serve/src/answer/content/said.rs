//! `GET /v1/streams` and `GET /v1/messages`: what the two sides of sessions sent, as bytes in order with the gaps, and as
//! messages of application protocols.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::super::stream::{ClientGone, Sink, stream};
use super::super::{Answer, AnswerKind, packet_lines};
use super::{WAITING_BYTES, new_streams};
use crate::audit::{Action, AuditEntry};
use crate::peer::Peer;
use crate::service::Service;
use api::page_answers::{MessageValue, SessionMessage, StreamPart};
use api::page_parameters::AmountQuery;
use api::{Problem, describe};
use base::foreign::Foreign;
use protocols::{ProtocolSink, Protocols, Value};
use query::explain::Cause;
use streams::{Event, Session};

/// Answers with the parts, or says why there are none.
pub(crate) async fn streams(service: Arc<Service>, peer: Peer, query: AmountQuery) -> Result<Answer, Problem> {
    answer(service, peer, query, "stream_bytes", Parts).await
}

/// Answers with the messages, or says why there are none.
pub(crate) async fn messages(service: Arc<Service>, peer: Peer, query: AmountQuery) -> Result<Answer, Problem> {
    let lines = |said| Protocols::new(Messages(said)).with_waiting_bytes_max(WAITING_BYTES);
    answer(service, peer, query, "messages", lines).await
}

async fn answer<S: Said>(
    service: Arc<Service>,
    peer: Peer,
    query: AmountQuery,
    key: &str,
    new: impl FnOnce(SaidLines) -> S + Send + 'static,
) -> Result<Answer, Problem> {
    tracing::debug!("{peer} reads what sessions said: {}", describe::sentence(&query.request));
    let (content, share) = service.content_query(&peer).await?;
    let asked = Arc::clone(&service);
    let mut audited = describe::audit(&query.request);
    audited[key] = query.amount.into();
    let answer = move |sink: Sink| {
        let _content = content;
        match asked.audit().begin(&peer, Action::Packets, audited) {
            Ok(entry) => {
                let named = HashSet::new();
                run(&asked, &query, new(SaidLines { sink, left: query.amount, sent: 0, gone: false, named }), entry)
            }
            Err(problem) => sink.refuse(problem),
        }
    };
    Ok(Answer { media: AnswerKind::Lines, body: stream(&service, share, answer).await? })
}

/// Lines that are sent, up to an amount.
struct SaidLines {
    sink: Sink,
    left: u64,
    sent: u64,
    gone: bool,
    /// Sessions whose endpoints were sent.
    named: HashSet<u64>,
}

impl SaidLines {
    fn is_done(&self) -> bool {
        self.gone || self.left == 0
    }

    fn send(&mut self, line: &impl serde::Serialize) {
        self.sent += 1;
        self.gone = self.sink.line(line).is_err();
    }

    /// The endpoints of a session, with its first line.
    fn endpoints(&mut self, session: &Session) -> (Option<Foreign>, Option<Foreign>) {
        if !self.named.insert(session.number) {
            return (None, None);
        }
        (Some(session.originator().to_string().into()), Some(session.responder().to_string().into()))
    }
}

/// What takes the streams of sessions and sends lines.
trait Said: streams::Sink {
    /// What the packets that match do not do, if there is no line.
    const NOTHING: &'static str;

    fn lines(&mut self) -> &mut SaidLines;
    fn into_lines(self) -> SaidLines;
}

/// Sends bytes and gaps; the amount is of bytes.
struct Parts(SaidLines);

impl Said for Parts {
    const NOTHING: &'static str = "carry no data above their headers";

    fn lines(&mut self) -> &mut SaidLines {
        &mut self.0
    }

    fn into_lines(self) -> SaidLines {
        self.0
    }
}

impl streams::Sink for Parts {
    fn event(&mut self, session: &Session, event: Event<'_>) {
        let lines = &mut self.0;
        if lines.is_done() || matches!(event, Event::Begin | Event::End) {
            return;
        }
        let (originator, responder) = lines.endpoints(session);
        let part = StreamPart {
            session: session.number,
            originator,
            responder,
            direction: Foreign::default(),
            offset: 0,
            length: 0,
            time: None,
            data: None,
            gap: None,
            conflict: false,
        };
        let part = match event {
            Event::Run(run) => {
                // A message or packet that begins within the limit is sent whole.
                lines.left = lines.left.saturating_sub(run.data.len().max(1) as u64);
                StreamPart {
                    direction: run.sender.name().into(),
                    offset: run.offset,
                    length: run.data.len() as u64,
                    time: Some(run.packet.time.to_rfc3339().into()),
                    data: Some(BASE64_STANDARD.encode(run.data)),
                    ..part
                }
            }
            Event::Gap(gap) => StreamPart {
                direction: gap.sender.name().into(),
                offset: gap.offset,
                length: gap.len,
                gap: Some(gap.cause.name().into()),
                ..part
            },
            Event::Conflict(conflict) => StreamPart {
                direction: conflict.sender.name().into(),
                offset: conflict.offset,
                length: conflict.len,
                time: Some(conflict.packet.time.to_rfc3339().into()),
                conflict: true,
                ..part
            },
            Event::Begin | Event::End => return,
        };
        lines.send(&part);
    }
}

/// Sends messages; the amount is of messages.
struct Messages(SaidLines);

impl Said for Protocols<Messages> {
    const NOTHING: &'static str =
        "carry no message of a protocol that is known by content, or its beginning is missing";

    fn lines(&mut self) -> &mut SaidLines {
        &mut self.sink.0
    }

    fn into_lines(self) -> SaidLines {
        self.sink.0
    }
}

impl ProtocolSink for Messages {
    fn event(&mut self, session: &Session, event: &protocols::Event) {
        let lines = &mut self.0;
        if lines.is_done() {
            return;
        }
        lines.left -= 1;
        let (originator, responder) = lines.endpoints(session);
        let value = |value: &Value| match value {
            Value::Number(number) => MessageValue::Number(*number),
            Value::Text(text) => MessageValue::Text(text.as_str().into()),
        };
        lines.send(&SessionMessage {
            session: session.number,
            originator,
            responder,
            direction: event.sender.name().into(),
            time: event.packets.first().map(|packet| packet.time.to_rfc3339().into()),
            offset: event.offset,
            length: event.len,
            app: event.app.into(),
            name: event.name.into(),
            words: event.words.iter().map(|&word| word.into()).collect(),
            fields: event.fields.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect(),
        });
    }
}

fn run<S: Said>(service: &Service, query: &AmountQuery, mut said: S, mut entry: AuditEntry) -> Result<(), ClientGone> {
    let history = service.history();
    let gone = Arc::clone(&said.lines().sink.gone);
    let mut packets = match history.packets(&query.request) {
        Ok(packets) => packets.interrupted_by(gone).interrupted_by(Arc::clone(&service.stopping)),
        Err(error) => {
            let problem: Problem = error.into();
            entry.end(problem.outcome());
            return said.into_lines().sink.refuse(problem);
        }
    };
    let (mut table, mut sequence) = (new_streams(), 0);
    while let Some(found) = packets.next() {
        sequence += 1;
        entry.packet(found.packet.data.len());
        table.packet(&found.packet, sequence, &mut said);
        if said.lines().is_done() {
            break;
        }
    }
    let summary = packets.summary();
    drop(packets);
    table.finish(&mut said);
    let lines = said.into_lines();
    if lines.gone {
        return Err(ClientGone);
    }
    if lines.sent == 0 {
        let problem = match (summary.packets, history.explain_nothing(&query.request, None)) {
            (0, Ok(cause)) => Problem::nothing_matched(&cause),
            (0, Err(error)) => error.into(),
            (packets, _) => {
                let sentence = format!("the {packets} packets that match {}", S::NOTHING);
                Problem::nothing_matched(&Cause::new("never_seen", sentence))
            }
        };
        entry.end(problem.outcome());
        return lines.sink.refuse(problem);
    }
    let more = if lines.left == 0 { "there may be more: the limit was reached" } else { "" };
    packet_lines::end(service, lines.sink, entry, summary, more)
}
