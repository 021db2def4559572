//! The sessions known, one JSON object a line.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::super::audit::{Action, AuditEntry};
use super::super::peer::Peer;
use super::super::service::{ROW_BYTES, Service};
use super::stream::{Closed, Ending, Sink, stream};
use super::{Answer, Media};
use api::parameters::FlowQuery;
use api::question::ParameterValue as _;
use api::{Problem, describe};
use base::foreign::Log;
use query::attribution::Attribution;
use query::explain::Cause;
use query::flows::{Flow, ListedSession, NAMED_MAX, PAGE_ROWS, SPARE_ROWS};
use query::sums::{By, SUM_BYTES};

/// Sums for which there is room in the smallest memory.
const SUMS_MIN: usize = 1024;

/// Answers with the sessions that match, or says why there are none.
pub(crate) async fn flows(service: Arc<Service>, peer: Peer, mut query: FlowQuery) -> Result<Answer, Problem> {
    tracing::debug!("{peer} lists sessions: {}", describe::sentence(&query.request));
    let audited = audited(&query);
    // The limit of sums and names applies to what is found, so that all sessions are looked at.
    let by_process = query.process.is_some() || query.container.is_some();
    if by_process && service.processes.is_none() {
        let sentence = "the recorder does not name processes: start it with --processes";
        return Err(Problem::nothing_matched(&Cause::new("not_watched", sentence.to_owned())));
    }
    let limit = query.request.limit;
    let looks_at_all = query.by.is_some() || query.name.is_some() || by_process;
    let asked = if looks_at_all { u64::MAX } else { query.request.limit.unwrap_or(u64::MAX) };
    let (share, fit) = service.listing(&peer, asked.min(known_at_most(&service)) + SPARE_ROWS).await?;
    let fit = fit - SPARE_ROWS.min(fit);
    service.counters.flow_queries.fetch_add(1, Ordering::Relaxed);
    if !looks_at_all {
        query.request.limit = Some(asked.min(fit));
    }
    if by_process {
        query.request.limit = Some(fit);
    }
    let rows_max = if by_process { limit.unwrap_or(u64::MAX) } else { u64::MAX };
    let cut_at = (fit < asked).then_some(fit);
    let listing = Listing { service: Arc::clone(&service), query, fit, cut_at, rows_max };
    let answer = move |sink: Sink| match listing.service.audit().begin(&peer, Action::Flows, audited) {
        Ok(entry) => listing.run(sink, entry),
        Err(problem) => sink.refuse(problem),
    };
    Ok(Answer { media: Media::Flows, body: stream(&service, share, answer).await? })
}

/// An upper bound of the sessions known: the number of entries, or of packets.
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
    /// How many sessions fit into memory, if fewer than were asked for.
    cut_at: Option<u64>,
    /// How many of the sessions that were looked at are listed.
    rows_max: u64,
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
        let (mut listed, mut looked_at) = (0u64, 0u64);
        let mut stopped = false;
        while listed < self.rows_max {
            let page = flows.page(PAGE_ROWS);
            if page.is_empty() {
                break;
            }
            looked_at += page.len() as u64;
            let written = self.write(&mut sink, page, self.rows_max - listed)?;
            listed += written as u64;
            entry.sessions(written);
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
                        "{} sessions that match were replaced by newer ones while they were listed; ask again, or for the latest \
                     with --sort last",
                        flows.overtaken()
                    ),
                )),
            );
        }
        if listed == 0 && looked_at > 0 {
            let sentence = format!("none of {looked_at} sessions is known to belong to such a process");
            return refuse(sink, entry, Problem::nothing_matched(&Cause::new("never_seen", sentence)));
        }
        if listed == 0 {
            return self.nothing(sink, entry);
        }
        let note = match self.cut_at {
            _ if stopped => "incomplete: the recorder was stopped while this was sent".to_owned(),
            Some(fit) if looked_at >= fit => format!(
                "incomplete: only the first {fit} sessions are listed, because no more fit into the memory for queries; \
                 narrow it down with since, until, limit or an expression"
            ),
            _ if flows.unread() > 0 => format!(
                "{} sessions are listed without names, because reading them would take too long; narrow it down with \
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
                "none of {} sessions has \"{}\" in its TLS server name, HTTP host or DNS question, as far as their first \
                 packets are still there",
                named.searched - named.unread,
                Log(name)
            );
            return refuse(sink, entry, Problem::nothing_matched(&Cause::new("never_seen", sentence)));
        }
        entry.sessions(named.sessions.len());
        self.write(&mut sink, named.sessions, u64::MAX)?;
        let note = if named.beyond {
            format!("incomplete: more than {NAMED_MAX} sessions have such a name; narrow it down with since and until")
        } else if named.unread > 0 {
            format!(
                "incomplete: {} sessions were not searched, because that would take too long; narrow it down with since \
                 and until",
                named.unread
            )
        } else if let Some(fit) = self.cut_at.filter(|fit| named.searched >= *fit) {
            format!("incomplete: only the first {fit} sessions were searched; narrow it down with since and until")
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
            sink.line(sum)?;
        }
        let note = match sums.left_out {
            0 => String::new(),
            left_out => format!(
                "incomplete: {left_out} sessions are in no sum, because there is memory for {fit} sums; narrow it down with \
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

    /// Writes the sessions that are selected, at most `most`, and returns how many.
    fn write(&self, sink: &mut Sink, page: Vec<ListedSession>, most: u64) -> Result<usize, Closed> {
        let mut written = 0;
        let interfaces = self.service.history().interfaces.snapshot();
        let seed = self.service.history().seed(&self.query.request);
        for ListedSession { session, holes, names, .. } in page {
            if written as u64 >= most {
                break;
            }
            let attribution = self.service.processes.as_deref().map(|table| Attribution::of(&session, table));
            let attribution = attribution.unwrap_or_default();
            let (process, container) = (self.query.process.as_deref(), self.query.container.as_deref());
            if (process.is_some() || container.is_some()) && !attribution.matches(process, container) {
                continue;
            }
            let interface = interfaces.get(usize::from(session.key.interface().0));
            let flow = Flow::new(&session, interface.map(Arc::as_ref), seed);
            sink.line(&Flow { names, holes, attribution, ..flow })?;
            written += 1;
        }
        Ok(written)
    }
}

/// Answers with a problem, and ends the audit entry with it.
fn refuse(sink: Sink, entry: AuditEntry, problem: impl Into<Problem>) -> Result<(), Closed> {
    let problem = problem.into();
    entry.end(problem.outcome());
    sink.refuse(problem)
}

/// Ends the answer and its audit entry.
fn end(sink: Sink, entry: AuditEntry, listed: u64, note: &str) -> Result<(), Closed> {
    sink.end(Ending { counts: vec![("flows", listed)], note: note.to_owned(), ..Ending::default() })?;
    entry.end(if note.is_empty() { "complete" } else { note });
    Ok(())
}

/// What was asked, for the audit log.
fn audited(query: &FlowQuery) -> Value {
    let mut audited = describe::audit(&query.request);
    audited["name"] = query.name.clone().into();
    audited["process"] = query.process.clone().into();
    audited["container"] = query.container.clone().into();
    audited["by"] = query.by.map(|by| by.write()).into();
    audited
}
