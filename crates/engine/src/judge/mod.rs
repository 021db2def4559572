//! Decisions about a session when it begins: its class, its flood, and the pins that protect it.
//!
//! Filters run once per session, not once per packet. The result is written to the [`SessionMarks`] of the session, and
//! the store selects a queue for each packet by these marks.

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

/// A tcpdump expression that is applied to sessions.
///
/// A session matches if its first packet matches, or if any packet that it can contain, in either direction, would
/// match. The second test needs no packets, so it also works after they are evicted.
#[derive(Clone, Debug)]
pub struct SessionFilter {
    packets: FilterSet,
    sessions: SessionProbe,
}

impl SessionFilter {
    /// Compiles an expression of at most [`OPTIMIZED_TERMS_MAX`] terms. The limit bounds the cost per session, because
    /// each new session is tested up to three times.
    ///
    /// # Errors
    ///
    /// When the expression has more terms, or libpcap rejects it.
    pub fn new(expression: &str) -> Result<Self, FilterError> {
        limited_terms(expression, OPTIMIZED_TERMS_MAX)?;
        Ok(Self { packets: FilterSet::new(expression)?, sessions: SessionProbe::new(expression)? })
    }

    /// The tcpdump expression.
    pub fn expression(&self) -> &str {
        self.packets.expression()
    }

    /// Whether a session that begins with `packet` matches.
    fn matches_first(&mut self, packet: &Packet<'_>, session: &Endpoints) -> bool {
        self.packets.matches(packet.link_type, packet.data, packet.original_len) || self.matches(session)
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

/// Decides the marks of sessions: class, flood and pins.
#[derive(Debug)]
pub struct Judge {
    classes: Classes,
    pins: pins::Watch,
    floods: Floods,
}

impl Judge {
    /// Bytes of memory that a judge takes.
    pub const BYTES: u64 = Floods::BYTES;

    /// `store_bytes` is the size of the packet memory that a flood could fill.
    ///
    /// # Errors
    ///
    /// When the system cannot provide the memory.
    pub fn new(
        classes: Classes,
        pins: std::sync::Arc<Pins>,
        store_bytes: u64,
        seed: u64,
        lock: Lock,
    ) -> std::io::Result<Self> {
        Ok(Self { classes, pins: pins::Watch::new(pins), floods: Floods::new(store_bytes, seed, lock)? })
    }

    /// The marks of the session of a packet that was just counted. `now_ns` never goes back.
    ///
    /// Most packets change nothing, so this part is small enough to be inlined into the packet path.
    #[inline]
    pub fn decide(
        &mut self,
        packet: &Packet<'_>,
        update: &SessionUpdate,
        sessions: &mut SessionTable,
        now_ns: u64,
    ) -> SessionMarks {
        let grown = update.marks.grown;
        let grows = grown < floods::GROWN_MAX && update.offset >= floods::grown_from_bytes(grown);
        if update.begins || update.answered || grows {
            self.mark(packet, update, grows, sessions, now_ns)
        } else {
            update.marks
        }
    }

    /// Decides anew: the session begins, was answered for the first time, or has grown.
    #[inline(never)]
    fn mark(
        &mut self,
        packet: &Packet<'_>,
        update: &SessionUpdate,
        grows: bool,
        sessions: &mut SessionTable,
        now_ns: u64,
    ) -> SessionMarks {
        let mut marks = update.marks;
        let (key, originator) = sessions.key(update.slot);
        if update.begins {
            if !self.classes.is_empty() || !self.pins.is_empty() {
                let session = Endpoints::from(&key);
                marks.class = self.classes.class_of(packet, &session);
                marks.pins = self.pins.of(packet, &session);
            }
            (marks.flood, marks.storm) = self.floods.begins(&key, originator, now_ns);
        } else if update.answered {
            marks.flood = self.floods.answered(&key, originator, marks.flood, now_ns);
        }
        if grows {
            marks.grown += 1;
            self.floods.grows(&key, originator, marks.grown, now_ns);
        }
        if marks != update.marks {
            sessions.set_marks(update.slot, marks);
        }
        marks
    }

    /// Whether a packet is important according to the class of its session.
    #[inline]
    pub fn is_important(&mut self, marks: SessionMarks, packet: &Packet<'_>) -> bool {
        marks.class > 0 && self.classes.is_important(marks.class, packet)
    }

    /// Whether the class of a session drops its packet at `offset` bytes. Pinned sessions have no cutoff.
    pub fn cuts_off(&self, marks: SessionMarks, offset: u64) -> bool {
        marks.pins == 0 && self.classes.cutoff_bytes(marks.class).is_some_and(|cutoff| offset >= cutoff)
    }

    /// Applies the pins that were added or have ended since the last call; `None` if there are none.
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
