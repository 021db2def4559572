//! The JSON documents that answers consist of, beside the status, flows and sums, which [`query`] makes.

use base::foreign::Foreign;
use base::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A filter whose sessions are kept whole.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Pin")]
pub struct PinStatus {
    /// Its number, never given twice.
    pub id: u64,
    /// The tcpdump expression.
    pub filter: Foreign,
    /// When it was made.
    #[schemars(extend("format" = "date-time"))]
    pub since: Foreign,
    /// When it ends.
    #[schemars(extend("format" = "date-time"))]
    pub until: Foreign,
    /// Sessions that it protects and that have packets.
    pub sessions: u64,
    /// Packets of these sessions that are kept.
    pub kept_packets: u64,
    /// Sessions with the same addresses and ports that it does not protect, and how to name them; only in the answer that
    /// makes the pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Foreign>,
    /// Captured bytes of these packets.
    pub kept_bytes: u64,
    /// Memory that it has taken so far; what it protects moves there when it would be evicted otherwise.
    pub pinned_bytes: u64,
    /// Packets that found no room there, and age like others.
    pub refused_packets: u64,
}

/// All pins.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Pins")]
pub struct PinList {
    /// The pins.
    pub pins: Vec<PinStatus>,
    /// Memory that pins take, or will take when everything they protect has moved.
    pub used_bytes: u64,
    /// Memory that all pins together may take: a quarter of the budget.
    pub limit_bytes: u64,
}

/// Whether everything is recorded, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Degraded if there is a reason.
    pub status: HealthStatus,
    /// Why it is degraded.
    pub reasons: Vec<HealthReason>,
}

/// The state of health in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Everything is recorded.
    Ready,
    /// Something is wrong.
    Degraded,
}

/// Why the recorder is degraded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthReason {
    /// The reason as a word.
    pub code: HealthCode,
    /// The reason as a sentence, with what to do.
    pub detail: String,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthCode {
    /// Not all workers record.
    NotRecording,
    /// A worker does not move.
    WorkerStuck,
    /// The kernel dropped packets.
    KernelDrops,
    /// Packets came from more interfaces than there is room for.
    InterfacesFull,
    /// The history is shorter than the configuration asks for.
    HorizonShort,
    /// Pins have no room for packets that they protect.
    PinsFull,
    /// Packets may be swapped out.
    NotLocked,
    /// A layer of the sandbox is missing.
    Sandbox,
    /// The audit log cannot be written.
    Audit,
    /// The recorder's certificate expires soon.
    Certificate,
    /// Packets do not reach the disk as asked for.
    Spool,
}

impl HealthCode {
    /// Every code.
    pub const ALL: [Self; 11] = [
        Self::NotRecording,
        Self::WorkerStuck,
        Self::KernelDrops,
        Self::InterfacesFull,
        Self::HorizonShort,
        Self::PinsFull,
        Self::NotLocked,
        Self::Sandbox,
        Self::Audit,
        Self::Certificate,
        Self::Spool,
    ];

    /// The code as a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotRecording => "not_recording",
            Self::WorkerStuck => "worker_stuck",
            Self::KernelDrops => "kernel_drops",
            Self::InterfacesFull => "interfaces_full",
            Self::HorizonShort => "horizon_short",
            Self::PinsFull => "pins_full",
            Self::NotLocked => "not_locked",
            Self::Sandbox => "sandbox",
            Self::Audit => "audit",
            Self::Certificate => "certificate",
            Self::Spool => "spool",
        }
    }
}

/// A piece of a file, in an answer in lines.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Piece<'a> {
    /// The selection whose file it is, counted from 0; missing where there is one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<u32>,
    /// The bytes.
    #[schemars(extend("contentEncoding" = "base64"))]
    pub data: &'a str,
    /// Packets in this piece.
    pub packets: u64,
    /// How far the search has come, from 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub part: f64,
}

/// What was found for a selection, in an answer in lines.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Outcome {
    /// The selection, counted from 0.
    pub selection: u32,
    /// Packets found.
    pub packets: u64,
    /// Their captured bytes.
    pub bytes: u64,
    /// Time of the first packet.
    #[schemars(with = "Option<String>")]
    pub first: Option<Timestamp>,
    /// Time of the last packet.
    #[schemars(with = "Option<String>")]
    pub last: Option<Timestamp>,
    /// Sessions that the selection means, as far as they are known.
    pub sessions: u64,
    /// The selection that means the same sessions; its file is also the file of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<u32>,
    /// Why nothing, or not all, was found.
    pub missing: Option<Missing>,
}

/// Why something is missing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Missing {
    /// in_future, before_horizon, after_newest, nothing_recorded, cut, filtered, dropped, too_many,
    /// not_opened, encrypted, cut_headers, link_type or never_seen.
    pub cause: &'static str,
    /// The cause as a sentence.
    pub detail: Foreign,
    /// Time of the oldest packet kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub horizon: Option<Timestamp>,
    /// Packets that were not opened, and that may therefore match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_opened: Vec<NotOpened>,
}

/// Packets whose addresses and ports are not known, because decoding stopped before them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotOpened {
    /// The header at which decoding stopped, such as `ESP`, `802.11` or `link type USB_LINUX`.
    pub header: Foreign,
    /// unsupported, not_applicable (the question has no meaning for it), not_captured (the captured bytes end before what
    /// it tests), encrypted, compressed, cut (the captured bytes end within the header), fragment (the first fragment was not seen), malformed or too_deep.
    pub reason: Foreign,
    /// How many packets.
    pub packets: u64,
}

impl NotOpened {
    /// One entry for each kind.
    pub fn list(packets: &query::UnopenedPackets) -> Vec<Self> {
        let kinds = packets.kinds();
        kinds
            .map(|(header, reason, packets)| Self {
                header: header.to_string().into(),
                reason: reason.code().to_owned().into(),
                packets,
            })
            .collect()
    }
}

/// The last line of an answer in lines.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Total<'a> {
    /// Always true; an answer without this line is not whole.
    pub done: bool,
    /// Packets of all selections.
    pub packets: u64,
    /// Their captured bytes.
    pub bytes: u64,
    /// Packets that were evicted before they could be sent.
    pub overtaken: u64,
    /// Why the answer is not all that was asked for; missing when it is.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub note: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_named_as_it_is_serialized() {
        for code in HealthCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }
}
