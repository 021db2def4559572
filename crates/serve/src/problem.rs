//! Errors as `application/problem+json` (RFC 9457): the detail is a sentence that says what to do.

use std::path::Path;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::parameters::ParameterError;
use super::peer::{Peer, Role};
use formats::writer::ExportError;
use query::QueryError;
use query::explain::Cause;

/// The content type of every error.
pub const CONTENT: &str = "application/problem+json";
/// Seconds after which a busy service may be asked again.
const RETRY_AFTER_S: u64 = 5;

/// One error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind it is, as a URI that is never resolved: `urn:retrocap:problem:` and a word.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
    /// Why nothing was found, as a word for scripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:retrocap:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            cause: None,
        }
    }

    /// How a read ended that came to this, for the audit log.
    pub(super) fn outcome(&self) -> &str {
        if self.kind.ends_with(":nothing-matched") { "nothing matched" } else { &self.detail }
    }

    /// The question cannot be understood.
    pub fn bad_query(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-query", "The question cannot be answered as it is asked", detail)
    }

    /// Nothing matched.
    pub fn nothing_matched(cause: &Cause) -> Self {
        let problem = Self::new(StatusCode::NOT_FOUND, "nothing-matched", "No packet matches", &*cause.sentence);
        Self { cause: Some(cause.code.to_owned()), ..problem }
    }

    /// No such address.
    pub fn no_such_path(path: &str) -> Self {
        let path: String = path.chars().take(100).collect();
        let detail = format!("there is nothing at {path}; /v1/openapi.json lists what there is");
        Self::new(StatusCode::NOT_FOUND, "no-such-path", "There is no such address", detail)
    }

    /// The address does not take this method.
    pub fn wrong_method(method: &str, path: &str) -> Self {
        let detail = format!("{path} does not take {method}; /v1/openapi.json lists what it takes");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "The address does not take this method", detail)
    }

    /// Too many ask at once.
    pub fn busy(what: &str) -> Self {
        let detail = format!("all {what} that fit into the memory budget are running; try again in {RETRY_AFTER_S} s");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many queries at once", detail)
    }

    /// Only some may say what is not recorded.
    pub fn not_allowed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "not-allowed", "That is for others to ask", detail)
    }

    /// The recorder is about to end.
    pub fn stopping() -> Self {
        let detail = "the recorder is stopping; ask again when it has been started";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The recorder is stopping", detail)
    }

    /// The request has a body, and a large one.
    pub fn body_too_large(bytes_max: u64) -> Self {
        let detail = format!("a request may have {bytes_max} bytes of body here; ask for less at once");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The request is too large", detail)
    }

    /// The body does not come.
    pub fn body_too_slow() -> Self {
        let detail = "the body of the request did not come in time; send it with its head";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The request did not come in time", detail)
    }

    /// The client may not ask this.
    pub fn forbidden(peer: &Peer, needed: Role) -> Self {
        let detail = if peer.is_loopback() {
            format!(
                "over plain TCP {needed} is not served, as any web page could ask for it; use the socket, or --listen"
            )
        } else {
            format!(
                "{peer} has {}, and this takes the role {needed}: let the recorder's administrator add it, in the \
                 certificate (retrocap certs client NAME --role {needed}) or under [[client]] in its configuration",
                peer.roles()
            )
        };
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The client may not ask this", detail)
    }

    /// A browser was made to ask.
    pub fn wrong_host(host: &str) -> Self {
        let host: String = host.chars().take(100).collect();
        let detail = format!("this recorder is not called {host:?}; ask for localhost or 127.0.0.1");
        Self::new(StatusCode::MISDIRECTED_REQUEST, "wrong-host", "Another host was asked for", detail)
    }

    /// Who reads could not be written down.
    pub fn not_audited(path: &Path, reason: &str) -> Self {
        let directory = path.parent().unwrap_or(path).display();
        // Reasons are the system's words.
        let remedy = match () {
            () if reason.contains("No space") || reason.contains("quota") => "make room for it".to_owned(),
            () if reason.contains("denied") || reason.contains("not permitted") => format!(
                "give {directory} and the files in it to the recorder's user (sandbox.uid in `retrocap status --json`), or \
                 restart the recorder as root, which does so"
            ),
            () if reason.contains("Read-only") => format!("make {directory} writable"),
            () => format!("look at {directory}"),
        };
        let detail = format!(
            "the audit log {} cannot be written ({reason}), and nothing is read or pinned without: {remedy}, or start the \
             recorder with --audit best-effort",
            path.display()
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-audited", "The audit log cannot be written", detail)
    }

    /// More selections than there is memory for.
    pub fn too_many_selections(most: u64) -> Self {
        let detail = format!("for a list of this length there is memory for {most} selections; ask for fewer at once");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-selections", "Too many selections at once", detail)
    }

    /// Pins have no room for more.
    pub fn pins_full(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "pins-full", "Pins have no room for that", detail)
    }

    /// There is no pin of this number.
    pub fn no_such_pin(id: u64) -> Self {
        let detail = format!("there is no pin {id}, or its time has come; `retrocap pin --list` shows what there is");
        Self::new(StatusCode::NOT_FOUND, "no-such-pin", "There is no such pin", detail)
    }

    /// A fault of the recorder's.
    pub fn internal() -> Self {
        let detail = "the recorder failed to answer, its log says why; recording goes on, please report it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The recorder failed to answer", detail)
    }
}

impl From<ParameterError> for Problem {
    fn from(error: ParameterError) -> Self {
        Self::bad_query(error.to_string())
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self::bad_query(error.to_string())
    }
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        Self::bad_query(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = match serde_json::to_vec(&self) {
            Ok(body) => (status, body).into_response(),
            Err(_) => status.into_response(),
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}
