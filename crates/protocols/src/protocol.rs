//! What a protocol is: a name, what carries it, a probe and a parser.

use crate::parser::{ExpectedConnection, Parser};
use crate::probe::{Carrier, Probe, Verdict};

/// A protocol.
pub struct Protocol {
    /// The name that `--app` takes.
    pub name: &'static str,
    /// What carries it.
    pub carrier: Carrier,
    /// Whether a session begins as this protocol does.
    pub probe: fn(&Probe<'_>) -> Verdict,
    /// Whether a packet after a gap begins a message. The probe is asked before.
    pub resumes: fn(&[u8]) -> bool,
    /// Makes a parser.
    pub parser: fn(Option<ExpectedConnection>) -> Box<dyn Parser + Send>,
    /// Whether what follows the start of a session is encrypted.
    pub encrypted: bool,
    /// What it is, for lists.
    pub title: &'static str,
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A row for a protocol whose packets begin as its sessions do.
pub(crate) const fn row(
    name: &'static str,
    title: &'static str,
    carrier: Carrier,
    probe: fn(&Probe<'_>) -> Verdict,
    parser: fn(Option<ExpectedConnection>) -> Box<dyn Parser + Send>,
) -> Protocol {
    Protocol { name, carrier, probe, resumes: |_| false, parser, encrypted: false, title }
}
