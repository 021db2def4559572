//! The formats of PCAP-over-IP.

use clap::ValueEnum;
use serde::Deserialize;

use crate::export::{Format, Precision};

/// A format that is sent over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FeedFormat {
    /// Classic, with microseconds and one link type, which everything reads
    #[default]
    Pcap,
    /// The same with nanoseconds
    PcapNano,
    /// Everything that is known, for Wireshark
    Pcapng,
}

impl FeedFormat {
    pub(super) fn format(self) -> (Format, Precision) {
        match self {
            Self::Pcap => (Format::Pcap, Precision::Micro),
            Self::PcapNano => (Format::Pcap, Precision::Nano),
            Self::Pcapng => (Format::Pcapng, Precision::Nano),
        }
    }
}
