//! Leaves out the sessions in which a search can find nothing, before packets are merged.

use serde_json::{Value, json};

use super::super::quota::Share;
use ::hunt::narrow::{CandidateQuery, Candidates, Searched, StoredPacket};
use api::candidates::CandidateList;
use engine::session::SessionKey;
use engine::session::key::Side;
use query::{History, Packets, Request, SessionQuestion};

/// Literals and addresses that the audit log names; it counts those beyond.
const AUDITED_MAX: usize = 1000;

/// A search for candidates. Nobody else searches meanwhile.
#[derive(Debug)]
pub(crate) struct CandidateSearch {
    wanted: CandidateQuery,
    _content: Share,
}

/// What a search for candidates looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    pub(crate) searched: Searched,
    pub(crate) cut_sessions: u64,
}

impl CandidateSearch {
    /// A search, which holds the place of a search of contents.
    pub(crate) fn new(wanted: CandidateQuery, content: Share) -> Self {
        Self { wanted, _content: content }
    }

    /// The question, for the audit log.
    pub(crate) fn audited(&self, request: &Request) -> Value {
        let CandidateQuery { literals, addresses, objects } = &self.wanted;
        let first = CandidateList::new(&CandidateQuery {
            literals: literals.iter().take(AUDITED_MAX).cloned().collect(),
            addresses: addresses.iter().take(AUDITED_MAX).cloned().collect(),
            objects: *objects,
        });
        let mut audited = api::describe::audit(request);
        audited["hunt"] = json!({
            "literals": first.literals, "literals_count": literals.len(),
            "addresses": first.addresses, "addresses_count": addresses.len(), "objects": objects,
        });
        audited
    }

    /// Leaves out the sessions that are no candidates.
    pub(crate) fn narrow(&self, history: &History, packets: &mut Packets<'_>) -> Option<Looked> {
        narrow(&self.wanted, history, packets)
    }
}

/// Leaves out the sessions that are no candidates. `None` if packets on disk are a part of the answer.
pub(crate) fn narrow(wanted: &CandidateQuery, history: &History, packets: &mut Packets<'_>) -> Option<Looked> {
    if !packets.can_narrow() {
        return None;
    }
    let slots = history.workers.iter().map(|worker| worker.sessions.used() as usize).collect::<Vec<_>>();
    let mut candidates = Candidates::new(wanted, &slots);
    if candidates.are_addresses() && packets.can_narrow_by_session() {
        let narrowed = packets.narrow_by_session(&mut Addresses(&candidates));
        let searched = Searched { sessions: narrowed.sessions, bytes: narrowed.bytes, ..Searched::default() };
        return Some(Looked { searched, cut_sessions: narrowed.cut_sessions });
    }
    let narrowed = packets.narrow(&mut |packet| {
        candidates.is_candidate(&StoredPacket {
            worker: packet.worker,
            slot: packet.slot.0,
            arrival: packet.arrival,
            link_type: packet.link_type,
            data: packet.data,
        })
    });
    Some(Looked { searched: candidates.searched, cut_sessions: narrowed.cut_sessions })
}

/// Asks whether sessions have one of the addresses, and whether packets may say one.
struct Addresses<'a>(&'a Candidates);

impl SessionQuestion for Addresses<'_> {
    fn is_wanted(&mut self, key: &SessionKey) -> bool {
        [Side::Low, Side::High].into_iter().filter_map(|side| key.endpoint(side).ip).any(|ip| self.0.has_address(ip))
    }

    fn may_say(&mut self, packet: &query::StoredPacket<'_>) -> bool {
        Candidates::may_be_dns(packet.link_type, packet.data)
    }
}

impl Looked {
    /// The counts of the answer.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 9] {
        let Searched { sessions, bytes, encrypted_sessions, encrypted_bytes, undecoded, without_start, truncated } =
            self.searched;
        [
            ("searched-sessions", sessions),
            ("searched-bytes", bytes),
            ("encrypted-sessions", encrypted_sessions),
            ("encrypted-bytes", encrypted_bytes),
            ("undecoded", undecoded),
            ("without-start", without_start),
            ("truncated", truncated.0),
            ("truncated-bytes", truncated.1),
            ("cut-sessions", self.cut_sessions),
        ]
    }
}
