//! The selectors of a request, asked of sessions and packets.

use super::history::History;
use super::request::{QueryError, Request};
use super::selectors::{Flow, PortRange, Subnet, shortened};
use base::packet::{InterfaceId, LinkType};
use decode::{self, Network};
use engine::session::community_id::CommunityId;
use engine::session::{SessionArray, SessionKey, key::Side};
use engine::store::record::RecordHeader;

/// Maximum number of interfaces that an error lists.
const INTERFACES_NAMED: usize = 32;

/// The selectors of one request, with the interface name resolved.
#[derive(Debug)]
pub(super) struct SessionSelectors {
    interfaces: Option<Vec<InterfaceId>>,
    flow: Option<Flow>,
    community_id: Option<CommunityId>,
    address: Option<Subnet>,
    port: Option<PortRange>,
    seed: u16,
}

impl SessionSelectors {
    pub(super) fn new(request: &Request, history: &History) -> Result<Self, QueryError> {
        let interfaces = match &request.interface {
            None => None,
            Some(name) => {
                let all = history.interfaces.snapshot();
                let ids: Vec<InterfaceId> = all.iter().filter(|i| i.name == *name).map(|i| i.id).collect();
                // The interface may be known on disk only.
                if ids.is_empty() && history.disk.is_none() {
                    let mut known: Vec<&str> =
                        all.iter().map(|i| i.name.as_str()).filter(|name| !name.is_empty()).collect();
                    known.dedup();
                    let more = if known.len() > INTERFACES_NAMED { ", …" } else { "" };
                    known.truncate(INTERFACES_NAMED);
                    let known = match known.is_empty() {
                        true if all.is_empty() => "none yet".to_owned(),
                        true => "only such without a name, as in a classic pcap file; leave -i out".to_owned(),
                        false => known.join(", ") + more,
                    };
                    let asked = shortened(&history.capture_interfaces.get().join(", "));
                    return Err(QueryError::UnknownInterface { name: shortened(name), known, asked });
                }
                Some(ids)
            }
        };
        let Request { community_id, address, port, .. } = *request;
        let seed = history.seed(request);
        Ok(Self { interfaces, flow: request.flow.clone(), community_id, seed, address, port })
    }

    /// Whether the request includes an interface.
    pub(super) fn interface(&self, id: InterfaceId) -> bool {
        self.interfaces.as_ref().is_none_or(|ids| ids.contains(&id))
    }

    /// Whether all interfaces are included.
    pub(super) fn is_any_interface(&self) -> bool {
        self.interfaces.is_none()
    }

    /// Whether any selector depends on the packet's session.
    pub(super) fn needs_session(&self) -> bool {
        self.flow.is_some() || self.community_id.is_some() || self.address.is_some() || self.port.is_some()
    }

    /// Whether a session meets all selectors except the interface.
    pub(super) fn session(&self, key: &SessionKey) -> bool {
        let ends = [key.endpoint(Side::Low), key.endpoint(Side::High)];
        // ICMP sessions have the type and the code in place of ports.
        let has_ports = matches!(key.protocol(), 6 | 17 | 33 | 132 | 136);
        self.flow.as_ref().is_none_or(|flow| flow.matches(key))
            && self.address.is_none_or(|net| ends.iter().any(|end| end.ip.is_some_and(|ip| net.contains(ip))))
            && self.port.is_none_or(|port| has_ports && ends.iter().any(|end| port.contains(end.port)))
            && self.community_id.is_none_or(|id| CommunityId::new(key, self.seed) == Some(id))
    }

    /// Whether the packet's session is known and does not match.
    pub(super) fn rejects(&self, sessions: &SessionArray, header: &RecordHeader) -> bool {
        self.needs_session()
            && sessions.session_at(header.session, header.sequence).is_some_and(|session| !self.session(&session.key))
    }

    /// Whether the packet's session matches. A known session covers its later fragments, which have no ports. If the
    /// session was forgotten, the packet's own headers decide.
    pub(super) fn packet(
        &self,
        sessions: &SessionArray,
        header: &RecordHeader,
        link_type: LinkType,
        data: &[u8],
    ) -> bool {
        if !self.needs_session() {
            return true;
        }
        let key = match sessions.session_at(header.session, header.sequence) {
            Some(session) => session.key,
            None => return self.bytes(link_type, data),
        };
        self.session(&key)
    }

    /// Whether a packet without a known session matches, by its own headers.
    pub(super) fn bytes(&self, link_type: LinkType, data: &[u8]) -> bool {
        if !self.needs_session() {
            return true;
        }
        let decoded = decode::decode(link_type, data);
        decoded.network != Network::Link && self.session(&SessionKey::new(&decoded, InterfaceId(0)).0)
    }
}
