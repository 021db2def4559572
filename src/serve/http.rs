//! The routes. What each of them takes is told by `/v1/openapi.json`; tests compare the two.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::health::Health;
use super::problem::Problem;
use super::{Service, flows, health, metrics, packets, pins, selections};
use crate::log_limit::LogLimit;
use crate::query::status::Status;

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

/// Bytes of a request's body, at most, where it is not the question itself.
const BODY_BYTES_MAX: u64 = 64 << 10;

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
        .layer(middleware::from_fn(limit_body))
        .with_state(service)
}

async fn status(State(service): State<Arc<Service>>) -> Result<Json<Status>, Problem> {
    // All sessions are counted.
    let asked = Arc::clone(&service);
    blocking(&asked, move || service.status()).await.map(Json)
}

async fn health(State(service): State<Arc<Service>>) -> Json<Health> {
    Json(health::check(&service))
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

/// Refuses a body that says it is too large. One that does not say is never read: the connection is closed after the
/// answer.
async fn limit_body(request: Request, next: Next) -> Response {
    let bytes_max = match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/packets") => selections::BODY_BYTES_MAX,
        _ => BODY_BYTES_MAX,
    };
    let length = request.headers().get(CONTENT_LENGTH).map(|length| length.to_str().ok().and_then(|l| l.parse().ok()));
    match length {
        Some(length) if length.is_none_or(|length: u64| length > bytes_max) => {
            Problem::body_too_large(bytes_max).into_response()
        }
        _ => next.run(request).await,
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
