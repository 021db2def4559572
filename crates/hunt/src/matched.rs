//! What a hunt finds.

use streams::{PacketRef, Sender, Session};

/// The kind of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--text`
    Text,
    /// `--bytes`
    Bytes,
    /// `--regex`
    Regex,
    /// `--ioc`
    Ioc,
    /// `--attack`
    Attack,
    /// `--yara`
    Yara,
    /// `--with suricata`
    Suricata,
    /// `--with zeek`
    Zeek,
    /// `--with tshark`
    Tshark,
}

impl Kind {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Regex => "regex",
            Self::Ioc => "ioc",
            Self::Attack => "attack",
            Self::Yara => "yara",
            Self::Suricata => "suricata",
            Self::Zeek => "zeek",
            Self::Tshark => "tshark",
        }
    }
}

/// A match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The rule, as it was given or by its name.
    pub rule: String,
    /// Its kind.
    pub kind: Kind,
    /// Of an attack: `attempt`, `success` or another word of the rule.
    pub stage: String,
    /// The sender of the matching bytes; `None` if the session itself matched.
    pub sender: Option<Sender>,
    /// Where it lies in the stream of the sender.
    pub stream_offset: Option<u64>,
    /// The packet in which it begins.
    pub packet: PacketRef,
    /// Its length in bytes.
    pub length: u64,
    /// The bytes, with some before and after them.
    pub context: Vec<u8>,
    /// Whether bytes are missing before it in this direction.
    pub gap_before: bool,
    /// What was found, in words: a name, an address, the fields of a message. Untrusted.
    pub detail: String,
}

/// Takes matches as they are found.
pub trait MatchSink {
    /// Takes a match of a session.
    fn found(&mut self, session: &Session, one: Match);
}
