//! What a search of contents finds, as lines of JSON: matches and objects, with the session that carried them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use base::foreign::Foreign;
use base::interface::Interfaces;
use engine::session::Endpoint;
use engine::session::community_id::CommunityId;
use hunt::Match;
use objects::Object;
use query::flows::{FlowCount, FlowEndpoint};
use streams::{PacketRef, Session};

/// Holes of an object that are listed.
const HOLES_MAX: usize = 1000;

/// A session as the packets of an answer show it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SeenSession")]
pub struct SeenSession {
    /// Time of its first packet in the selection.
    #[schemars(extend("format" = "date-time"))]
    pub first: Foreign,
    /// Time of the latest one so far.
    #[schemars(extend("format" = "date-time"))]
    pub last: Foreign,
    /// `tcp`, `udp`, or a number.
    pub proto: Foreign,
    /// The endpoint that opened it.
    pub originator: FlowEndpoint,
    /// The other endpoint.
    pub responder: FlowEndpoint,
    /// Name of the capture interface.
    pub interface: Foreign,
    /// Packets so far.
    pub packets: FlowCount,
    /// Bytes on the wire so far.
    pub bytes: FlowCount,
    /// Community ID version 1, with the seed 0; null if the session is not IP.
    pub community_id: Option<Foreign>,
    /// Outermost VLAN ID.
    pub vlan: Option<u16>,
}

impl SeenSession {
    /// The session, with the name of its interface.
    pub fn new(session: &Session, interfaces: &Interfaces) -> Self {
        let end = |endpoint: Endpoint| FlowEndpoint {
            ip: endpoint.ip.map(|ip| ip.to_string().into()),
            port: endpoint.port,
            mac: endpoint.mac.map(|_| endpoint.to_string().into()),
        };
        let count = |[originator, responder]: [u64; 2]| FlowCount { originator, responder };
        let interface = interfaces.interface(session.key.interface());
        Self {
            first: session.first.to_rfc3339().into(),
            last: session.last.to_rfc3339().into(),
            proto: session.protocol_name().into(),
            originator: end(session.originator()),
            responder: end(session.responder()),
            interface: interface.map(|interface| interface.name.clone()).unwrap_or_default().into(),
            packets: count(session.packets),
            bytes: count(session.wire_bytes),
            community_id: CommunityId::new(&session.key, 0).map(|id| id.to_string().into()),
            vlan: session.key.vlan(),
        }
    }
}

/// A packet of the answer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PacketPlace")]
pub struct PacketPlace {
    /// When it was captured.
    #[schemars(extend("format" = "date-time"))]
    pub time: Foreign,
    /// Its number among the packets of the selection, from 1; 0 where the session itself matched.
    pub sequence: u64,
}

impl From<PacketRef> for PacketPlace {
    fn from(packet: PacketRef) -> Self {
        Self { time: packet.time.to_rfc3339().into(), sequence: packet.sequence }
    }
}

/// The object in which something matched.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "MatchedObject")]
pub struct MatchedObject {
    /// The claimed name.
    pub name: Foreign,
    /// The type that its content shows.
    pub mime: Foreign,
    /// Bytes of its content.
    pub size: u64,
    /// SHA-256 of its content.
    pub sha256: Foreign,
    /// Whether all of it is there.
    pub complete: bool,
    /// What carried it.
    pub protocol: Foreign,
    /// Where it came from: a URL or path.
    pub source: Foreign,
}

impl MatchedObject {
    /// An object.
    pub fn new(object: &Object) -> Self {
        Self {
            name: object.name.as_str().into(),
            mime: object.mime.into(),
            size: object.content.len() as u64,
            sha256: object.hashes[2].as_str().into(),
            complete: object.complete,
            protocol: object.protocol.into(),
            source: object.source.as_str().into(),
        }
    }
}

/// A match.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Match")]
pub struct MatchLine {
    /// Time of the packet in which it begins.
    #[schemars(extend("format" = "date-time"))]
    pub time: Foreign,
    /// The rule: its name, or the pattern as it was given.
    pub rule: Foreign,
    /// `text`, `bytes`, `regex`, `ioc`, `attack` or `yara`; of a program that `hunt --with` ran, its name.
    pub kind: Foreign,
    /// The session.
    pub flow: SeenSession,
    /// `originator` or `responder`: who sent it; null where the session itself matched.
    pub direction: Option<Foreign>,
    /// Where it lies in the stream of its sender.
    pub stream_offset: Option<u64>,
    /// The packet in which it begins.
    pub packet: PacketPlace,
    /// Its length in bytes.
    pub length: u64,
    /// The bytes in hexadecimal, with some before and after them.
    pub context_hex: Foreign,
    /// Whether bytes of this direction are missing before it.
    pub gap_before: bool,
    /// The object in which it is, where objects were searched.
    pub file: Option<MatchedObject>,
    /// Of an attack: `attempt`, `success` or another word of the rule.
    pub stage: Option<Foreign>,
    /// What was found, in words.
    pub detail: Option<Foreign>,
}

