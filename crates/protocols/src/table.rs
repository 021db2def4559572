//! The protocols, one row each. The first row whose probe says yes wins, so that strict probes come first.

use streams::Session;

use crate::analysis::{Expected, Parser};
use crate::probe::{Probe, Verdict};
use crate::*;

/// What carries a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// TCP or UDP.
    Both,
    /// Frames of this ethertype.
    Link(u16),
    /// Anything else.
    Other,
}

impl Carrier {
    /// The carrier of a session.
    pub(crate) fn of(session: &Session) -> Self {
        match session.key.protocol() {
            6 => Self::Tcp,
            17 => Self::Udp,
            0 => Self::Link(session.key.ethertype()),
            _ => Self::Other,
        }
    }

    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Both)
    }

    pub(crate) fn is_messages(self) -> bool {
        matches!(self, Self::Udp | Self::Both | Self::Link(_))
    }
}

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
    pub parser: fn(Option<Expected>) -> Box<dyn Parser + Send>,
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
    parser: fn(Option<Expected>) -> Box<dyn Parser + Send>,
) -> Protocol {
    Protocol { name, carrier, probe, resumes: |_| false, parser, encrypted: false, title }
}

/// All protocols.
pub static TABLE: [Protocol; 27] = [
    tls::ROW,
    ssh::ROW,
    http::ROW,
    http::ROW_H2C,
    smb2::ROW,
    smb1::ROW,
    rdp::ROW,
    s7comm::ROW,
    opcua::ROW,
    mqtt::ROW,
    sip::ROW,
    ftp::ROW,
    ftp::ROW_DATA,
    smtp::ROW,
    pop3::ROW,
    imap::ROW,
    dnp3::ROW,
    iec104::ROW,
    enip::ROW,
    bacnet::ROW,
    profinet::ROW,
    dhcp::ROW,
    ntp::ROW,
    tftp::ROW,
    modbus::ROW,
    dns::ROW,
    tpkt::ROW,
];
