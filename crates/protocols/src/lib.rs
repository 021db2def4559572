//! Recognises protocols by content, and reads their messages, names, fingerprints and transferred objects.
//!
//! [`Protocols`] takes the events of [`streams`], recognises the protocol of each session from its first bytes, and
//! passes [`Event`]s and [`ObjectPart`]s to a [`ProtocolSink`]. A protocol is one file and one row of [`table`]. A
//! parser reads the unused bytes of a direction from their start, and returns how many it has used. The module
//! [`analysis`] keeps the rest within a limit, with the packets that carried it.
//!
//! Invariants: the input is untrusted. No parser panics, recurses, or keeps more than [`analysis::BUFFER_BYTES_MAX`] of
//! a direction. A message that a parser cannot read ends the parser, not the session. Texts in events are at most
//! [`event::TEXT_BYTES_MAX`] long.
#![forbid(unsafe_code)]

pub mod analysis;
mod app_filter;
mod app_search;
mod bacnet;
mod cursor;
mod dhcp;
mod dnp3;
mod dns;
mod enip;
pub mod event;
mod fingerprint;
mod ftp;
mod hpack;
mod http;
mod http2;
mod iec104;
mod imap;
mod lines;
mod modbus;
mod mqtt;
mod nfs;
mod nfs_files;
mod ntp;
pub mod object;
mod opcua;
pub mod parser;
mod pop3;
pub mod probe;
mod profinet;
pub mod protocol;
mod rdp;
mod s7comm;
mod session_apps;
mod session_ends;
mod shared_file;
mod sip;
mod smb1;
mod smb1_commands;
mod smb2;
mod smb_files;
mod smtp;
mod ssh;
pub mod table;
#[cfg(test)]
mod tests;
mod tftp;
mod tls;
mod tls_handshake;
mod tpkt;
mod waiting;

pub use analysis::Protocols;
pub use app_filter::AppFilter;
pub use app_search::AppSearch;
pub use event::{Event, ProtocolSink, Value};
pub use object::{ObjectHead, ObjectPart};
pub use session_apps::{SessionApp, SessionApps};
pub use session_ends::{EndOfSession, SessionEnds};
