//! `POST /v1/packets`: the packets of many selections, found in one pass.
//!
//! The body is a JSON document: a list of selections, and what is asked for alike of all. The answer is one file, or
//! lines of JSON: pieces of files in base64, in the order they are made, then what was found for each selection and
//! what is missing. A last line says that it is all.

mod lines;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, Limited};
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;

use super::Service;
use super::audit::{self, Action};
use super::packets::{self, Scope};
use super::parameters::{Clock, PacketQuery};
use super::peer::Peer;
use super::problem::Problem;
use super::stream::stream;
use base::time::{self, Timestamp};
use engine::session::community_id::CommunityId;
use formats::writer::{Format, Precision};
use lines::LinesAnswer;
use query::explain::{Cause, HistoryExtent, Question};
use query::search::{Search, SearchLimits, SearchTarget, Selector, SessionTotals};
use query::selectors::Flow;
use query::{Request, SearchNotes};

/// Bytes of a body at most, however large the budget.
pub(super) const BODY_BYTES_MAX: u64 = 16 << 20;

/// SelectionQuery that the audit log names; it counts those beyond.
const AUDITED_MAX: usize = 1000;

/// What the body says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectionList {
    selections: Vec<Selection>,
    #[serde(default)]
    answer: Answer,
    #[serde(default = "yes")]
    whole_sessions: bool,
    community_id_seed: Option<u16>,
    #[serde(default)]
    filter: String,
    interface: Option<String>,
    #[serde(default)]
    format: FileFormat,
    #[serde(default)]
    precision: FilePrecision,
}

fn yes() -> bool {
    true
}

/// One selection: exactly one of `flow`, `host` and `community_id`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    flow: Option<String>,
    host: Option<IpAddr>,
    community_id: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// One file of all packets.
    #[default]
    File,
    /// The same in lines, with what was found for each selection.
    Lines,
    /// A file for each selection, in lines.
    Split,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileFormat {
    #[default]
    Pcapng,
    Pcap,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FilePrecision {
    #[default]
    Nano,
    Micro,
}

/// SelectionQuery that were understood.
#[derive(Debug)]
pub(super) struct SelectionQuery {
    pub(super) selectors: Vec<Selector>,
    /// `None` for the recorder's.
    pub(super) seed: Option<u16>,
    pub(super) whole: bool,
    pub(super) limits: SearchLimits,
    now: Timestamp,
}

/// Answers with the packets of the selections.
pub(super) async fn packets(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let Some(length) = length.filter(|&length| length > 0) else {
        return Err(Problem::bad_query(
            "the body is missing, or does not say its length: send JSON like \
             {\"selections\": [{\"flow\": \"10.0.0.5:51234 192.0.2.7:443 tcp\", \"since\": \"10m\"}]} with Content-Length",
        ));
    };
    let (place, limits) = service.selections(length).await?;
    let body = read(request, length, &service).await?;
    let (query, selections, answer) = read_body(&body, length, limits, service.clock())?;
    drop(body);
    tracing::debug!("{peer} reads the packets of {} selections", selections.selectors.len());
    service.counters.packet_queries.fetch_add(1, Ordering::Relaxed);
    if answer == Answer::File {
        return packets::answer(service, peer, place, query, Scope::Selections(selections)).await;
    }
    let audited_question = selections.question(&query.request);
    let lines_answer = LinesAnswer { service: Arc::clone(&service), query, selections, split: answer == Answer::Split };
    let body = stream(&service, place, move |sink| {
        match lines_answer.service.audit().begin(&peer, Action::Packets, audited_question) {
            Ok(entry) => lines_answer.run(sink, entry),
            Err(problem) => sink.refuse(problem),
        }
    })
    .await?;
    let content = [(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((content, axum::body::Body::new(body)).into_response())
}

/// Reads the body, for which memory was set aside, in the time that a request's head has.
async fn read(request: HttpRequest, length: u64, service: &Service) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), usize::try_from(length).unwrap_or(usize::MAX)).collect();
    match tokio::time::timeout(service.limits().head_timeout, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Problem::bad_query(format!("the body cannot be read: {error}; send it again"))),
        Err(_) => Err(Problem::bad_query("the body did not come in time; send it at once")),
    }
}

/// Reads the body of a request for selections: what is looked for, and within which times.
///
/// # Errors
///
/// What is wrong, in a sentence.
pub fn understand(body: &[u8], clock: Clock) -> Result<Vec<Selector>, String> {
    let limits = SearchLimits { sessions_max: 1000 };
    let (_, selections, _) = read_body(body, body.len() as u64, limits, clock).map_err(|problem| problem.detail)?;
    Ok(selections.selectors)
}

