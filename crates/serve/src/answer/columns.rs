//! `GET /v1/columns` and `GET /v1/timeline`: all sessions that match, as binary columns, and sums over time.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::audit::{Action, AuditEntry};
use super::super::peer::Peer;
use super::super::service::Service;
use super::stream::{AnswerEnd, ClientGone, Sink, stream};
use super::{Answer, AnswerKind};
use api::page_parameters::AmountQuery;
use api::{Problem, describe};
use base::foreign::json_document;
use query::Request;
use query::columns::{ColumnBlock, ColumnsEnd};
use query::timeline::Timeline;

/// Bytes of a row and of its two addresses at most.
const ROW_BYTES_MAX: usize = 192;

/// Answers with the sessions that match.
pub(crate) async fn columns(service: Arc<Service>, peer: Peer, request: Request) -> Result<Answer, Problem> {
    let audited = audited(&request, "columns", true.into());
    let (share, _) = service.listing(&peer, 0).await?;
    service.counters.flow_queries.fetch_add(1, Ordering::Relaxed);
    let asked = Arc::clone(&service);
    let answer = move |sink: Sink| match begin(&asked, &peer, audited) {
        Ok(entry) => write(&asked, &request, sink, entry),
        Err(problem) => sink.refuse(problem),
    };
    Ok(Answer { media: AnswerKind::Columns, body: stream(&service, share, answer).await? })
}

/// Begins an entry of the audit log, unless a page repeats its question.
pub(super) fn begin(service: &Service, peer: &Peer, audited: Value) -> Result<AuditEntry, Problem> {
    if service.audit().failing().is_none() && peer.repeats(&audited, Instant::now()) {
        return Ok(AuditEntry::default());
    }
    service.audit().begin(peer, Action::Flows, audited)
}

fn audited(request: &Request, key: &str, value: Value) -> Value {
    let mut audited = describe::audit(request);
    audited[key] = value;
    audited
}

fn write(service: &Service, request: &Request, mut sink: Sink, mut entry: AuditEntry) -> Result<(), ClientGone> {
    let rows_max = (sink.chunk_bytes() / ROW_BYTES_MAX).max(1);
    let mut block = ColumnBlock::with_capacity(rows_max);
    let (mut gone, mut stopped) = (false, false);
    let end = service.history().each_column(request, |session, identity, holes| {
        block.push(session, identity, holes);
        if block.rows() < rows_max {
            return ControlFlow::Continue(());
        }
        block.write(sink.buffer());
        gone = sink.send_full().is_err();
        stopped = service.is_stopping();
        if gone || stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let end = match end {
        Ok(end) => end,
        Err(error) => {
            let problem: Problem = error.into();
            entry.end(problem.outcome());
            return sink.refuse(problem);
        }
    };
    if gone {
        return Err(ClientGone);
    }
    if block.rows() > 0 {
        block.write(sink.buffer());
        sink.send_full()?;
    }
    entry.sessions(usize::try_from(end.sessions).unwrap_or(usize::MAX));
    let end = match stopped {
        true => ColumnsEnd { note: "incomplete: the recorder was stopped while it sent this answer".into(), ..end },
        false => end,
    };
    let json = serde_json::to_string(&end).unwrap_or_default();
    ColumnsEnd::write(&json_document(&json), sink.buffer());
    let outcome = if end.note.untrusted().is_empty() { "complete" } else { end.note.untrusted() };
    sink.end(AnswerEnd::default())?;
    entry.end(outcome);
    Ok(())
}

/// The sums over time.
pub(crate) async fn timeline(service: Arc<Service>, peer: Peer, query: AmountQuery) -> Result<Timeline, Problem> {
    let audited = audited(&query.request, "timeline", json!(query.amount));
    // The memory of a listing covers that of the sums.
    let (_share, _) = service.listing(&peer, 0).await?;
    service.counters.flow_queries.fetch_add(1, Ordering::Relaxed);
    let asked = Arc::clone(&service);
    let timeline = move || {
        let entry = begin(&asked, &peer, audited)?;
        match asked.history().timeline(&query.request, query.amount) {
            Ok(timeline) => {
                entry.end("complete");
                Ok(Timeline { drops: asked.drop_times.times(), ..timeline })
            }
            Err(error) => {
                let problem: Problem = error.into();
                entry.end(problem.outcome());
                Err(problem)
            }
        }
    };
    service.blocking(timeline).await?
}
