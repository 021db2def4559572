//! Reads and writes capture files: classic pcap and pcapng.
#![forbid(unsafe_code)]

pub mod annotations;
mod constants;
pub mod reader;
mod statistics;
pub mod writer;
