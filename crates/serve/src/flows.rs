//! `/v1/flows`: the sessions known, one JSON object a line.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, TRAILER};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::audit::{Action, AuditEntry, question};
use super::parameters::FlowQuery;
use super::peer::Peer;
use super::problem::Problem;
use super::stream::{Closed, Sink, stream};
use super::{ROW_BYTES, Service, packets::description};
use query::explain::Cause;
use query::flows::{Flow, ListedSession, NAMED_MAX, PAGE_ROWS, SPARE_ROWS};
use query::sums::{By, SUM_BYTES};

/// Sums there can be in the smallest memory.
const SUMS_MIN: usize = 1024;

/// Answers with the sessions that match, or says why there are none.
pub(super) async fn flows(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = FlowQuery::read(query.as_deref().unwrap_or_default(), service.clock())?;
    tracing::debug!("{peer} lists sessions: {}", description(&query.request));
    let asked = query.request.limit.unwrap_or(u64::MAX);
    let audited_question = question_of(&query);
    let asked = if query.by.is_some() || query.name.is_some() { u64::MAX } else { asked };
    let (place, fit) = service.listing(asked.min(known_at_most(&service)) + SPARE_ROWS).await?;
    let fit = fit - SPARE_ROWS.min(fit);
    service.counters.flow_queries.fetch_add(1, Ordering::Relaxed);
    // Of sums and names, the limit is asked of what is found.
    if query.by.is_none() && query.name.is_none() {
        query.request.limit = Some(asked.min(fit));
    }
    let listing = Listing { service: Arc::clone(&service), query, fit, cut_at: (fit < asked).then_some(fit) };
    let body = stream(&service, place, move |sink| {
        match listing.service.audit().begin(&peer, Action::Flows, audited_question) {
            Ok(entry) => listing.run(sink, entry),
            Err(problem) => sink.refuse(problem),
        }
    })
    .await?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (TRAILER, HeaderValue::from_static("retrocap-flows, retrocap-note")),
    ];
    Ok((headers, axum::body::Body::new(body)).into_response())
}

/// How many sessions there can be: not more than entries, nor than packets.
fn known_at_most(service: &Service) -> u64 {
    let history = service.history();
    let entries = |worker: &engine::pipeline::Worker| u64::from(worker.sessions.capacity()) + worker.sessions.past();
    let capacity: u64 = history.workers.iter().map(entries).sum();
    capacity.min(history.totals().stored.packets)
}

struct Listing {
    service: Arc<Service>,
    query: FlowQuery,
    /// How many sessions fit into the memory of this listing.
    fit: u64,
    /// How many sessions fit into memory, where that is fewer than were asked for.
    cut_at: Option<u64>,
}

impl Listing {
    fn run(self, sink: Sink, entry: AuditEntry) -> Result<(), Closed> {
        match (self.query.by, &self.query.name) {
            (Some(by), _) => self.sums(sink, entry, by),
            (None, Some(name)) => self.named(sink, entry, name),
            (None, None) => self.sessions(sink, entry),
        }
    }

    fn sessions(&self, mut sink: Sink, mut entry: AuditEntry) -> Result<(), Closed> {
        let history = self.service.history();
        let mut flows = match history.flows(&self.query.request, self.query.sort) {
            Ok(flows) => flows,
            Err(error) => return refuse(sink, entry, error),
        };
        let mut listed = 0u64;
        let mut stopped = false;
        loop {
            let page = flows.page(PAGE_ROWS);
            if page.is_empty() {
                break;
            }
            listed += page.len() as u64;
            entry.sessions(page.len());
            self.write(&mut sink, page)?;
            if self.service.is_stopping() {
                stopped = true;
                break;
            }
        }
        if listed == 0 && flows.overtaken() > 0 {
            return refuse(
                sink,
                entry,
                Problem::nothing_matched(&Cause::new(
                    "cut",
                    format!(
                        "{} sessions that match gave way to newer ones while they were listed; ask again, or for the latest \
                     with --sort last",
                        flows.overtaken()
                    ),
                )),
            );
        }
        if listed == 0 {
            return self.nothing(sink, entry);
        }
        let note = match self.cut_at {
            _ if stopped => "incomplete: the recorder was stopped while this was sent".to_owned(),
            Some(fit) if listed >= fit => format!(
                "incomplete: the first {fit} sessions are listed, as many as fit into the memory for queries; \
                 narrow it down with since, until, limit or an expression"
            ),
            _ if flows.unread() > 0 => format!(
                "{} sessions are listed without names, as reading them would have taken too long; narrow it down with \
                 since, until, limit or an expression",
                flows.unread()
            ),
            _ => flows.unlisted().sentence().unwrap_or_default(),
        };
        end(sink, entry, listed, &note)
    }

