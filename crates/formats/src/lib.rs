//! Capture files, read and written: classic pcap and pcapng.
#![forbid(unsafe_code)]

pub mod reader;
pub mod writer;
