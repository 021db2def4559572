//! The description of a protocol: name, transport, probe and parser.

use crate::parser::{ExpectedConnection, Parser};
use crate::probe::{Carrier, Probe, Verdict};

/// A protocol.
pub struct Protocol {
    /// The name that `--app` takes.
    pub name: &'static str,
    /// Its transport.
    pub carrier: Carrier,
    /// Whether the first bytes of a session belong to this protocol.
    pub probe: fn(&Probe<'_>) -> Verdict,
    /// Whether a packet after a gap begins a message. Called only after the probe accepted the session.
    pub resumes: fn(&[u8]) -> bool,
    /// Makes a parser.
    pub parser: fn(Option<ExpectedConnection>) -> Box<dyn Parser + Send>,
    /// Whether a session is encrypted after its start.
    pub encrypted: bool,
    /// A description for lists.
    pub title: &'static str,
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A row for a protocol of which every packet begins like a session.
pub(crate) const fn row(
    name: &'static str,
    title: &'static str,
    carrier: Carrier,
    probe: fn(&Probe<'_>) -> Verdict,
    parser: fn(Option<ExpectedConnection>) -> Box<dyn Parser + Send>,
) -> Protocol {
    Protocol { name, carrier, probe, resumes: |_| false, parser, encrypted: false, title }
}
