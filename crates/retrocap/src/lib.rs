//! The command line, and re-exports of the crates of Retrocap for tests and fuzz targets.
#![forbid(unsafe_code)]

pub mod alert;
mod archived;
mod capture_input;
pub mod cli;
mod client;
mod error;
mod fleet;
mod machine;
#[cfg(target_os = "linux")]
mod offline;
mod offline_spool;
mod options;
mod terminal;
pub mod untrusted;
mod verbs;

pub use base::{codec, counters, interface, log_limit, memory, packet, source, time};
pub use engine::{budget, handover, judge, own_streams, pipeline, session, store};
pub use {api, base, decode, evidence, filter, formats, hunt, objects, protocols, query, spool, streams};
#[cfg(target_os = "linux")]
pub use {capture, daemon, serve};