    fn named(&self, mut sink: Sink, mut entry: AuditEntry, name: &str) -> Result<(), Closed> {
        let history = self.service.history();
        let named = match history.flows_named(&self.query.request, self.query.sort, name, self.fit) {
            Ok(named) => named,
            Err(error) => return refuse(sink, entry, error),
        };
        let listed = named.sessions.len() as u64;
        if listed == 0 && named.searched == 0 {
            return self.nothing(sink, entry);
        }
        if listed == 0 {
            let sentence = format!(
                "none of {} sessions has {name:?} in its TLS server name, HTTP host or DNS question, as far as their first \
                 packets are still there",
                named.searched - named.unread
            );
            return refuse(sink, entry, Problem::nothing_matched(&Cause::new("never_seen", sentence)));
        }
        entry.sessions(named.sessions.len());
        self.write(&mut sink, named.sessions)?;
        let note = if named.beyond {
            format!("incomplete: more than {NAMED_MAX} sessions have such a name; narrow it down with since and until")
        } else if named.unread > 0 {
            format!(
                "incomplete: {} sessions were not looked at, as that would have taken too long; narrow it down with since \
                 and until",
                named.unread
            )
        } else if let Some(fit) = self.cut_at.filter(|fit| named.searched >= *fit) {
            format!("incomplete: only the first {fit} sessions were looked at; narrow it down with since and until")
        } else {
            String::new()
        };
        end(sink, entry, listed, &note)
    }

    fn sums(&self, mut sink: Sink, mut entry: AuditEntry, by: By) -> Result<(), Closed> {
        let history = self.service.history();
        let fit = known_at_most(&self.service).min(self.fit) * ROW_BYTES / SUM_BYTES;
        let fit = usize::try_from(fit).unwrap_or(usize::MAX).max(SUMS_MIN);
        let sums = match history.sums(&self.query.request, by, self.query.sort, fit) {
            Ok(sums) => sums,
            Err(error) => return refuse(sink, entry, error),
        };
        if sums.rows.is_empty() {
            return self.nothing(sink, entry);
        }
        entry.sessions(sums.rows.len());
        for sum in &sums.rows {
            write_line(&mut sink, sum)?;
        }
        let note = match sums.left_out {
            0 => String::new(),
            left_out => format!(
                "incomplete: {left_out} sessions are in no sum, as there is memory for {fit} sums; narrow it down with \
                 since, until or an expression"
            ),
        };
        end(sink, entry, sums.rows.len() as u64, &note)
    }

    fn nothing(&self, sink: Sink, entry: AuditEntry) -> Result<(), Closed> {
        match self.service.history().explain_nothing(&self.query.request, None) {
            Ok(cause) => refuse(sink, entry, Problem::nothing_matched(&cause)),
            Err(error) => refuse(sink, entry, error),
        }
    }

    fn write(&self, sink: &mut Sink, page: Vec<ListedSession>) -> Result<(), Closed> {
        let interfaces = self.service.history().interfaces.snapshot();
        let seed = self.service.history().seed(&self.query.request);
        for ListedSession { session, names, .. } in page {
            let interface = interfaces.get(usize::from(session.key.interface().0));
            write_line(sink, &Flow { names, ..Flow::new(&session, interface.map(Arc::as_ref), seed) })?;
        }
        Ok(())
    }
}

/// Answers with a problem, which is how the entry ends.
fn refuse(sink: Sink, entry: AuditEntry, problem: impl Into<Problem>) -> Result<(), Closed> {
    let problem = problem.into();
    entry.end(problem.outcome());
    sink.refuse(problem)
}

/// Ends the answer, and then the entry.
fn end(sink: Sink, entry: AuditEntry, listed: u64, note: &str) -> Result<(), Closed> {
    sink.end(trailers(listed, note))?;
    entry.end(if note.is_empty() { "complete" } else { note });
    Ok(())
}

/// What was asked, for the audit log.
fn question_of(query: &FlowQuery) -> Value {
    let mut audited_question = question(&query.request);
    audited_question["name"] = query.name.clone().into();
    audited_question["by"] = query.by.map(|by| format!("{by:?}").to_ascii_lowercase()).into();
    audited_question
}

fn write_line(sink: &mut Sink, line: &impl serde::Serialize) -> Result<(), Closed> {
    let buffer = sink.buffer();
    if serde_json::to_writer(&mut *buffer, line).is_err() {
        unreachable!("a flow is made of texts and numbers, and a buffer takes all of it");
    }
    buffer.push(b'\n');
    sink.send_full()
}

fn trailers(listed: u64, note: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("retrocap-flows"), HeaderValue::from(listed));
    if let Ok(value) = HeaderValue::from_str(note)
        && !note.is_empty()
    {
        trailers.insert(HeaderName::from_static("retrocap-note"), value);
    }
    trailers
}
