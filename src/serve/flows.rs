//! `/v1/flows`: the sessions known, one JSON object a line.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, TRAILER};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::connections::Peer;
use super::parameters::FlowQuery;
use super::problem::Problem;
use super::stream::{Closed, Sink, stream};
use super::{Service, packets::description};
use crate::query::explain::Cause;
use crate::query::flows::{Flow, SPARE_ROWS};

/// Answers with the sessions that match, or says why there are none.
pub(super) async fn flows(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = FlowQuery::read(query.as_deref().unwrap_or_default(), service.clock())?;
    tracing::debug!("{peer} lists sessions: {}", description(&query.request));
    let asked = query.request.limit.unwrap_or(u64::MAX);
    let (place, fit) = service.listing(asked.min(known_at_most(&service)) + SPARE_ROWS).await?;
    let fit = fit - SPARE_ROWS.min(fit);
    service.activity.flow_queries.fetch_add(1, Ordering::Relaxed);
    query.request.limit = Some(asked.min(fit));
    let listing = Listing { service: Arc::clone(&service), query, cut_at: (fit < asked).then_some(fit) };
    let body = stream(&service, place, move |sink| listing.run(sink)).await?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (TRAILER, HeaderValue::from_static("retrocap-flows, retrocap-note")),
    ];
    Ok((headers, axum::body::Body::new(body)).into_response())
}

/// How many sessions there can be: not more than entries, nor than packets.
fn known_at_most(service: &Service) -> u64 {
    let history = service.history();
    let capacity: u64 = history.workers.iter().map(|worker| u64::from(worker.ledger.capacity())).sum();
    capacity.min(history.totals().stored.packets)
}

struct Listing {
    service: Arc<Service>,
    query: FlowQuery,
    /// How many sessions fit into memory, where that is fewer than were asked for.
    cut_at: Option<u64>,
}

impl Listing {
    fn run(self, mut sink: Sink) -> Result<(), Closed> {
        let history = self.service.history();
        let mut flows = match history.flows(&self.query.request, self.query.sort) {
            Ok(flows) => flows,
            Err(error) => return sink.refuse(error),
        };
        let interfaces = history.interfaces.snapshot();
        let mut listed = 0u64;
        let mut stopped = false;
        for session in &mut flows {
            let interface = interfaces.get(usize::from(session.key.interface().0));
            let flow = Flow::new(&session, interface.map(Arc::as_ref));
            let buffer = sink.buffer();
            if serde_json::to_writer(&mut *buffer, &flow).is_err() {
                unreachable!("a flow is made of texts and numbers, and a buffer takes all of it");
            }
            buffer.push(b'\n');
            sink.send_full()?;
            listed += 1;
            if self.service.is_stopping() {
                stopped = true;
                break;
            }
        }
        if listed == 0 && flows.overtaken() > 0 {
            return sink.refuse(Problem::nothing_matched(&Cause::new(
                "cut",
                format!(
                    "{} sessions that match gave way to newer ones while they were listed; ask again, or for the latest \
                     with --sort last",
                    flows.overtaken()
                ),
            )));
        }
        if listed == 0 {
            return match history.explain_nothing(&self.query.request, None) {
                Ok(cause) => sink.refuse(Problem::nothing_matched(&cause)),
                Err(error) => sink.refuse(error),
            };
        }
        sink.end(self.trailers(listed, stopped))
    }

    fn trailers(&self, listed: u64, stopped: bool) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert(HeaderName::from_static("retrocap-flows"), HeaderValue::from(listed));
        let note = match self.cut_at {
            _ if stopped => "incomplete: the recorder was stopped while this was sent".to_owned(),
            Some(fit) if listed >= fit => format!(
                "incomplete: the first {fit} sessions are listed, as many as fit into the memory for queries; \
                 narrow it down with since, until, limit or an expression"
            ),
            _ => return trailers,
        };
        if let Ok(value) = HeaderValue::from_str(&note) {
            trailers.insert(HeaderName::from_static("retrocap-note"), value);
        }
        trailers
    }
}
