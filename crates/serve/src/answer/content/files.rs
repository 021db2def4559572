//! `GET /v1/files` and `GET /v1/files/{id}`: the objects that sessions carried, and the bytes of one of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::stream::{AnswerEnd, ClientGone, Sink, stream};
use super::super::{Answer, AnswerKind};
use super::{Lines, WAITING_BYTES, new_streams, object_limits};
use crate::audit::{Action, AuditEntry};
use crate::peer::Peer;
use crate::service::Service;
use api::content::ObjectLine;
use api::content_parameters::FilesQuery;
use api::question::SelectionQuestion;
use api::{Problem, describe, path};
use base::interface::Interfaces;
use objects::{Collector, Object, ObjectFilter, ObjectSink};
use protocols::Protocols;
use query::explain::Cause;
use query::{QueryError, Summary, counted};
use streams::Session;

/// How long before a data connection its control connection may have begun, which announces it.
const CONTROL_BEFORE: Duration = Duration::from_secs(600);

/// Answers with a line for each object.
pub(crate) async fn files(service: Arc<Service>, peer: Peer, query: FilesQuery) -> Result<Answer, Problem> {
    tracing::debug!("{peer} lists objects: {}", describe::sentence(&query.request));
    let (content, share) = service.content_query(&peer).await?;
    let asked = Arc::clone(&service);
    let answer = move |sink: Sink| {
        let _content = content;
        match asked.audit().begin(&peer, Action::Files, audited(&query)) {
            Ok(entry) => list(&asked, &query, sink, entry),
            Err(problem) => sink.refuse(problem),
        }
    };
    Ok(Answer { media: AnswerKind::Objects, body: stream(&service, share, answer).await? })
}

/// Answers with the bytes of one object.
pub(crate) async fn file(
    service: Arc<Service>,
    peer: Peer,
    query: FilesQuery,
    complete: bool,
) -> Result<Answer, Problem> {
    let (content, share) = service.content_query(&peer).await?;
    let hash = query.filter.sha256.clone().unwrap_or_default();
    let asked = Arc::clone(&service);
    let answer = move |sink: Sink| {
        let _content = content;
        match asked.audit().begin(&peer, Action::Files, audited(&query)) {
            Ok(entry) => send(&asked, &query, complete, sink, entry),
            Err(problem) => sink.refuse(problem),
        }
    };
    let suffix = if complete { "bin" } else { "partial" };
    let file_name = format!("{}.{suffix}", hash.get(..16).unwrap_or_default());
    Ok(Answer { media: AnswerKind::Object { file_name }, body: stream(&service, share, answer).await? })
}

/// What was asked, for the audit log.
fn audited(query: &FilesQuery) -> serde_json::Value {
    let ObjectFilter { kinds, mime, sha256, size_min } = &query.filter;
    let mut audited = describe::audit(&query.request);
    audited["files"] = json!({ "kind": kinds, "type": mime, "sha256": sha256, "min": size_min });
    audited
}

/// Passes the objects of a selection to `sink`, until `is_done`.
fn read<O: ObjectSink>(
    service: &Service,
    query: &FilesQuery,
    gone: &Arc<std::sync::atomic::AtomicBool>,
    entry: &mut AuditEntry,
    objects: O,
    is_done: impl Fn(&O) -> bool,
) -> Result<(O, Summary, String), QueryError> {
    let packets = service.history().packets(&query.request)?;
    let mut packets = packets.interrupted_by(Arc::clone(gone)).interrupted_by(Arc::clone(&service.stopping));
    let collector = Collector::new(object_limits(), objects);
    let mut protocols = Protocols::new(collector).with_waiting_bytes_max(WAITING_BYTES);
    let (mut streams, mut sequence) = (new_streams(), 0);
    while let Some(found) = packets.next() {
        sequence += 1;
        entry.packet(found.packet.data.len());
        streams.packet(&found.packet, sequence, &mut protocols);
        if is_done(&protocols.sink.objects) {
            break;
        }
    }
    let summary = packets.summary();
    drop(packets);
    if !is_done(&protocols.sink.objects) {
        streams.finish(&mut protocols);
        protocols.sink.finish();
    }
    let counts = streams.counts();
    let mut searched = format!(
        "read {} of {}",
        counted(summary.packets, "packet", "packets"),
        counted(counts.sessions, "session", "sessions")
    );
    for (number, one, several, what) in [
        (protocols.sink.left_out, "more object is", "more objects are", "left out, because 10,000 is the limit"),
        (summary.overtaken, "packet was", "packets were", "evicted during the search"),
        (counts.ended_early, "session was", "sessions were", "split to save memory"),
        (protocols.given_up, "session", "sessions", "could not be read to the end"),
    ] {
        if number > 0 {
            searched.push_str(&format!("; {} {what}", counted(number, one, several)));
        }
    }
    if let Some(sentence) = service.history().unopened(&query.request)?.sentence() {
        searched.push_str(&format!("; {sentence}"));
    }
    Ok((protocols.sink.objects, summary, searched))
}

