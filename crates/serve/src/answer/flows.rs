//! The sessions known, one JSON object a line.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::super::audit::{Action, AuditEntry};
use super::super::peer::Peer;
use super::super::service::Service;
use super::super::spool_health::of_log;
use super::content::apps::{AppQuestion, AppsOfSessions};
use super::stream::{AnswerEnd, ClientGone, Sink, stream};
use super::{Answer, AnswerKind, columns};
use api::parameters::FlowQuery;
use api::value::ParameterValue as _;
use api::{Problem, describe};
use base::foreign::Log;
use protocols::AppFilter;
use query::attribution::Attribution;
use query::explain::Cause;
use query::flows::Flow;
use query::listing::{FlowTotals, Flows, ListedSession, ListingOptions, ROW_BYTES};
use query::logged_rows::LogNotes;
use query::search::{SEARCH_SESSION_BYTES, SearchLimits};
use query::sums::{By, ProcessQuestion, SUM_BYTES};
use query::{Request, SearchNotes, Tier, counted};

/// Sums for which there is room in the smallest memory.
const SUMS_MIN: usize = 1024;

/// Answers with the sessions that match, or says why there are none.
pub(crate) async fn flows(service: Arc<Service>, peer: Peer, query: FlowQuery) -> Result<Answer, Problem> {
    tracing::debug!("{peer} lists sessions: {}", describe::sentence(&query.request));
    let (audited, listed_by_id) = (audited(&query), query.ids.is_some());
    if wants_processes(&query) && service.processes.is_none() && !service.history().asks_log(&query.request) {
        let of_log = match service.history().log {
            Some(_) => "; names of earlier times are in the log of sessions: ask with --from disk",
            None => "",
        };
        let sentence = format!("the recorder does not name processes: start it with --processes{of_log}");
        return Err(Problem::nothing_matched(&Cause::new("not_watched", sentence)));
    }
    // A listing that does not fit into memory at once is read in several passes; sums are all held until the end.
    let (share, mut fit) = service.listing(&peer, known_at_most(&service)).await?;
    service.counters.flow_queries.fetch_add(1, Ordering::Relaxed);
    let app = match query.app.clone() {
        Some(filter) => Some(app_question(&service, &peer, filter, &query, &mut fit).await?),
        None => None,
    };
    let listing = Listing { service: Arc::clone(&service), query, fit, app };
    // A page looks up the sessions that are in view; the audit log has that it lists sessions.
    let begin = move |service: &Service| match listed_by_id {
        true => columns::begin(service, &peer, audited),
        false => service.audit().begin(&peer, Action::Flows, audited),
    };
    let answer = move |sink: Sink| match begin(&listing.service) {
        Ok(entry) => listing.run(sink, entry),
        Err(problem) => sink.refuse(problem),
    };
    Ok(Answer { media: AnswerKind::Flows, body: stream(&service, share, answer).await? })
}

/// Waits for what it takes to read the packets of the sessions that the query selects. `fit` is how many sessions the listing has
/// memory for; it gets smaller where the search shares this memory.
async fn app_question(
    service: &Arc<Service>,
    peer: &Peer,
    filter: AppFilter,
    FlowQuery { request, ids, .. }: &FlowQuery,
    fit: &mut u64,
) -> Result<AppQuestion, Problem> {
    let (content, place) = service.content_query(peer).await?;
    let mut places = vec![content, place];
    let is_all = Request { limit: None, ..request.clone() } == Request::default() && ids.is_none();
    // The start of a session is what tells its protocol, and it may lie before the window.
    let whole_sessions = match (is_all, ids) {
        (true, _) => None,
        (false, Some(ids)) => Some(SearchLimits { sessions_max: ids.len() }),
        (false, None) => match service.widening_at_once(peer) {
            Some((widening, limits)) => {
                places.push(widening);
                Some(limits)
            }
            // The listing has all that this client may have.
            None => {
                *fit = (*fit / 2).max(1);
                let sessions_max = usize::try_from(*fit * ROW_BYTES / SEARCH_SESSION_BYTES).unwrap_or(usize::MAX);
                Some(SearchLimits { sessions_max })
            }
        },
    };
    Ok(AppQuestion { filter, whole_sessions, ids: ids.clone(), _places: places })
}

