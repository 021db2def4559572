//! What is decided of a session once, when it begins: its class, whether its hosts flood, and which pins protect it.
//!
//! A filter costs what it costs once a session, not once a packet: what was decided is written into the session's
//! [`SessionMarks`], and the store sorts packets by them.

pub mod classes;
mod floods;
pub mod pins;

pub use classes::{Class, Classes};
pub use pins::{Pin, Pins};

use crate::session::key::Side;
use crate::session::{SessionKey, SessionMarks, SessionTable, SessionUpdate};
use base::memory::Lock;
use base::packet::Packet;
use filter::{Endpoints, FilterError, FilterSet, OPTIMIZED_TERMS_MAX, SessionProbe, limited_terms};
use floods::Floods;

/// A tcpdump expression that is asked of sessions.
///
/// A session matches when its first packet does, or when a packet of it in either direction could: that can be asked when
/// its packets are gone, too.
#[derive(Clone, Debug)]
pub struct SessionFilter {
    packets: FilterSet,
    sessions: SessionProbe,
}

impl SessionFilter {
    /// Compiles an expression, of no more terms than libpcap's optimizer gets: every session that begins is asked, twice.
    ///
    /// # Errors
    ///
    /// When it has more, or libpcap does not accept it.
    pub fn new(expression: &str) -> Result<Self, FilterError> {
        limited_terms(expression, OPTIMIZED_TERMS_MAX)?;
        Ok(Self { packets: FilterSet::new(expression)?, sessions: SessionProbe::new(expression)? })
    }

    /// The expression.
    pub fn expression(&self) -> &str {
        self.packets.expression()
    }

    /// Whether a session that begins with this packet matches.
    fn matches_first(&mut self, packet: &Packet<'_>, session: &Endpoints) -> bool {
        self.packets.matches(packet.link_type, packet.data, packet.original_len) || self.matches(session)
    }

    /// Whether a session matches, as far as that can be told without its packets. It is also asked without its VLAN tags,
    /// behind which an expression looks only where it says so: whoever names a host means it in any VLAN.
    pub fn matches(&mut self, session: &Endpoints) -> bool {
        let untagged = Endpoints { vlan: None, inner_vlan: None, ..*session };
        self.sessions.matches(session) || (session.vlan.is_some() && self.sessions.matches(&untagged))
    }
}

/// What a session can be asked for.
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

/// Decides.
#[derive(Debug)]
pub struct Judge {
    classes: Classes,
    pins: pins::Watch,
    floods: Floods,
}

impl Judge {
    /// Bytes that it takes.
    pub const BYTES: u64 = Floods::BYTES;

    /// `store_bytes` is the memory that floods could take.
    ///
    /// # Errors
    ///
    /// When the system has no memory.
    pub fn new(
        classes: Classes,
        pins: std::sync::Arc<Pins>,
        store_bytes: u64,
        seed: u64,
        lock: Lock,
    ) -> std::io::Result<Self> {
        Ok(Self { classes, pins: pins::Watch::new(pins), floods: Floods::new(store_bytes, seed, lock)? })
    }

    /// What is decided of the session of a packet that was just counted. `now_ns` never goes back.
    pub fn decide(
        &mut self,
        packet: &Packet<'_>,
        update: &SessionUpdate,
        sessions: &mut SessionTable,
        now_ns: u64,
    ) -> SessionMarks {
        let mut marks = update.marks;
        let grows = marks.grown < floods::GROWN_MAX && update.offset >= floods::grown_from_bytes(marks.grown);
        if !update.begins && !update.answered && !grows {
            return marks;
        }
        if update.begins {
            let (key, originator) = sessions.key(update.slot);
            if !self.classes.is_empty() || !self.pins.is_empty() {
                let session = Endpoints::from(&key);
                marks.class = self.classes.class_of(packet, &session);
                marks.pins = self.pins.of(packet, &session);
            }
            (marks.flood, marks.storm) = self.floods.begins(&key, originator, now_ns);
        } else if update.answered {
            let (key, originator) = sessions.key(update.slot);
            marks.flood = self.floods.answered(&key, originator, marks.flood, now_ns);
        }
        if grows {
            let (key, originator) = sessions.key(update.slot);
            marks.grown += 1;
            self.floods.grows(&key, originator, marks.grown, now_ns);
        }
        if marks != update.marks {
            sessions.set_marks(update.slot, marks);
        }
        marks
    }

    /// Whether a packet is one that the class of its session says is important.
    #[inline]
    pub fn is_important(&mut self, marks: SessionMarks, packet: &Packet<'_>) -> bool {
        marks.class > 0 && self.classes.is_important(marks.class, packet)
    }

    /// Whether a packet at `offset` of a session is not to be kept, as its class says.
    pub fn cuts_off(&self, marks: SessionMarks, offset: u64) -> bool {
        marks.pins == 0 && self.classes.cutoff_bytes(marks.class).is_some_and(|cutoff| offset >= cutoff)
    }

    /// Takes over pins that were made or have ended since the last time.
    pub fn refresh(&mut self, sessions: &mut SessionTable) -> Option<pins::Changed> {
        self.pins.refresh(sessions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use decode::Network;

    #[test]
    fn what_each_session_is_asked_has_few_terms() {
        let hosts = |count| vec!["host 10.0.0.1"; count].join(" or ");
        assert!(SessionFilter::new(&hosts(OPTIMIZED_TERMS_MAX)).is_ok());
        let error = SessionFilter::new(&hosts(OPTIMIZED_TERMS_MAX + 1)).unwrap_err().to_string();
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