fn list(service: &Service, query: &FilesQuery, sink: Sink, mut entry: AuditEntry) -> Result<(), ClientGone> {
    // A mistake is answered before anything is read.
    if let Err(error) = service.history().packets(&query.request) {
        let problem: Problem = error.into();
        entry.end(problem.outcome());
        return sink.refuse(problem);
    }
    let gone = Arc::clone(&sink.gone);
    let listing = Listing {
        lines: Lines::new(sink, query.limit),
        filter: &query.filter,
        interfaces: &service.history().interfaces,
    };
    let Ok((listing, summary, searched)) =
        read(service, query, &gone, &mut entry, listing, |listing| listing.lines.is_done())
    else {
        return Err(ClientGone);
    };
    let nothing = "no object matches in the packets that are there; encrypted sessions show none";
    listing.lines.end(service, entry, summary, &searched, nothing)
}

/// Sends a line for each object that is wanted.
struct Listing<'a> {
    lines: Lines,
    filter: &'a ObjectFilter,
    interfaces: &'a Interfaces,
}

impl ObjectSink for Listing<'_> {
    fn object(&mut self, session: &Session, object: Object) {
        if self.filter.matches(&object) {
            let line = ObjectLine::new(session, &object, Some(target(session, &object)), self.interfaces);
            self.lines.add(&line);
        }
    }
}

/// The target of the request that gets the bytes of an object.
fn target(session: &Session, object: &Object) -> String {
    let before = if matches!(object.protocol, "ftp" | "tftp") { CONTROL_BEFORE } else { Duration::ZERO };
    let (a, b) = (session.originator(), session.responder());
    let selection = SelectionQuestion {
        since: Some(session.first.saturating_sub(before).to_rfc3339()),
        until: Some(session.last.max(object.packet.time).to_rfc3339()),
        flow: a.ip.zip(b.ip).map(|(a, b)| format!("{a} {b}")),
        ..SelectionQuestion::default()
    };
    let suffix = if object.complete { "" } else { ".partial" };
    format!("{}/{}{suffix}?{}", path::FILES, object.hashes[2], selection.write())
}

fn send(
    service: &Service,
    query: &FilesQuery,
    complete: bool,
    mut sink: Sink,
    mut entry: AuditEntry,
) -> Result<(), ClientGone> {
    let wanted = WantedObject { filter: &query.filter, complete, found: None };
    let gone = Arc::clone(&sink.gone);
    let (wanted, _, searched) = match read(service, query, &gone, &mut entry, wanted, |wanted| wanted.found.is_some()) {
        Ok(read) => read,
        Err(error) => {
            let problem: Problem = error.into();
            entry.end(problem.outcome());
            return sink.refuse(problem);
        }
    };
    let Some(content) = wanted.found else {
        let sentence = format!("no object has this hash in the packets that are there; {searched}");
        let problem = Problem::nothing_matched(&Cause::new("never_seen", sentence));
        entry.end(problem.outcome());
        return sink.refuse(problem);
    };
    for chunk in content.chunks(sink.chunk_bytes()) {
        sink.buffer().extend_from_slice(chunk);
        sink.send()?;
    }
    sink.end(AnswerEnd::default())?;
    entry.end("complete");
    Ok(())
}

/// Keeps the first object with a hash.
struct WantedObject<'a> {
    filter: &'a ObjectFilter,
    complete: bool,
    found: Option<Vec<u8>>,
}

impl ObjectSink for WantedObject<'_> {
    fn object(&mut self, _: &Session, object: Object) {
        if self.found.is_none() && object.complete == self.complete && self.filter.matches(&object) {
            self.found = Some(object.content);
        }
    }
}
