//! Reads and writes capture files: classic pcap and pcapng. Reads Windows' trace files.
#![forbid(unsafe_code)]

pub mod annotations;
mod constants;
pub mod etl;
pub mod reader;
mod statistics;
pub mod writer;
