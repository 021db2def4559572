//! Packets of many selections, found in one pass: one file, or lines of JSON.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::audit::Action;
use super::super::peer::Peer;
use super::super::quota::Share;
use super::super::service::Service;
use super::lines::LinesAnswer;
use super::packets::{Scope, export};
use super::selection_query::SelectionQuery;
use super::stream::{Sink, stream};
use super::{Answer, AnswerKind};
use api::Problem;
use api::bodies::{Arrangement, SelectionList};
use api::parameters::PacketQuery;
use query::Request;
use query::search::SearchLimits;

/// Answers with the packets of the selections in a body, for which `share` was set aside.
pub(crate) async fn packets(
    service: Arc<Service>,
    peer: Peer,
    share: Share,
    limits: SearchLimits,
    body: &[u8],
) -> Result<Answer, Problem> {
    let list = SelectionList::read(body)?;
    let room = Service::selectors_max(body.len() as u64);
    if list.selections.len() as u64 > room {
        return Err(Problem::too_many_selections(room));
    }
    let (selections, arrangement) = (SelectionQuery::new(&list, limits, service.clock())?, list.answer);
    let query = PacketQuery {
        request: Request { expression: list.filter, interface: list.interface, ..Request::default() },
        format: list.format.into(),
        precision: list.precision.into(),
        ..PacketQuery::default()
    };
    tracing::debug!("{peer} reads the packets of {} selections", selections.selectors.len());
    service.counters.packet_queries.fetch_add(1, Ordering::Relaxed);
    if arrangement == Arrangement::File {
        return export(service, peer, share, query, Scope::Selections(selections)).await;
    }
    let audited = selections.audited(&query.request);
    let lines =
        LinesAnswer { service: Arc::clone(&service), query, selections, split: arrangement == Arrangement::Split };
    let answer = move |sink: Sink| match lines.service.audit().begin(&peer, Action::Packets, audited) {
        Ok(entry) => lines.run(sink, entry),
        Err(problem) => sink.refuse(problem),
    };
    Ok(Answer { media: AnswerKind::Files, body: stream(&service, share, answer).await? })
}
