//! The page: its files, the exchange of its links, and who its requests come from.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::super::answer::dissector;
use super::super::peer::Peer;
use super::super::service::Service;
use super::response::{HttpProblem, SafeJson};
use api::Problem;
use api::page_answers::{NewPageLink, PageExchange, PageLink, PageToken, PageVisitor};
use page::File;
use page::headers::{Purpose, headers};

type Result<T> = std::result::Result<T, HttpProblem>;

/// Gives a request at the port of the page the identity of whoever asked for the link, if it has their token.
pub(super) fn identified(service: &Service, peer: Peer, headers: &HeaderMap) -> std::result::Result<Peer, Problem> {
    let (true, Some(token)) = (peer.is_page_visitor(), token(headers)) else { return Ok(peer) };
    let owner = service.page.as_ref().and_then(|port| port.owner(token, &peer));
    owner.ok_or_else(Problem::page_session_ended)
}

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

pub(super) async fn index(headers: HeaderMap) -> Result<Response> {
    named("index.html", &headers)
}

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response> {
    named(&name, &headers)
}

fn named(name: &str, headers: &HeaderMap) -> Result<Response> {
    let file = page::file(name).ok_or_else(|| HttpProblem(Problem::no_such_path(name)))?;
    Ok(of_file(file, accepts_gzip(headers)))
}

fn of_file(file: &'static File, gzip: bool) -> Response {
    let content = if gzip { file.gzip } else { file.content };
    let mut response = (StatusCode::OK, content).into_response();
    let set = response.headers_mut();
    set.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type()));
    set.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if gzip {
        set.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    protect(set, file.purpose());
    response
}

fn protect(set: &mut HeaderMap, purpose: Purpose) {
    for (name, value) in headers(purpose) {
        set.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// A file of the dissector that the administrator installed.
pub(super) async fn dissector_file(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let folder = service.page.as_ref().and_then(|port| port.dissector.clone());
    let folder = folder.ok_or_else(|| HttpProblem(Problem::no_such_path(&name)))?;
    let (answer, is_gzip) = dissector::file(&service, &peer, &folder, &name, accepts_gzip(&headers)).await?;
    let mut response = answer.into_response();
    let set = response.headers_mut();
    set.insert(CONTENT_TYPE, HeaderValue::from_static(page::files::content_type(&name)));
    if is_gzip {
        set.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    protect(set, Purpose::Dissector);
    Ok(response)
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| coding.trim().split(';').next() == Some("gzip"))
}

pub(super) async fn visitor(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
) -> SafeJson<PageVisitor> {
    let names = rustix::system::uname();
    let port = service.page.as_ref();
    let visitor = PageVisitor {
        who: service.audit().name_of(&peer).into(),
        roles: peer.roles().names().map(Into::into).collect(),
        host: names.nodename().to_string_lossy().into_owned().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        socket: port.map(|port| port.socket_path.clone()).unwrap_or_default().into(),
        dissector: port.is_some_and(|port| port.dissector.is_some()),
        idle_s: port.filter(|_| peer.has_page_session()).map(|port| port.sessions.idle_max().as_secs()),
    };
    SafeJson(StatusCode::OK, visitor)
}

pub(super) async fn link(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Result<SafeJson<PageLink>> {
    let new: NewPageLink = read(&body)?;
    let refused = |why: &str| HttpProblem(Problem::no_page(why));
    if !peer.is_at_socket() {
        return Err(refused(
            "links are made over the Unix socket alone: run `retrocap page` on the recorder's host; from another machine, open \
             the address of its TLS listener in a browser that has a client certificate",
        ));
    }
    let port =
        service.page.as_ref().ok_or_else(|| refused("this recorder has no port for its page; its log says why"))?;
    let link = port.link(&peer, new.browser_uid).await.map_err(refused)?;
    tracing::info!("{peer} asked for a link to the page");
    Ok(SafeJson(StatusCode::CREATED, link))
}

pub(super) async fn exchange(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Result<SafeJson<PageToken>> {
    let PageExchange { link } = read(&body)?;
    let port = service.page.as_ref().filter(|_| peer.is_page_visitor());
    let token = port.and_then(|port| port.exchange(&link, &peer)).ok_or_else(Problem::page_session_ended)?;
    Ok(SafeJson(StatusCode::CREATED, PageToken { token: token.reveal().to_owned() }))
}

pub(super) async fn end(State(service): State<Arc<Service>>, headers: HeaderMap) -> Result<StatusCode> {
    let (Some(port), Some(token)) = (&service.page, token(&headers)) else {
        return Err(HttpProblem(Problem::page_session_ended()));
    };
    port.sessions.end(token);
    Ok(StatusCode::NO_CONTENT)
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        HttpProblem(Problem::bad_query(format!("the body is not the JSON that /v1/openapi.json describes: {error}")))
    })
}
