//! One known session in JSON, and the orders in which sessions are listed. [`listing`](super::listing) lists them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attribution::Attribution;
use super::session_names::Names;
use base::foreign::Foreign;
use base::interface::Interface;
use decode::Network;
use engine::session::community_id::CommunityId;
use engine::session::{Endpoint, Session};

/// The sort order of a listing. Amounts descend. Times ascend, except for `Newest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// Time of the first packet, newest first.
    #[default]
    Newest,
    /// Time of the first packet.
    Start,
    /// Time of the latest packet.
    Last,
    /// Bytes on the wire, most first.
    Bytes,
    /// Packets, most first.
    Packets,
    /// Time between the first and the latest packet, longest first.
    Duration,
    /// Bytes sent by the originator, most first.
    Out,
    /// Bytes sent by the responder, most first.
    In,
}

impl Sort {
    /// Every order. The position of an order is its number in a page mark.
    pub(super) const ALL: [Self; 8] =
        [Self::Newest, Self::Start, Self::Last, Self::Bytes, Self::Packets, Self::Duration, Self::Out, Self::In];

    /// Whether the sort key of a session changes with its packets.
    pub(super) fn can_change(self) -> bool {
        !matches!(self, Self::Newest | Self::Start)
    }

    /// The sort key of a session. A listing is in ascending order of it.
    pub(super) fn key(self, session: &Session) -> SortKey {
        let (first, last) = (session.first.0, session.last.0);
        let amount = |amount: u64| SortKey { group: u64::MAX - amount, within: u64::MAX - first / MILLI_NS };
        match self {
            Self::Newest => SortKey { group: u64::MAX - first / MILLI_NS, within: u64::MAX - first },
            Self::Start => {
                SortKey { group: first / MILLI_NS, within: if session.is_past() { u64::MAX } else { first } }
            }
            Self::Last => SortKey { group: last.div_ceil(MILLI_NS), within: last },
            Self::Bytes => amount(session.bytes.sum()),
            Self::Packets => amount(session.packets.sum()),
            Self::Duration => {
                let duration_ms = last.div_ceil(MILLI_NS) - first / MILLI_NS;
                let within = if session.is_past() { u64::MAX } else { u64::MAX - last.saturating_sub(first) };
                SortKey { group: u64::MAX - duration_ms, within }
            }
            Self::Out => amount(session.bytes.originator),
            Self::In => amount(session.bytes.responder),
        }
    }
}

/// Nanoseconds of the unit to which the archive rounds times.
pub(super) const MILLI_NS: u64 = 1_000_000;

/// The sort key of a session, in two parts.
///
/// The archive rounds times to the millisecond. `group` is the same before and after a session moves to the archive.
/// `within` orders the sessions of one group; an archived session comes after those of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SortKey {
    pub(super) group: u64,
    pub(super) within: u64,
}

/// One endpoint in JSON: an IP address and port, or a link-layer address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowEndpoint {
    /// IP address; null if the session is not IP.
    pub ip: Option<Foreign>,
    /// Port; for ICMP the type or code; 0 if there is none.
    pub port: u16,
    /// Link-layer address, if the session is not IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Foreign>,
}

/// A count for each endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowCount {
    /// Sent by the originator.
    pub originator: u64,
    /// Sent by the responder.
    pub responder: u64,
}

impl FlowCount {
    /// Sum of both counts.
    pub fn sum(self) -> u64 {
        self.originator.saturating_add(self.responder)
    }
}

