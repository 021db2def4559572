//! The formats of PCAP-over-IP.

use std::str::FromStr;

use clap::ValueEnum;

use formats::writer::{Format, Precision};

/// A format that is sent over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FeedFormat {
    /// Classic, with microseconds and one link type, which everything reads
    #[default]
    Pcap,
    /// The same with nanoseconds
    PcapNano,
    /// Everything that is known, for Wireshark
    Pcapng,
}

impl FromStr for FeedFormat {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        <Self as ValueEnum>::from_str(word, false)
            .map_err(|_| format!("no format is called {word:?}: there are pcap, pcap-nano and pcapng"))
    }
}

impl FeedFormat {
    pub(crate) fn format(self) -> (Format, Precision) {
        match self {
            Self::Pcap => (Format::Pcap, Precision::Micro),
            Self::PcapNano => (Format::Pcap, Precision::Nano),
            Self::Pcapng => (Format::Pcapng, Precision::Nano),
        }
    }
}
