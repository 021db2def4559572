//! Answers and problems as HTTP responses.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, TRAILER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use serde::Serialize;

use super::super::answer::stream::{AnswerEnd, AnswerPart, Body};
use super::super::answer::{Answer, AnswerKind};
use api::Problem;
use api::problem::{CONTENT, RETRY_AFTER_S};
use base::foreign::json_document;
use formats::writer::Format;

/// A problem as a response.
#[derive(Debug)]
pub(super) struct HttpProblem(pub(super) Problem);

impl From<Problem> for HttpProblem {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = SafeJson(status, self.0).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}

/// A JSON document in which no text deceives its reader.
#[derive(Debug)]
pub(super) struct SafeJson<T>(pub(super) StatusCode, pub(super) T);

impl<T: Serialize> IntoResponse for SafeJson<T> {
    fn into_response(self) -> Response {
        let Ok(document) = serde_json::to_string(&self.1) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        (self.0, content_type, json_document(&document).into_owned()).into_response()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (content_type, trailers) = match &self.media {
            AnswerKind::Capture(format) => (
                match format {
                    Format::Pcapng => "application/x-pcapng",
                    Format::Pcap => "application/vnd.tcpdump.pcap",
                },
                Some(
                    "retrocap-packets, retrocap-bytes, retrocap-overtaken, retrocap-note, retrocap-missing, retrocap-record",
                ),
            ),
            AnswerKind::Candidates => (
                "application/x-pcapng",
                Some(
                    "retrocap-packets, retrocap-bytes, retrocap-overtaken, retrocap-searched-sessions, \
                     retrocap-searched-bytes, retrocap-encrypted-sessions, retrocap-encrypted-bytes, \
                     retrocap-undecoded, retrocap-without-start, retrocap-truncated, retrocap-truncated-bytes, \
                     retrocap-cut-sessions, retrocap-note, retrocap-missing",
                ),
            ),
            AnswerKind::Flows => (
                "application/x-ndjson",
                Some(
                    "retrocap-flows, retrocap-sessions, retrocap-session-packets, retrocap-session-bytes, \
                     retrocap-kept-bytes, retrocap-cut-sessions, retrocap-gone-sessions, retrocap-unknown-sessions, \
                     retrocap-sums, retrocap-next, retrocap-note",
                ),
            ),
            AnswerKind::Files => ("application/x-ndjson", None),
            AnswerKind::Columns => ("application/vnd.retrocap.columns", None),
            AnswerKind::Lines => {
                ("application/x-ndjson", Some("retrocap-packets, retrocap-overtaken, retrocap-note, retrocap-missing"))
            }
            AnswerKind::Matches | AnswerKind::Objects => (
                "application/x-ndjson",
                Some("retrocap-matches, retrocap-packets, retrocap-overtaken, retrocap-note, retrocap-missing"),
            ),
            AnswerKind::Object { .. } | AnswerKind::Dissector => ("application/octet-stream", None),
        };
        let mut response = Response::new(axum::body::Body::new(HttpBody(self.body)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(trailers) = trailers {
            response.headers_mut().insert(TRAILER, HeaderValue::from_static(trailers));
        }
        if let AnswerKind::Object { file_name } = &self.media {
            forbid_rendering(response.headers_mut(), file_name);
        }
        response
    }
}

/// Keeps a browser from showing or running content of the network: it saves it.
fn forbid_rendering(headers: &mut HeaderMap, file_name: &str) {
    if let Ok(attachment) = HeaderValue::from_str(&format!("attachment; filename=\"{file_name}\"")) {
        headers.insert(CONTENT_DISPOSITION, attachment);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// The trailers of an answer in lines as its last line: `{"end": {"retrocap-note": …}}`.
pub(super) fn with_end_as_line(response: Response) -> Response {
    let is_lines = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/x-ndjson");
    if !is_lines {
        return response;
    }
    response.map(|body| {
        axum::body::Body::new(body.map_frame(|frame| match frame.into_trailers() {
            Ok(trailers) => {
                let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let end: serde_json::Map<String, serde_json::Value> =
                    trailers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value).into())).collect();
                let line = format!("{}\n", serde_json::json!({ "end": end }));
                Frame::data(Bytes::from(json_document(&line).into_owned()))
            }
            Err(frame) => frame,
        }))
    })
}

/// The stream of an answer as the body of a response. Its end becomes trailers; without an end the connection breaks.
struct HttpBody(Body);

impl hyper::body::Body for HttpBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.0.has_ended() {
            return Poll::Ready(None);
        }
        self.0.poll_part(cx).map(|part| {
            Some(match part {
                Some(AnswerPart::Data(chunk)) => Ok(Frame::data(Bytes::from(chunk))),
                Some(AnswerPart::End(ending)) => Ok(Frame::trailers(trailers(&ending))),
                None => Err(std::io::Error::other("the query ended before its answer did")),
            })
        })
    }
}

fn trailers(ending: &AnswerEnd) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for &(name, number) in &ending.counts {
        if let Ok(name) = HeaderName::try_from(format!("retrocap-{name}")) {
            trailers.insert(name, HeaderValue::from(number));
        }
    }
    let texts =
        [("retrocap-note", &ending.note), ("retrocap-missing", &ending.missing), ("retrocap-next", &ending.next)];
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::from_str(text)
            && !text.is_empty()
        {
            trailers.insert(HeaderName::from_static(name), value);
        }
    }
    if let Some((record, signature)) = &ending.record {
        let both = serde_json::json!({ "record": record, "signature": signature }).to_string();
        if let Ok(value) = HeaderValue::from_str(&BASE64_STANDARD.encode(both)) {
            trailers.insert(HeaderName::from_static("retrocap-record"), value);
        }
    }
    trailers
}
