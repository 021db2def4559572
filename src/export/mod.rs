//! From kept packets to what people and tools read.

pub mod pcap;
pub mod pcapng;
pub mod text;
