//! The packet path after capture: sessions, their classification, and the store with its retention.
//!
//! This crate does no I/O and reads no clock: time comes from packet timestamps.
#![forbid(unsafe_code)]

pub mod budget;
pub mod handover;
mod id_mapping;
pub mod judge;
pub mod own_streams;
pub mod pipeline;
pub mod session;
mod size;
pub mod store;