/// Whether the answer depends on the processes of sessions.
fn wants_processes(query: &FlowQuery) -> bool {
    query.is_by_process() || query.by.is_some_and(By::names_processes)
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
    /// If set, only sessions of an application are listed.
    app: Option<AppQuestion>,
}

impl Listing {
    fn run(self, sink: Sink, entry: AuditEntry) -> Result<(), ClientGone> {
        match self.query.by {
            Some(by) => self.sums(sink, entry, by),
            None => self.sessions(sink, entry),
        }
    }

    fn sessions(&self, mut sink: Sink, mut entry: AuditEntry) -> Result<(), ClientGone> {
        let FlowQuery { request, sort, after, name, ids, .. } = &self.query;
        let rows_max = usize::try_from(self.fit).unwrap_or(usize::MAX);
        let options = ListingOptions { sort: *sort, after: *after, name: name.clone(), ids: ids.clone(), rows_max };
        let apps = self.app.as_ref().map(|question| question.apps(&self.service, &sink, request)).transpose();
        let mut apps = match apps {
            Ok(apps) => apps,
            Err(problem) => return refuse(sink, entry, problem),
        };
        // A limit of sessions of a process or an application applies to what is found.
        let is_picked = self.query.is_by_process() || apps.is_some();
        let picked_max = request.limit.filter(|_| is_picked).unwrap_or(u64::MAX);
        let limit = request.limit.filter(|_| !is_picked);
        let request = &Request { limit, ..request.clone() };
        let mut flows = match self.service.history().flows(request, options) {
            Ok(flows) => flows,
            Err(error) => return refuse(sink, entry, error),
        };
        let (mut listed, mut looked_at) = (0u64, 0u64);
        let mut stopped = false;
        while listed < picked_max {
            let page = flows.page(self.service.memory.page_rows());
            if page.is_empty() {
                break;
            }
            looked_at += page.len() as u64;
            let written = self.write(&mut sink, page, picked_max - listed, apps.as_mut())?;
            listed += written as u64;
            entry.sessions(written);
            if self.service.is_stopping() {
                stopped = true;
                break;
            }
        }
        let totals = flows.totals();
        if listed == 0 && looked_at > 0 {
            let sentence = match &apps {
                Some(apps) => apps.nothing(looked_at),
                None => {
                    let sessions = counted(looked_at, "session", "sessions");
                    format!("none of {sessions} is known to belong to such a process")
                }
            };
            let sentence = self.of_log(sentence, flows.log());
            return refuse(sink, entry, Problem::nothing_matched(&Cause::new("never_seen", sentence)));
        }
        // After the last page, an empty page is the answer.
        if listed == 0 && (after.is_none() || totals.sessions == 0) {
            return self.nothing_listed(sink, entry, &flows);
        }
        let note = match stopped {
            true => "incomplete: the recorder was stopped while it sent this answer".to_owned(),
            false => self.of_log(self.with_not_opened(note(&flows, name.is_some())), flows.log()),
        };
        let note = [note, apps.map(|apps| apps.note()).unwrap_or_default()];
        let note = note.into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join("; ");
        let next = flows.next_mark().map(|mark| mark.to_string()).unwrap_or_default();
        let mut counts = counts(listed, totals);
        if is_picked {
            // The totals are of all sessions.
            counts.truncate(1);
        }
        end(sink, entry, AnswerEnd { counts, note, next, ..AnswerEnd::default() })
    }