/// One session in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flow {
    /// Identifies the session, also when it comes twice in the pages of a listing.
    #[serde(default)]
    pub id: Foreign,
    /// Time of the first packet.
    #[schemars(extend("format" = "date-time"))]
    pub first: Foreign,
    /// Time of the latest packet.
    #[schemars(extend("format" = "date-time"))]
    pub last: Foreign,
    /// `tcp`, `udp` and other names; the number of an IP protocol without a name here; the ethertype of a session that
    /// is not IP.
    pub proto: Foreign,
    /// The endpoint that sent the SYN, or else the first packet.
    pub originator: FlowEndpoint,
    /// The other endpoint.
    pub responder: FlowEndpoint,
    /// Name of the capture interface; empty if it is no longer known.
    pub interface: Foreign,
    /// Packets seen.
    pub packets: FlowCount,
    /// Bytes on the wire seen.
    pub bytes: FlowCount,
    /// Retained captured bytes.
    pub kept_bytes: u64,
    /// Retained packets.
    pub kept_packets: u64,
    /// True if `kept_packets` and `kept_bytes` are 0 for want of a count: the session lost its entry to a newer one while
    /// packets of it were retained. A query of packets returns those that still are. Absent if false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept_unknown: bool,
    /// Time at which packets of the session were last removed; null while all are retained.
    #[schemars(extend("format" = "date-time"))]
    #[serde(default)]
    pub cut_at: Option<Foreign>,
    /// Parts that are missing between packets of it that are there, at least; 0 where it is whole or was cut from its end.
    #[serde(default)]
    pub holes: u64,
    /// How far it came.
    pub state: Foreign,
    /// Community ID version 1, with the seed of the request or else that of the recorder; null if the session is not
    /// IP.
    pub community_id: Option<Foreign>,
    /// Outermost VLAN ID; null without a VLAN tag.
    pub vlan: Option<u16>,
    /// Names in its first packets, if these are retained.
    #[serde(flatten)]
    pub names: Names,
    /// The processes that had it, where they are watched.
    #[serde(flatten)]
    pub attribution: Attribution,
    /// Its application protocol, where its packets were read for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<FlowApp>,
}

/// The application protocol of a session, known by content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowApp {
    /// The protocol, as in `modbus`.
    pub name: Foreign,
    /// What was said in it, as in `read` and `write`.
    #[serde(default)]
    pub words: Vec<Foreign>,
}

impl Flow {
    /// Converts a session to its JSON form. `seed` is the seed of the Community ID.
    pub fn new(session: &Session, interface: Option<&Interface>, seed: u16) -> Self {
        Self {
            id: Foreign::default(),
            first: session.first.to_rfc3339().into(),
            last: session.last.to_rfc3339().into(),
            proto: protocol(session).into(),
            originator: endpoint(session.originator()),
            responder: endpoint(session.responder()),
            // The table entry may belong to another interface by now.
            interface: interface.filter(|i| i.since <= session.last).map(|i| i.name.clone()).unwrap_or_default().into(),
            packets: FlowCount { originator: session.packets.originator, responder: session.packets.responder },
            bytes: FlowCount { originator: session.bytes.originator, responder: session.bytes.responder },
            kept_bytes: session.kept_bytes,
            kept_packets: session.kept_packets,
            kept_unknown: session.may_have_packets(),
            cut_at: session.cut_at.map(|at| at.to_rfc3339().into()),
            holes: 0,
            state: session.state().as_str().into(),
            community_id: CommunityId::new(&session.key, seed).map(|id| id.to_string().into()),
            vlan: session.key.vlan(),
            names: Names::default(),
            attribution: Attribution::default(),
            app: None,
        }
    }

    /// Names the session by its identity; see [`History::identity`](super::History::identity).
    #[must_use]
    pub fn identified(self, identity: u64) -> Self {
        Self { id: format!("{identity:016x}").into(), ..self }
    }

    /// Whether packets of the session are no longer retained.
    pub fn is_cut(&self) -> bool {
        self.kept_packets < self.packets.sum()
    }
}

fn endpoint(endpoint: Endpoint) -> FlowEndpoint {
    FlowEndpoint {
        ip: endpoint.ip.map(|ip| ip.to_string().into()),
        port: endpoint.port,
        mac: endpoint.mac.map(|_| endpoint.to_string().into()),
    }
}

/// The value of [`Flow::proto`] for a session.
pub fn protocol(session: &Session) -> String {
    let key = &session.key;
    let name = match (key.network(), key.protocol()) {
        (Network::Link, _) => {
            return match key.ethertype() {
                0 => "link".to_owned(),
                0x0806 => "arp".to_owned(),
                0x88cc => "lldp".to_owned(),
                0x8892 => "profinet".to_owned(),
                ethertype => format!("{ethertype:#06x}"),
            };
        }
        (_, 1) => "icmp",
        (_, 2) => "igmp",
        (_, 6) => "tcp",
        (_, 17) => "udp",
        (_, 47) => "gre",
        (_, 50) => "esp",
        (_, 51) => "ah",
        (_, 58) => "icmp6",
        (_, 132) => "sctp",
        (_, number) => return number.to_string(),
    };
    name.to_owned()
}
