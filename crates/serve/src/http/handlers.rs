//! The handlers of the routes: each reads its question and gives its answer.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::super::answer::{
    Answer, candidates as candidate_answers, columns as column_answers, content, flows as flow_answers, follow,
    packet_lines, packets as packet_answers, pins, selections as many,
};
use super::super::peer::Peer;
use super::super::service::Service;
use super::super::{health as health_checks, metrics as metric_text};
use super::body::{BODY_BYTES_MAX, read_body};
use super::response::{HttpProblem, SafeJson};
use api::Problem;
use api::answers::{Health, PinList, PinStatus};
use api::bodies::NewPin;
use api::candidates::CandidateList;
use api::content_parameters::{FilesQuery, HuntQuery};
use api::page_parameters::{self, AmountQuery};
use api::parameters::{FlowQuery, PacketQuery};
use api::question::UnpinQuestion;
use query::status::{SpoolStatus, Status};
use query::timeline::Timeline;

type Result<T> = std::result::Result<T, HttpProblem>;

pub(super) async fn status(State(service): State<Arc<Service>>) -> Result<SafeJson<Status>> {
    // All sessions are counted.
    let asked = Arc::clone(&service);
    Ok(SafeJson(StatusCode::OK, asked.blocking(move || service.status()).await?))
}

pub(super) async fn spool(State(service): State<Arc<Service>>) -> SafeJson<Option<SpoolStatus>> {
    SafeJson(StatusCode::OK, service.history().spool_status())
}

pub(super) async fn health(State(service): State<Arc<Service>>) -> Result<SafeJson<Health>> {
    let asked = Arc::clone(&service);
    Ok(SafeJson(StatusCode::OK, asked.blocking(move || health_checks::check(&service)).await?))
}

pub(super) async fn metrics(State(service): State<Arc<Service>>) -> Result<Response> {
    let asked = Arc::clone(&service);
    let text = asked.blocking(move || metric_text::text(&service)).await?;
    Ok(([(CONTENT_TYPE, metric_text::CONTENT)], text).into_response())
}

/// The OpenAPI document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description(pub(super) &'static str);

pub(super) async fn description(Extension(Description(document)): Extension<Description>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], document)
}

pub(super) async fn packets(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Answer> {
    let query = request.uri().query().unwrap_or_default();
    let query = PacketQuery::read(query, service.clock()).map_err(Problem::from)?;
    if query.follow {
        return Ok(follow::packets(service, peer, query, request.into_body()).await?);
    }
    read_body(request.into_body(), BODY_BYTES_MAX, service.limits().head_timeout).await?;
    Ok(packet_answers::packets(service, peer, query).await?)
}

pub(super) async fn selections(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Answer> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let Some(length) = length.filter(|&length| length > 0) else {
        return Err(HttpProblem(Problem::bad_query(
            "the body is missing, or does not say its length: send JSON like \
             {\"selections\": [{\"flow\": \"10.0.0.5:51234 192.0.2.7:443 tcp\", \"since\": \"10m\"}]} with Content-Length",
        )));
    };
    let (share, limits) = service.selections(&peer, length).await?;
    let body = read_body(request.into_body(), length, service.limits().head_timeout).await?;
    Ok(many::packets(service, peer, share, limits, &body).await?)
}

pub(super) async fn flows(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Answer> {
    let query = query.unwrap_or_default();
    let query = FlowQuery::read(&query, service.clock()).map_err(Problem::from)?;
    Ok(flow_answers::flows(service, peer, query).await?)
}

pub(super) async fn hunt(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Answer> {
    let query = HuntQuery::read(&query.unwrap_or_default(), service.clock()).map_err(Problem::from)?;
    Ok(content::hunt::hunt(service, peer, query).await?)
}

pub(super) async fn hunt_rule(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Answer> {
    let query = HuntQuery::of_rule(&query.unwrap_or_default(), &body, service.clock())?;
    Ok(content::hunt::hunt(service, peer, query).await?)
}

pub(super) async fn candidates(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Answer> {
    let query = CandidateList::selection(request.uri().query().unwrap_or_default(), service.clock());
    let query = query.map_err(Problem::from)?;
    let places = service.content_query(&peer).await?;
    let body = read_body(request.into_body(), CandidateList::BODY_BYTES_MAX, service.limits().head_timeout).await?;
    Ok(candidate_answers::packets(service, peer, places, query, &body).await?)
}

pub(super) async fn files(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Answer> {
    let query = FilesQuery::read(&query.unwrap_or_default(), service.clock()).map_err(Problem::from)?;
    Ok(content::files::files(service, peer, query).await?)
}

pub(super) async fn file(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Answer> {
    let query = query.unwrap_or_default();
    let (query, complete) = FilesQuery::read_one(&id, &query, service.clock()).map_err(Problem::from)?;
    Ok(content::files::file(service, peer, query, complete).await?)
}

pub(super) async fn columns(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Answer> {
    let request = page_parameters::selection(&query.unwrap_or_default(), service.clock()).map_err(Problem::from)?;
    Ok(column_answers::columns(service, peer, request).await?)
}

pub(super) async fn timeline(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<SafeJson<Timeline>> {
    let query = AmountQuery::spans(&query.unwrap_or_default(), service.clock()).map_err(Problem::from)?;
    Ok(SafeJson(StatusCode::OK, column_answers::timeline(service, peer, query).await?))
}

pub(super) async fn lines(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Answer> {
    let query = AmountQuery::lines(&query.unwrap_or_default(), service.clock()).map_err(Problem::from)?;
    Ok(packet_lines::lines(service, peer, query).await?)
}

pub(super) async fn streams(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Answer> {
    let query = AmountQuery::bytes(&query.unwrap_or_default(), service.clock()).map_err(Problem::from)?;
    Ok(content::said::streams(service, peer, query).await?)
}

pub(super) async fn messages(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Answer> {
    let query = AmountQuery::messages(&query.unwrap_or_default(), service.clock()).map_err(Problem::from)?;
    Ok(content::said::messages(service, peer, query).await?)
}

pub(super) async fn pins(State(service): State<Arc<Service>>) -> Result<SafeJson<PinList>> {
    Ok(SafeJson(StatusCode::OK, pins::list(service).await?))
}

pub(super) async fn add_pin(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Result<SafeJson<PinStatus>> {
    let pin = pins::add(service, peer, NewPin::read(&body)?).await?;
    Ok(SafeJson(StatusCode::CREATED, pin))
}

pub(super) async fn remove_pin(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode> {
    let question = UnpinQuestion::read(&query.unwrap_or_default()).map_err(Problem::from)?;
    let Some(id) = question.id else {
        return Err(HttpProblem(Problem::bad_query("which pin? name it: ?id=3; GET /v1/pins lists them")));
    };
    pins::remove(service, peer, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
