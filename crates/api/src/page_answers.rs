//! The JSON documents of the web page: who asks, packets as lines, and what was said.

use std::collections::BTreeMap;

use base::foreign::Foreign;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The body of `POST /v1/hunt/rule`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnRule {
    /// The text of a rule (TOML), with its test conversations, as `retrocap hunt --check` reads it.
    pub rule: String,
}

/// The body of `POST /v1/page`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewPageLink {
    /// The user whose browser is to open the link, if that is not the user who asks; only root may name one.
    pub browser_uid: Option<u32>,
}

/// A link that opens the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageLink {
    /// The link. It works once.
    pub url: Foreign,
    /// Seconds without a use after which it, or the session that it opened, ends.
    pub idle_s: u64,
}

/// The body of `POST /v1/page/session`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageExchange {
    /// The secret in the fragment of the link.
    pub link: String,
}

/// A session of the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageToken {
    /// What the page sends with each request: `Authorization: Bearer TOKEN`.
    pub token: String,
}

/// Who asks, and what the recorder offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageVisitor {
    /// Who asks, as the audit log names them.
    pub who: Foreign,
    /// Their roles.
    pub roles: Vec<Foreign>,
    /// The name of the recorder's host.
    pub host: Foreign,
    /// The version of the recorder.
    pub version: Foreign,
    /// The path of the recorder's socket, for commands that the page shows; empty where it is not known.
    pub socket: Foreign,
    /// Whether there is a dissector.
    pub dissector: bool,
    /// Seconds without a request after which the session ends; null for clients that have no session of the page.
    pub idle_s: Option<u64>,
}

/// A packet as a line of text.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PacketLine")]
pub struct PacketLine {
    /// When it was captured.
    #[schemars(extend("format" = "date-time"))]
    pub time: Foreign,
    /// What retrocap get prints, without the time.
    pub text: Foreign,
    /// Name of the capture interface.
    pub interface: Foreign,
    /// The link type, as in capture files.
    pub link_type: u16,
    /// Bytes on the wire.
    pub length: u64,
    /// Bytes that are kept.
    pub captured: u64,
    /// The first of these bytes, at most 4096.
    #[schemars(extend("contentEncoding" = "base64"))]
    pub data: String,
}

/// A part of what a side of a session sent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StreamPart")]
pub struct StreamPart {
    /// The number of the session in the answer.
    pub session: u64,
    /// The endpoint of the originator; with the first part of a session alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originator: Option<Foreign>,
    /// The endpoint of the responder; with the first part of a session alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responder: Option<Foreign>,
    /// `originator` or `responder`.
    pub direction: Foreign,
    /// Bytes of this direction before it.
    pub offset: u64,
    /// Bytes; of a gap 0 if the number is unknown.
    pub length: u64,
    /// When the packet that carried it was captured; null for a gap.
    #[schemars(extend("format" = "date-time"))]
    pub time: Option<Foreign>,
    /// The bytes; null for a gap.
    #[schemars(extend("contentEncoding" = "base64"))]
    pub data: Option<String>,
    /// Why the bytes are missing: `no_syn`, `snaplen`, `dropped`, `cut`, `evicted`, `overtaken` or `missing`; null where they
    /// are there.
    pub gap: Option<Foreign>,
    /// Whether a later packet had other bytes for this place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conflict: bool,
}

/// A message of an application protocol.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SessionMessage")]
pub struct SessionMessage {
    /// The number of the session in the answer.
    pub session: u64,
    /// The endpoint of the originator; with the first message of a session alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originator: Option<Foreign>,
    /// The endpoint of the responder; with the first message of a session alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responder: Option<Foreign>,
    /// `originator` or `responder`.
    pub direction: Foreign,
    /// When the packet that carried its beginning was captured; null if that is not known.
    #[schemars(extend("format" = "date-time"))]
    pub time: Option<Foreign>,
    /// Bytes of this direction before it.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// The protocol, as in `tls`.
    pub app: Foreign,
    /// The kind of message, as in `tls.certificate`.
    pub name: Foreign,
    /// What it does, as in `read` and `write`.
    pub words: Vec<Foreign>,
    /// What it says: numbers and texts by their names, as in `subject`, `ja3` and `hassh`.
    pub fields: BTreeMap<String, MessageValue>,
}

/// A number, or text out of packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "MessageValue")]
pub enum MessageValue {
    /// A number.
    Number(i64),
    /// Text.
    Text(Foreign),
}