    /// Says why no session was listed.
    fn nothing_listed(&self, sink: Sink, entry: AuditEntry, flows: &Flows<'_>) -> Result<(), ClientGone> {
        if flows.overtaken() > 0 {
            let sentence = format!(
                "{} replaced by newer ones while they were listed; ask again, or for fewer with --since",
                counted(flows.overtaken(), "session that matches was", "sessions that match were")
            );
            return refuse(sink, entry, Problem::nothing_matched(&Cause::new("cut", sentence)));
        }
        match &self.query.name {
            Some(name) if flows.searched() > 0 => {
                let (name, unread) = (name.to_string(), flows.unread());
                let not_read = match unread {
                    0 => String::new(),
                    _ => format!(
                        "; {} not searched, because that would take too long",
                        counted(unread, "further one was", "further ones were")
                    ),
                };
                let sentence = format!(
                    "none of {} has \"{}\" in its TLS server name, HTTP host or DNS question, as far as their \
                     first packets are still there{not_read}",
                    counted(flows.searched() - unread.min(flows.searched()), "session", "sessions"),
                    Log(&name)
                );
                let sentence = self.of_log(sentence, flows.log());
                refuse(sink, entry, Problem::nothing_matched(&Cause::new("never_seen", sentence)))
            }
            _ => self.nothing(sink, entry, flows.notes(), flows.log()),
        }
    }

    fn sums(&self, mut sink: Sink, mut entry: AuditEntry, by: By) -> Result<(), ClientGone> {
        let history = self.service.history();
        let fit = known_at_most(&self.service).min(self.fit) * ROW_BYTES / SUM_BYTES;
        let fit = usize::try_from(fit).unwrap_or(usize::MAX).max(SUMS_MIN);
        let asked = ProcessQuestion {
            table: self.service.processes.as_deref(),
            process: self.query.process.as_deref(),
            container: self.query.container.as_deref(),
        };
        let sums = match history.sums(&self.query.request, (by, asked), self.query.sort, fit) {
            Ok(sums) => sums,
            Err(error) => return refuse(sink, entry, error),
        };
        if sums.rows.is_empty() {
            return self.nothing(sink, entry, None, sums.log.as_ref());
        }
        entry.sessions(sums.rows.len());
        for sum in &sums.rows {
            sink.line(sum)?;
        }
        let note = match sums.left_out {
            0 => self.of_log(self.with_not_opened(sums.unlisted.sentence().unwrap_or_default()), sums.log.as_ref()),
            left_out => format!(
                "incomplete: {} in no sum, because there is memory for {fit} sums; narrow it down with \
                 since, until or an expression",
                counted(left_out, "session is", "sessions are")
            ),
        };
        let mut counts = counts(sums.rows.len() as u64, sums.totals);
        counts.push(("sums", sums.total));
        end(sink, entry, AnswerEnd { counts, note, ..AnswerEnd::default() })
    }

    fn nothing(
        &self,
        sink: Sink,
        entry: AuditEntry,
        notes: Option<&SearchNotes>,
        log: Option<&LogNotes>,
    ) -> Result<(), ClientGone> {
        match self.service.history().explain_nothing(&self.query.request, notes) {
            Ok(mut cause) => {
                cause.sentence = self.of_log(cause.sentence, log);
                refuse(sink, entry, Problem::nothing_matched(&cause))
            }
            Err(error) => refuse(sink, entry, error),
        }
    }

    /// Adds to a note which packets the question could not be asked of.
    fn with_not_opened(&self, note: String) -> String {
        let FlowQuery { request, name, .. } = &self.query;
        // Without a condition, their sessions are listed too.
        if !request.names_content() && name.is_none() {
            return note;
        }
        match self.service.history().unopened(request).ok().and_then(|packets| packets.sentence()) {
            Some(sentence) if note.is_empty() => sentence,
            Some(sentence) => format!("{note}; {sentence}"),
            None => note,
        }
    }

    /// Adds to a sentence what was read of the log on disk, or that the disk was not asked.
    fn of_log(&self, sentence: String, log: Option<&LogNotes>) -> String {
        let sentence = of_log(self.service.history(), &self.query.request, sentence, log);
        let has_memory = self.query.request.tier != Some(Tier::Disk);
        if !(has_memory && self.service.processes.is_none() && wants_processes(&self.query)) {
            return sentence;
        }
        let unnamed = "sessions in memory have no processes, because the recorder runs without --processes";
        if sentence.is_empty() { unnamed.to_owned() } else { format!("{sentence}; {unnamed}") }
    }

