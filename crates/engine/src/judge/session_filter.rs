//! A tcpdump expression that is applied to whole sessions. Classes and pins use it.

use crate::session::SessionKey;
use crate::session::key::Side;
use base::packet::Packet;
use filter::{Endpoints, FilterError, FilterSet, Outcome, SESSION_TERMS_MAX, SessionProbe, limited_terms};

/// A tcpdump expression that is applied to sessions.
///
/// Classes ask `matches_first` when a session begins: they mean a host in any VLAN. Pins ask
/// `matches_packet`, as searches do: an expression matches packets.
#[derive(Clone, Debug)]
pub struct SessionFilter {
    packets: FilterSet,
    sessions: SessionProbe,
}

impl SessionFilter {
    /// Compiles an expression of at most [`SESSION_TERMS_MAX`] terms. The limit bounds the cost per session, because
    /// each new session is tested up to three times.
    ///
    /// # Errors
    ///
    /// When the expression has more terms, or it has no meaning.
    pub fn new(expression: &str) -> Result<Self, FilterError> {
        limited_terms(expression, SESSION_TERMS_MAX)?;
        Ok(Self { packets: FilterSet::new(expression)?, sessions: SessionProbe::new(expression)? })
    }

    /// The tcpdump expression.
    pub fn expression(&self) -> &str {
        self.packets.expression()
    }

    /// Whether a session that begins with `packet` matches.
    pub(super) fn matches_first(&mut self, packet: &Packet<'_>, session: &Endpoints) -> bool {
        self.packets.matches(packet.link_type, packet.data, packet.original_len) || self.matches(session)
    }

    /// Whether a packet matches.
    pub(super) fn matches_packet(&mut self, packet: &Packet<'_>) -> bool {
        self.packets.matches(packet.link_type, packet.data, packet.original_len)
    }

    /// Whether packets of a session match that have no other headers in front than those of its endpoints: both tags of a
    /// VLAN, and no tunnel.
    pub(super) fn ask(&mut self, session: &Endpoints) -> Outcome {
        self.sessions.ask(session)
    }

    /// Whether a session matches, judged without its packets.
    ///
    /// A session with VLAN tags is also tested without them. libpcap looks behind a tag only if the expression says so,
    /// but a user who names a host means it in any VLAN.
    pub fn matches(&mut self, session: &Endpoints) -> bool {
        let untagged = Endpoints { vlan: None, inner_vlan: None, ..*session };
        self.sessions.matches(session) || (session.vlan.is_some() && self.sessions.matches(&untagged))
    }
}

/// The fields of a session that a filter can test.
impl From<&SessionKey> for Endpoints {
    fn from(key: &SessionKey) -> Self {
        Self {
            network: key.network(),
            protocol: key.protocol(),
            ethertype: key.ethertype(),
            source: key.address(Side::Low),
            destination: key.address(Side::High),
            source_port: key.port(Side::Low),
            destination_port: key.port(Side::High),
            one_way: key.one_way(),
            vlan: key.vlan(),
            inner_vlan: key.inner_vlan(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use decode::Network;

    #[test]
    fn what_each_session_is_asked_has_few_terms() {
        let hosts = |count| vec!["host 10.0.0.1"; count].join(" or ");
        assert!(SessionFilter::new(&hosts(SESSION_TERMS_MAX)).is_ok());
        let error = SessionFilter::new(&hosts(SESSION_TERMS_MAX + 1)).unwrap_err().to_string();
        assert!(error.contains("65 terms") && error.contains("at most 64"), "{error}");
    }

    #[test]
    fn a_host_is_meant_in_any_vlan() {
        let tagged = Endpoints {
            network: Network::Ipv4,
            protocol: 6,
            source: 0x0a00_0001,
            destination: 0x0a00_0002,
            source_port: 40_000,
            destination_port: 502,
            vlan: Some(120),
            ..Endpoints::default()
        };
        for (expression, matches) in
            [("host 10.0.0.2", true), ("vlan 120 and port 502", true), ("vlan 121", false), ("host 10.0.0.3", false)]
        {
            assert_eq!(SessionFilter::new(expression).unwrap().matches(&tagged), matches, "{expression}");
        }
    }
}
