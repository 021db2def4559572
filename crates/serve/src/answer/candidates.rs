//! `POST /v1/hunt`: the packets of sessions in which a client may find something. The client searches; the recorder only
//! compares bytes, and leaves out the sessions in which nothing can be found.

use std::sync::Arc;

use super::super::peer::Peer;
use super::super::quota::Share;
use super::super::service::Service;
use super::Answer;
use super::narrow::CandidateSearch;
use super::packets::{Scope, export};
use api::Problem;
use api::candidates::CandidateList;
use api::parameters::PacketQuery;

/// Answers with the packets of candidates. `places` are those of a search of contents.
pub(crate) async fn packets(
    service: Arc<Service>,
    peer: Peer,
    places: (Share, Share),
    query: PacketQuery,
    body: &[u8],
) -> Result<Answer, Problem> {
    let wanted = CandidateList::read(body)?;
    let (content, share) = places;
    export(service, peer, share, query, Scope::Candidates(CandidateSearch::new(wanted, content))).await
}
