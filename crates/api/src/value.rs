//! The types of parameters: what each accepts, and how it is read and written.

use std::num::NonZeroU64;

use formats::writer::{Format, Precision};
use hunt::SearchScope;
use protocols::AppFilter;
use query::Tier;
use query::flows::Sort;
use query::listing::PageCursor;
use query::selectors::PortRange;
use query::sums::By;

/// What the value of a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number.
    Number {
        /// The smallest.
        min: u64,
        /// The largest, if there is a limit.
        max: Option<u64>,
    },
    /// Present or not; the value is optional.
    Flag,
    /// One of these words.
    Words(&'static [&'static str]),
    /// Any text, and the parameter may be repeated.
    Texts,
}

/// A type that a value is read as.
pub trait ParameterValue: Sized {
    /// What is accepted.
    const KIND: Kind;
    /// The same in words: `"x" cannot be "y"; it is …`.
    const EXPECTED: &'static str;

    /// Reads a value; `None` if it is no such value.
    fn read(text: &str) -> Option<Self>;
    /// Writes the value as [`read`](Self::read) takes it.
    fn write(&self) -> String;
    /// The values of a parameter that may be repeated; otherwise the one value.
    fn write_all(&self) -> Vec<String> {
        vec![self.write()]
    }
}

/// The values of a parameter that may be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

impl Texts {
    /// Between values that are read at once; no value contains it.
    pub(super) const SEPARATOR: char = '\0';
}

impl ParameterValue for Texts {
    const KIND: Kind = Kind::Texts;
    const EXPECTED: &'static str = "a text without the character NUL";

    fn read(text: &str) -> Option<Self> {
        Some(Self(text.split(Self::SEPARATOR).map(str::to_owned).collect()))
    }

    fn write(&self) -> String {
        self.0.join("\0")
    }

    fn write_all(&self) -> Vec<String> {
        self.0.clone()
    }
}

impl ParameterValue for String {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a text";

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }
}

impl ParameterValue for NonZeroU64 {
    const KIND: Kind = Kind::Number { min: 1, max: None };
    const EXPECTED: &'static str = "a whole number above 0";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl ParameterValue for u64 {
    const KIND: Kind = Kind::Number { min: 0, max: None };
    const EXPECTED: &'static str = "a whole number";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl ParameterValue for u16 {
    const KIND: Kind = Kind::Number { min: 0, max: Some(u16::MAX as u64) };
    const EXPECTED: &'static str = "a whole number from 0 to 65535";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl ParameterValue for PortRange {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a port from 0 to 65535 or a range of them";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl ParameterValue for AppFilter {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str =
        "a protocol that is known by content, as in tls, one with a word, as in modbus:write, or any";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl ParameterValue for PageCursor {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "the value of the trailer retrocap-next, which ended the page before";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl ParameterValue for bool {
    const KIND: Kind = Kind::Flag;
    const EXPECTED: &'static str = "given without a value";

    fn read(text: &str) -> Option<Self> {
        match text {
            "" | "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        }
    }

    fn write(&self) -> String {
        if *self { "1" } else { "0" }.to_owned()
    }
}

/// Words that stand for the values of an enum.
macro_rules! words {
    ($type:ty, $expected:literal, $($word:literal => $value:expr),+ $(,)?) => {
        impl ParameterValue for $type {
            const KIND: Kind = Kind::Words(&[$($word),+]);
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                [$(($word, $value)),+].into_iter().find(|(word, _)| *word == text).map(|(_, value)| value)
            }

            fn write(&self) -> String {
                let known = [$(($word, $value)),+].into_iter().find(|(_, value)| value == self);
                known.map(|(word, _)| word.to_owned()).unwrap_or_default()
            }
        }
    };
}

words!(Format, "pcapng or pcap", "pcapng" => Format::Pcapng, "pcap" => Format::Pcap);
words!(Precision, "nano or micro", "nano" => Precision::Nano, "micro" => Precision::Micro);
words!(Tier, "memory or disk", "memory" => Tier::Memory, "disk" => Tier::Disk);
words!(
    By, "host, peer, port, process or container",
    "host" => By::Host, "peer" => By::Peer, "port" => By::Port, "process" => By::Process, "container" => By::Container,
);
words!(
    Sort, "newest, start, last, bytes, packets, duration, out or in",
    "newest" => Sort::Newest,
    "start" => Sort::Start, "last" => Sort::Last, "bytes" => Sort::Bytes, "packets" => Sort::Packets,
    "duration" => Sort::Duration, "out" => Sort::Out, "in" => Sort::In,
);
words!(
    SearchScope, "payload, stream or file",
    "payload" => SearchScope::Payload, "stream" => SearchScope::Stream, "file" => SearchScope::File,
);