impl MatchLine {
    /// A match of a session, and the object in which it is.
    pub fn new(session: &Session, found: &Match, file: Option<MatchedObject>, interfaces: &Interfaces) -> Self {
        let text = |text: &str| (!text.is_empty()).then(|| text.into());
        Self {
            time: found.packet.time.to_rfc3339().into(),
            rule: found.rule.as_str().into(),
            kind: found.kind.name().into(),
            flow: SeenSession::new(session, interfaces),
            direction: found.sender.map(|sender| sender.name().into()),
            stream_offset: found.stream_offset,
            packet: found.packet.into(),
            length: found.length,
            context_hex: found.context.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
            gap_before: found.gap_before,
            file,
            stage: text(&found.stage),
            detail: text(&found.detail),
        }
    }
}

/// A part of an object that is missing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Hole")]
pub struct HoleLine {
    /// Where it begins.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// An object: a file, a body, a mail or a part of one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Object")]
pub struct ObjectLine {
    /// Time of the packet in which it begins.
    #[schemars(extend("format" = "date-time"))]
    pub time: Foreign,
    /// What carried it: `http`, `smtp` and so on.
    pub protocol: Foreign,
    /// The claimed name.
    pub name: Foreign,
    /// The type that its content shows.
    pub mime: Foreign,
    /// The claimed type.
    pub mime_declared: Foreign,
    /// Bytes of its content.
    pub size: u64,
    /// The claimed size.
    pub size_declared: Option<u64>,
    /// Whether all of it is there.
    pub complete: bool,
    /// Of an archive: whether all of its parts were unpacked; notes say why not. Absent for other objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<bool>,
    /// Bytes that are known to be missing; zeros stand in their place.
    pub missing_bytes: u64,
    /// MD5 of the content.
    pub md5: Foreign,
    /// SHA-1 of the content.
    pub sha1: Foreign,
    /// SHA-256 of the content.
    pub sha256: Foreign,
    /// The session that carried it.
    pub flow: SeenSession,
    /// Who sent it.
    pub direction: Foreign,
    /// Where it came from: a URL or path.
    pub source: Foreign,
    /// Where its bytes are: the file that was written, or the target of the request that gets them.
    pub path: Option<Foreign>,
    /// Its number in this answer, from 1.
    pub number: u64,
    /// The object that it is a part of.
    pub part_of: Option<u64>,
    /// The packet in which it begins.
    pub packet: PacketPlace,
    /// The offset in the stream of its sender at which it begins.
    pub stream_offset: u64,
    /// What is missing, the first thousand parts.
    pub holes: Vec<HoleLine>,
    /// Limits that were reached, and what could not be undone.
    pub notes: Vec<Foreign>,
}

impl ObjectLine {
    /// An object of a session. `path` says where its bytes are.
    pub fn new(session: &Session, object: &Object, path: Option<String>, interfaces: &Interfaces) -> Self {
        let hole = |&(offset, length): &(u64, u64)| HoleLine { offset, length };
        Self {
            time: object.packet.time.to_rfc3339().into(),
            protocol: object.protocol.into(),
            name: object.name.as_str().into(),
            mime: object.mime.into(),
            mime_declared: object.mime_declared.as_str().into(),
            size: object.content.len() as u64,
            size_declared: object.size_declared,
            complete: object.complete,
            unpacked: object.unpacked,
            missing_bytes: object.missing_bytes,
            md5: object.hashes[0].as_str().into(),
            sha1: object.hashes[1].as_str().into(),
            sha256: object.hashes[2].as_str().into(),
            flow: SeenSession::new(session, interfaces),
            direction: object.sender.name().into(),
            source: object.source.as_str().into(),
            path: path.map(Into::into),
            number: object.number,
            part_of: object.part_of,
            packet: object.packet.into(),
            stream_offset: object.offset,
            holes: object.holes.iter().take(HOLES_MAX).map(hole).collect(),
            notes: object.notes.iter().map(|note| note.as_str().into()).collect(),
        }
    }
}
