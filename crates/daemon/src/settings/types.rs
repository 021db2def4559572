//! Values of settings that have a textual form of their own.

use std::str::FromStr;

use engine::budget::ByteSize;
use formats::writer::{Format, Precision};
use spool::writer::SizeLimit;

/// How fast a capture is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Speed {
    /// At the pace at which it was recorded.
    #[default]
    Recorded,
    /// So many times that pace; above 0.
    Times(f64),
    /// As fast as it can be read.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    /// Reads `max`, `1`, `2.5` or `10x`.
    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.trim();
        if word.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        match word.strip_suffix(['x', 'X']).unwrap_or(word).parse::<f64>() {
            Ok(1.0) => Ok(Self::Recorded),
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Self::Times(times)),
            _ => Err(format!("cannot read the speed {text:?}: try 2 for twice the recorded pace, or max")),
        }
    }
}

/// A share of one core, 0 to 100 percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(pub f64);

impl Default for Percent {
    fn default() -> Self {
        Self(10.0)
    }
}

impl FromStr for Percent {
    type Err = String;

    /// Reads `10`, `10%` or `2.5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').unwrap_or(text.trim());
        match number.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(percent)),
            _ => Err(format!("cannot read the share {text:?}: it is within 0 to 100, try 10 or 0")),
        }
    }
}

/// Room for the spool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SpoolSize {
    /// Bytes for the spool alone.
    Bytes(ByteSize),
    /// Percent of the file system, with everything that is on it.
    Percent(f64),
}

impl SpoolSize {
    /// The least bytes in which a spool works.
    const BYTES_MIN: u64 = 16 << 20;

    /// The limit as the spool knows it.
    pub fn limit(self) -> SizeLimit {
        match self {
            Self::Bytes(size) => SizeLimit::Bytes(size.bytes()),
            Self::Percent(percent) => SizeLimit::Percent(percent),
        }
    }
}

impl Default for SpoolSize {
    fn default() -> Self {
        Self::Percent(90.0)
    }
}

impl FromStr for SpoolSize {
    type Err = String;

    /// Reads `500G` or `90%`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.trim().strip_suffix('%') {
            return match number.trim().parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Percent(percent)),
                _ => Err(format!("cannot read the share {text:?}: it is above 0 and at most 100, try 90%")),
            };
        }
        let size: ByteSize = text.parse().map_err(|error| format!("{error}"))?;
        if size.bytes() < Self::BYTES_MIN {
            return Err(format!("{size} is too little for a spool: the least is 16M"));
        }
        Ok(Self::Bytes(size))
    }
}

/// What the spool's log of sessions has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolSessions {
    /// All columns.
    #[default]
    Full,
    /// All columns but the Community ID.
    Compact,
    /// There is no log.
    Off,
}

impl SpoolSessions {
    /// The words.
    pub const WORDS: &'static [&'static str] = &["full", "compact", "off"];
}

impl FromStr for SpoolSessions {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "full" => Ok(Self::Full),
            "compact" => Ok(Self::Compact),
            "off" => Ok(Self::Off),
            _ => Err(format!("there is no log of sessions {word:?}: use full, compact or off")),
        }
    }
}

/// What to keep longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Starts of sessions, as long as possible.
    Starts,
    /// Starts for long, whole sessions as long as a ring of the same size would.
    #[default]
    Balanced,
    /// Whole sessions, at the cost of starts.
    Whole,
}

impl Keep {
    /// The exponent of the retention curve.
    pub(super) fn alpha(self) -> f64 {
        match self {
            Self::Starts => 1.5,
            Self::Balanced => 1.0,
            Self::Whole => 0.5,
        }
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "starts" => Ok(Self::Starts),
            "balanced" => Ok(Self::Balanced),
            "whole" => Ok(Self::Whole),
            _ => Err(format!("there is no policy {word:?}: use starts, balanced or whole")),
        }
    }
}

/// A format of PCAP-over-IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedFormat {
    /// Classic pcap with microseconds and one link type, which every tool reads.
    #[default]
    Pcap,
    /// Classic pcap with nanoseconds.
    PcapNano,
    /// pcapng, which carries everything that is known.
    Pcapng,
}

impl FeedFormat {
    /// The words for the formats.
    pub const WORDS: &'static [&'static str] = &["pcap", "pcap-nano", "pcapng"];

    /// The file format and its precision of times.
    pub fn format(self) -> (Format, Precision) {
        match self {
            Self::Pcap => (Format::Pcap, Precision::Micro),
            Self::PcapNano => (Format::Pcap, Precision::Nano),
            Self::Pcapng => (Format::Pcapng, Precision::Nano),
        }
    }
}

impl FromStr for FeedFormat {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "pcap" => Ok(Self::Pcap),
            "pcap-nano" => Ok(Self::PcapNano),
            "pcapng" => Ok(Self::Pcapng),
            _ => Err(format!("there is no format {word:?}: use pcap, pcap-nano or pcapng")),
        }
    }
}

/// What clients may do that the configuration does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnlistedClients {
    /// What their certificates say.
    #[default]
    Certified,
    /// Nothing.
    Nothing,
}

impl FromStr for UnlistedClients {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "certified" => Ok(Self::Certified),
            "nothing" => Ok(Self::Nothing),
            _ => Err(format!("{word:?} is neither \"certified\" nor \"nothing\"")),
        }
    }
}
