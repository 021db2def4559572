//! The routes. What each of them takes is told by `/v1/openapi.json`; tests compare the two.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Extension, Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::audit::Action;
use super::health::Health;
use super::peer::{Peer, Role};
use super::problem::Problem;
use super::{Service, flows, health, metrics, packets, pins, selections};
use base::log_limit::LogLimit;
use query::status::Status;

/// The description of this API, as `/v1/openapi.json` gives it.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Every address, with the methods it takes.
pub const ROUTES: &[(&str, &[&str])] = &[
    ("/v1/status", &["get"]),
    ("/v1/packets", &["get", "post"]),
    ("/v1/flows", &["get"]),
    ("/v1/pins", &["get", "post", "delete"]),
    ("/v1/health", &["get"]),
    ("/v1/openapi.json", &["get"]),
    ("/metrics", &["get"]),
];

/// Bytes of a request's body, at most, where it is not the question itself. Only a new pin has one.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// Characters of a refused question that are written down.
const TARGET_CHARS_MAX: usize = 1000;

pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/packets", get(packets::packets).post(selections::packets))
        .route("/v1/flows", get(flows::flows))
        .route("/v1/pins", get(pins::list).post(pins::add).delete(pins::remove))
        .route("/v1/health", get(health))
        .route("/v1/openapi.json", get(openapi))
        .route("/metrics", get(metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&service), take_body))
        .layer(middleware::from_fn_with_state(Arc::clone(&service), authorise))
        .with_state(service)
}

async fn status(State(service): State<Arc<Service>>) -> Result<Json<Status>, Problem> {
    // All sessions are counted.
    let asked = Arc::clone(&service);
    blocking(&asked, move || service.status()).await.map(Json)
}

async fn health(State(service): State<Arc<Service>>) -> Result<Json<Health>, Problem> {
    let asked = Arc::clone(&service);
    blocking(&asked, move || health::check(&service)).await.map(Json)
}

async fn metrics(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let asked = Arc::clone(&service);
    let text = blocking(&asked, move || metrics::text(&service)).await?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT)], text).into_response())
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::no_such_path(uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::wrong_method(method.as_str(), uri.path())
}

/// Lets pass who may ask this.
async fn authorise(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    // The configuration may say otherwise since they have connected.
    let peer = match &service.tls {
        Some(tls) => tls.with_current_roles(peer),
        None => peer,
    };
    request.extensions_mut().insert(peer.clone());
    if peer.is_loopback() {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if !is_this_host(host) {
            service.counters.roles_refused.fetch_add(1, Ordering::Relaxed);
            return Problem::wrong_host(host).into_response();
        }
    }
    let needed = Role::needed(request.uri().path());
    if peer.may(needed) {
        return next.run(request).await;
    }
    let problem = Problem::forbidden(&peer, needed);
    service.counters.roles_refused.fetch_add(1, Ordering::Relaxed);
    let action = match needed {
        Role::Packets => Some(Action::Packets),
        Role::Flows => Some(Action::Flows),
        Role::Pin => Some(Action::Pin),
        Role::Status => None,
    };
    if let Some(action) = action {
        let target: String = request.uri().to_string().chars().take(TARGET_CHARS_MAX).collect();
        let query = serde_json::json!({ "method": request.method().as_str(), "target": target });
        let why = problem.detail.clone();
        let asked = Arc::clone(&service);
        let asking = peer.clone();
        let _ = blocking(&asked, move || service.audit.refused(&asking, action, query, &why)).await;
    }
    let mut refusal = problem.into_response();
    if peer.roles().is_empty() {
        // It has nothing else to ask.
        refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    refusal
}

/// A web page can give a name of its own to this host, and make a browser ask; the name then stands in the question.
fn is_this_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Takes the body of a request, which has to be small and to come in time. One whose length says that it is too large is
/// never read: the connection is closed after the answer. Selections are left alone, as they set memory aside first.
async fn take_body(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let selects = request.method() == Method::POST && request.uri().path() == "/v1/packets";
    let bytes_max = if selects { selections::BODY_BYTES_MAX } else { BODY_BYTES_MAX };
    let length = request.headers().get(CONTENT_LENGTH).map(|length| length.to_str().ok().and_then(|l| l.parse().ok()));
    if length.is_some_and(|length| length.is_none_or(|length: u64| length > bytes_max)) {
        return Problem::body_too_large(bytes_max).into_response();
    }
    if selects || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, usize::try_from(bytes_max).unwrap_or(usize::MAX));
    match tokio::time::timeout(service.limits().head_timeout, bytes).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        Ok(Err(_)) => Problem::body_too_large(bytes_max).into_response(),
        Err(_) => {
            service.counters.clients_slow.fetch_add(1, Ordering::Relaxed);
            Problem::body_too_slow().into_response()
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    service: &Service,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    service.spawn_query(work).await.map_err(|error| {
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            tracing::error!("an answer failed: {error}{left_out}");
        }
        Problem::internal()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_known_by_the_name_it_asks_for() {
        for (host, ours) in [
            ("localhost:57080", true),
            ("LOCALHOST", true),
            ("127.0.0.1:1", true),
            ("127.9.9.9", true),
            ("[::1]:57080", true),
            ("::1", false),
            ("evil.example:57080", false),
            ("localhost.evil.example", false),
            ("10.0.0.1:57080", false),
            ("", false),
        ] {
            assert_eq!(is_this_host(host), ours, "{host}");
        }
    }
}
