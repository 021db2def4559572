//! The JSON bodies of requests.

use std::net::IpAddr;
use std::time::Duration;

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parameters::Clock;
use super::problem::Problem;
use base::time::{self, Timestamp};
use engine::session::community_id::CommunityId;
use formats::writer::{Format, Precision};
use query::search::{SearchTarget, Selector};
use query::selectors::Flow;

/// Longest time that a pin can be asked for, in seconds: 31 days.
const PIN_FOR_S_MAX: f64 = 31.0 * 86_400.0;

/// The body of `POST /v1/pins`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPin {
    /// A tcpdump expression, asked of sessions.
    #[schemars(length(min = 1))]
    pub filter: String,
    /// Seconds for which the pin holds; at most 31 days.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 2_678_400))]
    pub for_s: f64,
    /// Whether a search made it. Such pins have a quarter of the memory of all pins, and at most three places.
    #[serde(default)]
    pub hunt: bool,
}

impl NewPin {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let new: Self = serde_json::from_slice(body).map_err(|error| {
            Problem::bad_query(format!(
                "cannot read what to pin: {error}; send {{\"filter\": \"host 10.0.0.5\", \"for_s\": 7200}}"
            ))
        })?;
        if new.filter.trim().is_empty() {
            return Err(Problem::bad_query(
                "an empty filter would pin every session; name what to keep, as in host 10.0.0.5",
            ));
        }
        if !(new.for_s > 0.0 && new.for_s <= PIN_FOR_S_MAX) {
            let sentence =
                format!("cannot pin for {} s: the time must be above 0 and at most 31 days; try 2h", new.for_s);
            return Err(Problem::bad_query(sentence));
        }
        Ok(new)
    }

    /// How long the pin holds.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.for_s)
    }
}

/// The body of `POST /v1/packets`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Selections")]
pub struct SelectionList {
    /// What to look for.
    #[schemars(length(min = 1))]
    pub selections: Vec<Selection>,
    /// How the answer is arranged.
    #[serde(default)]
    pub answer: Arrangement,
    /// true: the whole sessions that had packets in the window; false: only the packets of the window.
    #[serde(default = "yes")]
    pub whole_sessions: bool,
    /// The seed of the Community IDs; the recorder's by default.
    #[serde(default)]
    pub community_id_seed: Option<u16>,
    /// A tcpdump expression that packets have to match as well.
    #[serde(default)]
    pub filter: String,
    /// Only what came from interfaces of this name.
    #[serde(default)]
    pub interface: Option<String>,
    /// The file format.
    #[serde(default)]
    pub format: FileFormat,
    /// The resolution of times.
    #[serde(default)]
    pub precision: FilePrecision,
}

fn yes() -> bool {
    true
}

/// Exactly one of flow, host and community_id, and a window.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Two endpoints, optionally with a protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    /// An IP address: all its sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub host: Option<IpAddr>,
    /// A Community ID (version 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community_id: Option<String>,
    /// As since of GET /v1/packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// As until of GET /v1/packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// How the answer to many selections is arranged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arrangement {
    /// One file of all packets.
    #[default]
    File,
    /// The same in lines, with an outcome for each selection.
    Lines,
    /// A file for each selection, in lines.
    Split,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// pcapng.
    #[default]
    Pcapng,
    /// Classic pcap.
    Pcap,
}

/// The resolution of times in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilePrecision {
    /// Nanoseconds.
    #[default]
    Nano,
    /// Microseconds.
    Micro,
}

impl From<FileFormat> for Format {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Pcapng => Self::Pcapng,
            FileFormat::Pcap => Self::Pcap,
        }
    }
}

impl From<Format> for FileFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Pcapng => Self::Pcapng,
            Format::Pcap => Self::Pcap,
        }
    }
}

impl From<FilePrecision> for Precision {
    fn from(precision: FilePrecision) -> Self {
        match precision {
            FilePrecision::Nano => Self::Nano,
            FilePrecision::Micro => Self::Micro,
        }
    }
}

impl SelectionList {
    /// Bytes of a body at most, however large the memory budget is.
    pub const BODY_BYTES_MAX: u64 = 16 << 20;

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what would be right.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let list: Self = serde_json::from_slice(body).map_err(|error| {
            Problem::bad_query(format!("the body is not the JSON that /v1/openapi.json describes: {error}"))
        })?;
        if list.selections.is_empty() {
            return Err(Problem::bad_query("\"selections\" is empty; name a flow, a host or a Community ID"));
        }
        Ok(list)
    }

    /// What the selections mean at the time of `clock`.
    ///
    /// # Errors
    ///
    /// Names the first selection that is wrong.
    pub fn selectors(&self, clock: Clock) -> Result<Vec<Selector>, Problem> {
        let numbered = self.selections.iter().enumerate();
        numbered
            .map(|(number, selection)| {
                selection
                    .selector(clock)
                    .map_err(|why| Problem::bad_query(format!("selection {number} (counted from 0): {why}")))
            })
            .collect()
    }
}

impl Selection {
    fn selector(&self, clock: Clock) -> Result<Selector, String> {
        let target = match (&self.flow, self.host, &self.community_id) {
            (Some(flow), None, None) => SearchTarget::Flow(flow.parse::<Flow>().map_err(|error| error.to_string())?),
            (None, Some(host), None) => SearchTarget::Host(host.to_canonical()),
            (None, None, Some(id)) => SearchTarget::CommunityId(
                CommunityId::parse(id).ok_or("no Community ID; it looks like 1:LQU9qZlK+B5F3KDmev6m5PMibrg=")?,
            ),
            _ => return Err("give exactly one of flow, host and community_id".to_owned()),
        };
        let time = |text: &Option<String>| {
            let time = text.as_deref().map(|text| time::parse(text, clock.now, &TimeZone::UTC));
            time.transpose().map_err(|error| error.to_string())
        };
        let since = time(&self.since)?.unwrap_or(Timestamp::MIN);
        let until = time(&self.until)?.unwrap_or(Timestamp::MAX);
        if since > until {
            return Err(format!("it ends before it begins: since {since} is after until {until}; swap them"));
        }
        Ok(Selector { target, since, until })
    }
}