    /// Writes the sessions that are selected, at most `most`, and returns how many.
    fn write(
        &self,
        sink: &mut Sink,
        page: Vec<ListedSession>,
        most: u64,
        mut apps: Option<&mut AppsOfSessions>,
    ) -> Result<usize, ClientGone> {
        let mut written = 0;
        let interfaces = self.service.history().interfaces.snapshot();
        let seed = self.service.history().seed(&self.query.request);
        for ListedSession { session, holes, identity, names, mut logged, .. } in page {
            if written as u64 >= most {
                break;
            }
            let attribution = match &logged {
                Some(logged) => logged.attribution.clone(),
                None => {
                    self.service.processes.as_deref().map(|table| Attribution::of(&session, table)).unwrap_or_default()
                }
            };
            let (process, container) = (self.query.process.as_deref(), self.query.container.as_deref());
            if self.query.is_by_process() && !attribution.matches(process, container) {
                continue;
            }
            let mut app = logged.as_mut().and_then(|logged| logged.app.take());
            if apps.as_mut().is_some_and(|apps| !apps.wants(&session, &mut app)) {
                continue;
            }
            let interface = interfaces.get(usize::from(session.key.interface().0));
            let flow = Flow::new(&session, interface.map(Arc::as_ref), seed).identified(identity);
            let flow = Flow { names, holes, attribution, app, ..flow };
            match logged {
                Some(logged) => sink.line(&Flow { interface: logged.interface.into(), ..flow })?,
                None => sink.line(&flow)?,
            }
            written += 1;
        }
        Ok(written)
    }
}

/// Answers with a problem, and ends the audit entry with it.
fn refuse(sink: Sink, entry: AuditEntry, problem: impl Into<Problem>) -> Result<(), ClientGone> {
    let problem = problem.into();
    entry.end(problem.outcome());
    sink.refuse(problem)
}

/// The trailers with numbers: the lines of the answer, and the totals of all sessions that match.
fn counts(listed: u64, totals: FlowTotals) -> Vec<(&'static str, u64)> {
    vec![
        ("flows", listed),
        ("sessions", totals.sessions),
        ("session-packets", totals.packets),
        ("session-bytes", totals.bytes),
        ("kept-bytes", totals.kept_bytes),
        ("cut-sessions", totals.cut),
        ("gone-sessions", totals.gone),
        ("unknown-sessions", totals.unknown),
    ]
}

/// What a listing lacks; empty if nothing.
fn note(flows: &Flows<'_>, named: bool) -> String {
    let mut parts = Vec::new();
    if flows.overtaken() > 0 {
        parts.push(format!(
            "incomplete: {} replaced by newer ones before they could be listed; ask for fewer with since and until, or read \
             faster",
            counted(flows.overtaken(), "session was", "sessions were")
        ));
    }
    if flows.unsure() > 0 {
        parts.push(format!(
            "{} ended while this was listed, so that some of them may come twice",
            counted(flows.unsure(), "session", "sessions")
        ));
    }
    match flows.unread() {
        0 => {}
        unread if named => parts.push(format!(
            "incomplete: {} not searched, because that would take too long; narrow it down with since and until",
            counted(unread, "session was", "sessions were")
        )),
        unread => parts.push(format!(
            "{} listed without names, because reading them would take too long; narrow it down with since, until, limit or an \
             expression",
            counted(unread, "session is", "sessions are")
        )),
    }
    parts.extend(flows.unlisted().sentence());
    parts.join("; ")
}

/// Ends the answer and its audit entry.
fn end(sink: Sink, entry: AuditEntry, ending: AnswerEnd) -> Result<(), ClientGone> {
    let note = ending.note.clone();
    sink.end(ending)?;
    entry.end(if note.is_empty() { "complete" } else { &note });
    Ok(())
}

/// What was asked, for the audit log.
fn audited(query: &FlowQuery) -> Value {
    let mut audited = describe::audit(&query.request);
    audited["name"] = query.name.as_ref().map(ToString::to_string).into();
    audited["process"] = query.process.clone().into();
    audited["container"] = query.container.clone().into();
    audited["app"] = query.app.as_ref().map(ToString::to_string).into();
    audited["ids"] = query.ids.is_some().into();
    audited["by"] = query.by.map(|by| by.write()).into();
    audited
}