fn read_body(
    body: &[u8],
    length: u64,
    limits: SearchLimits,
    clock: Clock,
) -> Result<(PacketQuery, SelectionQuery, Answer), Problem> {
    let body: SelectionList = serde_json::from_slice(body).map_err(|error| {
        Problem::bad_query(format!("the body is not the JSON that /v1/openapi.json describes: {error}"))
    })?;
    let room = Service::selectors_max(length);
    if body.selections.len() as u64 > room {
        return Err(Problem::too_many_selections(room));
    }
    if body.selections.is_empty() {
        return Err(Problem::bad_query("\"selections\" is empty; name a flow, a host or a Community ID"));
    }
    let selectors = body.selections.iter().enumerate().map(|(number, selection)| {
        selector(selection, clock)
            .map_err(|why| Problem::bad_query(format!("selection {number} (counted from 0): {why}")))
    });
    let selections = SelectionQuery {
        selectors: selectors.collect::<Result<_, _>>()?,
        seed: body.community_id_seed,
        whole: body.whole_sessions,
        limits,
        now: clock.newest.map_or(clock.now, |newest| newest.max(clock.now)),
    };
    let query = PacketQuery {
        request: Request { expression: body.filter, interface: body.interface, ..Request::default() },
        format: match body.format {
            FileFormat::Pcapng => Format::Pcapng,
            FileFormat::Pcap => Format::Pcap,
        },
        precision: match body.precision {
            FilePrecision::Nano => Precision::Nano,
            FilePrecision::Micro => Precision::Micro,
        },
        ..PacketQuery::default()
    };
    Ok((query, selections, body.answer))
}

fn selector(selection: &Selection, clock: Clock) -> Result<Selector, String> {
    let target = match (&selection.flow, selection.host, &selection.community_id) {
        (Some(flow), None, None) => SearchTarget::Flow(flow.parse::<Flow>().map_err(|error| error.to_string())?),
        (None, Some(host), None) => SearchTarget::Host(host.to_canonical()),
        (None, None, Some(id)) => SearchTarget::CommunityId(
            CommunityId::parse(id).ok_or("no Community ID; it looks like 1:LQU9qZlK+B5F3KDmev6m5PMibrg=")?,
        ),
        _ => return Err("give exactly one of flow, host and community_id".to_owned()),
    };
    let time = |text: &Option<String>| {
        let time = text.as_deref().map(|text| time::parse(text, clock.now, &TimeZone::UTC));
        time.transpose().map_err(|error| error.to_string())
    };
    let since = time(&selection.since)?.unwrap_or(Timestamp::MIN);
    let until = time(&selection.until)?.unwrap_or(Timestamp::MAX);
    if since > until {
        return Err(format!("it ends before it begins: since {since} is after until {until}; swap them"));
    }
    Ok(Selector { target, since, until })
}

impl SelectionQuery {
    /// Looks up what they mean.
    pub(super) fn search(&self, service: &Service) -> Search {
        let history = service.history();
        let seed = self.seed.unwrap_or_else(|| history.community_id_seed.get());
        history.search(&self.selectors, seed, self.whole, self.limits)
    }

    /// What was asked, for the audit log.
    pub(super) fn question(&self, request: &Request) -> Value {
        let mut audited_question = audit::question(request);
        let written = self.selectors.iter().take(AUDITED_MAX);
        let texts = written.map(|Selector { target, since, until }| format!("{target}, since {since}, until {until}"));
        audited_question["selections"] = texts.collect::<Vec<_>>().into();
        audited_question["selections_count"] = self.selectors.len().into();
        audited_question["whole_sessions"] = self.whole.into();
        audited_question
    }

    /// Why a selection finds nothing.
    fn cause(&self, reach: &mut HistoryExtent, number: usize, known: SessionTotals, drops: &SearchNotes) -> Cause {
        let selector = &self.selectors[number];
        if selector.since > self.now {
            let sentence = format!(
                "that is in the future: {} is after {}, which is now; is the clock, or the time zone, of who wrote it right?",
                selector.since, self.now
            );
            return Cause::new("in_future", sentence);
        }
        reach.cause(&Question::of(selector, known, drops))
    }

    /// Why none of them finds anything: the first one's cause.
    pub(super) fn explain_nothing(&self, service: &Service, known: &[SessionTotals], drops: &SearchNotes) -> Cause {
        let cause = self.cause(&mut service.history().reach(), 0, known[0], drops);
        match self.selectors.len() {
            1 => cause,
            count => {
                let sentence = format!("none of {count} selections finds a packet; the first: {}", cause.sentence);
                Cause { sentence, ..cause }
            }
        }
    }

    /// What is missing of all of them together.
    pub(super) fn explain_missing(&self, known: &[SessionTotals]) -> Option<String> {
        let unknown = known.iter().filter(|known| known.sessions == 0).count();
        let cut = known.iter().filter(|known| known.is_cut()).count();
        let left_out = known.iter().filter(|known| known.left_out > 0).count();
        let parts = [
            (unknown, "mean no session that is known"),
            (cut, "mean sessions that were cut"),
            (left_out, "mean more sessions than fit into the memory for queries"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        (!parts.is_empty()).then(|| format!("of {} selections {}", known.len(), parts.join(", ")))
    }
}
